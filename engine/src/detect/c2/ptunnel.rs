//! `c2.ptunnel`: streams or packets inside ICMP echoes.
//!
//! Three forms, in requests and replies only (other ICMP messages carry IP headers by right: 2,803 of
//! them in 5,716 public payloads):
//! * ptunnel's header, 28 bytes, big-endian: u32 magic, u32 address, u32 port, u32 state (0 to 4, and
//!   bit 30 for the client or bit 31 for the proxy), u32 acknowledgement, u32 length of the data, u16
//!   sequence, u16 tunnel (`utoni/ptunnel-ng`, `src/pkt.h`, `src/ptunnel.h`). The header agrees with
//!   itself whatever the magic is: 2^-70 by chance.
//! * The magic alone, `D5200880` (ptunnel; Emerging Threats 2016145, 2016146) or `DEADC0DE`
//!   (ptunnel-ng): suspect.
//! * A whole IPv4 packet: version, total length equal to the payload, header checksum: 2^-40. One is
//!   suspect, a second and different one of the inside end proves.
//!
//! Only an inside end's requests prove: a kernel echoes what a stranger sends, so a reply is only
//! believed where it differs from the request that it answers. What evades it: encryption of the
//! whole payload; that is left to volume and rhythm.
//!
//! Measured: found in the public capture that holds a tunnel of whole packets, at its second frame;
//! 0 findings in the other echoes of the public captures.

use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, is_own_word, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::codec::digest;
use super::framework::lesser;
use super::telling::{be32, hex};
use crate::flow::{Appetite, Observation, ObservationKind, Route};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, FlowKey, Grade, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.ptunnel",
    reads: reads::ECHO,
    weight: Weight::Decides,
    build: |setup| Ok(Box::new(Ptunnel::new(setup)?)),
};

/// Echo flows watched at once.
const FLOWS: usize = 1024;
/// Requests of a flow that are remembered, to tell an echo from an answer.
const REQUESTS: usize = 8;
/// A tunnel that goes on is told again after this span.
const AGAIN: Span = Span::from_secs(10);

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct PtunnelSettings {
    /// First words of a payload that are known.
    magics: Vec<u32>,
    /// Longest data behind a header.
    most_data: u32,
}

impl Default for PtunnelSettings {
    fn default() -> Self {
        Self { magics: vec![0xD520_0880, 0xDEAD_C0DE], most_data: 1024 }
    }
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A header of ptunnel that agrees with itself.
    Header { magic: u32, to: Ipv4Addr, port: u16, state: u8, from_proxy: bool, data: u32 },
    /// A known magic, and nothing else that fits.
    Magic(u32),
    /// A whole IPv4 packet.
    Packet { from: Ipv4Addr, to: Ipv4Addr, protocol: u8 },
}

fn header(payload: &[u8], settings: &PtunnelSettings) -> Option<Form> {
    const LENGTH: usize = 28;
    const CLIENT: u32 = 1 << 30;
    const PROXY: u32 = 1 << 31;
    const LAST_STATE: u32 = 4;
    let [magic, address, port, state, _, data] = [0, 4, 8, 12, 16, 20].map(|at| be32(payload, at));
    let (magic, address, port, state, data) = (magic?, address?, port?, state?, data?);
    let flag = state & (CLIENT | PROXY);
    let after = payload.len().checked_sub(LENGTH)?;
    let stated = usize::try_from(data).ok()?;
    let fits = (1..=0xFFFF).contains(&port)
        && (flag == CLIENT || flag == PROXY)
        && state ^ flag <= LAST_STATE
        && data <= settings.most_data
        // The sender fills up to an even length.
        && (stated..=stated + 1).contains(&after);
    fits.then(|| Form::Header {
        magic,
        to: Ipv4Addr::from_bits(address),
        port: port as u16,
        state: (state ^ flag) as u8,
        from_proxy: flag == PROXY,
        data,
    })
}

