//! The relatives of PlugX, and protocols on the wrong port, through the whole engine.

use crate::forge::{Bench, C2, LOCAL, Made, START, end, hello, udp};
use sekisho_engine::cases::{Case, CaseFile, ForgedFrame, try_case};
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output};
use sekisho_schema::finding::Grade;
use sekisho_schema::{Body, Span, Timestamp};
use std::collections::BTreeMap;

const FILES: [&str; 11] = [
    include_str!("../../../rules/cases/c2.gh0st.toml"),
    include_str!("../../../rules/cases/c2.9002.toml"),
    include_str!("../../../rules/cases/c2.derusbi.toml"),
    include_str!("../../../rules/cases/c2.winnti.toml"),
    include_str!("../../../rules/cases/c2.zxshell.toml"),
    include_str!("../../../rules/cases/c2.poisonivy.toml"),
    include_str!("../../../rules/cases/c2.shadowpad.toml"),
    include_str!("../../../rules/cases/c2.meterpreter.toml"),
    include_str!("../../../rules/cases/c2.havoc.toml"),
    include_str!("../../../rules/cases/protocol.mismatch.toml"),
    include_str!("../../../rules/cases/protocol.encrypted.toml"),
];

fn rules() -> sekisho_engine::rules::Rules {
    crate::forge::rules(&[])
}

fn each_case() -> impl Iterator<Item = (String, Case)> {
    FILES.into_iter().flat_map(|text| {
        let file = CaseFile::parse(text).unwrap();
        assert_eq!(file.has_both(), (true, true), "{}", file.detector);
        let detector = file.detector;
        file.cases.into_iter().map(move |case| (detector.clone(), case))
    })
}

/// Each detector that was told and its worst grade.
fn told(frames: &[ForgedFrame]) -> BTreeMap<String, Grade> {
    let limits = Limits::default();
    let mut engine = Engine::new(EngineConfig { host: "h".to_owned(), limits, hash_seed: 3 });
    let at = Timestamp::from_nanos(frames[0].at_ns);
    engine.handle(Input::Rules(Box::new(rules()), at));
    let mut told = BTreeMap::new();
    for frame in frames {
        engine.handle(Input::Frame(Frame {
            at_ns: frame.at_ns,
            link: LinkType::Ethernet,
            wire_len: frame.bytes.len() as u32,
            bytes: &frame.bytes,
        }));
        while let Some(output) = engine.poll_output() {
            if let Output::Record(record) = output
                && let Body::Finding(finding) = record.body
            {
                let worst = told.entry(finding.detector).or_insert(finding.grade);
                *worst = finding.grade.max(*worst);
            }
        }
    }
    told
}

