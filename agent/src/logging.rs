//! The log: key-value lines on standard error, by `SEKISHO_LOG` (default `info`).

use tracing_subscriber::EnvFilter;

/// Begins logging; a second call changes nothing.
pub fn begin() {
    let filter = EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}
