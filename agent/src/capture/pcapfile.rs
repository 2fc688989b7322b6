//! Capture files: pcap and pcapng, in sequence, by the capture library.

use super::frame_of;
use pcap::{Capture, Offline, Precision};
use sekisho_engine::wire::{Frame, LinkType};
use std::path::{Path, PathBuf};

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
        Ok(Self { file: file.to_owned(), capture, link, frames: 0 })
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
