//! `sekisho release`

use super::args::ReleaseArgs;
use super::contain::{order, said};
use super::{Console, Outcome};
use crate::chain::Complaint;
use crate::control::Request;

pub(super) fn run(args: ReleaseArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let request = Request::Release {
        containment: args.id(),
        break_glass: args.break_glass,
        reason: said("--reason", args.reason)?,
    };
    order(&args.config, &request, console)
}
