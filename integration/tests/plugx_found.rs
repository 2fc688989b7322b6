//! PlugX over real sockets: every cipher in every segmentation is found, at its first data packet where that holds a header.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::actors::cipher::SETTINGS;
use sekisho_integration::actors::message::SEGMENTATIONS;
use sekisho_integration::lab::agent::{events, findings, replay};
use sekisho_integration::pcapfile::segments;
use sekisho_integration::topology::{BACKUP, MANY_C2, MIRROR, WEB};
use sekisho_integration::{Actor, Network, wait_for};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Case {
    name: String,
    address: IpAddr,
    whole: bool,
}

/// Plays one implant for each setting and segmentation against addresses of their own, captured on the server's uplink.
fn play(network: &Network, pcap: &Path) -> Vec<Case> {
    let loot = network.lab.dir().join("loot");
    std::fs::write(&loot, sekisho_integration::actors::customers_file(3_000)).unwrap();
    let settings: Vec<String> = SETTINGS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(
            SETTINGS
                .iter()
                .filter(|(name, _)| name.starts_with("T3"))
                .map(|(name, _)| format!("{name}+after-key")),
        )
        .collect();
    let table: Vec<String> = settings
        .iter()
        .enumerate()
        .map(|(nth, setting)| format!("{}={setting}", 4000 + nth))
        .collect();
    let c2 =
        network.c2.actor(&["plugx-c2", "--settings", &table.join(","), "--theft-after-ms", "0"]);
    let mut tap = network.web.actor(&["capture", "--dev", "eth0", "--out", pcap.to_str().unwrap()]);
    let mut cases = Vec::new();
    for (nth, setting) in settings.iter().enumerate() {
        let mut running: Vec<Actor> = Vec::new();
        for (cut_nth, (cut, _)) in SEGMENTATIONS.iter().enumerate() {
            let address = format!("{MANY_C2}.{}.{}", 1 + cut_nth, 1 + nth);
            let seed = (nth * 16 + cut_nth + 1).to_string();
            let words = [
                "plugx-client",
                "--to",
                &format!("{address}:{}", 4000 + nth),
                "--setting",
                setting,
                "--cut",
                cut,
                "--seed",
                &seed,
                "--keep-alive-ms",
                "20",
                "--file",
                loot.to_str().unwrap(),
            ];
            running.push(network.web.actor(&words));
            cases.push(Case {
                name: format!("{setting}, {cut}"),
                address: address.parse().unwrap(),
                whole: *cut == "whole",
            });
        }
        for implant in &mut running {
            let report = wait_for("the theft to end", Duration::from_secs(10), || {
                Some(implant.ask("report")).filter(|report| report["finished"] == true)
            });
            assert_eq!(report["last_error"], "", "{setting}: {report}");
        }
    }
    tap.ask("stop");
    assert_eq!(
        c2.finish()["stolen_bytes"].as_u64(),
        Some(3_000 * cases.len() as u64),
        "the intruder must have understood everything"
    );
    cases
}

#[test]
fn every_cipher_in_every_segmentation_is_found() {
    let network = Network::build();
    let pcap: PathBuf = network.lab.dir().join("plugx.pcap");
    let cases = play(&network, &pcap);
    let mut first_data = BTreeMap::new();
    for segment in segments(&pcap).into_iter().filter(|segment| segment.payload > 0) {
        first_data.entry(segment.to.ip()).or_insert(segment);
    }
    let found: BTreeMap<IpAddr, _> = findings(&events(&replay(&[&pcap], &[])), "plugx.tcp")
        .into_iter()
        .filter_map(|finding| Some((finding.flow.as_ref()?.remote.ip(), finding)))
        .collect();
    let missed: Vec<&str> = cases
        .iter()
        .filter(|case| !found.contains_key(&case.address))
        .map(|case| case.name.as_str())
        .collect();
    assert!(missed.is_empty(), "{} of {} not found: {missed:?}", missed.len(), cases.len());
    for case in cases.iter().filter(|case| case.whole) {
        let (finding, segment) = (&found[&case.address], &first_data[&case.address]);
        assert_eq!(
            finding.frame, segment.frame,
            "{}: found later than at its first data packet: {finding:?}",
            case.name
        );
    }
}

#[test]
fn legitimate_traffic_is_not_taken_for_plugx() {
    let network = Network::build();
    let pcap = network.lab.dir().join("legitimate.pcap");
    let _web = network.web.actor(&["http-serve", "--port", "80"]);
    let _mirror = network.mirror.actor(&["http-serve", "--port", "80"]);
    let _backup = network.backup.actor(&["http-serve", "--port", "8200"]);
    let mut tap = network.web.actor(&["capture", "--dev", "eth0", "--out", pcap.to_str().unwrap()]);
    let mut customers = network.customers.actor(&["browse", "--to", &format!("{WEB}:80")]);
    let updates = network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")]);
    let backup = network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200")]);
    wait_for("a hundred visits", Duration::from_secs(15), || {
        (customers.ask("report")["done"].as_u64() >= Some(100)).then_some(())
    });
    drop((customers, updates, backup));
    tap.ask("stop");
    assert!(segments(&pcap).iter().filter(|segment| segment.payload > 0).count() > 400);
    let told = events(&replay(&[&pcap], &[]));
    assert!(findings(&told, "plugx.tcp").is_empty(), "{told:#?}");
}
