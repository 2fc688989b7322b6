//! Rules: packs and lists, checked as a whole and made ready for the detectors.
//!
//! Sources take precedence in the order in which they are added: of several statements about the
//! same observable the first source's valid one is told and decides what the sighting is worth;
//! within a source the stronger one. A more exact statement (an endpoint, a longer prefix, a nearer
//! name) goes before a wider one, and the policy's allow-list goes before all.

use crate::detect::indicator_set::{
    CompiledBook, Defaults, IndicatorSet, Mark, ParseIndicatorError, Piece, ReadCompiledError,
    SetBuilder,
};
use sekisho_schema::Verified;
use sekisho_schema::finding::Grade;
use sekisho_schema::intel::{
    self, Facts, Id, Observable, ReadIntelError, ReadOptions, Report, Taker,
};
use sekisho_schema::pack::{DetectorEntry, Indicator, RulePack};
use std::collections::BTreeMap;

/// What the lines of a plain list are worth: a curated feed, as far as its operator can know.
pub const LIST_DEFAULTS: Defaults = Defaults { grade: Grade::Malicious, confidence: 75 };

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
    /// A compiled set is not one.
    #[error("{0}: {1}; nothing of {0} is loaded")]
    Compiled(String, ReadCompiledError),
    /// A feed can't be read.
    #[error("{0}: {1}; nothing of {0} is loaded")]
    Feed(String, ReadIntelError),
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
    /// More indicators than a set can hold.
    #[error("{0} makes more indicators than can be held; nothing of it is loaded")]
    TooMany(String),
}

/// Indicators of each source, by its name.
pub type SourceCounts = BTreeMap<String, u64>;

/// Why a replacement of the indicators is not believed: feeds break more often than enemies vanish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shrunk {
    /// Nothing at all would be left.
    #[error("none of {0} indicators would be left")]
    Empty(u64),
    /// A source would lose more than half.
    #[error("{source_name} had {old} indicators and would have {new}, less than half")]
    Source {
        /// The source.
        source_name: String,
        /// How many it has.
        old: u64,
        /// How many it would have.
        new: u64,
    },
}

/// Whether a replacement is plausible: not empty, and no source below half of what it was. A source
/// that is not named any more was taken out on purpose; one that can't be read counts as 0.
///
/// # Errors
/// The first source that shrank, and by how much.
pub fn plausible(old: &SourceCounts, new: &SourceCounts) -> Result<(), Shrunk> {
    let total = |counts: &SourceCounts| counts.values().sum::<u64>();
    if total(old) > 0 && total(new) == 0 {
        return Err(Shrunk::Empty(total(old)));
    }
    for (source, old) in old {
        if let Some(new) = new.get(source)
            && new.saturating_mul(2) < *old
        {
            return Err(Shrunk::Source { source_name: source.clone(), old: *old, new: *new });
        }
    }
    Ok(())
}

/// Collects packs and lists; what fails leaves nothing behind.
#[derive(Debug, Default)]
pub struct RulesBuilder {
    set: SetBuilder,
    detectors: BTreeMap<String, DetectorRule>,
    packs: Vec<(String, u64)>,
    pack_counts: Vec<u64>,
    lists: Vec<(String, usize)>,
}

/// Takes what a reader reads for one source.
struct Listing<'b> {
    set: &'b mut SetBuilder,
    origin: u32,
    defaults: Defaults,
}

impl Taker for Listing<'_> {
    fn take(
        &mut self,
        observable: &Observable<'_>,
        facts: &Facts<'_>,
    ) -> Result<(), ParseIndicatorError> {
        self.set.put(observable, self.origin, facts, self.defaults)
    }
}

