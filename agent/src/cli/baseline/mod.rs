//! `sekisho baseline`: what was learned, who signed it, and what may be done because of it.

mod args;
mod certify;
mod decide;
mod files;
mod replay;
mod report;
mod show;

pub(super) use args::BaselineArgs;

use super::{Console, Outcome};
use crate::chain::Complaint;
use args::BaselineVerb;

pub(super) fn run(args: BaselineArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match args.verb {
        BaselineVerb::Announce(args) => decide::announce(*args, console),
        BaselineVerb::Approve(args) => decide::decide(&args, decide::Word::Approve, console),
        BaselineVerb::Certify(args) => certify::certify(&args, console),
        BaselineVerb::Diff(args) => show::diff(&args, console),
        BaselineVerb::Draft(args) => decide::draft(&args, console),
        BaselineVerb::Export(args) => files::export(&args, console),
        BaselineVerb::Import(args) => files::import(&args, console),
        BaselineVerb::Refuse(args) => decide::decide(&args, decide::Word::Refuse, console),
        BaselineVerb::Replay(args) => replay::run(&args, console),
        BaselineVerb::Report(args) => report::run(&args, console),
        BaselineVerb::Review(args) => decide::review(&args, console),
        BaselineVerb::Show(args) => show::show(&args, console),
    }
}
