//! `notices`: what a person was told, and that somebody took it on.

use super::{Failure, Output, Place, Reading, json, refused_by_store, table};
use crate::clock::{self, to_the_second};
use crate::secret::random;
use crate::store::{NewNotice, NoticeKind, NoticeView};
use clap::{Args, Subcommand};
use sekisho_schema::sealed::hex;
use std::io::Write;

/// Notices that are listed.
const LISTED: u64 = 500;

#[derive(Subcommand)]
pub(super) enum Notices {
    /// List them, newest first
    List(List),
    /// Take a notice on: it is told no more
    Seen(Seen),
    /// Make a notice, to see that it arrives
    Test(Place),
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    reading: Reading,
    /// Also those that somebody took on
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(super) struct Seen {
    #[command(flatten)]
    place: Place,
    /// Its number, from `notices list`
    id: u64,
    /// Who you are
    #[arg(long)]
    by: String,
    /// What you make of it
    #[arg(long)]
    note: Option<String>,
}

pub(super) fn act(verb: Notices, out: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        Notices::List(arguments) => list(&arguments, out),
        Notices::Seen(arguments) => seen(&arguments, out),
        Notices::Test(place) => test(&place, out),
    }
}

/// How a notice fared on its ways.
pub(super) fn delivery(notice: &NoticeView) -> String {
    let ways: Vec<String> = notice
        .deliveries
        .iter()
        .map(|way| match (&way.delivered_at, &way.failure) {
            (Some(at), _) => format!("{} told {}", way.who, to_the_second(*at)),
            (None, Some(why)) => format!("{} NOT told: {why}", way.who),
            (None, None) => format!("{} due", way.who),
        })
        .collect();
    if ways.is_empty() { "-".to_owned() } else { ways.join("; ") }
}

fn list(arguments: &List, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = arguments.reading.place.open()?;
    let notices = store.notices(arguments.all, LISTED).map_err(refused_by_store)?;
    let open = notices.iter().any(|notice| notice.seen_at.is_none());
    if arguments.reading.output == Output::Json {
        json(out, &notices)?;
        return Ok(u8::from(open));
    }
    let rows: Vec<_> = notices
        .iter()
        .map(|notice| {
            [
                notice.id.to_string(),
                to_the_second(notice.at),
                notice.kind.clone(),
                notice
                    .host
                    .clone()
                    .or_else(|| notice.group.clone())
                    .unwrap_or_else(|| "-".to_owned()),
                notice.seen_by.clone().unwrap_or_else(|| "nobody yet".to_owned()),
                delivery(notice),
                notice.text.clone(),
            ]
        })
        .collect();
    table::write(out, ["ID", "TIME (UTC)", "KIND", "HOST", "TAKEN ON BY", "TOLD", "WHAT"], &rows)?;
    Ok(u8::from(open))
}

fn seen(arguments: &Seen, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = arguments.place.open()?;
    let by = arguments.by.trim();
    if by.is_empty() {
        return Err(Failure::unable(
            "the name is empty",
            "nothing was changed",
            "say who you are with --by NAME",
        ));
    }
    if store
        .see_notice(arguments.id, by, arguments.note.as_deref(), clock::now())
        .map_err(refused_by_store)?
    {
        writeln!(out, "notice {} is taken on by {by}", arguments.id)?;
        return Ok(0);
    }
    Err(Failure::refused(
        format!("there is no notice {} that nobody took on yet", arguments.id),
        "nothing was changed",
        "`sekisho-collector notices list --all` shows who did",
    ))
}

fn test(place: &Place, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = place.open()?;
    let draw = random::<8>()
        .map_err(|error| Failure::unable(error, "nothing was changed", "try again"))?;
    let notice = NewNotice {
        key: format!("{}:{}", NoticeKind::Test.word(), hex(&draw)),
        kind: NoticeKind::Test,
        agent: None,
        group: None,
        subject: "test".to_owned(),
        text: "a person asked for this, to see that notices arrive; nothing is wrong".to_owned(),
    };
    store.notice(&notice, clock::now()).map_err(refused_by_store)?;
    writeln!(
        out,
        "made; a running collector with [notify] sends it within two seconds: `sekisho-collector notices list` shows what came of it"
    )?;
    Ok(0)
}
