//! Whose words they are: what an end was told before it said the same, and what it asks for others.
//!
//! A relay, a proxy, a resolver and a service that gives back what was stored all say what strangers
//! made them say. Such words must not cut the host that only carries them.

use super::Outlook;
use super::registry::Weight;
use super::signal::{Signal, SignalKind};
use crate::app::socks::{self, SocksReading};
use crate::flow::{Observation, ObservationKind, Route, Toward};
use crate::learn::Bounded;
use ahash::RandomState;
use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Grade, Span, Timestamp};
use std::net::IpAddr;

/// Recognised words that are remembered with who heard them.
const HEARD: usize = 4096;
/// Inside ends that ask for others.
const ASKERS: usize = 1024;
/// Flows through an inside proxy that are remembered.
const PROXIED: usize = 4096;
/// How long words are remembered: what was stored can be asked for again.
const MEMORY: Span = Span::from_hours(24);
/// Ports on which mail is taken in in clear at first (RFC 5321, RFC 6409).
const MAIL: [u16; 2] = [25, 587];
/// Ports on which mail and DNS questions are taken in under TLS (RFC 8314, RFC 7858).
const UNDER_TLS: [u16; 2] = [465, 853];
/// The port of DNS.
const DNS: u16 = 53;

/// By what words are known again.
type Token = [u8; 16];

/// When words were heard last, and whether who heard them had said them before.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Timestamp,
    said_first: bool,
}

/// Remembers who heard what, for every detector whose findings may cut.
#[derive(Debug)]
pub(super) struct Hearsay {
    heard: Bounded<(IpAddr, Token), Heard>,
    askers: Bounded<IpAddr, ()>,
    proxied: Bounded<FlowKey, Timestamp>,
    hasher: RandomState,
}

