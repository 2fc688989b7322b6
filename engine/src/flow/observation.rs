//! Observations: the facts that the flow stage hands to the learning and detecting stages.

use crate::app::dns::DnsMessage;
use crate::app::hello::{Certificate, ClientHello, ServerHello};
use crate::app::http_head::{RequestHead, ResponseHead};
use crate::app::ssh::SshHello;
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

impl Toward {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
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
    /// Target of a SOCKS request.
    Socks,
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
    /// Whether the TCP handshake's first packet was seen (always true for datagrams). Of a head that
    /// is told although bytes before it are missing it is false: where that begins was not seen.
    pub start_seen: bool,
    /// When its first packet was seen.
    pub first_at: Timestamp,
    /// When its last packet so far was seen.
    pub last_at: Timestamp,
    /// Payload bytes from the local end so far, by the headers.
    pub bytes_out: u64,
    /// Payload bytes from the remote end so far.
    pub bytes_in: u64,
    /// Whether a stream's first bytes were sent again with other content; the first are believed.
    pub overlap: bool,
    /// The name that a DNS answer bound to the remote address for this local address, if still valid.
    pub bound_name: Option<&'a str>,
    /// What of that name somebody registered.
    pub registered: Option<&'a str>,
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
    /// The certificate that a TLS server of version 1.2 or older presented.
    Certificate(&'a Certificate<'a>),
    /// An ICMP or ICMPv6 echo.
    Echo {
        /// The direction that it travels.
        toward: Toward,
        /// Whether it is a request, else a reply.
        request: bool,
        /// The identifier that pairs requests and replies.
        id: u16,
        /// The sequence number.
        seq: u16,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A TLS client's hello, in a stream or in QUIC.
    Hello(&'a ClientHello<'a>),
    /// A whole DNS message, question or answer. Told before the names and addresses in it.
    Message {
        /// The direction that it travels.
        toward: Toward,
        /// The message.
        message: &'a DnsMessage<'a>,
    },
    /// An HTTP request's head was read. Told again with more of the body while the answer is
    /// [`Appetite::More`].
    Request {
        /// The direction that it travels.
        toward: Toward,
        /// The head, and what is there of the body.
        head: &'a RequestHead<'a>,
    },
    /// An HTTP response's head was read. Told again with more of the body while the answer is
    /// [`Appetite::More`].
    Response {
        /// The direction that it travels.
        toward: Toward,
        /// The head, and what is there of the body.
        head: &'a ResponseHead<'a>,
    },
    /// A TLS server's hello.
    ServerHello(&'a ServerHello<'a>),
    /// An SSH identification or offer.
    Ssh {
        /// The direction that it travels.
        toward: Toward,
        /// What was said.
        hello: &'a SshHello<'a>,
    },
    /// The local end sent payload after at least one second without any: the unit of rhythm.
    Burst,
    /// The flow ended or was forgotten.
    Ended,
    /// The contiguous first payload bytes of one direction, in the order that they were sent
    /// whatever the order they came in; of datagrams each of the first six. Told again with more
    /// bytes while the answer is [`Appetite::More`], datagrams excepted.
    ///
    /// Behind the request that opens a tunnel through a proxy (`CONNECT`, SOCKS), and behind its
    /// answer, a direction begins anew: its head is told again with the tunnelled bytes. Where first
    /// bytes are missing, the first that came behind them is told at once, in a flow whose facts say
    /// that its start was not seen; and the head itself should the missing bytes still come.
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
    /// Payload went: told for each 64 KiB that the local end sends, each second of its sending, each
    /// 16 MiB that come, and at the end of the flow.
    Volume {
        /// Payload bytes toward the remote end since the last such observation of this flow.
        bytes_out: u64,
        /// Payload bytes from the remote end since then; in units of 64 KiB, but to the byte at the end.
        bytes_in: u64,
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
