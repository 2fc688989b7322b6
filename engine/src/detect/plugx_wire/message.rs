//! A PlugX message found inside something else, told in words and as evidence.

use crate::detect::plugx::{
    Alignment, PlugxConstants, PlugxDecoder, PlugxMatch, PlugxVerdict, Proof,
};
use crate::detect::signal::Pattern;
use crate::flow::Toward;
use sekisho_schema::Evidence;

/// Length of a message header (plugx.md 1.1).
const HEADER_LEN: usize = 16;

/// What the bytes at hand give.
pub(super) enum Reading {
    No,
    NeedMore,
    Message(Message),
}

/// A deciphered message.
#[derive(Debug)]
pub(super) struct Message {
    matched: PlugxMatch,
    cipher: String,
    /// The header as it was on the wire.
    pub(super) header: [u8; HEADER_LEN],
    /// Bytes of the body that were there to be checked.
    present: usize,
}

/// Looks for messages.
#[derive(Debug)]
pub(super) struct MessageReader {
    decoder: PlugxDecoder,
}

impl MessageReader {
    pub(super) fn new(constants: &PlugxConstants) -> Self {
        Self { decoder: PlugxDecoder::new(constants) }
    }

    /// Reads what begins `bytes`; `total` is the length that the carrier states for all of it.
    pub(super) fn read(&self, bytes: &[u8], total: Option<usize>) -> Reading {
        match self.decoder.examine_of(bytes, total) {
            PlugxVerdict::No => Reading::No,
            PlugxVerdict::NeedMore => Reading::NeedMore,
            PlugxVerdict::Match(matched) => {
                let header = bytes.first_chunk().copied().unwrap_or_default();
                Reading::Message(Message {
                    matched,
                    cipher: self.decoder.cipher_id(matched.cipher).to_owned(),
                    header,
                    present: bytes.len().saturating_sub(HEADER_LEN).min(matched.size.into()),
                })
            }
        }
    }
}

impl Message {
    /// The message as a pattern; `place` says in words what carried it.
    pub(super) fn pattern(&self, toward: Toward, proves: bool, place: &str) -> Pattern {
        let PlugxMatch { command, size, .. } = self.matched;
        let who = match toward {
            Toward::Remote => "{host} sent {remote}",
            Toward::Local => "{remote} sent {host}",
        };
        let doubt = match (proves, toward) {
            (true, _) => "",
            (false, Toward::Local) => {
                " and {host} has not answered in it, so a stranger may have sent it"
            }
            (false, Toward::Remote) => ", which a stranger may have made it say",
        };
        let deed = if self.is_theft(toward) { ": file theft in progress" } else { "" };
        let body = match (self.matched.proof, size) {
            (Proof::Lznt1, _) => ", and the body unpacks as LZNT1 to the size announced",
            (Proof::Header, 0) => ", which fits a message that is a header only",
            (Proof::Header, _) => "",
        };
        // plugx.md, section 2, D1: command, flags and sizes agree by chance in about 5 of 10^10 payloads.
        let told = format!(
            "{who} a PlugX message in {place}{doubt}: its first 16 bytes decode with cipher {} to \
             command 0x{command:04x} ({}){deed}, {size} body bytes announced and {} present{body}; \
             the chance of this in other traffic is below 5 in 10,000,000,000.",
            self.cipher,
            PlugxDecoder::command_name(command),
            self.present,
        );
        Pattern { told, evidence: vec![self.evidence(toward, place)] }
    }

    fn is_theft(&self, toward: Toward) -> bool {
        toward == Toward::Remote && PlugxDecoder::is_theft(self.matched.command)
    }

    fn evidence(&self, toward: Toward, place: &str) -> Evidence {
        let matched = &self.matched;
        let is_theft = self.is_theft(toward);
        let alignment = match matched.alignment {
            Alignment::KeystreamAfterKey => "after-key",
            Alignment::KeystreamFromKey => "from-key",
        };
        let proof = match matched.proof {
            Proof::Header => "header",
            Proof::Lznt1 => "lznt1",
        };
        let toward = match toward {
            Toward::Local => "local",
            Toward::Remote => "remote",
        };
        Evidence::new(
            "payload",
            [
                ("alignment", alignment.into()),
                ("cipher", self.cipher.as_str().into()),
                ("command", format!("0x{:04x}", matched.command).into()),
                ("command_name", PlugxDecoder::command_name(matched.command).into()),
                ("extra", matched.extra.into()),
                ("flags", format!("0x{:08x}", matched.flags).into()),
                ("found_in", place.into()),
                ("head", hex(&self.header).into()),
                ("plain_size", matched.plain_size.into()),
                ("present", self.present.into()),
                ("proof", proof.into()),
                ("size", matched.size.into()),
                ("theft", is_theft.into()),
                ("toward", toward.into()),
            ],
        )
    }
}

/// The first bytes in hexadecimal, at most 64 of them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .flat_map(|byte| [byte >> 4, byte & 0xF])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// Text of a stranger made fit to be shown: printable ASCII, at most 64 characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(64)
        .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' })
        .collect()
}

/// Whether the first bytes are text, which no enciphered header is.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN
        && bytes
            .iter()
            .take(HEADER_LEN)
            .all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | 32..=126))
}
