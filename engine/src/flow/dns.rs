//! Questions and answers seen on port 53.

use super::entry::{Entry, by, flag};
use super::observation::{Appetite, Observation, ObservationKind, Toward};
use super::teller::Teller;
use crate::app::dns::{AnswerData, DnsMessage};

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
pub(super) const PORT: u16 = 53;
/// Messages read in one segment; honest clients pipeline few.
const MAX_MESSAGES: usize = 16;

const fn opposite(toward: Toward) -> Toward {
    match toward {
        Toward::Local => Toward::Remote,
        Toward::Remote => Toward::Local,
    }
}

/// Takes a segment of DNS over TCP: messages behind their lengths, or the rest of one whose length came alone.
pub(super) fn take_segment<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    mut payload: &[u8],
) {
    let length_came = by(flag::DNS_LENGTH, toward);
    if entry.has(length_came) {
        entry.put(length_came, false);
        take_message(teller, entry, toward, payload);
        return;
    }
    for _ in 0..MAX_MESSAGES {
        let Some((length, rest)) = payload.split_first_chunk::<2>() else { return };
        if rest.is_empty() {
            entry.put(length_came, true);
            return;
        }
        let Some((message, after)) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        else {
            take_message(teller, entry, toward, rest);
            return;
        };
        take_message(teller, entry, toward, message);
        payload = after;
    }
}

/// Takes one message.
///
/// An answer counts only where a question went the other way before: nobody binds names by sending
/// what was not asked for.
pub(super) fn take_message<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    payload: &[u8],
) {
    let Some(message) = DnsMessage::parse(payload) else { return };
    if message.opcode() != 0 {
        return;
    }
    let Some(question) = message.question().filter(|question| !question.name.is_empty()) else {
        return;
    };
    let name = question.name.as_str();
    if !message.is_response() {
        entry.put(by(flag::ASKED, toward), true);
        if toward == Toward::Remote {
            teller.tell(entry, ObservationKind::Query { name, qtype: question.qtype });
        }
    } else if entry.has(by(flag::ASKED, opposite(toward))) {
        // Who asked is the end that the answer travels to.
        let client = match toward {
            Toward::Local => entry.local_address(),
            Toward::Remote => entry.remote_address(),
        };
        for answer in message.answers() {
            if let AnswerData::Address(address) = answer.data {
                let evicted = teller.names.bind((client, address), name, answer.ttl, teller.at);
                teller.totals.evicted_names += u64::from(evicted);
                teller.tell(entry, ObservationKind::Answer { name, address });
            }
        }
    }
}
