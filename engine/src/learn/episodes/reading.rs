//! What is read in flows: names, oddities, echoes, questions, starts.

use super::key::{AskedAt, At, hash_ends};
use super::naming::{asked_key, host_key, named, network};
use super::telling::{self, Told, What};
use super::{DNS, Entered, Episodes, HTTPS, ODD};
use crate::app;
use crate::flow::{FlowFacts, Observation, ObservationKind, Route, Toward};
use crate::learn::dns::NameInformation;
use crate::learn::icmp::EchoHour;
use crate::learn::oddity::is_fully_encrypted;
use sekisho_schema::episode::{Channel, EpisodeKey, Oddity, Service};
use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Transport};
use std::net::IpAddr;

/// First bytes that are judged: heads that grow are told again.
const JUDGED: usize = 256;

impl Episodes {
    /// Takes what was read in a flow that concerns neither its rhythm nor its volume.
    pub(crate) fn note(&mut self, o: &Observation<'_>, host: impl FnOnce() -> Option<IpAddr>) {
        let flow = &o.flow;
        let is_ours = flow.route == Route::Egress && flow.direction == Direction::Outbound;
        if !is_ours {
            return;
        }
        match o.kind {
            ObservationKind::Certificate(certificate) => {
                let issuer = certificate.issuer();
                if issuer.is_some() && issuer == certificate.subject() {
                    self.find_odd(&flow.key, Oddity::SelfSigned);
                }
            }
            ObservationKind::Echo { toward: Toward::Remote, payload, .. } => {
                self.echo(o, payload, host());
            }
            ObservationKind::Ended => {
                if flow.bytes_out == 0 && flow.key.transport == Transport::Tcp {
                    self.call(o, host);
                }
                self.odd.remove(&flow.key);
                self.asked.remove(&flow.key);
                self.waiting = self.waiting.filter(|(waiting, _)| *waiting != flow.key);
            }
            ObservationKind::Head { toward: Toward::Remote, bytes } => self.head(flow, bytes),
            ObservationKind::Hello(hello) => {
                self.tls = self.tls.filter(|tls| *tls != flow.key);
                if hello.sni().is_none() {
                    self.find_odd(&flow.key, Oddity::NoServerName);
                }
            }
            ObservationKind::Name { name, .. } => {
                self.tls = self.tls.filter(|tls| *tls != flow.key);
                if flow.bound_name.is_none() {
                    self.bind(flow, app::registered_name(name));
                }
            }
            ObservationKind::Request { toward: Toward::Remote, head } if !head.is_connect() => {
                let host = head.field("host").and_then(|host| std::str::from_utf8(host).ok());
                if host.is_none_or(is_bare_address) {
                    self.find_odd(&flow.key, Oddity::HttpToAddress);
                }
            }
            ObservationKind::Started => {
                // A flow outlives the binding of its name.
                if let Some(name) = flow.registered {
                    self.bind(flow, name);
                }
                let id = self.hosts.id(host());
                let Some(host) = self.hosts.of(id) else { return };
                let most = self.settings.fan_out;
                if let Some(distinct) = host.fan.contact(o.at, flow.key.remote.ip())
                    && distinct >= most * 4_f64.powi(i32::from(host.fan.told))
                {
                    host.fan.told += 1;
                    let key = host_key(host.workload());
                    self.told.push(Told::of_host(key, o.at, What::FanOut { distinct }));
                }
            }
            _ => {}
        }
    }

    /// Judges a client's first bytes.
    fn head(&mut self, flow: &FlowFacts<'_>, bytes: &[u8]) {
        let key = &flow.key;
        if key.transport != Transport::Tcp || !flow.start_seen || key.remote.port() == DNS {
            return;
        }
        let is_tls = matches!(bytes, [0x16, 3, ..]);
        if is_tls {
            self.tls = Some(*key);
            return;
        }
        if key.remote.port() == HTTPS {
            self.find_odd(key, Oddity::NotTls443);
        }
        if is_fully_encrypted(bytes.get(..JUDGED).unwrap_or(bytes)) {
            self.find_odd(key, Oddity::EncryptedFirstPayload);
        }
    }

