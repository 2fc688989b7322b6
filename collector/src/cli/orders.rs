//! `order`: a person's word to one host, sealed by operators' keys, sent by a collector that could not have sealed it.

use super::policies::{count, read_key};
use super::{Failure, Output, Place, Reading, json, refused_by_store, span, table};
use crate::clock::{self, to_the_second};
use crate::page::text::{self, visible};
use crate::secret::random;
use crate::store::{NewOrder, OrderState, OrderView};
use clap::{Args, Subcommand};
use sekisho_schema::order::{Command, Dispatch, Order};
use sekisho_schema::sealed::{FRESH_FOR, hex};
use sekisho_schema::{ContainmentId, Measure, Scope, Sealed, Span};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The longest lease that can be asked for; policy may allow less.
const LONGEST: Span = Span::from_hours(24 * 30);
/// Orders that are listed.
const LISTED: u64 = 200;

#[derive(Subcommand)]
pub(super) enum OrderVerb {
    /// Cut a scope on a host
    Contain(Contain),
    /// End a containment before its lease ends
    Release(About),
    /// Let a cut that is on trial hold for its lease
    Confirm(About),
    /// Add a signature to a sealed order; works offline
    Seal(Seal),
    /// Send a sealed order
    Send(Send),
    /// List the orders and what came of them
    List(Reading),
}

