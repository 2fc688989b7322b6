//! `sekisho guardian` and `sekisho boot`

use super::args::{ConfigArgs, GuardianArgs};
use super::contain::load;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::guardian::{Options, SOCKET, detach, keep, restore, run as serve};
use crate::logging;
use std::time::Duration;

const KEEPS: &str = "what the kernel holds, it keeps until its leases end";

pub(super) fn run(args: &GuardianArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let started = |error| {
        Complaint::new(
            format!("cannot start a guardian: {error}"),
            KEEPS,
            "is the system out of processes?",
        )
    };
    if args.detach {
        return detach(&arguments(args)).map(|()| Outcome::Fine).map_err(started);
    }
    if args.keep {
        return keep(&arguments(args)).map(|_| Outcome::Fine).map_err(started);
    }
    let options = options(args)?;
    let _log = logging::begin();
    let told = writeln!(console.err, "sekisho guardian: serving {}", options.socket.display());
    // Nobody may read what a detached one says.
    drop(told);
    serve(&options).map(|()| Outcome::Fine).map_err(|error| {
        Complaint::new(
            format!("cannot guard: {}", causes(&error)),
            KEEPS,
            "it needs CAP_NET_ADMIN in this network namespace; run `sekisho doctor`",
        )
    })
}

fn options(args: &GuardianArgs) -> Result<Options, Complaint> {
    let linger = args.linger.map(Duration::from_secs);
    if let (Some(run), Some(state)) = (&args.run, &args.state) {
        return Ok(Options {
            socket: run.join(SOCKET),
            state: state.clone(),
            own: !args.shared,
            linger,
        });
    }
    let config = load(&args.config)?;
    Ok(Options {
        socket: config.guardian_socket(),
        own: config.own_tables && !args.shared,
        state: config.state,
        linger,
    })
}

/// The arguments again, for the process that does the work.
fn arguments(args: &GuardianArgs) -> Vec<String> {
    let mut words = Vec::new();
    if let (Some(run), Some(state)) = (&args.run, &args.state) {
        words.extend(["--run".to_owned(), run.display().to_string()]);
        words.extend(["--state".to_owned(), state.display().to_string()]);
    } else {
        words.extend(["--config".to_owned(), args.config.config.display().to_string()]);
    }
    if let Some(linger) = args.linger {
        words.extend(["--linger".to_owned(), linger.to_string()]);
    }
    if args.shared {
        words.push("--shared".to_owned());
    }
    words
}

pub(super) fn boot(args: &ConfigArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(args)?;
    let restored = restore(&config.state, config.own_tables).map_err(|error| {
        Complaint::new(
            format!("cannot hold again what was held: {}", causes(&error)),
            "nothing of it is cut until the agent decides anew",
            "run `sekisho doctor`",
        )
    })?;
    let told = match restored.containments {
        0 => writeln!(console.out, "nothing was held"),
        count => {
            writeln!(console.out, "{count} containments are held again, for what is left of them")
        }
    };
    told.map_err(|error| cannot_write(&error))?;
    if restored.absent_devices > 0 {
        writeln!(
            console.out,
            "{} devices are not there yet; the guardian arms them when they come",
            restored.absent_devices
        )
        .map_err(|error| cannot_write(&error))?;
    }
    Ok(Outcome::Fine)
}
