//! Enters: the configuration. Leaves: a running agent. Must not know: the command line.
//!
//! # Threads
//! | thread | does | waits for |
//! |---|---|---|
//! | `detect` | reads frames, judges them, cuts in the same breath; asks for SCHED_FIFO 1 | frames, deadlines, its inbox |
//! | `warden` | has each cut proven by the guardian | its inbox |
//! | `guardian` | hears what happens on the guardian's side: drift, owners, that it is gone | the guardian |
//! | `preload` | puts known destinations into the kernel, in small commits | its inbox, two seconds |
//! | `reload` | reads rules anew, makes them piece by piece | SIGHUP, changed files |
//! | `lookout` | looks for what passes a cut | ten seconds, changes of devices, filters and namespaces |
//! | `learning` | keeps what was learned, reads what people signed, looks at free space | its inbox, five seconds |
//! | `journal` | writes records, makes them durable | its queue |
//! | `tokio` (one) | control socket, collector, metrics, signals | the network |
//! | `log` | writes lines of the log to standard error | its queue, whoever reads |
//! | `resolve` | asks where the collector is, until it is known; then ends | the resolver |
//!
//! # Channels
//! | from → to | carries | full |
//! |---|---|---|
//! | anyone → `detect` | orders, policies, proofs, drift, stop (`Message`) | never: senders are few and rare |
//! | `detect` → the guardian's `hand` | the plan, the containment set, whole; `detect` waits for the answer | never: one at a time |
//! | `detect` → `preload` | what shall be held beforehand | never: one for each policy, reload, change of addresses |
//! | `reload` → `detect` | one piece of the indicators at a time; the old one comes back | never: it waits for the old one |
//! | `detect` → `learning` | what was learned, whole, each hour; what governor and drift guard stand at | kept back for the next time; `detect` waits at the very end only |
//! | `detect` → `warden` | cuts to prove | never: one for each cut |
//! | anyone → `journal` | records | counted as lost, told as a gap; nobody waits; the last places are for cuts |
//! | anyone → `log` | lines | counted as lost, said in the log; nobody waits |
//! | `journal` → `tokio` | "there is more to send" | collapses into one |
//!
//! Between a frame and the cut that it causes there is no queue, no lock that is held over
//! input or output, no disk and no network.

mod board;
mod cut;
mod judge;
mod learning;
mod lookout;
mod preload;
mod reload;
mod scribe;
mod service;
mod shared;
mod start;
mod warden;
mod watch;
mod whereabouts;

pub use start::{RunOutcome, prepare, run};

use crate::clock;
use crate::control::{OrderRequest, PreviewRequest, ReloadRequest};
use crate::queue::Sender;
use crate::sync::OrderOutcome;
use sekisho_engine::detect::indicator_set::Piece;
use sekisho_engine::rules::{Rules, SourceCounts};
use sekisho_schema::order::Order;
use sekisho_schema::{
    Body, ContainmentId, Coverage, FlowKey, Policy, Process, Proof, Record, Timestamp, Verified,
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the detecting thread is told by others.
enum Message {
    /// What passes a cut here and now; on record when that changed and the last record is old enough.
    Coverage {
        /// By name, sorted.
        gaps: Coverage,
        /// Whether it goes on record.
        record: bool,
    },
    /// The collector's addresses were found after the start.
    Collector(Vec<std::net::SocketAddr>),
    /// The kernel holds something else than it should.
    Drift(Drifted),
    /// What is known beforehand is to be held anew.
    KnownDue,
    /// What rules say beside their indicators.
    Detectors(Box<Rules>),
    /// The guardian is gone, or there again.
    Guardian(warden::Presence),
    /// A person's order.
    Order(OrderRequest),
    /// A piece of the indicators to put in its place; the one that was there goes back.
    Piece(Box<Piece>, Sender<Piece>),
    /// An order whose seal held, from the centre.
    Centre(Box<Verified<Order>>, oneshot::Sender<OrderOutcome>),
    /// The collector took the receipt of a cut that is on trial.
    Confirmed(ContainmentId),
    /// So many cuts of hosts began in the group since a time.
    GroupSpent(u32, Timestamp),
    /// What would a cut refuse?
    Preview(Box<PreviewRequest>),
    /// A policy whose seal held.
    Policy(Box<Verified<Policy>>),
    /// A cut was tried.
    Proved { containment: ContainmentId, proof: Proof, sockets_destroyed: u32 },
    /// A baseline or certificate was adopted, refused or given back.
    Learning(Box<learning::News>),
    /// Baseline and certificate may be others: they are to be looked at.
    LookAtDocuments,
    /// So many automatic cuts of behaviour a week the role's hosts may have together, and so many are left.
    Fleet {
        /// How many.
        of: u32,
        /// How many are left.
        left: u32,
    },
    /// Free space on a volume of data fell by so many bytes within an hour.
    SpaceFell(u64),
    /// Who owns a flow that was asked for, as far as it was found.
    Owner(FlowKey, Option<Box<Process>>),
    /// Something to write down that happened elsewhere.
    Record(Box<Record>),
    /// Rules shall be read anew.
    Reload(ReloadRequest),
    /// Rules were read anew, or why not; and by whose word, where something was missing on purpose.
    Reloaded { counts: SourceCounts, refused: Option<String>, forced_by: Option<String> },
    /// End.
    Stop,
}

/// What the guardian found amiss and set right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drifted {
    /// What differed, in words.
    what: Vec<String>,
    /// Who did it, where the kernel tells.
    who: Option<String>,
    /// Why it could not be set right, if it could not.
    failure: Option<String>,
}

/// The way into the detecting thread.
#[derive(Clone)]
struct Inbox {
    sender: Sender<Message>,
    waker: Arc<mio::Waker>,
}

impl Inbox {
    fn send(&self, message: Message) {
        if self.sender.send(message).is_ok() {
            // A waker that fails delays the message until the next frame or second.
            let _ = self.waker.wake();
        }
    }

    /// Has something written down as of now.
    fn tell(&self, body: Body) {
        self.send(Message::Record(Box::new(Record { at: clock::now(), body })));
    }
}
