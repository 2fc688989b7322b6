//! Policy: what to do when something is found, decided beforehand, written and signed.
//!
//! A policy is TOML. [`RawPolicy`] is what a person writes, unknown keys refused; [`Policy`]
//! is what has been checked and may be used.

mod check;

use crate::containment::Measure;
use crate::finding::Grade;
use crate::net::Transport;
use crate::time::{Span, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far the agent may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Build the baseline; withhold every cut.
    Learn,
    /// Decide everything; withhold every cut and report it.
    DryRun,
    /// Decide and cut.
    Enforce,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Learn => "learn",
            Self::DryRun => "dry-run",
            Self::Enforce => "enforce",
        })
    }
}

/// Name and version of the policy schema.
pub const POLICY_SCHEMA: &str = "sekisho.policy/1";

/// A policy as a person writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawPolicy {
    /// [`POLICY_SCHEMA`].
    pub schema: String,
    /// Rises with each policy; an agent never goes back.
    pub version: u64,
    /// `learn`, `dry-run` or `enforce`.
    pub mode: Mode,
    /// Networks inside the perimeter. Default: RFC 1918, RFC 6598, RFC 4193, link-local, multicast.
    #[serde(default = "default_inside")]
    pub inside: Vec<IpNet>,
    /// Decision table; the first line that fits decides. No line fits: record only.
    #[serde(default)]
    pub decide: Vec<DecideRule>,
    /// How much may be contained automatically.
    #[serde(default)]
    pub budget: Budget,
    /// What no containment may touch.
    #[serde(default)]
    pub exempt: Vec<RawExemption>,
    /// How much may go to destinations that nobody approved.
    #[serde(default)]
    pub allowance: Allowance,
    /// Indicators that the operator declares good; above every list.
    #[serde(default)]
    pub allow: Vec<String>,
    /// How a cut of the host begins.
    #[serde(default)]
    pub trial: Trial,
    /// When an actor that tries other ways is cut at a higher level.
    #[serde(default)]
    pub escalation: Escalation,
    /// Names under containment.
    #[serde(default)]
    pub names: Names,
    /// Rehearsals that shall take place.
    #[serde(default)]
    pub drill: Vec<DrillPlan>,
    /// How far orders from the centre may go.
    #[serde(default)]
    pub orders: Orders,
    /// Who owns the decision.
    pub duty: Duty,
}

/// A line of the decision table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DecideRule {
    /// Detector identifier, or a family such as `plugx.*`, or `*`.
    pub detector: String,
    /// The least grade that the line is for.
    pub grade: Grade,
    /// Step of the ladder: 0 record, 1 throttle, 2 quota, 3 cut destination, 4 cut the workload, 5 cut host, 6 all but management.
    pub level: u8,
    /// How long the kernel holds the cut.
    #[serde(default = "default_lease")]
    pub lease: Span,
    /// With level 1: bytes a second that still leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// With level 2: bytes that still leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// With level 4: whether the processes stand still too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub freeze: bool,
    /// With level 4: whether the destination, which is cut until the workload is known, opens again then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only_workload: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// How a cut of the host begins: on trial, until somebody has seen that it does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Trial {
    /// How long the kernel holds a cut of level 5 or 6 that nobody confirmed; zero: no trial.
    pub lasts: Span,
    /// Who confirms.
    pub confirm: Confirm,
    /// What a trial does at its end when the collector can't be reached.
    pub on_lost_collector: OnLostCollector,
}

impl Default for Trial {
    fn default() -> Self {
        // containment.md, section 8.
        Self {
            lasts: Span::from_secs(120),
            confirm: Confirm::Collector,
            on_lost_collector: OnLostCollector::Release,
        }
    }
}

/// Who confirms a cut that is on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirm {
    /// The collector, by taking the receipt over a connection that the cut leaves open.
    Collector,
    /// The agent's own proof: cut proven and exemptions ok.
    Proof,
}

/// What becomes of a trial that ends while the collector can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLostCollector {
    /// It is confirmed by the agent's own proof.
    Hold,
    /// The kernel lets go.
    Release,
}

/// When a contained actor that tries other ways is cut at a higher level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Escalation {
    /// The highest level it may reach by itself; 0: no escalation.
    pub up_to: u8,
    /// Further malicious findings of the same actor while it is contained, to other destinations.
    pub after: u32,
    /// Within which time.
    pub within: Span,
}

impl Default for Escalation {
    fn default() -> Self {
        Self { up_to: 0, after: 2, within: Span::from_secs(600) }
    }
}

/// Whom a contained inside host may still ask for names, seen from a gateway; and any host under `management-only`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Names {
    /// Resolvers by address; none: no names.
    pub resolvers: Vec<std::net::IpAddr>,
    /// Questions within a second.
    pub questions_per_second: u32,
    /// Bytes of the longest first label that passes: tunnels need long ones (63 is DNS's own bound, RFC 1035, section 2.3.4).
    pub longest_label: u8,
}

impl Default for Names {
    fn default() -> Self {
        Self { resolvers: Vec::new(), questions_per_second: 5, longest_label: 32 }
    }
}

