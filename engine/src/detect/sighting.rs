//! `indicator.*`: the belief that an indicator was seen.
//!
//! What the operator allows is silent here whatever is looked for: an address or name that is
//! allowed has no bad URL, certificate or fingerprint.

use super::Outlook;
use super::indicator_set::{IndicatorRef, Kind};
use super::registry::Weight;
use super::signal::{Sighted, Signal, SignalKind, Warrant};
use crate::flow::text::Text;
use crate::flow::{Observation, Route};
use ahash::RandomState;
use std::net::IpAddr;

/// Stable identifier of the detector of addresses and endpoints.
pub(crate) const INDICATOR_IP: &str = "indicator.ip";
/// Stable identifier of the detector of names.
pub(crate) const INDICATOR_DOMAIN: &str = "indicator.domain";

/// Stable identifier of the detector of URLs.
pub(crate) const INDICATOR_URL: &str = "indicator.url";
/// Stable identifier of the detector of JA3 fingerprints.
pub(crate) const INDICATOR_JA3: &str = "indicator.ja3";
/// Stable identifier of the detector of JA4 fingerprints.
pub(crate) const INDICATOR_JA4: &str = "indicator.ja4";
/// Stable identifier of the detector of certificates.
pub(crate) const INDICATOR_CERT: &str = "indicator.cert";
/// Stable identifier of the detector of User-Agents.
pub(crate) const INDICATOR_USERAGENT: &str = "indicator.useragent";

/// Names that are remembered to be no indicators.
const UNKNOWN: usize = 8192;

/// Names of which no indicator says anything: a flow tells its name in several ways, and the next one often the same.
/// To be made anew with another set.
#[derive(Debug)]
pub(super) struct Unknown {
    names: Vec<Text<46>>,
    hasher: RandomState,
}

impl Default for Unknown {
    fn default() -> Self {
        Self { names: Vec::new(), hasher: RandomState::with_seeds(1, 2, 3, 4) }
    }
}

impl Unknown {
    fn look(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        name: &str,
    ) -> Option<IndicatorRef> {
        if !outlook.indicators.has(Kind::Domain) {
            return None;
        }
        if self.names.is_empty() {
            self.names.resize(UNKNOWN, Text::default());
        }
        let place = self.hasher.hash_one(name) as usize % UNKNOWN;
        if self.names.get(place).is_some_and(|known| known.is(name)) {
            return None;
        }
        let (found, is_stated) = outlook.indicators.look_for_name(name, o.at);
        // What is said of it may come into force later.
        if !is_stated && let Some(place) = self.names.get_mut(place) {
            *place = Text::within(name).unwrap_or_default();
        }
        found
    }

    /// Other indicators are in force.
    pub(super) fn forget(&mut self) {
        self.names.clear();
    }
}

/// A flow began or was used again: is its other end, or the name that was last bound to it, an indicator?
pub(super) fn observe_endpoint(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    unknown: &mut Unknown,
    emit: &mut Vec<Signal>,
) {
    let set = outlook.indicators;
    if o.flow.route == Route::Inside {
        return;
    }
    let local = (o.flow.route == Route::Transit).then_some(o.flow.key.local);
    for end in [Some(o.flow.key.remote), local].into_iter().flatten() {
        // The endpoint is the more exact statement, so it is the one that is told.
        let found = set.by_endpoint(end, o.at).or_else(|| set.by_address(end.ip(), o.at));
        if let Some(found) = found {
            let sighted = (INDICATOR_IP, Sighted::Endpoint);
            emit.push(sighting(o, outlook, found, sighted, Some(end.ip()), o.flow.bound_name));
        }
    }
    if let Some(name) = o.flow.bound_name
        && let Some(found) = unknown.look(o, outlook, name)
    {
        let target = Some(o.flow.key.remote.ip());
        let sighted = (INDICATOR_DOMAIN, Sighted::Bound);
        emit.push(sighting(o, outlook, found, sighted, target, Some(name)));
    }
}

/// A name was read: asked for, answered, or named in a flow.
pub(super) fn observe_name(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    (name, sighted): (&str, Sighted),
    address: Option<IpAddr>,
    unknown: &mut Unknown,
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = unknown.look(o, outlook, name) {
        let target = address.filter(|address| outlook.is_outside(*address));
        let sighted = (INDICATOR_DOMAIN, sighted);
        emit.push(sighting(o, outlook, found, sighted, target, Some(name)));
    }
}

/// An HTTP request was read: is what it asks for an indicator? `host` is its Host field.
pub(super) fn observe_url(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    host: &str,
    target: &[u8],
    emit: &mut Vec<Signal>,
) {
    let set = outlook.indicators;
    if set.has(Kind::Url)
        && let Some(found) = set.by_url(host, target, o.flow.key.remote.port(), o.at)
        && is_spoken_of(o, outlook)
    {
        emit.push(of_remote(o, outlook, found, (INDICATOR_URL, Sighted::Url), Some(host)));
    }
}

