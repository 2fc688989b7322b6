//! Addresses of approved names, for an allowance that the kernel keeps: it knows addresses alone.

use crate::detect::Outlook;
use crate::flow::Observation;
use sekisho_schema::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An address that no answer gave for so long is no longer taken for the name's: the allowance is of seven days.
const LONGEST: Span = Span::from_hours(7 * 24);

impl Outlook<'_> {
    /// Whether an answer makes its address one of an approved name, for an allowance that the kernel keeps.
    /// Where the policy names resolvers only theirs count, and never an address that is known to be hostile.
    pub(crate) fn approves(&self, o: &Observation<'_>, name: &str, address: IpAddr) -> bool {
        let resolvers = &self.policy.names.resolvers;
        self.policy.allowance.in_kernel
            && self.approvals.cover(address, Some(name))
            && (resolvers.is_empty() || resolvers.contains(&o.flow.key.remote.ip().to_canonical()))
            && !self.perimeter.is_inside(address)
            && self.indicators.by_address(address, o.at).is_none()
    }
}

/// The addresses that answers gave for approved names.
#[derive(Debug, Default)]
pub(crate) struct Approved {
    addresses: BTreeMap<IpAddr, (Box<str>, Timestamp)>,
    changed: bool,
    evicted: u64,
}

impl Approved {
    /// Takes in an answer for an approved name; beyond `most` the address longest not answered gives way.
    pub(crate) fn note(&mut self, name: &str, address: IpAddr, now: Timestamp, most: usize) {
        let address = address.to_canonical();
        if let Some((known, at)) = self.addresses.get_mut(&address) {
            *at = now;
            if **known != *name {
                *known = name.into();
            }
            return;
        }
        if self.addresses.len() >= most.max(1) {
            let oldest = self.addresses.iter().min_by_key(|(_, (_, at))| *at).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                self.addresses.remove(&oldest);
                self.evicted += 1;
            }
        }
        self.addresses.insert(address, (name.into(), now));
        self.changed = true;
    }

    /// Keeps what is still approved and was answered lately.
    pub(crate) fn keep(&mut self, now: Timestamp, is_approved: impl Fn(IpAddr, &str) -> bool) {
        let before = self.addresses.len();
        self.addresses
            .retain(|address, (name, at)| now.since(*at) < LONGEST && is_approved(*address, name));
        self.changed |= self.addresses.len() != before;
    }

    /// Moves every time with a clock that was set.
    pub(crate) fn shift(&mut self, step: Span) {
        for (_, at) in self.addresses.values_mut() {
            *at = at.after(step);
        }
    }

    /// The whole set, when it changed since the last call.
    pub(crate) fn take_change(&mut self) -> Option<BTreeSet<IpAddr>> {
        std::mem::take(&mut self.changed).then(|| self.all())
    }

    /// The whole set.
    pub(crate) fn all(&self) -> BTreeSet<IpAddr> {
        self.addresses.keys().copied().collect()
    }

    pub(crate) const fn has_changed(&self) -> bool {
        self.changed
    }

    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }
}
