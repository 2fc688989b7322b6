//! Capture files: pcap and pcapng, in sequence, by the capture library.

use super::frame_of;
use pcap::{Capture, Offline, Precision};
use sekisho_engine::flow::AHEAD;
use sekisho_engine::wire::{Frame, LinkType};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes read ahead, beyond which no further frame is.
const AHEAD_BYTES: usize = 64 * 1024;

/// Why a capture file can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadCaptureError {
    /// It can't be opened, or is no capture.
    #[error("cannot open capture {file}")]
    Open {
        /// The file.
        file: String,
        /// What the library or the system says.
        source: pcap::Error,
    },
    /// It ends or breaks in the middle.
    #[error("cannot read capture {file} beyond frame {frames}")]
    Broken {
        /// The file.
        file: String,
        /// Frames read from it before.
        frames: u64,
        /// What the library says.
        source: pcap::Error,
    },
}

/// One capture file.
pub struct PcapFile {
    file: PathBuf,
    capture: Capture<Offline>,
    link: LinkType,
    frames: u64,
    /// Frames read ahead at most.
    ahead: usize,
    /// Why it could not be read on, told when the frames before have been taken.
    broken: Option<ReadCaptureError>,
}

/// A few frames of one file that were read ahead.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    frames: Vec<(i64, LinkType, u32, Range<usize>)>,
}

impl Batch {
    fn push(&mut self, frame: &Frame<'_>) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(frame.bytes);
        self.frames.push((frame.at_ns, frame.link, frame.wire_len, from..self.bytes.len()));
    }

    /// The frames in their order; the room behind them is filled with empty ones.
    #[must_use]
    pub fn frames(&self) -> ([Frame<'_>; AHEAD], usize) {
        let none = Frame { at_ns: 0, link: LinkType::RawIp, wire_len: 0, bytes: &[] };
        let mut frames = [none; AHEAD];
        for (frame, (at_ns, link, wire_len, range)) in frames.iter_mut().zip(&self.frames) {
            let bytes = self.bytes.get(range.clone()).unwrap_or_default();
            *frame = Frame { at_ns: *at_ns, link: *link, wire_len: *wire_len, bytes };
        }
        (frames, self.frames.len())
    }
}

impl PcapFile {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`ReadCaptureError::Open`].
    pub fn open(file: &Path) -> Result<Self, ReadCaptureError> {
        let name = || file.display().to_string();
        // The library's own message for a missing file repeats the path; the system's is enough.
        if file != Path::new("-") {
            let readable = std::fs::File::open(file).and_then(|handle| handle.metadata());
            match readable {
                Err(error) => {
                    return Err(ReadCaptureError::Open {
                        file: name(),
                        source: pcap::Error::PcapError(error.to_string()),
                    });
                }
                Ok(data) if data.is_dir() => {
                    return Err(ReadCaptureError::Open {
                        file: name(),
                        source: pcap::Error::PcapError("it is a directory".to_owned()),
                    });
                }
                Ok(_) => {}
            }
        }
        let capture = Capture::from_file_with_precision(file, Precision::Nano)
            .map_err(|source| ReadCaptureError::Open { file: name(), source })?;
        let link = LinkType::from_dlt(capture.get_datalink().0);
        // What comes through a pipe may come slowly, and is shown as it comes.
        let ahead = if file == Path::new("-") { 1 } else { AHEAD };
        Ok(Self { file: file.to_owned(), capture, link, frames: 0, ahead, broken: None })
    }

    /// Fills a batch with the next frames; it stays empty at the end of the file.
    ///
    /// # Errors
    /// [`ReadCaptureError::Broken`] when there is no frame before the place that can't be read.
    pub fn read_ahead(&mut self, batch: &mut Batch) -> Result<(), ReadCaptureError> {
        batch.bytes.clear();
        batch.frames.clear();
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        while batch.frames.len() < self.ahead && batch.bytes.len() < AHEAD_BYTES {
            match self.next_frame() {
                Ok(Some(frame)) => batch.push(&frame),
                Ok(None) => break,
                Err(error) if batch.frames.is_empty() => return Err(error),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The next frame, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`ReadCaptureError::Broken`] for a truncated or corrupted file; what was read before counts.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ReadCaptureError> {
        match self.capture.next_packet() {
            Ok(packet) => {
                self.frames += 1;
                Ok(Some(frame_of(&packet, self.link)))
            }
            Err(pcap::Error::NoMorePackets) => Ok(None),
            Err(source) => Err(ReadCaptureError::Broken {
                file: self.file.display().to_string(),
                frames: self.frames,
                source,
            }),
        }
    }
}
