//! The detectors of frameworks and tunnels through the whole engine: their cases, what they cut and
//! what they never cut, and what bounds them.

use crate::forge::{Bench, C2, LOCAL, Made, RESOLVER, START, end, policy, rules, tcp, udp};
use sekisho_engine::cases::{CaseFile, try_case};
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::{HostFact, Input, Limits};
use sekisho_schema::finding::Grade;
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Span, Verified};

const CUT_C2: &str = "
[[decide]]
detector = \"c2.*\"
grade = \"odd\"
level = 5
lease = \"24h\"
";

const CASES: [(&str, &str); 6] = [
    ("c2.cobaltstrike", include_str!("../../../rules/cases/c2.cobaltstrike.toml")),
    ("c2.sliver", include_str!("../../../rules/cases/c2.sliver.toml")),
    ("c2.mythic", include_str!("../../../rules/cases/c2.mythic.toml")),
    ("c2.dnscat2", include_str!("../../../rules/cases/c2.dnscat2.toml")),
    ("c2.iodine", include_str!("../../../rules/cases/c2.iodine.toml")),
    ("c2.ptunnel", include_str!("../../../rules/cases/c2.ptunnel.toml")),
];

#[test]
fn every_case_of_the_frameworks_is_as_its_file_says() {
    let mut faults = Vec::new();
    for (id, text) in CASES {
        let file = CaseFile::parse(text).unwrap();
        assert_eq!(file.detector, id);
        assert_eq!(file.has_both(), (true, true), "{id}");
        for case in &file.cases {
            let verdict = try_case(case, rules(&[])).unwrap();
            if !verdict.faults.is_empty() {
                faults
                    .push(format!("{id}: {}: {:?} {:#?}", case.name, verdict.faults, verdict.told));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The frames of a case, a step before now.
fn frames_of(id: &str, name: &str) -> Vec<Made> {
    let (_, text) = CASES.iter().find(|(known, _)| *known == id).unwrap();
    let file = CaseFile::parse(text).unwrap();
    let case = file.cases.iter().find(|case| case.name == name).unwrap();
    let frames = case.frames().unwrap();
    let first = frames[0].at_ns;
    frames
        .into_iter()
        .map(|frame| Made {
            at: START.after(Span::from_nanos(frame.at_ns - first)),
            wire_len: frame.wire_len,
            bytes: frame.bytes,
        })
        .collect()
}

/// The client of the cases is this host: what others of the inside say cuts nothing here.
fn own_client() -> Input<'static> {
    let own = ["10.0.0.5".parse().unwrap(), LOCAL.into()];
    Input::Fact(HostFact::Addresses(own.into()), START.before(Span::from_millis(1)))
}

#[test]
fn what_proves_itself_cuts_and_what_honest_software_shares_never_does() {
    for (id, name, cuts) in [
        (
            "c2.cobaltstrike",
            "output of the default profile proves itself at the first request",
            true,
        ),
        ("c2.dnscat2", "the fourth name of a session is told", true),
        ("c2.iodine", "version query and login are told", true),
        ("c2.iodine", "raw datagrams are told at the first and proven at the answer", true),
        ("c2.ptunnel", "the header agrees with itself under any magic", true),
        (
            "c2.cobaltstrike",
            "a check-in of the default profile is known by its path and the one block in its nameless cookie",
            false,
        ),
        (
            "c2.cobaltstrike",
            "a stager asks for four letters with the right sum, which is merely odd",
            false,
        ),
        ("c2.cobaltstrike", "a DNS stager asks for piece after piece", false),
        ("c2.sliver", "a poll as shipped shows every sign", false),
        ("c2.mythic", "a message to the default path by the default agent is found", false),
        (
            "c2.dnscat2",
            "names asked for as addresses only are suspect, as a page can make a browser ask",
            false,
        ),
        ("c2.iodine", "asked for as addresses only it stays suspect", false),
        ("c2.ptunnel", "what a stranger sends and the kernel echoes is suspect at most", false),
    ] {
        let mut bench = Bench::with(policy("enforce", CUT_C2), &[], Limits::default());
        bench.input(own_client());
        bench.feed(&frames_of(id, name));
        assert!(bench.findings().iter().any(|finding| finding.detector == id), "{id}: {name}");
        assert_eq!(!bench.orders().is_empty(), cuts, "{id}: {name}");
    }
}

#[test]
fn a_tunnel_through_a_resolver_does_not_cut_the_resolver() {
    let only_destinations = CUT_C2.replace("level = 5", "level = 3");
    for (id, name) in [
        ("c2.dnscat2", "the fourth name of a session is told"),
        ("c2.iodine", "version query and login are told"),
    ] {
        let mut bench = Bench::with(policy("enforce", &only_destinations), &[], Limits::default());
        bench.input(own_client());
        bench.feed(&frames_of(id, name));
        assert!(bench.findings().iter().any(|found| found.grade == Grade::Malicious), "{id}");
        assert!(bench.orders().is_empty(), "{id}");
    }
}

/// A TLS 1.2 server's flight with one certificate (RFC 5246 §7.4).
fn flight(der: &[u8]) -> Vec<u8> {
    let message = |kind: u8, body: &[u8]| {
        let mut out = vec![kind];
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        out.extend_from_slice(body);
        out
    };
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes()[1..].to_vec();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xC0, 0x2F, 0, 0, 0]);
    let entry = [len(der), der.to_vec()].concat();
    let body = [message(2, &hello), message(11, &[len(&entry), entry].concat())].concat();
    let mut record = vec![0x16, 3, 3];
    record.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    record.extend(body);
    record
}

/// A certificate made with OpenSSL 3 for tests; its SHA-256 as `openssl x509 -fingerprint` says.
const DER: &[u8] = include_bytes!("frameworks_certificate.der");
const SHA256: &str = "25f4a8b3854554511e40a97c4063bc0b4609c128c350e2441199786b862d5f09";
const SHA1: &str = "6f52216e6af6754eacab55ca2f3dbb2bd8d3df3b";

#[test]
fn a_listed_certificate_is_told_and_only_suspect_for_the_host_that_asked_for_it() {
    for hash in [SHA256, SHA1] {
        let mut bench = Bench::with(policy("enforce", CUT_C2), &[], Limits::default());
        let mut rules = RulesBuilder::new();
        let pack = format!(
            "schema = \"sekisho.rules/1\"\nname = \"mine\"\nversion = 1\n[[detector]]\n\
             id = \"c2.cobaltstrike\"\ngrade = \"malicious\"\nsource = \"own\"\n\
             [detector.settings]\ncertificates = [\"{hash}\"]\n"
        );
        let pack = RulePack::parse(&pack).unwrap();
        rules.add_pack(&Verified::locally(pack, Local::Installed)).unwrap();
        bench.input(Input::Rules(Box::new(rules.build()), START));
        let (client, server) = (end(LOCAL, 41_000), end(C2, 443));
        let step = |n| START.after(Span::from_millis(n));
        let hello = [
            &[0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3][..],
            &[9; 32],
            &[0, 0, 2, 0xC0, 0x2F, 1, 0, 0, 0],
        ]
        .concat();
        let answer = flight(DER);
        let after = 101 + u32::try_from(hello.len()).unwrap();
        bench.feed(&[
            tcp(step(0), client, server, 2, 100, 0, &[]),
            tcp(step(1), server, client, 0x12, 900, 101, &[]),
            tcp(step(2), client, server, 0x18, 101, 901, &hello),
            tcp(step(3), server, client, 0x18, 901, after, &answer[..300]),
            tcp(step(4), server, client, 0x18, 1201, after, &answer[300..]),
        ]);
        let found = bench.findings();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].explanation.contains(hash), "{}", found[0].explanation);
        assert_eq!((found[0].detector.as_str(), found[0].frame), ("c2.cobaltstrike", 5));
        // Whoever holds the published key can present it to any visitor.
        assert_eq!(found[0].grade, Grade::Suspect);
    }
}

