//! `init`: everything a collector needs, made once; and the operator's password.

use super::{Failure, Place};
use crate::authority::{Authority, check_organisation};
use crate::clock;
use crate::dir::{Dir, write_public, write_secret};
use crate::secret::{self, password_record};
use crate::store::Store;
use clap::{Args, Subcommand};
use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;

#[derive(Args)]
pub(super) struct Init {
    #[command(flatten)]
    place: Place,
    /// The organisation: part of every agent's identity, can't be changed later
    #[arg(long, default_value = "sekisho")]
    org: String,
    /// A name that agents and browsers reach this collector by
    #[arg(long)]
    name: Vec<String>,
    /// An address that agents and browsers reach this collector by
    #[arg(long)]
    address: Vec<IpAddr>,
}

#[derive(Subcommand)]
pub(super) enum Operator {
    /// Make a new password; the old one ends when the server is restarted
    Password(Place),
}

pub(super) fn init(init: &Init, out: &mut dyn Write) -> Result<u8, Failure> {
    let dir = Dir::new(&init.place.dir);
    check_organisation(&init.org).map_err(|error| {
        Failure::unable(error, "nothing was made", "choose a name like example.org with --org")
    })?;
    if dir.database().exists() || dir.ca_key().exists() {
        let error = format!("{} holds a collector already", dir.path().display());
        return Err(Failure::refused(
            error,
            "nothing was changed",
            "its identity is kept for good; use another --dir for another collector",
        ));
    }
    let path = dir.path().display().to_string();
    let fail = |error: &dyn Display| {
        Failure::unable(
            error,
            format!("{path} may hold a part of a collector; no agent knows it yet"),
            format!("remove {path}, mend the cause and run init again"),
        )
    };
    let now = clock::now();
    // Made in memory first: a name that does not fit leaves nothing behind.
    let ca = Authority::create(&init.org, now).map_err(|error| fail(&error))?;
    let authority =
        Authority::open(&init.org, &ca.certificate, &ca.key).map_err(|error| fail(&error))?;
    let server = authority.issue_server(&init.name, &init.address, now).map_err(|error| {
        Failure::unable(
            error,
            "nothing was made",
            "write --name as a DNS name and --address as an IP address",
        )
    })?;
    let pin = authority.pin().map_err(|error| fail(&error))?;
    let password = secret::new_password().map_err(|error| fail(&error))?;
    let record = password_record(&password).map_err(|error| fail(&error))?;
    dir.create().map_err(|error| fail(&error))?;
    write_secret(&dir.ca_key(), &ca.key).map_err(|error| fail(&error))?;
    write_public(&dir.ca_certificate(), &ca.certificate).map_err(|error| fail(&error))?;
    write_secret(&dir.server_key(), &server.key).map_err(|error| fail(&error))?;
    write_public(&dir.server_certificate(), &server.certificate).map_err(|error| fail(&error))?;
    let store = Store::open(&dir.database(), true).map_err(|error| fail(&error))?;
    let addresses = init.address.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
    let settings = [
        ("organisation", init.org.as_str()),
        ("names", &init.name.join(" ")),
        ("addresses", &addresses),
        ("operator", &record),
        ("threshold", "1"),
    ];
    store.keep_meta(&settings).map_err(|error| fail(&error))?;
    let at = if init.place.dir.as_os_str() == Dir::DEFAULT {
        String::new()
    } else {
        format!(" --dir {path}")
    };
    writeln!(out, "collector made in {path} for {}", init.org)?;
    writeln!(out, "CA pin:            {pin}")?;
    writeln!(out, "operator password: {password}   (user operator; shown this once)")?;
    writeln!(out, "\nnext:")?;
    writeln!(out, "  sekisho-collector run{at}")?;
    writeln!(
        out,
        "  sekisho-collector policy keygen --out policy.key   # on another machine; the secret key never comes here"
    )?;
    writeln!(
        out,
        "  sekisho-collector trust add policy.key.pub{at}      # before the first host enrols: hosts learn of it then"
    )?;
    writeln!(
        out,
        "  sekisho-collector token create{at}              # prints the command that enrols one host"
    )?;
    Ok(0)
}

fn renew_password(store: &Store) -> Result<String, Failure> {
    let fail = |error: &dyn Display| {
        Failure::unable(
            error,
            "the old password stays",
            "see that the disk is not full, then try again",
        )
    };
    let password = secret::new_password().map_err(|error| fail(&error))?;
    let record = password_record(&password).map_err(|error| fail(&error))?;
    store.keep_meta(&[("operator", &record)]).map_err(|error| fail(&error))?;
    Ok(password)
}

pub(super) fn new_password(place: &Place, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = place.open()?;
    let password = renew_password(&store)?;
    writeln!(
        out,
        "operator password: {password}   (user operator; shown this once; in force after a restart of the server)"
    )?;
    Ok(0)
}
