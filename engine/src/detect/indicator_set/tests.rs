use super::*;
use crate::rules::{LIST_DEFAULTS, RulesBuilder};
use sekisho_schema::intel::{Facts, Id, Observable};
use std::net::Ipv4Addr;

fn set(list: &str) -> IndicatorSet {
    let mut builder = RulesBuilder::new();
    builder.add_list("list", list).unwrap();
    builder.build().indicators
}

const NOW: Timestamp = Timestamp::EPOCH;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn value(set: &IndicatorSet, found: Option<IndicatorRef>) -> Option<String> {
    found.map(|found| set.describe(found).record.value)
}

#[test]
fn a_name_stands_for_what_is_below_it_and_only_at_a_label_border() {
    let set = set("c2.example\n");
    for name in ["c2.example", "a.c2.example", "a.b.c2.example"] {
        assert!(set.by_name(name, NOW).is_some(), "{name}");
    }
    for name in [
        "xc2.example",
        "c2.example.com",
        "example",
        "2.example",
        "c2.examplex",
        "",
        ".",
        "c2..example",
    ] {
        assert!(set.by_name(name, NOW).is_none(), "{name}");
    }
}

#[test]
fn an_exact_name_stands_for_itself_alone_beside_any_name_above_it() {
    let set = set("=c2.example\n=a.b.example\nb.example\n");
    let told = |name: &str| value(&set, set.by_name(name, NOW));
    assert_eq!(told("c2.example").as_deref(), Some("=c2.example"));
    assert_eq!(told("a.c2.example"), None);
    assert_eq!(told("a.b.example").as_deref(), Some("=a.b.example"));
    assert_eq!(told("x.a.b.example").as_deref(), Some("b.example"));
}

#[test]
fn the_nearest_name_above_is_the_one_told() {
    let set = set("example.net\nbad.example.net\n");
    let told = |name: &str| value(&set, set.by_name(name, NOW)).unwrap();
    assert_eq!(told("x.bad.example.net"), "bad.example.net");
    assert_eq!(told("good.example.net"), "example.net");
}

#[test]
fn the_longest_valid_prefix_is_told_and_an_address_before_any_network() {
    let set = set("203.0.0.0/16\n203.0.113.0/24\n203.0.113.9\n2001:db8::/32\n2001:db8:1::/48\n");
    let told = |address: &str| value(&set, set.by_address(ip(address), NOW));
    assert_eq!(told("203.0.113.9").as_deref(), Some("203.0.113.9"));
    assert_eq!(told("203.0.113.10").as_deref(), Some("203.0.113.0/24"));
    assert_eq!(told("203.0.112.10").as_deref(), Some("203.0.0.0/16"));
    assert_eq!(told("::ffff:203.0.112.10").as_deref(), Some("203.0.0.0/16"));
    assert_eq!(told("203.1.0.0"), None);
    assert_eq!(told("202.255.255.255"), None);
    assert_eq!(told("2001:db8:1::5").as_deref(), Some("2001:db8:1::/48"));
    assert_eq!(told("2001:db8:2::5").as_deref(), Some("2001:db8::/32"));
    assert_eq!(told("2001:db9::"), None);
    assert_eq!(set.counts().of(Kind::Network), 4);
}

#[test]
fn a_url_is_found_with_any_query_unless_it_has_one_and_below_a_prefix() {
    let set =
        set("http://c2.example/gate.php\nhttps://c2.example/a?id=1\nhttp://c2.example:8080/x/*\n\
         http://203.0.113.9/p.bin\n");
    let told = |host: &str, target: &str, port| {
        value(&set, set.by_url(host, target.as_bytes(), port, NOW))
    };
    assert_eq!(told("C2.Example", "/gate.php", 80).as_deref(), Some("c2.example/gate.php"));
    assert_eq!(told("c2.example", "/gate.php?x=1", 443).as_deref(), Some("c2.example/gate.php"));
    assert_eq!(told("c2.example", "/a?id=1", 80).as_deref(), Some("c2.example/a?id=1"));
    assert_eq!(told("c2.example", "/x/y/z?q=/", 8080).as_deref(), Some("c2.example:8080/x/*"));
    assert_eq!(told("203.0.113.9", "/p.bin", 80).as_deref(), Some("203.0.113.9/p.bin"));
    assert_eq!(
        told("proxy.example", "http://c2.example/gate.php", 3128).as_deref(),
        Some("c2.example/gate.php")
    );
    for (host, target, port) in [
        ("c2.example", "/a", 80),
        ("c2.example", "/a?id=2", 80),
        ("c2.example", "/gate.ph", 80),
        ("c2.example", "/x/y", 80),
        ("c2.example", "/gate.php", 8080),
        ("d2.example", "/gate.php", 80),
        ("c2.example", "/Gate.php", 80),
        ("", "", 0),
    ] {
        assert_eq!(told(host, target, port), None, "{host}{target}");
    }
    assert_eq!(set.by_url("c2.example", &[b'/'; 5000], 80, NOW), None);
    assert_eq!(set.by_url("c2.example", b"/\xFF\xFE", 80, NOW), None);
}

