//! Probes: a cut counts only when the same probe was first shown to get through.

use super::bins;
use super::node::{Actor, Node, must};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A counter of tagged frames on the device of a peer.
#[derive(Debug)]
pub struct Counter(Actor);

impl Counter {
    /// Counts what arrives on a device of a host.
    #[must_use]
    pub fn on(node: &Node, device: &str) -> Self {
        Self(node.actor(&["count", "--dev", device]))
    }

    /// Frames with this tag so far.
    pub fn seen(&mut self, tag: &str) -> u64 {
        self.0.ask("count")["tags"][tag].as_u64().unwrap_or(0)
    }

    /// When the last frame with this tag arrived, nanoseconds since the epoch.
    pub fn last_at_ns(&mut self, tag: &str) -> Option<u64> {
        self.0.ask("count")["last"][tag].as_u64()
    }
}

/// Proof that a probe got through: only [`Probe::control`] makes one.
#[derive(Debug)]
pub struct Through {
    tag: String,
}

/// One way out of a host, tried with packets that carry a tag of their own.
#[derive(Debug)]
pub struct Probe {
    /// What it is, for people.
    pub name: String,
    tag: String,
    sender: Actor,
}

/// Packets of one burst.
pub const BURST: u64 = 20;
/// Long enough for a frame to cross the laboratory on a busy machine, and for a first retransmission.
const SETTLE: Duration = Duration::from_millis(400);

/// Waits until a burst that got through would have arrived.
pub fn settle() {
    std::thread::sleep(SETTLE);
}

static TAGS: AtomicU32 = AtomicU32::new(0);

impl Probe {
    /// A probe that is sent from a host: `kind` as the actor `send` knows it, and its arguments.
    #[must_use]
    pub fn new(name: &str, from: &Node, kind: &str, arguments: &[&str]) -> Self {
        let tag = format!("{:08x}", TAGS.fetch_add(1, Ordering::Relaxed));
        let mut words = vec!["send", kind, "--tag", &tag];
        words.extend_from_slice(arguments);
        let sender = from.actor(&words);
        Self { name: name.to_owned(), tag, sender }
    }

    fn burst(&mut self, counter: &mut Counter) -> (u64, serde_json::Value) {
        let before = counter.seen(&self.tag);
        let said = self.sender.ask(&format!("go {BURST}"));
        super::wait::wait_until(Duration::from_secs(2), || {
            (counter.seen(&self.tag) >= before + BURST).then_some(())
        });
        (counter.seen(&self.tag) - before, said)
    }

    /// Shows that the probe gets through while nothing is cut; fails loudly when it does not.
    pub fn control(&mut self, counter: &mut Counter) -> Through {
        let (arrived, said) = self.burst(counter);
        assert!(
            arrived >= BURST,
            "control: probe \"{}\" does not get through uncut: {arrived} of {BURST} arrived, sender said {said}",
            self.name
        );
        Through { tag: self.tag.clone() }
    }

    /// Sends a burst without waiting for anything to arrive; [`Self::arrived_since`] tells later what did.
    pub fn fire(&mut self, counter: &mut Counter, through: &Through) -> u64 {
        assert_eq!(through.tag, self.tag, "the proof belongs to another probe");
        let before = counter.seen(&self.tag);
        self.sender.ask(&format!("go {BURST}"));
        before
    }

    /// Sends a burst and waits only for the sender; who counts asks before and after.
    pub fn send(&mut self, through: &Through) {
        assert_eq!(through.tag, self.tag, "the proof belongs to another probe");
        self.sender.ask(&format!("go {BURST}"));
    }

    /// Frames that arrived since `before`.
    pub fn arrived_since(&self, counter: &mut Counter, before: u64) -> u64 {
        counter.seen(&self.tag) - before
    }

    /// What gets through of a burst.
    pub fn leaked(&mut self, counter: &mut Counter, through: &Through) -> u64 {
        let before = self.fire(counter, through);
        settle();
        self.arrived_since(counter, before)
    }

    /// Asserts that nothing gets through.
    pub fn assert_cut(&mut self, counter: &mut Counter, through: &Through) {
        let leaked = self.leaked(counter, through);
        assert_eq!(
            leaked, 0,
            "probe \"{}\" got through the cut: {leaked} of {BURST} frames arrived",
            self.name
        );
    }

    /// Asserts that it still gets through.
    pub fn assert_open(&mut self, counter: &mut Counter, through: &Through) {
        assert_eq!(through.tag, self.tag, "the proof belongs to another probe");
        let (arrived, said) = self.burst(counter);
        assert!(
            arrived >= BURST,
            "probe \"{}\" must stay open: {arrived} of {BURST} arrived, sender said {said}",
            self.name
        );
    }

    /// Tag of its packets.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// Compiles the senders for which no safe wrapper exists; the C compiler is there because Rust links with it.
#[must_use]
pub fn helper(dir: &Path) -> PathBuf {
    let (source, program) = (dir.join("ways.c"), dir.join("ways"));
    std::fs::write(&source, include_str!("../actors/ways.c"))
        .expect("a file in the laboratory's directory");
    must(Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(&source));
    program
}

/// A copy of the actor under another path, so that a program can be told from others by its executable.
#[must_use]
pub fn disguise(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::copy(bins::actor(), &path).expect("a copy of the actor");
    path
}
