//! Questions to the kernel over netlink, and messages that come unasked. Nothing is changed by any of them.

use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::time::Duration;

/// `NLM_F_REQUEST` and `NLM_F_DUMP` (linux/netlink.h).
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const DUMP: u16 = 0x300;
/// The table changed while it was read (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attribute types carry two flag bits (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// The kernel answers within the call to send; a second without an answer means that it was lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump).
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer asked for: changes of a busy host must wait for us, not be lost.
const QUEUE_BYTES: usize = 4 << 20;
/// Datagrams read in answer to one question, at most.
const MAX_DATAGRAMS: usize = 1 << 16;
/// A disturbed table is read this often.
const TRIES: usize = 5;

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskKernelError {
    /// The kernel refused the question.
    #[error("the kernel refused to tell")]
    Refused(#[source] io::Error),
    /// The socket itself.
    #[error("cannot {doing} over netlink")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The answer has no end.
    #[error("the kernel's answer is longer than {MAX_DATAGRAMS} datagrams")]
    TooLong,
    /// The table changed during every read.
    #[error("the table changed during {TRIES} reads in a row")]
    Unsteady,
}

impl AskKernelError {
    /// Whether the kernel does not know the thing, or has no such facility.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput))
    }
}

/// A socket to one netlink family.
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    pub(crate) fn open(family: isize) -> Result<Self, AskKernelError> {
        let failed = |doing| move |source| AskKernelError::Socket { doing, source };
        let mut socket = Socket::new(family).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("reach the kernel"))?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )
        .map_err(|source| failed("bound the wait")(source.into()))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Reads a table; messages that `parse` does not understand are passed over.
    pub(crate) fn table<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, AskKernelError> {
        for _ in 0..TRIES {
            let mut rows = Vec::new();
            if self.ask(kind, REQUEST | DUMP, body, &mut |message| rows.extend(parse(message)))? {
                return Ok(rows);
            }
        }
        Err(AskKernelError::Unsteady)
    }

    /// Asks for one thing.
    pub(crate) fn one<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, AskKernelError> {
        let mut found = None;
        self.ask(kind, REQUEST, body, &mut |message| found = parse(message))?;
        Ok(found)
    }

    /// Puts a question and hands over each message of the answer; `false` when the table changed meanwhile.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        visit: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, AskKernelError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let question = message(kind, flags, self.sequence, body);
        self.socket
            .send(&question, 0)
            .map_err(|source| AskKernelError::Socket { doing: "ask", source })?;
        let mut steady = true;
        for _ in 0..MAX_DATAGRAMS {
            let length = receive(&self.socket, &mut self.buffer)
                .map_err(|source| AskKernelError::Socket { doing: "hear the answer", source })?;
            for answer in messages(self.buffer.get(..length).unwrap_or_default())
                .filter(|answer| answer.sequence == self.sequence)
            {
                steady &= answer.flags & DUMP_INTERRUPTED == 0;
                match answer.kind {
                    DONE => return Ok(steady),
                    ERROR => {
                        let code = u32_at(answer.body, 0).map_or(0, u32::cast_signed);
                        return if code == 0 {
                            Ok(steady)
                        } else {
                            Err(AskKernelError::Refused(io::Error::from_raw_os_error(
                                code.saturating_neg(),
                            )))
                        };
                    }
                    _ => {
                        visit(answer);
                        if flags & DUMP == 0 {
                            return Ok(steady);
                        }
                    }
                }
            }
        }
        Err(AskKernelError::TooLong)
    }
}

/// What a listener heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Everything that has come so far was handed over.
    All,
    /// Some was lost, or there is more than may be read at once: what is known may be wrong.
    Lost,
}

/// A socket on which the kernel tells of changes.
pub(crate) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Joins groups of a family; never waits when it is read.
    pub(crate) fn open(family: isize, groups: &[u32]) -> Result<Self, AskKernelError> {
        let failed = |doing| move |source| AskKernelError::Socket { doing, source };
        let mut socket = Socket::new(family).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        for group in groups {
            socket.add_membership(*group).map_err(failed("listen to changes"))?;
        }
        socket.set_non_blocking(true).map_err(failed("listen without waiting"))?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Hands over what came, at most `limit` datagrams.
    pub(crate) fn read(
        &mut self,
        limit: usize,
        visit: &mut dyn FnMut(Message<'_>),
    ) -> Result<Heard, io::Error> {
        for _ in 0..limit {
            match receive(&self.socket, &mut self.buffer) {
                Ok(length) => {
                    messages(self.buffer.get(..length).unwrap_or_default()).for_each(&mut *visit)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::All),
                // The kernel had no room for a change (ENOBUFS); the socket itself is well.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    return Ok(Heard::Lost);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Heard::Lost)
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut space = &mut *buffer;
        match socket.recv(&mut space, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// One message.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    pub(crate) body: &'a [u8],
}

/// Writes a message of one piece.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Appends an attribute.
pub(crate) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= 16)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
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

/// The first attribute of a kind behind a fixed part of `skip` bytes.
pub(crate) fn attribute(body: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    attributes(body.get(skip..)?).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_read_back_what_was_written() {
        let mut body = vec![7, 0, 0, 0];
        push_attribute(&mut body, 3, b"eth0\0");
        push_attribute(&mut body, 4, &9_u32.to_ne_bytes());
        let bytes = [message(18, REQUEST, 5, &body), message(19, 0, 6, &[])].concat();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (2, 18, 5));
        assert_eq!(attribute(read[0].body, 4, 3), Some(&b"eth0\0"[..]));
        assert_eq!(attribute(read[0].body, 4, 4), Some(&9_u32.to_ne_bytes()[..]));
        assert_eq!(attribute(read[0].body, 400, 4), None);
    }

    #[test]
    fn a_length_that_lies_ends_the_reading() {
        for bytes in [&[200, 0, 0, 0, 1, 1, 1, 1][..], &[4, 0, 0, 0], &[0; 16], &[1]] {
            assert_eq!(messages(bytes).count(), 0);
        }
        assert_eq!(attributes(&[2, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(attributes(&[90, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
