//! Netlink by hand: messages and attributes written into one buffer, answers read by bounds-checked slices.

use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::time::Duration;

/// The message asks for something (`NLM_F_REQUEST`, linux/netlink.h; so are the next).
pub(crate) const REQUEST: u16 = 0x1;
/// The kernel shall acknowledge (`NLM_F_ACK`).
pub(crate) const ACK: u16 = 0x4;
/// The whole table is asked for (`NLM_F_DUMP`).
pub(crate) const DUMP: u16 = 0x300;
/// Create what is missing (`NLM_F_CREATE`).
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// The dump was disturbed by a change and may be inconsistent (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// An error or acknowledgement carries text (`NLM_F_ACK_TLVS`).
const ACK_TEXT: u16 = 0x200;
/// The request was not repeated in the acknowledgement (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attribute types carry two flag bits (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// An attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// The kernel handles a request within the call to send; a second without an answer means it was lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel fills at most 32 KiB per message of a dump (`NLMSG_GOODSIZE`, netlink_dump).
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer asked for: acknowledgements of a large batch arrive all at once.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;
/// Send buffer asked for: a batch goes in one piece.
const SEND_BYTES: usize = 1 << 20;
/// Messages read in answer to one request, at most.
const MAX_ANSWERS: usize = 1 << 20;
/// A disturbed dump is repeated this often.
const DUMP_TRIES: usize = 5;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself.
    #[error("cannot {doing} over netlink")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("the kernel refused: {source}{}", hint(.text))]
    Refused {
        /// The error number as the system words it.
        source: io::Error,
        /// What the kernel adds in words; empty on most refusals.
        text: String,
    },
    /// The answers do not follow the format.
    #[error("the kernel's answer is cut short")]
    Malformed,
    /// The table changed during every read.
    #[error("the ruleset changed during {DUMP_TRIES} reads in a row")]
    Unsteady,
}

fn hint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl NetlinkError {
    /// Whether the kernel said that the thing is not there (ENOENT).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The kernel's error number, when it refused.
    #[must_use]
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Socket { .. } | Self::Malformed | Self::Unsteady => None,
        }
    }

    fn refused(code: i32, text: String) -> Self {
        Self::Refused { source: io::Error::from_raw_os_error(code.saturating_neg()), text }
    }
}

/// Messages being written.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

/// Where a length has to be filled in.
pub(crate) struct Open(usize);

impl Writer {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a message; `head` is the fixed part after the netlink header.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, sequence: u32, head: &[u8]) -> Open {
        let open = Open(self.bytes.len());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(head);
        self.align();
        open
    }

    pub(crate) fn end_message(&mut self, open: &Open) {
        let length = u32::try_from(self.bytes.len() - open.0).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(open.0..open.0 + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Makes a message that was written ask for an acknowledgement.
    pub(crate) fn ask(&mut self, open: &Open) {
        if let Some([low, high]) = self.bytes.get_mut(open.0 + 6..open.0 + 8) {
            let flags = u16::from_ne_bytes([*low, *high]) | ACK;
            [*low, *high] = flags.to_ne_bytes();
        }
    }

    pub(crate) fn nest(&mut self, kind: u16) -> Open {
        let open = Open(self.bytes.len());
        self.bytes.extend_from_slice(&0_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        open
    }

    pub(crate) fn end_nest(&mut self, open: &Open) {
        let length = u16::try_from(self.bytes.len() - open.0).unwrap_or(u16::MAX);
        if let Some(place) = self.bytes.get_mut(open.0..open.0 + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
    }

    /// An attribute as somebody else wrote it, header included.
    pub(crate) fn copy(&mut self, whole: &[u8]) {
        self.bytes.extend_from_slice(whole);
        self.align();
    }

    /// A string attribute with its final zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let length = u16::try_from(text.len() + 5).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    fn align(&mut self) {
        let whole = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(whole, 0);
    }
}

/// One message of an answer.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// Name of the socket that asked for what is told; 0 for the kernel itself.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into its messages.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= 16)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            port: u32_at(message, 12)?,
            body: message.get(16..)?,
        })
    })
}

/// Splits a body into attributes: kind without its flag bits, and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Splits a body into attributes: kind without its flag bits, and the whole with its header.
pub(crate) fn whole_attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let whole = bytes.get(..length).filter(|_| length >= 4)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, whole))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string attribute without its final zero.
pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// An unsigned number in network byte order of up to eight bytes.
pub(crate) fn big_endian(value: &[u8]) -> u64 {
    value.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The error number and text of an error message; zero acknowledges.
fn verdict(answer: &Answer<'_>) -> (i32, String) {
    let code = u32_at(answer.body, 0).map_or(0, u32::cast_signed);
    let mut text = String::new();
    if answer.flags & ACK_TEXT != 0 {
        // The repeated request is 16 bytes when capped, else as long as its own header says.
        let repeated = if answer.flags & CAPPED != 0 {
            16
        } else {
            u32_at(answer.body, 4).map_or(16, |length| length as usize).next_multiple_of(4)
        };
        // NLMSGERR_ATTR_MSG is 1.
        text = answer
            .body
            .get(4 + repeated..)
            .and_then(|rest| attribute(rest, 1))
            .map(text_of)
            .unwrap_or_default();
    }
    (code, text)
}

/// A socket to one netlink family, opened and bound before it is needed.
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    receive: Vec<u8>,
}

