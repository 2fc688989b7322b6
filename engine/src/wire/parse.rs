//! A frame becomes a packet view.

use etherparse::{TcpSlice, UdpSlice, err::tcp};

use super::{
    Frame, IcmpFacts, PacketView, Piece, Proto, TcpFacts, Unparsed, fast, link,
    network::{self, Network},
    view::{Segment, udp_payload_len},
};

/// Echo reply and request of ICMP (RFC 792), request and reply of ICMPv6 (RFC 4443 §4).
const ICMP_ECHO: [u8; 2] = [0, 8];
const ICMPV6_ECHO: [u8; 2] = [128, 129];

/// An IP packet that is whole, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// A fragment (RFC 791 §3.2, RFC 8200 §4.5).
    Piece(Piece<'a>),
    /// A packet that is not fragmented.
    Whole(PacketView<'a>),
}

/// Reads one frame down to its transport payload.
///
/// Of a fragmented datagram the first piece gives a view; see [`super::Fragments`] for the rest.
///
/// # Errors
/// The reason for which there is nothing to judge; every frame ends in a view or in a reason.
#[inline]
pub fn parse<'a>(frame: &Frame<'a>) -> Result<PacketView<'a>, Unparsed> {
    let ip = link::ip_packet(frame.link, frame.bytes)?;
    if let Some(view) = fast::packet(ip) {
        return Ok(view);
    }
    lax(ip, uncaptured(frame))
}

/// Finds the IP packet in a frame: its bytes, and how many the snap length cut off behind them.
///
/// # Errors
/// The reason for which the frame has none that we could read.
pub fn ip_packet<'a>(frame: &Frame<'a>) -> Result<(&'a [u8], u32), Unparsed> {
    Ok((link::ip_packet(frame.link, frame.bytes)?, uncaptured(frame)))
}

/// Reads an IP packet of which `uncaptured` bytes are missing at its end.
///
/// # Errors
/// The reason for which there is nothing to judge.
pub fn read(ip: &[u8], uncaptured: u32) -> Result<Packet<'_>, Unparsed> {
    if let Some(view) = fast::packet(ip) {
        return Ok(Packet::Whole(view));
    }
    let network = network::read(ip, uncaptured)?;
    Ok(match network.part {
        Some(part) => Packet::Piece(Piece::new(&network, part)),
        None => Packet::Whole(view(&network)?),
    })
}

fn uncaptured(frame: &Frame<'_>) -> u32 {
    let cut = u64::from(frame.wire_len).saturating_sub(frame.bytes.len() as u64);
    u32::try_from(cut).unwrap_or(u32::MAX)
}

/// The general path: options, extension headers, fragments, every transport.
///
/// `uncaptured` is how much the snap length cut off the end of the frame.
pub(super) fn lax(ip: &[u8], uncaptured: u32) -> Result<PacketView<'_>, Unparsed> {
    let mut network = network::read(ip, uncaptured)?;
    if let Some(part) = network.part {
        // What follows the header of a later fragment is data.
        if part.offset != 0 {
            return Err(Unparsed::FragmentTail);
        }
        network.walk()?;
    }
    view(&network)
}

/// Reads the transport of a packet whose extension headers were walked.
pub(super) fn view<'a>(network: &Network<'a>) -> Result<PacketView<'a>, Unparsed> {
    let segment = transport(network)?;
    Ok(PacketView {
        src: network.src,
        dst: network.dst,
        src_port: segment.ports.0,
        dst_port: segment.ports.1,
        proto: network.proto(),
        tcp: segment.tcp,
        icmp: segment.icmp,
        payload: segment.payload,
        ip_payload_len: segment.stated,
        truncated: (segment.payload.len() as u64) < u64::from(segment.stated),
        fragment: network.part.is_some(),
    })
}

fn transport<'a>(network: &Network<'a>) -> Result<Segment<'a>, Unparsed> {
    let too_short =
        if network.is_cut() { Unparsed::TransportTruncated } else { Unparsed::TransportMalformed };
    match network.proto() {
        Proto::Tcp => {
            let slice = TcpSlice::from_slice(network.body).map_err(|error| match error {
                tcp::HeaderSliceError::Len(_) => too_short,
                tcp::HeaderSliceError::Content(_) => Unparsed::TransportMalformed,
            })?;
            Ok(tcp_segment(&slice, network.stated))
        }
        Proto::Udp => {
            let slice = UdpSlice::from_slice_lax(network.body).map_err(|_| too_short)?;
            Ok(Segment {
                ports: (slice.source_port(), slice.destination_port()),
                tcp: None,
                icmp: None,
                payload: slice.payload(),
                stated: udp_payload_len(slice.length(), network.stated),
            })
        }
        // Not the ICMP slices: they refuse a timestamp message of unusual length, which would hide it.
        proto @ (Proto::Icmp | Proto::Icmpv6) => {
            icmp_segment(proto, network.body, network.stated).ok_or(too_short)
        }
        Proto::Other(_) => {
            let (payload, stated) = (network.body, network.stated);
            Ok(Segment { ports: (0, 0), tcp: None, icmp: None, payload, stated })
        }
    }
}

fn tcp_segment<'a>(slice: &TcpSlice<'a>, stated: u32) -> Segment<'a> {
    let header_len = slice.header_slice().len() as u32;
    Segment {
        ports: (slice.source_port(), slice.destination_port()),
        tcp: Some(TcpFacts {
            syn: slice.syn(),
            ack: slice.ack(),
            fin: slice.fin(),
            rst: slice.rst(),
            psh: slice.psh(),
            seq: slice.sequence_number(),
            ack_no: slice.acknowledgment_number(),
        }),
        icmp: None,
        payload: slice.payload(),
        stated: stated.saturating_sub(header_len),
    }
}

/// The payload of an ICMP message starts after its eight-byte head (RFC 792, RFC 4443).
fn icmp_segment(proto: Proto, body: &[u8], stated: u32) -> Option<Segment<'_>> {
    let ([kind, code, _, _, i0, i1, s0, s1], payload) = body.split_first_chunk::<8>()?;
    let echo = match proto {
        Proto::Icmp => ICMP_ECHO.contains(kind),
        _ => ICMPV6_ECHO.contains(kind),
    };
    let (id, seq) = if echo {
        (u16::from_be_bytes([*i0, *i1]), u16::from_be_bytes([*s0, *s1]))
    } else {
        (0, 0)
    };
    let icmp = Some(IcmpFacts { kind: *kind, code: *code, id, seq });
    Some(Segment { ports: (0, 0), tcp: None, icmp, payload, stated: stated.saturating_sub(8) })
}
