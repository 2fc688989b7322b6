//! A rehearsal from the outside: prepared, begun, waited for, judged, kept and told.

use super::brief::{Brief, Failure, Rehearsal, Told};
use super::cell::OURSELVES;
use super::ledger::{KeepDrillsError, Kept, Ledger, lock_file};
use super::overlay::{OverlayError, lay, level};
use super::scenario::{Drill, LoadDrillError, load};
use crate::chain::causes;
use crate::clock;
use crate::config::Config;
use crate::control::{Answer, Request, ask};
use crate::state::{
    LoadPolicyError, PolicyOrigin, load_anchors, load_policy, private_dir, read_sealed_policy,
};
use sekisho_schema::event::DrillReport;
use sekisho_schema::{Policy, Scope};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// By which name a schedule begins drills.
pub(super) const BY_SCHEDULE: &str = "schedule";
/// How much a scheduled drill yields to everything else.
const YIELDS: i32 = 10;
/// The file by which drills take turns, in the state directory.
const ONE_AT_A_TIME: &str = "drill.lock";
/// What a drill may take beside the time for its cut: a second instance starts, tries and releases.
const BESIDE: Duration = Duration::from_secs(120);
/// Longest wait until the kernel has taken everything of the cell away.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Packs of the operator, and bytes of each.
const MOST_PACKS: usize = 200;
const LARGEST_PACK: u64 = 8 << 20;

/// What of this host a drill takes up.
#[derive(Clone, Debug)]
pub struct Ground {
    /// State directory: the policy in force, and what is kept of drills.
    pub state: PathBuf,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// Directory of rule packs.
    pub rules: PathBuf,
    /// Directory of trust anchors.
    pub trust: PathBuf,
    /// Sealed policy that would be adopted at the next start.
    pub policy: Option<PathBuf>,
    /// Whether the guardian makes the tables its own.
    pub own_tables: bool,
}

impl From<&Config> for Ground {
    fn from(config: &Config) -> Self {
        Self {
            state: config.state.clone(),
            socket: config.socket(),
            rules: config.rules.clone(),
            trust: config.trust.clone(),
            policy: config.policy.clone(),
            own_tables: config.own_tables,
        }
    }
}

/// Why a drill did not take place; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RunDrillError {
    /// The drill itself.
    #[error(transparent)]
    Load(#[from] LoadDrillError),
    /// Another one takes place.
    #[error("another drill takes place")]
    Busy,
    /// The policy in force can't be laid under it.
    #[error("cannot rehearse under the policy in force: {0}")]
    Policy(String),
    /// The system.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// No cell could be made, or it broke.
    #[error("cannot make a cell of namespaces: {0}")]
    Cell(String),
    /// It took too long.
    #[error("the drill was not over within {} s, and was ended", .0.as_secs())]
    Late(Duration),
    /// Something in the cell could not be done.
    #[error("the drill could not take place: {}", .0.what)]
    Failed(Failure),
}

/// A rehearsal that took place.
#[derive(Debug)]
pub struct Held {
    /// What is kept of it.
    pub kept: Kept,
    /// Why the running agent was not told, if it was not.
    pub untold: Option<String>,
    /// Why it was not kept, if it was not.
    pub unkept: Option<KeepDrillsError>,
}

/// The policy in force on a host, or that would be at the next start.
#[must_use]
pub fn policy_in_force(ground: &Ground) -> Policy {
    let now = clock::now();
    let loaded = load_policy(&ground.state, &ground.trust, None, now);
    if loaded.origin == PolicyOrigin::BuiltIn
        && let Some(file) = &ground.policy
        && let Ok(policy) = first_policy(file, &ground.trust)
    {
        return policy;
    }
    Policy::clone(&loaded.policy)
}

fn first_policy(file: &Path, trust: &Path) -> Result<Policy, LoadPolicyError> {
    let (sealed, anchors) = (read_sealed_policy(file)?, load_anchors(trust)?);
    let opened = sealed.open_policy(&anchors, clock::now(), 0);
    opened.map(|policy| Policy::clone(&policy)).map_err(|source| LoadPolicyError::Refused {
        path: file.to_owned(),
        version: sealed.version,
        source,
    })
}

/// Rehearses a drill, keeps the report and hands it to the running agent.
///
/// # Errors
/// [`RunDrillError`] when it did not take place.
pub fn run(ground: &Ground, name: &str, by: &str) -> Result<Held, RunDrillError> {
    let system = |what| move |source| RunDrillError::System { what, source };
    if by == BY_SCHEDULE {
        // Where it is refused it is as eager as everybody else.
        let _ = rustix::process::nice(YIELDS);
    }
    let drill = load(&ground.rules, name)?;
    private_dir(&ground.state).map_err(system("make the state directory"))?;
    let turn = lock_file(&ground.state.join(ONE_AT_A_TIME)).map_err(system("lock drills"))?;
    turn.try_lock().map_err(|_| RunDrillError::Busy)?;
    let before = production(ground);
    let (rehearsal, left) = rehearse(ground, &drill)?;
    let figures = match rehearsal {
        Rehearsal::Measured(figures) => *figures,
        Rehearsal::Failed(failure) => return Err(RunDrillError::Failed(failure)),
    };
    let mut report = figures.report(&drill, by);
    let untouched = compare(&drill, before, production(ground));
    for (check, outcome) in [("host_untouched", untouched), ("left_behind", left)] {
        if let Some(amiss) = &outcome {
            report.detail =
                if report.passed { amiss.clone() } else { format!("{}; {amiss}", report.detail) };
            report.passed = false;
        }
        report.checks.insert(check.to_owned(), outcome.unwrap_or_else(|| "ok".to_owned()));
    }
    let kept = Kept { at: clock::now(), report, figures: Some(figures) };
    let unkept = Ledger::change(&ground.state, |ledger| ledger.add(kept.clone())).err();
    let untold = tell(ground, &kept.report).err();
    Ok(Held { kept, untold, unkept })
}

