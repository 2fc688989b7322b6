//! PlugX over real sockets: every cipher in every segmentation is found, at its first data packet where that holds a header.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::actors::Dice;
use sekisho_integration::actors::cipher::SETTINGS;
use sekisho_integration::actors::forged::{
    CUTS, Connection, Cut, FIELD_NAMES, Forgery, Peer, WRAPPINGS, Wrapping, cookie, opening,
    request,
};
use sekisho_integration::actors::message::{Message, SEGMENTATIONS, Setting};
use sekisho_integration::lab::agent::{events, findings, replay};
use sekisho_integration::pcapfile::segments;
use sekisho_integration::topology::{BACKUP, MANY_C2, MIRROR, WEB};
use sekisho_integration::{Actor, Network, wait_for};
use sekisho_schema::Grade;
use std::collections::{BTreeMap, BTreeSet};
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
    let (mut found, mut stolen) = (BTreeMap::new(), BTreeMap::new());
    for finding in findings(&events(&replay(&[&pcap], &[])), "plugx.tcp") {
        let remote = finding.flow.as_ref().unwrap().remote.ip();
        if finding.explanation.contains("file theft in progress") {
            stolen.entry(remote).or_insert(finding);
        } else {
            found.entry(remote).or_insert(finding);
        }
    }
    let missed: Vec<&str> = cases
        .iter()
        .filter(|case| !found.contains_key(&case.address))
        .map(|case| case.name.as_str())
        .collect();
    assert!(missed.is_empty(), "{} of {} not found: {missed:?}", missed.len(), cases.len());
    let unnamed: Vec<&str> = cases
        .iter()
        .filter(|case| !stolen.contains_key(&case.address))
        .map(|case| case.name.as_str())
        .collect();
    assert!(unnamed.is_empty(), "the theft was not named: {unnamed:?}");
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

/// What a forged conversation must lead to.
struct Expected {
    name: String,
    detector: &'static str,
    /// The end outside.
    remote: IpAddr,
    /// The first frame with which it can be known.
    frame: u64,
}

/// Conversations of a capture, each with a server of its own.
struct Stage {
    capture: Forgery,
    dice: Dice,
    expected: Vec<Expected>,
    servers: u16,
}

impl Stage {
    fn new(seed: u64) -> Self {
        Self { capture: Forgery::default(), dice: Dice(seed), expected: Vec::new(), servers: 0 }
    }

    fn key(&mut self) -> u32 {
        u32::try_from(self.dice.roll() >> 32).unwrap()
    }

    fn ends(&mut self, port: u16) -> (Peer, Peer) {
        self.servers += 1;
        (Peer::inside(20_000 + self.servers), Peer::outside(self.servers, port))
    }

    fn connect(&mut self, wrapping: Wrapping, port: u16) -> (Connection, IpAddr) {
        let (client, server) = self.ends(port);
        (self.capture.connect(wrapping, client, server), server.address(wrapping))
    }

    fn expect(&mut self, name: String, detector: &'static str, remote: IpAddr, frame: u64) {
        self.expected.push(Expected { name, detector, remote, frame });
    }

    /// Replays the capture and compares.
    fn judge(self) {
        let folder = tempfile::tempdir().unwrap();
        let pcap = folder.path().join("forged.pcap");
        self.capture.write(&pcap);
        let told = events(&replay(&[&pcap], &[]));
        let mut firsts = BTreeMap::new();
        let detectors: BTreeSet<&str> = self.expected.iter().map(|one| one.detector).collect();
        for detector in detectors {
            for finding in findings(&told, detector) {
                let remote = finding.flow.as_ref().unwrap().remote.ip();
                firsts.entry((detector, remote)).or_insert(finding.frame);
            }
        }
        let mut wrong = Vec::new();
        for Expected { name, detector, remote, frame } in &self.expected {
            let first = firsts.get(&(*detector, *remote)).copied();
            if first != Some(*frame) {
                wrong.push(format!("{name}: {detector} at {first:?}, expected {frame}"));
            }
        }
        let (count, all) = (wrong.len(), self.expected.len());
        wrong.truncate(40);
        assert!(wrong.is_empty(), "{count} of {all}:\n{}", wrong.join("\n"));
    }
}

