//! Enters: observations, the rules, the policy's allowance and the baseline. Leaves: signals, each
//! one detector's opinion with its facts. Must not know: modes, budgets, exemptions from cuts,
//! containments, or how anything is told to people.

mod allowance;
mod behaviour;
mod c2;
mod first_seen;
mod hearsay;
pub mod indicator_set;
pub mod plugx;
mod plugx_flow;
mod plugx_wire;
mod protocol;
mod registry;
mod sighting;
pub mod signal;

pub use self::behaviour::BeaconSettings;
pub(crate) use self::first_seen::Approvals;
pub use self::registry::Weight;
pub use self::signal::{Pattern, Scored, Sighted, Signal, SignalKind};

use self::allowance::{ALLOWANCE, Allowances, HOST_BUDGET};
use self::behaviour::Behaviours;
use self::hearsay::Hearsay;
use self::indicator_set::{IndicatorSet, Kind};
use self::plugx::PlugxConstants;
use self::plugx_flow::{PLUGX_TCP, PlugxFlow};
use self::registry::Registry;
use self::sighting::Unknown;
use self::signal::Warrant;
use crate::certify::authority::Authority;
use crate::flow::{Appetite, Observation, ObservationKind, Perimeter, Route, Toward};
use crate::learn::{DestinationAt, Destinations, Episodes, Regard};
use crate::limits::Limits;
use sekisho_schema::finding::Direction;
use sekisho_schema::pack::DetectorEntry;
use sekisho_schema::{Policy, Timestamp};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the detectors may consult.
pub(crate) struct Outlook<'a> {
    pub(crate) indicators: &'a IndicatorSet,
    pub(crate) policy: &'a Policy,
    pub(crate) approvals: &'a Approvals,
    pub(crate) perimeter: &'a Perimeter,
    pub(crate) own: &'a BTreeSet<IpAddr>,
    /// Whether the policy asks to learn without end.
    pub(crate) keeps_learning: bool,
    /// Whether what is decided is done.
    pub(crate) enforces: bool,
}

impl Outlook<'_> {
    fn is_learning(&self, at: Timestamp, learned: &Destinations) -> bool {
        self.keeps_learning || !learned.is_mature(at, self.policy.allowance.learn_for)
    }

    /// Whether an address may be the target of a cut: a name can be made to point anywhere.
    fn is_outside(&self, address: IpAddr) -> bool {
        !address.is_multicast() && !self.perimeter.is_inside(address)
    }

    fn host(&self, local: IpAddr) -> Option<IpAddr> {
        (!self.own.contains(&local)).then_some(local)
    }
}

/// Why the settings of a detector can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("settings of {detector} can't be used: {why}; its built-in settings are in force")]
pub struct SettingsFault {
    detector: &'static str,
    why: String,
}

/// The entry and the name (`pack@version#id`) of the rule that switches a detector on.
pub(crate) type RuleOf<'a> = dyn Fn(&str) -> Option<(&'a DetectorEntry, &'a str)> + 'a;

/// Every detector.
#[derive(Debug)]
pub(crate) struct Detectors {
    allowances: Allowances,
    behaviours: Behaviours,
    plugx: Option<PlugxFlow>,
    wire: Registry,
    hearsay: Hearsay,
    unknown: Unknown,
    seed: u64,
}

impl Detectors {
    pub(crate) fn new(limits: &Limits, seed: u64) -> Self {
        let capacity = limits.destinations;
        let allowances = Allowances::new(capacity, seed);
        let (wire, hearsay) = (Registry::new(seed), Hearsay::new(seed));
        let unknown = Unknown::default();
        let behaviours = Behaviours::default();
        Self { allowances, behaviours, plugx: None, wire, hearsay, unknown, seed }
    }

    /// Switches detectors as the packs say; what was counted stays.
    pub(crate) fn configure(
        &mut self,
        rules: &RuleOf<'_>,
        episodes: &mut Episodes,
    ) -> Vec<SettingsFault> {
        self.unknown = Unknown::default();
        let mut faults = Vec::new();
        let plugx = settings::<PlugxConstants>(rules, PLUGX_TCP, &mut faults);
        let constants = plugx.as_ref().map(|(constants, _)| constants.clone()).unwrap_or_default();
        self.plugx =
            plugx.map(|(constants, warrant)| PlugxFlow::new(&constants, warrant, self.seed));
        self.wire.configure(rules, &constants, self.seed, &mut faults);
        self.behaviours.configure(rules, &mut faults, episodes);
        self.allowances.configure(warrant(rules, ALLOWANCE), warrant(rules, HOST_BUDGET));
        faults
    }

    /// Other indicators are in force.
    pub(crate) fn forget_names(&mut self) {
        self.unknown.forget();
    }

    /// Keys that the detectors' tables had to let go or refuse.
    pub(crate) fn evicted(&self) -> u64 {
        self.wire.evicted()
            + self.hearsay.evicted()
            + self.plugx.as_ref().map_or(0, PlugxFlow::evicted)
            + self.allowances.evicted()
    }