/// An HTTP request was read: is its User-Agent an indicator?
pub(super) fn observe_user_agent(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    text: &[u8],
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = outlook.indicators.by_user_agent(text, o.at)
        && is_spoken_of(o, outlook)
    {
        emit.push(of_remote(o, outlook, found, (INDICATOR_USERAGENT, Sighted::UserAgent), None));
    }
}

/// A TLS client's hello was read: is its JA3 (an MD5) an indicator? Worth computing only if
/// [`super::indicator_set::IndicatorSet::has`] says so.
pub(super) fn observe_ja3(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    hash: &[u8; 16],
    name: Option<&str>,
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = outlook.indicators.by_ja3(hash, o.at)
        && is_spoken_of(o, outlook)
    {
        let sighted = (INDICATOR_JA3, Sighted::Fingerprint(Kind::Ja3));
        emit.push(of_remote(o, outlook, found, sighted, name));
    }
}

/// A TLS or QUIC client's hello was read: is its JA4, in lower case, an indicator?
pub(super) fn observe_ja4(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    text: &str,
    name: Option<&str>,
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = outlook.indicators.by_ja4(text, o.at)
        && is_spoken_of(o, outlook)
    {
        let sighted = (INDICATOR_JA4, Sighted::Fingerprint(Kind::Ja4));
        emit.push(of_remote(o, outlook, found, sighted, name));
    }
}

/// A TLS server's certificate was read: is one of its hashes (MD5, SHA-1, SHA-256 of the DER) an
/// indicator?
pub(super) fn observe_certificate(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    hashes: &[&[u8]],
    name: Option<&str>,
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = outlook.indicators.by_certificate(hashes, o.at)
        && is_spoken_of(o, outlook)
    {
        emit.push(of_remote(o, outlook, found, (INDICATOR_CERT, Sighted::Certificate), name));
    }
}

/// Whether a flow leaves the inside for somewhere that the operator did not declare good.
fn is_spoken_of(o: &Observation<'_>, outlook: &Outlook<'_>) -> bool {
    o.flow.route != Route::Inside
        && !outlook.indicators.allows_address(o.flow.key.remote.ip())
        && !o.flow.bound_name.is_some_and(|name| outlook.indicators.allows_name(name))
}

