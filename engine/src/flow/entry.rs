//! One flow: two cache lines, the first of which is all that a bulk packet from outside touches.

use super::fifo::NOWHERE;
use super::names::Called;
use super::observation::{FlowFacts, Route, Toward};
use crate::wire::{PacketView, Proto};
use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Span, Timestamp, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address in two words; IPv4 in the second.
pub(super) type Address = [u64; 2];

const V4: u16 = 1 << 8;
const V6: u16 = 2 << 8;

/// What a packet's headers say about the flow that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) src: Address,
    pub(super) dst: Address,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    /// Protocol number, and the family above it.
    pub(super) kind: u16,
}

impl Tuple {
    /// What no packet has.
    pub(super) const NONE: Self =
        Self { src: [0; 2], dst: [0; 2], src_port: 0, dst_port: 0, kind: 0 };

    #[inline]
    pub(super) fn of(view: &PacketView<'_>) -> Self {
        let (ports, proto) = ((view.src_port, view.dst_port), view.proto.number());
        match (view.src, view.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Self::v4(src.to_bits(), dst.to_bits(), ports, proto)
            }
            (src, dst) => Self {
                src: words(src),
                dst: words(dst),
                src_port: ports.0,
                dst_port: ports.1,
                kind: V6 | u16::from(proto),
            },
        }
    }

    /// Of an IPv4 packet with these addresses.
    #[inline]
    pub(super) fn v4(src: u32, dst: u32, (src_port, dst_port): (u16, u16), proto: u8) -> Self {
        let (src, dst) = ([0, u64::from(src)], [0, u64::from(dst)]);
        Self { src, dst, src_port, dst_port, kind: V4 | u16::from(proto) }
    }

    /// Source and destination.
    pub(super) fn addresses(&self) -> (IpAddr, IpAddr) {
        let address = |[high, low]: Address| -> IpAddr {
            if self.kind & V4 != 0 {
                Ipv4Addr::from_bits(low as u32).into()
            } else {
                Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
            }
        };
        (address(self.src), address(self.dst))
    }

    /// The same for both ways of a flow.
    #[inline]
    pub(super) fn canonical(&self) -> [u64; 4] {
        let ports = |a: u16, b: u16| u64::from(self.kind) << 32 | u64::from(a) << 16 | u64::from(b);
        if (self.src, self.src_port) <= (self.dst, self.dst_port) {
            let [a, b] = self.src;
            let [c, d] = self.dst;
            [a ^ c.rotate_left(32), b, d, ports(self.src_port, self.dst_port)]
        } else {
            let [a, b] = self.dst;
            let [c, d] = self.src;
            [a ^ c.rotate_left(32), b, d, ports(self.dst_port, self.src_port)]
        }
    }

    pub(super) const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
        }
    }
}

