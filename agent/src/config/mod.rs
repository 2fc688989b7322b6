//! Enters: `agent.toml` and what lies in `agent.d`. Leaves: a [`Config`] that may be used.
//! Must not know: anything that uses it.

mod built;
mod raw;

pub use built::{CollectorConfig, Config};
pub use raw::{LoadConfigError, RawConfig};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sekisho/agent.toml";

#[cfg(test)]
mod tests;