#[test]
fn fingerprints_certificates_and_user_agents_are_found_whole() {
    let set = set("ja3:e7d705a3286e19ea42f587b344ee6865\nt13d1516h2_8daaf6152771_e5627efa2ab1\n\
         sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709\nua:Mozilla/4.0 (compatible; x)\n");
    let hash = [
        0xe7, 0xd7, 0x05, 0xa3, 0x28, 0x6e, 0x19, 0xea, 0x42, 0xf5, 0x87, 0xb3, 0x44, 0xee, 0x68,
        0x65,
    ];
    assert!(set.by_ja3(&hash, NOW).is_some() && set.by_ja3(&[0; 16], NOW).is_none());
    assert!(set.by_ja3_text("e7d705a3286e19ea42f587b344ee6865", NOW).is_some());
    assert!(set.by_ja4("t13d1516h2_8daaf6152771_e5627efa2ab1", NOW).is_some());
    assert!(set.by_ja4("t13d1516h2_8daaf6152771_e5627efa2ab2", NOW).is_none());
    let sha1 = [
        0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55, 0xbf, 0xef, 0x95, 0x60, 0x18,
        0x90, 0xaf, 0xd8, 0x07, 0x09,
    ];
    assert!(set.by_certificate(&[&[0; 32], &sha1], NOW).is_some());
    assert!(set.by_certificate(&[&[0; 32], &[0; 20]], NOW).is_none());
    assert!(set.by_user_agent(b"Mozilla/4.0 (compatible; x)", NOW).is_some());
    assert!(set.by_user_agent(b"Mozilla/4.0 (compatible; x) ", NOW).is_none());
    // A JA3 and a certificate's MD5 are both sixteen bytes and never the same thing.
    assert!(set.by_certificate(&[&hash], NOW).is_none());
    assert!(Kind::ALL.into_iter().all(|kind| set.has(kind) == (set.counts().of(kind) > 0)));
    assert!(set.has(Kind::Ja3) && !set.has(Kind::Url));
}

/// plugx.md, section 2, D12: the library is as common as the implant.
#[test]
fn a_fingerprint_or_user_agent_is_never_worth_more_than_suspect_whoever_says_so() {
    let mut builder = SetBuilder::default();
    let feed = builder.origin("feed", 0);
    let texts = [
        "203.0.113.9",
        "203.0.113.0/24",
        "203.0.113.9:443",
        "c2.example",
        "http://c2.example/x",
        "ja3:e7d705a3286e19ea42f587b344ee6865",
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "ua:x",
    ];
    for (line, text) in texts.into_iter().enumerate() {
        let facts = Facts { grade: Some(Grade::Malicious), ..Facts::of_line(line as u32) };
        builder.put(&Observable::parse(text).unwrap(), feed, &facts, LIST_DEFAULTS).unwrap();
    }
    let set = builder.build();
    let mut seen = 0;
    for shard in 0..SHARDS {
        for at in 0..4 {
            for network in [false, true] {
                let found = IndicatorRef { shard: shard as u8, network, v6: false, at };
                let told = set.describe(found);
                if told.rule.is_empty() {
                    continue;
                }
                seen += 1;
                let most = if told.kind.proves_alone() { Grade::Malicious } else { Grade::Suspect };
                assert_eq!(told.grade, most, "{told:?}");
            }
        }
    }
    assert_eq!(seen, texts.len());
}

