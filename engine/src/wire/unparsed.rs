//! Every reason for not parsing, so that each can be counted.

/// Why a frame gave no packet view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unparsed {
    /// An ARP packet: neighbour traffic, nothing leaves by it.
    Arp,
    /// A fragment other than the first: it carries no ports.
    FragmentTail,
    /// The IP header or an extension header contradicts itself.
    IpMalformed,
    /// The capture ends inside the IP header or its extensions.
    IpTruncated,
    /// The capture ends inside the link header or a VLAN tag.
    LinkTruncated,
    /// The link type is not one we read.
    LinkUnsupported,
    /// The link layer carries something other than IP or ARP.
    NotIp,
    /// The transport header contradicts itself or the IP length.
    TransportMalformed,
    /// The capture ends inside the transport header.
    TransportTruncated,
    /// More VLAN tags than we unwrap.
    VlanTooDeep,
}

impl Unparsed {
    /// Every reason, in the order of [`Unparsed::index`].
    pub const ALL: [Self; 10] = [
        Self::Arp,
        Self::FragmentTail,
        Self::IpMalformed,
        Self::IpTruncated,
        Self::LinkTruncated,
        Self::LinkUnsupported,
        Self::NotIp,
        Self::TransportMalformed,
        Self::TransportTruncated,
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
            Self::FragmentTail => "fragment_tail",
            Self::IpMalformed => "ip_malformed",
            Self::IpTruncated => "ip_truncated",
            Self::LinkTruncated => "link_truncated",
            Self::LinkUnsupported => "link_unsupported",
            Self::NotIp => "not_ip",
            Self::TransportMalformed => "transport_malformed",
            Self::TransportTruncated => "transport_truncated",
            Self::VlanTooDeep => "vlan_too_deep",
        }
    }
}
