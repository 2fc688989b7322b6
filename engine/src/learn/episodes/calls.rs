//! Calls that carried nothing: a client that tries to reach a destination again and again, and seldom gets through.
//!
//! They are no contacts: they fill no hours, enter no score, and no certificate rests on them. A rhythm that they
//! prove is told to people, of destinations only that an episode is watched of and that have answered with payload,
//! so that neither a loop that calls a dead peer nor what strangers provoke is told.

use super::Episodes;
use super::episode::mark;
use super::key::At;
use super::naming::{named, place_of};
use super::telling::{Told, What};
use crate::flow::Observation;
use crate::learn::keep::keep_fields;
use crate::learn::rhythm::{Rhythm, RhythmSettings, Window};
use sekisho_schema::Timestamp;
use sekisho_schema::episode::Service;
use std::net::IpAddr;

/// log10 of 2: the same destination is tested twice, by its contacts and by these calls, and this test has half the
/// weight.
const HALF_WEIGHT: f64 = std::f64::consts::LOG10_2;

/// The calls of one workload to one destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Calls {
    rhythm: Rhythm,
    last_at: Option<Timestamp>,
    told: u8,
}
keep_fields!(Calls { rhythm, last_at, told });

impl Calls {
    /// Takes a call by when it began; one that ended late and began before the last tells nothing.
    fn call(&mut self, at: Timestamp, settings: RhythmSettings) -> Option<Window> {
        let before = self.last_at.filter(|last| *last >= at);
        if before.is_some() {
            return None;
        }
        let last = self.last_at.replace(at)?;
        self.rhythm.gap_with(at.since(last), settings)
    }

    /// log10 of the evidence that counts.
    fn evidence(&self) -> f64 {
        self.rhythm.peak() - HALF_WEIGHT
    }
}

impl Episodes {
    /// Takes a flow of ours that ended without payload of the client.
    pub(super) fn call(&mut self, o: &Observation<'_>, host: impl FnOnce() -> Option<IpAddr>) {
        if self.table.len() == 0 {
            return;
        }
        let host = self.hosts.id(host());
        let Self { table, calls, bound, asn, settings, hosts, workloads, told, .. } = self;
        let service = Service::new(o.flow.key.transport, o.flow.key.remote.port());
        let place = place_of(bound, asn.as_deref(), &o.flow);
        let at = At { place, host, service: Some(service) };
        let hash = at.hash(table.hasher());
        let Some(episode) = table.find(hash, |known| known.at() == at) else { return };
        if !episode.has(mark::ANSWERED) {
            return;
        }
        let hash = at.hash(calls.hasher());
        let half = settings.rhythm_log10 / 2.0;
        let make = || (at.own(), Calls::default());
        let may_go = |known: &Calls| known.evidence() < half;
        let Some(entered) = calls.enter(hash, |known| known.at() == at, make, may_go) else {
            return;
        };
        let calls = entered.value;
        let window = calls.call(o.flow.first_at, settings.rhythm);
        let due = |told: u8| settings.rhythm_log10 * 2_f64.powi(i32::from(told));
        if calls.evidence() < due(calls.told) {
            return;
        }
        while calls.told < 32 && calls.evidence() >= due(calls.told) {
            calls.told += 1;
        }
        let (hits, bets) = calls.rhythm.counted();
        let window = window.or_else(|| calls.rhythm.predicted(settings.rhythm)).unwrap_or_default();
        let inputs = calls.rhythm.bets();
        let what = What::Rhythm { hits, bets, window, log10_e: calls.rhythm.peak(), inputs };
        told.push(Told {
            key: named(hosts, workloads, at, episode.workload),
            what,
            at: o.at,
            first_at: episode.first_at,
            score: None,
            tier: None,
            oddities: episode.oddities,
            hosts: episode.hosts,
            up: episode.bytes.up(),
        });
    }
}
