//! `behaviour.beacon`: contacts that come back inside a window predicted beforehand.
//!
//! Null hypothesis: given the past, the gap to the next contact has a non-increasing density beyond
//! a dead time, as every memoryless or bursty client has (Poisson, hyper-exponential, Pareto,
//! Weibull with shape at most 1). Then P(a ≤ gap ≤ b | d ≤ gap ≤ b) ≤ (b − a)/(b − d) for any a, b
//! and d chosen beforehand, so a bet at these odds cannot win in the mean, and a product of bets
//! that grows is evidence (Ville's inequality; detection.md, section 3). The restarted form keeps
//! the mean time between false alarms at or above 10^threshold contacts.

mod bets;

use self::bets::Bets;
use super::signal::{Signal, SignalKind, Warrant};
use crate::flow::Observation;
use crate::learn::{Bounded, DestinationKey, Remote};
use sekisho_schema::{Timestamp, Transport};
use serde::Deserialize;

/// Stable identifier of the detector.
pub(crate) const BEACON: &str = "behaviour.beacon";

/// Constants of the detector.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BeaconSettings {
    /// Contacts closer than this are one contact; in seconds.
    pub dead_seconds: f64,
    /// Slack added to both ends of every window; in seconds.
    pub resolution_seconds: f64,
    /// Base-10 logarithm of the e-value that is told.
    pub threshold_log10: f64,
}

impl Default for BeaconSettings {
    /// detection.md, sections 3 and 4.1.
    fn default() -> Self {
        Self { dead_seconds: 1.0, resolution_seconds: 0.5, threshold_log10: 6.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    destination: DestinationKey,
    port: u16,
    transport: Transport,
}

#[derive(Debug)]
struct Contact {
    first_at: Timestamp,
    bets: Bets,
    /// The e-value at which it is told next: the threshold, then always twice what was told.
    tell_at: f64,
}

/// Watches the rhythm of every pair of inside host and outside destination.
#[derive(Debug)]
pub(super) struct Beacons {
    settings: BeaconSettings,
    warrant: Warrant,
    contacts: Bounded<Key, Contact>,
}

impl Beacons {
    pub(super) fn new(
        settings: BeaconSettings,
        warrant: Warrant,
        capacity: usize,
        seed: u64,
    ) -> Self {
        Self { settings, warrant, contacts: Bounded::new(capacity, seed) }
    }

    pub(super) fn reset(&mut self, settings: BeaconSettings, warrant: Warrant) {
        self.settings = settings;
        self.warrant = warrant;
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.contacts.evicted()
    }

    pub(super) fn observe_burst(
        &mut self,
        o: &Observation<'_>,
        destination: DestinationKey,
        emit: &mut Vec<Signal>,
    ) {
        let settings = self.settings;
        let kept = settings.threshold_log10 / 2.0;
        let key =
            Key { destination, port: o.flow.key.remote.port(), transport: o.flow.key.transport };
        let fresh = || Contact {
            first_at: o.at,
            bets: Bets::new(o.at, settings.dead_seconds),
            tell_at: settings.threshold_log10,
        };
        let Some(contact) =
            self.contacts.upsert_owned(key, fresh, |contact| contact.bets.log10_e() < kept)
        else {
            return;
        };
        contact.bets.observe(o.at, settings.dead_seconds, settings.resolution_seconds);
        let log10_e = contact.bets.log10_e();
        if log10_e < contact.tell_at {
            return;
        }
        contact.tell_at = log10_e * 2.0;
        let first_at = contact.first_at;
        let remote = Remote::new(o.flow.key.remote.ip(), o.flow.bound_name);
        let kind = kind_of(remote, &contact.bets);
        emit.push(Signal { first_at, ..self.warrant.signal(o.at, o.frame, &o.flow, kind) });
    }
}

fn kind_of(destination: Remote, bets: &Bets) -> SignalKind {
    let best = bets.best();
    SignalKind::Beacon {
        destination,
        hits: best.hits(),
        bets: best.counted(),
        low: best.low,
        high: best.high,
        chance: best.chance,
        log10_e: bets.log10_e(),
    }
}