fn words(address: IpAddr) -> Address {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

/// One bit of state; those told apart by direction take two neighbouring bits.
pub(super) mod flag {
    /// The remote end spoke first.
    pub(in super::super) const INBOUND: u32 = 1;
    /// The packet that opened the flow was seen.
    pub(in super::super) const START_SEEN: u32 = 1 << 1;
    /// FIN both ways, or RST.
    pub(in super::super) const CLOSED: u32 = 1 << 2;
    /// An HTTP head was read.
    pub(in super::super) const HTTP: u32 = 1 << 3;
    /// No QUIC hello is to be looked for any more.
    pub(in super::super) const QUIC_DONE: u32 = 1 << 4;
    /// One of the ports is that of DNS.
    pub(in super::super) const DNS: u32 = 1 << 5;
    pub(in super::super) const INSIDE: u32 = 1 << 6;
    pub(in super::super) const TRANSIT: u32 = 1 << 7;
    /// By direction: FIN seen.
    pub(in super::super) const FIN: u32 = 1 << 8;
    /// By direction: `next_seq` is known.
    pub(in super::super) const SEQ_KNOWN: u32 = 1 << 10;
    /// By direction: the head was told once.
    pub(in super::super) const HEAD_TOLD: u32 = 1 << 12;
    /// By direction: the observer wants more of the head.
    pub(in super::super) const HEAD_WANTED: u32 = 1 << 14;
    /// By direction: payload is only counted from now on.
    pub(in super::super) const DONE: u32 = 1 << 16;
    /// By direction: a hole in the head was counted.
    pub(in super::super) const GAP: u32 = 1 << 18;
    /// By direction: held bytes wait behind a hole.
    pub(in super::super) const WAITING: u32 = 1 << 20;
    /// By direction: a DNS question went this way.
    pub(in super::super) const ASKED: u32 = 1 << 22;
    /// By direction: a proxy was asked this way for a tunnel, and has not answered.
    pub(in super::super) const CONNECT: u32 = 1 << 24;
    /// By direction: a proxy was asked this way in SOCKS version 4.
    pub(in super::super) const SOCKS_4: u32 = 1 << 26;
    /// Other bytes came for a place whose bytes were taken before.
    pub(in super::super) const OVERLAP: u32 = 1 << 28;
    /// The SYN carried payload.
    pub(in super::super) const SYN_DATA: u32 = 1 << 29;
    /// By direction: what waits behind a hole was told.
    pub(in super::super) const SHOWN: u32 = 1 << 30;
    /// The first of each two bits that are kept by direction.
    pub(in super::super) const BY_DIRECTION: u32 = FIN
        | SEQ_KNOWN
        | HEAD_TOLD
        | HEAD_WANTED
        | DONE
        | GAP
        | WAITING
        | ASKED
        | CONNECT
        | SOCKS_4
        | SHOWN;
}

/// The bit of a flag that is kept by direction.
#[inline]
pub(super) const fn by(flag: u32, toward: Toward) -> u32 {
    match toward {
        Toward::Remote => flag,
        Toward::Local => flag << 1,
    }
}

/// The state of one flow.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub(super) struct Entry {
    /// Source is the local end. `kind` 0 marks a free place.
    pub(super) tuple: Tuple,
    /// Which deadline list it stands in.
    pub(super) slot: u16,
    /// Payload from the remote end that was told, in units of 64 KiB, as far as 16 bits reach.
    told_in: u16,
    pub(super) flags: u32,
    pub(super) last_at: i64,
    pub(super) bytes_in: u64,

    pub(super) bytes_out: u64,
    /// Last payload toward the remote end.
    pub(super) out_at: i64,
    /// First payload that no volume observation covers yet.
    pub(super) pending_at: i64,
    pub(super) pending: u32,
    /// Neighbours in the deadline list; `next` also chains free places.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Next sequence number of the head, toward remote and toward local.
    next_seq: [u32; 2],
    /// Where the head's bytes are held, toward remote and toward local.
    held: [u32; 2],
    /// Hash of the name told last, so that the same is not told for each request.
    pub(super) name_tag: u32,
    pub(super) first_at: i64,
}

/// What an entry learns when it is made.
pub(super) struct Opening {
    /// Oriented local to remote.
    pub(super) tuple: Tuple,
    pub(super) flags: u32,
    pub(super) at: i64,
}

impl Entry {
    pub(super) const FREE: Self = Self {
        tuple: Tuple::NONE,
        slot: 0,
        told_in: 0,
        flags: 0,
        last_at: 0,
        bytes_in: 0,
        bytes_out: 0,
        out_at: i64::MIN,
        pending_at: 0,
        pending: 0,
        prev: NOWHERE,
        next: NOWHERE,
        next_seq: [0; 2],
        held: [NOWHERE; 2],
        name_tag: 0,
        first_at: 0,
    };

    pub(super) const fn new(opening: &Opening) -> Self {
        Self {
            tuple: opening.tuple,
            flags: opening.flags,
            first_at: opening.at,
            last_at: opening.at,
            ..Self::FREE
        }
    }

