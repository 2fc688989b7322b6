//! How the program says that something went wrong: three lines a tired person can act on.

use std::error::Error;
use std::fmt;
use std::io::Write;

/// What could not be done, in which state that leaves us, and what helps.
#[derive(Debug)]
pub struct Complaint {
    /// What could not be done, to what, and why.
    pub error: String,
    /// What holds now.
    pub state: String,
    /// What to do next.
    pub help: String,
}

impl Complaint {
    /// A complaint of three sentences.
    #[must_use]
    pub fn new(
        error: impl Into<String>,
        state: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { error: error.into(), state: state.into(), help: help.into() }
    }

    /// Writes the three lines; a writer that fails leaves nobody to tell.
    pub fn print(&self, to: &mut dyn Write) {
        let _ = writeln!(to, "{self}");
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\nstate: {}\nhelp:  {}", self.error, self.state, self.help)
    }
}

/// The message of an error and of all its causes, joined by `: `, without repetition.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        next = cause.source();
    }
    text
}
