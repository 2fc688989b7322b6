//! Feeds become a compiled set, which counts only as it was compiled and sealed, and replaces
//! another piece by piece.
#![allow(clippy::unwrap_used, reason = "a test")]

use sekisho_agent::rules::{
    Compilation, ListOptions, LoadRulesError, PIECES, ReplaceRulesError, Replacement, RuleSources,
    Seal, compile, load_rules,
};
use sekisho_engine::detect::indicator_set::{IndicatorSet, Kind};
use sekisho_schema::sealed::{Local, SigningKey, key_pair};
use sekisho_schema::{Timestamp, TrustAnchors};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::EPOCH;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn anchors(seed: u8) -> TrustAnchors {
    TrustAnchors::new([key(seed).verifying_key()], 1)
}

fn compiled(dir: &Path, name: &str, list: &str, key: Option<&SigningKey>) -> PathBuf {
    compiled_as(dir, name, 1, list, key)
}

fn compiled_as(
    dir: &Path,
    name: &str,
    version: u64,
    list: &str,
    key: Option<&SigningKey>,
) -> PathBuf {
    let (input, out) = (dir.join(format!("{name}.txt")), dir.join(format!("{name}.ski")));
    fs::write(&input, list).unwrap();
    let set = Compilation { name, version, built_at: NOW, expires: Timestamp::MAX, key };
    compile(&[(name.to_owned(), input)], &ListOptions::default(), None, &set, &out).unwrap();
    out
}

fn with_anchors(list: &Path, anchors: Option<TrustAnchors>) -> RuleSources {
    let sources = RuleSources::new(&[], &[list.to_owned()], Local::Installed);
    RuleSources { anchors, ..sources }
}

#[test]
fn a_compiled_set_counts_as_its_text_did_and_says_who_sealed_it() {
    let dir = TempDir::new().unwrap();
    let list = "c2.example\n203.0.113.9\n198.51.100.0/24\n";
    let signed = compiled(dir.path(), "feed", list, Some(&key(1)));
    let loaded = with_anchors(&signed, Some(anchors(1))).load();
    assert!(loaded.left_out.is_empty(), "{:?}", loaded.left_out);
    assert!(matches!(&loaded.lists[0].seal, Some(Seal::Checked(keys)) if keys.len() == 1));
    let set = &loaded.rules.indicators;
    let told = set.describe(set.by_name("x.c2.example", NOW).unwrap());
    assert_eq!((told.record.source.as_str(), told.rule.as_str()), ("feed", "feed@0#1"));
    assert!(set.by_address("198.51.100.7".parse().unwrap(), NOW).is_some());
    assert_eq!(loaded.in_force.counts["feed"], 3);
    let unsigned = compiled(dir.path(), "own", list, None);
    let loaded = with_anchors(&unsigned, Some(anchors(1))).load();
    assert_eq!((loaded.left_out.len(), &loaded.lists[0].seal), (0, &Some(Seal::Unsigned)));
}

#[test]
fn a_set_that_was_changed_cut_short_or_sealed_by_a_stranger_is_left_out_and_the_rest_counts() {
    let dir = TempDir::new().unwrap();
    let good = compiled(dir.path(), "feed", "c2.example\n203.0.113.9\n", Some(&key(1)));
    let bytes = fs::read(&good).unwrap();
    let other = dir.path().join("other.txt");
    fs::write(&other, "d2.example\n").unwrap();
    let bad = dir.path().join("bad.ski");
    let refused = |content: &[u8], who: u8| {
        fs::write(&bad, content).unwrap();
        let lists = [bad.clone(), other.clone()];
        let sources = RuleSources::new(&[], &lists, Local::Installed);
        let loaded = RuleSources { anchors: Some(anchors(who)), ..sources }.load();
        assert!(loaded.rules.indicators.by_name("d2.example", NOW).is_some());
        assert!(loaded.rules.indicators.by_name("c2.example", NOW).is_none());
        assert_eq!(loaded.in_force.counts[&bad.display().to_string()], 0);
        match loaded.left_out.as_slice() {
            [LoadRulesError::Compiled { source, .. }] => source.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&bytes, 2).contains("trust anchor"));
    for end in [9, 100, bytes.len() - 1] {
        refused(&bytes[..end], 1);
    }
    assert!(refused(&[&bytes[..], b"x"].concat(), 1).contains("added to"));
    // The last byte that is not the empty end of the last piece: somewhere within the sections.
    for back in [1, 40, 200, 400] {
        let mut changed = bytes.clone();
        let at = changed.len() - back;
        changed[at] ^= 1;
        assert!(refused(&changed, 1).contains("was changed"), "{back}");
    }
    let mut resealed = bytes.clone();
    let at = bytes.windows(7).position(|part| part == b"payload").unwrap() + 20;
    resealed[at] = if resealed[at] == b'A' { b'B' } else { b'A' };
    refused(&resealed, 1);
}