    #[inline]
    pub(super) const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(super) const fn put(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The way of a packet in this flow; `None` when it belongs to another.
    #[inline]
    pub(super) fn way_of(&self, packet: &Tuple) -> Option<Toward> {
        if self.tuple == *packet {
            Some(Toward::Remote)
        } else if self.tuple.reversed() == *packet {
            Some(Toward::Local)
        } else {
            None
        }
    }

    pub(super) const fn is_tcp(&self) -> bool {
        self.tuple.kind & 0xFF == 6
    }

    pub(super) const fn next_seq(&self, toward: Toward) -> u32 {
        match toward {
            Toward::Remote => self.next_seq[0],
            Toward::Local => self.next_seq[1],
        }
    }

    pub(super) const fn expect_seq(&mut self, toward: Toward, seq: u32) {
        match toward {
            Toward::Remote => self.next_seq[0] = seq,
            Toward::Local => self.next_seq[1] = seq,
        }
        self.put(by(flag::SEQ_KNOWN, toward), true);
    }

    /// Whether what goes this way is sent by the end that spoke first.
    pub(super) const fn is_client(&self, toward: Toward) -> bool {
        matches!(toward, Toward::Local) == self.has(flag::INBOUND)
    }

    /// Takes note of a sequence number that says where a direction stands, not where its head begins.
    pub(super) const fn hint_seq(&mut self, toward: Toward, seq: u32) {
        match toward {
            Toward::Remote => self.next_seq[0] = seq,
            Toward::Local => self.next_seq[1] = seq,
        }
    }

    /// Payload bytes this way so far, by the headers.
    pub(super) const fn bytes(&self, toward: Toward) -> u64 {
        match toward {
            Toward::Remote => self.bytes_out,
            Toward::Local => self.bytes_in,
        }
    }

    /// Calls the ends of the flow the other way round.
    pub(super) fn turn(&mut self) {
        self.tuple = self.tuple.reversed();
        let low = self.flags & flag::BY_DIRECTION;
        let high = self.flags & flag::BY_DIRECTION << 1;
        self.flags =
            self.flags & !(flag::BY_DIRECTION | flag::BY_DIRECTION << 1) | low << 1 | high >> 1;
        std::mem::swap(&mut self.bytes_in, &mut self.bytes_out);
        self.next_seq.swap(0, 1);
        self.held.swap(0, 1);
        // What the other end sent was not told as sent so far.
        self.pending = u32::try_from(self.bytes_out).unwrap_or(u32::MAX);
        (self.pending_at, self.out_at) = (self.last_at, i64::MIN);
        self.told_in = 0;
    }

    /// Payload bytes from the remote end since this was asked last, in whole units of 64 KiB.
    pub(super) const fn take_bytes_in(&mut self) -> u64 {
        let units = (self.bytes_in >> 16) as u16;
        let since = units.wrapping_sub(self.told_in);
        self.told_in = units;
        (since as u64) << 16
    }

    /// The same with what is less than a unit: asked once, at the end.
    pub(super) const fn take_rest_in(&mut self) -> u64 {
        self.take_bytes_in() + (self.bytes_in & 0xFFFF)
    }

    /// Datagrams that carried payload this way; a stream has none, so the two share their place.
    pub(super) const fn datagrams(&self, toward: Toward) -> u32 {
        self.next_seq(toward)
    }

    pub(super) const fn count_datagram(&mut self, toward: Toward) -> u32 {
        let count = self.datagrams(toward).saturating_add(1);
        self.expect_seq(toward, count);
        count
    }

    pub(super) const fn held(&self, toward: Toward) -> u32 {
        match toward {
            Toward::Remote => self.held[0],
            Toward::Local => self.held[1],
        }
    }

    pub(super) const fn hold(&mut self, toward: Toward, at: u32) {
        match toward {
            Toward::Remote => self.held[0] = at,
            Toward::Local => self.held[1] = at,
        }
    }

    pub(super) fn local_address(&self) -> IpAddr {
        self.tuple.addresses().0
    }

    pub(super) fn remote_address(&self) -> IpAddr {
        self.tuple.addresses().1
    }

    pub(super) const fn route(&self) -> Route {
        if self.has(flag::INSIDE) {
            Route::Inside
        } else if self.has(flag::TRANSIT) {
            Route::Transit
        } else {
            Route::Egress
        }
    }

    pub(super) fn facts<'n>(&self, called: Option<Called<'n>>) -> FlowFacts<'n> {
        let transport = match Proto::from_number((self.tuple.kind & 0xFF) as u8) {
            Proto::Icmp => Transport::Icmp,
            Proto::Icmpv6 => Transport::Icmpv6,
            Proto::Other(number) => Transport::Other(number),
            Proto::Tcp => Transport::Tcp,
            Proto::Udp => Transport::Udp,
        };
        FlowFacts {
            key: FlowKey {
                transport,
                local: SocketAddr::new(self.local_address(), self.tuple.src_port),
                remote: SocketAddr::new(self.remote_address(), self.tuple.dst_port),
            },
            route: self.route(),
            direction: if self.has(flag::INBOUND) {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            start_seen: self.has(flag::START_SEEN),
            first_at: Timestamp::from_nanos(self.first_at),
            last_at: Timestamp::from_nanos(self.last_at),
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            overlap: self.has(flag::OVERLAP),
            bound_name: called.map(|called| called.name),
            registered: called.map(|called| called.registered),
        }
    }
}

/// How long a flow may be silent before it is forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) tcp: Span,
    pub(super) datagram: Span,
    pub(super) closed: Span,
}

impl Patience {
    /// A TCP flow that never carried payload gets a datagram's patience, so that scans and floods of
    /// SYNs give their places back soon.
    pub(super) const fn deadline(&self, entry: &Entry) -> i64 {
        let span = if entry.has(flag::CLOSED) {
            self.closed
        } else if entry.is_tcp() && entry.bytes_in | entry.bytes_out != 0 {
            self.tcp
        } else {
            self.datagram
        };
        entry.last_at.saturating_add(span.nanos())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_flow_takes_two_cache_lines() {
        assert_eq!(size_of::<super::Entry>(), 128);
    }
}
