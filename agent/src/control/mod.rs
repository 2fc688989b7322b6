//! Enters: requests of root on this host over a unix socket, and scrapes of the metrics.
//! Leaves: answers, and orders for the detecting thread.
//! Must not know: packets, nftables, the collector.

mod client;
mod learning;
mod protocol;
mod scrape;
mod server;

pub use client::{AskError, ask};
pub use learning::{
    AuthorityStatus, DocumentsStatus, Granted, LearningStatus, Locked, RecordStatus, Window,
};
pub use protocol::{
    Answer, CaptureStatus, CollectorStatus, ContainmentStatus, InterfaceStatus, JournalStatus,
    KnownStatus, ModeStatus, PolicyStatus, Request, Status,
};
pub use scrape::serve_metrics;
pub use server::{
    OpenControlError, OrderRequest, PreviewRequest, ReloadRequest, Serving, last_findings,
    open_control, serve_control,
};