#[test]
fn a_flood_of_sessions_zones_and_echoes_is_bounded_and_counted() {
    let mut bench = Bench::with(policy("dry-run", CUT_C2), &[], Limits::default());
    for n in 0..6000_u32 {
        let at = START.after(Span::from_millis(i64::from(n)));
        for name in [
            format!("{:04x}01{:04x}0000000000.zone{n}.example", n & 0xFFFF, n & 0xFFFF),
            format!("paaaaaaa.zone{n}.example"),
        ] {
            let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.') {
                message.push(u8::try_from(label.len()).unwrap());
                message.extend_from_slice(label.as_bytes());
            }
            message.extend_from_slice(&[0, 0, 16, 0, 1]);
            bench.feed(&[udp(at, end(LOCAL, 40_000), end(RESOLVER, 53), &message)]);
        }
    }
    // Twelve thousand names that each are new do carry information, whoever made them: that is told, a few
    // times and as odd, and nothing else is.
    let found = bench.findings();
    let told: Vec<_> = found.iter().map(|found| (found.detector.as_str(), found.grade)).collect();
    assert!((1..=6).contains(&told.len()), "{told:?}");
    assert!(told.iter().all(|told| *told == ("behaviour.dns-information", Grade::Odd)), "{told:?}");
    let evicted = bench.engine.summary().evicted;
    assert!(
        evicted.get("contacts").is_some_and(|count| *count >= 2 * (6000 - 4096)),
        "{evicted:?}"
    );
}