impl Channel {
    /// Opens and binds; `family` is a `NETLINK_…` number.
    pub(crate) fn open(family: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(family)
            .map_err(|source| NetlinkError::Socket { doing: "open a socket", source })?;
        socket
            .bind_auto()
            .map_err(|source| NetlinkError::Socket { doing: "bind a socket", source })?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|source| NetlinkError::Socket { doing: "reach the kernel", source })?;
        // Courtesies of newer kernels; without them answers are longer and without words.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ =
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_QUEUE_BYTES);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES);
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )
        .map_err(|source| NetlinkError::Socket {
            doing: "bound the wait",
            source: source.into(),
        })?;
        Ok(Self { socket, sequence: 1, receive: vec![0; RECEIVE_BYTES] })
    }

    /// Name of this socket to the kernel; 0 when it can't be asked.
    pub(crate) fn port(&self) -> u32 {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address).map_or(0, |()| address.port_number())
    }

    /// The socket itself, for messages that come unasked.
    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    /// A fresh sequence number.
    pub(crate) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        match self.socket.send(bytes, 0) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(NetlinkError::Malformed),
            Err(source) => Err(NetlinkError::Socket { doing: "send", source }),
        }
    }

    /// Sends a batch of which the last message asks for an acknowledgement, and waits for it and for every error before it.
    ///
    /// The kernel reports each message that fails whether or not it asks; it handles the whole batch within the call to send.
    pub(crate) fn transact(
        &mut self,
        batch: &[u8],
        first: u32,
        last: u32,
    ) -> Result<(), NetlinkError> {
        self.send(batch)?;
        let mut failure = None;
        for _ in 0..MAX_ANSWERS {
            let length = match self.receive() {
                Ok(length) => length,
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            for answer in answers(self.receive.get(..length).unwrap_or_default()) {
                let place = answer.sequence.wrapping_sub(first);
                if answer.kind != ERROR || place > last.wrapping_sub(first) {
                    continue;
                }
                let (code, text) = verdict(&answer);
                if code != 0 && failure.is_none() {
                    failure = Some(NetlinkError::refused(code, text));
                }
                // An error on the first message, the batch's own, is the last answer.
                if answer.sequence == last || (code != 0 && place == 0) {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
        Err(NetlinkError::Malformed)
    }

    /// Asks one question; `visit` gets each message of the answer.
    pub(crate) fn ask<T: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut visit: impl FnMut(&mut T, Answer<'_>),
    ) -> Result<T, NetlinkError> {
        let sequence = self.next();
        let mut writer = Writer::default();
        let open = writer.message(kind, REQUEST | ACK, sequence, body);
        writer.end_message(&open);
        self.send(writer.as_bytes())?;
        let mut gathered = T::default();
        let _steady = self.gather(sequence, &mut gathered, &mut visit)?;
        Ok(gathered)
    }

    /// Reads a whole table; `visit` gets each message and must be repeatable: it starts afresh when told so by `restart`.
    pub(crate) fn dump<T: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut visit: impl FnMut(&mut T, Answer<'_>),
    ) -> Result<T, NetlinkError> {
        let mut writer = Writer::default();
        for _ in 0..DUMP_TRIES {
            let sequence = self.next();
            writer.clear();
            let open = writer.message(kind, REQUEST | DUMP, sequence, body);
            writer.end_message(&open);
            self.send(writer.as_bytes())?;
            let mut gathered = T::default();
            if self.gather(sequence, &mut gathered, &mut visit)? {
                return Ok(gathered);
            }
        }
        Err(NetlinkError::Unsteady)
    }

    /// Reads the answers to one dump; `false` when it was disturbed.
    fn gather<T>(
        &mut self,
        sequence: u32,
        gathered: &mut T,
        visit: &mut impl FnMut(&mut T, Answer<'_>),
    ) -> Result<bool, NetlinkError> {
        let mut steady = true;
        for _ in 0..MAX_ANSWERS {
            let length = self.receive()?;
            for answer in answers(self.receive.get(..length).unwrap_or_default())
                .filter(|answer| answer.sequence == sequence)
            {
                steady &= answer.flags & DUMP_INTERRUPTED == 0;
                match answer.kind {
                    DONE => return Ok(steady),
                    ERROR => {
                        let (code, text) = verdict(&answer);
                        return if code == 0 {
                            Ok(steady)
                        } else {
                            Err(NetlinkError::refused(code, text))
                        };
                    }
                    _ => visit(gathered, answer),
                }
            }
        }
        Err(NetlinkError::Malformed)
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        loop {
            let mut space = self.receive.as_mut_slice();
            match self.socket.recv(&mut space, 0) {
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(NetlinkError::Socket { doing: "hear the kernel's answer", source });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_read_back_what_was_written() {
        let mut writer = Writer::default();
        let message = writer.message(7, REQUEST, 42, &[1, 0, 0, 10]);
        writer.text(1, "sekisho");
        let nest = writer.nest(3);
        writer.attribute(4, &5_u64.to_be_bytes());
        writer.end_nest(&nest);
        writer.end_message(&message);
        let read: Vec<_> = answers(writer.as_bytes()).collect();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, 7, 42));
        let body = &read[0].body[4..];
        assert_eq!(text_of(attribute(body, 1).unwrap()), "sekisho");
        assert_eq!(big_endian(attribute(attribute(body, 3).unwrap(), 4).unwrap()), 5);
    }

    #[test]
    fn a_length_that_lies_ends_the_reading() {
        for bytes in [&[200, 0, 0, 0, 1, 1, 1, 1][..], &[4, 0, 0, 0], &[0; 16], &[1]] {
            assert_eq!(answers(bytes).count(), 0);
        }
        assert_eq!(attributes(&[2, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(attributes(&[90, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
