//! The tokio thread: control socket, metrics, collector, signals.

use super::Message;
use super::shared::Shared;
use crate::chain::causes;
use crate::clock;
use crate::control::{ReloadRequest, Serving, serve_control, serve_metrics};
use crate::drill::Schedule;
use crate::sync;
use rustls::ClientConfig;
use sekisho_schema::Body;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The longest that an ending agent waits for the collector to take the last records.
const FAREWELL: Duration = Duration::from_secs(1);
/// When drills are looked at first, and how often then.
const FIRST_DRILLS: Duration = Duration::from_secs(10);
const LOOK_AT_DRILLS: Duration = Duration::from_secs(3600);
/// How often a drill that takes place is looked after.
const TEND_DRILLS: Duration = Duration::from_secs(1);

/// What the tokio thread serves.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) control: std::os::unix::net::UnixListener,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) collector: Option<(String, Arc<ClientConfig>)>,
    pub(super) journal: PathBuf,
    pub(super) drills: Schedule,
}

/// A running tokio thread.
pub(super) struct Running {
    thread: std::thread::JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Service {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub(super) fn spawn(self) -> std::io::Result<Running> {
        // One worker for the tasks; the thread that waits for the end is the one named here.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("tokio")
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("service".to_owned()).spawn(move || {
            runtime.block_on(self.serve(stopped));
            runtime.shutdown_timeout(Duration::from_millis(200));
        })?;
        Ok(Running { thread, stop })
    }

    async fn serve(self, stopped: oneshot::Receiver<()>) {
        let Self { shared, control, metrics, collector, journal, drills } = self;
        let serving: Arc<dyn Serving> = Arc::<Shared>::clone(&shared);
        match UnixListener::from_std(control) {
            Ok(listener) => {
                drop(tokio::spawn(serve_control(listener, Arc::clone(&serving), journal.clone())))
            }
            Err(error) => tracing::error!(%error, "no control socket"),
        }
        if let Some(address) = metrics {
            match TcpListener::bind(address).await {
                Ok(listener) => drop(tokio::spawn(serve_metrics(listener, Arc::clone(&serving)))),
                Err(error) => {
                    tracing::warn!(%address, %error, help = "set [metrics] listen to a free address, or enabled = false", "no metrics")
                }
            }
        }
        let linked = collector.is_some();
        if let Some((url, tls)) = collector {
            tokio::spawn(sync::run(
                url,
                tls,
                journal,
                Arc::clone(&shared.sync),
                Arc::<Shared>::clone(&shared),
            ));
        }
        tokio::spawn(heed_signals(Arc::clone(&shared)));
        tokio::spawn(rehearse(drills, Arc::clone(&shared)));
        let _ = stopped.await;
        if linked && shared.sync.status().connected {
            let empty = async {
                while shared.journal.unsent.load(Relaxed) > 0 {
                    shared.sync.grown.notify_one();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let _ = tokio::time::timeout(FAREWELL, empty).await;
        }
    }
}

impl Running {
    /// Ends the thread.
    pub(super) fn end(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the service thread had failed");
        }
    }
}

/// Begins drills that are due, and tells those that are overdue.
async fn rehearse(mut drills: Schedule, shared: Arc<Shared>) {
    let mut next = tokio::time::Instant::now() + FIRST_DRILLS;
    loop {
        tokio::time::sleep(TEND_DRILLS).await;
        // Small files and a child's end: off the network's path for less than a millisecond.
        let is_over = tokio::task::block_in_place(|| drills.tend());
        if !is_over && tokio::time::Instant::now() < next {
            continue;
        }
        next = tokio::time::Instant::now() + LOOK_AT_DRILLS;
        for report in tokio::task::block_in_place(|| drills.look(clock::now())) {
            tracing::error!(drill = %report.name, detail = %report.detail, "a drill is overdue");
            shared.inbox.tell(Body::Drill(report));
        }
    }
}

async fn heed_signals(shared: Arc<Shared>) {
    let listen = |kind| {
        signal(kind).inspect_err(|error| {
            tracing::error!(error = %causes(error), "cannot heed signals");
        })
    };
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (
        listen(SignalKind::terminate()),
        listen(SignalKind::interrupt()),
        listen(SignalKind::hangup()),
    ) else {
        return;
    };
    loop {
        let message = tokio::select! {
            _ = terminate.recv() => Message::Stop,
            _ = interrupt.recv() => Message::Stop,
            _ = hangup.recv() => Message::Reload(ReloadRequest::default()),
        };
        shared.inbox.send(message);
    }
}