/// Every cipher setting in both alignments.
fn settings() -> impl Iterator<Item = (String, Setting)> {
    SETTINGS.into_iter().flat_map(|(name, _)| {
        [name.to_owned(), format!("{name}+after-key")]
            .map(|name| (name.clone(), Setting::named(&name)))
    })
}

fn for_every_wire(mut play: impl FnMut(&str, Wrapping, &str, Cut)) {
    for (wrapping_name, wrapping) in WRAPPINGS {
        for (cut_name, cut) in CUTS {
            play(wrapping_name, wrapping, cut_name, cut);
        }
    }
}

#[test]
fn every_cipher_in_tcp_is_found_at_the_first_frame_in_every_cut_and_wrapping() {
    let mut stage = Stage::new(1);
    for (name, setting) in settings() {
        for_every_wire(|wrapping_name, wrapping, cut_name, cut| {
            let keys = [stage.key(), stage.key()];
            let (mut connection, remote) = stage.connect(wrapping, 8080);
            let messages = opening(setting, keys);
            // The probe is a header only: it is known with its sixteenth byte. Two messages in one
            // segment are known with the header of the second.
            let frame = connection.say_cut(&mut stage.capture, cut, &messages, (16, 16));
            stage.expect(
                format!("{name}, {cut_name}, {wrapping_name}"),
                "plugx.tcp",
                remote,
                frame,
            );
        });
    }
    stage.judge();
}

#[test]
fn every_cipher_with_a_body_first_is_found_when_the_body_is_there() {
    let mut stage = Stage::new(2);
    for (name, setting) in settings() {
        for_every_wire(|wrapping_name, wrapping, cut_name, cut| {
            let keys = [stage.key(), stage.key()];
            let (mut connection, remote) = stage.connect(wrapping, 5432);
            let [probe, machine] = opening(setting, keys);
            let whole = machine.len();
            let frame = connection.say_cut(&mut stage.capture, cut, &[machine, probe], (16, whole));
            stage.expect(
                format!("{name}, {cut_name}, {wrapping_name}"),
                "plugx.tcp",
                remote,
                frame,
            );
        });
    }
    stage.judge();
}

#[test]
fn every_cipher_through_an_http_proxy_is_found_at_the_first_frame() {
    let mut stage = Stage::new(3);
    for (name, setting) in settings() {
        for_every_wire(|wrapping_name, wrapping, cut_name, cut| {
            let keys = [stage.key(), stage.key()];
            let (mut connection, remote) = stage.connect(wrapping, 3128);
            let ask = b"CONNECT c2.example:443 HTTP/1.1\r\nHost: c2.example:443\r\n\r\n";
            connection.say(&mut stage.capture, 0, ask);
            let yes = b"HTTP/1.1 200 Connection established\r\n\r\n";
            connection.say(&mut stage.capture, 1, yes);
            let messages = opening(setting, keys);
            let frame = connection.say_cut(&mut stage.capture, cut, &messages, (16, 16));
            stage.expect(
                format!("{name}, {cut_name}, {wrapping_name}"),
                "plugx.tcp",
                remote,
                frame,
            );
        });
    }
    stage.judge();
}

#[test]
fn every_cipher_in_an_http_body_is_found_at_the_header_of_the_message() {
    let mut stage = Stage::new(4);
    for (name, setting) in settings() {
        for_every_wire(|wrapping_name, wrapping, cut_name, cut| {
            let keys = [stage.key(), stage.key()];
            let [_, machine] = opening(setting, keys);
            for (form, line, port) in [
                ("direct", "POST /update?id=00000001", 80),
                ("absolute form", "POST http://c2.example/update?id=00000001", 3128),
            ] {
                let (mut connection, remote) = stage.connect(wrapping, port);
                let head = request(line, None, None, machine.len());
                // The length of the body is in its head: sixteen bytes of it suffice, or what came with them.
                let known = head.len() + 16;
                let whole = [head.clone(), machine.clone()].concat();
                let messages = [whole, Vec::new()];
                let cut = if cut == Cut::TwoInOne { Cut::Whole } else { cut };
                let frame =
                    connection.say_cut(&mut stage.capture, cut, &messages, (head.len(), known));
                let name = format!("{name}, {form}, {cut_name}, {wrapping_name}");
                stage.expect(name, "plugx.http", remote, frame);
            }
        });
    }
    stage.judge();
}

