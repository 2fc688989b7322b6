//! `behaviour.allowance` and `behaviour.host-budget`: how much may leave for destinations that
//! nobody approved.
//!
//! An hourly analysis sees an archive after it has left; a bound on bytes holds while it leaves
//! (detection.md, sections 1 and 4.7).

use super::Outlook;
use super::first_seen;
use super::signal::{Signal, SignalKind, Warrant};
use crate::flow::Observation;
use crate::learn::{Bounded, DestinationAt, Destinations, day_of};
use sekisho_schema::Timestamp;
use std::net::IpAddr;

/// Stable identifier of the detector for one destination.
pub(crate) const ALLOWANCE: &str = "behaviour.allowance";
/// Stable identifier of the detector for all destinations of a host.
pub(crate) const HOST_BUDGET: &str = "behaviour.host-budget";

#[derive(Clone, Copy, Debug, Default)]
struct Day {
    day: i64,
    bytes: u64,
    first_at: Timestamp,
    told: bool,
}

/// Counts what goes to unapproved destinations.
#[derive(Debug)]
pub(super) struct Allowances {
    per_destination: Option<Warrant>,
    per_host: Option<Warrant>,
    days: Bounded<Option<IpAddr>, Day>,
}

impl Allowances {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self { per_destination: None, per_host: None, days: Bounded::new(capacity, seed) }
    }

    pub(super) fn configure(
        &mut self,
        per_destination: Option<Warrant>,
        per_host: Option<Warrant>,
    ) {
        self.per_destination = per_destination;
        self.per_host = per_host;
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.days.evicted()
    }

    pub(super) fn observe_volume(
        &mut self,
        o: &Observation<'_>,
        key: DestinationAt<'_>,
        bytes: u64,
        outlook: &Outlook<'_>,
        learned: &mut Destinations,
        emit: &mut Vec<Signal>,
    ) {
        if outlook.is_learning(o.at, learned) {
            first_seen::learn(learned, key, o.flow.key.remote.ip(), o.at, bytes);
            return;
        }
        let allowed = outlook.policy.allowance.per_destination_bytes;
        let Some(entry) = learned.watch(key, o.at, allowed / 2) else {
            self.count_host_day(o, key, bytes, outlook, emit);
            return;
        };
        entry.bytes_out = entry.bytes_out.saturating_add(bytes);
        if entry.learned {
            return;
        }
        entry.week.add(o.at, bytes);
        let total = entry.week.total();
        let exceeds = total > allowed;
        let tell = exceeds && !entry.told;
        entry.told = exceeds;
        if let (true, Some(warrant)) = (tell, &self.per_destination) {
            let kind = SignalKind::Allowance {
                destination: key.remote.own(),
                bytes: total,
                allowed,
                first_seen: entry.first_at,
            };
            let first_at = entry.first_at;
            emit.push(Signal { first_at, ..warrant.signal(o.at, o.frame, &o.flow, kind) });
        }
        self.count_host_day(o, key, bytes, outlook, emit);
    }

    fn count_host_day(
        &mut self,
        o: &Observation<'_>,
        key: DestinationAt<'_>,
        bytes: u64,
        outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) {
        let allowed = outlook.policy.allowance.per_host_day_bytes;
        let today = day_of(o.at);
        let fresh = || Day { day: today, first_at: o.at, ..Day::default() };
        let may_go = |day: &Day| day.day < today || day.bytes <= allowed / 2;
        let Some(day) = self.days.upsert(&key.host, fresh, may_go) else { return };
        if day.day < today {
            *day = fresh();
        }
        day.bytes = day.bytes.saturating_add(bytes);
        let Some(warrant) = &self.per_host else { return };
        if day.told || day.bytes <= allowed {
            return;
        }
        day.told = true;
        let kind = SignalKind::HostBudget { bytes: day.bytes, allowed };
        let first_at = day.first_at;
        emit.push(Signal { first_at, ..warrant.signal(o.at, o.frame, &o.flow, kind) });
    }
}
