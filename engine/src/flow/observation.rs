//! Observations: the facts that the flow stage hands to the learning and detecting stages.

use sekisho_schema::finding::Direction;
use sekisho_schema::{FlowKey, Timestamp};
use std::net::IpAddr;

/// Where a flow runs, seen from the perimeter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Between the inside and the outside.
    Egress,
    /// Both ends inside.
    Inside,
    /// Neither end inside: `local` is then the end that spoke first.
    Transit,
}

/// The way that a packet goes within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From the local to the remote end.
    Remote,
    /// From the remote to the local end.
    Local,
}

/// Where a name was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// HTTP Host field, absolute-form target or CONNECT authority.
    Host,
    /// Server name of a QUIC Initial.
    Quic,
    /// Server name of a TLS ClientHello.
    Sni,
}

/// What is known of the flow at the moment of an observation.
#[derive(Clone, Copy, Debug)]
pub struct FlowFacts<'a> {
    /// The flow, oriented local to remote.
    pub key: FlowKey,
    /// Where it runs.
    pub route: Route,
    /// Who spoke first.
    pub direction: Direction,
    /// Whether the TCP handshake's first packet was seen (always true for datagrams).
    pub start_seen: bool,
    /// When its first packet was seen.
    pub first_at: Timestamp,
    /// When its last packet so far was seen.
    pub last_at: Timestamp,
    /// Payload bytes from the local end so far, by the headers.
    pub bytes_out: u64,
    /// Payload bytes from the remote end so far.
    pub bytes_in: u64,
    /// The name that a DNS answer bound to the remote address for this local address, if still valid.
    pub bound_name: Option<&'a str>,
}

/// A fact the engine saw.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Kernel or capture time of the frame behind it.
    pub at: Timestamp,
    /// Number of the frame behind it, from 1.
    pub frame: u64,
    /// The flow it belongs to.
    pub flow: FlowFacts<'a>,
    /// The fact.
    pub kind: ObservationKind<'a>,
}

/// The kinds of fact.
#[derive(Clone, Copy, Debug)]
pub enum ObservationKind<'a> {
    /// A DNS answer bound an address to a name (one observation for each address).
    Answer {
        /// The name that was asked for, not the end of a CNAME chain.
        name: &'a str,
        /// The address it was given.
        address: IpAddr,
    },
    /// The local end sent payload after at least one second without any: the unit of rhythm.
    Burst,
    /// The flow ended or was forgotten.
    Ended,
    /// The contiguous first payload bytes of one direction. Told again with more bytes while the answer is [`Appetite::More`].
    Head {
        /// The direction that they travel.
        toward: Toward,
        /// The bytes, from the first of that direction.
        bytes: &'a [u8],
    },
    /// A server name was read in the flow.
    Name {
        /// The name, lower case, without trailing dot.
        name: &'a str,
        /// Where it was read.
        source: NameSource,
    },
    /// A DNS question left the local end.
    Query {
        /// The name asked for, lower case, without trailing dot.
        name: &'a str,
        /// The type asked for (IANA DNS RR types).
        qtype: u16,
    },
    /// The first packet of the flow.
    Started,
    /// Payload left the local end: told for each 64 KiB, each second of sending, and at the end of the flow.
    Volume {
        /// Payload bytes toward the remote end since the last such observation of this flow.
        bytes_out: u64,
    },
}

/// What the observer of a [`ObservationKind::Head`] wants next; ignored for other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Seen enough of this direction's head.
    Enough,
    /// Wants the head again when it has grown.
    More,
}
