//! The wire detectors: what each reads, and which of them is asked about a fact.
//!
//! A wire detector recognises one protocol by what travels in clear. It is asked only about the
//! facts that it reads, so that a flow whose protocol is known costs nothing for the others.

use super::hearsay::Hearsay;
use super::plugx::PlugxConstants;
use super::signal::{Pattern, Signal, SignalKind, Warrant};
use super::{Outlook, SettingsFault};
use crate::flow::{Appetite, FlowFacts, Observation, ObservationKind, Route, Toward};
use crate::learn::Bounded;
use sekisho_schema::pack::DetectorEntry;
use sekisho_schema::{FlowKey, Grade};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Flows whose findings are remembered: far more than one host's implants keep open.
const FOUND: usize = 4096;
/// Signals remembered of one flow.
const FOUND_OF_FLOW: usize = 4;

/// Facts that a wire detector reads; one bit each.
pub(super) mod reads {
    /// First bytes of a stream that is neither TLS nor HTTP nor SSH.
    pub(in super::super) const STREAM: u16 = 1;
    /// First bytes of any stream.
    pub(in super::super) const ANY_STREAM: u16 = 1 << 1;
    /// First datagrams of a UDP flow that are neither DNS nor QUIC.
    pub(in super::super) const DATAGRAM: u16 = 1 << 2;
    /// The first packet of a flow.
    pub(in super::super) const STARTED: u16 = 1 << 3;
    /// HTTP requests.
    pub(in super::super) const REQUEST: u16 = 1 << 4;
    /// HTTP responses.
    pub(in super::super) const RESPONSE: u16 = 1 << 5;
    /// Whole DNS messages.
    pub(in super::super) const MESSAGE: u16 = 1 << 6;
    /// TLS client hellos.
    pub(in super::super) const HELLO: u16 = 1 << 7;
    /// TLS server hellos and certificates.
    pub(in super::super) const SERVER: u16 = 1 << 8;
    /// SSH identifications and offers.
    pub(in super::super) const SSH: u16 = 1 << 9;
    /// ICMP echoes.
    pub(in super::super) const ECHO: u16 = 1 << 10;
    /// First bytes of packets that are neither TCP, UDP nor ICMP.
    pub(in super::super) const OTHER: u16 = 1 << 11;
    /// How many bits there are.
    pub(super) const COUNT: usize = 12;
}

/// Recognises one protocol or habit on the wire.
///
/// A detector keeps no more than a bounded table of its own; it allocates when it has matched, not
/// per packet.
pub(super) trait WireDetector: Debug + Send {
    /// Takes a fact that it reads; what it believes goes to `emit`.
    fn observe(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite;

    /// Keys that its tables had to let go.
    fn evicted(&self) -> u64 {
        0
    }
}

/// Whether findings of a detector may cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// One finding suffices for what the policy says.
    Decides,
    /// As [`Weight::Decides`], but no higher than this step of the ladder: a certificate reaches no further.
    UpTo(u8),
    /// Shared with honest software: counts, is told, and never cuts by itself whatever a policy says.
    Scores,
}

/// What a detector is made of.
pub(super) struct Setup<'a> {
    /// The entry of the pack that switches it on.
    pub(super) entry: &'a DetectorEntry,
    /// What it lends to its signals.
    pub(super) warrant: Warrant,
    /// What the packs say of PlugX messages, for the detectors that find one inside something else.
    pub(super) plugx: &'a PlugxConstants,
    /// Seed of the hashes of its tables.
    pub(super) seed: u64,
}

impl Setup<'_> {
    /// The constants of the entry; without settings the detector's own.
    pub(super) fn settings<T: DeserializeOwned + Default>(&self) -> Result<T, String> {
        if self.entry.settings.is_empty() { Ok(T::default()) } else { self.entry.settings_as() }
    }
}

