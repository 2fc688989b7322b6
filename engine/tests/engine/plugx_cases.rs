//! The cases of the PlugX detectors, with the shipped packs.

use crate::forge::rules;
use sekisho_engine::cases::{CaseFile, try_case};

const CASES: [&str; 8] = [
    include_str!("../../../rules/cases/plugx.cookie.toml"),
    include_str!("../../../rules/cases/plugx.deaddrop.toml"),
    include_str!("../../../rules/cases/plugx.dns.toml"),
    include_str!("../../../rules/cases/plugx.http.toml"),
    include_str!("../../../rules/cases/plugx.p2p.toml"),
    include_str!("../../../rules/cases/plugx.rawip.toml"),
    include_str!("../../../rules/cases/plugx.tcp.toml"),
    include_str!("../../../rules/cases/plugx.udp.toml"),
];

#[test]
fn every_case_comes_out_as_it_says() {
    let mut faults = Vec::new();
    for text in CASES {
        let file = CaseFile::parse(text).unwrap();
        assert_eq!(file.has_both(), (true, true), "{}", file.detector);
        for case in &file.cases {
            let verdict = try_case(case, rules(&[])).unwrap();
            for fault in verdict.faults {
                faults
                    .push(format!("{}: {}: {fault}: {:?}", file.detector, case.name, verdict.told));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