#[test]
fn what_the_operator_allows_is_silent_whatever_the_lists_say() {
    let mut set = set(
        "c2.example\n203.0.113.9\n198.51.100.1:443\n2001:db8::1\n198.51.100.2\nhttp://u.example/a\n\
         http://v.example/a/b\nja3:e7d705a3286e19ea42f587b344ee6865\nua:curl/8.0\n192.0.2.0/25\n\
         sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709\nt13d1516h2_8daaf6152771_e5627efa2ab1\n",
    );
    let allow = [
        "example.org",
        "deep.c2.example",
        "=x.c2.example",
        "203.0.113.0/24",
        "198.51.100.1:443",
        "2001:db8::1",
        "http://u.example/a",
        "http://v.example/a/*",
        "ja3:e7d705a3286e19ea42f587b344ee6865",
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "ua:curl/8.0",
        "192.0.2.9",
        "what?",
    ];
    assert_eq!(set.set_allow(&allow.map(str::to_owned)), ["what?"]);
    assert!(set.by_name("c2.example", NOW).is_some());
    assert!(set.by_name("a.deep.c2.example", NOW).is_none());
    assert!(set.by_name("x.c2.example", NOW).is_none());
    assert!(set.by_name("a.x.c2.example", NOW).is_some());
    assert!(set.by_address(ip("203.0.113.9"), NOW).is_none());
    assert!(set.by_address(ip("2001:db8::1"), NOW).is_none());
    assert!(set.by_endpoint("198.51.100.1:443".parse().unwrap(), NOW).is_none());
    assert!(set.by_address(ip("198.51.100.2"), NOW).is_some());
    assert!(set.by_address(ip("192.0.2.9"), NOW).is_none());
    assert!(set.by_address(ip("192.0.2.8"), NOW).is_some());
    assert!(set.by_url("u.example", b"/a?x", 80, NOW).is_none());
    assert!(set.by_url("v.example", b"/a/b", 80, NOW).is_none());
    assert!(set.by_ja3_text("e7d705a3286e19ea42f587b344ee6865", NOW).is_none());
    assert!(set.by_ja4("t13d1516h2_8daaf6152771_e5627efa2ab1", NOW).is_none());
    assert!(set.by_user_agent(b"curl/8.0", NOW).is_none());
    assert!(set.allows_address(ip("::ffff:203.0.113.77")) && set.allows_name("a.deep.c2.example"));
    let targets: Vec<String> = set.targets(NOW).map(|target| target.network.to_string()).collect();
    assert_eq!(targets.len(), 2, "{targets:?}");
    assert!(set.set_allow(&[]).is_empty());
    assert!(set.by_address(ip("203.0.113.9"), NOW).is_some());
    assert!(set.by_user_agent(b"curl/8.0", NOW).is_some());
    assert_eq!(set.targets(NOW).count(), 5);
}

fn says<'a>(grade: Grade, confidence: u8, until: Option<Timestamp>) -> Facts<'a> {
    Facts {
        grade: Some(grade),
        confidence: Some(confidence),
        valid_until: until,
        ..Facts::of_line(1)
    }
}

#[test]
fn the_first_source_with_a_valid_statement_decides_and_within_it_the_strongest() {
    let mut builder = SetBuilder::default();
    let value = Observable::parse("203.0.113.9").unwrap();
    let second = Timestamp::from_nanos(1_000_000_000);
    let first = builder.origin("first", 0);
    let later = builder.origin("later", 0);
    for (origin, facts) in [
        (later, says(Grade::Malicious, 90, None)),
        (later, says(Grade::Malicious, 95, None)),
        (later, says(Grade::Odd, 99, None)),
        (first, says(Grade::Suspect, 10, Some(second))),
        (first, says(Grade::Suspect, 10, Some(second))),
    ] {
        builder.put(&value, origin, &facts, LIST_DEFAULTS).unwrap();
    }
    let set = builder.build();
    let told = |at: i64| {
        let found = set.by_address(ip("203.0.113.9"), Timestamp::from_nanos(at)).unwrap();
        let told = set.describe(found);
        (told.record.source, told.grade, told.record.confidence)
    };
    assert_eq!(told(1_000_000_000), ("first".to_owned(), Grade::Suspect, 10));
    assert_eq!(told(1_000_000_001), ("later".to_owned(), Grade::Malicious, 95));
    assert_eq!(set.counts().of(Kind::Address), 1);
    assert_eq!(set.duplicates(), 1);
    let tally = set.tally();
    assert_eq!(tally[&(Kind::Address, "first".to_owned())], 1);
    assert_eq!(set.expired(Timestamp::from_nanos(1_000_000_001)), 2);
    assert_eq!(set.expired(Timestamp::from_nanos(1_000_000_000)), 0);
}

