//! Runs `nft -j -f -` by absolute path: the ruleset goes in, what nft says comes out.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Where nft is looked for: never by PATH, which belongs to whoever started us.
const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];
/// Longest wait for nft; beside a ruleset of 20,000 rules it was measured at 33 ms.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a ruleset was not loaded; a transaction that fails leaves the ruleset as it was.
#[derive(Debug, thiserror::Error)]
pub enum RunNftError {
    /// No executable in the fixed list of places.
    #[error(
        "cannot find nft in /usr/sbin, /sbin, /usr/bin or /usr/local/sbin; the ruleset is unchanged"
    )]
    Missing,
    /// It could not be started or fed.
    #[error("cannot run {path}; the ruleset is unchanged")]
    Start {
        /// The executable.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It did not end in time and was killed.
    #[error("nft did not end within {0} s and was killed; whether the ruleset changed is unknown")]
    Slow(u64),
    /// It refused the ruleset.
    #[error("nft refused the ruleset, which is unchanged: {0}")]
    Refused(String),
}

/// Loads a document in one transaction.
///
/// # Errors
/// [`RunNftError`], with what nft said.
pub(super) fn load(document: &serde_json::Value) -> Result<(), RunNftError> {
    let path =
        PLACES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(RunNftError::Missing)?;
    let failed = |source| RunNftError::Start { path: path.clone(), source };
    let mut child = Command::new(&path)
        .args(["-j", "-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (said, hear) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        // nft's complaints are bounded here, because it repeats whole rules.
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.take(16 * 1024).read_to_end(&mut text);
            let _ = said.send(String::from_utf8_lossy(&text).trim().replace('\n', " "));
        });
    }
    let feeder = child.stdin.take().map(|mut stdin| {
        let text = document.to_string();
        std::thread::spawn(move || stdin.write_all(text.as_bytes()))
    });
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(RunNftError::Slow(TIMEOUT.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if status.success() {
        // nft has ended, so the pipe is closed and the feeder with it.
        return feeder.and_then(|feeder| feeder.join().ok()).unwrap_or(Ok(())).map_err(failed);
    }
    let text = hear.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Err(RunNftError::Refused(if text.is_empty() {
        format!("no reason given, {status}")
    } else {
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_nft_said() {
        let error = load(&serde_json::json!({"nftables": [{"add": {"rule": {"family": "inet"}}}]}))
            .unwrap_err();
        assert!(matches!(&error, RunNftError::Refused(text) if text.contains("rror")), "{error}");
        assert!(error.to_string().contains("unchanged"));
    }
}
