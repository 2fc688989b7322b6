//! Binding the kernel's packet log (NFLOG): it needs CAP_NET_ADMIN, reading it does not.

use crate::netlink::{ACK, Channel, NetlinkError, REQUEST, Writer};
use netlink_sys::Socket;

/// `NFULNL_MSG_CONFIG` (`linux/netfilter/nfnetlink_log.h`), within subsystem 4 of nfnetlink.
const CONFIGURE: u16 = 4 << 8 | 1;
/// Attributes of a configuration: command (1 binds) and mode (2 copies packets).
const COMMAND: u16 = 1;
const BIND: u8 = 1;
const MODE: u16 = 2;
const COPY_PACKET: u8 = 2;
/// `NFULA_CFG_QTHRESH`: packets that the kernel gathers before it tells.
const THRESHOLD: u16 = 5;
/// Bytes of each packet that are copied, at most.
const COPY_BYTES: u32 = 2_048;
/// Receive buffer asked for: some hundred packets.
const QUEUE_BYTES: usize = 1 << 20;

/// Binds a group of this network namespace; the socket does not block from then on.
///
/// # Errors
/// [`NetlinkError`]: the kernel has no packet log, or another program has the group.
pub fn packet_log(group: u16) -> Result<Socket, NetlinkError> {
    // Tried on a socket of its own first, whose refusals come in words.
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let sequence = channel.next();
    let writer = configuration(group, sequence);
    channel.transact(writer.as_bytes(), sequence, sequence)?;
    let socket = channel.into_socket();
    let failed = |doing| move |source| NetlinkError::Socket { doing, source };
    socket.set_non_blocking(true).map_err(failed("read the packet log without waiting"))?;
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
    Ok(socket)
}

fn configuration(group: u16, sequence: u32) -> Writer {
    let mut writer = Writer::default();
    // nfgenmsg: no family, version 0, the group in network order.
    let [high, low] = group.to_be_bytes();
    let open = writer.message(CONFIGURE, REQUEST | ACK, sequence, &[0, 0, high, low]);
    writer.attribute(COMMAND, &[BIND]);
    let [a, b, c, d] = COPY_BYTES.to_be_bytes();
    writer.attribute(MODE, &[a, b, c, d, COPY_PACKET, 0]);
    writer.attribute(THRESHOLD, &1_u32.to_be_bytes());
    writer.end_message(&open);
    writer
}
