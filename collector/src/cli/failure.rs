//! Three lines for what went wrong: the error, the state we are left in, and what helps.

use std::fmt::Display;
use std::io::Write;

/// Why a command ended without its work done.
#[derive(Debug)]
pub(super) struct Failure {
    /// 1 for a refusal, 2 when it could not be done.
    pub(super) code: u8,
    error: String,
    state: String,
    help: String,
}

impl Failure {
    /// It could not be done.
    pub(super) fn unable(
        error: impl Display,
        state: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { code: 2, error: error.to_string(), state: state.into(), help: help.into() }
    }

    /// It was refused.
    pub(super) fn refused(
        error: impl Display,
        state: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { code: 1, error: error.to_string(), state: state.into(), help: help.into() }
    }

    /// Writes the three lines; each stays one line whatever the parts hold.
    pub(super) fn tell(&self, err: &mut dyn Write) {
        for (name, text) in
            [("error:", &self.error), ("state:", &self.state), ("help: ", &self.help)]
        {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            // Nothing is left to say when stderr itself is gone.
            let _ = writeln!(err, "{name} {text}");
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::unable(
            format!("cannot write the answer: {error}"),
            "the work itself was done",
            "run the reading command again",
        )
    }
}
