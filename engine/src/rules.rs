//! Rules: packs and lists, checked as a whole and made ready for the detectors.

use crate::detect::indicator_set::{IndicatorSet, ParseIndicatorError, Provenance, SetBuilder};
use sekisho_schema::finding::Grade;
use sekisho_schema::pack::{DetectorEntry, Indicator, RulePack};
use sekisho_schema::{Timestamp, Verified};
use std::collections::BTreeMap;

/// What the lines of a plain list are worth: a curated feed, as far as its operator can know.
const LIST_GRADE: Grade = Grade::Malicious;
const LIST_CONFIDENCE: u8 = 75;

/// What to look for, ready to use.
#[derive(Debug, Default)]
pub struct Rules {
    /// Known observables.
    pub indicators: IndicatorSet,
    /// Detectors that are switched on, by their identifier.
    pub detectors: BTreeMap<String, DetectorRule>,
    /// Name and version of each pack, in the order of loading.
    pub packs: Vec<(String, u64)>,
    /// Source and number of lines of each list, in the order of loading.
    pub lists: Vec<(String, usize)>,
}

/// A detector with its constants, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorRule {
    /// The entry of the pack.
    pub entry: DetectorEntry,
    /// `pack@version#id`.
    pub rule: String,
}

/// Why a pack or a list can't be taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BuildRulesError {
    /// A line of a list is no indicator.
    #[error("{source_name}:{line}: \"{text}\" {why}; nothing of {source_name} is loaded")]
    Line {
        /// The list.
        source_name: String,
        /// Line, from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: ParseIndicatorError,
    },
    /// An indicator of a pack has a value that is none.
    #[error("pack {pack}, indicator {id}: \"{text}\" {why}; nothing of {pack} is loaded")]
    PackIndicator {
        /// The pack.
        pack: String,
        /// The indicator's id.
        id: String,
        /// Its value.
        text: String,
        /// What is wrong with it.
        why: ParseIndicatorError,
    },
    /// Two packs have one name.
    #[error("pack {0} is given twice; the second is not loaded")]
    PackTwice(String),
    /// More than 4 GiB of indicators.
    #[error("{0} makes more indicators than can be held; nothing of it is loaded")]
    TooMany(String),
}

/// Collects packs and lists; what fails leaves nothing behind.
#[derive(Debug, Default)]
pub struct RulesBuilder {
    set: SetBuilder,
    detectors: BTreeMap<String, DetectorRule>,
    packs: Vec<(String, u64)>,
    lists: Vec<(String, usize)>,
}

impl RulesBuilder {
    /// Makes a builder without any rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pack. A detector that an earlier pack set up is set up anew by this one.
    ///
    /// # Errors
    /// The first indicator that is none, or a second pack of the same name.
    pub fn add_pack(&mut self, pack: &Verified<RulePack>) -> Result<(), BuildRulesError> {
        let rule = |id: &str| format!("{}@{}#{id}", pack.name, pack.version);
        if self.packs.iter().any(|(name, _)| *name == pack.name) {
            return Err(BuildRulesError::PackTwice(pack.name.clone()));
        }
        let origin = format!("{}@{}", pack.name, pack.version);
        let mark = self.set.mark();
        for indicator in &pack.indicator {
            if let Err(why) = self.add_indicator(&origin, indicator) {
                self.set.return_to(mark);
                return Err(match why {
                    ParseIndicatorError::TooMany => BuildRulesError::TooMany(pack.name.clone()),
                    why => BuildRulesError::PackIndicator {
                        pack: pack.name.clone(),
                        id: indicator.id.clone(),
                        text: indicator.value.clone(),
                        why,
                    },
                });
            }
        }
        for entry in &pack.detector {
            let rule = DetectorRule { entry: entry.clone(), rule: rule(&entry.id) };
            self.detectors.insert(entry.id.clone(), rule);
        }
        self.packs.push((pack.name.clone(), pack.version));
        Ok(())
    }

    fn add_indicator(
        &mut self,
        origin: &str,
        indicator: &Indicator,
    ) -> Result<(), ParseIndicatorError> {
        let group = self.set.group(Provenance {
            grade: indicator.grade,
            confidence: indicator.confidence.min(100),
            valid_until: indicator.valid_until,
            source: indicator.source.clone(),
            origin: origin.to_owned(),
            is_list: false,
        });
        let id = self.set.keep_id(&indicator.id);
        self.set.add(&indicator.value, group, id)
    }

