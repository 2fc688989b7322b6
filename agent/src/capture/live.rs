//! Live capture: two handles for each uplink, never blocking, kernel time stamps.
//!
//! The *trigger* handle takes what can decide (`split`) in immediate mode, which is TPACKET_V2: a frame is
//! readable as soon as the kernel has it. The *bulk* handle takes the rest in TPACKET_V3, whose blocks are
//! cheap for transfers and are handed over when full or after [`BLOCK_TIMEOUT_MS`]. Frames of the two come
//! out of order by that time-out; each carries the kernel's time.

use super::frame_of;
use super::split::{TRIGGER_SNAP, filters};
use pcap::{Active, Capture, Inactive, Precision};
use sekisho_engine::wire::{Frame, LinkType};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

/// Bytes of each frame that are kept: the largest IP packet.
const SNAP_LENGTH: i32 = 65_535;
/// Milliseconds after which the kernel hands over a partly filled block of its ring: what is in it decides
/// nothing, and a wake for each millisecond cost as much as 10,000 frames.
const BLOCK_TIMEOUT_MS: i32 = 4;
/// The same where one handle takes everything, also what can decide.
const ALONE_TIMEOUT_MS: i32 = 1;

/// How to capture.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Bytes of the kernel's rings for each interface, both together.
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

/// One of the two ways of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Transfers, by the block.
    Bulk,
    /// What can decide, at once.
    Trigger,
}

/// By how many ways the frames of an interface come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// What can decide comes at once, transfers by the block.
    Both,
    /// Everything comes by the block, up to a millisecond late; why.
    BulkOnly(String),
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both => f.write_str("trigger and bulk"),
            Self::BulkOnly(why) => write!(f, "bulk only: {why}"),
        }
    }
}

/// One socket of a capture.
struct Handle {
    capture: Capture<Active>,
    last: Loss,
}

/// A capture on one interface.
pub struct LiveCapture {
    interface: String,
    trigger: Option<Handle>,
    bulk: Handle,
    paths: Paths,
    link: LinkType,
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

impl Handle {
    fn open(inactive: Capture<Inactive>) -> Result<Self, pcap::Error> {
        let capture = inactive.precision(Precision::Nano).open().and_then(Capture::setnonblock)?;
        Ok(Self { capture, last: Loss::default() })
    }

    fn next_frame(&mut self, link: LinkType) -> NextFrame<'_> {
        match self.capture.next_packet() {
            Ok(packet) => NextFrame::Frame(frame_of(&packet, link)),
            Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => NextFrame::Drained,
            Err(error) => NextFrame::Failed(error.to_string()),
        }
    }

    fn take_loss(&mut self) -> Loss {
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

impl LiveCapture {
    /// Opens a capture that does not block.
    ///
    /// Where what can decide can't be told apart or immediate mode is refused, one handle takes
    /// everything: [`LiveCapture::paths`] says so.
    ///
    /// # Errors
    /// [`OpenLiveError`].
    pub fn open(interface: &str, options: &LiveOptions) -> Result<Self, OpenLiveError> {
        let refuse = |source| OpenLiveError::Open { interface: interface.to_owned(), source };
        let device = || -> Result<Capture<Inactive>, pcap::Error> {
            let inactive = Capture::from_device(interface)?;
            Ok(inactive.buffer_size(options.ring_bytes / 2).promisc(options.promiscuous))
        };
        let block = |inactive: Capture<Inactive>, timeout| {
            Handle::open(inactive.snaplen(SNAP_LENGTH).timeout(timeout))
        };
        let mut bulk =
            device().and_then(|device| block(device, BLOCK_TIMEOUT_MS)).map_err(refuse)?;
        let link = LinkType::from_dlt(bulk.capture.get_datalink().0);
        let own = options.filter.as_deref();
        let filter_error = |source| OpenLiveError::Filter {
            interface: interface.to_owned(),
            filter: own.unwrap_or_default().to_owned(),
            source,
        };
        if let Some(own) = own {
            // By itself first: what is no filter must not become one between our brackets.
            bulk.capture.compile(own, true).map_err(filter_error)?;
        }
        let split = filters(link, own).ok_or_else(|| format!("link type {link:?} is not split"));
        let trigger = split.and_then(|[trigger, rest]| {
            // The rest first: a frame must not come by both ways.
            bulk.capture.filter(&rest, true).map_err(|error| error.to_string())?;
            let immediate = |inactive: Capture<Inactive>| {
                Handle::open(inactive.snaplen(TRIGGER_SNAP).immediate_mode(true))
            };
            let mut handle = device().and_then(immediate).map_err(|error| error.to_string())?;
            if LinkType::from_dlt(handle.capture.get_datalink().0) != link {
                return Err("the link type changed between two handles".to_owned());
            }
            handle.capture.filter(&trigger, true).map_err(|error| error.to_string())?;
            Ok(handle)
        });
        let (trigger, paths) = match trigger {
            Ok(trigger) => (Some(trigger), Paths::Both),
            Err(why) => {
                bulk = device()
                    .map(|inactive: Capture<Inactive>| inactive.buffer_size(options.ring_bytes))
                    .and_then(|device| block(device, ALONE_TIMEOUT_MS))
                    .map_err(refuse)?;
                if let Some(own) = own {
                    bulk.capture.filter(own, true).map_err(filter_error)?;
                }
                (None, Paths::BulkOnly(why))
            }
        };
        Ok(Self { interface: interface.to_owned(), trigger, bulk, paths, link })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// By how many ways its frames come.
    #[must_use]
    pub const fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The link type of its frames.
    #[must_use]
    pub const fn link(&self) -> LinkType {
        self.link
    }

    /// The descriptors that become readable when a ring holds frames.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let handles = self.trigger.iter().chain([&self.bulk]);
        handles.map(|handle| handle.capture.as_raw_fd())
    }

    /// The next frame of a way, if one is there.
    pub fn next_frame(&mut self, way: Way) -> NextFrame<'_> {
        match (way, &mut self.trigger) {
            (Way::Bulk, _) => self.bulk.next_frame(self.link),
            (Way::Trigger, Some(trigger)) => trigger.next_frame(self.link),
            (Way::Trigger, None) => NextFrame::Drained,
        }
    }

    /// What was received and dropped since the last call; the library's counters are 32 bits and may wrap.
    pub fn take_loss(&mut self) -> Loss {
        let bulk = self.bulk.take_loss();
        let trigger = self.trigger.as_mut().map(Handle::take_loss).unwrap_or_default();
        Loss { received: bulk.received + trigger.received, dropped: bulk.dropped + trigger.dropped }
    }
}
