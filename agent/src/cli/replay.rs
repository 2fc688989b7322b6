//! `sekisho replay`: captures through the same engine, with the captures' own clock.

use super::args::ReplayArgs;
use super::text::{Timeline, seconds};
use super::{Console, Outcome, cannot_write};
use crate::capture::pcapfile::{Batch, PcapFile, ReadCaptureError};
use crate::chain::{Complaint, causes};
use crate::enforce::{Plan, skeleton, to_json};
use crate::rules::load_rules;
use sekisho_engine::drive::step;
use sekisho_engine::learn::Baseline;
use sekisho_engine::wire::Frame;
use sekisho_engine::{Engine, EngineConfig, Input, Limits, Output};
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Body, ContainmentSet, Envelope, Policy, Record, Sealed, Timestamp, Verified};
use std::fs;
use std::io::Write;
use std::path::Path;

const UNTOUCHED: &str = "nothing was replayed";

pub(super) fn run(args: &ReplayArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let documents = Documents::read(args)?;
    let engine = Engine::new(EngineConfig {
        host: args.host.clone(),
        limits: Limits::default(),
        hash_seed: 0,
    });
    let mut replay = Replay {
        engine,
        sink: Sink {
            out: console.out,
            host: &args.host,
            json: args.json,
            timeline: Timeline::default(),
            seq: 0,
            findings: 0,
            set: ContainmentSet::default(),
            failure: None,
        },
        documents: Some(documents),
    };
    let mut broken: Option<ReadCaptureError> = None;
    for file in &args.captures {
        if let Err(error) = replay.file(file) {
            broken = Some(error);
            break;
        }
    }
    // Nothing could be read at all: a summary of nothing would look like an answer.
    if let Some(error) = broken.take_if(|_| replay.documents.is_some()) {
        return Err(complaint(&error, 0, 0));
    }
    let (findings, frames) = replay.end(args.show_ruleset).map_err(|error| cannot_write(&error))?;
    if let Some(error) = broken {
        return Err(complaint(&error, findings, frames));
    }
    Ok(if findings > 0 { Outcome::Finding } else { Outcome::Fine })
}

fn complaint(error: &ReadCaptureError, findings: u64, frames: u64) -> Complaint {
    let help = match error {
        ReadCaptureError::Open { .. } => {
            "is the path right? replay reads pcap and pcapng files; `file NAME` tells what a file is"
        }
        ReadCaptureError::Broken { .. } => {
            "the file is cut short or damaged; `editcap` or a fresh copy may save the rest"
        }
    };
    let state = if frames == 0 {
        UNTOUCHED.to_owned()
    } else {
        format!(
            "{frames} frames were read and judged before, {findings} findings are printed above; later captures were not read"
        )
    };
    Complaint::new(causes(error), state, help)
}

struct Documents {
    policy: Verified<Policy>,
    rules: sekisho_engine::rules::Rules,
    baseline: Option<Baseline>,
}

impl Documents {
    fn read(args: &ReplayArgs) -> Result<Self, Complaint> {
        let policy = match &args.policy {
            Some(file) => read_policy(file)?,
            None => Policy::built_in(Mode::DryRun),
        };
        let loaded = load_rules(&args.rules, &[], Local::Replay);
        // A replay that silently looked for less than asked would be believed.
        if let Some(error) = loaded.left_out.first() {
            return Err(Complaint::new(
                causes(error),
                UNTOUCHED,
                "mend the rules, or leave them out of the command",
            ));
        }
        let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
        Ok(Self { policy: Verified::locally(policy, Local::Replay), rules: loaded.rules, baseline })
    }
}

/// Reads a policy for a replay or a preview: as a person writes it, or sealed; no seal is asked for where nothing
/// can be cut.
pub(super) fn read_policy(file: &Path) -> Result<Policy, Complaint> {
    let (text, expires) = read_policy_text(file)?;
    let mut policy = Policy::parse(&text).map_err(|error| no_policy(file, &error.to_string()))?;
    policy.expires = expires;
    Ok(policy)
}

/// The TOML of a policy file, and when its seal says that it expires.
pub(super) fn read_policy_text(file: &Path) -> Result<(String, Option<Timestamp>), Complaint> {
    let refuse = |why: String| no_policy(file, &why);
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    if !text.trim_start().starts_with('{') {
        return Ok((text, None));
    }
    let sealed = Sealed::parse(&text).map_err(|error| refuse(error.to_string()))?;
    let payload = sealed.payload_bytes().map_err(|error| refuse(error.to_string()))?;
    Ok((String::from_utf8_lossy(&payload).into_owned(), Some(sealed.expires)))
}