/// A rehearsal that shall take place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DrillPlan {
    /// Its name: a file of `rules/drills`.
    pub name: String,
    /// How often at least; later is overdue, and that is a finding.
    pub every: Span,
}

/// How far orders from the centre may go on this host: the bounds are sealed offline, so that neither the
/// collector nor the operators can widen them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Orders {
    /// The highest level that may be ordered; 0: no order is taken.
    pub up_to: u8,
    /// The longest lease that may be ordered.
    pub longest: Span,
    /// Whether a containment may be ended from the centre.
    pub release: bool,
    /// Orders that are carried out within any hour.
    pub per_hour: u32,
}

impl Default for Orders {
    fn default() -> Self {
        Self { up_to: 7, longest: Span::from_hours(24 * 30), release: true, per_hour: 60 }
    }
}

/// How much may be contained automatically; a person's order is not bound by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Budget {
    /// Containments of level 5 and above that may begin within any hour.
    pub host_cuts_per_hour: u32,
    /// Containments of levels 1 to 4 that may begin within any hour.
    pub destination_cuts_per_hour: u32,
    /// Containments of level 5 and above that may begin within any hour in the whole group, as far as the collector tells.
    pub group_host_cuts_per_hour: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { host_cuts_per_hour: 1, destination_cuts_per_hour: 20, group_host_cuts_per_hour: 3 }
    }
}

/// How much payload may go to destinations that nobody approved (detection.md, section 4.7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Allowance {
    /// Bytes of payload up to one unapproved destination within seven days.
    pub per_destination_bytes: u64,
    /// Bytes of payload from one host to all unapproved destinations within a day.
    pub per_host_day_bytes: u64,
    /// How long destinations are learned before a new one counts as unapproved.
    pub learn_for: Span,
    /// Destinations approved by a person: addresses, networks or registered names.
    pub approved: Vec<String>,
    /// Whether the kernel itself stops what goes beyond `per-destination-bytes`, in mode `enforce`: the bound
    /// then holds with the agent slow or dead. Names that are approved count by the addresses they had when asked.
    pub in_kernel: bool,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            per_destination_bytes: 20_000_000,
            per_host_day_bytes: 50_000_000,
            learn_for: Span::from_hours(24),
            approved: Vec::new(),
            in_kernel: false,
        }
    }
}

/// An exemption as a person writes it: either `to` (a peer that is spoken to) or `service` (a local service that answers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawExemption {
    /// What it is for; shown to people.
    pub name: String,
    /// Network that may be spoken to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
    /// `tcp` or `udp` with `to`; absent for every transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Destination port with `to`; absent for every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Local service that may answer, such as `tcp/443`; a TCP service can't open connections from that port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Networks that the service may answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
}

/// What no containment may touch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Exemption {
    /// A network that may be spoken to.
    Peer {
        /// What it is for.
        name: String,
        /// The network.
        to: IpNet,
        /// Its transport, or every one.
        transport: Option<Transport>,
        /// Its port, or every one.
        port: Option<u16>,
    },
    /// A local service that may answer who called it.
    Service {
        /// What it is for.
        name: String,
        /// TCP or UDP.
        transport: Transport,
        /// The local port.
        port: u16,
        /// The networks that it may answer.
        from: IpNet,
    },
}

/// Who owns the decision: a duty without an owner is refused (7pay, 2019).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Duty {
    /// The group of hosts.
    pub group: String,
    /// Name and address of the person who is told first.
    pub owner: String,
    /// Name and address of the person who is told when the owner does not answer.
    pub deputy: String,
}

fn default_lease() -> Span {
    Span::from_hours(24)
}

/// The networks inside every perimeter unless a policy says otherwise.
#[must_use]
pub fn default_inside() -> Vec<IpNet> {
    // RFC 1918, RFC 6598, RFC 3927, RFC 1122 (loopback), RFC 5771 (multicast), RFC 919 (limited broadcast),
    // RFC 4291 (loopback, link-local, multicast), RFC 4193.
    [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
        "ff00::/8",
    ]
    .iter()
    .filter_map(|network| network.parse().ok())
    .collect()
}

/// A policy that has been checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// Rises with each policy.
    pub version: u64,
    /// How far the agent may go.
    pub mode: Mode,
    /// Networks inside the perimeter.
    pub inside: Vec<IpNet>,
    /// Decision table.
    pub decide: Vec<DecideRule>,
    /// How much may be contained automatically.
    pub budget: Budget,
    /// What no containment may touch.
    pub exempt: Vec<Exemption>,
    /// Upload allowance.
    pub allowance: Allowance,
    /// Indicators declared good.
    pub allow: Vec<String>,
    /// How a cut of the host begins.
    pub trial: Trial,
    /// When an actor that tries other ways is cut at a higher level.
    pub escalation: Escalation,
    /// Names under containment.
    pub names: Names,
    /// Rehearsals that shall take place.
    pub drill: Vec<DrillPlan>,
    /// How far orders from the centre may go.
    pub orders: Orders,
    /// Who owns the decision.
    pub duty: Duty,
    /// When the policy expires; a policy that has expired stays in force and is reported as frozen.
    pub expires: Option<Timestamp>,
}