impl RulesBuilder {
    /// Makes a builder without any rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a builder whose indicators are hidden behind a random number: who writes a feed can't
    /// make its lookups slow.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { set: SetBuilder::seeded(seed), ..Self::default() }
    }

    /// From now on keeps of all indicators only those of one piece, for [`Self::build_piece`]: so a
    /// set is replaced piece by piece, reading its sources once for each, without a second copy.
    pub const fn keep_only(&mut self, piece: usize) {
        self.set.keep_only(piece);
    }

    /// Adds a pack. A detector that an earlier pack set up is set up anew by this one.
    ///
    /// # Errors
    /// The first indicator that is none, or a second pack of the same name.
    pub fn add_pack(&mut self, pack: &Verified<RulePack>) -> Result<(), BuildRulesError> {
        self.add(pack, false)
    }

    /// Adds a pack to which every other one goes before: its indicators come last, and a detector
    /// that another pack set up stays as it is.
    ///
    /// # Errors
    /// The first indicator that is none, or a second pack of the same name.
    pub fn add_shipped(&mut self, pack: &Verified<RulePack>) -> Result<(), BuildRulesError> {
        self.add(pack, true)
    }

    /// Indicators of each pack.
    pub fn pack_counts(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.packs.iter().zip(&self.pack_counts).map(|((name, _), count)| (name.clone(), *count))
    }

    fn add(&mut self, pack: &Verified<RulePack>, is_last: bool) -> Result<(), BuildRulesError> {
        let rule = |id: &str| format!("{}@{}#{id}", pack.name, pack.version);
        if self.packs.iter().any(|(name, _)| *name == pack.name) {
            return Err(BuildRulesError::PackTwice(pack.name.clone()));
        }
        let mark = self.set.mark();
        let origin = self.set.origin(&pack.name, pack.version);
        for indicator in &pack.indicator {
            if let Err(why) = self.add_indicator(origin, indicator) {
                self.set.return_to(&mark);
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
            if !is_last || !self.detectors.contains_key(&entry.id) {
                self.detectors.insert(entry.id.clone(), rule);
            }
        }
        self.packs.push((pack.name.clone(), pack.version));
        self.pack_counts.push(pack.indicator.len() as u64);
        Ok(())
    }

    fn add_indicator(
        &mut self,
        origin: u32,
        indicator: &Indicator,
    ) -> Result<(), ParseIndicatorError> {
        let labels = indicator.labels.join(", ");
        let facts = Facts {
            id: Id::Text(&indicator.id),
            source: Some(&indicator.source),
            confidence: Some(indicator.confidence),
            grade: indicator.grade,
            class: indicator.class,
            labels: &labels,
            valid_from: indicator.valid_from,
            valid_until: indicator.valid_until,
        };
        let observable = indicator.observable()?;
        self.set.put(&observable, origin, &facts, LIST_DEFAULTS)
    }

    /// Adds a list: one address, network, `address:port`, name, URL or fingerprint a line, a name
    /// also as `*.name` or `.name`, and as `=name` for the name alone; `#` begins a comment.
    /// Returns how many lines were taken.
    ///
    /// # Errors
    /// The first line that is none of these; then nothing of the list is taken.
    pub fn add_list(&mut self, source: &str, text: &str) -> Result<usize, BuildRulesError> {
        let options = ReadOptions {
            format: Some(intel::Format::Plain),
            allow_private: true,
            strict: true,
            ..ReadOptions::default()
        };
        let report = self.read_list(source, LIST_DEFAULTS, |taker| {
            intel::read(text.as_bytes(), options, taker)
        })?;
        Ok(usize::try_from(report.total()).unwrap_or(usize::MAX))
    }

    /// Adds what a reader gives, as one source.
    ///
    /// # Errors
    /// What the reader failed with; then nothing of the source is taken.
    pub fn read_list(
        &mut self,
        source: &str,
        defaults: Defaults,
        read: impl FnOnce(&mut dyn Taker) -> Result<Report, ReadIntelError>,
    ) -> Result<Report, BuildRulesError> {
        let mark = self.set.mark();
        let origin = self.set.origin(source, 0);
        let report = read(&mut Listing { set: &mut self.set, origin, defaults });
        match report {
            Ok(report) => {
                let total = usize::try_from(report.total()).unwrap_or(usize::MAX);
                self.lists.push((source.to_owned(), total));
                Ok(report)
            }
            Err(error) => {
                self.set.return_to(&mark);
                Err(refusal(source, error))
            }
        }
    }

    /// Adds a compiled set: `sections` gives its bytes, first the sources (0), then the pieces (1 to
    /// [`IndicatorSet::PIECES`]); those that are not kept are not asked for.
    ///
    /// # Errors
    /// Why it is none, or what `sections` failed with; then nothing of it is taken.
    pub fn add_compiled<E>(
        &mut self,
        source: &str,
        mut sections: impl FnMut(usize) -> Result<Vec<u8>, E>,
    ) -> Result<Result<u64, E>, BuildRulesError> {
        let mark = self.set.mark();
        let refuse = |why| match why {
            ReadCompiledError::TooMany => BuildRulesError::TooMany(source.to_owned()),
            why => BuildRulesError::Compiled(source.to_owned(), why),
        };
        let book = match sections(0) {
            Ok(bytes) => self.set.read_book(&bytes).map_err(refuse)?,
            Err(error) => return Ok(Err(error)),
        };
        let total = self.add_pieces(&book, &mark, &mut sections);
        match total {
            Ok(Ok(total)) => {
                self.lists.push((source.to_owned(), usize::try_from(total).unwrap_or(usize::MAX)));
                Ok(Ok(total))
            }
            Ok(Err(error)) => Ok(Err(error)),
            Err(why) => Err(refuse(why)),
        }
    }

    fn add_pieces<E>(
        &mut self,
        book: &CompiledBook,
        mark: &Mark,
        sections: &mut impl FnMut(usize) -> Result<Vec<u8>, E>,
    ) -> Result<Result<u64, E>, ReadCompiledError> {
        let mut total = 0;
        for number in
            (0..IndicatorSet::PIECES).filter(|number| self.set.keeps(*number)).collect::<Vec<_>>()
        {
            let bytes = match sections(number + 1) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.set.return_to(mark);
                    return Ok(Err(error));
                }
            };
            match self.set.read_piece(book, number, &bytes) {
                Ok(more) => total += more,
                Err(why) => {
                    self.set.return_to(mark);
                    return Err(why);
                }
            }
        }
        Ok(Ok(total))
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

    /// Makes one piece of the indicators ready to be exchanged.
    #[must_use]
    pub fn build_piece(self, piece: usize) -> Piece {
        self.set.build_piece(piece)
    }
}

