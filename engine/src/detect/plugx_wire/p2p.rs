//! `plugx.p2p`: the sweep of the local network by PlugX's P2P build.
//!
//! The build of 20140918 looks for its like on TCP and UDP port 1357, host by host (JPCERT/CC 2015,
//! tables 1 and 2). Told at the third host asked within a minute, and when one answers with payload.
//!
//! The port can be configured, and other software may use it: scores only.

use crate::detect::Outlook;
use crate::detect::registry::{Setup, WireDetector};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{Appetite, Observation, ObservationKind, Route, Toward};
use crate::learn::Bounded;
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, Grade, Span, Timestamp, Transport};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Stable identifier of the detector.
pub(super) const PLUGX_P2P: &str = "plugx.p2p";

/// Hosts whose sweeps are counted.
const SWEEPERS: usize = 4096;
/// Hosts asked that are remembered for each: more are not needed to tell.
const ASKED: usize = 8;

/// The constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SweepSettings {
    /// Ports of the P2P build.
    ports: Vec<u16>,
    /// Distinct hosts that are asked before it is told; at most 8.
    hosts: usize,
    /// Seconds within which they are asked.
    within_seconds: i64,
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self { ports: vec![1357], hosts: 3, within_seconds: 60 }
    }
}

/// Hosts asked, each with its time, the oldest first.
type Asked = Vec<(IpAddr, Timestamp)>;

#[derive(Debug)]
struct Sweep {
    settings: SweepSettings,
    asked: Bounded<IpAddr, Asked>,
    warrant: Warrant,
}

/// Makes the detector.
pub(super) fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let settings: SweepSettings = setup.settings()?;
    if !(1..=ASKED).contains(&settings.hosts) {
        return Err(format!("hosts is {}, and 1 to {ASKED} can be counted", settings.hosts));
    }
    Ok(Box::new(Sweep {
        settings,
        asked: Bounded::new(SWEEPERS, setup.seed),
        warrant: setup.warrant.clone(),
    }))
}

impl WireDetector for Sweep {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let key = &o.flow.key;
        if self.settings.ports.contains(&key.remote.port())
            && matches!(key.transport, Transport::Tcp | Transport::Udp)
            && o.flow.route == Route::Inside
            && o.flow.direction == Direction::Outbound
        {
            match o.kind {
                ObservationKind::Started => emit.extend(self.asked(o)),
                ObservationKind::Head { toward: Toward::Local, .. } => emit.push(self.answered(o)),
                _ => {}
            }
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.asked.evicted()
    }
}

impl Sweep {
    fn asked(&mut self, o: &Observation<'_>) -> Option<Signal> {
        let key = &o.flow.key;
        let within = Span::from_secs(self.settings.within_seconds);
        let asked = self.asked.upsert(&key.local.ip(), Vec::new, |_| true)?;
        asked.retain(|(host, at)| *host != key.remote.ip() && o.at.since(*at) <= within);
        if asked.len() >= ASKED {
            asked.remove(0);
        }
        asked.push((key.remote.ip(), o.at));
        if asked.len() < self.settings.hosts {
            return None;
        }
        let told = format!(
            "{{host}} spoke to {} hosts of the local network on port {} within {} s, lastly to \
             {{remote}}: PlugX's P2P build looks for its like that way.",
            asked.len(),
            key.remote.port(),
            self.settings.within_seconds,
        );
        let hosts: Vec<String> = asked.iter().map(|(host, _)| host.to_string()).collect();
        let evidence = vec![Evidence::new(
            "address",
            [
                ("hosts", hosts.into()),
                ("port", key.remote.port().into()),
                ("within_seconds", self.settings.within_seconds.into()),
            ],
        )];
        Some(self.warrant.pattern(o, true, Pattern { told, evidence }))
    }

    /// One answer is odd; that it is a PlugX message is for the detectors of messages to say.
    fn answered(&self, o: &Observation<'_>) -> Signal {
        let port = o.flow.key.remote.port();
        let told = format!(
            "{{remote}} answered {{host}} on port {port}, on which PlugX's P2P build listens.",
        );
        let evidence = vec![Evidence::new("address", [("port", port.into())])];
        let mut signal = self.warrant.pattern(o, false, Pattern { told, evidence });
        signal.grade = signal.grade.min(Grade::Odd);
        signal
    }
}

#[cfg(test)]
mod tests;
