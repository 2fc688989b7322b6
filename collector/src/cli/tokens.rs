//! `token`: one token enrols one host.

use super::{Failure, Output, Place, Reading, json, refused_by_store, span, table};
use crate::clock::{self, to_the_second};
use crate::secret::{new_token, random, token_hash};
use crate::server::authority;
use crate::store::{Store, TokenView};
use clap::{Args, Subcommand};
use sekisho_schema::sealed::hex;
use sekisho_schema::{Span, Timestamp};
use std::io::Write;

/// The longest life of a token.
const LONGEST: Span = Span::from_hours(24 * 30);

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token and print the command that enrols a host with it
    Create(Create),
    /// List the tokens; the tokens themselves are not kept
    List(Reading),
    /// Take a token back that was not used yet
    Revoke(Revoke),
}

#[derive(Args)]
pub(super) struct Create {
    #[command(flatten)]
    place: Place,
    /// How long the token may be used
    #[arg(long, default_value = "1h")]
    ttl: String,
    /// The group of the host
    #[arg(long, default_value = "default")]
    group: String,
    /// The URL that the host reaches this collector by [default: the first --address or --name of init, with the port of the last run]
    #[arg(long)]
    url: Option<String>,
}

#[derive(Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    place: Place,
    /// The token's id, from `token list`
    id: String,
}

pub(super) fn act(token: Token, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    match token {
        Token::Create(arguments) => create(&arguments, out, err),
        Token::List(reading) => list(&reading, out),
        Token::Revoke(arguments) => revoke(&arguments, out),
    }
}

fn url(store: &Store) -> Result<String, crate::store::StoreError> {
    let first = |text: Option<String>| {
        text.and_then(|text| text.split_whitespace().next().map(str::to_owned))
    };
    let address = first(store.meta("addresses")?)
        .map(|address| if address.contains(':') { format!("[{address}]") } else { address });
    let host = match address {
        Some(address) => address,
        None => first(store.meta("names")?).unwrap_or_else(|| "127.0.0.1".to_owned()),
    };
    let port = store.meta("port")?.unwrap_or_else(|| "8443".to_owned());
    Ok(format!("https://{host}:{port}"))
}

fn create(arguments: &Create, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    let (dir, store) = arguments.place.open()?;
    let ttl = span(&arguments.ttl, LONGEST)?;
    let fail = |error: &dyn std::fmt::Display| {
        Failure::unable(
            error,
            "no token was made",
            "see that the collector's directory is whole and belongs to you",
        )
    };
    let group = arguments.group.trim();
    if group.is_empty() || group.len() > 100 || group.chars().any(char::is_control) {
        return Err(Failure::unable(
            "the group's name is empty, longer than 100 bytes or has control characters",
            "no token was made",
            "choose a name such as web with --group",
        ));
    }
    let pin = authority(&dir, &store)
        .map_err(|error| fail(&error))?
        .pin()
        .map_err(|error| fail(&error))?;
    let (token, id) = (
        new_token().map_err(|error| fail(&error))?,
        hex(&random::<4>().map_err(|error| fail(&error))?),
    );
    let url = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => url(&store).map_err(|error| fail(&error))?,
    };
    let now = clock::now();
    let until = now.after(ttl);
    store.keep_token(&id, &token_hash(&token), group, now, until).map_err(|error| fail(&error))?;
    writeln!(out, "sekisho enroll {url} --token {token} --ca-pin {pin}")?;
    // On the other stream, so that the command alone can be piped to where it is run.
    writeln!(
        err,
        "token {id} enrols one host into group {group} until {} UTC; take it back with `sekisho-collector token revoke {id}`",
        to_the_second(until)
    )?;
    Ok(0)
}

fn standing(token: &TokenView, now: Timestamp) -> String {
    match (token.used_at, token.revoked_at) {
        (Some(at), _) => {
            format!("used {} by {}", to_the_second(at), token.used_by.as_deref().unwrap_or("?"))
        }
        (None, Some(at)) => format!("revoked {}", to_the_second(at)),
        (None, None) if token.expires_at <= now => "ended unused".to_owned(),
        (None, None) => "may be used".to_owned(),
    }
}

fn list(reading: &Reading, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = reading.place.open()?;
    let tokens = store.tokens().map_err(refused_by_store)?;
    if reading.output == Output::Json {
        json(out, &tokens)?;
        return Ok(0);
    }
    let now = clock::now();
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            [
                token.id.clone(),
                token.group.clone(),
                to_the_second(token.created_at),
                to_the_second(token.expires_at),
                standing(token, now),
            ]
        })
        .collect();
    table::write(out, ["ID", "GROUP", "MADE (UTC)", "ENDS (UTC)", "STATE"], &rows)?;
    Ok(0)
}

fn revoke(arguments: &Revoke, out: &mut dyn Write) -> Result<u8, Failure> {
    let (_, store) = arguments.place.open()?;
    if store.revoke_token(&arguments.id, clock::now()).map_err(refused_by_store)? {
        writeln!(out, "token {} is revoked", arguments.id)?;
        Ok(0)
    } else {
        Err(Failure::refused(
            format!("there is no token \"{}\" that could still be used", arguments.id),
            "nothing was changed",
            "`sekisho-collector token list` shows them; a host that enrolled already is shut out with `sekisho-collector deny AGENT`",
        ))
    }
}