    pub(crate) fn observe(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        (learned, episodes, authority): (&mut Destinations, &mut Episodes, &mut Authority),
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if self.behaviours.is_on() {
            episodes.note(o, || outlook.host(o.flow.key.local.ip()));
        }
        let appetite = self.observe_kind(o, outlook, (learned, &mut *episodes), emit);
        if episodes.has_told() {
            let duty = (outlook.policy, outlook.enforces);
            self.behaviours.speak(o, duty, (episodes, authority), emit);
        }
        appetite
    }

    fn observe_kind(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        (learned, episodes): (&mut Destinations, &mut Episodes),
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Answer { name, address } => {
                // An address inside tells nothing that the question did not.
                if outlook.is_outside(address) {
                    let address = Some(address.to_canonical());
                    let told = (name, Sighted::Answer);
                    let unknown = &mut self.unknown;
                    sighting::observe_name(o, outlook, told, address, unknown, emit);
                }
            }
            ObservationKind::Burst => {
                // An indicator can be newer than the flow, and a lease can end before it.
                sighting::observe_endpoint(o, outlook, &mut self.unknown, emit);
                self.observe_more(o, emit);
                if self.behaviours.is_on()
                    && let Some((key, regard)) = regard(o, outlook, learned)
                {
                    // While all is watched, nobody asks whether it is known.
                    let is_known = !regard.is_learning && knows(learned, key);
                    episodes.burst(o, &Regard { is_known, ..regard });
                }
            }
            ObservationKind::Ended => self.forget(o),
            ObservationKind::Head { toward, bytes } => {
                let before = emit.len();
                self.hearsay.note(o);
                let Self { plugx, hearsay, .. } = self;
                let appetite = plugx.as_mut().map_or(Appetite::Enough, |plugx| {
                    let mut weigh = |signal: &mut Signal| hearsay.weigh(o, outlook, signal);
                    plugx.observe_head(o, (toward, bytes), &mut weigh, emit)
                });
                let wanted = self.wire.observe(o, outlook, &mut self.hearsay, emit);
                if emit.len() > before + 1 {
                    leave_the_proven(emit, before);
                }
                return if wanted == Appetite::More { wanted } else { appetite };
            }
            ObservationKind::Certificate(_)
            | ObservationKind::Echo { .. }
            | ObservationKind::Hello(_)
            | ObservationKind::Message { .. }
            | ObservationKind::Request { .. }
            | ObservationKind::Response { .. }
            | ObservationKind::ServerHello(_)
            | ObservationKind::Ssh { .. } => {
                self.hearsay.note(o);
                observe_known(o, outlook, emit);
                return self.wire.observe(o, outlook, &mut self.hearsay, emit);
            }
            ObservationKind::Name { name, source } => {
                let sighted = Sighted::Name(source);
                let address = Some(o.flow.key.remote.ip());
                let unknown = &mut self.unknown;
                sighting::observe_name(o, outlook, (name, sighted), address, unknown, emit);
            }
            ObservationKind::Query { name, .. } => {
                let unknown = &mut self.unknown;
                sighting::observe_name(o, outlook, (name, Sighted::Query), None, unknown, emit);
                if self.behaviours.is_on() && !outlook.approvals.cover_name(name) {
                    episodes.query(o, name, outlook.host(o.flow.key.local.ip()));
                }
            }
            ObservationKind::Started => {
                self.forget(o);
                sighting::observe_endpoint(o, outlook, &mut self.unknown, emit);
                self.wire.observe(o, outlook, &mut self.hearsay, emit);
            }
            ObservationKind::Volume { bytes_out, bytes_in } => {
                self.observe_volume(o, outlook, (bytes_out, bytes_in), (learned, episodes), emit);
            }
        }
        Appetite::Enough
    }

    /// Payload that is no longer read: what it amounts to.
    fn observe_volume(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        bytes: (u64, u64),
        (learned, episodes): (&mut Destinations, &mut Episodes),
        emit: &mut Vec<Signal>,
    ) {
        if bytes.0 > 0 {
            self.observe_more(o, emit);
        }
        let Some((key, regard)) = regard(o, outlook, learned) else {
            if self.behaviours.is_on() {
                observe_others(o, outlook, bytes, episodes);
            }
            return;
        };
        if self.behaviours.is_on() {
            let is_known = knows(learned, key);
            episodes.volume(o, bytes, &Regard { is_known, ..regard });
        }
        if let Some(key) = key.filter(|_| bytes.0 > 0) {
            self.allowances.observe_volume(o, key, bytes.0, outlook, learned, emit);
        }
    }

    fn observe_more(&self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        if let Some(plugx) = &self.plugx {
            plugx.observe_more(o, emit);
        }
        self.wire.observe_more(o, emit);
    }

    fn forget(&mut self, o: &Observation<'_>) {
        if let Some(plugx) = &mut self.plugx {
            plugx.forget(&o.flow);
        }
        self.wire.forget(&o.flow);
    }
}

