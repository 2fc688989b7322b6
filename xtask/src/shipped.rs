//! Makes `rules/indicators/*.csv` of a table of public indicators: only rows whose source allows it,
//! with provenance and expiry.
//!
//! The table has the columns type, value, family, source and first_public_year; its source column
//! begins with the project that published the row.

use crate::host::Failure;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// A source that may be shipped: how its rows begin, the file they go to, its licence, the day of its
/// last change, and until when its addresses and its names count.
struct Source {
    begins: &'static str,
    file: &'static str,
    licence: &'static str,
    addresses_until: &'static str,
    names_until: &'static str,
}

/// Addresses count for 90 days after the source's last change, names for three years: rented
/// addresses get other tenants, registered names keep theirs.
const SOURCES: [Source; 3] = [
    Source {
        begins: "maltrail ",
        file: "maltrail.csv",
        licence: "MIT, last change 2026-08-23",
        addresses_until: "2026-11-21T00:00:00Z",
        names_until: "2029-08-23T00:00:00Z",
    },
    Source {
        begins: "carbonblack/active_c2_ioc_public ",
        file: "active-c2.csv",
        licence: "MIT, last change 2022-11-28",
        addresses_until: "2023-02-26T00:00:00Z",
        names_until: "2025-11-28T00:00:00Z",
    },
    Source {
        begins: "eset/malware-ioc ",
        file: "eset.csv",
        licence: "BSD-2-Clause, last change 2024-09-27",
        addresses_until: "2024-12-26T00:00:00Z",
        names_until: "2027-09-27T00:00:00Z",
    },
];

/// An address that is held by the defenders since September 2023: whoever speaks to it is infected.
const SINKHOLE: &str = "45.142.166.112";

/// Writes the files and says what was left out.
pub(crate) fn make(table: &str) -> Result<(), Failure> {
    let text = std::fs::read_to_string(table)
        .map_err(|error| format!("cannot read {table}: {error}; nothing was written"))?;
    let folder = Path::new("rules/indicators");
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let rows: Vec<Vec<String>> = text.lines().skip(1).map(fields).collect();
    let mut shipped = 0;
    for source in &SOURCES {
        let (body, count) = of_source(source, &rows);
        let head = format!(
            "# {} ({}); made by `cargo xtask shipped-indicators`\n\
             value,type,labels,class,grade,source,valid_until,note\n",
            source.begins.trim(),
            source.licence,
        );
        let path = folder.join(source.file);
        std::fs::write(&path, head + &body)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{}: {count}", path.display());
        shipped += count;
    }
    println!(
        "{} rows of the table are not shipped: licence, or nothing that can be looked for",
        rows.len() - shipped
    );
    Ok(())
}

fn of_source(source: &Source, rows: &[Vec<String>]) -> (String, usize) {
    let mut lines = BTreeSet::new();
    let mut count = 0;
    for row in rows {
        let [kind, value, family, from, year, ..] = row.as_slice() else { continue };
        if !from.starts_with(source.begins) {
            continue;
        }
        let (kind, until) = match kind.as_str() {
            "domain" => ("domain", source.names_until),
            "ip" => ("ip", source.addresses_until),
            "ip_port" => ("ip:port", source.addresses_until),
            "url" if is_address_url(value) => ("url", source.addresses_until),
            "url" => ("url", source.names_until),
            _ => continue,
        };
        let class = if value.contains(SINKHOLE) { "sinkhole" } else { "" };
        count += 1;
        let mut line = String::new();
        let grade = if is_recent(year) { "malicious" } else { "suspect" };
        let (from, note) = from.split_once("; ").unwrap_or((from, ""));
        let cells = [value.as_str(), kind, family, class, grade, from, until, note].map(quoted);
        let _written = writeln!(line, "{}", cells.join(","));
        lines.insert(line);
    }
    (lines.into_iter().collect(), count)
}

/// Whether a row was first published within about three years of the table: an older name may have
/// got another owner, and must not cut by itself.
fn is_recent(year: &str) -> bool {
    year.parse().is_ok_and(|year: u16| year >= 2023)
}

/// Whether the host of a URL is an address.
fn is_address_url(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.starts_with(|first: char| first.is_ascii_digit())
        && host
            .split(['/', ':'])
            .next()
            .is_some_and(|host| host.parse::<std::net::Ipv4Addr>().is_ok())
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// The cells of a line (RFC 4180).
fn fields(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut inside) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if inside && letters.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => inside = !inside,
            ',' if !inside => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    cells.push(cell);
    cells
}