fn of_remote(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    found: IndicatorRef,
    sighted: (&'static str, Sighted),
    name: Option<&str>,
) -> Signal {
    let target = Some(o.flow.key.remote.ip()).filter(|address| outlook.is_outside(*address));
    sighting(o, outlook, found, sighted, target, name.or(o.flow.bound_name))
}

fn sighting(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    found: IndicatorRef,
    (detector, sighted): (&'static str, Sighted),
    target: Option<IpAddr>,
    name: Option<&str>,
) -> Signal {
    let described = outlook.indicators.describe(found);
    let weight = if described.kind.proves_alone() { Weight::Decides } else { Weight::Scores };
    let warrant = Warrant { detector, grade: described.grade, rule: Some(described.rule), weight };
    let signal = warrant.signal(o.at, o.frame, &o.flow, SignalKind::Sighting(sighted));
    Signal { target, name: name.map(str::to_owned), indicator: Some(described.record), ..signal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Approvals;
    use crate::detect::indicator_set::SetBuilder;
    use crate::flow::{FlowFacts, ObservationKind, Perimeter};
    use crate::rules::{LIST_DEFAULTS, RulesBuilder};
    use sekisho_schema::finding::Direction;
    use sekisho_schema::intel::{Facts, Observable};
    use sekisho_schema::policy::Mode;
    use sekisho_schema::{FlowKey, Grade, Policy, Timestamp, Transport};
    use std::collections::BTreeSet;

    const LIST: &str = "203.0.113.9:443\nhttp://c2.example/gate\nua:Bad/1.0\n\
        ja3:000102030405060708090a0b0c0d0e0f\nt13d1516h2_8daaf6152771_e5627efa2ab1\n\
        sha1:000102030405060708090a0b0c0d0e0f10111213\n";

    fn flow(at: Timestamp, route: Route) -> FlowFacts<'static> {
        let key = FlowKey {
            transport: Transport::Tcp,
            local: "10.0.0.5:40000".parse().unwrap(),
            remote: "203.0.113.9:443".parse().unwrap(),
        };
        FlowFacts {
            key,
            route,
            direction: Direction::Outbound,
            start_seen: true,
            first_at: at,
            last_at: at,
            bytes_out: 0,
            bytes_in: 0,
            overlap: false,
            bound_name: Some("bound.example"),
            registered: Some("bound.example"),
        }
    }

    fn told(allow: &[&str], route: Route) -> Vec<(&'static str, Grade, Weight)> {
        let mut builder = RulesBuilder::new();
        builder.add_list("list", LIST).unwrap();
        let mut set = builder.build().indicators;
        let allow: Vec<String> = allow.iter().map(|text| (*text).to_owned()).collect();
        assert!(set.set_allow(&allow).is_empty());
        let policy = Policy::built_in(Mode::Enforce);
        let outlook = Outlook {
            indicators: &set,
            policy: &policy,
            approvals: &Approvals::new(&policy),
            perimeter: &Perimeter::new(&policy.inside, &[]),
            own: &BTreeSet::new(),
            keeps_learning: false,
            enforces: true,
        };
        let at = Timestamp::EPOCH;
        let flow = flow(at, route);
        let o = Observation { at, frame: 1, flow, kind: ObservationKind::Started };
        let mut emit = Vec::new();
        let bytes: Vec<u8> = (0..20).collect();
        observe_endpoint(&o, &outlook, &mut Unknown::default(), &mut emit);
        observe_url(&o, &outlook, "c2.example", b"/gate?x=1", &mut emit);
        observe_user_agent(&o, &outlook, b"Bad/1.0", &mut emit);
        observe_ja3(&o, &outlook, bytes.first_chunk().unwrap(), None, &mut emit);
        observe_ja4(&o, &outlook, "t13d1516h2_8daaf6152771_e5627efa2ab1", None, &mut emit);
        observe_certificate(&o, &outlook, &[&[0; 32], &bytes], None, &mut emit);
        emit.into_iter().map(|signal| (signal.detector, signal.grade, signal.weight)).collect()
    }

    #[test]
    fn each_kind_has_its_detector_and_what_proves_nothing_alone_never_decides() {
        let decides = |detector| (detector, Grade::Malicious, Weight::Decides);
        let scores = |detector| (detector, Grade::Suspect, Weight::Scores);
        assert_eq!(
            told(&[], Route::Egress),
            [
                decides(INDICATOR_IP),
                decides(INDICATOR_URL),
                scores(INDICATOR_USERAGENT),
                scores(INDICATOR_JA3),
                scores(INDICATOR_JA4),
                decides(INDICATOR_CERT),
            ]
        );
    }

    #[test]
    fn a_name_that_was_no_indicator_is_one_once_it_says_so() {
        let policy = Policy::built_in(Mode::Enforce);
        let approvals = Approvals::new(&policy);
        let (perimeter, own) = (Perimeter::new(&policy.inside, &[]), BTreeSet::new());
        let later = Timestamp::from_nanos(2_000_000_000_000_000_000);
        let mut builder = SetBuilder::default();
        let origin = builder.origin("feed", 0);
        let in_time = Facts { valid_from: Some(later), ..Facts::of_line(1) };
        for (name, facts) in [("late.example", in_time), ("bad.example", Facts::of_line(2))] {
            let name = Observable::parse(name).unwrap();
            builder.put(&name, origin, &facts, LIST_DEFAULTS).unwrap();
        }
        let set = builder.build();
        let mut unknown = Unknown::default();
        let look = |unknown: &mut Unknown, at: Timestamp, name: &str| {
            let outlook = Outlook {
                enforces: true,
                indicators: &set,
                policy: &policy,
                approvals: &approvals,
                perimeter: &perimeter,
                own: &own,
                keeps_learning: false,
            };
            let flow = flow(at, Route::Egress);
            let o = Observation { at, frame: 1, flow, kind: ObservationKind::Started };
            unknown.look(&o, &outlook, name).is_some()
        };
        let long = format!("{}.bad.example", "a".repeat(60));
        for _ in 0..2 {
            assert!(!look(&mut unknown, Timestamp::EPOCH, "good.example"));
            assert!(look(&mut unknown, Timestamp::EPOCH, "www.bad.example"));
            assert!(look(&mut unknown, Timestamp::EPOCH, &long));
            assert!(!look(&mut unknown, Timestamp::EPOCH, "a.late.example"));
            assert!(!look(&mut unknown, Timestamp::EPOCH, ""));
        }
        assert!(look(&mut unknown, later, "a.late.example"));
        unknown.forget();
        assert!(look(&mut unknown, later, "www.bad.example"));
    }

    #[test]
    fn what_goes_to_an_allowed_address_or_name_or_stays_inside_is_silent() {
        assert_eq!(told(&["203.0.113.9"], Route::Egress), []);
        assert_eq!(told(&["bound.example"], Route::Egress).len(), 1);
        assert_eq!(told(&[], Route::Inside), []);
    }
}
