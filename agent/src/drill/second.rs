//! The very program a second time, in the canary: its guardian, its agent, its control socket.

use super::brief::{Brief, Failure};
use super::network::{Network, UPLINK};
use super::stage::PROGRAM;
use crate::chain::causes;
use crate::control::{Answer, Request, Status, ask};
use sekisho_schema::policy::Mode;
use sekisho_schema::{Body, ContainmentId, Finding};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Where it lives: in the cell's own `/run`, which is memory and goes with it.
const HOME: &str = "/run/drill";
/// Longest wait until it watches and could cut; reading the rules takes most of it.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of its last words that are told.
const LAST_WORDS: usize = 2_000;
/// Findings that are asked for.
const MOST_FINDINGS: usize = 200;

/// A running second instance.
pub(super) struct Second {
    guardian: Child,
    agent: Child,
    socket: PathBuf,
}

impl Second {
    /// Starts guardian and agent, and waits until the agent tells how it fares. The mode in effect may be less
    /// than `enforce`: that is for the figures.
    pub(super) fn start(brief: &Brief, network: &Network) -> Result<Self, Failure> {
        let home = Path::new(HOME);
        let config = settle(home, brief).map_err(|error| {
            Failure::new(format!("cannot write the configuration of the second instance: {error}"))
        })?;
        let start = |verb: &str| {
            let mut command = network.command(PROGRAM).map_err(Failure::new)?;
            let log = File::create(log_of(verb))
                .map_err(|error| Failure::new(format!("cannot write a log: {error}")))?;
            command
                .arg(verb)
                .arg("--config")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .map_err(|error| Failure::new(format!("cannot start `sekisho {verb}`: {error}")))
        };
        let guardian = start("guardian")?;
        let agent = start("run")?;
        let mut second = Self { guardian, agent, socket: home.join("run/agent.sock") };
        second.wait()?;
        Ok(second)
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            for (child, verb) in [(&mut self.guardian, "guardian"), (&mut self.agent, "run")] {
                if let Ok(Some(status)) = child.try_wait() {
                    let what = format!("the second `sekisho {verb}` ended with {status}");
                    return Err(Failure { what, said: last_words(verb) });
                }
            }
            let is_ready =
                fs::read_to_string(log_of("run")).is_ok_and(|log| log.contains("sekisho: ready"));
            if is_ready && self.status().is_ok_and(|status| status.mode.effective == Mode::Enforce)
            {
                return Ok(());
            }
            // One that is ready and can't cut is a result, given a moment in which the guardian may come.
            if Instant::now() >= deadline
                || (is_ready && Instant::now() + READY_WITHIN / 2 >= deadline)
            {
                return if is_ready {
                    Ok(())
                } else {
                    let what = format!(
                        "the second `sekisho run` was not ready within {} s",
                        READY_WITHIN.as_secs()
                    );
                    Err(Failure { what, said: last_words("run") })
                };
            }
            std::thread::sleep(LOOK);
        }
    }

    /// How it fares.
    pub(super) fn status(&self) -> Result<Status, String> {
        match ask(&self.socket, &Request::Status).map_err(|error| causes(&error))? {
            Answer::Status(status) => Ok(*status),
            _ => Err("the second instance did not tell its status".to_owned()),
        }
    }

    /// What it found, oldest first.
    pub(super) fn findings(&self) -> Result<Vec<Finding>, String> {
        let request = Request::Findings { limit: MOST_FINDINGS };
        match ask(&self.socket, &request).map_err(|error| causes(&error))? {
            Answer::Findings { findings } => Ok(findings
                .into_iter()
                .filter_map(|line| match line.body {
                    Body::Finding(finding) => Some(*finding),
                    _ => None,
                })
                .collect()),
            _ => Err("the second instance did not tell its findings".to_owned()),
        }
    }

    /// Ends a containment, as root does with `--break-glass`.
    pub(super) fn release(&self, containment: &ContainmentId) -> Result<(), String> {
        let request = Request::Release {
            containment: containment.clone(),
            reason: "the drill is over".to_owned(),
            break_glass: true,
        };
        match ask(&self.socket, &request).map_err(|error| causes(&error))? {
            Answer::Done { .. } => Ok(()),
            Answer::Refused { error, .. } => Err(error),
            _ => Err("the second instance did not answer an order".to_owned()),
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.guardian] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn log_of(verb: &str) -> PathBuf {
    Path::new(HOME).join(format!("{verb}.log"))
}

/// The end of what it said.
pub(super) fn last_words(verb: &str) -> String {
    let text = fs::read(log_of(verb)).unwrap_or_default();
    let from = text.len().saturating_sub(LAST_WORDS);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).trim().to_owned()
}

fn settle(home: &Path, brief: &Brief) -> io::Result<PathBuf> {
    for part in ["state", "run", "rules", "trust.d"] {
        fs::create_dir_all(home.join(part))?;
    }
    fs::write(home.join("trust.d/drill.pub"), &brief.anchor)?;
    fs::write(home.join("policy.sealed"), &brief.policy)?;
    fs::write(home.join("drill.txt"), brief.drill.story.indicators.join("\n") + "\n")?;
    for (number, (name, text)) in brief.packs.iter().enumerate() {
        // The order of names is the order in which they are read.
        fs::write(home.join("rules").join(format!("{number:04}-{name}")), text)?;
    }
    let lists = if brief.drill.story.indicators.is_empty() {
        String::new()
    } else {
        format!("[indicators]\nlists = [\"{HOME}/drill.txt\"]\n")
    };
    let text = format!(
        "host = \"canary\"\npolicy = \"{HOME}/policy.sealed\"\n\
         [capture]\ninterfaces = [\"{UPLINK}\"]\nring-mib = 8\n\
         [paths]\nstate = \"{HOME}/state\"\nrun = \"{HOME}/run\"\nrules = \"{HOME}/rules\"\ntrust = \"{HOME}/trust.d\"\n\
         [metrics]\nenabled = false\n[evidence]\nring-mib = 1\nkeep-mib = 1\n\
         [enforce]\nguardian = \"socket\"\nown-tables = {}\n\
         [limits]\nflows = 4096\nnames = 4096\ndestinations = 4096\npreloaded = 1000\njournal-mib = 16\n{lists}",
        brief.own_tables
    );
    let file = home.join("agent.toml");
    fs::write(&file, text)?;
    Ok(file)
}
