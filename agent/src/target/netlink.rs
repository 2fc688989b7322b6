//! Questions to the kernel over netlink, and messages that come unasked. Nothing is changed by any of them.

use crate::netlink::{self, Answer, NetlinkError, RECEIVE_BYTES, answers};
use netlink_sys::Socket;
use std::io;

/// Receive buffer asked for: changes of a busy host must wait for us, not be lost.
const QUEUE_BYTES: usize = 4 << 20;

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
    /// The answer does not follow the format, or has no end.
    #[error("the kernel's answer is cut short")]
    Malformed,
    /// The table changed during every read.
    #[error("the table changed during every read")]
    Unsteady,
}

impl AskKernelError {
    /// Whether the kernel does not know the thing, or has no such facility.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput))
    }
}

impl From<NetlinkError> for AskKernelError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Refused { source, .. } => Self::Refused(source),
            NetlinkError::Socket { doing, source } => Self::Socket { doing, source },
            NetlinkError::Malformed => Self::Malformed,
            NetlinkError::Unsteady => Self::Unsteady,
        }
    }
}

/// A socket to one netlink family, for questions.
pub(crate) struct Channel(netlink::Channel);

impl Channel {
    pub(crate) fn open(family: isize) -> Result<Self, AskKernelError> {
        Ok(Self(netlink::Channel::open(family)?))
    }

    /// Reads a table; messages that `parse` does not understand are passed over.
    pub(crate) fn table<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, AskKernelError> {
        Ok(self.0.dump(kind, body, |rows: &mut Vec<T>, answer| rows.extend(parse(answer)))?)
    }

    /// Asks for one thing.
    pub(crate) fn one<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(Answer<'_>) -> Option<T>,
    ) -> Result<Option<T>, AskKernelError> {
        Ok(self.0.ask(kind, body, |found: &mut Option<T>, answer| *found = parse(answer))?)
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
        visit: &mut dyn FnMut(Answer<'_>),
    ) -> Result<Heard, io::Error> {
        for _ in 0..limit {
            match receive(&self.socket, &mut self.buffer) {
                Ok(length) => {
                    answers(self.buffer.get(..length).unwrap_or_default()).for_each(&mut *visit)
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