/// Why a text is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum ParsePolicyError {
    /// Not TOML of this shape; line and column are in the message.
    #[error("{at}: {message}")]
    Malformed {
        /// `line:column` of the fault.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// Well-formed and without sense.
    #[error("{0}")]
    Senseless(String),
}

/// The line and column (from 1) of a byte offset.
#[must_use]
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (line, column)
}

/// Reads TOML into a document, with line, column and cause of what is wrong.
///
/// # Errors
/// `(line:column, message)` of the first fault; unknown keys are faults.
pub fn read_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, (String, String)> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((1, 1), |span| position(text, span.start));
        (format!("{line}:{column}"), error.message().trim().replace('\n', " "))
    })
}

/// Writes a document as TOML, so that [`read_toml`] reads it back.
///
/// # Errors
/// What can't be said in TOML.
pub fn write_toml<T: Serialize>(document: &T) -> Result<String, String> {
    toml::to_string(document).map_err(|error| error.to_string())
}

impl DecideRule {
    /// How the scope of this line's level is held; `None` for a mere record.
    #[must_use]
    pub const fn measure(&self) -> Option<Measure> {
        match (self.level, self.bytes_per_second, self.quota_bytes) {
            (0, ..) => None,
            (1, Some(bytes_per_second), _) => Some(Measure::Throttle { bytes_per_second }),
            (2, _, Some(bytes)) => Some(Measure::Quota { bytes }),
            (4, ..) if self.freeze => Some(Measure::Freeze),
            _ => Some(Measure::Cut),
        }
    }
}

impl Policy {
    /// The built-in policy: dry-run, shipped perimeter, nothing exempt, nobody in particular on duty.
    #[must_use]
    pub fn built_in(mode: Mode) -> Self {
        let rule = |detector: &str, grade, level| DecideRule {
            detector: detector.to_owned(),
            grade,
            level,
            lease: default_lease(),
            bytes_per_second: None,
            quota_bytes: None,
            freeze: false,
            only_workload: false,
        };
        Self {
            version: 0,
            mode,
            inside: default_inside(),
            decide: vec![
                rule("plugx.*", Grade::Malicious, 5),
                rule("c2.*", Grade::Malicious, 5),
                rule("indicator.*", Grade::Malicious, 3),
                rule("behaviour.*", Grade::Suspect, 0),
            ],
            budget: Budget::default(),
            exempt: Vec::new(),
            allowance: Allowance::default(),
            allow: Vec::new(),
            trial: Trial::default(),
            escalation: Escalation::default(),
            names: Names::default(),
            drill: Vec::new(),
            orders: Orders::default(),
            duty: Duty {
                group: "unassigned".to_owned(),
                owner: "nobody yet".to_owned(),
                deputy: "nobody yet".to_owned(),
            },
            expires: None,
        }
    }

    /// The line of the decision table for a detector and a grade.
    #[must_use]
    pub fn rule_for(&self, detector: &str, grade: Grade) -> Option<&DecideRule> {
        self.decide
            .iter()
            .find(|rule| rule.grade <= grade && pattern_fits(&rule.detector, detector))
    }
}

fn pattern_fits(pattern: &str, detector: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => detector.starts_with(prefix),
        None => pattern == detector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
schema = "sekisho.policy/1"
version = 42
mode = "enforce"
[[decide]]
detector = "plugx.*"
grade = "malicious"
level = 5
lease = "24h"
[[exempt]]
name = "backup"
to = "198.51.100.20/32"
transport = "tcp"
port = 443
[[exempt]]
name = "customers"
service = "tcp/80"
from = "0.0.0.0/0"
[duty]
group = "web"
owner = "Aiko <aiko@example>"
deputy = "Ben <ben@example>"
"#;

    #[test]
    fn a_good_policy_is_read_whole() {
        let policy = Policy::parse(GOOD).unwrap();
        assert_eq!((policy.version, policy.mode, policy.exempt.len()), (42, Mode::Enforce, 2));
        assert_eq!(policy.rule_for("plugx.tcp", Grade::Malicious).unwrap().level, 5);
        assert!(policy.rule_for("plugx.tcp", Grade::Suspect).is_none());
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_column() {
        let error =
            Policy::parse(&GOOD.replace("mode =", "mood = 1\nmode =")).unwrap_err().to_string();
        assert!(error.starts_with("4:1:") && error.contains("mood"), "{error}");
    }

    #[test]
    fn an_exemption_of_everything_is_refused() {
        let error =
            Policy::parse(&GOOD.replace("198.51.100.20/32", "0.0.0.0/0")).unwrap_err().to_string();
        assert!(error.contains("every cut empty"), "{error}");
    }

    #[test]
    fn a_duty_without_an_owner_is_refused() {
        assert!(Policy::parse(&GOOD.replace("Aiko <aiko@example>", " ")).is_err());
    }
}
