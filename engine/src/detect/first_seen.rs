//! Whether a destination is one that somebody or something approved: a person, an exemption, or
//! the time of learning.

use crate::learn::{DestinationAt, Destinations, RemoteAt};
use ipnet::IpNet;
use sekisho_schema::policy::Exemption;
use sekisho_schema::{Policy, Timestamp};
use std::net::IpAddr;

/// What a person approved, by policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approvals {
    /// Each with what the policy calls it.
    networks: Vec<(IpNet, String)>,
    names: Vec<String>,
}

impl Approvals {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut approvals = Self::default();
        for text in policy.allowance.approved.iter().chain(&policy.allow) {
            if let Ok(address) = text.parse::<IpAddr>() {
                approvals.networks.push((IpNet::from(address), text.clone()));
            } else if let Ok(network) = text.parse() {
                approvals.networks.push((network, text.clone()));
            } else {
                let name = text.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
                if !name.is_empty() {
                    approvals.names.push(name);
                }
            }
        }
        for exemption in &policy.exempt {
            if let Exemption::Peer { to, name, .. } = exemption {
                approvals.networks.push((*to, name.clone()));
            }
        }
        approvals
    }

    /// Whether the address or the name, or a name above it, was approved.
    pub(crate) fn cover(&self, address: IpAddr, name: Option<&str>) -> bool {
        self.covering(address, name).is_some()
    }

    /// The entry that covers the address or the name, as the policy calls it.
    pub(crate) fn covering(&self, address: IpAddr, name: Option<&str>) -> Option<&str> {
        let network = self.networks.iter().find(|(network, _)| network.contains(&address));
        match network {
            Some((_, called)) => Some(called),
            None => self.covering_name(name?),
        }
    }

    /// Whether the name, or one above it, was approved.
    pub(crate) fn cover_name(&self, name: &str) -> bool {
        self.covering_name(name).is_some()
    }

    fn covering_name(&self, name: &str) -> Option<&str> {
        let is_below = |suffix: &&String| {
            name.strip_suffix(suffix.as_str())
                .is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        self.names.iter().find(is_below).map(String::as_str)
    }
}

/// Adds a destination to the baseline, by name and by address: a name may no longer be bound when
/// the address is met again.
pub(super) fn learn(
    learned: &mut Destinations,
    key: DestinationAt<'_>,
    remote: IpAddr,
    at: Timestamp,
    bytes: u64,
) {
    if let Some(entry) = learned.learn(key, at) {
        entry.bytes_out = entry.bytes_out.saturating_add(bytes);
    }
    if matches!(key.remote, RemoteAt::Name(_)) {
        learned.learn(DestinationAt { remote: RemoteAt::Address(remote), ..key }, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Mode;

    #[test]
    fn approval_covers_networks_names_and_what_is_below_them() {
        let mut policy = Policy::built_in(Mode::DryRun);
        policy.allowance.approved =
            ["198.51.100.0/24", "2001:db8::1", "Example.com"].map(str::to_owned).to_vec();
        policy.exempt.push(Exemption::Peer {
            name: "backup".into(),
            to: "203.0.113.20/32".parse().unwrap(),
            transport: None,
            port: None,
        });
        let approvals = Approvals::new(&policy);
        let covers = |address: &str, name| approvals.cover(address.parse().unwrap(), name);
        assert!(covers("198.51.100.7", None) && covers("2001:db8::1", None));
        assert!(covers("203.0.113.20", None) && covers("192.0.2.1", Some("cdn.example.com")));
        assert!(!covers("192.0.2.1", Some("notexample.com")) && !covers("192.0.2.1", None));
    }
}
