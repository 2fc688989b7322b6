//! The running collector: listeners, routes, notices.
//!
//! What enters: requests of agents and of people. What leaves: acknowledgements, notices, the
//! page. It holds no key that seals policies, and must not change what an agent reported.

mod agents;
mod door;
mod guard;
mod learning;
mod listen;
mod notify;
mod problem;
mod readers;
mod room;
mod sse;
mod watch;

use crate::authority::{self, Authority, AuthorityError, Identity, SERVER_RENEWAL};
use crate::clock;
use crate::config::Config;
use crate::dir::{self, Dir, DirError};
use crate::secret::DrawError;
use crate::store::{Store, StoreError};
use axum::Router;
use axum::middleware::from_fn;
use listen::{Entrance, accept};
use room::{Door, Room};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// How long open requests may take to end after the signal to stop.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the collector can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The authority or the server's certificate can't be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the directory can't be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// No random bytes.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// A setting that `init` writes is not there.
    #[error("the database holds no {0}")]
    Incomplete(&'static str),
    /// The runtime, a signal or the terminal failed.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS can't be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Runs the collector until it is told to stop. Writes one line per listener when it is ready.
///
/// # Errors
/// Why it could not start.
pub fn run(config: &Config, out: &mut dyn Write) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run_here(config, out))
}

fn open_authority(dir: &Dir, store: &Store) -> Result<Authority, RunError> {
    let organisation = store.meta("organisation")?.ok_or(RunError::Incomplete("organisation"))?;
    Ok(Authority::open(
        &organisation,
        &dir::read(&dir.ca_certificate())?,
        &dir::read(&dir.ca_key())?,
    )?)
}

/// The authority of an initialised directory, for the command line.
///
/// # Errors
/// When the directory is not initialised or can't be read.
pub fn authority(dir: &Dir, store: &Store) -> Result<Authority, RunError> {
    open_authority(dir, store)
}

/// The server's certificate, made anew when it is about to end.
fn server_identity(dir: &Dir, store: &Store, authority: &Authority) -> Result<Identity, RunError> {
    let now = clock::now();
    let present = Identity {
        certificate: dir::read(&dir.server_certificate())?,
        key: dir::read(&dir.server_key())?,
    };
    // A pair torn by a crash between the two files would not fit; rustls says so when it is loaded, and a new pair is made.
    let fits = authority::read_identity(&present).ok().is_some_and(|(certificate, key)| {
        rustls::crypto::aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key)
            .ok()
            .is_some_and(|key| {
                rustls::sign::CertifiedKey::new(vec![certificate], key).keys_match().is_ok()
            })
    });
    if fits && authority::ends(&present.certificate)? > now.after(SERVER_RENEWAL) {
        return Ok(present);
    }
    let names = store.meta("names")?.unwrap_or_default();
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let addresses = store.meta("addresses")?.unwrap_or_default();
    let addresses: Vec<IpAddr> =
        addresses.split_whitespace().filter_map(|address| address.parse().ok()).collect();
    let renewed = authority.issue_server(&names, &addresses, now)?;
    dir::replace_secret(&dir.server_key(), &renewed.key)?;
    dir::replace_secret(&dir.server_certificate(), &renewed.certificate)?;
    tracing::info!("the server's certificate was made anew");
    Ok(renewed)
}

fn acceptor(room: &Arc<Room>, identity: &Identity) -> Result<TlsAcceptor, RunError> {
    let authority = &room.authority;
    let fail = |error: &dyn std::fmt::Display| RunError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|error| fail(&error))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| fail(&error))?;
    let verifier = Arc::new(door::Doorkeeper::new(Arc::clone(room), verifier));
    let (certificate, key) = authority::read_identity(identity)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| fail(&error))?
        .with_client_cert_verifier(verifier)
        // The authority's certificate goes along, so that an agent can check its pin in the first handshake.
        .with_single_cert(vec![certificate, authority.certificate().clone()], key)
        .map_err(|error| fail(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let fail = |source| RunError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

async fn run_here(config: &Config, out: &mut dyn Write) -> Result<(), RunError> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let dir = Dir::new(&config.dir);
    let store = Store::open(&dir.database(), false)?;
    let authority = open_authority(&dir, &store)?;
    let identity = server_identity(&dir, &store, &authority)?;
    let guard = guard::Guard::new(
        store.meta("operator")?.ok_or(RunError::Incomplete("operator password"))?,
    )?;
    let (listener, bound) = bind(config.listen).await?;
    let page = match config.page {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    store.keep_meta(&[
        ("listening_since", &clock::now().nanos().to_string()),
        ("port", &bound.port().to_string()),
    ])?;
    let until = authority::ends(&identity.certificate)?;
    let room = Arc::new(Room::new(store, authority, dir, guard, until, config));
    watch::refresh(&room)?;
    let tls = acceptor(&room, &identity)?;
    let pin = room.authority.pin()?;

    let (open, mut last) = mpsc::channel(1);
    let everything = finish(
        agents::routes().merge(readers::routes(&room, false)).merge(learning::routes(&room)),
        &room,
    );
    tokio::spawn(accept(
        listener,
        Entrance {
            room: Arc::clone(&room),
            app: everything,
            tls: Some(tls),
            door: Door::Tls,
            open: open.clone(),
        },
    ));
    writeln!(out, "ready: agents and page at https://{bound} (CA pin {pin})")?;
    if let Some((listener, bound)) = page {
        let app = finish(readers::routes(&room, true).merge(learning::routes(&room)), &room);
        let door = Door::Page { open: config.page_open };
        tokio::spawn(accept(
            listener,
            Entrance { room: Arc::clone(&room), app, tls: None, door, open: open.clone() },
        ));
        writeln!(
            out,
            "ready: page at http://{bound} ({})",
            if config.page_open { "no password" } else { "user operator" }
        )?;
    }
    out.flush()?;
    drop(open);
    let watching = tokio::spawn(watch::watch(Arc::clone(&room)));
    let keeping = config.keeping;
    tokio::spawn(watch::keep_house(Arc::clone(&room), keeping));
    if let Some(notify) = config.notify.clone() {
        let caller = notify::Caller::new(notify).map_err(RunError::Tls)?;
        tokio::spawn(notify::deliver(Arc::clone(&room), caller));
    } else {
        tracing::warn!(
            help = "set [notify] in collector.toml",
            "nobody is told of notices but on the page"
        );
    }

    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: open requests are finished first");
    room.closing.send_replace(true);
    // The channel ends when the last connection has dropped its sender.
    if tokio::time::timeout(LAST_WORDS, last.recv()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut off");
    }
    if watching.await.is_err() {
        tracing::warn!("the watch over the database ended in the middle");
    }
    Ok(())
}

fn finish(routes: Router<Arc<Room>>, room: &Arc<Room>) -> Router {
    routes.fallback(readers::nothing).layer(from_fn(readers::seal)).with_state(Arc::clone(room))
}
