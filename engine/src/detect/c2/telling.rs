//! Telling what was recognised: once for each flow and direction, with bounded proof.

use crate::detect::registry::{Weight, is_own_word};
use crate::detect::signal::{Pattern, Signal, Warrant};
use crate::flow::{FlowFacts, Observation, Toward};
use crate::learn::Bounded;
use crate::limits::SESSIONS;
use sekisho_schema::{Evidence, FlowKey, Grade, Timestamp};

/// Payload bytes that a finding quotes.
const QUOTED: usize = 64;
/// Bytes by which an echo is known: messages have random bytes or sizes of their own within them.
const ECHOED: usize = 16;

/// What a detector remembers of flows, within [`SESSIONS`]; a flow that begins anew on the ports of
/// an old one has no memory.
#[derive(Debug)]
pub(in crate::detect) struct Sessions<T> {
    table: Bounded<FlowKey, (Timestamp, T)>,
}

impl<T: Default> Sessions<T> {
    pub(in crate::detect) fn new(seed: u64) -> Self {
        Self { table: Bounded::new(SESSIONS, seed) }
    }

    pub(in crate::detect) fn find(&self, flow: &FlowFacts<'_>) -> Option<&T> {
        if self.table.is_empty() {
            return None;
        }
        self.table.find(&flow.key).filter(|(at, _)| *at == flow.first_at).map(|(_, memory)| memory)
    }

    /// The memory of a flow, made if there is none.
    pub(in crate::detect) fn of(&mut self, flow: &FlowFacts<'_>) -> Option<&mut T> {
        let fresh = || (flow.first_at, T::default());
        let (at, memory) = self.table.upsert(&flow.key, fresh, |_| true)?;
        if *at != flow.first_at {
            *at = flow.first_at;
            *memory = T::default();
        }
        Some(memory)
    }

    pub(in crate::detect) const fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}

/// How much what was recognised is worth, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::detect) enum Strength {
    /// Shared with honest software: odd, and never a reason to cut.
    Shape = 1,
    /// Hostile, but not shown beyond doubt: at most suspect.
    Likely = 2,
    /// Proves itself, when the inside end said it.
    Proof = 3,
}

/// What was told of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The strength of what travelled toward remote and toward local.
    toward_remote: u8,
    toward_local: u8,
    /// How the outside end's words began.
    heard: [u8; ECHOED],
}

/// Tells what a detector recognised, again only when it becomes stronger.
///
/// An inside end that only sends back what a stranger said proves nothing: servers that echo must not
/// be cut off by whoever can reach them.
#[derive(Debug)]
pub(in crate::detect) struct Telling {
    warrant: Warrant,
    told: Sessions<Told>,
}

impl Telling {
    pub(in crate::detect) fn new(warrant: Warrant, seed: u64) -> Self {
        Self { warrant, told: Sessions::new(seed) }
    }

    pub(in crate::detect) const fn evicted(&self) -> u64 {
        self.told.evicted()
    }

    /// Tells a pattern that these bytes showed, unless as much was told of this flow and way.
    pub(in crate::detect) fn tell(
        &mut self,
        o: &Observation<'_>,
        (toward, bytes): (Toward, &[u8]),
        strength: Strength,
        emit: &mut Vec<Signal>,
        pattern: impl FnOnce() -> Pattern,
    ) {
        if let Some(told) = self.told.of(&o.flow) {
            let begin = beginning(bytes);
            let before = if is_own_word(toward) {
                if told.toward_local != 0 && told.heard == begin {
                    return;
                }
                &mut told.toward_remote
            } else {
                // Other words of a stranger are told too, so that it is known when they are passed on.
                if told.heard != begin {
                    told.toward_local = 0;
                }
                told.heard = begin;
                &mut told.toward_local
            };
            if *before >= strength as u8 {
                return;
            }
            *before = strength as u8;
        }
        let proves = strength == Strength::Proof && is_own_word(toward);
        let mut signal = self.warrant.pattern(o, proves, pattern());
        match strength {
            Strength::Shape => {
                signal.grade = signal.grade.min(Grade::Odd);
                signal.weight = Weight::Scores;
            }
            Strength::Likely => signal.grade = signal.grade.min(Grade::Suspect),
            Strength::Proof => {}
        }
        emit.push(signal);
    }
}

fn beginning(bytes: &[u8]) -> [u8; ECHOED] {
    let mut begin = [0; ECHOED];
    begin.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    begin
}

/// Who spoke to whom, as the beginning of a sentence.
pub(in crate::detect) const fn who(toward: Toward) -> &'static str {
    match toward {
        Toward::Remote => "{host} spoke to {remote}",
        Toward::Local => "{remote} spoke to {host}",
    }
}

/// The first bytes as proof, with the way they travelled, besides facts of a detector's own.
pub(in crate::detect) fn payload<const N: usize>(
    toward: Toward,
    bytes: &[u8],
    facts: [(&str, Fact); N],
) -> Evidence {
    let toward = match toward {
        Toward::Remote => "remote",
        Toward::Local => "local",
    };
    let mut piece = Evidence::new("payload", []);
    piece.facts.insert("head".to_owned(), hex(bytes).into());
    piece.facts.insert("toward".to_owned(), toward.into());
    for (name, fact) in facts {
        let fact = match fact {
            Fact::Flag(flag) => flag.into(),
            Fact::Number(number) => number.into(),
            Fact::Real(number) => number.into(),
            Fact::Text(text) => text.into(),
        };
        piece.facts.insert(name.to_owned(), fact);
    }
    piece
}

/// A fact of evidence.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::detect) enum Fact {
    Flag(bool),
    Number(u64),
    Real(f64),
    Text(String),
}

impl From<bool> for Fact {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u32> for Fact {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Fact {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<f64> for Fact {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// At most the first 64 bytes in hexadecimal.
pub(in crate::detect) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(QUOTED)
        .flat_map(|byte| [byte >> 4, byte & 0xF])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// Four bytes as a little-endian number.
pub(in crate::detect) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// Four bytes as a big-endian number.
pub(in crate::detect) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// Whether a byte is printable ASCII, the blank included.
pub(in crate::detect) const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E)
}

/// Set bits over all bytes.
pub(in crate::detect) fn set_bits(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| byte.count_ones()).sum()
}

/// Whether bytes could have come from a cipher: about as many ones as zeros, not mostly text, and
/// hardly any byte that stands for a quarter of them.
pub(in crate::detect) fn looks_random(bytes: &[u8]) -> bool {
    let len = bytes.len() as u32;
    let bits = set_bits(bytes);
    let printable = bytes.iter().filter(|byte| is_printable(**byte)).count() as u32;
    let zeros = bytes.iter().filter(|byte| **byte == 0).count() as u32;
    // For 20 random bytes one standard deviation is 0.32 set bits a byte; text has 0.37 of the byte
    // values, so that half of 20 bytes is two deviations off.
    len > 0
        && (bits * 10 > len * 32 && bits * 10 < len * 48)
        && printable * 10 < len * 7
        && zeros * 8 <= len
}

#[cfg(test)]
pub(in crate::detect) use tests::shipped;

#[cfg(test)]
mod tests {
    /// The settings that the shipped packs give a detector.
    pub(in crate::detect) fn shipped<T: serde::de::DeserializeOwned>(detector: &str) -> T {
        crate::packs::shipped_packs()
            .into_iter()
            .flat_map(|(_, text)| sekisho_schema::pack::RulePack::parse(text).unwrap().detector)
            .find(|entry| entry.id == detector)
            .unwrap()
            .settings_as()
            .unwrap()
    }
}