#[test]
fn every_case_of_the_relatives_and_of_protocols_is_as_it_says() {
    let mut faults = Vec::new();
    for (detector, case) in each_case() {
        let verdict = try_case(&case, rules()).unwrap();
        for fault in verdict.faults {
            faults.push(format!("{detector}: {}: {fault}; told {:?}", case.name, verdict.told));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What was told is told with the same grade when the frames come another way.
fn as_told(what: &str, change: impl Fn(&Case) -> Option<Vec<ForgedFrame>>) {
    let mut tried = 0;
    for (detector, case) in each_case().filter(|(_, case)| !case.expect.is_empty()) {
        let Some(frames) = change(&case) else { continue };
        let plain = told(&case.frames().unwrap());
        let changed = told(&frames);
        assert_eq!(
            changed.get(&detector),
            plain.get(&detector),
            "{detector}: {}: {what}: {changed:?}",
            case.name
        );
        tried += 1;
    }
    assert!(tried >= 10, "{what}: {tried} cases");
}

#[test]
fn vlan_tags_change_nothing() {
    as_told("in a VLAN", |case| {
        let mut frames = case.frames().unwrap();
        for frame in &mut frames {
            frame.bytes.splice(12..12, [0x81, 0, 0, 7]);
        }
        Some(frames)
    });
}

#[test]
fn a_gre_tunnel_changes_nothing() {
    as_told("in GRE", |case| {
        let mut frames = case.frames().unwrap();
        for frame in &mut frames {
            let (ethernet, inner) = frame.bytes.split_at(14);
            let total = u16::try_from(20 + 4 + inner.len()).unwrap().to_be_bytes();
            let mut bytes = ethernet[..12].to_vec();
            bytes.extend_from_slice(&[8, 0, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 47, 0, 0]);
            bytes.extend_from_slice(&[
                192,
                0,
                2,
                1,
                192,
                0,
                2,
                2,
                0,
                0,
                ethernet[12],
                ethernet[13],
            ]);
            bytes.extend_from_slice(inner);
            frame.bytes = bytes;
        }
        Some(frames)
    });
}

#[test]
fn ipv6_changes_nothing() {
    as_told("over IPv6", |case| {
        if case.packets.contains("icmp") {
            return None;
        }
        let mut case = case.clone();
        for (v4, v6) in [
            ("10.0.0.5:", "[fd00::5]:"),
            ("10.0.0.1:", "[fd00::1]:"),
            ("203.0.113.9:", "[2001:db8::9]:"),
            ("198.51.100.7:", "[2001:db8::7]:"),
        ] {
            // Only where a flow is opened: a payload may name an address too.
            case.packets = case
                .packets
                .lines()
                .map(|line| {
                    if line.starts_with(['>', '<']) {
                        line.to_owned()
                    } else {
                        line.replace(v4, v6)
                    }
                })
                .collect::<Vec<_>>()
                .join("\n");
        }
        Some(case.frames().unwrap())
    });
}

#[test]
fn frames_that_come_twice_change_nothing() {
    as_told("twice", |case| {
        let frames = case.frames().unwrap();
        Some(frames.into_iter().flat_map(|frame| [frame.clone(), frame]).collect())
    });
}

#[test]
fn two_segments_in_the_wrong_order_are_read_in_the_right_one() {
    let mut tried = 0;
    for (detector, case) in each_case() {
        if case.packets.matches(" split ").count() != 1
            || !case.packets.contains("\ntcp") && !case.packets.starts_with("tcp")
        {
            continue;
        }
        // The split line is the first that is sent, so that frames 4 and 5 are its halves.
        let first = case.packets.lines().find(|line| line.starts_with(['>', '<'])).unwrap();
        if !first.contains(" split ") {
            continue;
        }
        let mut frames = case.frames().unwrap();
        let plain = told(&frames);
        let (earlier, later) = (frames[3].bytes.clone(), frames[4].bytes.clone());
        frames[3].bytes = later;
        frames[4].bytes = earlier;
        let changed = told(&frames);
        assert_eq!(changed.get(&detector), plain.get(&detector), "{detector}: {}", case.name);
        tried += 1;
    }
    assert!(tried >= 5, "{tried} cases");
}

struct Draw(u64);

impl Draw {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                (self.0 >> 40) as u8
            })
            .collect()
    }
}

/// First payloads of honest protocols, as their specifications have them.
fn look_alikes(draw: &mut Draw) -> Vec<(&'static str, Vec<u8>)> {
    let mut smb = b"\0\0\0\xacSMB@\0\x01\0\0\0\0\0\0\0\x1f\0".to_vec();
    smb[4] = 0xFE;
    smb.resize(70, 0);
    smb.extend_from_slice(b"\x24\0\x05\0\x01\0\0\0\x7f\0\0\0");
    let mut dtls =
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x36\x01\0\0\x2a\0\0\0\0\0\0\0\x2a\xfe\xfd".to_vec();
    dtls.extend(draw.bytes(32));
    let mut wireguard = b"\x01\0\0\0".to_vec();
    wireguard.extend(draw.bytes(144));
    let mut bittorrent = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05".to_vec();
    bittorrent.extend(draw.bytes(20));
    bittorrent.extend_from_slice(b"-TR4050-abcdefghijkl");
    let mut kafka = b"\0\0\0\x25\0\x12\0\x03\0\0\0\x01\0\x08producer".to_vec();
    kafka.extend_from_slice(b"\0\x12apache-kafka-java\x063.7.0\0");
    let mut ssh_kex = b"\0\0\x01\xfc\x04\x14".to_vec();
    ssh_kex.extend(draw.bytes(16));
    vec![
        ("SMB 2", smb),
        (
            "RDP",
            b"\x03\0\0\x2b\x26\xe0\0\0\0\0\0Cookie: mstshash=user\r\n\x01\0\x08\0\x03\0\0\0"
                .to_vec(),
        ),
        ("DTLS", dtls),
        ("WireGuard", wireguard),
        ("BitTorrent", bittorrent),
        ("Redis", b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n".to_vec()),
        ("Kafka", kafka),
        ("SSH key exchange", ssh_kex),
        ("PostgreSQL", b"\0\0\0\x26\0\x03\0\0user\0web\0database\0shop\0\0".to_vec()),
        ("MySQL", b"\x4a\0\0\0\x0a8.0.36\0\x0b\0\0\0".to_vec()),
        ("MQTT", b"\x10\x1a\0\x04MQTT\x04\x02\0\x3c\0\x0eclient-1234567".to_vec()),
        ("LDAP", b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0".to_vec()),
        ("Modbus", b"\0\x01\0\0\0\x06\x01\x03\0\0\0\x0a".to_vec()),
        ("AMQP", b"AMQP\0\0\x09\x01".to_vec()),
        ("NTP", {
            let mut ntp = vec![0x23];
            ntp.resize(48, 0);
            ntp
        }),
        ("zeros", vec![0; 512]),
        ("ones", vec![0xFF; 512]),
        ("a counter", (0..128_u32).flat_map(u32::to_le_bytes).collect()),
        ("words", (0..128_u32).flat_map(u32::to_be_bytes).collect()),
    ]
}

#[test]
fn nothing_of_an_honest_protocol_is_suspect() {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    for (name, payload) in look_alikes(&mut draw) {
        for port in [443, 4840, 8443] {
            let mut bench = Bench::new("dry-run", "", &[]);
            bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, port), &payload));
            let later = START.after(Span::from_secs(1));
            bench.feed(&[udp(later, end(LOCAL, 41_823), end(C2, port), &payload)]);
            for finding in bench.findings() {
                assert_eq!(finding.grade, Grade::Odd, "{name}: {}", finding.explanation);
            }
        }
    }
}