impl Hearsay {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            heard: Bounded::new(HEARD, seed),
            askers: Bounded::new(ASKERS, seed),
            proxied: Bounded::new(PROXIED, seed),
            hasher: RandomState::with_seeds(seed, seed.rotate_left(29), seed ^ 0x4EA2, !seed),
        }
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.heard.evicted() + self.askers.evicted() + self.proxied.evicted()
    }

    /// Takes note of what an observation says about its ends, whatever the detectors make of it.
    #[inline]
    pub(super) fn note(&mut self, o: &Observation<'_>) {
        let key = &o.flow.key;
        match o.kind {
            // Who answers questions asks them too, for those who asked.
            ObservationKind::Message { toward, message } if message.is_response() => {
                let answers = match toward {
                    Toward::Remote => key.local,
                    Toward::Local if o.flow.route == Route::Inside => key.remote,
                    Toward::Local => return,
                };
                if answers.port() == DNS {
                    self.asks_for_others(answers.ip());
                }
            }
            // A mail server asks for the names of whoever writes to it (RFC 7208 §4.4, RFC 5321 §5.1).
            ObservationKind::Head { toward: Toward::Remote, bytes }
                if o.flow.direction == Direction::Inbound
                    && MAIL.contains(&key.local.port())
                    && bytes.starts_with(b"220") =>
            {
                self.asks_for_others(key.local.ip());
            }
            ObservationKind::ServerHello(_)
                if o.flow.direction == Direction::Inbound
                    && UNDER_TLS.contains(&key.local.port()) =>
            {
                self.asks_for_others(key.local.ip());
            }
            ObservationKind::Request { toward: Toward::Remote, head }
                if o.flow.route == Route::Inside && head.is_connect() =>
            {
                self.goes_through_proxy(o);
            }
            ObservationKind::Head { toward: Toward::Remote, bytes: bytes @ [4 | 5, ..] }
                if o.flow.route == Route::Inside
                    && !matches!(socks::request(bytes), SocksReading::Other) =>
            {
                self.goes_through_proxy(o);
            }
            _ => {}
        }
    }

    fn asks_for_others(&mut self, end: IpAddr) {
        if self.askers.find(&end).is_none() {
            self.askers.upsert(&end, || (), |()| true);
        }
    }

    /// Whether an end, or this host by another of its addresses, asks for others.
    fn is_asker(&self, end: IpAddr, outlook: &Outlook<'_>) -> bool {
        let own = outlook.own.contains(&end.to_canonical());
        let mut others = outlook.own.iter().filter(|other| own && !other.is_loopback());
        self.askers.find(&end).is_some() || others.any(|other| self.askers.find(other).is_some())
    }

    fn goes_through_proxy(&mut self, o: &Observation<'_>) {
        if let Some(first_at) = self.proxied.upsert(&o.flow.key, || o.flow.first_at, |_| true) {
            *first_at = o.flow.first_at;
        }
    }

    fn is_proxied(&self, o: &Observation<'_>) -> bool {
        self.proxied.find(&o.flow.key) == Some(&o.flow.first_at)
    }

    /// Weighs a signal: what its speaker may only have passed on is suspect at most.
    pub(super) fn weigh(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        signal: &mut Signal,
    ) {
        // What is merely unusual is no protocol's word.
        if signal.detector.starts_with("protocol.") {
            return;
        }
        let key = &o.flow.key;
        let toward = way(&o.kind);
        let (speaker, hearer) = match toward {
            Some(Toward::Local) => (key.remote.ip(), key.local.ip()),
            Some(Toward::Remote) | None => (key.local.ip(), key.remote.ip()),
        };
        let token = toward.and_then(|_| self.token(o, signal));
        let is_inside = o.flow.route == Route::Inside;
        let mut relayed = false;
        if let Some(token) = token {
            if toward == Some(Toward::Remote) || is_inside {
                relayed = self.says(speaker, token, o.at);
            }
            if toward == Some(Toward::Local) || is_inside {
                self.hears(hearer, token, o.at);
            }
        }
        let doubt = if relayed {
            Some("the same bytes were said to it before, so that it may only pass them on")
        } else {
            self.doubt(o, outlook, speaker, toward)
        };
        if doubt.is_some() && signal.weight == Weight::Decides && signal.grade > Grade::Suspect {
            signal.grade = Grade::Suspect;
            signal.doubt = doubt;
        }
    }

    /// Takes note of words; returns whether who says them heard them before.
    fn says(&mut self, speaker: IpAddr, token: Token, at: Timestamp) -> bool {
        let fresh = || Heard { at, said_first: true };
        let Some(heard) = self.heard.upsert(&(speaker, token), fresh, |_| true) else {
            return false;
        };
        if heard.said_first || at.since(heard.at) > MEMORY {
            *heard = fresh();
        }
        !heard.said_first
    }

    fn hears(&mut self, hearer: IpAddr, token: Token, at: Timestamp) {
        let fresh = || Heard { at, said_first: false };
        let Some(heard) = self.heard.upsert(&(hearer, token), fresh, |_| true) else { return };
        if !heard.said_first || at.since(heard.at) > MEMORY {
            *heard = fresh();
        }
    }

    fn doubt(
        &self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        speaker: IpAddr,
        toward: Option<Toward>,
    ) -> Option<&'static str> {
        let is_message = matches!(o.kind, ObservationKind::Message { .. });
        if is_message && self.is_asker(speaker, outlook) {
            return Some("it takes mail or answers DNS questions, and so asks for names of others");
        }
        if o.flow.route != Route::Inside {
            return None;
        }
        let is_own = outlook.own.is_empty() || outlook.own.contains(&speaker.to_canonical());
        if toward.is_none() || !is_own {
            return Some("another end of the inside said it, whose address can be forged too");
        }
        match o.kind {
            // A web server in front hands on what strangers ask, also what came to it under TLS.
            ObservationKind::Request { head, .. }
                if !head.target.starts_with(b"http") && !self.is_proxied(o) =>
            {
                Some("a server hands what strangers ask on to the servers behind it")
            }
            ObservationKind::Response { .. } | ObservationKind::Echo { request: false, .. } => {
                Some("an answer can be what a stranger stored or sent before")
            }
            _ => None,
        }
    }

    /// What of the words is the same when they are passed on: messages have a key or sizes of their
    /// own among their first bytes, requests are known by their body or by the fields recognised.
    fn token(&self, o: &Observation<'_>, signal: &Signal) -> Option<Token> {
        if let SignalKind::Plugx { header, .. } = signal.kind {
            return Some(header);
        }
        match o.kind {
            ObservationKind::Head { bytes, .. } | ObservationKind::Echo { payload: bytes, .. } => {
                Some(beginning(bytes))
            }
            ObservationKind::Response { head, .. } => Some(beginning(head.body)),
            ObservationKind::Request { head, .. } if !head.body.is_empty() => {
                Some(beginning(head.body))
            }
            ObservationKind::Request { head, .. } => {
                let SignalKind::Pattern(pattern) = &signal.kind else { return None };
                let fact = |name| pattern.evidence.iter().find_map(|piece| piece.facts.get(name));
                let fields = fact("cookie").or_else(|| fact("values"))?.as_str()?;
                let hash = self.hasher.hash_one((head.target, fields));
                Some(beginning(&hash.to_le_bytes()))
            }
            _ => None,
        }
    }
}

/// The way that what was observed travelled; `None` where it is both ends' doing.
const fn way(kind: &ObservationKind<'_>) -> Option<Toward> {
    match kind {
        ObservationKind::Echo { toward, .. }
        | ObservationKind::Head { toward, .. }
        | ObservationKind::Message { toward, .. }
        | ObservationKind::Request { toward, .. }
        | ObservationKind::Response { toward, .. }
        | ObservationKind::Ssh { toward, .. } => Some(*toward),
        ObservationKind::Answer { .. }
        | ObservationKind::Burst
        | ObservationKind::Certificate(_)
        | ObservationKind::Ended
        | ObservationKind::Hello(_)
        | ObservationKind::Name { .. }
        | ObservationKind::Query { .. }
        | ObservationKind::ServerHello(_)
        | ObservationKind::Started
        | ObservationKind::Volume { .. } => None,
    }
}

fn beginning(bytes: &[u8]) -> Token {
    let mut token = [0; 16];
    token.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    token
}
