//! Sockets of this network namespace: listed, and ended after a cut, over inet_diag.
//!
//! A dropped packet says nothing to the program that sent it; ending its socket does, and the peer
//! hears nothing because the reset is dropped too. Sockets of other namespaces are not reached.

use super::plan::{Plan, is_cut};
use crate::netlink::{ACK, Answer, Channel, NetlinkError, REQUEST, Writer, attributes, u32_at};
use sekisho_schema::{Scope, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// TCP states that have a peer (net/tcp_states.h): all but TIME_WAIT (6), CLOSE (7) and LISTEN (10).
const WITH_PEER: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10) & !1 | 1 << 12;
/// A connected UDP socket is in state ESTABLISHED.
const CONNECTED: u32 = 1 << 1;
/// One without a peer is in state CLOSE.
const UNCONNECTED: u32 = 1 << 7;
/// `INET_DIAG_CGROUP_ID` (linux/inet_diag.h).
const CGROUP_ID: u16 = 21;
/// Bytes of `inet_diag_sockid`.
const SOCKET_ID_BYTES: usize = 48;

/// Why sockets could not be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The list could not be read.
    #[error("cannot list the sockets of this host; none was ended")]
    List(#[source] NetlinkError),
    /// The socket to the kernel could not be opened.
    #[error("cannot speak with the kernel's socket diagnosis")]
    Open(#[source] NetlinkError),
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// TCP or UDP.
    pub transport: Transport,
    /// Local end; an IPv4 address in IPv6 clothing is written as IPv4.
    pub local: SocketAddr,
    /// Remote end, in the same manner.
    pub remote: SocketAddr,
    /// Inode of the socket; 0 once no process holds it.
    pub inode: u32,
    /// User that made it.
    pub uid: u32,
    /// Id of its cgroup (inode of the cgroup's directory), when the kernel tells.
    pub cgroup: Option<u64>,
    family: u8,
    id: [u8; SOCKET_ID_BYTES],
}

/// What became of the sockets that were to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Ended.
    pub count: u32,
    /// Not ended; such as those that ended meanwhile, or for want of CONFIG_INET_DIAG_DESTROY.
    pub failed: u32,
}

/// The sockets of this network namespace.
pub struct Sockets {
    channel: Channel,
}

impl Sockets {
    /// Opens the socket to the kernel.
    ///
    /// # Errors
    /// [`FlowsError::Open`].
    pub fn open() -> Result<Self, FlowsError> {
        Ok(Self {
            channel: Channel::open(netlink_sys::protocols::NETLINK_SOCK_DIAG)
                .map_err(FlowsError::Open)?,
        })
    }

    /// Connected sockets of a transport (TCP or UDP), IPv4 and IPv6.
    ///
    /// # Errors
    /// [`FlowsError::List`].
    pub fn list(&mut self, transport: Transport) -> Result<Vec<SocketRecord>, FlowsError> {
        let mut all =
            self.dump(transport, if transport == Transport::Tcp { WITH_PEER } else { CONNECTED })?;
        // A listener that slipped through has no peer and must never be taken for a flow.
        all.retain(|socket| !socket.remote.ip().is_unspecified());
        Ok(all)
    }

    /// UDP sockets without a peer: they speak to anybody, and can't be ended by their flow.
    ///
    /// # Errors
    /// [`FlowsError::List`].
    pub fn unconnected(&mut self) -> Result<Vec<SocketRecord>, FlowsError> {
        self.dump(Transport::Udp, UNCONNECTED)
    }

