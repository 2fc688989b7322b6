//! Questions and answers seen on port 53.

use super::entry::{Entry, by, flag};
use super::observation::{Appetite, Observation, ObservationKind, Toward};
use super::teller::Teller;
use crate::app::Name;
use crate::app::dns::{AnswerData, DnsMessage};

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
pub(super) const PORT: u16 = 53;

/// Whether bytes can be the beginning of a message.
pub(super) fn may_be_message(bytes: &[u8]) -> bool {
    match bytes.get(2) {
        _ if bytes.len() >= 12 => DnsMessage::parse(bytes).is_some(),
        // The operation code; 6 is the highest assigned.
        Some(flags) => flags >> 3 & 0xF <= 6,
        None => true,
    }
}

/// Takes one message; returns whether it is one.
///
/// An answer counts only where a question went the other way before: nobody binds names by sending
/// what was not asked for.
pub(super) fn take_message<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    payload: &[u8],
) -> bool {
    let Some(message) = DnsMessage::parse(payload) else { return false };
    let question = message.question();
    let message = message.knowing(question.as_ref());
    teller.tell(entry, ObservationKind::Message { toward, message: &message });
    if message.opcode() != 0 {
        return true;
    }
    let Some(question) = question.as_ref().filter(|question| !question.name.is_empty()) else {
        return true;
    };
    let name = question.name.as_str();
    if !message.is_response() {
        entry.put(by(flag::ASKED, toward), true);
        if toward == Toward::Remote {
            teller.tell(entry, ObservationKind::Query { name, qtype: question.qtype });
        }
    } else if entry.has(by(flag::ASKED, toward.opposite())) {
        bind_answers(teller, entry, toward, &message, &question.name);
    }
    true
}

/// Binds the addresses that a name, or what it is an alias of, was answered with.
fn bind_answers<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    toward: Toward,
    message: &DnsMessage<'_>,
    asked: &Name,
) {
    let name = asked.as_str();
    // Who asked is the end that the answer travels to.
    let client = match toward {
        Toward::Local => entry.local_address(),
        Toward::Remote => entry.remote_address(),
    };
    let mut alias = None;
    for record in message.records() {
        let Some(data) = record.data() else { continue };
        // A server may add what nobody asked for; only the chain that begins at the question counts.
        let counts = record.is_of_question()
            || record
                .owner()
                .is_some_and(|owner| owner == *alias.as_ref().unwrap_or(asked) || owner == *asked);
        if !counts {
            continue;
        }
        match data {
            AnswerData::Address(address) => {
                let evicted = teller.names.bind((client, address), name, record.ttl, teller.at);
                teller.totals.evicted_names += u64::from(evicted);
                teller.tell(entry, ObservationKind::Answer { name, address });
            }
            AnswerData::Cname(target) => alias = Some(target),
        }
    }
}
