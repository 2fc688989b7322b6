//! Which destinations the kernel shall drop beforehand: pure, from indicators and policy.

use crate::enforce::{Key, KnownSet, Plan};
use sekisho_engine::detect::indicator_set::{IndicatorSet, Target};
use sekisho_schema::{Grade, Scope, Span, Timestamp};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The longest that an element is held without being asserted again.
pub(super) const LEASE: Span = Span::from_hours(24);
/// Ends are counted in whole hours, so that a feed with an end of its own on every line stays a few groups.
const HOUR: i64 = 3_600_000_000_000;

/// What shall be held, and under which ruleset.
#[derive(Clone)]
pub(in super::super) struct Wish {
    pub(in super::super) plan: Plan,
    /// Grades of which a sighting of the address cuts by policy.
    pub(in super::super) grades: Vec<Grade>,
    /// The indicators in force, with the operator's allow-list.
    pub(in super::super) indicators: IndicatorSet,
}

/// What a wish comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By the end that comes before the lease's own, if one does.
    pub(super) groups: BTreeMap<Option<Timestamp>, KnownSet>,
    /// How many more than the cap would have been held.
    pub(super) over: u64,
    /// Networks, which only packets that were seen are compared with.
    pub(super) networks: u64,
    /// Those that an exemption, the collector or this host itself forbids.
    pub(super) exempt: u64,
}

impl Wanted {
    pub(super) fn len(&self) -> usize {
        self.groups.values().map(KnownSet::len).sum()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.groups.values().any(|group| group.contains(key))
    }
}

type Groups = BTreeMap<(Grade, Option<Timestamp>), KnownSet>;

impl Wish {
    /// What is to be held at a time, at most `cap` of it.
    pub(super) fn wanted(&self, now: Timestamp, cap: usize) -> Wanted {
        let mut wanted = Wanted::default();
        let groups = self.gather(now, &mut wanted);
        let mut room = cap;
        for (place, ((grade, until), group)) in groups.iter().enumerate() {
            if !self.grades.contains(grade) {
                continue;
            }
            let others = |key: Key| {
                let mut others = groups.values().enumerate().filter(|(other, _)| *other != place);
                others.any(|(_, other)| other.contains(key))
            };
            let target = wanted.groups.entry(*until).or_default();
            for key in group.keys() {
                // Where several say something of one address, the engine's own rule tells whose word counts.
                if groups.len() > 1 && others(key) && !self.stands(key, *grade, *until, now) {
                    continue;
                }
                if self.plan.refusal(&Scope::Destination(key.address())).is_some() {
                    wanted.exempt += 1;
                } else if room == 0 {
                    wanted.over += 1;
                } else {
                    room -= 1;
                    target.push(key);
                }
            }
            target.settle();
        }
        wanted.groups.retain(|_, group| !group.is_empty());
        wanted
    }

    fn gather(&self, now: Timestamp, wanted: &mut Wanted) -> Groups {
        let mut groups = Groups::new();
        for Target { network, port, grade, until } in self.indicators.targets(now) {
            if network.prefix_len() < network.max_prefix_len() {
                wanted.networks += u64::from(self.grades.contains(&grade));
                continue;
            }
            // What lies inside is accepted before these sets, and sighted by nobody.
            if self.plan.is_inside(network.addr()) || network.addr().is_multicast() {
                continue;
            }
            let group = groups.entry((grade, bucket(until, now))).or_default();
            group.push(Key::new(network.addr(), port));
        }
        groups.values_mut().for_each(KnownSet::settle);
        groups
    }

    fn stands(&self, key: Key, grade: Grade, until: Option<Timestamp>, now: Timestamp) -> bool {
        let address = key.address();
        let found = match key.port() {
            Some(port) => self.indicators.by_endpoint(SocketAddr::new(address, port), now),
            None => self.indicators.by_address(address, now),
        };
        found.is_some_and(|found| {
            let told = self.indicators.describe(found);
            told.grade == grade && bucket(told.record.valid_until, now) == until
        })
    }
}

