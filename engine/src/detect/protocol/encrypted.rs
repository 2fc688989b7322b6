//! `protocol.encrypted`: a connection that is enciphered from its first byte, without any handshake in
//! clear.
//!
//! The first segment of the client is looked at as a censor does it (Wu et al., "How the Great Firewall
//! of China Detects and Blocks Fully Encrypted Traffic", USENIX Security 2023): it counts as enciphered
//! unless Ex1 it has at most 3.4 or at least 4.6 set bits a byte, Ex2 its first six bytes are printable,
//! Ex3 more than half of its bytes are, Ex4 more than 20 in a row are, Ex5 it is TLS or HTTP. Besides:
//! SSH, BitTorrent's handshake, and anything shorter than a floor, as few bytes say nothing.
//!
//! The authors estimate 0.6 % of all connections to be called so wrongly; proxies and games are
//! called so rightly. So it is odd, no more, and never a cut. Evades: one printable run, or TLS.

use crate::detect::Outlook;
use crate::detect::c2::telling::{Sessions, Strength, Telling, is_printable, payload, set_bits};
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, Observation, ObservationKind, Route, Toward};
use sekisho_schema::finding::Direction;
use serde::Deserialize;

/// Printable bytes at the beginning that exempt (Ex2).
const BEGINNING: usize = 6;
/// Printable bytes in a row above which a payload is exempt (Ex4).
const ROW: usize = 20;
/// How BitTorrent begins (BEP 3).
const BITTORRENT: &[u8] = b"\x13BitTorrent protocol";

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "protocol.encrypted", reads: reads::STREAM, weight: Weight::Scores, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct EncryptedSettings {
    /// Set bits a byte, at or below which a payload is exempt.
    bits_low: f64,
    /// Set bits a byte, at or above which a payload is exempt.
    bits_high: f64,
    /// Bytes below which nothing is said.
    floor: usize,
}

impl Default for EncryptedSettings {
    fn default() -> Self {
        Self { bits_low: 3.4, bits_high: 4.6, floor: 48 }
    }
}

/// Judges the first segments of clients.
#[derive(Debug)]
struct Encrypted {
    settings: EncryptedSettings,
    telling: Telling,
    /// Whether a flow's first segment was judged.
    judged: Sessions<bool>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    let judged = Sessions::new(setup.seed);
    Ok(Box::new(Encrypted { settings: setup.settings()?, telling, judged }))
}

impl WireDetector for Encrypted {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward: Toward::Remote, bytes } = o.kind else {
            return Appetite::Enough;
        };
        let flow = &o.flow;
        if flow.direction != Direction::Outbound
            || flow.route != Route::Egress
            || !flow.start_seen
            || flow.bytes_in != 0
        {
            return Appetite::Enough;
        }
        // Heads that grow are told again: only the first telling is the first segment.
        let Some(judged) = self.judged.of(flow) else { return Appetite::Enough };
        if std::mem::replace(judged, true) {
            return Appetite::Enough;
        }
        let Some(bits) = self.settings.enciphered(bytes) else { return Appetite::Enough };
        self.telling.tell(o, (Toward::Remote, bytes), Strength::Shape, emit, || Pattern {
            told: format!(
                "{{host}} spoke to {{remote}} enciphered from the first byte: {bits:.2} of 8 bits a \
                 byte are set in {} bytes, and none of the marks of a protocol in clear is there.",
                bytes.len(),
            ),
            evidence: vec![payload(
                Toward::Remote,
                bytes,
                [("bits_per_byte", bits.into()), ("size", bytes.len().into())],
            )],
        });
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted() + self.judged.evicted()
    }
}

impl EncryptedSettings {
    /// The set bits a byte of a payload that no exemption covers.
    fn enciphered(&self, bytes: &[u8]) -> Option<f64> {
        if bytes.len() < self.floor || bytes.starts_with(BITTORRENT) {
            return None;
        }
        let printable = |bytes: &[u8]| bytes.iter().filter(|byte| is_printable(**byte)).count();
        let bits = f64::from(set_bits(bytes)) / bytes.len() as f64;
        let exempt = bits <= self.bits_low
            || bits >= self.bits_high
            || bytes.get(..BEGINNING).is_some_and(|begin| printable(begin) == BEGINNING)
            || printable(bytes) * 2 > bytes.len()
            || bytes.split(|byte| !is_printable(*byte)).any(|row| row.len() > ROW);
        (!exempt).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::c2::telling::shipped;

    fn random(count: usize, seed: u64) -> Vec<u8> {
        let mut seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..count)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 40) as u8
            })
            .collect()
    }

    fn says(bytes: &[u8]) -> bool {
        EncryptedSettings::default().enciphered(bytes).is_some()
    }

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<EncryptedSettings>(REGISTRATION.id), EncryptedSettings::default());
    }

    #[test]
    fn almost_all_random_payloads_count_as_enciphered() {
        let said = (0..10_000).filter(|seed| says(&random(300, *seed))).count();
        // Six printable bytes come first in 0.26 % of them (Ex2).
        assert!((9_950..10_000).contains(&said), "{said} of 10,000");
    }

    #[test]
    fn each_exemption_alone_suffices() {
        let base = random(200, 7);
        assert!(says(&base));
        assert!(!says(&base[..47]), "too short to tell");
        let ex2 = [b"HELLO ", &base[..]].concat();
        assert!(!says(&ex2));
        let mut half = base.clone();
        (0..101).for_each(|at| half[at * 2 % 200 + at * 2 / 200] = b'k');
        assert!(!says(&half), "more than half printable");
        let mut row = base.clone();
        row[90..111].fill(b'k');
        assert!(!says(&row), "21 in a row");
        row[100] = 0xC9;
        assert!(says(&row), "two rows of ten");
        let low: Vec<u8> = base.iter().map(|byte| byte & 0x7B).collect();
        assert!(!says(&low), "few set bits");
        let high: Vec<u8> = base.iter().map(|byte| byte | 0x84).collect();
        assert!(!says(&high), "many set bits");
        assert!(!says(&[BITTORRENT, &base[..]].concat()));
    }

    #[test]
    fn honest_binary_protocols_are_not_enciphered() {
        // RDP's connection request and SMB2's negotiation, both padded with what follows in them.
        let rdp = b"\x03\0\0\x2b\x26\xe0\0\0\0\0\0Cookie: mstshash=user\r\n\x01\0\x08\0\x0b\0\0\0\0\0\0\0\0\0";
        assert!(!says(rdp));
        let mut smb = b"\xfeSMB\x40\0\x01\0\0\0\0\0\0\0\x1f\0".to_vec();
        smb.resize(64, 0);
        smb.extend_from_slice(b"\x24\0\x05\0\x01\0\0\0\x7f\0\0\0");
        smb.extend_from_slice(&random(16, 3));
        smb.extend_from_slice(b"\x70\0\0\0\x02\0\0\0\x02\x02\x10\x02\0\x03\x02\x03\x11\x03");
        assert!(!says(&smb));
    }
}