#[test]
fn an_indicator_counts_from_and_until_its_times_and_a_wider_one_stands_in() {
    let mut builder = SetBuilder::default();
    let origin = builder.origin("feed", 0);
    let at = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
    let narrow =
        Facts { valid_from: Some(at(100)), valid_until: Some(at(200)), ..Facts::of_line(1) };
    for (text, facts) in [
        ("203.0.113.0/24", narrow),
        ("203.0.0.0/16", Facts::of_line(2)),
        ("x.c2.example", narrow),
        ("c2.example", Facts::of_line(3)),
    ] {
        builder.put(&Observable::parse(text).unwrap(), origin, &facts, LIST_DEFAULTS).unwrap();
    }
    let set = builder.build();
    for (seconds, network, name) in [
        (99, "203.0.0.0/16", "c2.example"),
        (100, "203.0.113.0/24", "x.c2.example"),
        (200, "203.0.113.0/24", "x.c2.example"),
        (201, "203.0.0.0/16", "c2.example"),
    ] {
        let found = set.by_address(ip("203.0.113.9"), at(seconds));
        assert_eq!(value(&set, found).as_deref(), Some(network), "{seconds}");
        let found = set.by_name("x.c2.example", at(seconds));
        assert_eq!(value(&set, found).as_deref(), Some(name), "{seconds}");
    }
}

#[test]
fn families_class_and_ids_are_told() {
    let mut builder = SetBuilder::default();
    let origin = builder.origin("feed", 7);
    let plain = "8e2e2d2b-17d4-4cbf-938f-98ee46b3cd3f";
    let uuid = &format!("indicator--{plain}");
    let odd = "Indicator 7\n\u{e9}";
    let facts = Facts {
        source: Some("Somebody"),
        class: IndicatorClass::Sinkhole,
        labels: "PlugX, RedDelta",
        ..Facts::of_line(1)
    };
    for (text, id) in [("203.0.113.9", uuid.as_str()), ("c2.example", plain), ("d2.example", odd)] {
        let facts = Facts { id: Id::Text(id), ..facts };
        builder.put(&Observable::parse(text).unwrap(), origin, &facts, LIST_DEFAULTS).unwrap();
    }
    let direct = builder.build();
    let again = load(&compile(&direct), "192.0.2.1\n").unwrap();
    for set in [direct, again] {
        ids_are_told(&set, uuid, plain);
    }
}

fn ids_are_told(set: &IndicatorSet, uuid: &String, plain: &str) {
    let told = set.describe(set.by_address(ip("203.0.113.9"), NOW).unwrap());
    assert_eq!(told.rule, format!("feed@7#{uuid}"));
    assert_eq!((&told.record.id, told.record.source.as_str()), (uuid, "Somebody"));
    assert_eq!(told.record.class, IndicatorClass::Sinkhole);
    assert_eq!(told.record.labels, ["PlugX", "RedDelta"]);
    let id = |name: &str| set.describe(set.by_name(name, NOW).unwrap()).record.id;
    assert_eq!(
        (id("c2.example"), id("d2.example")),
        (plain.to_owned(), "Indicator 7\u{e9}".to_owned())
    );
}

