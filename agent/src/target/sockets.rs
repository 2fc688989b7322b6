//! Sockets of the network namespace in which it is asked, by socket diagnosis; read only.

use super::netlink::{AskKernelError, Channel};
use crate::netlink::{Answer, attribute_behind, u32_at};
use sekisho_schema::Transport;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// TCP states but TIME_WAIT (6), of which no process and no cgroup is known (net/tcp_states.h).
pub(crate) const ALL_STATES: u32 = 0x1fff & !1 & !(1 << 6);
/// `TCP_LISTEN`.
pub(crate) const LISTENING: u32 = 1 << 10;
const LISTEN_STATE: u8 = 10;
/// `INET_DIAG_CGROUP_ID` (linux/inet_diag.h).
const CGROUP_ID: u16 = 21;
/// Bytes of `inet_diag_sockid`, and of `inet_diag_msg`.
const ID_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 72;
/// `INET_DIAG_NOCOOKIE`: any socket of these ends.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) transport: Transport,
    /// IPv4 in IPv6 clothing is written as IPv4.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// 0 once no process holds it.
    pub(crate) inode: u32,
    /// Id of the cgroup in which it was made, when the kernel tells.
    pub(crate) cgroup: Option<u64>,
    pub(crate) listens: bool,
}

/// A way to ask for sockets.
pub(crate) struct Diagnosis(Channel);

impl Diagnosis {
    pub(crate) fn open() -> Result<Self, AskKernelError> {
        Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).map(Self)
    }

    /// Sockets of a transport (TCP or UDP) in these states, IPv4 and IPv6.
    pub(crate) fn list(
        &mut self,
        transport: Transport,
        states: u32,
    ) -> Result<Vec<Socket>, AskKernelError> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let question = question(family, transport, states, &[0; ID_BYTES]);
            match self.0.table(BY_FAMILY, &question, |message| read(transport, message)) {
                Ok(found) => all.extend(found),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The socket that the kernel itself would use for a packet of this flow, connected or not; without a walk over all.
    pub(crate) fn of_flow(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Socket>, AskKernelError> {
        let family = if local.is_ipv4() { 2 } else { 10 };
        // UDP is looked up as for a packet that comes in: the peer is its source (udp_diag, "for historical reasons").
        let id = if transport == Transport::Udp { id(remote, local) } else { id(local, remote) };
        let question = question(family, transport, ALL_STATES, &id);
        match self.0.one(BY_FAMILY, &question, |message| read(transport, message)) {
            Ok(found) => Ok(found.filter(|socket| fits(socket, local, remote))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a socket sends the packets of a flow: its own ends, or a socket without a peer on its port.
pub(crate) fn fits(socket: &Socket, local: SocketAddr, remote: SocketAddr) -> bool {
    let at_home = socket.local.port() == local.port()
        && (socket.local.ip() == local.ip() || socket.local.ip().is_unspecified());
    let open = socket.transport == Transport::Udp
        && socket.remote.ip().is_unspecified()
        && socket.remote.port() == 0;
    at_home && (socket.remote == remote || open)
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, identity.
fn question(family: u8, transport: Transport, states: u32, id: &[u8; ID_BYTES]) -> Vec<u8> {
    let mut bytes = vec![family, transport.number(), 0, 0];
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.extend_from_slice(id);
    bytes
}

/// `struct inet_diag_sockid`: ports, addresses, device, cookie.
fn id(local: SocketAddr, remote: SocketAddr) -> [u8; ID_BYTES] {
    let mut bytes = Vec::with_capacity(ID_BYTES);
    bytes.extend_from_slice(&local.port().to_be_bytes());
    bytes.extend_from_slice(&remote.port().to_be_bytes());
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(address) => {
                bytes.extend_from_slice(&address.octets());
                bytes.extend_from_slice(&[0; 12]);
            }
            IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&NO_COOKIE);
    bytes.try_into().unwrap_or([0; ID_BYTES])
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions, identity, expiry, queues, uid, inode; then attributes.
fn read(transport: Transport, message: Answer<'_>) -> Option<Socket> {
    let body = message.body;
    let family = *body.first()?;
    let id: [u8; ID_BYTES] = body.get(4..4 + ID_BYTES)?.try_into().ok()?;
    let port = |at: usize| id.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
        if family == 2 {
            let [a, b, c, d, ..] = bytes;
            return Some(Ipv4Addr::new(a, b, c, d).into());
        }
        Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
    };
    Some(Socket {
        transport,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        inode: u32_at(body, 68)?,
        cgroup: attribute_behind(body, MESSAGE_BYTES, CGROUP_ID)
            .and_then(|value| value.try_into().ok())
            .map(u64::from_ne_bytes),
        listens: transport == Transport::Tcp && body.get(1) == Some(&LISTEN_STATE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn the_socket_of_a_flow_is_found_without_a_walk() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut sockets = Diagnosis::open().unwrap();
        let found = sockets.of_flow(Transport::Tcp, local, remote).unwrap().unwrap();
        assert_eq!((found.local, found.remote, found.listens), (local, remote, false));
        assert!(found.inode > 0 && found.cgroup.is_some());
        // The accepted end belongs to a socket of IPv6.
        let accepted = sockets.of_flow(Transport::Tcp, remote, local).unwrap().unwrap();
        assert_eq!(accepted.local, remote);
        // A listener is nobody's flow.
        let other = SocketAddr::new(remote.ip(), 1);
        assert_eq!(sockets.of_flow(Transport::Tcp, remote, other).unwrap(), None);
        let listed = sockets.list(Transport::Tcp, LISTENING).unwrap();
        assert!(listed.iter().any(|socket| socket.local.port() == port && socket.listens));
        assert!(!listed.iter().any(|socket| socket.local == local));
    }

    #[test]
    fn a_udp_socket_without_a_peer_is_found_by_its_port() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let local =
            SocketAddr::new("127.0.0.1".parse().unwrap(), socket.local_addr().unwrap().port());
        let mut sockets = Diagnosis::open().unwrap();
        let remote = "192.0.2.1:53".parse().unwrap();
        let found = sockets.of_flow(Transport::Udp, local, remote).unwrap().unwrap();
        assert_eq!(found.local.port(), local.port());
        socket.connect("127.0.0.1:9").unwrap();
        assert_eq!(sockets.of_flow(Transport::Udp, local, remote).unwrap(), None);
    }
}