    /// Adds a list: one address, `address:port` or name a line, a name also as `*.name` or `.name`;
    /// `#` begins a comment. Returns how many lines were taken.
    ///
    /// # Errors
    /// The first line that is none of these; then nothing of the list is taken.
    pub fn add_list(&mut self, source: &str, text: &str) -> Result<usize, BuildRulesError> {
        let mark = self.set.mark();
        let group = self.set.group(Provenance {
            grade: LIST_GRADE,
            confidence: LIST_CONFIDENCE,
            valid_until: None::<Timestamp>,
            source: source.to_owned(),
            origin: format!("{source}@0"),
            is_list: true,
        });
        let mut taken = 0;
        for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            let value = line.split_once('#').map_or(line, |(value, _)| value).trim();
            if value.is_empty() {
                continue;
            }
            let number = at + 1;
            let id = u32::try_from(number).map_err(|_| ParseIndicatorError::TooMany);
            if let Err(why) = id.and_then(|id| self.set.add(value, group, id)) {
                self.set.return_to(mark);
                return Err(match why {
                    ParseIndicatorError::TooMany => BuildRulesError::TooMany(source.to_owned()),
                    why => BuildRulesError::Line {
                        source_name: source.to_owned(),
                        line: number,
                        text: value.chars().take(300).collect(),
                        why,
                    },
                });
            }
            taken += 1;
        }
        self.lists.push((source.to_owned(), taken));
        Ok(taken)
    }

    /// Makes the rules ready for use.
    #[must_use]
    pub fn build(self) -> Rules {
        Rules {
            indicators: self.set.build(),
            detectors: self.detectors,
            packs: self.packs,
            lists: self.lists,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::sealed::Local;

    fn pack(text: &str) -> Verified<RulePack> {
        Verified::locally(RulePack::parse(text).unwrap(), Local::BuiltIn)
    }

    const PACK: &str = r#"
schema = "sekisho.rules/1"
name = "apt"
version = 3
[[detector]]
id = "plugx.tcp"
grade = "malicious"
source = "s"
[[indicator]]
id = "i1"
value = "203.0.113.9:443"
source = "Unit 42"
confidence = 90
grade = "suspect"
valid-until = "2026-01-01T00:00:00Z"
"#;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_indicator_of_a_pack_is_described_with_its_rule_until_it_expires() {
        let mut builder = RulesBuilder::new();
        builder.add_pack(&pack(PACK)).unwrap();
        let rules = builder.build();
        let end = "203.0.113.9:443".parse().unwrap();
        let found = rules.indicators.by_endpoint(end, at("2025-12-31T23:59:59Z")).unwrap();
        let told = rules.indicators.describe(found);
        assert_eq!((told.rule.as_str(), told.grade), ("apt@3#i1", Grade::Suspect));
        assert_eq!(
            (told.record.id.as_str(), told.record.value.as_str()),
            ("i1", "203.0.113.9:443")
        );
        assert_eq!((told.record.source.as_str(), told.record.confidence), ("Unit 42", 90));
        assert_eq!(told.record.valid_until, Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(rules.indicators.by_endpoint(end, at("2026-01-01T00:00:00.000000001Z")), None);
        assert_eq!(rules.indicators.by_address(end.ip(), Timestamp::EPOCH), None);
        assert_eq!(rules.detectors["plugx.tcp"].rule, "apt@3#plugx.tcp");
        assert_eq!(rules.packs, [("apt".to_owned(), 3)]);
    }

    #[test]
    fn the_faulty_line_is_named_and_nothing_of_its_list_is_loaded() {
        let mut builder = RulesBuilder::new();
        assert_eq!(builder.add_list("good.txt", "c2.example\n"), Ok(1));
        let text = "# feed\n\n203.0.113.9\n1.2.3.0/24 # whole net\n";
        let error = builder.add_list("bad.txt", text).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("bad.txt:4: \"1.2.3.0/24\" is a network"), "{told}");
        let rules = builder.build();
        assert_eq!(
            rules.indicators.by_address("203.0.113.9".parse().unwrap(), Timestamp::EPOCH),
            None
        );
        assert!(rules.indicators.by_name("c2.example", Timestamp::EPOCH).is_some());
        assert_eq!(rules.lists, [("good.txt".to_owned(), 1)]);
        assert_eq!(rules.indicators.counts().total(), 1);
    }

    #[test]
    fn a_pack_with_one_bad_value_leaves_nothing_behind() {
        let mut builder = RulesBuilder::new();
        let bad = PACK.replace("203.0.113.9:443", "com");
        let told = builder.add_pack(&pack(&bad)).unwrap_err().to_string();
        assert!(told.starts_with("pack apt, indicator i1: \"com\" "), "{told}");
        let rules = builder.build();
        assert!(rules.detectors.is_empty() && rules.packs.is_empty());
        assert_eq!(rules.indicators.counts().total(), 0);
    }

    #[test]
    fn one_name_stands_for_one_pack() {
        let mut builder = RulesBuilder::new();
        builder.add_pack(&pack(PACK)).unwrap();
        assert_eq!(builder.add_pack(&pack(PACK)), Err(BuildRulesError::PackTwice("apt".into())));
    }

    #[test]
    fn each_line_of_a_list_is_known_by_its_number() {
        let mut builder = RulesBuilder::new();
        let text = "\u{feff}203.0.113.9\r\n2001:DB8::1 # v6\r\n[2001:db8::2]:8080\n*.Bad.Example.\n.worse.example\n198.51.100.1:53\n";
        assert_eq!(builder.add_list("feed", text), Ok(6));
        let set = builder.build().indicators;
        let now = Timestamp::EPOCH;
        let told = |found| {
            let told = set.describe(found);
            (told.record.id, told.record.value, told.rule)
        };
        let line =
            |n: u32, value: &str| (format!("feed:{n}"), value.to_owned(), format!("feed@0#{n}"));
        let address = |text: &str| told(set.by_address(text.parse().unwrap(), now).unwrap());
        let endpoint = |text: &str| told(set.by_endpoint(text.parse().unwrap(), now).unwrap());
        assert_eq!(address("203.0.113.9"), line(1, "203.0.113.9"));
        assert_eq!(address("2001:db8::1"), line(2, "2001:db8::1"));
        assert_eq!(endpoint("[2001:db8::2]:8080"), line(3, "[2001:db8::2]:8080"));
        assert_eq!(told(set.by_name("x.bad.example", now).unwrap()), line(4, "bad.example"));
        assert_eq!(told(set.by_name("worse.example", now).unwrap()), line(5, "worse.example"));
        assert_eq!(endpoint("198.51.100.1:53"), line(6, "198.51.100.1:53"));
        assert_eq!(set.by_endpoint("198.51.100.1:54".parse().unwrap(), now), None);
    }
}