fn sources(list: &Path) -> RuleSources {
    with_anchors(list, None)
}

/// Names that a list brought: packs are shipped with some of their own.
fn of_list(set: &IndicatorSet, list: &Path) -> u64 {
    set.tally().get(&(Kind::Domain, list.display().to_string())).copied().unwrap_or(0)
}

fn replaced(set: &mut IndicatorSet, replacement: &mut Replacement) -> usize {
    let mut pieces = 0;
    while let Some(piece) = replacement.next_piece().unwrap() {
        drop(set.exchange(piece));
        pieces += 1;
    }
    pieces
}

#[test]
fn a_replacement_that_lost_most_is_refused_unless_told_and_the_old_set_stays() {
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("feed.txt");
    let names = |many: usize| (0..many).map(|n| format!("n{n}.example\n")).collect::<String>();
    fs::write(&list, names(100)).unwrap();
    let loaded = load_rules(&[], std::slice::from_ref(&list), Local::Installed);
    let mut set = loaded.rules.indicators;
    let begin = |accept| Replacement::begin(sources(&list), &loaded.in_force, accept);
    for few in [names(0), names(49)] {
        fs::write(&list, few).unwrap();
        assert!(matches!(begin(false), Err(ReplaceRulesError::Shrunk(_))));
    }
    fs::write(&list, "what is this?\n").unwrap();
    assert!(matches!(begin(false), Err(ReplaceRulesError::Sources(_))));
    fs::remove_file(&list).unwrap();
    assert!(matches!(begin(false), Err(ReplaceRulesError::Sources(_))));
    fs::write(&list, names(60)).unwrap();
    let mut replacement = begin(false).unwrap();
    assert_eq!(replaced(&mut set, &mut replacement), PIECES);
    assert_eq!(of_list(&set, &list), 60);
    fs::write(&list, names(3)).unwrap();
    let mut told = begin(true).unwrap();
    replaced(&mut set, &mut told);
    assert_eq!(of_list(&set, &list), 3);
}

#[test]
fn an_older_version_of_the_set_in_force_is_refused_unless_forced_though_its_seal_holds() {
    let dir = TempDir::new().unwrap();
    let set = dir.path().join("feed.ski");
    let put = |name: &str, version: u64, list: &str| {
        let made = compiled_as(dir.path(), name, version, list, Some(&key(1)));
        if made != set {
            fs::rename(made, &set).unwrap();
        }
    };
    let sources = || with_anchors(&set, Some(anchors(1)));
    put("feed", 7, "c2.example\n");
    let mut in_force = sources().load().in_force;
    let mut reload = |force: bool| {
        let replacement = Replacement::begin(sources(), &in_force, force)?;
        in_force = replacement.becomes;
        Ok::<_, ReplaceRulesError>(())
    };
    put("feed", 6, "d2.example\n");
    let refused = reload(false).unwrap_err();
    assert!(matches!(refused, ReplaceRulesError::Older { found: 6, in_force: 7, .. }), "{refused}");
    // The same one again and a newer one are no step back, nor is another set in its place.
    for (name, version) in [("feed", 7), ("feed", 9), ("other", 1)] {
        put(name, version, "d2.example\n");
        reload(false).unwrap();
    }
    put("feed", 9, "d2.example\n");
    reload(false).unwrap();
    put("feed", 8, "d2.example\n");
    assert!(reload(false).is_err());
    reload(true).unwrap();
    // What was forced is what later ones are compared with.
    reload(false).unwrap();
    put("feed", 5, "d2.example\n");
    assert!(reload(false).is_err());
}

#[test]
fn a_source_that_changes_in_between_ends_the_replacement_and_what_stays_is_found() {
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("feed.txt");
    let names =
        |from: usize| (from..from + 200).map(|n| format!("n{n}.example\n")).collect::<String>();
    fs::write(&list, names(0)).unwrap();
    let loaded = load_rules(&[], std::slice::from_ref(&list), Local::Installed);
    let mut set = loaded.rules.indicators;
    fs::write(&list, names(100)).unwrap();
    let mut replacement = Replacement::begin(sources(&list), &loaded.in_force, false).unwrap();
    for _ in 0..PIECES / 2 {
        set.exchange(replacement.next_piece().unwrap().unwrap());
    }
    fs::write(&list, "n0.example\n").unwrap();
    assert!(matches!(replacement.next_piece(), Err(ReplaceRulesError::Changed(_))));
    for n in 100..200 {
        assert!(set.by_name(&format!("n{n}.example"), NOW).is_some(), "{n}");
    }
}

/// Kibibytes of a line of this process's own status.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.trim_matches(|sign: char| !sign.is_ascii_digit()).parse().unwrap()
}

