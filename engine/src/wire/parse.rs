//! A frame becomes a packet view.

use std::net::IpAddr;

use etherparse::{
    Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice, UdpSlice,
    err::{Layer, ip::LaxHeaderSliceError, packet::SliceError, tcp},
};

use super::{
    Frame, PacketView, Proto, TcpFacts, Unparsed, fast, link,
    view::{Segment, udp_payload_len},
};

/// Reads one frame down to its transport payload.
///
/// # Errors
/// The reason for which there is nothing to judge; every frame ends in a view or in a reason.
#[inline]
pub fn parse<'a>(frame: &Frame<'a>) -> Result<PacketView<'a>, Unparsed> {
    let ip = link::ip_packet(frame.link, frame.bytes)?;
    if let Some(view) = fast::packet(ip) {
        return Ok(view);
    }
    let uncaptured = u64::from(frame.wire_len).saturating_sub(frame.bytes.len() as u64);
    lax(ip, u32::try_from(uncaptured).unwrap_or(u32::MAX))
}

/// What the IP layer says, before the transport is read.
struct Network<'a> {
    src: IpAddr,
    dst: IpAddr,
    proto: Proto,
    body: &'a [u8],
    /// Length of `body` as the headers state it.
    stated: u32,
    fragment: bool,
}

/// The general path: options, extension headers, fragments, every transport.
///
/// `uncaptured` is how much the snap length cut off the end of the frame.
pub(super) fn lax(ip: &[u8], uncaptured: u32) -> Result<PacketView<'_>, Unparsed> {
    let sliced = LaxSlicedPacket::from_ip(ip).map_err(|error| match error {
        LaxHeaderSliceError::Len(_) => Unparsed::IpTruncated,
        LaxHeaderSliceError::Content(_) => Unparsed::IpMalformed,
    })?;
    let network = network(&sliced, uncaptured)?;
    let segment = transport(&network, sliced.transport)?;
    Ok(PacketView {
        src: network.src,
        dst: network.dst,
        src_port: segment.ports.0,
        dst_port: segment.ports.1,
        proto: network.proto,
        tcp: segment.tcp,
        payload: segment.payload,
        ip_payload_len: segment.stated,
        truncated: (segment.payload.len() as u64) < u64::from(segment.stated),
        fragment: network.fragment,
    })
}

fn network<'a>(sliced: &LaxSlicedPacket<'a>, uncaptured: u32) -> Result<Network<'a>, Unparsed> {
    let (src, dst, tail, stated): (IpAddr, IpAddr, bool, Option<u32>) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(v4)) => {
            let header = v4.header();
            let extension = v4.extensions().auth.map_or(0, |auth| auth.slice().len());
            let headers = (header.slice().len() + extension) as u32;
            // A total length below the header's own is what segmentation offload leaves behind.
            let total = u32::from(header.total_len());
            let stated =
                (total >= header.slice().len() as u32).then_some(total.saturating_sub(headers));
            let tail = header.fragments_offset().value() != 0;
            (header.source_addr().into(), header.destination_addr().into(), tail, stated)
        }
        Some(LaxNetSlice::Ipv6(v6)) => {
            let header = v6.header();
            let extensions = v6.extensions();
            let total = u32::from(header.payload_length());
            let stated =
                (total != 0).then_some(total.saturating_sub(extensions.slice().len() as u32));
            let tail = extensions.clone().into_iter().any(|extension| {
                matches!(extension, Ipv6ExtensionSlice::Fragment(f) if f.fragment_offset().value() != 0)
            });
            (header.source_addr().into(), header.destination_addr().into(), tail, stated)
        }
        Some(LaxNetSlice::Arp(_)) | None => return Err(Unparsed::NotIp),
    };
    let payload = sliced.ip_payload().ok_or(Unparsed::NotIp)?;
    // What follows the header of a later fragment is data, so this comes before the chain's errors.
    if tail {
        return Err(Unparsed::FragmentTail);
    }
    let captured = u32::try_from(payload.payload.len()).unwrap_or(u32::MAX);
    let stated = stated.unwrap_or_else(|| captured.saturating_add(uncaptured));
    if let Some((error, layer)) = &sliced.stop_err
        && is_extension(*layer)
    {
        return Err(match error {
            SliceError::Len(_) if captured < stated => Unparsed::IpTruncated,
            _ => Unparsed::IpMalformed,
        });
    }
    let proto = Proto::from_number(payload.ip_number.0);
    Ok(Network { src, dst, proto, body: payload.payload, stated, fragment: payload.fragmented })
}

const fn is_extension(layer: Layer) -> bool {
    matches!(
        layer,
        Layer::IpAuthHeader
            | Layer::Ipv6ExtHeader
            | Layer::Ipv6HopByHopHeader
            | Layer::Ipv6DestOptionsHeader
            | Layer::Ipv6RouteHeader
            | Layer::Ipv6FragHeader
    )
}

/// Reads the transport; the slice is absent for a first fragment, which is then sliced here.
fn transport<'a>(
    network: &Network<'a>,
    sliced: Option<TransportSlice<'a>>,
) -> Result<Segment<'a>, Unparsed> {
    let too_short = if (network.body.len() as u64) < u64::from(network.stated) {
        Unparsed::TransportTruncated
    } else {
        Unparsed::TransportMalformed
    };
    match network.proto {
        Proto::Tcp => {
            let slice = match sliced {
                Some(TransportSlice::Tcp(slice)) => slice,
                _ => TcpSlice::from_slice(network.body).map_err(|error| match error {
                    tcp::HeaderSliceError::Len(_) => too_short,
                    tcp::HeaderSliceError::Content(_) => Unparsed::TransportMalformed,
                })?,
            };
            Ok(tcp_segment(&slice, network.stated))
        }
        Proto::Udp => {
            let slice = match sliced {
                Some(TransportSlice::Udp(slice)) => slice,
                _ => UdpSlice::from_slice_lax(network.body).map_err(|_| too_short)?,
            };
            Ok(Segment {
                ports: (slice.source_port(), slice.destination_port()),
                tcp: None,
                payload: slice.payload(),
                stated: udp_payload_len(slice.length(), network.stated),
            })
        }
        // Not the ICMP slices: they refuse a timestamp message of unusual length, which would hide it.
        Proto::Icmp | Proto::Icmpv6 => icmp_segment(network.body, network.stated).ok_or(too_short),
        Proto::Other(_) => {
            Ok(Segment { ports: (0, 0), tcp: None, payload: network.body, stated: network.stated })
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
        payload: slice.payload(),
        stated: stated.saturating_sub(header_len),
    }
}

/// The payload of an ICMP message starts after its eight-byte head (RFC 792, RFC 4443).
fn icmp_segment(body: &[u8], stated: u32) -> Option<Segment<'_>> {
    let (_, payload) = body.split_at_checked(8)?;
    Some(Segment { ports: (0, 0), tcp: None, payload, stated: stated.saturating_sub(8) })
}
