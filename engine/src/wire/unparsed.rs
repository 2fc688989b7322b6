//! Every reason for not parsing, so that each can be counted.

/// Why a frame, a packet inside a tunnel or a fragment was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unparsed {
    /// An ARP packet: neighbour traffic, nothing leaves by it.
    Arp,
    /// A fragment that came before with the same bytes (RFC 8200 §4.5): nothing is lost by it.
    FragmentDuplicate,
    /// Fragments of a datagram that gave way because too much was held.
    FragmentEvicted,
    /// Fragments of a datagram that was not whole in time (RFC 1122 §3.3.2, RFC 8200 §4.5).
    FragmentExpired,
    /// A fragment that no datagram can have: empty, beyond 65,535 bytes, or of uneven length.
    FragmentMalformed,
    /// Fragments of a datagram in which two overlap (RFC 5722), those that came later too.
    FragmentOverlap,
    /// A later fragment, without ports, that cannot be held: cut by the snap length.
    FragmentTail,
    /// Fragments of a datagram that has more of them than are held.
    FragmentTooMany,
    /// More extension headers than we walk.
    IpExtensions,
    /// The IP header or an extension header contradicts itself.
    IpMalformed,
    /// The capture ends inside the IP header or its extensions.
    IpTruncated,
    /// The capture ends inside the link header, a VLAN tag or an MPLS label.
    LinkTruncated,
    /// The link type is not one we read.
    LinkUnsupported,
    /// More MPLS labels than we unwrap, or a pseudowire within a pseudowire.
    MplsTooDeep,
    /// The link layer carries something other than IP or ARP.
    NotIp,
    /// The transport header contradicts itself or the IP length.
    TransportMalformed,
    /// The capture ends inside the transport header.
    TransportTruncated,
    /// A tunnel's header contradicts itself or what it carries.
    TunnelMalformed,
    /// A tunnel inside as many as we open.
    TunnelTooDeep,
    /// The capture ends inside a tunnel's header.
    TunnelTruncated,
    /// A tunnel from outside whose far end nothing was sent to: what it carries could be invented.
    TunnelUnasked,
    /// A tunnel that carries what we do not read: ERSPAN, PPP, source-routed GRE.
    TunnelUnread,
    /// More VLAN tags than we unwrap.
    VlanTooDeep,
}

impl Unparsed {
    /// Every reason, in the order of [`Unparsed::index`].
    pub const ALL: [Self; 23] = [
        Self::Arp,
        Self::FragmentDuplicate,
        Self::FragmentEvicted,
        Self::FragmentExpired,
        Self::FragmentMalformed,
        Self::FragmentOverlap,
        Self::FragmentTail,
        Self::FragmentTooMany,
        Self::IpExtensions,
        Self::IpMalformed,
        Self::IpTruncated,
        Self::LinkTruncated,
        Self::LinkUnsupported,
        Self::MplsTooDeep,
        Self::NotIp,
        Self::TransportMalformed,
        Self::TransportTruncated,
        Self::TunnelMalformed,
        Self::TunnelTooDeep,
        Self::TunnelTruncated,
        Self::TunnelUnasked,
        Self::TunnelUnread,
        Self::VlanTooDeep,
    ];

    /// Position in [`Unparsed::ALL`], so that counters can be an array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Stable snake-case name for metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::FragmentDuplicate => "fragment_duplicate",
            Self::FragmentEvicted => "fragment_evicted",
            Self::FragmentExpired => "fragment_expired",
            Self::FragmentMalformed => "fragment_malformed",
            Self::FragmentOverlap => "fragment_overlap",
            Self::FragmentTail => "fragment_tail",
            Self::FragmentTooMany => "fragment_too_many",
            Self::IpExtensions => "ip_extensions",
            Self::IpMalformed => "ip_malformed",
            Self::IpTruncated => "ip_truncated",
            Self::LinkTruncated => "link_truncated",
            Self::LinkUnsupported => "link_unsupported",
            Self::MplsTooDeep => "mpls_too_deep",
            Self::NotIp => "not_ip",
            Self::TransportMalformed => "transport_malformed",
            Self::TransportTruncated => "transport_truncated",
            Self::TunnelMalformed => "tunnel_malformed",
            Self::TunnelTooDeep => "tunnel_too_deep",
            Self::TunnelTruncated => "tunnel_truncated",
            Self::TunnelUnasked => "tunnel_unasked",
            Self::TunnelUnread => "tunnel_unread",
            Self::VlanTooDeep => "vlan_too_deep",
        }
    }
}
