//! The documents Sekisho speaks.
//!
//! Agent, engine and collector share these words and nothing else: time and network
//! identifiers, the chain of meaning (signal, verdict, decision, containment, receipt,
//! finding), policy, rule packs, orders, and the seals that give them authority.
//! The crate does no I/O and reads no clock.

pub mod baseline;
pub mod calendar;
pub mod certificate;
pub mod containment;
pub mod episode;
pub mod event;
pub mod finding;
pub mod intel;
pub mod net;
pub mod order;
pub mod pack;
pub mod policy;
pub mod ruling;
pub mod sealed;
pub mod time;

pub use containment::{
    Containment, ContainmentId, ContainmentSet, Coverage, Measure, Proof, Receipt, Scope,
};
pub use event::{Body, Envelope, Record};
pub use finding::{
    Action, Certainty, DecisionRecord, Evidence, Finding, FlowRecord, Grade, IndicatorRecord,
    OwnerSource, Process, Reason, Subject,
};
pub use net::{FlowKey, Transport, query_value};
pub use policy::{Mode, Policy};
pub use sealed::{Sealed, TrustAnchors, Verified};
pub use time::{Span, Timestamp};
