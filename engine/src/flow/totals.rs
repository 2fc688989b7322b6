//! What the flow stage counted.

use crate::wire::Unparsed;

/// Counters since the start; none of them ever falls but `live`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames taken.
    pub frames: u64,
    /// Bytes on the wire of all frames.
    pub bytes: u64,
    /// Frames, fragments and packets inside tunnels that gave no packet, by [`Unparsed::index`].
    pub unparsed: [u64; Unparsed::ALL.len()],
    /// Frames whose time lay before that of an earlier frame, and was taken as that.
    pub backward: u64,
    /// Flows started.
    pub flows: u64,
    /// Flows tracked now.
    pub live: u64,
    /// Payload bytes from local ends to ends that are not inside.
    pub bytes_out: u64,
    /// Flows forgotten before their time because the table was full.
    pub evicted_flows: u64,
    /// Heads given up because too many were held.
    pub evicted_heads: u64,
    /// Names given up because too many were bound.
    pub evicted_names: u64,
    /// Heads with a hole in the captured bytes.
    pub head_gaps: u64,
    /// Directions whose first bytes were sent again with other content.
    pub head_overlaps: u64,
    /// Segments of a direction's first bytes that were sent again and looked at for themselves.
    pub head_repeats: u64,
    /// Datagrams put together from fragments.
    pub reassembled: u64,
    /// Packets read inside tunnels; [`Totals::bytes_out`] counts their tunnel, not them.
    pub tunnelled: u64,
}

impl Totals {
    /// What of the first bytes of streams could not be read as it was sent, by reason.
    #[must_use]
    pub const fn heads(&self) -> [(&'static str, u64); 3] {
        [
            ("head_gap", self.head_gaps),
            ("head_overlap", self.head_overlaps),
            ("head_repeated", self.head_repeats),
        ]
    }

    /// Entries evicted, by table, in the order of the names.
    #[must_use]
    pub const fn evicted(&self) -> [(&'static str, u64); 3] {
        [
            ("flows", self.evicted_flows),
            ("heads", self.evicted_heads),
            ("names", self.evicted_names),
        ]
    }
}
