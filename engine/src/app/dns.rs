//! DNS messages as far as names and addresses go (RFC 1035, RFC 3596).

use std::net::IpAddr;

use super::{Name, reader::Reader};

/// Fixed header length (RFC 1035 §4.1.1).
const HEADER_LEN: usize = 12;
/// Longest name on the wire, length bytes and root included (RFC 1035 §2.3.4).
const MAX_WIRE_NAME_LEN: usize = 255;
/// Compression pointers followed in one name; honest messages need few.
const MAX_JUMPS: usize = 16;
/// Record types and class read here (RFC 1035 §3.2, RFC 2782, RFC 3596 §2.1).
const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
/// Highest operation code assigned: DSO (RFC 8490).
const MAX_OPCODE: u16 = 6;

/// One DNS message, possibly cut short; nothing is decoded before it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct DnsMessage<'a> {
    bytes: &'a [u8],
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    known: Option<&'a Question>,
}

/// The first question of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name asked for.
    pub name: Name,
    /// The record type asked for (IANA number, e.g. 16 for TXT).
    pub qtype: u16,
}

/// One answer record of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name the record belongs to.
    pub owner: Name,
    /// Seconds the record may be kept.
    pub ttl: u32,
    /// What the record says.
    pub data: AnswerData,
}

/// The content of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the name stays on the stack: no allocation per packet"
)]
pub enum AnswerData {
    /// An A or AAAA record.
    Address(IpAddr),
    /// A CNAME record: the owner is an alias of this name.
    Cname(Name),
}

impl<'a> DnsMessage<'a> {
    /// Reads the header; `None` if the bytes cannot be a DNS message.
    ///
    /// A message cut short is accepted as long as its header is there. A name that is malformed
    /// within the bytes present is not.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let [id, flags, questions, answers, _authority, _additional] =
            reader.array::<HEADER_LEN>().map(|[a, b, c, d, e, f, g, h, i, j, k, l]| {
                [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]].map(u16::from_be_bytes)
            })?;
        if flags >> 11 & 0xF > MAX_OPCODE {
            return None;
        }
        let message = Self { bytes: payload, id, flags, questions, answers, known: None };
        if questions > 0 && skip_name(payload, HEADER_LEN) == Err(NameFault::Malformed) {
            return None;
        }
        Some(message)
    }

    /// Reads a message that TCP prefixes with its length (RFC 1035 §4.2.2).
    #[must_use]
    pub fn parse_tcp(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let len = usize::from(reader.u16()?);
        if len < HEADER_LEN {
            return None;
        }
        let rest = reader.rest();
        Self::parse(rest.get(..len).unwrap_or(rest))
    }

    /// The transaction number.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Whether this is a response.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether the server says that the response did not fit (TC).
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The operation code; 0 is a query.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        (self.flags >> 11 & 0xF) as u8
    }

    /// The response code; 3 is "no such name".
    #[must_use]
    pub const fn rcode(&self) -> u8 {
        (self.flags & 0xF) as u8
    }

    /// The same message, whose question was read already: many ask for it.
    pub(crate) const fn knowing(self, question: Option<&'a Question>) -> Self {
        Self { known: question, ..self }
    }

    /// The type of the first question, if that is there whole.
    pub(crate) fn question_type(&self) -> Option<u16> {
        let mut labels = self.raw_question_name();
        let len = labels.by_ref().map(|label| label.len() + 1).sum::<usize>();
        // A root behind plain labels ends a name that has a text.
        if self.questions == 0
            || len + 1 >= MAX_WIRE_NAME_LEN
            || self.bytes.get(HEADER_LEN + len) != Some(&0)
        {
            return self.question().map(|question| question.qtype);
        }
        Reader::new(self.bytes.get(HEADER_LEN + len + 1..)?).u16()
    }

    /// The first question, if it is there whole.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        if self.questions == 0 {
            return None;
        }
        if let Some(known) = self.known {
            return Some(known.clone());
        }
        let (name, end) = read_name(self.bytes, HEADER_LEN)?;
        let qtype = Reader::new(self.bytes.get(end..)?).u16()?;
        Some(Question { name, qtype })
    }

    /// The labels of the first question's name as they were sent, upper and lower case kept; it ends
    /// where the name is cut, malformed or compressed, which no honest question is.
    pub fn raw_question_name(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let mut at = if self.questions == 0 { bytes.len() } else { HEADER_LEN };
        std::iter::from_fn(move || {
            let len = usize::from(*bytes.get(at)?);
            let label = bytes.get(at + 1..at + 1 + len)?;
            let within = at + 1 + len - HEADER_LEN < MAX_WIRE_NAME_LEN;
            at += 1 + len;
            (within && (1..=63).contains(&len)).then_some(label)
        })
    }

    /// Every record of the answer section, whatever its type, as far as the section is there.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let Answers { bytes, mut at, mut left } = self.answers();
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let record = Record::read(bytes, at)?;
            at = record.end;
            Some(record)
        })
    }

    /// The addresses and aliases of the answer section, as far as it is there.
    #[must_use]
    pub fn answers(&self) -> Answers<'a> {
        let mut at = HEADER_LEN;
        let mut left = self.answers;
        for _ in 0..self.questions {
            match skip_name(self.bytes, at) {
                Ok(end) => at = end + 4,
                Err(_) => {
                    left = 0;
                    break;
                }
            }
        }
        Answers { bytes: self.bytes, at, left }
    }
}

/// Iterator over the records of [`DnsMessage::answers`].
#[derive(Clone, Debug)]
pub struct Answers<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u16,
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        while self.left > 0 {
            self.left -= 1;
            let Some(record) = Record::read(self.bytes, self.at) else {
                self.left = 0;
                return None;
            };
            self.at = record.end;
            if let Some(data) = record.data()
                && let Some(owner) = record.owner()
            {
                return Some(Answer { owner, ttl: record.ttl, data });
            }
        }
        None
    }
}

