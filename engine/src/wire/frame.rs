//! What a capture hands to the engine.

/// Bytes as captured, with the time and the length they had on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Capture time in nanoseconds since the Unix epoch, UTC.
    pub at_ns: i64,
    /// What the first bytes are.
    pub link: LinkType,
    /// Length on the wire, which the snap length may have cut.
    pub wire_len: u32,
    /// The captured bytes, link header first.
    pub bytes: &'a [u8],
}

/// The link layer a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkType {
    /// Ethernet II, with or without VLAN tags.
    Ethernet,
    /// Linux cooked capture, version 1 (16-byte header).
    LinuxSll,
    /// Linux cooked capture, version 2 (20-byte header).
    LinuxSll2,
    /// BSD loopback: a four-byte address family, in either byte order.
    Null,
    /// An IPv4 or IPv6 header comes first.
    RawIp,
    /// A link type we do not read, with its number.
    Unsupported(u16),
}

impl LinkType {
    /// Maps a libpcap data-link or pcap-file link type number (tcpdump.org/linktypes.html).
    #[must_use]
    pub const fn from_dlt(dlt: i32) -> Self {
        match dlt {
            1 => Self::Ethernet,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            0 | 108 => Self::Null,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            other => Self::Unsupported((other & 0xFFFF) as u16),
        }
    }
}
