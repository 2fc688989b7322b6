//! What still leaves under each peer's rule shape, and under ours, in the same battery.
//!
//! `battery [--json]`: a table; exit 1 when ours lets something out that it does not declare, or breaks the loopback.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement fails loudly and prints for people"
)]

use sekisho_integration::lab::battery::{Battery, load, unload};
use sekisho_integration::lab::peers::{COLUMNS, Fate, shapes};
use sekisho_integration::{AgentSetup, Network, PolicyText};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

const OURS: &str = "Sekisho, contain host";
/// The column of senders that pass every hook of netfilter, and its name in a receipt.
const AF_XDP: (&str, &str) = ("AF_XDP", "af_xdp");

type Row = (String, [Fate; COLUMNS.len()]);

fn main() -> ExitCode {
    let as_json = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [word] if word == "--json" => true,
        other => {
            eprintln!(
                "error: battery knows --json, not {other:?}\nstate: nothing was tried\nhelp:  battery --json"
            );
            return ExitCode::from(2);
        }
    };
    let network = Network::build();
    let mut battery = Battery::prepare(&network);
    let (mut rows, mut differences) = (Vec::<Row>::new(), Vec::new());
    for shape in shapes() {
        let mut salvo = battery.aim();
        load(&network, &shape.rules);
        let fates = battery.fire(&mut salvo);
        unload(&network, &shape.rules);
        for ((column, fate), before) in COLUMNS.iter().zip(fates).zip(shape.seen_before) {
            if let Some(before) = before.filter(|before| *before != fate) {
                differences.push(format!(
                    "{}, {column}: {} here, {} in the earlier measurement",
                    shape.name,
                    fate.word(),
                    before.word()
                ));
            }
        }
        rows.push((shape.name.to_owned(), fates));
    }
    let (ours, declared) = ours(&network, &mut battery);
    rows.push((OURS.to_owned(), ours));
    let faults = faults(&ours, &declared);
    if as_json {
        println!("{}", told(&rows, &declared, &differences, &faults));
    } else {
        print(&rows, &declared, &differences);
    }
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same battery against a running agent that was ordered to cut the host; and the holes that its receipt declares.
fn ours(network: &Network, battery: &mut Battery<'_>) -> ([Fate; COLUMNS.len()], Vec<String>) {
    let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
    setup.seal(&PolicyText::new(1, "enforce"));
    let agent = setup.start();
    let mut salvo = battery.aim();
    setup.must(&["contain", "host", "--for", "1h", "--reason", "battery"]);
    let receipt = agent.receipt("of the order", Duration::from_secs(10), |receipt| {
        receipt.applied && receipt.proof.cut.is_some()
    });
    (battery.fire(&mut salvo), receipt.coverage)
}

fn faults(ours: &[Fate], declared: &[String]) -> Vec<String> {
    let is_declared = |column: &str| {
        let named = |gap: &String| gap == AF_XDP.1 || gap.starts_with("af_xdp:");
        column == AF_XDP.0 && declared.iter().any(named)
    };
    COLUMNS
        .iter()
        .zip(ours)
        .filter_map(|(column, fate)| match fate {
            Fate::Out if !is_declared(column) => {
                Some(format!("ours lets {column} out, and its receipt does not say so"))
            }
            Fate::Broken => Some(format!("ours breaks the {column}")),
            Fate::Out | Fate::Cut | Fate::Works => None,
        })
        .collect()
}

fn told(rows: &[Row], declared: &[String], differences: &[String], faults: &[String]) -> Value {
    let row = |(name, fates): &Row| {
        let cells = COLUMNS.iter().zip(fates);
        let cells: serde_json::Map<String, Value> =
            cells.map(|(column, fate)| ((*column).to_owned(), json!(fate.word()))).collect();
        json!({"shape": name, "cells": cells})
    };
    json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(), "declared_by_ours": declared,
        "differs_from_earlier": differences, "faults": faults,
    })
}

fn print(rows: &[Row], declared: &[String], differences: &[String]) {
    let widest = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let heads: Vec<String> = COLUMNS.iter().map(|column| format!(" {column} ")).collect();
    println!("{:widest$} |{}", "", heads.join("|"));
    for (name, fates) in rows {
        let cells: Vec<String> = heads
            .iter()
            .zip(fates)
            .map(|(head, fate)| format!("{:^width$}", fate.word(), width = head.len()))
            .collect();
        println!("{name:widest$} |{}", cells.join("|"));
    }
    println!(
        "\neach way was shown to get through before each cut; ours declares: {}",
        declared.join(", ")
    );
    if differences.is_empty() {
        println!("every cell is as it was measured before");
    }
    for difference in differences {
        println!("differs: {difference}");
    }
}