/// Makes a detector, or says why its settings can't be used.
pub(super) type Build = fn(&Setup<'_>) -> Result<Box<dyn WireDetector>, String>;

/// One line of the list of wire detectors.
pub(super) struct Registration {
    /// Stable detector identifier.
    pub(super) id: &'static str,
    /// Bits of [`reads`].
    pub(super) reads: u16,
    /// Whether its findings may cut.
    pub(super) weight: Weight,
    /// Makes it.
    pub(super) build: Build,
}

/// Every wire detector that the packs switched on.
#[derive(Debug)]
pub(super) struct Registry {
    detectors: Vec<Box<dyn WireDetector>>,
    /// For each bit of [`reads`] the detectors that read it.
    readers: [Vec<usize>; reads::COUNT],
    found: Bounded<FlowKey, Vec<Signal>>,
}

impl Registry {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            detectors: Vec::new(),
            readers: Default::default(),
            found: Bounded::new(FOUND, seed),
        }
    }

    /// Makes the detectors that the rules switch on; what was found stays.
    pub(super) fn configure(
        &mut self,
        rules: &super::RuleOf<'_>,
        plugx: &PlugxConstants,
        seed: u64,
        faults: &mut Vec<SettingsFault>,
    ) {
        self.detectors.clear();
        self.readers = Default::default();
        let lists =
            [super::plugx_wire::DETECTORS, super::c2::DETECTORS, super::protocol::DETECTORS];
        for registration in lists.into_iter().flatten() {
            let Some((entry, rule)) = rules(registration.id) else { continue };
            let warrant = Warrant {
                detector: registration.id,
                grade: entry.grade,
                rule: Some(rule.to_owned()),
                weight: registration.weight,
            };
            let setup = Setup { entry, warrant, plugx, seed };
            let made = (registration.build)(&setup).or_else(|why| {
                faults.push(SettingsFault { detector: registration.id, why });
                let entry = DetectorEntry { settings: Default::default(), ..entry.clone() };
                let warrant = setup.warrant.clone();
                (registration.build)(&Setup { entry: &entry, warrant, plugx, seed })
            });
            let Ok(made) = made else { continue };
            for (bit, readers) in self.readers.iter_mut().enumerate() {
                if registration.reads >> bit & 1 == 1 {
                    readers.push(self.detectors.len());
                }
            }
            self.detectors.push(made);
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.detectors.iter().map(|detector| detector.evicted()).sum()
    }

    /// Shows a fact to who reads it.
    pub(super) fn observe(
        &mut self,
        o: &Observation<'_>,
        outlook: &Outlook<'_>,
        hearsay: &mut Hearsay,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let mut appetite = Appetite::Enough;
        let before = emit.len();
        for bit in facts(o) {
            let Self { detectors, readers, .. } = self;
            for at in readers.get(bit.trailing_zeros() as usize).into_iter().flatten() {
                if let Some(detector) = detectors.get_mut(*at)
                    && detector.observe(o, outlook, emit) == Appetite::More
                {
                    appetite = Appetite::More;
                }
            }
        }
        for signal in emit.iter_mut().skip(before) {
            hearsay.weigh(o, outlook, signal);
            self.remember(signal);
        }
        appetite
    }

    /// Keeps what may cut; what only scores is said once.
    fn remember(&mut self, signal: &Signal) {
        if signal.weight == Weight::Scores {
            return;
        }
        let Some(found) = self.found.upsert(&signal.flow, Vec::new, |_| true) else { return };
        let same = found.iter().position(|other| other.detector == signal.detector);
        match same {
            Some(at) => {
                if let Some(other) = found.get_mut(at).filter(|other| other.grade <= signal.grade) {
                    *other = signal.clone();
                }
            }
            None if found.len() < FOUND_OF_FLOW => found.push(signal.clone()),
            None => {}
        }
    }

    /// Says again what a flow is, when it goes on: the policy may be another by now, and a lease can
    /// end before its flow.
    pub(super) fn observe_more(&self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        // What is told at a flow's end is no packet.
        if o.at != o.flow.last_at || self.found.is_empty() {
            return;
        }
        for signal in self.found.find(&o.flow.key).into_iter().flatten() {
            emit.push(Signal { at: o.at, frame: o.frame, ..signal.clone() });
        }
    }

    /// A flow began or ended: what was found on its ports before is over.
    pub(super) fn forget(&mut self, flow: &FlowFacts<'_>) {
        if !self.found.is_empty()
            && self.found.find(&flow.key).is_some()
            && let Some(found) = self.found.upsert(&flow.key, Vec::new, |_| true)
        {
            found.clear();
        }
    }
}

