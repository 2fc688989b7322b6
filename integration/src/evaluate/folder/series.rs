//! What was read in a file: contacts by client, server and port, and questions for names.

use crate::evaluate::fleet::{Burst, Connection, Oddities};
use std::collections::BTreeMap;

/// A client, a server, and the port and transport between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) client: String,
    pub(super) server: String,
    pub(super) port: u16,
    pub(super) transport: &'static str,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {} {}/{}", self.client, self.server, self.transport, self.port)
    }
}

/// What went between them. Times are seconds since the epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// Contacts with payload of the client.
    pub(super) bursts: Vec<Burst>,
    /// Calls that carried nothing, by when they began.
    pub(super) calls: Vec<f64>,
    pub(super) connections: Vec<Connection>,
    pub(super) oddities: Oddities,
    /// The name the client asked for.
    pub(super) name: Option<String>,
    /// Whether the file itself calls it command and control.
    pub(super) is_hostile: bool,
}

impl Series {
    /// Puts contacts and connections in the order of time.
    fn sort(&mut self) {
        self.bursts.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.connections.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.calls.sort_by(f64::total_cmp);
    }
}

/// A question for a name.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) at: f64,
    pub(super) client: String,
    pub(super) resolver: String,
    pub(super) name: String,
}

/// All of a file.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) series: BTreeMap<Key, Series>,
    pub(super) questions: Vec<Question>,
    /// First and last moment.
    pub(super) span: Option<(f64, f64)>,
}

impl Taken {
    /// Notes that something happened.
    pub(super) fn saw(&mut self, at: f64) {
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
    }

    pub(super) fn sorted(mut self) -> Self {
        self.series.values_mut().for_each(Series::sort);
        self.questions.sort_by(|a, b| a.at.total_cmp(&b.at));
        self
    }

    /// How long it goes on, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.span.map_or(0.0, |(first, last)| last - first)
    }
}

/// Ports of services that every machine asks by the clock: names, time, leases, neighbours.
const BY_THE_CLOCK: [u16; 11] = [53, 67, 68, 123, 137, 138, 546, 547, 1900, 5353, 5355];

impl Key {
    /// Whether it is one of the services that are approved everywhere, or no single machine.
    pub(super) fn is_of_the_network(&self) -> bool {
        let is_group = self.server.parse().is_ok_and(|address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(v4) => {
                v4.is_multicast() || v4.is_broadcast() || v4.octets()[3] == 255
            }
            std::net::IpAddr::V6(v6) => v6.is_multicast(),
        });
        is_group || BY_THE_CLOCK.contains(&self.port) || self.transport == "icmp"
    }
}