/// The end of validity when it comes before the next assertion, in whole hours upward.
fn bucket(until: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let until = until.filter(|until| *until < now.after(LEASE))?;
    let hours = until.nanos().div_euclid(HOUR).saturating_add(1);
    // An hour too long would cut what is no longer known: the last hour is exact.
    Some(if until < now.after(Span::from_hours(1)) {
        until
    } else {
        Timestamp::from_nanos(hours.saturating_mul(HOUR)).before(Span::from_hours(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_engine::rules::RulesBuilder;
    use sekisho_schema::policy::{Exemption, default_inside};

    fn wish(lists: &[&str], allow: &[&str]) -> Wish {
        let mut builder = RulesBuilder::new();
        for (nth, list) in lists.iter().enumerate() {
            builder.add_list(&format!("list{nth}"), list).unwrap();
        }
        let mut indicators = builder.build().indicators;
        assert!(indicators.set_allow(&allow.map_to_owned()).is_empty());
        let plan = Plan {
            inside: default_inside(),
            exempt: vec![Exemption::Peer {
                name: "backup".to_owned(),
                to: "198.51.100.20/32".parse().unwrap(),
                transport: None,
                port: None,
            }],
            collector: vec!["192.0.2.9:8443".parse().unwrap()],
            known: true,
            ..Plan::default()
        };
        Wish { plan, grades: vec![Grade::Malicious], indicators }
    }

    trait Owned {
        fn map_to_owned(&self) -> Vec<String>;
    }

    impl Owned for &[&str] {
        fn map_to_owned(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    fn has(wanted: &Wanted, text: &str) -> bool {
        wanted.contains(match text.parse::<SocketAddr>() {
            Ok(end) => Key::new(end.ip(), Some(end.port())),
            Err(_) => Key::new(text.parse().unwrap(), None),
        })
    }

    const LIST: &str = "203.0.113.9\n203.0.113.10:443\n2001:db8::1\nbad.example\n10.1.2.3\n";

    #[test]
    fn addresses_and_endpoints_of_a_cutting_grade_are_wanted_and_nothing_inside() {
        let now = Timestamp::from_nanos(HOUR);
        let wish = wish(&[LIST], &[]);
        let wanted = wish.wanted(now, 100);
        assert_eq!((wanted.len(), wanted.over), (3, 0));
        for text in ["203.0.113.9", "203.0.113.10:443", "2001:db8::1"] {
            assert!(has(&wanted, text), "{text}");
        }
        let none = Wish { grades: vec![], ..wish };
        assert_eq!(none.wanted(now, 100).len(), 0, "a policy that cuts nothing wants nothing held");
    }

    #[test]
    fn the_collector_an_exemption_and_the_allow_list_are_never_wanted() {
        let lists = [
            "192.0.2.9\n192.0.2.9:8443\n198.51.100.20\n198.51.100.20:80\n203.0.113.1\n203.0.113.2:5\n203.0.113.3\n",
        ];
        let wanted =
            wish(&lists, &["203.0.113.1", "203.0.113.2:5"]).wanted(Timestamp::from_nanos(1), 100);
        assert_eq!((wanted.len(), wanted.exempt), (1, 4));
        assert!(has(&wanted, "203.0.113.3"));
    }

    #[test]
    fn what_is_over_the_cap_is_counted() {
        let wanted = wish(&[LIST], &[]).wanted(Timestamp::from_nanos(1), 2);
        assert_eq!((wanted.len(), wanted.over), (2, 1));
    }

    #[test]
    fn an_end_is_never_later_than_said_and_only_what_comes_before_the_lease_counts() {
        let now = Timestamp::from_nanos(100 * HOUR + 7);
        assert_eq!(bucket(None, now), None);
        assert_eq!(bucket(Some(now.after(Span::from_hours(48))), now), None);
        for minutes in [5, 61, 90, 600, 1439] {
            let until = now.after(Span::from_secs(minutes * 60));
            let end = bucket(Some(until), now).unwrap();
            assert!(end <= until && until.since(end) < Span::from_hours(1), "{minutes}");
            assert!(end > now);
        }
    }
}