/// The bits of [`reads`] that an observation stands for.
fn facts(o: &Observation<'_>) -> impl Iterator<Item = u16> {
    use sekisho_schema::Transport;
    let (first, second) = match o.kind {
        ObservationKind::Head { bytes, .. } => match o.flow.key.transport {
            Transport::Tcp if is_known_stream(bytes) => (reads::ANY_STREAM, 0),
            Transport::Tcp => (reads::ANY_STREAM, reads::STREAM),
            Transport::Udp if is_known_datagram(o, bytes) => (0, 0),
            Transport::Udp => (reads::DATAGRAM, 0),
            Transport::Icmp | Transport::Icmpv6 => (0, 0),
            Transport::Other(_) => (reads::OTHER, 0),
        },
        ObservationKind::Started => (reads::STARTED, 0),
        ObservationKind::Request { .. } => (reads::REQUEST, 0),
        ObservationKind::Response { .. } => (reads::RESPONSE, 0),
        ObservationKind::Message { .. } => (reads::MESSAGE, 0),
        ObservationKind::Hello(_) => (reads::HELLO, 0),
        ObservationKind::ServerHello(_) | ObservationKind::Certificate(_) => (reads::SERVER, 0),
        ObservationKind::Ssh { .. } => (reads::SSH, 0),
        ObservationKind::Echo { .. } => (reads::ECHO, 0),
        ObservationKind::Answer { .. }
        | ObservationKind::Burst
        | ObservationKind::Ended
        | ObservationKind::Name { .. }
        | ObservationKind::Query { .. }
        | ObservationKind::Volume { .. } => (0, 0),
    };
    [first, second].into_iter().filter(|bit| *bit != 0)
}

/// Whether the first bytes of a stream are those of TLS, HTTP/1 or SSH, which have readers of their own.
pub(super) fn is_known_stream(bytes: &[u8]) -> bool {
    match bytes {
        [0x16, 0x03, 0..=4, ..] => true,
        [b'S', b'S', b'H', b'-', ..] | [b'H', b'T', b'T', b'P', b'/', ..] => true,
        [first, ..] if first.is_ascii_uppercase() => {
            let word = bytes.iter().take(12).take_while(|byte| byte.is_ascii_uppercase()).count();
            (3..=10).contains(&word)
                && bytes.get(word) == Some(&b' ')
                && bytes.get(word + 1).is_some_and(u8::is_ascii_graphic)
        }
        _ => false,
    }
}

/// Whether a datagram is DNS by its port or a QUIC long header of a known version (RFC 9000 §17.2).
fn is_known_datagram(o: &Observation<'_>, bytes: &[u8]) -> bool {
    const DNS: u16 = 53;
    let key = &o.flow.key;
    match bytes {
        [first, 0, 0, 0, 1, ..] | [first, 0x6B, 0x33, 0x43, 0xCF, ..] if first & 0xC0 == 0xC0 => {
            true
        }
        _ => {
            // An implant's datagrams to port 53 must not pass for DNS: over UDP no operation code
            // above 5 is assigned (RFC 8490 has 6 for streams alone), and types end at 260 or
            // begin at 32768 (IANA DNS parameters).
            (key.remote.port() == DNS || key.local.port() == DNS)
                && crate::app::dns::DnsMessage::parse(bytes).is_some_and(|message| {
                    message.opcode() <= 5
                        && message.question_type().is_some_and(
                            |qtype| matches!(qtype, 1..=300 | 32_768..=32_769 | 65_280..=65_534),
                        )
                })
        }
    }
}

impl Warrant {
    /// The signal of a recognised pattern.
    ///
    /// `proves` says whether the inside end itself said what was recognised. Anyone can send such
    /// bytes to an open port, or answer a client with them, and a stranger must not cut a host:
    /// without that the grade is at most suspect.
    pub(super) fn pattern(&self, o: &Observation<'_>, proves: bool, pattern: Pattern) -> Signal {
        let mut signal =
            self.signal(o.at, o.frame, &o.flow, SignalKind::Pattern(Box::new(pattern)));
        if !proves && o.flow.route != Route::Inside {
            signal.grade = signal.grade.min(Grade::Suspect);
        }
        // Between two hosts of the inside there is no outside destination to cut.
        let target = signal.target.filter(|_| o.flow.route != Route::Inside);
        Signal { target, ..signal }
    }
}

/// Whether what travels this way was said by the inside end.
pub(super) const fn is_own_word(toward: Toward) -> bool {
    matches!(toward, Toward::Remote)
}