#[test]
fn of_20_000_random_first_payloads_none_is_suspect() {
    let mut draw = Draw(0x2545_F491_4F6C_DD1D);
    let mut bench = Bench::new("dry-run", "", &[]);
    let mut frames: Vec<Made> = Vec::new();
    for round in 0..20_000_i64 {
        let size = 12 + usize::try_from(round % 300).unwrap();
        let mut payload = draw.bytes(size);
        // A size field that is right, in either order, where messages have theirs.
        let size = u32::try_from(size).unwrap();
        match round % 4 {
            0 => payload[..4].copy_from_slice(&size.to_le_bytes()),
            1 => payload[..4].copy_from_slice(&(size - 4).to_be_bytes()),
            2 => payload[5..9].copy_from_slice(&size.to_le_bytes()),
            _ => {}
        }
        let port = u16::try_from(10_000 + round % 50_000).unwrap();
        let at = START.after(Span::from_millis(round * 10));
        frames.extend(hello(at, end(LOCAL, port), end(C2, 9999), &payload));
    }
    bench.feed(&frames);
    let suspect: Vec<_> =
        bench.findings().into_iter().filter(|f| f.grade > Grade::Odd).cloned().collect();
    assert!(suspect.is_empty(), "{suspect:?}");
    assert_eq!(bench.engine.summary().frames, 80_000);
}

#[test]
fn what_honest_software_shares_never_cuts_whatever_the_policy_says() {
    let decide = "
[[decide]]
detector = \"*\"
grade = \"odd\"
level = 5
lease = \"1h\"
[[decide]]
detector = \"protocol.*\"
grade = \"odd\"
level = 5
lease = \"1h\"
[[decide]]
detector = \"c2.*\"
grade = \"odd\"
level = 5
lease = \"1h\"
";
    let mut draw = Draw(77);
    let mut payload = vec![0x9A];
    payload.extend(draw.bytes(63));
    let mut bench = Bench::new("enforce", decide, &[]);
    bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 443), &payload));
    let mut told: Vec<_> =
        bench.every_finding().iter().map(|finding| finding.detector.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, ["c2.shadowpad", "protocol.encrypted", "protocol.mismatch"]);
    assert!(bench.orders().is_empty());
}

#[test]
fn a_sentence_names_both_ends_and_the_numbers_that_decided() {
    let mut bench = Bench::new("dry-run", "", &[]);
    let mut zxshell = b"\x86\x19\0\0\x04\x01\0\0".to_vec();
    zxshell.extend_from_slice(&[7; 8]);
    bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 8443), &zxshell));
    let finding = bench.findings()[0];
    assert_eq!(finding.detector, "c2.zxshell");
    assert_eq!(finding.rule.as_deref(), Some("relatives@1#c2.zxshell"));
    assert_eq!(
        finding.explanation,
        "web-1 spoke to 203.0.113.9:8443 as ZxShell does: the first 8 of 16 bytes are those of its \
         hello; the chance of this in other traffic is below 1 in 10^18."
    );
    let proof = serde_json::to_string(&finding.evidence).unwrap();
    assert_eq!(
        proof,
        "[{\"kind\":\"payload\",\"head\":\"86190000040100000707070707070707\",\"toward\":\"remote\"}]"
    );
}
