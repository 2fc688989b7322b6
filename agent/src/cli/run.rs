//! `sekisho run`

use super::args::ConfigArgs;
use super::contain::load;
use super::{Console, Outcome};
use crate::chain::Complaint;
use crate::{daemon, logging};

pub(super) fn run(args: &ConfigArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(args)?;
    daemon::prepare(&config)?;
    let _log = logging::begin();
    match daemon::run(config, console.err)? {
        daemon::RunOutcome::AsRequested => Ok(Outcome::Fine),
        daemon::RunOutcome::BelowRequested => Ok(Outcome::Finding),
    }
}