/// How an order is sealed, and where it goes.
#[derive(Args)]
pub(super) struct Sealing {
    #[command(flatten)]
    place: Place,
    /// Why, in your words
    #[arg(long)]
    reason: String,
    /// An operator's secret key; repeat it for the second operator
    #[arg(long, required = true)]
    key: Vec<PathBuf>,
    /// How long the order may take to arrive, at most 15m
    #[arg(long, default_value = "15m")]
    fresh: String,
    /// Write the sealed order to a file instead of sending it; works without a collector
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Contain {
    /// The host, by its name in `hosts`
    host: String,
    /// dest:ADDR, cgroup:PATH, container:ID, host, management-only, internal:ADDR, internal:MAC or link:DEVICE
    scope: Scope,
    /// For how long
    #[arg(long = "for")]
    lease: String,
    /// Bytes a second that still leave (dest: only)
    #[arg(long, group = "measure", value_parser = clap::value_parser!(u64).range(1..))]
    throttle: Option<u64>,
    /// Bytes that still leave (dest: only)
    #[arg(long, group = "measure", value_parser = clap::value_parser!(u64).range(1..))]
    quota: Option<u64>,
    /// Let the processes stand still too (cgroup: and container: only)
    #[arg(long, group = "measure")]
    freeze: bool,
    /// Count only (dest: only)
    #[arg(long, group = "measure")]
    observe: bool,
    #[command(flatten)]
    sealing: Sealing,
}

#[derive(Args)]
pub(super) struct About {
    /// The host, by its name in `hosts`
    host: String,
    /// The containment: c- and twelve hexadecimal digits
    containment: String,
    #[command(flatten)]
    sealing: Sealing,
}

#[derive(Args)]
pub(super) struct Seal {
    /// The sealed order
    file: PathBuf,
    /// An operator's secret key; repeat it for several
    #[arg(long, required = true)]
    key: Vec<PathBuf>,
    /// Where to write it [default: the file itself]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Send {
    #[command(flatten)]
    place: Place,
    /// The sealed order
    file: PathBuf,
}

pub(super) fn act(verb: OrderVerb, out: &mut dyn Write) -> Result<u8, Failure> {
    match verb {
        OrderVerb::Contain(arguments) => contain(arguments, out),
        OrderVerb::Release(about) => {
            let containment = containment(&about.containment)?;
            let what = Command::Release { containment, break_glass: false };
            give(about.host, what, &about.sealing, out)
        }
        OrderVerb::Confirm(about) => {
            let containment = containment(&about.containment)?;
            give(about.host, Command::Confirm { containment }, &about.sealing, out)
        }
        OrderVerb::Seal(arguments) => add_seal(&arguments, out),
        OrderVerb::Send(arguments) => {
            let sealed = read_sealed(&arguments.file)?;
            send(&arguments.place, &sealed, out)
        }
        OrderVerb::List(reading) => list(&reading, out),
    }
}

fn unsent(error: impl std::fmt::Display, help: impl Into<String>) -> Failure {
    Failure::unable(error, "no order was given", help)
}

fn containment(name: &str) -> Result<ContainmentId, Failure> {
    let is_one = name.strip_prefix("c-").is_some_and(|digits| {
        digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if is_one {
        return Ok(ContainmentId(name.to_owned()));
    }
    Err(unsent(
        format!("\"{}\" names no containment", visible(name)),
        "the page, and `sekisho status` on the host, show c- and twelve hexadecimal digits",
    ))
}

fn contain(arguments: Contain, out: &mut dyn Write) -> Result<u8, Failure> {
    let lease = span(&arguments.lease, LONGEST)?;
    let measure = match (arguments.throttle, arguments.quota) {
        (Some(bytes_per_second), _) => Measure::Throttle { bytes_per_second },
        (_, Some(bytes)) => Measure::Quota { bytes },
        _ if arguments.freeze => Measure::Freeze,
        _ if arguments.observe => Measure::Observe,
        _ => Measure::Cut,
    };
    let scope = arguments.scope;
    if !scope.takes(measure) {
        return Err(unsent(
            format!("{scope} can't be {measure}"),
            "throttle, quota and observe are for dest:ADDR, freeze is for cgroup:PATH and container:ID",
        ));
    }
    let what = Command::Contain { scope, lease, measure, break_glass: false };
    give(arguments.host, what, &arguments.sealing, out)
}

/// Seals an order, and sends it or writes it to a file.
fn give(
    host: String,
    what: Command,
    sealing: &Sealing,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    if sealing.reason.trim().is_empty() {
        return Err(unsent("the reason is empty", "say why with --reason TEXT"));
    }
    let fresh = span(&sealing.fresh, FRESH_FOR)?;
    let nonce = random::<16>().map_err(|error| unsent(error, "try again"))?;
    let now = clock::now();
    // Who gave it is read from the signatures; what stands here is for people that look into the file.
    let order = Order { what, by: "see the signatures".to_owned(), reason: sealing.reason.clone() };
    let dispatch = Dispatch { host, order, nonce: hex(&nonce), at: now };
    let sealed = with_keys(Sealed::wrap_order(&dispatch, now.after(fresh)), &sealing.key)?;
    match &sealing.out {
        Some(path) => write(&sealed, path, out),
        None => send(&sealing.place, &sealed, out),
    }
}

fn with_keys(sealed: Sealed, keys: &[PathBuf]) -> Result<Sealed, Failure> {
    keys.iter().try_fold(sealed, |sealed, path| Ok(sealed.signed_by(&read_key(path)?)))
}

fn read_sealed(path: &Path) -> Result<Sealed, Failure> {
    let help = "name a file that `order contain --out FILE` wrote";
    let text = std::fs::read_to_string(path)
        .map_err(|error| unsent(format!("cannot read {}: {error}", path.display()), help))?;
    let sealed = Sealed::parse(&text)
        .and_then(|sealed| sealed.read_order().map(|_| sealed))
        .map_err(|error| unsent(format!("{}: {error}", path.display()), help))?;
    Ok(sealed)
}

fn add_seal(arguments: &Seal, out: &mut dyn Write) -> Result<u8, Failure> {
    let sealed = read_sealed(&arguments.file)?;
    let dispatch = sealed.read_order().map_err(|error| unsent(error, "have it made anew"))?;
    // Whoever adds a signature sees what they sign.
    writeln!(out, "{}", describe(&dispatch))?;
    let sealed = with_keys(sealed, &arguments.key)?;
    write(&sealed, arguments.out.as_ref().unwrap_or(&arguments.file), out)
}

fn write(sealed: &Sealed, path: &Path, out: &mut dyn Write) -> Result<u8, Failure> {
    let half = path.with_extension("half");
    std::fs::write(&half, format!("{}\n", sealed.to_text()))
        .and_then(|()| std::fs::rename(&half, path))
        .map_err(|error| {
            unsent(
                format!("cannot write {}: {error}", path.display()),
                "choose a file that you may write with --out",
            )
        })?;
    writeln!(
        out,
        "{}: sealed with {}; it must reach its host before {} UTC: `sekisho-collector order send {}` at the collector",
        path.display(),
        count(sealed.signatures.len(), "key", "keys"),
        to_the_second(sealed.expires),
        path.display()
    )?;
    Ok(0)
}

/// What is ordered, in words.
fn what(command: &Command) -> String {
    match command {
        Command::Contain { scope, lease, measure, .. } => format!(
            "{} for {lease} (level {})",
            text::held(scope, *measure),
            scope.level_of(*measure)
        ),
        Command::Confirm { containment } => format!("confirm {}", visible(&containment.0)),
        Command::Release { containment, .. } => format!("release {}", visible(&containment.0)),
    }
}

fn describe(dispatch: &Dispatch) -> String {
    format!(
        "order for {}: {}; reason: {}",
        visible(&dispatch.host),
        what(&dispatch.order.what),
        visible(&dispatch.order.reason)
    )
}

fn send(place: &Place, sealed: &Sealed, out: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = place.open()?;
    let operators = dir
        .operators()
        .map_err(|error| unsent(error, "see that trust.d/operators holds public keys only"))?;
    if operators.is_empty() {
        return Err(unsent(
            "no operator is known here, so no order can be checked",
            "add their public keys with `sekisho-collector trust operator NAME FILE.pub`; hosts need them too",
        ));
    }
    let dispatch = sealed.read_order().map_err(|error| unsent(error, "have it made anew"))?;
    let host = dispatch.host.clone();
    if !store.knows_host(&host).map_err(refused_by_store)? {
        return Err(Failure::refused(
            format!("there is no host \"{}\"", visible(&host)),
            "no order was given",
            "`sekisho-collector hosts` shows the names",
        ));
    }
    let now = clock::now();
    let level = |id: &ContainmentId| store.level_held(&host, id).ok().flatten();
    let refuse = |error: &dyn std::fmt::Display| {
        Failure::refused(
            error,
            "no order was given",
            "level 5 and above, and the end of such a cut, take two operators: `order seal FILE --key KEY` adds the second; an order is good for 15 minutes",
        )
    };
    // The host checks again, and its word counts; the check here keeps a mistake from travelling.
    sealed.open_order(&operators, &host, now, level).map_err(|error| refuse(&error))?;
    let signers = sealed.operators_of(&operators).map_err(|error| refuse(&error))?;
    let id = format!("o-{}", sealed.digest().chars().take(12).collect::<String>());
    let order = NewOrder {
        id: id.clone(),
        host: host.clone(),
        sealed: sealed.to_text(),
        sealed_by: signers.into_iter().collect::<Vec<_>>().join(" and "),
        expires: sealed.expires,
    };
    store.keep_order(&order, now).map_err(refused_by_store)?;
    writeln!(out, "{id}: {}", describe(&dispatch))?;
    writeln!(
        out,
        "on its way until {} UTC; what came of it: `sekisho-collector order list`",
        to_the_second(sealed.expires)
    )?;
    Ok(0)
}

fn list(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = reading.place.open()?;
    let orders = store.orders(LISTED, clock::now()).map_err(refused_by_store)?;
    if reading.output == Output::Json {
        json(out, &orders)?;
    } else {
        let rows: Vec<_> = orders.iter().map(row).collect();
        table::write(
            out,
            ["ID", "SENT (UTC)", "HOST", "SEALED BY", "STATE", "ORDER", "ANSWER"],
            &rows,
        )?;
    }
    let amiss = |order: &OrderView| matches!(order.state, OrderState::Lapsed | OrderState::Refused);
    Ok(u8::from(orders.iter().any(amiss)))
}

fn row(order: &OrderView) -> [String; 7] {
    let state = match order.state {
        OrderState::Done => "done",
        OrderState::Handed => "handed over",
        OrderState::Lapsed => "LAPSED",
        OrderState::Refused => "REFUSED",
        OrderState::Waiting => "waiting",
    };
    [
        order.id.clone(),
        to_the_second(order.sent_at),
        order.host.clone(),
        order.sealed_by.clone(),
        state.to_owned(),
        text::order(&order.sealed),
        order.detail.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