impl Rules {
    /// How many indicators each source brought.
    #[must_use]
    pub fn source_counts(&self) -> SourceCounts {
        let mut counts: SourceCounts =
            self.packs.iter().map(|(name, _)| (name.clone(), 0)).collect();
        for ((_, source), count) in self.indicators.tally() {
            *counts.entry(source).or_default() += count;
        }
        counts
    }
}

fn refusal(source: &str, error: ReadIntelError) -> BuildRulesError {
    match error {
        ReadIntelError::Value { why: ParseIndicatorError::TooMany, .. } => {
            BuildRulesError::TooMany(source.to_owned())
        }
        ReadIntelError::Value { place, text, why } => BuildRulesError::Line {
            source_name: source.to_owned(),
            line: place.parse().unwrap_or(0),
            text,
            why,
        },
        error => BuildRulesError::Feed(source.to_owned(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Timestamp;
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
        let text = "# feed\n\n203.0.113.9\n0.0.0.0/0 # all of it\n";
        let error = builder.add_list("bad.txt", text).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("bad.txt:4: \"0.0.0.0/0\" is too wide"), "{told}");
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
    fn an_operators_pack_goes_before_a_shipped_one() {
        let mut builder = RulesBuilder::new();
        builder.add_pack(&pack(PACK)).unwrap();
        let shipped = PACK.replace("apt", "shipped").replace("suspect", "malicious");
        builder.add_shipped(&pack(&shipped.replace("\"s\"", "\"t\""))).unwrap();
        assert_eq!(
            builder.pack_counts().collect::<Vec<_>>(),
            [("apt".into(), 1), ("shipped".into(), 1)]
        );
        let rules = builder.build();
        assert_eq!(rules.detectors["plugx.tcp"].rule, "apt@3#plugx.tcp");
        let found =
            rules.indicators.by_endpoint("203.0.113.9:443".parse().unwrap(), Timestamp::EPOCH);
        assert_eq!(rules.indicators.describe(found.unwrap()).grade, Grade::Suspect);
    }

    #[test]
    fn an_indicator_of_a_pack_may_say_its_kind_its_class_and_that_it_is_exact() {
        let text = r#"
schema = "sekisho.rules/1"
name = "apt"
version = 1
[[indicator]]
id = "a"
value = "e7d705a3286e19ea42f587b344ee6865"
kind = "ja3"
source = "s"
[[indicator]]
id = "b"
value = "co.jp"
exact = true
class = "sinkhole"
labels = ["Worm", "Bot"]
source = "s"
valid-from = "2026-01-01T00:00:00Z"
"#;
        let mut builder = RulesBuilder::new();
        builder.add_pack(&pack(text)).unwrap();
        let set = builder.build().indicators;
        assert!(set.by_ja3_text("e7d705a3286e19ea42f587b344ee6865", Timestamp::EPOCH).is_some());
        assert_eq!(set.by_name("co.jp", Timestamp::EPOCH), None);
        let found = set.by_name("co.jp", at("2026-01-01T00:00:00Z")).unwrap();
        let told = set.describe(found).record;
        assert!(!told.class.is_threat());
        assert_eq!((told.labels, told.value), (vec!["Worm".into(), "Bot".into()], "=co.jp".into()));
        assert_eq!(set.by_name("x.co.jp", at("2026-01-01T00:00:00Z")), None);
        let wrong = text.replace("exact = true", "exact = true\nkind = \"ja4\"");
        let told = RulesBuilder::new().add_pack(&pack(&wrong)).unwrap_err().to_string();
        assert!(told.starts_with("pack apt, indicator b: \"co.jp\" is not of the kind"), "{told}");
    }

    #[test]
    fn a_replacement_that_lost_most_of_a_source_is_not_plausible() {
        let counts = |list: &[(&str, u64)]| -> SourceCounts {
            list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let old = counts(&[("a", 100), ("b", 3)]);
        for (new, expected) in [
            (counts(&[("a", 50), ("b", 2)]), Ok(())),
            (counts(&[("a", 1000), ("b", 3), ("c", 1)]), Ok(())),
            // Taken out of the configuration on purpose.
            (counts(&[("a", 100)]), Ok(())),
            (counts(&[]), Err(Shrunk::Empty(103))),
            (counts(&[("a", 0), ("b", 0)]), Err(Shrunk::Empty(103))),
            (
                counts(&[("a", 49), ("b", 3)]),
                Err(Shrunk::Source { source_name: "a".into(), old: 100, new: 49 }),
            ),
            (
                counts(&[("a", 100), ("b", 0)]),
                Err(Shrunk::Source { source_name: "b".into(), old: 3, new: 0 }),
            ),
        ] {
            assert_eq!(plausible(&old, &new), expected, "{new:?}");
        }
        assert_eq!(plausible(&counts(&[]), &counts(&[])), Ok(()));
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
