//! Cases: short scripts of traffic that a rule must find, or must leave alone.
//!
//! Enters: the text of a case file and the rules. Leaves: for each case what was told and whether
//! that is what the case expects; the forged frames, for who wants to see them. Must not know: files
//! and where they lie.

mod forge;
mod moves;
mod run;
mod script;

pub use self::forge::ForgedFrame;
pub use self::moves::{Move, destination, moves};
pub use self::run::{Told, Verdict, try_case};
pub use self::script::ScriptError;

use sekisho_schema::Timestamp;
use sekisho_schema::finding::Grade;
use sekisho_schema::policy::read_toml;
use serde::Deserialize;

/// Name and version of the schema of case files.
pub const CASES_SCHEMA: &str = "sekisho.cases/1";

/// The cases of one rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// [`CASES_SCHEMA`].
    pub schema: String,
    /// The detector that the cases are about.
    pub detector: String,
    /// The cases.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// Traffic, and what must be told of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The claim, as a sentence.
    pub name: String,
    /// Detectors that must be told; no other may be told as suspect or worse.
    pub expect: Vec<String>,
    /// The frame, from 1, that completes the first expected finding.
    #[serde(default)]
    pub frame: Option<u64>,
    /// The grade of the worst expected finding.
    #[serde(default)]
    pub grade: Option<Grade>,
    /// Indicators that are looked for besides the packs, one a line.
    #[serde(default)]
    pub indicators: Option<String>,
    /// When the first frame is seen; 2026-01-01T00:00:00Z where it does not matter.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// The script of the traffic.
    pub packets: String,
}

/// Why a text is no case file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ParseCasesError {
    /// `line:column` of the fault.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl CaseFile {
    /// Reads a case file.
    ///
    /// # Errors
    /// Line, column and cause of the first fault.
    pub fn parse(text: &str) -> Result<Self, ParseCasesError> {
        let file: Self =
            read_toml(text).map_err(|(at, message)| ParseCasesError { at, message })?;
        if file.schema != CASES_SCHEMA {
            let message = format!("schema is \"{}\", expected \"{CASES_SCHEMA}\"", file.schema);
            return Err(ParseCasesError { at: "1:1".to_owned(), message });
        }
        Ok(file)
    }

    /// Whether some case expects the detector, and some expects it to stay silent.
    #[must_use]
    pub fn has_both(&self) -> (bool, bool) {
        let expects = |case: &&Case| case.expect.contains(&self.detector);
        let positive = self.cases.iter().any(|case| expects(&case));
        (positive, self.cases.iter().any(|case| !expects(&case)))
    }
}

impl Case {
    /// The frames that the script stands for.
    ///
    /// # Errors
    /// The line of the script that can't be read.
    pub fn frames(&self) -> Result<Vec<ForgedFrame>, ScriptError> {
        forge::forge(&script::parse(&self.packets)?, self.at)
    }
}
