//! Checks of the house: layers inside crates, sizes, words, dependency ceilings, and who may do what.

use crate::host::{self, Failure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Limits {
    sizes: Sizes,
    closure: BTreeMap<String, usize>,
    layers: BTreeMap<String, Vec<String>>,
    words: Words,
    exceptions: Exceptions,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sizes {
    file_lines: usize,
    function_lines: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    forbidden: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exceptions {
    #[serde(default)]
    file_lines: BTreeMap<String, String>,
    #[serde(default)]
    function_lines: BTreeMap<String, String>,
}

/// What only one place may hold: text, the places that may, why.
const ONLY_THERE: [(&str, &[&str], &str); 4] = [
    (
        "Mode::Enforce =>",
        &["engine/src/judge/decide.rs", "schema/src/policy.rs"],
        "learn, dry-run and enforce run the same code up to the decision",
    ),
    (
        "Local::Replay",
        &["agent/src/cli/", "schema/src/sealed.rs", "engine/tests/", "engine/src/", "integration/"],
        "a document without a seal counts only where nothing can be cut",
    ),
    (
        "nftables::",
        &["agent/src/enforce/", "agent/tests/"],
        "nothing but the enforcer writes netfilter",
    ),
    ("unsafe {", &[], "no unsafe code"),
];

pub(crate) fn run() -> Result<(), Failure> {
    let top = host::top();
    let path = top.join("xtask/tidy.toml");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let limits: Limits =
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut faults = Vec::new();
    for name in ["schema", "engine", "agent", "collector", "integration", "xtask"] {
        for file in rust_files(&top.join(name)) {
            let shown = file.strip_prefix(&top).unwrap_or(&file).to_string_lossy().into_owned();
            let source = fs::read_to_string(&file)
                .map_err(|error| format!("cannot read {shown}: {error}"))?;
            sizes(&shown, &source, &limits, &mut faults);
            only_there(&shown, &source, &mut faults);
        }
    }
    layers(&top, &limits, &mut faults)?;
    words(&top, &limits, &mut faults);
    closure(&limits, &mut faults)?;
    if faults.is_empty() {
        eprintln!("tidy: fine");
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    Err(format!("tidy found {} faults", faults.len()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The part of a file before its inline tests.
fn without_tests(source: &str) -> &str {
    source
        .find("\n#[cfg(test)]\nmod tests {")
        .map_or(source, |end| source.get(..end).unwrap_or(source))
}

/// The text with comments, strings and character literals blanked out, line breaks kept.
fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        out.extend(
            bytes
                .get(from..to)
                .into_iter()
                .flatten()
                .map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }),
        );
    };
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
        } else if rest.starts_with(b"/*") {
            rest.windows(2).position(|w| w == b"*/").map_or(bytes.len(), |n| at + n + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close: Vec<u8> =
                std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let open = hashes + 2;
            rest.get(open..)
                .and_then(|body| body.windows(close.len()).position(|w| w == close))
                .map_or(bytes.len(), |n| at + open + n + close.len())
        } else if byte == b'"' {
            let mut end = at + 1;
            while let Some(&inner) = bytes.get(end) {
                end += if inner == b'\\' { 2 } else { 1 };
                if inner == b'"' {
                    break;
                }
            }
            end.min(bytes.len())
        } else if byte == b'\'' && (rest.get(2) == Some(&b'\'') || rest.get(1) == Some(&b'\\')) {
            rest.iter().skip(2).position(|b| *b == b'\'').map_or(at + 1, |n| at + n + 3)
        } else {
            out.push(byte);
            at += 1;
            continue;
        };
        blank(&mut out, at, end);
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let body = rest.strip_prefix(b"r")?;
    let hashes = body.iter().take_while(|byte| **byte == b'#').count();
    (body.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn sizes(shown: &str, source: &str, limits: &Limits, faults: &mut Vec<String>) {
    let product = without_tests(source);
    let lines = product.lines().count();
    if lines > limits.sizes.file_lines
        && !limits.exceptions.file_lines.contains_key(shown)
        && !shown.contains("/tests")
    {
        faults.push(format!(
            "{shown}: {lines} lines without tests, {} allowed",
            limits.sizes.file_lines
        ));
    }
    let code = code_only(product);
    let rows: Vec<&str> = code.lines().collect();
    let mut at = 0;
    while at < rows.len() {
        let row = rows.get(at).copied().unwrap_or_default().trim_start();
        let heads = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
            "pub const fn ",
            "const fn ",
        ];
        if !heads.iter().any(|head| row.starts_with(head)) {
            at += 1;
            continue;
        }
        let (mut depth, mut opened, mut end) = (0_i64, false, at);
        'body: for (index, line) in rows.iter().enumerate().skip(at) {
            for byte in line.bytes() {
                match byte {
                    b'{' => {
                        depth += 1;
                        opened = true;
                    }
                    b'}' => depth -= 1,
                    b';' if !opened && depth == 0 && !line.contains('[') => {
                        end = index;
                        break 'body;
                    }
                    _ => {}
                }
            }
            end = index;
            if opened && depth == 0 {
                break;
            }
        }
        let length = end - at + 1;
        let name = row
            .split('(')
            .next()
            .unwrap_or(row)
            .rsplit(' ')
            .next()
            .unwrap_or(row)
            .split('<')
            .next()
            .unwrap_or(row);
        let place = format!("{shown}:{name}");
        // A test that tells one story from end to end may be as long as the story.
        if length > limits.sizes.function_lines
            && !shown.contains("/tests")
            && !limits.exceptions.function_lines.contains_key(&place)
        {
            faults
                .push(format!("{place}: {length} lines, {} allowed", limits.sizes.function_lines));
        }
        at += 1;
    }
}

fn only_there(shown: &str, source: &str, faults: &mut Vec<String>) {
    if shown.starts_with("xtask/") {
        return;
    }
    let code = code_only(without_tests(source));
    for (text, places, why) in ONLY_THERE {
        if code.contains(text) && !places.iter().any(|place| shown.starts_with(place)) {
            faults.push(format!("{shown}: \"{text}\" belongs elsewhere: {why}"));
        }
    }
}

/// Modules named in `crate::MODULE` paths, also inside `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("crate::") {
        let before = rest.get(..at).and_then(|text| text.chars().next_back());
        rest = rest.get(at + 7..).unwrap_or_default();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut fresh = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ if !word.is_empty() => {
                        found.insert(std::mem::take(&mut word));
                        fresh = false;
                    }
                    _ => {}
                }
                if fresh && !word.is_empty() && !(c.is_alphanumeric() || c == '_') {
                    found.insert(std::mem::take(&mut word));
                }
            }
            if !word.is_empty() {
                found.insert(word);
            }
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

fn layers(top: &Path, limits: &Limits, faults: &mut Vec<String>) -> Result<(), Failure> {
    for (name, order) in &limits.layers {
        let source = top.join(name).join("src");
        for file in rust_files(&source) {
            let inner = file.strip_prefix(&source).unwrap_or(&file).to_string_lossy().into_owned();
            if inner == "lib.rs"
                || inner == "main.rs"
                || inner.starts_with("bin/")
                || inner.ends_with("tests.rs")
            {
                continue;
            }
            let module = inner.split(['/', '.']).next().unwrap_or_default().to_owned();
            let Some(rank) = order.iter().position(|layer| *layer == module) else {
                faults.push(format!(
                    "{name}/src/{inner}: module {module} is not in the layers of xtask/tidy.toml"
                ));
                continue;
            };
            let text = fs::read_to_string(&file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            for import in imports(&code_only(without_tests(&text))) {
                if let Some(other) = order.iter().position(|layer| *layer == import)
                    && other > rank
                {
                    faults.push(format!(
                        "{name}/src/{inner}: {module} imports {import}, which comes after it"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn words(top: &Path, limits: &Limits, faults: &mut Vec<String>) {
    let mut files = rust_files(top)
        .into_iter()
        .filter(|file| {
            !file.starts_with(top.join("target")) && !file.starts_with(top.join("xtask"))
        })
        .collect::<Vec<_>>();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        files.push(top.join(name));
    }
    files.extend(
        fs::read_dir(top.join("docs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file()),
    );
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default().to_lowercase();
        for word in &limits.words.forbidden {
            if text.contains(word.as_str()) {
                faults.push(format!(
                    "{}: says \"{word}\"; the glossary has allow-list and deny-list",
                    file.display()
                ));
            }
        }
    }
}

fn closure(limits: &Limits, faults: &mut Vec<String>) -> Result<(), Failure> {
    for (name, ceiling) in &limits.closure {
        let tree = host::output(&mut host::cargo(&[
            "tree", "--locked", "-e", "normal", "--prefix", "none", "-p", name,
        ]))?;
        let crates: BTreeSet<String> =
            tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect();
        if crates.len() > *ceiling {
            faults
                .push(format!("{name}: {} crates in its closure, {ceiling} allowed", crates.len()));
        }
        for forbidden in forbidden(name) {
            if crates.iter().any(|line| line.split(' ').next() == Some(forbidden)) {
                faults.push(format!("{name} must never depend on {forbidden}"));
            }
        }
    }
    Ok(())
}

/// Crates that a floor must never stand on (ARCHITECTURE.md, direction of dependencies).
fn forbidden(name: &str) -> &'static [&'static str] {
    match name {
        "sekisho-schema" => {
            &["sekisho-engine", "sekisho-agent", "sekisho-collector", "etherparse", "tokio"]
        }
        "sekisho-engine" => &[
            "sekisho-agent",
            "sekisho-collector",
            "tokio",
            "pcap",
            "pnet",
            "nftables",
            "maxminddb",
            "tracing",
            "rand",
        ],
        "sekisho-agent" => &["sekisho-collector", "rusqlite", "axum"],
        "sekisho-collector" => &["sekisho-agent", "pcap", "pnet", "nftables"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_read_from_paths_and_groups() {
        let found = imports(
            "use crate::wire::Frame; use crate::{app::dns, flow::{Tracker, table}, learn}; fn f() { crate::judge::x() }",
        );
        assert_eq!(found, ["app", "flow", "judge", "learn", "wire"].map(str::to_owned).into());
    }

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        assert!(!code_only("let a = \"{\"; // {\nlet b = '{'; let c = r#\"{\"{\"#;").contains('{'));
    }
}
