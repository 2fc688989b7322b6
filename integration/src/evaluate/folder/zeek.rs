//! Zeek's connection and name logs: tab-separated or JSON lines, plain or gzip.

use super::series::{Key, Question, Taken};
use crate::evaluate::fleet::{Burst, Connection};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The whole text of a log.
fn text_of(path: &Path) -> Result<String, String> {
    let bytes = if path.extension().is_some_and(|end| end == "gz") {
        let done = Command::new("gzip").arg("-dc").arg(path).output();
        done.map_err(|error| format!("cannot start gzip: {error}"))?.stdout
    } else {
        std::fs::read(path).map_err(|error| error.to_string())?
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of a log: values by name.
type Row = BTreeMap<String, String>;

/// The lines of a log; a JSON log's names may have a dot or an underscore.
fn rows(text: &str, mut each: impl FnMut(&Row, &str)) {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        if let Some(listed) = line.strip_prefix("#fields") {
            names = listed.split_whitespace().map(str::to_owned).collect();
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let row: Row = if line.starts_with('{') {
            let Ok(Value::Object(fields)) = serde_json::from_str(line) else { continue };
            fields.into_iter().map(|(name, value)| (dotted(&name), plain(&value))).collect()
        } else {
            // Labelled logs separate their last columns by spaces.
            let cells = line.split(['\t', ' ']).filter(|cell| !cell.is_empty());
            names.iter().cloned().zip(cells.map(str::to_owned)).collect()
        };
        each(&row, line);
    }
}

fn dotted(name: &str) -> String {
    name.strip_prefix("id_").map_or_else(|| name.to_owned(), |rest| format!("id.{rest}"))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text<'r>(row: &'r Row, name: &str) -> &'r str {
    row.get(name).map_or("", String::as_str)
}

fn number(row: &Row, name: &str) -> f64 {
    text(row, name).parse().unwrap_or(0.0)
}

fn transport(name: &str) -> &'static str {
    match name {
        "tcp" => "tcp",
        "udp" => "udp",
        "icmp" => "icmp",
        _ => "other",
    }
}

/// Seconds within which a start from the same port is the same flow asking again.
const AGAIN: f64 = 120.0;

/// Reads a log of connections: each with payload of its originator is a contact.
pub(super) fn connections(path: &Path) -> Result<Taken, String> {
    let mut taken = Taken::default();
    let mut called: BTreeMap<(String, u16), f64> = BTreeMap::new();
    rows(&text_of(path)?, |row, line| {
        let at = number(row, "ts");
        if at <= 0.0 {
            return;
        }
        taken.saw(at);
        let key = Key {
            client: text(row, "id.orig_h").to_owned(),
            server: text(row, "id.resp_h").to_owned(),
            port: number(row, "id.resp_p") as u16,
            transport: transport(text(row, "proto")),
        };
        let series = taken.series.entry(key).or_default();
        series.is_hostile |= line.contains("C&C");
        let (up, down) = (number(row, "orig_bytes"), number(row, "resp_bytes"));
        let with_headers = number(row, "orig_ip_bytes").max(up);
        let seconds = number(row, "duration");
        series.connections.push(Connection { at, up: with_headers, down, seconds });
        if up > 0.0 {
            series.bursts.push(Burst { at, up, down });
        } else if transport(text(row, "proto")) == "tcp" {
            // Packets that ask again from the same port are one flow, in as many records as they come late.
            let port = number(row, "id.orig_p") as u16;
            let last = called.insert((text(row, "id.resp_h").to_owned(), port), at);
            if last.is_none_or(|last| at - last > AGAIN) {
                series.calls.push(at);
            }
        }
    });
    if taken.series.is_empty() { Err("no connection".to_owned()) } else { Ok(taken.sorted()) }
}

/// Reads a log of names.
pub(super) fn questions(path: &Path) -> Result<Taken, String> {
    let mut taken = Taken::default();
    rows(&text_of(path)?, |row, _| {
        let (at, name) = (number(row, "ts"), text(row, "query"));
        if at <= 0.0 || name.is_empty() || name == "-" {
            return;
        }
        taken.saw(at);
        taken.questions.push(Question {
            at,
            client: text(row, "id.orig_h").to_owned(),
            resolver: text(row, "id.resp_h").to_owned(),
            name: name.trim_end_matches('.').to_lowercase(),
        });
    });
    if taken.questions.is_empty() { Err("no question".to_owned()) } else { Ok(taken.sorted()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_log_say_the_same() {
        let tabs = "#fields\tts\tid.orig_h\tid.resp_h\tid.resp_p\n1.5\ta\tb\t443\n";
        let json = r#"{"ts":1.5,"id_orig_h":"a","id.resp_h":"b","id.resp_p":443}"#;
        for log in [tabs, json] {
            let mut seen = Vec::new();
            rows(log, |row, _| {
                seen.push((
                    number(row, "ts"),
                    text(row, "id.orig_h").to_owned(),
                    number(row, "id.resp_p"),
                ));
            });
            assert_eq!(seen, [(1.5, "a".to_owned(), 443.0)]);
        }
    }
}
