//! The two halves of a capture: what can decide, and everything else. Each frame is in exactly one.
//!
//! A load beyond the end of a frame ends a filter with "no" on both sides, and the frame would be seen
//! by neither. So no term here loads a byte before a length has shown that it is there; the property
//! is tried on random and truncated frames below.

use sekisho_engine::wire::LinkType;

/// Bytes of a frame that the trigger handle keeps: two slots of its ring fit a page (libpcap's
/// `create_ring`, TPACKET_V2: 68 bytes before the frame). Longer frames are the bulk handle's, so that
/// nothing is ever cut short.
pub(super) const TRIGGER_SNAP: i32 = 1_900;

/// Payload of a TCP segment up to which it counts as a message of its own and not as part of a transfer.
const TCP_MESSAGE: u32 = 1_200;
/// Payload of a UDP datagram up to which it counts as a message of its own.
const UDP_MESSAGE: u32 = 512;
/// First four bytes of an HTTP request: GET, POST, PUT, HEAD, CONNECT, OPTIONS.
const METHODS: [u32; 6] =
    [0x4745_5420, 0x504f_5354, 0x5055_5420, 0x4845_4144, 0x434f_4e4e, 0x4f50_5449];

/// Bytes of link header before the IP header, where the network layer's place is known to the filters.
const fn link_header(link: LinkType) -> Option<u32> {
    match link {
        LinkType::Ethernet => Some(14),
        LinkType::RawIp => Some(0),
        LinkType::LinuxSll | LinkType::LinuxSll2 | LinkType::Null | LinkType::Unsupported(_) => {
            None
        }
    }
}

/// Filters of the two handles, trigger first; `None` where frames of this link type can't be told apart.
pub(super) fn filters(link: LinkType, own: Option<&str>) -> Option<[String; 2]> {
    let trigger = trigger(link_header(link)?);
    // Ours comes first: a `vlan` in the operator's filter moves the offsets of all that follows it.
    let own = own.map(|own| format!(" and ({own})")).unwrap_or_default();
    Some([format!("({trigger}){own}"), format!("not ({trigger}){own}")])
}

/// What can decide: flags, messages, hellos and heads, names, tunnels; in the language of pcap-filter(7).
fn trigger(link: u32) -> String {
    let runt = link + 40;
    let (v4, v6) = (v4(link), v6(link));
    format!("len < {runt} or (len <= {TRIGGER_SNAP} and ((ip and ({v4})) or (ip6 and ({v6}))))")
}

/// An IPv4 packet of at least 40 bytes with its link header.
fn v4(link: u32) -> String {
    let header = "((ip[32] & 0xf0) >> 2)";
    let tcp = tcp(
        "ip[33]",
        // Less one, so that an empty segment is the largest number of all.
        &format!("ip[2:2] - 21 - {header}"),
        &format!("len >= {} + {header}", link + 24),
        &format!("20 + {header}"),
        "ip",
    );
    let udp = udp("ip", 20, "ip[2:2] - 28");
    let other = link + 20 + TCP_MESSAGE;
    // Options are too rare to be worth an offset; parts of packets are too many to be worth a wake-up.
    format!(
        "ip[0] != 0x45 or (ip[6:2] & 0x3fff = 0 and \
         ((ip[9] = 6 and ({tcp})) or (ip[9] = 17 and ({udp})) or \
         (ip[9] != 6 and ip[9] != 17 and ip[9] != 50 and ip[9] != 51 and len <= {other})))"
    )
}

/// An IPv6 packet whose fixed header is there.
fn v6(link: u32) -> String {
    let header = "((ip6[52] & 0xf0) >> 2)";
    let tcp = tcp(
        "ip6[53]",
        &format!("ip6[4:2] - 1 - {header}"),
        &format!("len >= {} + {header}", link + 44),
        &format!("40 + {header}"),
        "ip6",
    );
    let udp = udp("ip6", 40, "ip6[4:2] - 8");
    let (runt, other) = (link + 60, link + 40 + TCP_MESSAGE);
    format!(
        "len < {runt} or (ip6[6] = 6 and ({tcp})) or (ip6[6] = 17 and ({udp})) or \
         (ip6[6] != 6 and ip6[6] != 17 and ip6[6] != 44 and ip6[6] != 50 and ip6[6] != 51 and len <= {other})"
    )
}

fn tcp(flags: &str, payload_less_one: &str, has_head: &str, head: &str, ip: &str) -> String {
    let methods: Vec<String> =
        METHODS.iter().map(|method| format!("{ip}[{head}:4] = {method:#x}")).collect();
    format!(
        "{flags} & 7 != 0 or {payload_less_one} < {TCP_MESSAGE} or \
         ({has_head} and ({ip}[{head}:2] = 0x1603 or {}))",
        methods.join(" or ")
    )
}