/// Reads a whole IPv4 packet (RFC 791 §3.1) of a protocol that is in use.
fn packet(payload: &[u8]) -> Option<Form> {
    const IN_USE: [u8; 12] = [1, 2, 4, 6, 17, 41, 47, 50, 51, 58, 89, 132];
    let [first, _, l0, l1] = *payload.first_chunk()?;
    let header = payload.get(..usize::from(first & 15) * 4).filter(|header| header.len() >= 20)?;
    if first >> 4 != 4 || usize::from(u16::from_be_bytes([l0, l1])) != payload.len() {
        return None;
    }
    let sum: u32 =
        header.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    if (sum & 0xFFFF) + (sum >> 16) != 0xFFFF {
        return None;
    }
    let protocol = *payload.get(9)?;
    IN_USE.contains(&protocol).then_some(())?;
    Some(Form::Packet {
        from: Ipv4Addr::from_bits(be32(payload, 12)?),
        to: Ipv4Addr::from_bits(be32(payload, 16)?),
        protocol,
    })
}

fn form(payload: &[u8], settings: &PtunnelSettings) -> Option<Form> {
    let magic = be32(payload, 0)?;
    header(payload, settings)
        .or_else(|| packet(payload))
        .or_else(|| settings.magics.contains(&magic).then_some(Form::Magic(magic)))
}

/// What was seen of a flow whose payloads have one of the forms.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Numbers and digests of the last requests that were of a form.
    requests: [(u32, u64); REQUESTS],
    next: usize,
    /// Digest of the inside end's first whole packet.
    first_packet: Option<u64>,
    /// Whether two different ones were seen.
    packets: bool,
    /// When the flow was last told, and whether as proven.
    told: Option<(Timestamp, bool)>,
}

#[derive(Debug)]
struct Ptunnel {
    warrant: Warrant,
    suspect: Warrant,
    settings: PtunnelSettings,
    flows: Bounded<FlowKey, Seen>,
}

impl Ptunnel {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        Ok(Self {
            warrant: setup.warrant.clone(),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            settings: setup.settings()?,
            flows: Bounded::new(FLOWS, setup.seed),
        })
    }
}

impl WireDetector for Ptunnel {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Echo { toward, request, id, seq, payload } = o.kind else {
            return Appetite::Enough;
        };
        let Some(form) = form(payload, &self.settings) else { return Appetite::Enough };
        let Some(seen) = self.flows.upsert(&o.flow.key, Seen::default, |_| true) else {
            return Appetite::Enough;
        };
        let number = u32::from(id) << 16 | u32::from(seq);
        let digest = digest(payload);
        let own = if request {
            if let Some(place) = seen.requests.get_mut(seen.next % REQUESTS) {
                *place = (number, digest);
            }
            seen.next = (seen.next + 1) % REQUESTS;
            is_own_word(toward) || o.flow.route == Route::Inside
        } else {
            let mut asked = seen.requests.iter().filter(|(of, _)| *of == number).peekable();
            // The kernel's echo is no word of anybody's; it was told with the request.
            if asked.clone().any(|(_, of)| *of == digest) {
                return Appetite::Enough;
            }
            is_own_word(toward) && asked.peek().is_some()
        };
        if let Form::Packet { .. } = form
            && own
        {
            let first = *seen.first_packet.get_or_insert(digest);
            seen.packets |= first != digest;
        }
        let proven = own
            && match form {
                Form::Header { .. } => true,
                Form::Magic(_) => false,
                Form::Packet { .. } => seen.packets,
            };
        if seen.told.is_some_and(|(at, as_proven)| as_proven >= proven && o.at.since(at) <= AGAIN) {
            return Appetite::Enough;
        }
        seen.told = Some((o.at, proven));
        let warrant = if proven { &self.warrant } else { &self.suspect };
        emit.push(warrant.pattern(o, own, pattern(form, request, payload)));
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.flows.evicted()
    }
}

