//! The rule packs that come with the program.

/// Names and texts of the shipped packs, in the order in which they are read.
#[must_use]
pub const fn shipped_packs() -> [(&'static str, &'static str); 5] {
    [
        ("behaviour.toml", include_str!("../../rules/packs/behaviour.toml")),
        ("plugx.toml", include_str!("../../rules/packs/plugx.toml")),
        ("frameworks.toml", include_str!("../../rules/packs/frameworks.toml")),
        ("relatives.toml", include_str!("../../rules/packs/relatives.toml")),
        ("protocol.toml", include_str!("../../rules/packs/protocol.toml")),
    ]
}

/// Names and texts of the shipped lists of public indicators; `rules/SOURCES.md` says whose they are.
#[must_use]
pub const fn shipped_lists() -> [(&'static str, &'static str); 3] {
    [
        ("shipped/maltrail.csv", include_str!("../../rules/indicators/maltrail.csv")),
        ("shipped/active-c2.csv", include_str!("../../rules/indicators/active-c2.csv")),
        ("shipped/eset.csv", include_str!("../../rules/indicators/eset.csv")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::BeaconSettings;
    use crate::detect::indicator_set::ParseIndicatorError;
    use crate::detect::plugx::PlugxConstants;
    use sekisho_schema::Policy;
    use sekisho_schema::intel::{self, Facts, Observable, ReadOptions, Taker};
    use sekisho_schema::pack::{DetectorEntry, RulePack};

    fn entry(pack: usize, id: &str) -> DetectorEntry {
        let pack = RulePack::parse(shipped_packs()[pack].1).unwrap();
        pack.detector.into_iter().find(|entry| entry.id == id).unwrap()
    }

    #[test]
    fn the_shipped_constants_of_plugx_are_the_published_ones() {
        let shipped: PlugxConstants = entry(1, "plugx.tcp").settings_as().unwrap();
        assert_eq!(shipped, PlugxConstants::default());
    }

    #[test]
    fn the_shipped_settings_of_the_beacon_test_are_its_defaults() {
        let shipped: BeaconSettings = entry(0, "behaviour.beacon").settings_as().unwrap();
        assert_eq!(shipped, BeaconSettings::default());
    }

    #[test]
    fn every_line_of_a_shipped_list_is_an_indicator_with_source_and_end() {
        for (name, text) in shipped_lists() {
            let licence = text.lines().next().unwrap();
            assert!(licence.contains("MIT") || licence.contains("BSD"), "{name}: {licence}");
            let mut taken = Ends::default();
            let report = intel::read(text.as_bytes(), ReadOptions::default(), &mut taken).unwrap();
            assert_eq!(report.left_out_total(), 0, "{name}: {report:?}");
            assert_eq!(report.total() + 2, text.lines().count() as u64, "{name}");
            assert_eq!((taken.lacking, taken.taken), (0, report.total()), "{name}");
        }
    }

    #[derive(Default)]
    struct Ends {
        taken: u64,
        lacking: u64,
    }

    impl Taker for Ends {
        fn take(
            &mut self,
            _: &Observable<'_>,
            facts: &Facts<'_>,
        ) -> Result<(), ParseIndicatorError> {
            self.taken += 1;
            let whole = facts.valid_until.is_some() && facts.source.is_some();
            self.lacking += u64::from(!whole);
            Ok(())
        }
    }

    #[test]
    fn no_indicator_of_others_is_shipped_without_its_licence() {
        for (name, text) in shipped_packs() {
            assert!(RulePack::parse(text).unwrap().indicator.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_shipped_policies_differ_in_nothing_but_their_mode() {
        let read = |text| {
            let mut policy = Policy::parse(text).unwrap();
            let mode = std::mem::replace(&mut policy.mode, sekisho_schema::Mode::Learn);
            (mode.to_string(), policy)
        };
        let learn = read(include_str!("../../rules/policies/learn.toml"));
        let dry_run = read(include_str!("../../rules/policies/dry-run.toml"));
        let enforce = read(include_str!("../../rules/policies/enforce.toml"));
        assert_eq!([&learn.0, &dry_run.0, &enforce.0], ["learn", "dry-run", "enforce"]);
        assert_eq!(learn.1, dry_run.1);
        assert_eq!(dry_run.1, enforce.1);
    }
}
