//! A connection whose segments are shown in any order, and a record of all that was told of it.

use super::*;

/// First sequence number of what the client and the server send.
pub(super) const CLIENT: u32 = 1001;
pub(super) const SERVER: u32 = 5001;

pub(super) struct Tape {
    pub(super) tracker: Tracker,
    /// Every head told, with its way.
    pub(super) heads: Vec<(Toward, Vec<u8>)>,
    /// Every head told of which bytes before are missing.
    pub(super) pieces: Vec<Vec<u8>>,
    opened: bool,
    /// Everything told, in words.
    pub(super) told: Vec<String>,
    /// What the observer answers to a head, and to a request or response.
    pub(super) head_appetite: Appetite,
    pub(super) body_appetite: Appetite,
    pub(super) overlap: bool,
    pub(super) frames: u64,
    pub(super) first: [u32; 2],
    pub(super) port: u16,
}

impl Tape {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        let mut tracker = Tracker::new(&limits, 0);
        tracker.set_perimeter(perimeter());
        Self {
            tracker,
            heads: Vec::new(),
            pieces: Vec::new(),
            opened: false,
            told: Vec::new(),
            head_appetite: Appetite::Enough,
            body_appetite: Appetite::Enough,
            overlap: false,
            frames: 0,
            first: [CLIENT, SERVER],
            port: 443,
        }
    }

    /// A connection whose client has said SYN.
    pub(super) fn open() -> Self {
        let mut tape = Self::new();
        tape.syn();
        tape
    }

    pub(super) fn syn(&mut self) {
        let seq = self.first[0].wrapping_sub(1);
        self.segment(Toward::Remote, SYN, seq, 0, &[]);
        self.opened = true;
    }

    pub(super) fn syn_ack(&mut self) {
        let (seq, ack) = (self.first[1].wrapping_sub(1), self.first[0]);
        self.segment(Toward::Local, SYN | ACK, seq, ack, &[]);
    }

    /// What lies `at` bytes from the beginning of a direction.
    pub(super) fn say(&mut self, toward: Toward, at: u32, payload: &[u8]) {
        let (from, other) = match toward {
            Toward::Remote => (self.first[0], self.first[1]),
            Toward::Local => (self.first[1], self.first[0]),
        };
        self.segment(toward, ACK, from.wrapping_add(at), other, payload);
    }

    pub(super) fn client(&mut self, at: usize, payload: &[u8]) {
        self.say(Toward::Remote, at as u32, payload);
    }

    pub(super) fn server(&mut self, at: usize, payload: &[u8]) {
        self.say(Toward::Local, at as u32, payload);
    }

    pub(super) fn segment(
        &mut self,
        toward: Toward,
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) {
        let (src, sport, dst, dport) = match toward {
            Toward::Remote => (LOCAL, 40_000, REMOTE, self.port),
            Toward::Local => (REMOTE, self.port, LOCAL, 40_000),
        };
        let mut segment = tcp_segment(sport, dport, flags, seq, payload);
        segment[8..12].copy_from_slice(&ack.to_be_bytes());
        self.packet(&ip(src, dst, 6, &segment));
    }

    pub(super) fn packet(&mut self, bytes: &[u8]) {
        self.frames += 1;
        let at_ns = START + self.frames as i64 * 1000;
        let frame = Frame { at_ns, link: LinkType::RawIp, wire_len: bytes.len() as u32, bytes };
        let Self {
            pieces,
            opened,
            tracker,
            heads,
            told,
            overlap,
            head_appetite,
            body_appetite,
            ..
        } = self;
        tracker.observe(self.frames, &frame, &mut |o| {
            if !is_only_received(o) {
                told.push(describe(o));
            }
            *overlap |= o.flow.overlap;
            match o.kind {
                ObservationKind::Head { bytes, .. } if *opened && !o.flow.start_seen => {
                    pieces.push(bytes.to_vec());
                    *head_appetite
                }
                ObservationKind::Head { toward, bytes } => {
                    heads.push((toward, bytes.to_vec()));
                    *head_appetite
                }
                ObservationKind::Request { .. } | ObservationKind::Response { .. } => {
                    *body_appetite
                }
                _ => Appetite::Enough,
            }
        });
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.told.iter().filter(|told| told.starts_with(what)).count()
    }

    /// What was told that begins so, in order.
    pub(super) fn only(&self, what: &[&str]) -> Vec<&str> {
        let wanted = |told: &&String| what.iter().any(|what| told.starts_with(what));
        self.told.iter().filter(wanted).map(String::as_str).collect()
    }
}