fn no_policy(file: &Path, why: &str) -> Complaint {
    Complaint::new(
        format!("cannot use policy {}: {why}", file.display()),
        "nothing was done",
        "a policy is TOML with schema = \"sekisho.policy/1\", or that sealed",
    )
}

fn read_baseline(file: &Path) -> Result<Baseline, Complaint> {
    let refuse = |why: String| {
        Complaint::new(
            format!("cannot use baseline {}: {why}", file.display()),
            UNTOUCHED,
            "a baseline is what the agent keeps as baseline.json in its state directory",
        )
    };
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))
}

struct Replay<'a> {
    engine: Engine,
    sink: Sink<'a>,
    documents: Option<Documents>,
}

impl Replay<'_> {
    fn file(&mut self, file: &Path) -> Result<(), ReadCaptureError> {
        let mut capture = PcapFile::open(file)?;
        let mut batch = Batch::default();
        loop {
            capture.read_ahead(&mut batch)?;
            let (frames, used) = batch.frames();
            let frames = frames.get(..used).unwrap_or_default();
            let Some(first) = frames.first() else { return Ok(()) };
            self.begin(first);
            self.engine.foresee(frames);
            for frame in frames {
                step(&mut self.engine, *frame, &mut |output| self.sink.take(output));
                if self.sink.failure.is_some() {
                    return Ok(());
                }
            }
        }
    }

    /// The documents are adopted at the time of the first frame: a replay knows no other clock.
    fn begin(&mut self, frame: &Frame<'_>) {
        if let Some(documents) = self.documents.take() {
            self.adopt(documents, Timestamp::from_nanos(frame.at_ns));
        }
    }

    fn adopt(&mut self, documents: Documents, at: Timestamp) {
        self.engine.handle(Input::Rules(Box::new(documents.rules), at));
        if let Some(baseline) = documents.baseline {
            self.engine.handle(Input::Baseline(Box::new(baseline), at));
        }
        self.engine.handle(Input::Policy(Box::new(documents.policy), at));
        while let Some(output) = self.engine.poll_output() {
            self.sink.take(output);
        }
    }

    /// Writes the end and gives the number of findings and of frames.
    fn end(mut self, show_ruleset: bool) -> std::io::Result<(u64, u64)> {
        if let Some(documents) = self.documents.take() {
            self.adopt(documents, Timestamp::EPOCH);
        }
        if show_ruleset {
            self.sink.ruleset(self.engine.policy())?;
        }
        let summary = self.engine.summary();
        let frames = summary.frames;
        let at = summary.last_at.unwrap_or(Timestamp::EPOCH);
        self.sink.record(Record { at, body: Body::Summary(summary) });
        match self.sink.failure.take() {
            Some(error) => Err(error),
            None => self.sink.out.flush().map(|()| (self.sink.findings, frames)),
        }
    }
}

struct Sink<'a> {
    out: &'a mut dyn Write,
    host: &'a str,
    json: bool,
    timeline: Timeline,
    seq: u64,
    findings: u64,
    set: ContainmentSet,
    failure: Option<std::io::Error>,
}

impl Sink<'_> {
    fn take(&mut self, output: Output) {
        match output {
            // There is no host that could say who owned a flow, and no kernel that keeps an allowance.
            Output::Approve(_) | Output::AskOwner(_) => {}
            Output::Contain(order) => self.set = order.set,
            Output::Record(record) => self.record(*record),
        }
    }

    fn record(&mut self, record: Record) {
        self.findings += u64::from(matches!(record.body, Body::Finding(_)));
        self.seq += 1;
        let envelope = Envelope::new(self.seq, self.host, record);
        let written =
            if self.json { self.line(&envelope) } else { self.timeline.write(&envelope, self.out) };
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }

    fn line(&mut self, envelope: &Envelope) -> std::io::Result<()> {
        serde_json::to_writer(&mut *self.out, envelope)?;
        self.out.write_all(b"\n")
    }

    /// The ruleset of the policy, without devices: which of them lead out is the live host's affair.
    fn ruleset(&mut self, policy: &Policy) -> std::io::Result<()> {
        let plan = Plan {
            inside: policy.inside.clone(),
            exempt: policy.exempt.clone(),
            ..Plan::default()
        };
        let ruleset = to_json(&skeleton(&plan, &[]))?;
        if self.json {
            let line = serde_json::json!({"type": "ruleset", "nftables": ruleset, "set": self.set});
            return writeln!(self.out, "{line}");
        }
        writeln!(
            self.out,
            "\nruleset (for `nft -j -f`):\n{ruleset:#}\n\nheld at the end: generation {}",
            self.set.generation
        )?;
        for held in self.set.containments.values() {
            writeln!(self.out, "  {} {} until {}", held.id, held.scope, seconds(held.until))?;
        }
        Ok(())
    }
}
