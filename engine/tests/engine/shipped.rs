//! Every shipped indicator on the wire: what it stands for is found, what stands beside it is not.

use sekisho_engine::cases::{Case, try_case};
use sekisho_engine::packs::shipped_lists;
use sekisho_engine::rules::{LIST_DEFAULTS, Rules, RulesBuilder};
use sekisho_schema::Timestamp;
use sekisho_schema::intel::{self, Facts, Observable, ParseObservableError, ReadOptions, Taker};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// None of them has expired: 2022-12-01T00:00:00Z.
const AT: Timestamp = Timestamp::from_nanos(1_669_852_800_000_000_000);
/// Indicators of one script: of a thousand findings of a detector that cut nothing the rest is counted.
const CHUNK: usize = 900;

#[derive(Default)]
struct Values(Vec<(String, Option<Beside>)>);

/// What a script sends for an indicator and for its neighbour.
struct Beside {
    hit: String,
    miss: String,
}

impl Taker for Values {
    fn take(
        &mut self,
        observable: &Observable<'_>,
        _: &Facts<'_>,
    ) -> Result<(), ParseObservableError> {
        let asks = |name: &str| format!("udp 10.0.0.5:5353 > 10.0.0.53:53\n> dns? A {name}\n");
        let opens = |end: String| format!("tcp 10.0.0.5:41000 > {end}\n");
        let (value, beside) = match observable {
            Observable::Address(address) => (
                address.to_string(),
                Some(Beside { hit: opens(format!("{address}:9")), miss: String::new() }),
            ),
            Observable::Endpoint(end) => {
                let other = if end.port() == 9 { 10 } else { 9 };
                let miss = opens(format!("{}:{other}", end.ip()));
                (end.to_string(), Some(Beside { hit: opens(end.to_string()), miss }))
            }
            Observable::Domain { name, .. } => {
                let beside = Beside { hit: asks(name), miss: asks(&format!("x{name}")) };
                (name.to_string(), Some(beside))
            }
            // URLs are looked up by the unit tests of the set.
            _ => (String::new(), None),
        };
        self.0.push((value, beside));
        Ok(())
    }
}

fn rules() -> Rules {
    let mut builder = RulesBuilder::new();
    for (name, text) in shipped_lists() {
        builder
            .read_list(name, LIST_DEFAULTS, |taker| {
                intel::read(text.as_bytes(), ReadOptions::default(), taker)
            })
            .unwrap();
    }
    builder.build()
}

fn case(packets: String) -> Case {
    let name = "shipped indicators".to_owned();
    Case {
        name,
        expect: Vec::new(),
        frame: None,
        grade: None,
        indicators: None,
        at: Some(AT),
        packets,
    }
}

fn told(packets: String) -> BTreeSet<String> {
    let verdict = try_case(&case(packets), rules()).unwrap();
    verdict.told.into_iter().filter_map(|told| told.indicator).collect()
}

#[test]
fn every_shipped_indicator_is_found_on_the_wire_and_its_neighbour_is_not() {
    let mut values = Values::default();
    for (_, text) in shipped_lists() {
        intel::read(text.as_bytes(), ReadOptions::default(), &mut values).unwrap();
    }
    let known: BTreeSet<&str> = values.0.iter().map(|(value, _)| value.as_str()).collect();
    let listed: Vec<_> =
        values.0.iter().filter_map(|(value, beside)| Some((value, beside.as_ref()?))).collect();
    assert!(listed.len() > 8000, "{}", listed.len());
    for chunk in listed.chunks(CHUNK) {
        let (mut hits, mut misses) = (String::new(), String::new());
        for (value, beside) in chunk {
            hits.push_str(&beside.hit);
            // A neighbour may be an indicator of its own, or stand below one.
            let host = value.rsplit_once(':').map_or(value.as_str(), |(host, _)| host);
            if !known.contains(host) || host == value.as_str() {
                write!(misses, "{}", beside.miss).unwrap();
            }
        }
        let found = told(hits);
        let lacking: Vec<_> =
            chunk.iter().map(|(value, _)| *value).filter(|value| !found.contains(*value)).collect();
        // The more exact statement is told: an address with a port before the address, a name before
        // the name above it; each of these has its own line elsewhere in the lists.
        assert!(
            lacking.is_empty(),
            "{} of {}: {:?}",
            lacking.len(),
            chunk.len(),
            &lacking[..lacking.len().min(20)]
        );
        for value in told(misses) {
            assert!(known.contains(value.as_str()), "{value}");
        }
    }
}
