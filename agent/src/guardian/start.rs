//! Where no unit runs the guardian, the agent starts one that outlives it.

use super::client::{Guardian, listen};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Ourselves, also when a newer program lies in our place.
const OURSELVES: &str = "/proc/self/exe";
/// Name of its log below `[paths] state`, where nobody else takes it.
const LOG: &str = "guardian.log";
/// A log that is longer begins anew.
const LOG_BYTES: u64 = 1 << 20;
/// How long one may take to serve.
const PATIENCE: Duration = Duration::from_secs(5);
/// A guardian that ended is started again after this, and after longer when it does not stay.
const AGAIN: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Why no guardian serves.
#[derive(Debug, thiserror::Error)]
pub enum StartGuardianError {
    /// It could not be started.
    #[error("cannot start a guardian; nothing can be cut")]
    Start(#[source] io::Error),
    /// It was started and does not serve.
    #[error("the guardian that was started does not serve {path}; its log is {log}")]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// Its log.
        log: PathBuf,
    },
}

fn serves(socket: &Path) -> bool {
    let guardian = Guardian::at(socket.to_owned(), "");
    listen(&guardian, |_| false).is_ok()
}

/// Makes sure that a guardian serves a socket: finds one, or starts one with `arguments` that ends by itself.
///
/// # Errors
/// [`StartGuardianError`].
pub fn ensure(socket: &Path, state: &Path, arguments: &[String]) -> Result<(), StartGuardianError> {
    if serves(socket) {
        return Ok(());
    }
    let log = state.join(LOG);
    let failed = StartGuardianError::Start;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
    let whole = fs::metadata(&log).is_ok_and(|found| found.len() > LOG_BYTES);
    let file = OpenOptions::new()
        .create(true)
        .append(!whole)
        .truncate(whole)
        .write(true)
        .mode(0o600)
        .open(&log)
        .map_err(failed)?;
    // This one only starts the other, so that the agent has no child to wait for.
    let mut first = Command::new(OURSELVES)
        .args(["guardian", "--detach"])
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .map_err(failed)?;
    let _ = first.wait().map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if serves(socket) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(StartGuardianError::Silent { path: socket.to_owned(), log })
}

/// Starts `sekisho guardian` with `arguments` in a session of its own and leaves it.
///
/// # Errors
/// What the system says.
pub fn detach(arguments: &[String]) -> io::Result<()> {
    // A leader of a group of processes can't begin a session; whoever was just started by another is none.
    let _ = rustix::process::setsid();
    let child = Command::new(OURSELVES)
        .args(["guardian", "--keep"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    drop(child);
    Ok(())
}

/// Runs `sekisho guardian` with `arguments`, and again whenever it ends by anything but its own decision.
///
/// # Errors
/// What the system says when it can't be started at all.
pub fn keep(arguments: &[String]) -> io::Result<ExitStatus> {
    let mut pause = AGAIN;
    loop {
        let began = Instant::now();
        let status = Command::new(OURSELVES)
            .arg("guardian")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        // What it says by an exit code it means: it is not needed, or can't do its duty.
        if status.code().is_some() {
            return Ok(status);
        }
        if began.elapsed() > LONGEST {
            pause = AGAIN;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}