/// Law: exactly what was put in is found, however the hashes fall.
#[test]
fn among_many_indicators_exactly_those_listed_are_found() {
    let listed: String = (0..20_000_u32)
        .map(|n| {
            format!(
                "{}\nn{n}.bad{}.example\n{}:443\n",
                Ipv4Addr::from_bits(0x2D00_0000 + n * 2),
                n % 7,
                Ipv4Addr::from_bits(0x2E00_0000 + n * 2)
            )
        })
        .collect();
    let set = set(&listed);
    assert_eq!(set.counts().total(), 60_000);
    for n in 0..20_000_u32 {
        let v4 = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        assert!(set.by_address(v4(0x2D00_0000 + n * 2), NOW).is_some());
        assert!(set.by_address(v4(0x2D00_0001 + n * 2), NOW).is_none());
        assert!(set.by_name(&format!("n{n}.bad{}.example", n % 7), NOW).is_some());
        assert!(set.by_name(&format!("n{n}.bad{}.example", (n + 1) % 7), NOW).is_none());
        let end = |bits| SocketAddr::new(v4(bits), 443);
        assert!(set.by_endpoint(end(0x2E00_0000 + n * 2), NOW).is_some());
        assert!(set.by_endpoint(end(0x2E00_0001 + n * 2), NOW).is_none());
    }
}

#[test]
fn an_address_takes_under_20_bytes_and_a_name_of_usual_length_under_40() {
    let many = 200_000_u32;
    let addresses: String =
        (0..many).map(|n| format!("{}\n", Ipv4Addr::from_bits(0x2D00_0000 + n))).collect();
    // 18 bytes, the middle of malicious domains in public feeds.
    let names: String = (0..many).map(|n| format!("{n:010x}.example\n")).collect();
    let each = |list: &str| set(list).bytes() as f64 / f64::from(many);
    let (address, name) = (each(&addresses), each(&names));
    assert!(address < 20.0, "{address} bytes an address");
    assert!(name < 40.0, "{name} bytes a name");
}

fn compile(set: &IndicatorSet) -> Vec<Vec<u8>> {
    set.sections().unwrap()
}

fn load(sections: &[Vec<u8>], before: &str) -> Result<IndicatorSet, crate::rules::BuildRulesError> {
    let mut builder = RulesBuilder::new();
    if !before.is_empty() {
        builder.add_list("before", before).unwrap();
    }
    builder
        .add_compiled("compiled", |number| Ok::<_, ()>(sections[number].clone()))
        .map(|_| builder.build().indicators)
}

const EVERYTHING: &str = "203.0.113.9\n2001:db8::1\n198.51.100.0/24\n2001:db8:5::/48\n\
    198.51.100.7:8443\n[2001:db8::2]:53\nc2.example\n=d2.example\nhttp://c2.example/a?b=c\n\
    http://c2.example/p/*\nja3:e7d705a3286e19ea42f587b344ee6865\n\
    t13d1516h2_8daaf6152771_e5627efa2ab1\nua:Mozilla/4.0 (compatible; x)\n\
    sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

fn sees_everything(set: &IndicatorSet) -> Vec<Option<IndicatorDescription>> {
    let end = |text: &str| set.by_endpoint(text.parse().unwrap(), NOW);
    let mut sha256 = [0; 32];
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(unhex(text, &mut sha256), Some(32));
    [
        set.by_address(ip("203.0.113.9"), NOW),
        set.by_address(ip("2001:db8::1"), NOW),
        set.by_address(ip("198.51.100.8"), NOW),
        set.by_address(ip("2001:db8:5::8"), NOW),
        end("198.51.100.7:8443"),
        end("[2001:db8::2]:53"),
        set.by_name("x.c2.example", NOW),
        set.by_name("d2.example", NOW),
        set.by_url("c2.example", b"/a?b=c", 80, NOW),
        set.by_url("c2.example", b"/p/q", 80, NOW),
        set.by_ja3_text("e7d705a3286e19ea42f587b344ee6865", NOW),
        set.by_ja4("t13d1516h2_8daaf6152771_e5627efa2ab1", NOW),
        set.by_user_agent(b"Mozilla/4.0 (compatible; x)", NOW),
        set.by_certificate(&[&sha256], NOW),
    ]
    .into_iter()
    .map(|found| found.map(|found| set.describe(found)))
    .collect()
}