    fn dump(&mut self, transport: Transport, states: u32) -> Result<Vec<SocketRecord>, FlowsError> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let request = request(family, transport, states, &[0; SOCKET_ID_BYTES]);
            let found =
                self.channel.dump(BY_FAMILY, &request, |found: &mut Vec<SocketRecord>, answer| {
                    found.extend(read_socket(transport, answer));
                });
            match found {
                Ok(found) => all.extend(found),
                // A kernel without IPv6, or without UDP diagnosis, has no such sockets to show.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(FlowsError::List(error)),
            }
        }
        Ok(all)
    }

    /// Ends every connected TCP and UDP socket that fits; `fits` gets the local and the remote end.
    ///
    /// # Errors
    /// [`FlowsError::List`]; single sockets that don't end are counted.
    pub fn destroy_matching(
        &mut self,
        mut fits: impl FnMut(SocketAddr, SocketAddr) -> bool,
    ) -> Result<Destroyed, FlowsError> {
        self.destroy(|socket| fits(socket.local, socket.remote))
    }

    /// Ends every connected TCP and UDP socket of which the cut of `scope` stops the packets.
    ///
    /// # Errors
    /// [`FlowsError::List`]; single sockets that don't end are counted.
    pub fn destroy_cut(&mut self, scope: &Scope, plan: &Plan) -> Result<Destroyed, FlowsError> {
        self.destroy(|socket| {
            is_cut(scope, socket.transport, socket.local.port(), socket.remote, plan)
        })
    }

    /// Ends every connected TCP and UDP socket that fits.
    ///
    /// # Errors
    /// [`FlowsError::List`]; single sockets that don't end are counted.
    pub fn destroy_where(
        &mut self,
        fits: impl FnMut(&SocketRecord) -> bool,
    ) -> Result<Destroyed, FlowsError> {
        self.destroy(fits)
    }

    fn destroy(
        &mut self,
        mut fits: impl FnMut(&SocketRecord) -> bool,
    ) -> Result<Destroyed, FlowsError> {
        let mut destroyed = Destroyed::default();
        let mut writer = Writer::default();
        for transport in [Transport::Tcp, Transport::Udp] {
            for socket in self.list(transport)?.iter().filter(|socket| fits(socket)) {
                writer.clear();
                let sequence = self.channel.next();
                let message = writer.message(
                    DESTROY,
                    REQUEST | ACK,
                    sequence,
                    &request(socket.family, transport, 0, &socket.id),
                );
                writer.end_message(&message);
                match self.channel.transact(writer.as_bytes(), sequence, sequence) {
                    Ok(()) => destroyed.count += 1,
                    Err(_) => destroyed.failed += 1,
                }
            }
        }
        Ok(destroyed)
    }
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, identity.
fn request(family: u8, transport: Transport, states: u32, id: &[u8; SOCKET_ID_BYTES]) -> Vec<u8> {
    let mut bytes = vec![family, transport.number(), 0, 0];
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.extend_from_slice(id);
    bytes
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions, identity, expiry, queues, uid, inode; then attributes.
fn read_socket(transport: Transport, answer: Answer<'_>) -> Option<SocketRecord> {
    let body = answer.body;
    let family = *body.first()?;
    let id: [u8; SOCKET_ID_BYTES] = body.get(4..4 + SOCKET_ID_BYTES)?.try_into().ok()?;
    let port = |at: usize| id.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
        if family == 2 {
            let [a, b, c, d, ..] = bytes;
            return Some(Ipv4Addr::new(a, b, c, d).into());
        }
        Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
    };
    let cgroup =
        attributes(body.get(72..).unwrap_or_default()).find(|(kind, _)| *kind == CGROUP_ID);
    let remote = SocketAddr::new(address(20)?, port(2)?);
    Some(SocketRecord {
        transport,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote,
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?,
        cgroup: cgroup.and_then(|(_, value)| value.try_into().ok()).map(u64::from_ne_bytes),
        family,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn own_sockets_are_listed_with_their_ends_and_inode() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // An IPv4 peer of a dual-stack listener is IPv6 to the kernel and IPv4 to people.
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let mut sockets = Sockets::open().unwrap();
        let listed = sockets.list(Transport::Tcp).unwrap();
        let mine =
            listed.iter().find(|socket| socket.local == client.local_addr().unwrap()).unwrap();
        assert_eq!((mine.remote, mine.inode > 0), (client.peer_addr().unwrap(), true));
        let theirs =
            listed.iter().find(|socket| socket.remote == client.local_addr().unwrap()).unwrap();
        assert_eq!(theirs.local, client.peer_addr().unwrap());
        assert!(!listed.iter().any(|socket| socket.remote.port() == 0));
    }

    #[test]
    fn a_socket_of_ipv6_that_speaks_ipv4_is_ended() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let client =
            TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let doomed = client.peer_addr().unwrap();
        let destroyed = Sockets::open()
            .unwrap()
            .destroy_matching(|local, remote| local == doomed && remote.ip().is_ipv4())
            .unwrap();
        assert_eq!(destroyed, Destroyed { count: 1, failed: 0 });
        use std::io::Read as _;
        assert_eq!(
            server.read(&mut [0]).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionAborted
        );
    }

    #[test]
    fn only_sockets_that_fit_are_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (doomed, spared) = (
            TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
        );
        let _servers = (listener.accept().unwrap(), listener.accept().unwrap());
        let (a, b) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        let ends = [doomed.local_addr().unwrap(), a.local_addr().unwrap()];
        let destroyed =
            Sockets::open().unwrap().destroy_matching(|local, _| ends.contains(&local)).unwrap();
        assert_eq!(destroyed, Destroyed { count: 2, failed: 0 });
        use std::io::{Read as _, Write as _};
        assert!((&doomed).write_all(b"x").is_err() || (&doomed).read(&mut [0]).is_err());
        assert!((&spared).write_all(b"x").is_ok());
    }
}
