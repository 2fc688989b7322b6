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
    /// Everything but loopback, neighbour discovery and the exemptions; the inside too.
    ManagementOnly,
}

impl Scope {
    /// The step of the ladder of responses that this scope stands on (containment.md, section 7).
    #[must_use]
    pub const fn level(&self) -> u8 {
        match self {
            Self::Destination(_) => 3,
            Self::Cgroup(_) | Self::Container(_) | Self::Internal(_) => 4,
            Self::Host => 5,
            Self::ManagementOnly => 6,
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
            Self::ManagementOnly => f.write_str("management-only"),
        }
    }
}

/// Why a text names no scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{0}\" is not a scope: dest:ADDR, cgroup:PATH, container:ID, host, management-only, internal:ADDR or internal:MAC"
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
    /// When the kernel lets go by itself.
    pub until: Timestamp,
    /// Detector or person behind it, for people.
    pub cause: String,
    /// Finding that led to it, when one did.
    pub finding: Option<String>,
    /// `null` for the automatic judgement, else who asked.
    pub by: Option<String>,
}

impl Containment {
    /// What is left of the lease at `now`; zero when it is over.
    #[must_use]
    pub fn remaining(&self, now: Timestamp) -> Span {
        self.until.since(now).max(Span::ZERO)
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
            "dest:0.0.0.0",
            "dest:::",
            "all",
            "*",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
