//! Asking a running agent.

use super::protocol::{Answer, Request};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that an agent may take to answer; a cut with proof takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("cannot reach the agent at {socket}")]
    Unreachable {
        /// The control socket.
        socket: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The answer is no answer.
    #[error("cannot understand the agent at {socket}")]
    Garbled {
        /// The control socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Sends one request and waits for its answer.
///
/// # Errors
/// [`AskError`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, AskError> {
    let garbled = |source| AskError::Garbled { socket: socket.to_owned(), source };
    let mut line = serde_json::to_string(request).map_err(garbled)?;
    line.push('\n');
    let answer = exchange(socket, &line)
        .map_err(|source| AskError::Unreachable { socket: socket.to_owned(), source })?;
    serde_json::from_str(&answer).map_err(garbled)
}

fn exchange(socket: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
