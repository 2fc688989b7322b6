//! Has the guardian's hand stand ready while a frame is judged that may well decide.

use super::Judge;
use sekisho_engine::wire::{Frame, parse};

/// Least time between two alerts: a host that speaks many protocols unknown here pays 0.25 ms of one core each time.
const PAUSE_NS: i64 = 20_000_000;
/// How what is spoken most begins: TLS records (type and major version), HTTP requests and answers, SSH.
const TLS_TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x18;
const TEXTS: [&[u8]; 9] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"CONN", b"OPTI", b"HTTP", b"PRI ", b"SSH-"];

/// When the hand was alerted last.
#[derive(Default)]
pub(super) struct Alertness {
    last_ns: i64,
}

impl Judge {
    /// Wakes the guardian's hand for a payload of no usual protocol: it takes as long to wake as the frame to judge.
    #[inline]
    pub(super) fn alert(&mut self, frame: &Frame<'_>) {
        let Some(cut) = &mut self.cut else { return };
        let since = frame.at_ns.wrapping_sub(self.alertness.last_ns);
        // A clock that was set back must not silence it.
        if (0..PAUSE_NS).contains(&since) || !payload(frame).is_some_and(is_unusual) {
            return;
        }
        self.alertness.last_ns = frame.at_ns;
        cut.alert();
    }
}

fn is_unusual(payload: &[u8]) -> bool {
    match payload {
        [] => false,
        [kind, 3, ..] if TLS_TYPES.contains(kind) => false,
        _ => !TEXTS.iter().any(|text| payload.starts_with(text)),
    }
}

/// What a TCP segment carries.
fn payload<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    parse(frame).ok().filter(|view| view.tcp.is_some()).map(|view| view.payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_engine::wire::LinkType;

    fn frame(payload: &[u8], v6: bool) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        let tcp = [&[0; 12][..], &[0x50], &[0; 7], payload].concat();
        if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64]);
            bytes.extend([0; 32]);
        } else {
            bytes.extend([0x08, 0x00, 0x45, 0, 0, 20 + tcp.len() as u8, 0, 0, 0, 0, 64, 6]);
            bytes.extend([0; 10]);
        }
        bytes.extend(tcp);
        bytes.extend([0; 6]);
        bytes
    }

    #[test]
    fn only_what_no_usual_protocol_begins_with_is_worth_an_alert() {
        let unusual = |payload: &[u8], v6| {
            let bytes = frame(payload, v6);
            let frame = Frame { at_ns: 0, link: LinkType::Ethernet, wire_len: 0, bytes: &bytes };
            super::payload(&frame).map(is_unusual)
        };
        for v6 in [false, true] {
            assert_eq!(unusual(b"", v6), Some(false), "padding is no payload");
            assert_eq!(unusual(b"\x16\x03\x01\x02\x00", v6), Some(false));
            assert_eq!(unusual(b"GET / HTTP/1.1\r\n", v6), Some(false));
            assert_eq!(unusual(b"SSH-2.0-x", v6), Some(false));
            assert_eq!(unusual(&[0x9a, 3, 7, 1], v6), Some(true));
        }
        let bytes = frame(b"x", false);
        for length in 0..bytes.len() {
            let frame =
                Frame { at_ns: 0, link: LinkType::RawIp, wire_len: 0, bytes: &bytes[..length] };
            let _no_panic = super::payload(&frame);
        }
    }
}