    /// Keeps an oddity for the flow's next burst or volume.
    fn find_odd(&mut self, flow: &FlowKey, oddity: Oddity) {
        if self.odd.len() >= ODD && !self.odd.contains_key(flow) {
            self.odd.pop_first();
            self.odd_evicted = self.odd_evicted.saturating_add(1);
        }
        let known = self.odd.entry(*flow).or_default();
        *known = known.with(oddity.into());
    }

    /// Binds the registered name that DNS gave, or for want of one that the client said itself, for as long
    /// as there is no other.
    fn bind(&mut self, flow: &FlowFacts<'_>, name: &str) {
        let ends = (flow.key.local.ip(), flow.key.remote.ip());
        let hash = hash_ends(self.bound.hasher(), &ends);
        let make = || (ends, name.into());
        if let Some(entered) = self.bound.enter(hash, |known| *known == ends, make, |_| true)
            && !entered.value.is(name)
        {
            *entered.value = name.into();
        }
    }

    /// Takes a question's name.
    pub(crate) fn query(&mut self, o: &Observation<'_>, name: &str, host: Option<IpAddr>) {
        // Names of addresses are made of addresses, which scanners ask for in numbers.
        if name.ends_with(".arpa") {
            return;
        }
        let parts = app::split(name);
        let (asked, below) = if parts.is_known {
            (AskedAt::Domain(parts.registered), parts.below)
        } else {
            (AskedAt::Resolver(o.flow.key.remote.ip()), name)
        };
        if below.is_empty() {
            return;
        }
        let host = self.hosts.id(host);
        let hash = self.names.hasher().hash_one((host, asked));
        let half = self.unlocked.least(Channel::Dns).min(self.settings.dns_bytes) / 2.0;
        let entered = self.names.enter(
            hash,
            |known| known.0 == host && known.1.is(asked),
            || ((host, asked.own()), NameInformation::default()),
            |known| known.score() < half,
        );
        let Some(entered) = entered else { return };
        let before = entered.value.score();
        entered.value.ask(o.at, below);
        let after = entered.value.score();
        let tier = self.unlocked.tier(Channel::Dns, after);
        // Told when it passes the threshold, and each time that it is four times what it was then.
        let is_due = crosses(before, after, self.settings.dns_bytes);
        if (is_due || tier.is_some())
            && after > before
            && let Some(score) = telling::dns(entered.value)
        {
            let key = asked_key(&self.hosts, host, asked);
            let told = Told::of_host(key, o.at, What::Names);
            self.told.push(Told { score: Some(score), tier, ..told });
        }
    }

    fn echo(&mut self, o: &Observation<'_>, payload: &[u8], host: Option<IpAddr>) {
        let host = self.hosts.id(host);
        let peer = (host, o.flow.key.remote.ip());
        let hash = self.echoes.hasher().hash_one(peer);
        let make = || (peer, EchoHour::default());
        let most = self.settings.icmp_bytes;
        let may_go = |echoes: &EchoHour| echoes.within(o.at) < most.div_ceil(2);
        let entered = self.echoes.enter(hash, |known| *known == peer, make, may_go);
        let Some(Entered { value: echoes, .. }) = entered else { return };
        let bytes = echoes.echo(o.at, payload);
        if bytes >= most.saturating_mul(1 << (2 * u32::from(echoes.told)).min(40)) {
            echoes.told = echoes.told.saturating_add(1);
            let largest = echoes.largest();
            let at = At { place: network(peer.1), host, service: None };
            let key = named(&self.hosts, &self.workloads, at, 0);
            let service = Service::new(o.flow.key.transport, 0);
            let key = EpisodeKey { service, ..key };
            self.told.push(Told::of_host(key, o.at, What::Echoes { bytes, largest }));
        }
    }
}

/// Whether a number passes a threshold, or four, sixteen, ... times it.
fn crosses(before: f64, after: f64, threshold: f64) -> bool {
    let steps =
        |value: f64| if value < threshold { -1.0 } else { (value / threshold).log(4.0).floor() };
    steps(after) > steps(before)
}

/// Whether what a Host field says is an address, with or without a port.
fn is_bare_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
        || host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
        || host.is_empty()
}