/// The measured part of a process of its own: other tests would be counted with it.
#[test]
fn a_million_indicators_are_replaced_with_at_most_three_tenths_more_memory() {
    let Ok(list) = std::env::var("SEKISHO_TEST_REPLACES") else {
        let dir = TempDir::new().unwrap();
        let mut text = String::new();
        for n in 0..500_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0x2D00_0000 + n);
            let _ = writeln!(text, "{address}\n{n:010x}.example");
        }
        let set = compiled(dir.path(), "feed", &text, None);
        let me = std::env::current_exe().unwrap();
        let output = Command::new(me)
            .args([
                "--exact",
                "a_million_indicators_are_replaced_with_at_most_three_tenths_more_memory",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env("SEKISHO_TEST_REPLACES", &set)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("MEASURED"), "{said}");
        return;
    };
    let list = PathBuf::from(list);
    let base = memory("VmRSS:");
    let loaded = load_rules(&[], std::slice::from_ref(&list), Local::Installed);
    let in_force = loaded.in_force;
    let mut set = loaded.rules.indicators;
    assert!(set.counts().total() >= 1_000_000);
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let held = memory("VmRSS:");
    let mut replacement = Replacement::begin(sources(&list), &in_force, false).unwrap();
    assert_eq!(replaced(&mut set, &mut replacement), PIECES);
    assert!(set.counts().total() >= 1_000_000);
    let peak = memory("VmHWM:");
    let ratio = (peak - base) / (held - base);
    // Of the indicators alone; the rest of an agent makes the ratio smaller.
    assert!(ratio <= 1.3, "{ratio:.2}: base {base} KiB, held {held} KiB, peak {peak} KiB");
    println!("MEASURED {ratio:.2}: base {base} KiB, held {held} KiB, peak {peak} KiB");
}

fn sekisho(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sekisho")).args(args).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn import_check_and_stats_tell_what_was_taken_and_what_was_left_out() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("a.txt"), "c2.example\n10.0.0.1\nhxxp://d2[.]example/x\n").unwrap();
    fs::write(path("b.csv"), "type,value,confidence\nip,203.0.113.9,90\nsha256,aa,1\n").unwrap();
    fs::write(path("secret"), key_pair(&[1; 32]).0).unwrap();
    fs::create_dir(path("trust")).unwrap();
    fs::write(path("trust/a.pub"), key_pair(&[1; 32]).1).unwrap();
    let (out, key) = (path("all.ski"), path("secret"));
    let (code, said, error) = sekisho(&[
        "indicators",
        "import",
        "--key",
        &key,
        "--valid-for",
        "90d",
        "--out",
        &out,
        &path("a.txt"),
        &path("b.csv"),
    ]);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    for expected in [
        "all.ski: 3 indicators (address 1, domain 1, url 1), signed by ",
        "a.txt: 1 left out: private or special address 1",
        "line 2: \"10.0.0.1\": is an address of private or special use",
        "b.csv: 1 left out: kind not looked for 1",
        "1 values were written so that nobody follows them",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (code, said, error) = sekisho(&["indicators", "check", "--trust", &path("trust"), &out]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(said.contains("3 indicators (compiled, signed by "), "{said}");
    assert!(!said.contains("unchecked"), "{said}");
    let config = path("agent.toml");
    let text = format!(
        "[paths]\nstate = {:?}\ntrust = {:?}\nrules = {:?}\n[indicators]\nlists = [{out:?}]\n",
        path("state"),
        path("trust"),
        path("rules")
    );
    fs::write(&config, text).unwrap();
    let (code, said, error) = sekisho(&["indicators", "stats", "--config", &config, "-o", "json"]);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["lists"][0]["indicators"], 3);
    assert!(told["lists"][0]["seal"].as_str().unwrap().starts_with("signed by"));
    let of = |source: &str| {
        told["kinds"].as_array().unwrap().iter().filter(|kind| kind["source"] == source).count()
    };
    assert_eq!((of("a"), of("b")), (2, 1), "{told}");
    fs::write(path("bad.txt"), "c2.example\nwhat?\n").unwrap();
    let (code, said, error) = sekisho(&["indicators", "check", &path("bad.txt")]);
    assert_eq!((code, error.lines().count()), (1, 3), "{said}{error}");
    assert!(error.contains("bad.txt:2: \"what?\" is no address"), "{error}");
    let (code, _, error) = sekisho(&["indicators", "check", &path("nothing.txt")]);
    assert_eq!((code, error.lines().count()), (2, 3), "{error}");
    fs::write(path("empty.txt"), "# nothing\n").unwrap();
    let (code, _, error) =
        sekisho(&["indicators", "import", "--out", &path("e.ski"), &path("empty.txt")]);
    assert_eq!((code, error.lines().count()), (1, 3), "{error}");
    let (code, said, _) = sekisho(&["indicators", "check", &path("e.ski")]);
    assert_eq!(code, 0, "{said}");
}