fn tell(ground: &Ground, report: &DrillReport) -> Result<(), String> {
    let request = Request::DrillReport { report: Box::new(report.clone()) };
    match ask(&ground.socket, &request).map_err(|error| causes(&error))? {
        Answer::Done { .. } => Ok(()),
        Answer::Refused { error, .. } => Err(error),
        _ => Err("the agent did not answer".to_owned()),
    }
}

/// Plays the drill in a cell; gives what is left of the cell too, which is nothing.
fn rehearse(ground: &Ground, drill: &Drill) -> Result<(Rehearsal, Option<String>), RunDrillError> {
    let policy = policy_in_force(ground);
    let overlay =
        lay(&policy, drill).map_err(|error: OverlayError| RunDrillError::Policy(causes(&error)))?;
    let prefix = format!("skdrill-{}", std::process::id());
    let brief = Brief {
        drill: drill.clone(),
        policy: overlay.policy,
        anchor: overlay.anchor,
        packs: packs(&ground.rules),
        own_tables: ground.own_tables,
        prefix: prefix.clone(),
        policy_level: level(&policy, drill),
    };
    let mut cell = Cell::begin(&brief)?;
    let patience = Duration::from_secs(drill.limits.seconds) + BESIDE;
    let told = cell.wait(patience);
    cell.end();
    let told = told?;
    Ok((told.rehearsal, left_behind(&told.namespaces, &prefix)))
}

/// Names and texts of the operator's packs; one that can't be read is left out there as it is here.
fn packs(rules: &Path) -> Vec<(String, String)> {
    let mut packs: Vec<(String, String)> = fs::read_dir(rules)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| fs::metadata(path).is_ok_and(|data| data.len() <= LARGEST_PACK))
        .take(MOST_PACKS)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, fs::read_to_string(&path).ok()?))
        })
        .collect();
    packs.sort();
    packs
}

/// A cell at work; it ends with this value.
struct Cell {
    child: Child,
    said: Receiver<String>,
    complaints: Receiver<String>,
}

impl Cell {
    fn begin(brief: &Brief) -> Result<Self, RunDrillError> {
        let system = |source| RunDrillError::System { what: "start the cell", source };
        let mut child = Command::new(OURSELVES)
            .args(["drill", "cell"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system)?;
        let (said, complaints) = (gather(child.stdout.take()), gather(child.stderr.take()));
        let input = child.stdin.take();
        let cell = Self { child, said, complaints };
        let text = serde_json::to_string(brief).map_err(|error| system(error.into()))?;
        // One that has ended already says why.
        if let Some(mut input) = input {
            let _ = writeln!(input, "{text}");
        }
        Ok(cell)
    }

    fn wait(&mut self, patience: Duration) -> Result<Told, RunDrillError> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Ok(text) = self.said.recv_timeout(LOOK) {
                return serde_json::from_str(&text).map_err(|_| {
                    let why = self.complaints.recv_timeout(LOOK * 50).unwrap_or_default();
                    RunDrillError::Cell(first_lines(&why))
                });
            }
        }
        Err(RunDrillError::Late(patience))
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.end();
    }
}

/// Everything that is said on a pipe, once it is closed.
fn gather(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    let read = move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(16 << 20).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    };
    // Without a thread nothing is ever heard, which is told as a drill that was not over in time.
    let _ = std::thread::Builder::new().name("cell".to_owned()).spawn(read);
    receiver
}

fn first_lines(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(2);
    let text = lines.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "it ended without a word".to_owned() } else { text }
}

/// What the host's own agent and kernel say of the host's own cuts.
struct Production {
    generation: Option<u64>,
    scopes: Vec<Scope>,
}

fn production(ground: &Ground) -> Production {
    match ask(&ground.socket, &Request::Status) {
        Ok(Answer::Status(status)) => Production {
            generation: status.guardian.as_ref().map(|guardian| guardian.generation),
            scopes: status.containments.iter().map(|held| held.containment.scope.clone()).collect(),
        },
        _ => Production { generation: None, scopes: Vec::new() },
    }
}

/// Whether the host's own cuts are as they were; what its own agent did meanwhile is its own affair.
fn compare(drill: &Drill, before: Production, after: Production) -> Option<String> {
    if before.generation == after.generation {
        return None;
    }
    let of_drill = after.scopes.iter().find(|scope| {
        let Scope::Destination(address) = scope else { return false };
        drill.story.flows.iter().any(|flow| flow.to.ip() == *address)
    });
    of_drill.map(|scope| format!("the host itself holds {scope}, which belongs to the drill"))
}

/// What is left of the cell on the host.
fn left_behind(namespaces: &[u64], prefix: &str) -> Option<String> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let process = fs::read_dir("/proc").into_iter().flatten().flatten().find(|entry| {
            fs::metadata(entry.path().join("ns/net"))
                .is_ok_and(|found| namespaces.contains(&found.ino()))
        });
        let named = fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let left = match (process, named) {
            (None, None) => return None,
            (Some(entry), _) => format!("process {}", entry.file_name().to_string_lossy()),
            (None, Some(entry)) => format!("namespace {}", entry.file_name().to_string_lossy()),
        };
        if Instant::now() >= deadline {
            return Some(format!("{left} of the drill was left behind"));
        }
        std::thread::sleep(LOOK);
    }
}