#[test]
fn a_compiled_set_says_what_the_texts_said_also_behind_another_source() {
    let direct = set(EVERYTHING);
    let told = sees_everything(&direct);
    assert!(told.iter().all(Option::is_some), "{told:?}");
    let again = load(&compile(&direct), "").unwrap();
    assert_eq!(sees_everything(&again), told);
    assert_eq!((again.counts(), again.tally()), (direct.counts(), direct.tally()));
    let behind = load(&compile(&direct), "192.0.2.1\nother.example\n192.0.2.128/25\n").unwrap();
    assert_eq!(sees_everything(&behind), told);
    assert!(behind.by_name("other.example", NOW).is_some());
    let twice = load(&compile(&again), EVERYTHING).unwrap();
    let sources: Vec<String> =
        sees_everything(&twice).into_iter().map(|told| told.unwrap().record.source).collect();
    assert!(sources.iter().all(|source| source == "before"), "{sources:?}");
}

/// Law: whatever bytes come, a set comes out or a clear refusal, and never what no text could say.
#[test]
fn a_forged_compiled_set_is_refused_or_harmless() {
    let good = compile(&set(EVERYTHING));
    let mut state = 5_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut refused, mut read) = (0, 0);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        let number = random() as usize % bad.len();
        let section = &mut bad[number];
        match random() % 4 {
            0 => section.truncate(random() as usize % (section.len() + 1)),
            1 => section.extend([0; 7]),
            2 => section.clear(),
            _ if section.is_empty() => {}
            _ => {
                let at = random() as usize % section.len();
                section[at] = random() as u8;
            }
        }
        match load(&bad, "") {
            Err(_) => refused += 1,
            Ok(set) => {
                read += 1;
                let _ = sees_everything(&set);
                for address in ["127.0.0.1", "0.0.0.0", "8.8.8.8"] {
                    assert_eq!(set.by_address(ip(address), NOW), None);
                }
                assert_eq!(set.by_name("com", NOW), None);
            }
        }
    }
    assert!(refused > 5000 && read > 1000, "{refused} refused, {read} read");
    // A length that promises more than there is makes no room.
    let mut huge = good;
    huge[1][4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(load(&huge, "").is_err());
    huge[0] = u32::MAX.to_le_bytes().to_vec();
    assert!(load(&huge, "").is_err());
}

/// Law: a set whose pieces are exchanged one by one holds in between what both sets hold.
#[test]
fn a_set_is_replaced_piece_by_piece_and_what_both_hold_is_always_found() {
    let list = |from: u32| -> String {
        (from..from + 4000)
            .map(|n| format!("{}\nn{n}.example\n", Ipv4Addr::from_bits(0x2D00_0000 + n)))
            .collect()
    };
    let (old, new) = (list(0), list(2000));
    let mut rules = set(&old);
    let mut handed_back = Vec::new();
    for number in 0..IndicatorSet::PIECES {
        let mut builder = RulesBuilder::seeded(99);
        builder.keep_only(number);
        builder.add_list("list", &new).unwrap();
        let piece = builder.build_piece(number);
        assert_eq!(piece.number(), number);
        handed_back.push(rules.exchange(piece));
        for n in 2000..4000_u32 {
            assert!(rules.by_name(&format!("n{n}.example"), NOW).is_some(), "{n} at {number}");
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x2D00_0000 + n));
            assert!(rules.by_address(address, NOW).is_some(), "{n} at {number}");
        }
    }
    assert_eq!(rules.counts(), set(&new).counts());
    assert!(rules.by_name("n0.example", NOW).is_none());
    assert!(rules.by_name("n5999.example", NOW).is_some());
    let mut back = IndicatorSet::default();
    for piece in handed_back {
        back.exchange(piece);
    }
    assert_eq!(back.counts(), set(&old).counts());
}

#[test]
fn a_value_said_a_million_times_in_different_words_is_no_slow_lookup() {
    let mut builder = SetBuilder::default();
    let origin = builder.origin("feed", 0);
    let value = Observable::parse("c2.example").unwrap();
    for n in 0..300_000_u32 {
        let at = Timestamp::from_nanos(i64::from(n) * 1_000_000_000);
        let facts = Facts { valid_until: Some(at), ..Facts::of_line(n) };
        builder.put(&value, origin, &facts, LIST_DEFAULTS).unwrap();
    }
    let set = builder.build();
    assert_eq!(set.counts().total(), 1);
    assert!(set.duplicates() > 299_000);
    assert!(set.by_name("c2.example", NOW).is_some());
}