/// Names, QUIC's long headers, short datagrams; but not the acknowledgements of a QUIC transfer.
fn udp(ip: &str, at: u32, payload: &str) -> String {
    let (to, first) = (at + 2, at + 8);
    format!(
        "{ip}[{at}:2] = 53 or {ip}[{to}:2] = 53 or {ip}[{first}] & 0xc0 = 0xc0 or ({payload} <= {UDP_MESSAGE} and \
         not (({ip}[{at}:2] = 443 or {ip}[{to}:2] = 443) and {ip}[{first}] & 0xc0 = 0x40))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap::{BpfProgram, Capture, Linktype};

    fn compile(link: LinkType, own: Option<&str>) -> [BpfProgram; 2] {
        let dlt = if link == LinkType::RawIp { Linktype(12) } else { Linktype::ETHERNET };
        let dead = Capture::dead(dlt).unwrap();
        filters(link, own).unwrap().map(|filter| dead.compile(&filter, true).expect(&filter))
    }

    fn roll(state: &mut u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    /// A frame that may look like one of ours, or like anything.
    fn forge(state: &mut u64, link: usize) -> Vec<u8> {
        let length = match roll(state) % 4 {
            0 => roll(state) % 100,
            1 => roll(state) % 400,
            _ => roll(state) % 2_400,
        } as usize;
        let mut frame: Vec<u8> = (0..length.max(link)).map(|_| roll(state) as u8).collect();
        let mut put = |at: usize, byte: u8| {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        };
        let v6 = roll(state).is_multiple_of(3);
        if link > 0 && !roll(state).is_multiple_of(10) {
            let tagged = roll(state).is_multiple_of(10);
            let kind: u16 = if tagged {
                0x8100
            } else if v6 {
                0x86dd
            } else {
                0x0800
            };
            put(12, (kind >> 8) as u8);
            put(13, kind as u8);
        }
        let protocols = [6, 6, 6, 17, 17, 1, 47, 50, 58, 255, 0, 44];
        let protocol = protocols[roll(state) as usize % protocols.len()];
        let said = length.saturating_sub(link);
        if v6 {
            put(link, 0x60);
            put(link + 6, protocol);
            put(link + 4, (said.saturating_sub(40) >> 8) as u8);
            put(link + 5, said.saturating_sub(40) as u8);
        } else {
            put(link, if roll(state).is_multiple_of(8) { 0x46 } else { 0x45 });
            put(link + 9, protocol);
            put(link + 2, (said >> 8) as u8);
            put(link + 3, said as u8);
            if !roll(state).is_multiple_of(4) {
                put(link + 6, 0x40);
                put(link + 7, 0);
            }
        }
        frame
    }

    /// The law: for every frame exactly one of the two says yes, however it is cut short.
    #[test]
    fn every_frame_is_in_exactly_one_half() {
        for (link, header) in [(LinkType::Ethernet, 14), (LinkType::RawIp, 0)] {
            let [trigger, bulk] = compile(link, None);
            let (mut state, mut counts) = (7, [0_u32; 2]);
            for nth in 0..200_000 {
                let frame = forge(&mut state, header);
                let said = [trigger.filter(&frame), bulk.filter(&frame)];
                assert!(said[0] != said[1], "{link:?} frame {nth}: {said:?} {frame:02x?}");
                counts[usize::from(said[1])] += 1;
            }
            assert!(counts.iter().all(|count| *count > 10_000), "{link:?} {counts:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_frame_is_in_exactly_one_half() {
        let [trigger, bulk] = compile(LinkType::Ethernet, None);
        let mut state = 11;
        for _ in 0..400 {
            let frame = forge(&mut state, 14);
            for length in 14..frame.len().min(160) {
                let part = &frame[..length];
                assert!(trigger.filter(part) != bulk.filter(part), "{part:02x?}");
            }
        }
    }

    #[test]
    fn the_operators_filter_holds_for_both_halves() {
        let own = "udp or vlan 5";
        let alone = Capture::dead(Linktype::ETHERNET).unwrap().compile(own, true).unwrap();
        let [trigger, bulk] = compile(LinkType::Ethernet, Some(own));
        let mut state = 3;
        for _ in 0..50_000 {
            let frame = forge(&mut state, 14);
            let said = trigger.filter(&frame) || bulk.filter(&frame);
            assert_eq!(said, alone.filter(&frame), "{frame:02x?}");
            assert!(!(trigger.filter(&frame) && bulk.filter(&frame)));
        }
    }

    fn tcp_frame(v6: bool, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        let header = 32_usize;
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((header + payload.len()) as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([1; 32]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(((20 + header + payload.len()) as u16).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([1; 8]);
        }
        frame.extend([0x9c, 0x40, 1, 187, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        frame.extend([1; 12]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn what_can_decide_wakes_at_once_and_transfers_do_not() {
        let [trigger, _] = compile(LinkType::Ethernet, None);
        let hello: Vec<u8> = [0x16, 3, 1, 5, 0xdc].into_iter().chain([0; 1395]).collect();
        let post: Vec<u8> = b"POST /x HTTP/1.1".iter().copied().chain([b'a'; 1300]).collect();
        let bulk: Vec<u8> = [0x17, 3, 3, 5, 0xdc].into_iter().chain([0; 1395]).collect();
        for v6 in [false, true] {
            let wakes = |flags, payload: &[u8]| trigger.filter(&tcp_frame(v6, flags, payload));
            for (flags, payload) in [
                (2, &b""[..]),
                (0x12, b""),
                (0x11, b""),
                (4, b""),
                (0x18, &[7; 16]),
                (0x18, &[7; 1200]),
                (0x10, &hello),
                (0x10, &post),
            ] {
                assert!(wakes(flags, payload), "v6 {v6} flags {flags:#x} {} bytes", payload.len());
            }
            assert!(!wakes(0x10, b""), "an acknowledgement decides nothing");
            assert!(!wakes(0x18, &bulk), "application data of a transfer");
        }
    }
}