#[test]
fn every_numbered_head_and_cookie_is_found_when_the_head_is_whole() {
    let mut stage = Stage::new(5);
    for_every_wire(|wrapping_name, wrapping, cut_name, cut| {
        let cut = if cut == Cut::TwoInOne { Cut::Whole } else { cut };
        for names in FIELD_NAMES {
            for (form, line, port) in [
                ("direct", "POST /update?wd=b0b9d49c", 80),
                ("24 digits", "POST /0A1B2C3D4E5F60718293A4B5", 8080),
                ("absolute form", "POST http://c2.example/update?product=windows", 3128),
            ] {
                let (mut connection, remote) = stage.connect(wrapping, port);
                let head = request(line, Some(names), None, 0);
                let whole = head.len();
                let frame =
                    connection.say_cut(&mut stage.capture, cut, &[head, Vec::new()], (60, whole));
                let name = format!("{}, {form}, {cut_name}, {wrapping_name}", names[0]);
                stage.expect(name, "plugx.http", remote, frame);
            }
        }
        for (name, setting) in settings() {
            let key = stage.key();
            let (mut connection, remote) = stage.connect(wrapping, 80);
            let text = cookie(setting, key, 3);
            let head = request("GET /F1B8D4D8F6A4C0E7B2A69C33", None, Some(&text), 0);
            let whole = head.len();
            let frame =
                connection.say_cut(&mut stage.capture, cut, &[head, Vec::new()], (60, whole));
            stage.expect(
                format!("{name}, {cut_name}, {wrapping_name}"),
                "plugx.cookie",
                remote,
                frame,
            );
        }
    });
    stage.judge();
}

#[test]
fn every_cipher_in_one_packet_is_found_at_that_packet() {
    let mut stage = Stage::new(6);
    for (name, setting) in settings() {
        for (wrapping_name, wrapping) in WRAPPINGS {
            let keys = [stage.key(), stage.key()];
            let [probe, machine] = opening(setting, keys);
            let theft =
                Message { command: 0x3005, body: sekisho_integration::actors::customers_file(900) };
            let theft = theft.encipher(setting, stage.key());
            for (form, payload) in [
                ("header only", probe.clone()),
                ("with a body", machine.clone()),
                ("two messages", [probe, machine].concat()),
                ("theft", theft),
            ] {
                let name = |carrier| format!("{name}, {form}, {carrier}, {wrapping_name}");
                for port in [53, 443, 9000] {
                    let (client, server) = stage.ends(port);
                    let frame = stage.capture.udp(wrapping, client, server, &payload);
                    let remote = server.address(wrapping);
                    stage.expect(name("UDP"), "plugx.udp", remote, frame);
                }
                let (client, server) = stage.ends(0);
                let frame = stage.capture.raw(wrapping, client, server, &payload);
                stage.expect(name("protocol 255"), "plugx.rawip", server.address(wrapping), frame);
                let (client, server) = stage.ends(0);
                let frame = stage.capture.echo(wrapping, client, server, &payload);
                stage.expect(name("echo"), "plugx.rawip", server.address(wrapping), frame);
            }
        }
    }
    stage.judge();
}

/// Bytes as letters A to P, the low half first.
fn letters(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
    halves.map(|half| char::from(b'A' + half)).collect()
}

