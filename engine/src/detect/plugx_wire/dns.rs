//! `plugx.dns`: PlugX's DNS transport.
//!
//! TXT questions whose name begins with 72 bytes written as letters A to P, labels of 63, 63 and 18,
//! before the zone of the controller; in successive questions all but the first sixteen letters are
//! the same (`silence-is-best/c2db`, a capture of 2019, vector V4 of the design paper). The second
//! name of a host under one zone proves; the same name asked again does not.
//!
//! Letters count in either case, since resolvers mix them (0x20 encoding): hence two names. Labels of
//! less than 40 letters don't count: browser extensions have 32 letters a to p, NetBIOS names 32.
//!
//! Measured: 0 of 96,700 UDP payloads of public captures. Evaded by another alphabet and by DNS over
//! HTTPS or TLS. A host that asks for names that strangers choose (a mail server that checks SPF)
//! can be made to ask such questions.

use super::letters::is_half;
use super::message::shown;
use crate::detect::Outlook;
use crate::detect::registry::{Setup, WireDetector, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Stable identifier of the detector.
pub(super) const PLUGX_DNS: &str = "plugx.dns";

/// Pairs of host and name ending that are remembered.
const ENDINGS: usize = 1024;
/// How long a first name waits for its second.
const WAIT: Span = Span::from_hours(24);
/// Type TXT (RFC 1035 §3.2.2).
const TXT: u16 = 16;

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DnsSettings {
    /// Letters that differ from name to name.
    changing: usize,
    /// Letters behind them that stay.
    staying: usize,
    /// Letters that a label has at least to count as a long one.
    long_label: usize,
    /// Long labels that a name has at least.
    long_labels: usize,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { changing: 16, staying: 128, long_label: 40, long_labels: 2 }
    }
}

#[derive(Debug)]
struct Asked {
    at: Timestamp,
    changing: String,
}

#[derive(Debug)]
struct PlugxDns {
    settings: DnsSettings,
    /// By host and all of a name but its changing letters: those of the last name.
    asked: Bounded<(IpAddr, String), Asked>,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    Ok(Box::new(PlugxDns {
        settings: setup.settings()?,
        asked: Bounded::new(ENDINGS, setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for PlugxDns {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if let ObservationKind::Message { toward, message } = o.kind
            && !message.is_response()
            && let Some(question) = message.question()
            && question.qtype == TXT
            && let Some((changing, staying)) = self.settings.parts(question.name.as_str())
        {
            let key = (o.flow.key.local.ip(), staying.to_owned());
            let before = self.asked.find(&key).map(|asked| (asked.at, asked.changing != changing));
            let make = || Asked { at: o.at, changing: changing.to_owned() };
            if let Some(asked) = self.asked.upsert(&key, make, |_| true) {
                asked.at = o.at;
                changing.clone_into(&mut asked.changing);
            }
            if let Some((at, true)) = before
                && o.at.since(at) <= WAIT
            {
                let told = format!(
                    "{{host}} asked {{remote}} for a TXT record of the second name in PlugX's \
                     form: its first labels are letters A to P, that is bytes, and all but the \
                     first {} letters are those of an earlier name; none of 96,700 UDP payloads of \
                     public captures holds such a name.",
                    self.settings.changing,
                );
                let evidence = vec![Evidence::new(
                    "name",
                    [
                        ("changing", changing.into()),
                        ("labels_of", shown(question.name.as_str().as_bytes()).into()),
                        ("length", question.name.as_str().len().into()),
                        ("qtype", "TXT".into()),
                    ],
                )];
                let pattern = Pattern { told, evidence };
                let mut signal = self.warrant.pattern(o, is_own_word(toward), pattern);
                signal.name = Some(question.name.to_string());
                emit.push(signal);
            }
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.asked.evicted()
    }
}

impl DnsSettings {
    /// The changing letters of a name and the rest of it, if it has the form.
    fn parts<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        // Cheap first: hardly any name is that long.
        if name.len() <= self.changing + self.staying {
            return None;
        }
        let mut letters = 0;
        let mut long = 0;
        for label in name.split('.') {
            if !label.bytes().all(is_half) {
                break;
            }
            letters += label.len();
            long += usize::from(label.len() >= self.long_label);
        }
        (long >= self.long_labels && letters >= self.changing + self.staying)
            .then(|| name.split_at_checked(self.changing))
            .flatten()
    }
}

#[cfg(test)]
mod tests;
