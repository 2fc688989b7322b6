//! `sekisho enroll`

use super::args::EnrollArgs;
use super::contain::load;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::sync::{EnrolError, Enrolled, HttpError, Identity, Pin, enrol};
use std::path::Path;

pub(super) fn run(args: &EnrollArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    let identity = &config.collector.identity;
    let pin: Pin = args.ca_pin.parse().map_err(|error| {
        Complaint::new(
            format!("{error}"),
            UNCHANGED,
            "`sekisho-collector init` prints the pin; take it over a way that you trust",
        )
    })?;
    if Identity::exists(identity) {
        return Err(Complaint::new(
            format!("this host has an identity already in {}", identity.display()),
            "it stays enrolled as it is",
            format!(
                "to enrol anew, move {} away first, so that nobody replaces an identity by accident",
                identity.display()
            ),
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Complaint::new(
                format!("cannot begin: {error}"),
                UNCHANGED,
                "is the system out of descriptors?",
            )
        })?;
    let enrolled = runtime
        .block_on(enrol(&args.url, &args.token, pin, &config.host, identity, &config.trust))
        .map_err(|error| complaint(&error))?;
    tell(&enrolled, args, &config.trust, console).map_err(|error| cannot_write(&error))?;
    Ok(Outcome::Fine)
}

const UNCHANGED: &str = "this host is not enrolled; nothing was kept";

fn complaint(error: &EnrolError) -> Complaint {
    let help = match error {
        EnrolError::Http(HttpError::Refused { status, .. })
            if status.as_u16() == 403 || status.as_u16() == 401 =>
        {
            "tokens are single-use and short-lived: make a new one with `sekisho-collector token create`"
        }
        EnrolError::Http(HttpError::Connect { .. }) if causes(error).contains("not the pinned") => {
            "compare the pin with what `sekisho-collector init` printed; if that is right, somebody stands between: do not go on"
        }
        EnrolError::Http(HttpError::Connect { .. }) => {
            "is the address right, does the collector run, and is the pin that of `sekisho-collector init`?"
        }
        EnrolError::Http(HttpError::Address(_)) => "name the collector as https://HOST:PORT",
        EnrolError::Keep(_) => {
            "make the state directory writable; the token is used up, so make a new one"
        }
        _ => "look at the collector's log; agent and collector should be of the same version",
    };
    Complaint::new(causes(error), UNCHANGED, help)
}

fn tell(
    enrolled: &Enrolled,
    args: &EnrollArgs,
    trust: &Path,
    console: &mut Console<'_>,
) -> std::io::Result<()> {
    writeln!(console.out, "enrolled at {} as {}", args.url, enrolled.id)?;
    if enrolled.anchors.is_empty() {
        writeln!(
            console.out,
            "NO TRUST ANCHOR came with it: this host will refuse every policy until the public key of who seals them lies in {} (`sekisho-collector trust add` before enrolling sends it along)",
            trust.display()
        )?;
    } else {
        writeln!(
            console.out,
            "policies need {} of these trust anchors: {}",
            enrolled.threshold,
            enrolled.anchors.join(", ")
        )?;
    }
    writeln!(
        console.out,
        "a running agent takes the identity up at its next start: `systemctl restart sekisho`"
    )
}