/// Recipe 3 of the design paper: both framings, five in a minute, to three ports.
#[test]
fn both_clear_framings_of_udp_are_told_at_the_first_datagram_and_proven_by_the_second() {
    let mut stage = Stage::new(7);
    let mut proven = Vec::new();
    for (wrapping_name, wrapping) in WRAPPINGS {
        for port in [53, 443, 9000] {
            for old in [false, true] {
                let (client, server) = stage.ends(port);
                let mut frames = Vec::new();
                for n in 0..5_u16 {
                    let words: &[u32] = if old {
                        &[1, u32::from_le_bytes([10, 0, 0, 5]), 0x400, 0x1000, 0x32, 0]
                    } else {
                        &[1, 0x400, 0x1000, 0, 0x0009_0807, 0, 0, 0]
                    };
                    let mark: u16 = if old { 0x30 } else { 0x50 };
                    let mut datagram = [n.to_le_bytes(), mark.to_le_bytes()].concat();
                    datagram.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                    assert!(old || datagram.len() == 36);
                    frames.push(stage.capture.udp(wrapping, client, server, &datagram));
                }
                let remote = server.address(wrapping);
                let name = format!("{port}, {}, {wrapping_name}", if old { 2012 } else { 2015 });
                stage.expect(name, "plugx.udp", remote, frames[0]);
                proven.push((remote, frames[1]));
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let pcap = folder.path().join("framed.pcap");
    stage.capture.write(&pcap);
    let told = findings(&events(&replay(&[&pcap], &[])), "plugx.udp");
    for (remote, frame) in proven {
        assert!(
            told.iter().any(|finding| finding.frame == frame
                && finding.flow.as_ref().unwrap().remote.ip() == remote
                && finding.grade == Grade::Malicious),
            "{remote} at {frame}"
        );
    }
    stage.judge();
}

/// Recipe 4: names of V4 with changing first letters, each asked twice, transaction numbers counting up.
#[test]
fn the_second_name_of_a_dns_transport_is_told_at_its_question() {
    let first = b"ELEADFCKBPAEPIONNCMHLMKBJGILHAGFFKEPDECJBOADPHO";
    let second = b"MNBMGLLKAJFIKIPHEGJFOEDDICNBCAHPLOANFMKLPKEJJIOHDGIFNECDHCMBBAG";
    let mut stage = Stage::new(8);
    for (wrapping_name, wrapping) in WRAPPINGS {
        // A zone of its own, as it is one host that asks in every wrapping.
        let zone = wrapping_name.as_bytes();
        let (client, server) = stage.ends(53);
        let mut frames = Vec::new();
        for id in 0..6_u16 {
            let changing =
                letters(&u64::from(id / 2 + 7).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            let mut question = id.to_be_bytes().to_vec();
            question.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            let own = [changing.as_bytes(), first].concat();
            let labels: [&[u8]; 5] = [&own, second, b"PKOPNEMJMOLDKIJNIC", b"bca", zone];
            for label in labels.into_iter().chain([&b"com"[..]]) {
                question.push(u8::try_from(label.len()).unwrap());
                question.extend_from_slice(label);
            }
            question.extend_from_slice(&[0, 0, 16, 0, 1]);
            frames.push(stage.capture.udp(wrapping, client, server, &question));
            question[2..4].copy_from_slice(&[0x81, 0x83]);
            stage.capture.udp(wrapping, server, client, &question);
        }
        // The third question holds the second name.
        stage.expect(wrapping_name.to_owned(), "plugx.dns", server.address(wrapping), frames[2]);
    }
    stage.judge();
}

/// Vectors V2 and V3, and who then speaks to the controller.
#[test]
fn a_dead_drop_is_told_at_the_answer_in_every_wrapping() {
    let mut stage = Stage::new(9);
    for (wrapping_name, wrapping) in WRAPPINGS {
        for text in [
            "DZKSGAAALLBACDCDCDOCBDCDCDOCCDADIDOCBDADDZJS",
            "DZKSCAAAAJPBBDHDDDOCCDFDFDOCCDBDHDOCHDHDDZJS",
        ] {
            let (mut connection, remote) = stage.connect(wrapping, 80);
            let ask = b"GET /p/udom/ HTTP/1.1\r\nHost: code.example\r\n\r\n";
            connection.say(&mut stage.capture, 0, ask);
            let body = format!("<html><p>{text}</p></html>");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            connection.say(&mut stage.capture, 1, head.as_bytes());
            connection.say(&mut stage.capture, 1, &body.as_bytes()[..30]);
            let frame = connection.say(&mut stage.capture, 1, &body.as_bytes()[30..]);
            stage.expect(format!("{text}, {wrapping_name}"), "plugx.deaddrop", remote, frame);
        }
    }
    stage.judge();
}