/// What is told of a payload of a form.
fn pattern(form: Form, request: bool, payload: &[u8]) -> Pattern {
    let what = match form {
        Form::Header { magic, to, port, state, from_proxy, data } => {
            let side = if from_proxy { "proxy" } else { "client" };
            format!(
                "a ptunnel header that agrees with itself: magic 0x{magic:08x}, a {side}'s message of state {state} for {to}:{port} with {data} bytes of data in a payload of {}",
                payload.len()
            )
        }
        Form::Magic(magic) => format!("ptunnel's magic 0x{magic:08x}"),
        Form::Packet { from, to, protocol } => format!(
            "a whole IPv4 packet from {from} to {to}, protocol {protocol}: its total length is the payload's {} bytes and its checksum fits",
            payload.len()
        ),
    };
    let told = format!("An ICMP echo between {{host}} and {{remote}} carries {what}.");
    let echo = if request { "request" } else { "reply" };
    let facts =
        [("head", hex(payload).into()), ("length", payload.len().into()), ("echo", echo.into())];
    Pattern { told, evidence: vec![Evidence::new("payload", facts)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(magic: u32, port: u32, state: u32, data: u32, after: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [magic, 0x0A00_0002, port, state, 65535, data] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&[0, 1, 0x17, 0x2A]);
        bytes.extend(std::iter::repeat_n(0x55, after));
        bytes
    }

    #[test]
    fn a_header_agrees_with_itself_under_any_magic() {
        let settings = PtunnelSettings::default();
        for magic in [0xD520_0880, 0xDEAD_C0DE, 0x1234_5678] {
            for (after, data) in [(0, 0), (11, 11), (12, 11), (1024, 1024)] {
                let found = form(&tunnel(magic, 22, 0x4000_0002, data, after), &settings);
                assert!(
                    matches!(found, Some(Form::Header { port: 22, state: 2, .. })),
                    "{found:?}"
                );
            }
        }
        for (port, state, data, after) in [
            (0, 0x4000_0000, 0, 0),
            (0x1_0016, 0x4000_0000, 0, 0),
            (22, 0x0000_0000, 0, 0),
            (22, 0xC000_0000, 0, 0),
            (22, 0x4000_0005, 0, 0),
            (22, 0x4000_0002, 10, 12),
            (22, 0x4000_0002, 1025, 1025),
        ] {
            let found = form(&tunnel(1, port, state, data, after), &settings);
            assert_eq!(found, None, "{port} {state:x} {data} {after}");
        }
    }

    #[test]
    fn a_whole_packet_needs_its_length_and_its_checksum() {
        // The first packet inside the public capture of a tunnel: an echo of 10.95.1.1 in 84 bytes.
        let mut payload =
            vec![0x45, 0, 0, 84, 0, 0, 0x40, 0, 0x40, 1, 0x23, 0xE9, 10, 95, 1, 1, 10, 95, 1, 2];
        payload.resize(84, 7);
        let settings = PtunnelSettings::default();
        assert!(matches!(form(&payload, &settings), Some(Form::Packet { protocol: 1, .. })));
        let mut spoilt = payload.clone();
        spoilt[10] ^= 1;
        assert_eq!(form(&spoilt, &settings), None);
        assert_eq!(form(&payload[..83], &settings), None);
    }

    #[test]
    fn pings_of_systems_are_no_tunnels() {
        let settings = PtunnelSettings::default();
        let mut linux = vec![0x3D, 0x0D, 0x12, 0x5A, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
        linux.extend(0x10..0x38);
        let windows: Vec<u8> = (b'a'..=b'w').chain(b'a'..=b'i').collect();
        for payload in [&linux[..], &windows, &[], &[0; 1400], &[0xFF; 56], &[0x45; 69]] {
            assert_eq!(form(payload, &settings), None);
        }
    }

    #[test]
    fn random_payloads_with_a_forged_length_are_no_tunnels() {
        let settings = PtunnelSettings::default();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut payload = [0_u8; 96];
        for _ in 0..200_000 {
            for bytes in payload.as_chunks_mut::<8>().0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *bytes = state.to_le_bytes();
            }
            payload[0] = 0x45;
            payload[2..4].copy_from_slice(&96_u16.to_be_bytes());
            payload[20..24].copy_from_slice(&68_u32.to_be_bytes());
            let found = form(&payload, &settings);
            // One of 65,536 has the right checksum too: that is what a second packet is asked for.
            assert!(matches!(found, None | Some(Form::Packet { .. })), "{found:?}");
        }
    }

    #[test]
    fn shipped_settings_are_the_defaults() {
        let shipped: PtunnelSettings = super::super::framework::shipped("c2.ptunnel");
        assert_eq!(shipped, PtunnelSettings::default());
    }
}
