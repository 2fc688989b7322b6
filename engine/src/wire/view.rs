//! The parsed view of one packet.

use std::net::IpAddr;

/// What the headers of one packet say, and its payload, borrowed from the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketView<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port of TCP and UDP, otherwise 0.
    pub src_port: u16,
    /// Destination port of TCP and UDP, otherwise 0.
    pub dst_port: u16,
    /// Transport protocol after all IP extension headers.
    pub proto: Proto,
    /// The TCP header's facts, for TCP only.
    pub tcp: Option<TcpFacts>,
    /// The ICMP header's facts, for [`Proto::Icmp`] and [`Proto::Icmpv6`] only.
    pub icmp: Option<IcmpFacts>,
    /// Captured bytes above the transport header; for [`Proto::Other`] above the IP header.
    pub payload: &'a [u8],
    /// Length of `payload` as the headers state it, also when the snap length cut it.
    ///
    /// Where the IP header states none (segmentation offload writes 0) it is the length on the wire.
    pub ip_payload_len: u32,
    /// Whether fewer payload bytes were captured than the headers state.
    pub truncated: bool,
    /// Whether this is the first fragment of a fragmented packet.
    pub fragment: bool,
}

/// Transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// ICMP for IPv4 (1).
    Icmp,
    /// ICMP for IPv6 (58).
    Icmpv6,
    /// Any other IP protocol number.
    Other(u8),
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
}

impl Proto {
    /// Maps an IANA protocol number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            other => Self::Other(other),
        }
    }

    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Icmpv6 => 58,
            Self::Other(number) => number,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The part of a TCP header the engine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFacts {
    /// SYN flag.
    pub syn: bool,
    /// ACK flag.
    pub ack: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag.
    pub rst: bool,
    /// PSH flag.
    pub psh: bool,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack_no: u32,
}

/// The part of an ICMP header the engine needs (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpFacts {
    /// Message type; its meaning depends on the IP version.
    pub kind: u8,
    /// Code below the type.
    pub code: u8,
    /// Identifier of an echo request or reply, otherwise 0.
    pub id: u16,
    /// Sequence number of an echo request or reply, otherwise 0.
    pub seq: u16,
}

/// What one transport header says, before it is joined with the addresses.
pub(super) struct Segment<'a> {
    pub(super) ports: (u16, u16),
    pub(super) tcp: Option<TcpFacts>,
    pub(super) icmp: Option<IcmpFacts>,
    pub(super) payload: &'a [u8],
    /// Payload length as the headers state it.
    pub(super) stated: u32,
}

/// Payload length of a datagram whose UDP header states `udp_len` in an IP payload of `ip_len`.
///
/// A length below the header's own, or one that IP contradicts, yields to the IP length.
pub(super) fn udp_payload_len(udp_len: u16, ip_len: u32) -> u32 {
    let within_ip = ip_len.saturating_sub(8);
    if udp_len < 8 { within_ip } else { u32::from(udp_len - 8).min(within_ip) }
}
