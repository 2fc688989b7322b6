use super::*;
use crate::rules::RulesBuilder;

fn set(list: &str) -> IndicatorSet {
    let mut builder = RulesBuilder::new();
    builder.add_list("list", list).unwrap();
    builder.build().indicators
}

const NOW: Timestamp = Timestamp::EPOCH;

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
fn the_nearest_name_above_is_the_one_told() {
    let set = set("example.net\nbad.example.net\n");
    let told = |name: &str| set.describe(set.by_name(name, NOW).unwrap()).record.value;
    assert_eq!(told("x.bad.example.net"), "bad.example.net");
    assert_eq!(told("good.example.net"), "example.net");
}

#[test]
fn what_the_operator_allows_is_silent_whatever_the_lists_say() {
    let mut set = set("c2.example\n203.0.113.9\n198.51.100.1:443\n2001:db8::1\n198.51.100.2\n");
    let allow = [
        "example.org",
        "deep.c2.example",
        "203.0.113.0/24",
        "198.51.100.1:443",
        "2001:db8::1",
        "what?",
    ];
    assert_eq!(set.set_allow(&allow.map(str::to_owned)), ["what?"]);
    assert!(set.by_name("c2.example", NOW).is_some());
    assert!(set.by_name("a.deep.c2.example", NOW).is_none());
    assert!(set.by_address("203.0.113.9".parse().unwrap(), NOW).is_none());
    assert!(set.by_address("2001:db8::1".parse().unwrap(), NOW).is_none());
    assert!(set.by_endpoint("198.51.100.1:443".parse().unwrap(), NOW).is_none());
    assert!(set.by_address("198.51.100.2".parse().unwrap(), NOW).is_some());
    assert!(set.set_allow(&[]).is_empty());
    assert!(set.by_address("203.0.113.9".parse().unwrap(), NOW).is_some());
}

#[test]
fn texts_that_would_match_too_much_or_nothing_are_refused() {
    use ParseIndicatorError::{Network, OneLabel, Shape, Unroutable};
    for (text, why) in [
        ("com", OneLabel),
        ("*.jp", OneLabel),
        ("10.0.0.0/8", Network),
        ("0.0.0.0", Unroutable),
        ("127.0.0.1:80", Unroutable),
        ("::", Unroutable),
        ("1.2.3", Shape),
        ("1.2.3.4:0", Shape),
        ("1.2.3.4:99999", Shape),
        ("a..b", Shape),
        ("http://c2.example/x", Shape),
        ("c2 example.com", Shape),
        ("bücher.example", Shape),
        ("*", Shape),
        (".", Shape),
    ] {
        assert_eq!(Observable::parse(text), Err(why), "{text}");
    }
}

#[test]
fn of_two_sources_the_one_that_is_surer_and_still_valid_speaks() {
    let mut builder = SetBuilder::default();
    let provenance = |grade, valid_until, source: &str| Provenance {
        grade,
        confidence: 50,
        valid_until,
        source: source.to_owned(),
        origin: source.to_owned(),
        is_list: true,
    };
    let later = Timestamp::from_nanos(100);
    let weak = builder.group(provenance(Grade::Odd, None, "weak"));
    let strong = builder.group(provenance(Grade::Malicious, Some(later), "strong"));
    builder.add("203.0.113.9", weak, 1).unwrap();
    builder.add("203.0.113.9", strong, 1).unwrap();
    builder.add("203.0.113.9", strong, 2).unwrap();
    let set = builder.build();
    let source = |at: i64| {
        let found = set.by_address("203.0.113.9".parse().unwrap(), Timestamp::from_nanos(at));
        set.describe(found.unwrap()).record.source
    };
    assert_eq!((source(100), source(101)), ("strong".to_owned(), "weak".to_owned()));
    assert_eq!(set.counts(), IndicatorCounts { addresses: 1, ..IndicatorCounts::default() });
}

/// Law: exactly what was put in is found, however the hashes fall.
#[test]
fn among_many_indicators_exactly_those_listed_are_found() {
    let listed: String = (0..20_000_u32)
        .map(|n| {
            format!("{}\nn{n}.bad{}.example\n", Ipv4Addr::from_bits(0x2D00_0000 + n * 2), n % 7)
        })
        .collect();
    let set = set(&listed);
    assert_eq!(set.counts().total(), 40_000);
    for n in 0..20_000_u32 {
        let v4 = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        assert!(set.by_address(v4(0x2D00_0000 + n * 2), NOW).is_some());
        assert!(set.by_address(v4(0x2D00_0001 + n * 2), NOW).is_none());
        assert!(set.by_name(&format!("n{n}.bad{}.example", n % 7), NOW).is_some());
        assert!(set.by_name(&format!("n{n}.bad{}.example", (n + 1) % 7), NOW).is_none());
    }
}
