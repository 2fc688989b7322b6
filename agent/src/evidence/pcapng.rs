//! Frames as pcapng (draft-ietf-opsawg-pcapng), with comments for whoever opens them.

use super::ring::Kept;
use sekisho_engine::wire::LinkType;

/// Block types: section header, interface description, enhanced packet (draft, sections 4.1 to 4.3).
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Options: comment; user application of a section; resolution of an interface's times.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const RESOLUTION: u16 = 9;
/// An option's length is 16 bits.
const LONGEST_OPTION: usize = 60_000;

/// Writes frames; `note` gives the comment of a frame, if it has one.
#[must_use]
pub fn pcapng(comment: &str, frames: &[Kept], note: impl Fn(&Kept) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    // Byte order, version 1.0, length of the section unknown.
    body.extend(0x1A2B_3C4D_u32.to_le_bytes());
    body.extend(1_u16.to_le_bytes());
    body.extend(0_u16.to_le_bytes());
    body.extend((-1_i64).to_le_bytes());
    option(&mut body, COMMENT, comment.as_bytes());
    option(&mut body, APPLICATION, concat!("sekisho ", env!("CARGO_PKG_VERSION")).as_bytes());
    end_options(&mut body);
    block(&mut out, SECTION, &body);
    let mut links: Vec<LinkType> = frames.iter().map(|kept| kept.link).collect();
    links.sort_unstable();
    links.dedup();
    for link in &links {
        body.clear();
        body.extend(number(*link).to_le_bytes());
        body.extend([0; 2]);
        body.extend(0_u32.to_le_bytes());
        // 10^-9 s.
        option(&mut body, RESOLUTION, &[9]);
        end_options(&mut body);
        block(&mut out, INTERFACE, &body);
    }
    for kept in frames {
        body.clear();
        let interface = links.binary_search(&kept.link).unwrap_or(0);
        body.extend(u32::try_from(interface).unwrap_or(0).to_le_bytes());
        let [high, low] = halves(u64::try_from(kept.at_ns).unwrap_or(0));
        body.extend(high.to_le_bytes());
        body.extend(low.to_le_bytes());
        let captured = u32::try_from(kept.bytes.len()).unwrap_or(u32::MAX);
        body.extend(captured.to_le_bytes());
        body.extend(kept.wire_len.max(captured).to_le_bytes());
        body.extend(&kept.bytes);
        pad(&mut body);
        if let Some(note) = note(kept) {
            option(&mut body, COMMENT, note.as_bytes());
            end_options(&mut body);
        }
        block(&mut out, PACKET, &body);
    }
    out
}

/// High and low 32 bits.
fn halves(value: u64) -> [u32; 2] {
    [value >> 32, value & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX))
}

/// The number of a link type (tcpdump.org/linktypes.html).
const fn number(link: LinkType) -> u16 {
    match link {
        LinkType::Ethernet => 1,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
        LinkType::Null => 0,
        LinkType::RawIp => 101,
        LinkType::Unsupported(number) => number,
    }
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let total = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    out.extend(kind.to_le_bytes());
    out.extend(total);
    out.extend(body);
    out.extend(total);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..LONGEST_OPTION).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_independent_reader_reads_frames_times_and_comments() {
        let kept = |at_ns, link, fill| Kept { at_ns, link, wire_len: 900, bytes: vec![fill; 61] };
        let frames = [
            kept(1_780_000_000_123_456_789, LinkType::RawIp, 0x45),
            kept(1_780_000_001_000_000_001, LinkType::Ethernet, 2),
        ];
        let bytes =
            pcapng("why it was kept", &frames[..1], |_| Some("the frame that decided".into()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let mut capture =
            pcap::Capture::from_file_with_precision(file.path(), pcap::Precision::Nano).unwrap();
        let packet = capture.next_packet().unwrap();
        assert_eq!((packet.header.len, packet.data), (900, &[0x45; 61][..]));
        assert_eq!(
            (packet.header.ts.tv_sec, packet.header.ts.tv_usec),
            (1_780_000_000, 123_456_789)
        );
        assert!(capture.next_packet().is_err());
        // Each link type has its own interface.
        let both = pcapng("", &frames, |_| None);
        assert!(both.windows(4).filter(|w| *w == INTERFACE.to_le_bytes()).count() >= 2);
        assert_eq!(both.len() % 4, 0);
    }
}
