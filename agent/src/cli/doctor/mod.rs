//! `sekisho doctor`: what this kernel and host cover, found out by trying.
//!
//! Enters: the configuration. Leaves: tries, the matrix of senders against levels, kernel features, and what passes a
//! cut on this host. The tries run in network namespaces of their own that are removed afterwards, so that nothing
//! of the host changes. Must not know: a running agent.

mod features;
mod frames;
mod matrix;
mod scratch;
mod tries;

use super::args::{DoctorArgs, Format};
use super::contain::load;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::enforce::{Look, Plan, explain};
use crate::host::interfaces::{interfaces, on_link, uplinks};
use crate::journal::JournalOptions;
use matrix::Row;
use scratch::Scratch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the look at this host may take.
const LOOKING: Duration = Duration::from_secs(5);

/// The outcome of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Try {
    /// `true` when it works, `false` when it does not, `null` when it was not tried.
    works: Option<bool>,
    /// How it went.
    detail: String,
}

type Tries = BTreeMap<String, Try>;

/// What was found out in the scratch namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Probed {
    tries: Tries,
    /// Each sender against each level.
    matrix: Vec<Row>,
    /// What the kernel has; nothing here is a fault, as each has a second best.
    features: Tries,
}

pub(super) fn run(args: &DoctorArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    if args.probe {
        let told = serde_json::to_string(&tries::probe())
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(console.out, "{text}"));
        return told.map(|()| Outcome::Fine).map_err(|error| cannot_write(&error));
    }
    let config = load(&args.read.config).ok();
    let interfaces = interfaces();
    let named = config.as_ref().and_then(|config| config.interfaces.clone()).unwrap_or_default();
    let plan = Plan {
        uplinks: uplinks(&interfaces, &named),
        on_link: on_link(&interfaces),
        ..Plan::default()
    };
    let mut probed = in_scratch();
    let up: Vec<String> = interfaces.iter().map(|interface| interface.name.clone()).collect();
    probed.tries.insert("uplinks".to_owned(), tries::uplinks(&plan, &up));
    if let Some(config) = &config {
        let options = JournalOptions {
            dir: config.journal_dir(),
            host: String::new(),
            segment_bytes: 1,
            cap_bytes: 1,
        };
        probed.tries.insert("journal".to_owned(), tries::journal(&options));
    }
    // The agent's own packet sockets are named with the others: the doctor does not know it.
    let gaps = Look::of(&plan, vec![std::process::id()]).now(LOOKING);
    tell(&probed, &gaps, args.read.output, console).map_err(|error| cannot_write(&error))?;
    let fine = probed.tries.values().all(|tried| tried.works == Some(true))
        && probed.matrix.iter().all(Row::is_as_told);
    Ok(if fine { Outcome::Fine } else { Outcome::Finding })
}

fn outcome<E: std::error::Error>(result: Result<String, E>) -> Try {
    match result {
        Ok(detail) => Try { works: Some(true), detail },
        Err(error) => Try { works: Some(false), detail: causes(&error) },
    }
}

fn untried(detail: &str) -> Try {
    Try { works: None, detail: detail.to_owned() }
}

/// Tries everything in scratch namespaces.
fn in_scratch() -> Probed {
    let only = |name: &str, tried: Try| Probed {
        tries: BTreeMap::from([(name.to_owned(), tried)]),
        ..Probed::default()
    };
    if !rustix::process::geteuid().is_root() {
        let names = ["capture", "cut", "matrix", "ruleset", "scheduling", "socket_end"];
        let tries = names.into_iter().map(|name| (name.to_owned(), untried("needs root")));
        return Probed {
            tries: tries.collect(),
            features: features::of_host(),
            ..Probed::default()
        };
    }
    let tried = Scratch::make().and_then(|scratch| scratch.probe());
    let mut probed = tried.unwrap_or_else(|error| {
        let detail = format!("cannot try in a network namespace: {error}");
        only("scratch", Try { works: Some(false), detail })
    });
    probed.features.extend(features::of_host());
    probed
}

fn tell(
    probed: &Probed,
    gaps: &[String],
    format: Format,
    console: &mut Console<'_>,
) -> std::io::Result<()> {
    let Probed { tries, matrix, features } = probed;
    if format == Format::Json {
        let all = serde_json::json!({
            "tries": tries, "matrix": matrix, "features": features, "not_covered": gaps
        });
        return writeln!(console.out, "{all}");
    }
    let word = |tried: &Try, no: &'static str| match tried.works {
        Some(true) => "ok",
        Some(false) => no,
        None => "?",
    };
    for (name, tried) in tries {
        writeln!(console.out, "{:<3} {name:<11} {}", word(tried, "NO"), tried.detail)?;
    }
    if !matrix.is_empty() {
        writeln!(
            console.out,
            "\nwhat each level cuts (each sender was first seen to get through):"
        )?;
        writeln!(
            console.out,
            "    {:<38} {:<10} {:<10} {:<10}",
            "sender", "3 dest", "5 host", "6 all"
        )?;
        for row in matrix {
            writeln!(console.out, "    {row}")?;
        }
    }
    writeln!(console.out, "\nthis kernel:")?;
    for (name, tried) in features {
        writeln!(console.out, "{:<3} {name:<20} {}", word(tried, "-"), tried.detail)?;
    }
    writeln!(console.out, "\nnot covered by a cut on this host:")?;
    for gap in gaps {
        writeln!(console.out, "    {gap}: {}", explain(gap))?;
    }
    writeln!(
        console.out,
        "no cut needs eBPF, BTF or kernel modules beyond nf_tables, inet_diag and packet sockets"
    )
}
