//! Rule packs: what to look for, as data with sources.

use crate::finding::{Grade, IndicatorClass};
use crate::intel::{Kind, Observable, ParseObservableError};
use crate::policy::read_toml;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Name and version of the rule-pack schema.
pub const PACK_SCHEMA: &str = "sekisho.rules/1";

/// Indicators and detector settings under one name and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RulePack {
    /// [`PACK_SCHEMA`].
    pub schema: String,
    /// Its name; rules are cited as `name@version#id`.
    pub name: String,
    /// Rises with each change.
    pub version: u64,
    /// Detectors that the pack switches on.
    #[serde(default)]
    pub detector: Vec<DetectorEntry>,
    /// Indicators.
    #[serde(default)]
    pub indicator: Vec<Indicator>,
}

/// A detector with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DetectorEntry {
    /// Stable detector identifier.
    pub id: String,
    /// What its findings are worth.
    pub grade: Grade,
    /// Where the facts come from.
    pub source: String,
    /// Its constants, read by the detector itself.
    #[serde(default)]
    pub settings: toml::Table,
}

/// An observable with source, confidence and validity (STIX 2.1 wording).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Indicator {
    /// Its id within the pack.
    pub id: String,
    /// An address, network, `address:port`, name, URL or fingerprint; a name also stands for what is
    /// below it unless `=` stands before it, a URL that ends with `/*` for all below that.
    pub value: String,
    /// Of which kind it is, where the value does not show that.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Whether a name stands for itself alone.
    #[serde(default)]
    pub exact: bool,
    /// What stands behind it.
    #[serde(default)]
    pub class: IndicatorClass,
    /// Families and campaigns.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Who says so.
    pub source: String,
    /// 0 to 100.
    #[serde(default = "default_confidence")]
    pub confidence: u8,
    /// When it begins to count.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// When it ceases to count.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    /// What a sighting is worth: `malicious`, but for what proves nothing alone, which is never
    /// worth more than `suspect`.
    #[serde(default)]
    pub grade: Option<Grade>,
}

impl Indicator {
    /// What it stands for.
    ///
    /// # Errors
    /// Why its value is none of its kind.
    pub fn observable(&self) -> Result<Observable<'_>, ParseObservableError> {
        let read = match self.kind {
            Some(kind) => Observable::parse_as(&self.value, kind),
            None => Observable::parse(&self.value),
        };
        match (read, self.exact) {
            (Ok(Observable::Domain { name, .. }), true) => {
                Ok(Observable::Domain { name, exact: true })
            }
            (Err(ParseObservableError::Registry), true) => self.exact_name(),
            (Ok(_), true) => Err(ParseObservableError::Mismatch),
            (read, _) => read,
        }
    }

    fn exact_name(&self) -> Result<Observable<'_>, ParseObservableError> {
        match Observable::parse(&format!("={}", self.value))? {
            Observable::Domain { name, exact } => {
                Ok(Observable::Domain { name: name.into_owned().into(), exact })
            }
            _ => Err(ParseObservableError::Mismatch),
        }
    }
}

fn default_confidence() -> u8 {
    75
}

/// Why a text is not a rule pack.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ParsePackError {
    /// `line:column` of the fault.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl RulePack {
    /// Reads a rule pack from TOML.
    ///
    /// # Errors
    /// Line, column and cause of the first fault.
    pub fn parse(text: &str) -> Result<Self, ParsePackError> {
        let pack: Self = read_toml(text).map_err(|(at, message)| ParsePackError { at, message })?;
        if pack.schema != PACK_SCHEMA {
            return Err(ParsePackError {
                at: "1:1".to_owned(),
                message: format!("schema is \"{}\", expected \"{PACK_SCHEMA}\"", pack.schema),
            });
        }
        Ok(pack)
    }
}

impl DetectorEntry {
    /// The detector's constants as its own type.
    ///
    /// # Errors
    /// What the settings lack or hold too much.
    pub fn settings_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        self.settings
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }
}
