//! Accepts connections: TLS for everybody, plain for the page on loopback.

use super::problem::Problem;
use super::room::{Door, Peer, Room};
use crate::authority::AgentShown;
use crate::clock;
use crate::store::Standing;
use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

/// Connections that are open at the same time on one listener.
const CONNECTIONS: usize = 20_000;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of an HTTP/1.1 request may take.
const HEAD: Duration = Duration::from_secs(20);
/// A peer over HTTP/2 is asked whether it lives after this long, and let go after as long again.
const PING: Duration = Duration::from_secs(20);
/// Requests at the same time over one connection.
const STREAMS: u32 = 64;

/// What a listener needs; a clone of `open` lives in each connection, so that the end of the last can be waited for.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) room: Arc<Room>,
    pub(super) app: Router,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) door: Door,
    pub(super) open: mpsc::Sender<()>,
}

/// Accepts connections until the room closes.
pub(super) async fn accept(listener: TcpListener, entrance: Entrance) {
    let mut closing = entrance.room.closing.subscribe();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give the others time to go.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%address, "a connection was turned away: all places are taken");
            continue;
        };
        let entrance = entrance.clone();
        tokio::spawn(async move {
            meet(stream, address, entrance).await;
            drop(place);
        });
    }
}

async fn meet(stream: TcpStream, address: SocketAddr, entrance: Entrance) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "small answers may be late");
    }
    let Some(tls) = entrance.tls.clone() else {
        let peer = Peer { agent: None, replaced: false, address, door: entrance.door };
        return serve(stream, peer, entrance).await;
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate =
                stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let agent =
                certificate.and_then(|certificate| entrance.room.authority.shown(certificate));
            let Ok(replaced) = is_replaced(&entrance.room, agent.as_ref()).await else { return };
            serve(stream, Peer { agent, replaced, address, door: entrance.door }, entrance).await;
        }
        Ok(Err(error)) => tracing::debug!(%address, %error, "a handshake failed"),
        Err(_) => tracing::debug!(%address, "a handshake took too long"),
    }
}

/// Once for each connection: whether a later certificate of the agent is in use already.
async fn is_replaced(room: &Arc<Room>, agent: Option<&AgentShown>) -> Result<bool, Problem> {
    let Some(AgentShown { agent, spki, .. }) = agent.cloned() else { return Ok(false) };
    let standing = room
        .waiting(move |room| Ok(room.store.show_certificate(&agent, &spki, clock::now())?))
        .await?;
    Ok(standing == Standing::Replaced)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    peer: Peer,
    entrance: Entrance,
) {
    let Entrance { room, app, open, .. } = entrance;
    let address = peer.address;
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        app.call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = room.closing.subscribe();
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, %error, "a connection broke off");
                }
                break;
            }
            _ = closing.wait_for(|closing| *closing), if !told => {
                connection.as_mut().graceful_shutdown();
                told = true;
            }
        }
    }
    drop(open);
}
