//! The log: key-value lines on standard error, by `SEKISHO_LOG` (default `info`).
//!
//! A terminal that was stopped or a pipe that nobody reads must hold nobody up, least of all the
//! thread that cuts: lines wait in a bounded queue, and what does not fit is counted and said.

use crate::queue::{Receiver, Sender, bounded};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for standard error.
const QUEUE: usize = 1024;
/// The longest that the end of the program waits for the last lines.
const FAREWELL: Duration = Duration::from_millis(500);

enum Entry {
    End(Sender<()>),
    Line(Vec<u8>),
}

/// The way to the log's thread.
#[derive(Clone)]
struct Lines {
    queue: Sender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    fn spawn(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, entries) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let uncounted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_out(&entries, &uncounted, out))?;
        Ok(Self { queue, lost })
    }
}

fn write_out(entries: &Receiver<Entry>, lost: &AtomicU64, mut out: impl Write) {
    while let Ok(entry) = entries.recv() {
        match entry {
            // Whoever reads the log no more is told nothing by it.
            Entry::Line(line) => drop(out.write_all(&line)),
            Entry::End(heard) => drop(heard.try_send(())),
        }
        let missing = lost.swap(0, Relaxed);
        if missing > 0 {
            let _ = writeln!(
                out,
                "WARN lines of the log were lost because nobody read it count={missing}"
            );
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log while it is kept; its end waits shortly for the last lines.
#[must_use = "the last lines are lost without it"]
pub struct Log(Option<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        let Some(lines) = &self.0 else { return };
        let (heard, wait) = bounded(1);
        if lines.queue.try_send(Entry::End(heard)).is_ok() {
            let _ = wait.recv_timeout(FAREWELL);
        }
    }
}

/// Begins logging; a second call changes nothing.
pub fn begin() -> Log {
    let filter = EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let Ok(lines) = Lines::spawn(std::io::stderr()) else { return Log(None) };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .with_ansi(false)
        .with_target(false)
        .try_init();
    Log(Some(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Instant;

    /// Takes nothing until its gate opens.
    struct Stopped(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // The gate stays open once its other end is gone.
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_it_lost() {
        let (gate, closed) = bounded(0);
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut lines = Lines::spawn(Stopped(closed, Arc::clone(&said))).unwrap();
        let began = Instant::now();
        for _ in 0..QUEUE + 100 {
            lines.write_all(b"a line\n").unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(lines.lost.load(Relaxed) >= 98, "{}", lines.lost.load(Relaxed));
        drop(gate);
        let (heard, wait) = bounded(1);
        lines.queue.send(Entry::End(heard)).unwrap();
        wait.recv_timeout(Duration::from_secs(5)).unwrap();
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert!(said.contains("were lost because nobody read it count="), "{said}");
    }
}
