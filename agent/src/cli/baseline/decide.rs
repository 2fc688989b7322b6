//! `review`, `approve`, `refuse`, `draft` and `announce`: what people decide.

use super::args::{AnnounceArgs, DecideArgs, DraftArgs, ReviewArgs};
use super::files::{Source, UNTOUCHED, baseline, seal};
use crate::chain::Complaint;
use crate::cli::args::Format;
use crate::cli::contain::said;
use crate::cli::text::{amount, seconds};
use crate::cli::{Console, Outcome, cannot_write};
use crate::clock;
use sekisho_engine::certify::review::{self, Item, Signer};
use sekisho_schema::baseline::{BASELINE_KIND, ChangeWindow, RoleBaseline};
use std::io::Write;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Approve,
    Refuse,
}

pub(super) fn review(args: &ReviewArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let source = Source::read(&args.source)?;
    let items = review::list(&source.pool, &source.baseline);
    tell(&items, &source, args.output, console.out).map_err(|error| cannot_write(&error))?;
    Ok(if items.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn tell(
    items: &[Item],
    source: &Source,
    format: Format,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if format == Format::Json {
        for item in items {
            writeln!(out, "{}", serde_json::to_string(item)?)?;
        }
        return Ok(());
    }
    let weeks = source.pool.host_weeks();
    let rate = if weeks > 0.0 { items.len() as f64 / weeks } else { 0.0 };
    writeln!(
        out,
        "role {}: {} to decide in {weeks:.1} host-weeks ({rate:.2} a week)",
        source.pool.role,
        items.len()
    )?;
    for item in items {
        writeln!(out, "{}  {}", item.id, item.sentence)?;
        writeln!(
            out,
            "          {} to {}, {} up",
            seconds(item.first_at),
            seconds(item.last_at),
            amount(item.up)
        )?;
    }
    if !items.is_empty() {
        writeln!(
            out,
            "nothing of this is normal, and nothing is granted, until `baseline approve ITEM` or `baseline refuse ITEM`"
        )?;
    }
    Ok(())
}

pub(super) fn decide(
    args: &DecideArgs,
    word: Word,
    console: &mut Console<'_>,
) -> Result<Outcome, Complaint> {
    let by = said("--by", args.by.clone())?;
    let reason = said("--reason", args.reason.clone())?;
    let source = Source::read(&args.source)?;
    let items = chosen(&args.items, review::list(&source.pool, &source.baseline))?;
    let signer = Signer { by: &by, at: clock::now(), reason: &reason };
    let next = match word {
        Word::Approve => review::approve(&source.baseline, &items, &signer),
        Word::Refuse => review::refuse(&source.baseline, &items, &signer),
    };
    write(&next, &args.seal, console)?;
    let left = review::list(&source.pool, &next).len();
    let mut tell = || -> std::io::Result<()> {
        let done = if word == Word::Approve { "approved" } else { "refused" };
        for item in &items {
            writeln!(console.out, "{done} {}  {}", item.id, item.key)?;
        }
        writeln!(console.out, "{left} left to decide")
    };
    tell().map_err(|error| cannot_write(&error))?;
    Ok(Outcome::Fine)
}

/// The items with these names; a name that none has decides nothing.
fn chosen(names: &[String], items: Vec<Item>) -> Result<Vec<Item>, Complaint> {
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| !items.iter().any(|item| item.id == **name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(Complaint::new(
            format!("nothing to decide is named {}", unknown.join(", ")),
            UNTOUCHED,
            "`sekisho baseline review` names what is to be decided",
        ));
    }
    Ok(items.into_iter().filter(|item| names.contains(&item.id)).collect())
}

pub(super) fn draft(args: &DraftArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let source = Source::read(&args.source)?;
    let next = review::draft(&source.pool, &source.baseline, clock::now());
    write(&next, &args.seal, console)?;
    let left = review::list(&source.pool, &next).len();
    writeln!(
        console.out,
        "{} destinations are normal, {left} items are left to decide",
        next.entry.len()
    )
    .map_err(|error| cannot_write(&error))?;
    Ok(if left == 0 { Outcome::Fine } else { Outcome::Finding })
}

pub(super) fn announce(
    args: AnnounceArgs,
    console: &mut Console<'_>,
) -> Result<Outcome, Complaint> {
    let by = said("--by", args.by)?;
    let from = args.from.unwrap_or_else(clock::now);
    let role = match &args.source.role {
        Some(role) => role.clone(),
        None => Source::read(&args.source)?.pool.role,
    };
    let mut next = baseline(&args.source, &role)?.into_inner();
    next.version += 1;
    next.made_at = clock::now();
    // Windows that are shut long since say nothing any more.
    next.window.retain(|window| window.until > next.made_at);
    next.window.push(ChangeWindow {
        name: said("the name", args.name)?,
        from,
        until: from.after(args.lasts),
        workload: args.workload,
        destinations: args.destinations,
        upload: args.upload,
        by,
    });
    write(&next, &args.seal, console)?;
    Ok(Outcome::Fine)
}

/// Checks what a reader would check, seals and writes.
fn write(
    next: &RoleBaseline,
    args: &super::args::SealArgs,
    console: &mut Console<'_>,
) -> Result<(), Complaint> {
    let refuse = |why: String| {
        Complaint::new(
            format!("the new baseline makes no sense: {why}"),
            "nothing was sealed",
            "mend what was asked for",
        )
    };
    let text = next.to_text().map_err(refuse)?;
    RoleBaseline::parse(&text).map_err(|error| refuse(error.to_string()))?;
    seal(args, (BASELINE_KIND, next.version), &text, console)
}
