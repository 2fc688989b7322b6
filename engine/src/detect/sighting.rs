//! `indicator.ip` and `indicator.domain`: the belief that an indicator was seen.

use super::Outlook;
use super::indicator_set::IndicatorRef;
use super::signal::{Sighted, Signal, SignalKind, Warrant};
use crate::flow::{Observation, Route};
use std::net::IpAddr;

/// Stable identifier of the detector of addresses and endpoints.
pub(crate) const INDICATOR_IP: &str = "indicator.ip";
/// Stable identifier of the detector of names.
pub(crate) const INDICATOR_DOMAIN: &str = "indicator.domain";

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

fn sighting(
    o: &Observation<'_>,
    outlook: &Outlook<'_>,
    found: IndicatorRef,
    (detector, sighted): (&'static str, Sighted),
    target: Option<IpAddr>,
    name: Option<&str>,
) -> Signal {
    let described = outlook.indicators.describe(found);
    let warrant = Warrant { detector, grade: described.grade, rule: Some(described.rule) };
    let signal = warrant.signal(o.at, o.frame, &o.flow, SignalKind::Sighting(sighted));
    Signal { target, name: name.map(str::to_owned), indicator: Some(described.record), ..signal }
}
