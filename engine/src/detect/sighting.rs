//! `indicator.*`: the belief that an indicator was seen.
//!
//! What the operator allows is silent here whatever is looked for: an address or name that is
//! allowed has no bad URL, certificate or fingerprint.

use super::Outlook;
use super::indicator_set::{IndicatorRef, Kind};
use super::registry::Weight;
use super::signal::{Sighted, Signal, SignalKind, Warrant};
use crate::flow::{Observation, Route};
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

/// A flow began or was used again: is its other end, or the name that was last bound to it, an indicator?
pub(super) fn observe_endpoint(o: &Observation<'_>, outlook: &Outlook<'_>, emit: &mut Vec<Signal>) {
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
        && let Some(found) = set.by_name(name, o.at)
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
    name: &str,
    sighted: Sighted,
    address: Option<IpAddr>,
    emit: &mut Vec<Signal>,
) {
    if let Some(found) = outlook.indicators.by_name(name, o.at) {
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
