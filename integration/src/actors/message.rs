//! One PlugX message: sixteen bytes of header and a body, enciphered under a key of its own.

use super::cipher::Cipher;
use super::lznt1;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The body is not packed.
pub const NOT_PACKED: u16 = 0x0100;
/// Most bytes of a body.
pub const LARGEST_BODY: usize = 0xF000;

/// How header and body are enciphered.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The cipher.
    pub cipher: Cipher,
    /// Whether the keystream of the header begins after the key instead of on it.
    pub after_key: bool,
}

impl Setting {
    /// Reads `NAME` or `NAME+after-key`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name.strip_suffix("+after-key") {
            Some(name) => Self { cipher: Cipher::named(name), after_key: true },
            None => Self { cipher: Cipher::named(name), after_key: false },
        }
    }

    /// Enciphers or deciphers bytes 4 to 15 of a header.
    fn turn_header(self, key: u32, header: &mut [u8; 16]) {
        let stream = self.cipher.keystream(key, 16);
        let skip = if self.after_key { 0 } else { 4 };
        for (byte, pad) in header[4..].iter_mut().zip(&stream[skip..]) {
            *byte ^= pad;
        }
    }

    fn turn_body(self, key: u32, body: &mut [u8]) {
        let stream = self.cipher.keystream(key, body.len());
        for (byte, pad) in body.iter_mut().zip(stream) {
            *byte ^= pad;
        }
    }
}

/// How messages are cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// Every byte of a header, and the first of a body, in a segment of its own.
    OneByte,
    /// Header and body in two segments.
    Split,
    /// Two messages in one segment, where two follow each other.
    TwoInOne,
    /// One message, one write.
    Whole,
}

/// Every segmentation by name.
pub const SEGMENTATIONS: [(&str, Segmentation); 4] = [
    ("whole", Segmentation::Whole),
    ("split", Segmentation::Split),
    ("two-in-one", Segmentation::TwoInOne),
    ("one-byte", Segmentation::OneByte),
];

impl Segmentation {
    /// The segmentation with a name of [`SEGMENTATIONS`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        SEGMENTATIONS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("no segmentation is called {name}"))
            .1
    }
}

/// A message in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What is asked or answered (plugx.md, section 1.3).
    pub command: u16,
    /// The body before packing.
    pub body: Vec<u8>,
}

impl Message {
    /// A message without a body.
    #[must_use]
    pub const fn empty(command: u16) -> Self {
        Self { command, body: Vec::new() }
    }

    /// The message as it goes over the wire.
    #[must_use]
    pub fn encipher(&self, setting: Setting, key: u32) -> Vec<u8> {
        let packed = lznt1::pack(&self.body);
        let (flags, mut body) = if self.body.is_empty() || packed.len() < self.body.len() {
            (0, packed)
        } else {
            (NOT_PACKED, self.body.clone())
        };
        let size = |length: usize| u16::try_from(length).expect("a body is bounded").to_le_bytes();
        let mut header = [0_u8; 16];
        header[0..4].copy_from_slice(&key.to_le_bytes());
        header[4..6].copy_from_slice(&self.command.to_le_bytes());
        header[6..8].copy_from_slice(&flags.to_le_bytes());
        header[8..10].copy_from_slice(&size(body.len()));
        header[10..12].copy_from_slice(&size(self.body.len()));
        setting.turn_header(key, &mut header);
        setting.turn_body(key, &mut body);
        [header.as_slice(), body.as_slice()].concat()
    }

    /// Reads one message.
    ///
    /// # Errors
    /// What the connection says, or `InvalidData` for what is no message.
    pub fn read(from: &mut impl Read, setting: Setting) -> Result<Self> {
        let mut header = [0_u8; 16];
        from.read_exact(&mut header)?;
        let key = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        setting.turn_header(key, &mut header);
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (command, flags, size, plain_size) =
            (word(4), word(6), usize::from(word(8)), usize::from(word(10)));
        let mut body = vec![0_u8; size];
        from.read_exact(&mut body)?;
        setting.turn_body(key, &mut body);
        let body = if flags & NOT_PACKED == 0 { lznt1::unpack(&body) } else { Some(body) };
        match body {
            Some(body) if body.len() == plain_size => Ok(Self { command, body }),
            _ => Err(Error::new(
                ErrorKind::InvalidData,
                format!("no message: command {command:#x}, {size} bytes for {plain_size}"),
            )),
        }
    }
}

/// Writes enciphered messages that follow each other, cut into segments.
///
/// # Errors
/// What the connection says.
pub fn write_cut(to: &mut TcpStream, messages: &[Vec<u8>], cut: Segmentation) -> Result<()> {
    // Long enough that the kernel does not join what was written apart.
    let gap = Duration::from_micros(500);
    match cut {
        Segmentation::TwoInOne => to.write_all(&messages.concat()),
        Segmentation::Whole => messages.iter().try_for_each(|message| {
            to.write_all(message)?;
            if messages.len() > 1 {
                std::thread::sleep(gap);
            }
            Ok(())
        }),
        Segmentation::Split => messages.iter().try_for_each(|message| {
            let (header, body) = message.split_at(16);
            to.write_all(header)?;
            std::thread::sleep(gap);
            to.write_all(body)
        }),
        Segmentation::OneByte => messages.iter().try_for_each(|message| {
            let (slow, fast) = message.split_at(message.len().min(24));
            for byte in slow {
                to.write_all(&[*byte])?;
                std::thread::sleep(gap);
            }
            to.write_all(fast)
        }),
    }
}

/// UTF-16LE, as the implant writes text.
#[must_use]
pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::cipher::SETTINGS;

    #[test]
    fn the_probe_is_the_published_one() {
        for (name, bytes) in [
            ("T1", "78563412278a2aeac369b7747defc1dd"),
            ("T1old", "78563412e5b332e37c906613ecaec14c"),
            ("T2-2013", "785634122ad01e00b1c49a31e9c8fb67"),
        ] {
            let probe: String = Message::empty(0)
                .encipher(Setting::named(name), 0x1234_5678)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(probe, bytes, "{name}");
        }
    }

    #[test]
    fn every_setting_reads_what_it_writes() {
        for (name, cipher) in SETTINGS {
            for after_key in [false, true] {
                let setting = Setting { cipher, after_key };
                let message =
                    Message { command: 0x3005, body: crate::actors::customers_file(LARGEST_BODY) };
                let bytes = message.encipher(setting, 0xDEAD_BEEF);
                assert_eq!(
                    Message::read(&mut bytes.as_slice(), setting).unwrap(),
                    message,
                    "{name}"
                );
            }
        }
    }
}