/// One resource record (RFC 1035 §4.1.3).
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    message: &'a [u8],
    owner_at: usize,
    /// The record type (IANA number, e.g. 16 for TXT).
    pub kind: u16,
    /// The class; 1 is the Internet.
    pub class: u16,
    /// Seconds the record may be kept.
    pub ttl: u32,
    content_at: usize,
    /// The record's data as sent; names in it may be compressed.
    pub rdata: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8], owner_at: usize) -> Option<Self> {
        let fixed_at = skip_name(message, owner_at).ok()?;
        let mut reader = Reader::new(message.get(fixed_at..)?);
        let kind = reader.u16()?;
        let class = reader.u16()?;
        let ttl = reader.u32()?;
        let len = usize::from(reader.u16()?);
        let rdata = reader.take(len)?;
        let content_at = fixed_at + 10;
        let end = content_at + rdata.len();
        Some(Self { message, owner_at, kind, class, ttl, content_at, rdata, end })
    }

    /// Whether the record points to the name of the first question as the one that it belongs to.
    pub(crate) fn is_of_question(&self) -> bool {
        const POINTER: [u8; 2] = [0xC0, HEADER_LEN as u8];
        self.message.get(self.owner_at..self.owner_at + 2) == Some(&POINTER)
    }

    /// The name that the record belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<Name> {
        read_name(self.message, self.owner_at).map(|(name, _)| name)
    }

    /// The name in the data of a CNAME, NS, PTR, MX or SRV record, decompressed.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        let skip = match self.kind {
            TYPE_NS | TYPE_CNAME | TYPE_PTR => 0,
            TYPE_MX => 2,
            TYPE_SRV => 6,
            _ => return None,
        };
        read_name(self.message, self.content_at + skip).map(|(name, _)| name)
    }

    /// The character strings of a TXT record (RFC 1035 §3.3.14), as far as they are well formed.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(if self.kind == TYPE_TXT { self.rdata } else { &[] });
        std::iter::from_fn(move || {
            let len = usize::from(reader.u8()?);
            reader.take(len)
        })
    }

    /// What the record says, if that is an address or an alias.
    pub(crate) fn data(&self) -> Option<AnswerData> {
        // The top bit is mDNS's cache-flush flag (RFC 6762 §10.2).
        if self.class & 0x7FFF != CLASS_IN {
            return None;
        }
        match self.kind {
            TYPE_A => {
                let octets: [u8; 4] = self.rdata.try_into().ok()?;
                Some(AnswerData::Address(IpAddr::from(octets)))
            }
            TYPE_AAAA => {
                let octets: [u8; 16] = self.rdata.try_into().ok()?;
                Some(AnswerData::Address(IpAddr::from(octets)))
            }
            TYPE_CNAME => Some(AnswerData::Cname(read_name(self.message, self.content_at)?.0)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameFault {
    Cut,
    Malformed,
}

/// The position after a name, without following its pointer.
fn skip_name(message: &[u8], start: usize) -> Result<usize, NameFault> {
    let mut at = start;
    loop {
        let first = *message.get(at).ok_or(NameFault::Cut)?;
        match first >> 6 {
            0 if first == 0 => return Ok(at + 1),
            0 => at += 1 + usize::from(first),
            3 => return if at + 2 <= message.len() { Ok(at + 2) } else { Err(NameFault::Cut) },
            _ => return Err(NameFault::Malformed),
        }
        if at - start >= MAX_WIRE_NAME_LEN {
            return Err(NameFault::Malformed);
        }
    }
}

/// Decodes a name and finds the position after it.
///
/// Bytes no host name has are written `\DDD` (RFC 1035 §5.1); where the text would then pass 253
/// bytes, as raw binary labels of tunnels do, each such byte is written `?` instead.
fn read_name(message: &[u8], start: usize) -> Option<(Name, usize)> {
    decode_name(message, start, true).or_else(|| decode_name(message, start, false))
}

fn decode_name(message: &[u8], start: usize, escape: bool) -> Option<(Name, usize)> {
    let mut name = Name::empty();
    let mut end = None;
    let mut at = start;
    let mut run_start = start;
    let mut wire_len = 0;
    let mut jumps = 0;
    loop {
        let first = *message.get(at)?;
        match first >> 6 {
            0 if first == 0 => return Some((name, end.unwrap_or(at + 1))),
            0 => {
                let len = usize::from(first);
                wire_len += len + 1;
                if wire_len >= MAX_WIRE_NAME_LEN {
                    return None;
                }
                let label = message.get(at + 1..at + 1 + len)?;
                if !name.is_empty() {
                    name.push(b'.')?;
                }
                if !name.push_plain(label) {
                    push_escaped(&mut name, label, escape)?;
                }
                at += 1 + len;
            }
            3 => {
                let low = *message.get(at + 1)?;
                end = end.or(Some(at + 2));
                let target = usize::from(first & 0x3F) << 8 | usize::from(low);
                // Strictly backwards, to before the run of labels that led here: no loop is possible.
                jumps += 1;
                if target >= run_start || jumps > MAX_JUMPS {
                    return None;
                }
                run_start = target;
                at = target;
            }
            _ => return None,
        }
    }
}

fn push_escaped(name: &mut Name, label: &[u8], escape: bool) -> Option<()> {
    for &byte in label {
        if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\') {
            name.push(byte.to_ascii_lowercase())?;
        } else if escape {
            name.push(b'\\')?;
            for digit in [byte / 100, byte / 10 % 10, byte % 10] {
                name.push(b'0' + digit)?;
            }
        } else {
            name.push(b'?')?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
