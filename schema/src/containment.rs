//! What the kernel shall hold, and what it holds.

use crate::time::{Span, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Name of a containment: `c-` and twelve hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainmentId(pub String);

impl fmt::Display for ContainmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a containment cuts. An empty scope does not exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A cgroup v2 path: the workload in it.
    Cgroup(String),
    /// A container by its id.
    Container(String),
    /// One outside address, for every program and container of this host.
    Destination(IpAddr),
    /// The host's external egress: everything but the inside and the exemptions.
    Host,
    /// An inside host, seen from a gateway: address or MAC.
    Internal(String),
    /// A network device, taken down: nothing passes it any more, whatever sends.
    Link(String),
    /// Everything but loopback, neighbour discovery and the exemptions; the inside too.
    ManagementOnly,
}

/// How a scope is held. What is less than a cut is for one destination only.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Measure {
    /// Nothing of it leaves.
    #[default]
    Cut,
    /// Nothing of it leaves, and its processes stand still (cgroup v2 freezer); for workloads.
    Freeze,
    /// It is counted and leaves.
    Observe,
    /// So many bytes leave yet, then nothing.
    Quota {
        /// Bytes of IP packets, from the moment the kernel holds it.
        bytes: u64,
    },
    /// It leaves slowly.
    Throttle {
        /// Bytes of IP packets within a second.
        bytes_per_second: u64,
    },
}

impl Measure {
    /// Whether this is the plain cut.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Cut)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::Freeze => f.write_str("cut and frozen"),
            Self::Observe => f.write_str("observed"),
            Self::Quota { bytes } => write!(f, "cut after {bytes} bytes"),
            Self::Throttle { bytes_per_second } => {
                write!(f, "throttled to {bytes_per_second} bytes/s")
            }
        }
    }
}

impl Scope {
    /// The step of the ladder of responses on which a cut of this scope stands (containment.md, section 7).
    #[must_use]
    pub const fn level(&self) -> u8 {
        match self {
            Self::Destination(_) => 3,
            Self::Cgroup(_) | Self::Container(_) | Self::Internal(_) => 4,
            Self::Host => 5,
            Self::ManagementOnly => 6,
            Self::Link(_) => 7,
        }
    }

    /// The step of the ladder on which this scope stands when it is held so.
    #[must_use]
    pub const fn level_of(&self, measure: Measure) -> u8 {
        match measure {
            Measure::Observe => 0,
            Measure::Throttle { .. } => 1,
            Measure::Quota { .. } => 2,
            Measure::Cut | Measure::Freeze => self.level(),
        }
    }

    /// Whether this scope can be held so.
    #[must_use]
    pub const fn takes(&self, measure: Measure) -> bool {
        match measure {
            Measure::Cut => true,
            Measure::Freeze => matches!(self, Self::Cgroup(_) | Self::Container(_)),
            Measure::Observe | Measure::Quota { .. } | Measure::Throttle { .. } => {
                matches!(self, Self::Destination(_))
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup:{path}"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Destination(address) => write!(f, "dest:{address}"),
            Self::Host => f.write_str("host"),
            Self::Internal(host) => write!(f, "internal:{host}"),
            Self::Link(device) => write!(f, "link:{device}"),
            Self::ManagementOnly => f.write_str("management-only"),
        }
    }
}

/// Why a text names no scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{0}\" is not a scope: dest:ADDR, cgroup:PATH, container:ID, host, management-only, internal:ADDR, internal:MAC or link:DEVICE"
)]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        let refuse = || ParseScopeError(text.to_owned());
        match text {
            "host" => return Ok(Self::Host),
            "management-only" => return Ok(Self::ManagementOnly),
            _ => {}
        }
        let (kind, value) = text.split_once(':').ok_or_else(refuse)?;
        if value.is_empty() {
            return Err(refuse());
        }
        match kind {
            "cgroup" if value.starts_with('/') && value.len() > 1 => {
                Ok(Self::Cgroup(value.to_owned()))
            }
            "container" => Ok(Self::Container(value.to_owned())),
            "dest" => {
                let address: IpAddr = value.parse().map_err(|_| refuse())?;
                // The unspecified address names every host to some tools; here it names none.
                if address.is_unspecified() {
                    Err(refuse())
                } else {
                    Ok(Self::Destination(address.to_canonical()))
                }
            }
            "internal" => Ok(Self::Internal(value.to_owned())),
            // IFNAMSIZ is 16 with its final zero; the loopback is never taken down.
            "link" if value.len() < 16 && value != "lo" && !value.contains(['/', ' ']) => {
                Ok(Self::Link(value.to_owned()))
            }
            _ => Err(refuse()),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One action that cuts egress of a scope until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    /// Its name.
    pub id: ContainmentId,
    /// What it cuts.
    pub scope: Scope,
    /// Step of the ladder.
    pub level: u8,
    /// When it began.
    pub since: Timestamp,
    /// When the lease ends.
    pub until: Timestamp,
    /// How it is held.
    #[serde(default, skip_serializing_if = "Measure::is_cut")]
    pub measure: Measure,
    /// While it is on trial: when the kernel lets go by itself unless somebody confirms it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_until: Option<Timestamp>,
    /// Detector or person behind it, for people.
    pub cause: String,
    /// Finding that led to it, when one did.
    pub finding: Option<String>,
    /// `null` for the automatic judgement, else who asked.
    pub by: Option<String>,
}

