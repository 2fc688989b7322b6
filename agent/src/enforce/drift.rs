//! Every change of rules and devices as the kernel tells it, with who made it.

use super::owner::is_ours;
use crate::netlink::{NetlinkError, answers, attribute, big_endian, text_of};
use netlink_sys::Socket;
use socket2::{SockFilter, SockRef};
use std::io;
use std::time::Duration;

/// `NFNLGRP_NFTABLES` and `RTNLGRP_LINK`.
const RULES: u32 = 7;
const LINKS: u32 = 1;
/// Receive buffer asked for: 208 KiB overflow while somebody loads twenty thousand rules.
const QUEUE_BYTES: usize = 64 << 20;
const RECEIVE_BYTES: usize = 256 * 1024;
/// nf_tables messages (`linux/netfilter/nf_tables.h`), without their subsystem.
const NEW_GENERATION: u8 = 15;
const NEW_ELEMENT: u8 = 12;
const DELETE_ELEMENT: u8 = 14;
/// Subsystem of nf_tables within nfnetlink.
const SUBSYSTEM: u8 = 10;
/// `RTM_NEWLINK` and `RTM_DELLINK`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
/// `IFF_LOOPBACK` (linux/if.h).
const LOOPBACK: u32 = 8;

/// A change that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody changed tables of ours; `rules` unless only elements of sets.
    Tables {
        /// Whether more than elements of sets changed.
        rules: bool,
        /// Program and process, where the kernel tells.
        who: Option<String>,
    },
    /// A device came, went or changed; its index and name.
    Link {
        /// Its index, which stays when it is named anew.
        index: u32,
        /// Its name now.
        name: String,
        /// Whether it is there.
        present: bool,
        /// Whether it is a loopback.
        loopback: bool,
    },
    /// More happened than could be told: nothing is known for sure.
    Lost,
}

/// Hears changes of rules, or of devices.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
    /// What changed in the commit that is being told.
    touched: Option<bool>,
}

impl Changes {
    /// Hears changes of rules.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not tell.
    pub fn of_rules() -> Result<Self, NetlinkError> {
        Self::open(netlink_sys::protocols::NETLINK_NETFILTER, RULES)
    }

    /// Lets the kernel keep from this socket what another socket of ours changes: a cut shall not wait until the
    /// kernel has woken whoever need not hear of it. Where it can't, it is heard and left aside.
    pub fn pass_over(&self, ours: u32) {
        // Classic BPF (linux/filter.h): load the word at 12, which is the sender's name (`nlmsg_pid`, in the machine's
        // own order, where loads are big-endian); all messages of one datagram have the same.
        const LOAD_WORD: u16 = 0x20;
        const JUMP_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        let name = u32::from_be_bytes(ours.to_ne_bytes());
        let program = [
            SockFilter::new(LOAD_WORD, 0, 0, 12),
            SockFilter::new(JUMP_EQUAL, 0, 1, name),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(&self.socket).attach_filter(&program) {
            tracing::debug!(%error, "our own changes are heard too");
        }
    }

    /// Hears changes of devices.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not tell.
    pub fn of_links() -> Result<Self, NetlinkError> {
        Self::open(netlink_sys::protocols::NETLINK_ROUTE, LINKS)
    }

    fn open(family: isize, group: u32) -> Result<Self, NetlinkError> {
        let failed = |doing| move |source| NetlinkError::Socket { doing, source };
        let mut socket = Socket::new(family).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
        socket.add_membership(group).map_err(failed("hear changes"))?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES], touched: None })
    }

    /// Waits for changes, for so long at most; `ours` is the name of the socket whose changes are no news.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, patience: Duration, ours: u32) -> io::Result<Vec<Change>> {
        rustix::net::sockopt::set_socket_timeout(
            &self.socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(patience),
        )?;
        let mut space = self.buffer.as_mut_slice();
        let length = match self.socket.recv(&mut space, 0) {
            Ok(length) => length,
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
            {
                self.touched = None;
                return Ok(vec![Change::Lost]);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        Ok(read(self.buffer.get(..length).unwrap_or_default(), ours, &mut self.touched))
    }
}

fn read(bytes: &[u8], ours: u32, touched: &mut Option<bool>) -> Vec<Change> {
    let mut changes = Vec::new();
    for answer in answers(bytes) {
        let [message, subsystem] = answer.kind.to_le_bytes();
        if matches!(answer.kind, NEW_LINK | DELETE_LINK) {
            changes.extend(read_link(answer.body, answer.kind == NEW_LINK));
        } else if subsystem == SUBSYSTEM && message == NEW_GENERATION {
            let Some(rules) = touched.take() else { continue };
            changes.push(Change::Tables { rules, who: who(answer.body) });
        } else if subsystem == SUBSYSTEM && answer.port != ours {
            // The name of the table is the first attribute of every message about a thing in it. What the kernel
            // itself lets go at the end of a lease is no change by anybody.
            let name = answer.body.get(4..).and_then(|body| attribute(body, 1)).map(text_of);
            if answer.port != 0 && name.is_some_and(|name| is_ours(&name)) {
                let rules = !matches!(message, NEW_ELEMENT | DELETE_ELEMENT);
                *touched = Some(touched.unwrap_or(false) || rules);
            }
        }
    }
    changes
}

/// `NFTA_GEN_PROC_PID` and `NFTA_GEN_PROC_NAME`.
fn who(body: &[u8]) -> Option<String> {
    let body = body.get(4..)?;
    let pid = big_endian(attribute(body, 2)?);
    let name = attribute(body, 3).map(text_of).unwrap_or_default();
    Some(format!("{name} (process {pid})"))
}

/// `struct ifinfomsg` and `IFLA_IFNAME`.
fn read_link(body: &[u8], present: bool) -> Option<Change> {
    let index = crate::netlink::u32_at(body, 4)?;
    let flags = crate::netlink::u32_at(body, 8)?;
    let name = attribute(body.get(16..)?, 3).map(text_of)?;
    Some(Change::Link { index, name, present, loopback: flags & LOOPBACK != 0 })
}