/// Where bytes prove what they are, that they are not what their port says is no second finding.
fn leave_the_proven(emit: &mut Vec<Signal>, before: usize) {
    let proven = |signal: &Signal| signal.weight == Weight::Decides;
    if emit.iter().skip(before).any(proven) {
        let mut at = 0;
        emit.retain(|signal| {
            at += 1;
            at <= before || !signal.detector.starts_with("protocol.")
        });
    }
}

/// Looks what was read in a flow up among the indicators; fingerprints are computed only where
/// somebody asks for such.
fn observe_known(o: &Observation<'_>, outlook: &Outlook<'_>, emit: &mut Vec<Signal>) {
    let set = outlook.indicators;
    match o.kind {
        ObservationKind::Certificate(certificate) if set.has(Kind::Certificate) => {
            let (sha256, sha1, md5) = (certificate.sha256(), certificate.sha1(), certificate.md5());
            sighting::observe_certificate(o, outlook, &[&sha256, &sha1, &md5], None, emit);
        }
        ObservationKind::Hello(hello) if set.has(Kind::Ja3) || set.has(Kind::Ja4) => {
            let name = hello.sni();
            let name = name.as_ref().map(|name| name.as_str());
            if set.has(Kind::Ja3) {
                sighting::observe_ja3(o, outlook, &hello.ja3(), name, emit);
            }
            if set.has(Kind::Ja4) {
                sighting::observe_ja4(o, outlook, hello.ja4().as_str(), name, emit);
            }
        }
        ObservationKind::Request { toward: Toward::Remote, head } => {
            if set.has(Kind::Url) {
                let host = head.field("Host").unwrap_or_default();
                let host = std::str::from_utf8(host).unwrap_or_default();
                sighting::observe_url(o, outlook, host, head.target, emit);
            }
            if set.has(Kind::UserAgent)
                && let Some(agent) = head.field("User-Agent")
            {
                sighting::observe_user_agent(o, outlook, agent, emit);
            }
        }
        _ => {}
    }
}

/// How policy regards a flow that this side began, and its destination where no person approved it, of which the
/// baseline is still to be asked; `None` for any other flow.
fn regard<'a>(
    o: &Observation<'a>,
    outlook: &Outlook<'a>,
    learned: &Destinations,
) -> Option<(Option<DestinationAt<'a>>, Regard<'a>)> {
    let flow = &o.flow;
    if flow.route != Route::Egress || flow.direction != Direction::Outbound {
        return None;
    }
    let remote = flow.key.remote.ip();
    let host = outlook.host(flow.key.local.ip());
    let object = outlook.approvals.covering(remote, flow.bound_name);
    let is_approved = object.is_some();
    let key = (!is_approved).then(|| DestinationAt::new(host, remote, flow.registered));
    let is_learning = outlook.is_learning(o.at, learned);
    Some((key, Regard { host, object, is_known: false, is_learning }))
}

fn knows(learned: &Destinations, key: Option<DestinationAt<'_>>) -> bool {
    key.is_some_and(|key| learned.knows(key))
}

/// Hands payload of other flows to the episodes: what strangers were answered, what hosts of the inside
/// pulled from each other.
fn observe_others(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    (bytes_out, bytes_in): (u64, u64),
    episodes: &mut Episodes,
) {
    let ends = (o.flow.key.local.ip(), o.flow.key.remote.ip());
    match o.flow.route {
        Route::Egress => {
            if bytes_out > 0 && !outlook.approvals.cover(ends.1, o.flow.bound_name) {
                episodes.answered(o.at, outlook.host(ends.0), bytes_out);
            }
        }
        Route::Inside => {
            for (end, bytes) in [(ends.0, bytes_in), (ends.1, bytes_out)] {
                if bytes > 0 && !end.is_multicast() {
                    episodes.pulled(o.at, outlook.host(end), bytes);
                }
            }
        }
        Route::Transit => {}
    }
}

/// What a detector's rule lends to its signals, if a pack switches it on.
fn warrant(rules: &RuleOf<'_>, detector: &'static str) -> Option<Warrant> {
    let (entry, rule) = rules(detector)?;
    let weight = Weight::Decides;
    Some(Warrant { detector, grade: entry.grade, rule: Some(rule.to_owned()), weight })
}

/// The constants of a detector that a pack switches on; without settings its own defaults.
fn settings<T: DeserializeOwned + Default>(
    rules: &RuleOf<'_>,
    detector: &'static str,
    faults: &mut Vec<SettingsFault>,
) -> Option<(T, Warrant)> {
    let warrant = warrant(rules, detector)?;
    let (entry, _) = rules(detector)?;
    if entry.settings.is_empty() {
        return Some((T::default(), warrant));
    }
    match entry.settings_as() {
        Ok(settings) => Some((settings, warrant)),
        Err(why) => {
            faults.push(SettingsFault { detector, why });
            Some((T::default(), warrant))
        }
    }
}