impl Containment {
    /// When the kernel lets go by itself: the end of the lease, or of the trial before it.
    #[must_use]
    pub fn held_until(&self) -> Timestamp {
        self.trial_until.map_or(self.until, |trial| trial.min(self.until))
    }

    /// How long the kernel shall hold it yet at `now`; zero when it is over.
    #[must_use]
    pub fn remaining(&self, now: Timestamp) -> Span {
        self.held_until().since(now).max(Span::ZERO)
    }
}

/// Desired state, whole: everything the kernel shall hold, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainmentSet {
    /// Rises with each change.
    pub generation: u64,
    /// The containments by name.
    pub containments: BTreeMap<ContainmentId, Containment>,
}

/// Whether a thing that was tried held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// `proven` when the elements were read back from the kernel and a probe packet of our own did not leave, else `unproven`.
    pub cut: Option<String>,
    /// `ok` or `broken`.
    pub exemptions: Option<String>,
    /// The same per address family and check, by name.
    pub checks: BTreeMap<String, String>,
}

/// Paths out of this host that a cut does not close, by name: `af_xdp`, `xdp_tx`, `tc_redirect`, …
pub type Coverage = Vec<String>;

/// What the kernel holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The generation of the set that was applied.
    pub generation: u64,
    /// The containment this receipt is for.
    pub containment: ContainmentId,
    /// The finding that asked for it, when one did.
    pub finding: Option<String>,
    /// Its scope.
    pub scope: Scope,
    /// `true` when the kernel acknowledged; else `error` says why not.
    pub applied: bool,
    /// Why it was not applied; `null` when it was.
    pub error: Option<String>,
    /// When the kernel acknowledged.
    pub committed_at: Option<Timestamp>,
    /// The last packet of the contained scope that was seen to leave.
    pub last_packet_at: Option<Timestamp>,
    /// Kernel time stamp of the deciding frame to the kernel's acknowledgement; `null` for a person's order.
    pub time_to_contain_ns: Option<i64>,
    /// Packets of the contained scope that left after the match.
    pub leaked_packets: u64,
    /// Bytes of the contained scope that left after the match.
    pub leaked_bytes: u64,
    /// Sockets ended.
    pub sockets_destroyed: u32,
    /// What was tried afterwards, and held.
    pub proof: Proof,
    /// What this host cannot cut.
    pub coverage: Coverage,
    /// What the scope was found to be when it was cut, in words: cgroup ids, addresses, MACs, devices, namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<String>,
    /// What this level does not close for this scope, in words for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_what_it_writes() {
        for text in [
            "dest:203.0.113.9",
            "dest:2001:db8::1",
            "cgroup:/system.slice/web.service",
            "container:0a1b",
            "host",
            "management-only",
            "internal:10.0.0.9",
            "link:eth0",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_empty_target_never_means_all() {
        for text in [
            "",
            "dest:",
            "cgroup:",
            "cgroup:/",
            "container:",
            "internal:",
            "link:",
            "link:lo",
            "dest:0.0.0.0",
            "dest:::",
            "all",
            "*",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
