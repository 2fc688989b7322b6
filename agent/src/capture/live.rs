//! Live capture: one handle for each uplink, never blocking, kernel time stamps.
//!
//! The time-out of one millisecond is the packet-buffer time-out of the kernel's ring
//! (TPACKET_V3 block retirement), not a time-out of reading: readiness comes from the
//! descriptor. Immediate mode would silently fall back to TPACKET_V2, which loses frames.

use super::frame_of;
use pcap::{Active, Capture, Precision};
use sekisho_engine::wire::{Frame, LinkType};
use std::os::fd::{AsRawFd, RawFd};

/// Bytes of each frame that are kept: the largest IP packet.
const SNAP_LENGTH: i32 = 65_535;
/// Milliseconds after which the kernel hands over a partly filled block of its ring.
const BLOCK_TIMEOUT_MS: i32 = 1;

/// How to capture.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Bytes of the kernel's ring for each interface.
    pub ring_bytes: i32,
    /// Whether frames for other hosts are taken too.
    pub promiscuous: bool,
    /// A filter in the language of pcap-filter(7).
    pub filter: Option<String>,
}

/// Why an interface can't be captured.
#[derive(Debug, thiserror::Error)]
pub enum OpenLiveError {
    /// The interface can't be opened.
    #[error("cannot capture on interface {interface}")]
    Open {
        /// The interface.
        interface: String,
        /// What the library or the kernel says.
        source: pcap::Error,
    },
    /// The filter is not one.
    #[error("cannot use capture filter \"{filter}\" on interface {interface}")]
    Filter {
        /// The interface.
        interface: String,
        /// The filter as configured.
        filter: String,
        /// What the library says.
        source: pcap::Error,
    },
}

/// What was lost and seen since the last time of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Frames that the kernel offered.
    pub received: u64,
    /// Frames that the kernel dropped because the ring was full.
    pub dropped: u64,
}

/// A capture on one interface.
pub struct LiveCapture {
    interface: String,
    capture: Capture<Active>,
    link: LinkType,
    last: Loss,
}

/// What a try to read gave.
pub enum NextFrame<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// Nothing more for now.
    Drained,
    /// The interface is gone or the handle is broken.
    Failed(String),
}

impl LiveCapture {
    /// Opens a capture that does not block.
    ///
    /// # Errors
    /// [`OpenLiveError`].
    pub fn open(interface: &str, options: &LiveOptions) -> Result<Self, OpenLiveError> {
        let refuse = |source| OpenLiveError::Open { interface: interface.to_owned(), source };
        let mut capture = Capture::from_device(interface)
            .and_then(|inactive| {
                inactive
                    .snaplen(SNAP_LENGTH)
                    .buffer_size(options.ring_bytes)
                    .timeout(BLOCK_TIMEOUT_MS)
                    .promisc(options.promiscuous)
                    .precision(Precision::Nano)
                    .open()
            })
            .and_then(Capture::setnonblock)
            .map_err(refuse)?;
        if let Some(filter) = &options.filter {
            capture.filter(filter, true).map_err(|source| OpenLiveError::Filter {
                interface: interface.to_owned(),
                filter: filter.clone(),
                source,
            })?;
        }
        let link = LinkType::from_dlt(capture.get_datalink().0);
        Ok(Self { interface: interface.to_owned(), capture, link, last: Loss::default() })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The link type of its frames.
    #[must_use]
    pub const fn link(&self) -> LinkType {
        self.link
    }

    /// The descriptor that becomes readable when the ring holds frames.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.capture.as_raw_fd()
    }

    /// The next frame, if one is there.
    pub fn next_frame(&mut self) -> NextFrame<'_> {
        match self.capture.next_packet() {
            Ok(packet) => NextFrame::Frame(frame_of(&packet, self.link)),
            Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => NextFrame::Drained,
            Err(error) => NextFrame::Failed(error.to_string()),
        }
    }

    /// What was received and dropped since the last call; the library's counters are 32 bits and may wrap.
    pub fn take_loss(&mut self) -> Loss {
        let Ok(stat) = self.capture.stats() else { return Loss::default() };
        let now = Loss {
            received: u64::from(stat.received),
            dropped: u64::from(stat.dropped) + u64::from(stat.if_dropped),
        };
        let wrapped = |now: u64, last: u64| if now >= last { now - last } else { now };
        let delta = Loss {
            received: wrapped(now.received, self.last.received),
            dropped: wrapped(now.dropped, self.last.dropped),
        };
        self.last = now;
        delta
    }
}
