//! The thread that writes evidence down, and keeps its directory within bounds.

use super::pcapng::pcapng;
use super::ring::Selection;
use crate::chain::causes;
use crate::queue::{Receiver, Sender, bounded};
use crate::state::{private_dir, write_atomically};
use sekisho_schema::event::{Ancestor, EvidenceFile, Gap};
use sekisho_schema::sealed::hex;
use sekisho_schema::{Body, ContainmentId, Record, Timestamp};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Findings that wait to be written down; more are counted as lost, nobody waits.
const WAITING: usize = 16;

/// What was frozen for one finding.
#[derive(Clone, Debug)]
pub struct Freeze {
    /// The finding.
    pub finding: String,
    /// The containment that it led to.
    pub containment: Option<ContainmentId>,
    /// Its sentence.
    pub explanation: String,
    /// When the evidence was complete.
    pub matched_at: Timestamp,
    /// The frames about the remote end.
    pub selection: Selection,
    /// The processes behind it.
    pub processes: Vec<Ancestor>,
}

/// The way to the thread; it ends when the last of these is gone.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: Sender<Freeze>,
}

impl Store {
    /// Starts the thread. `tell` gets a record for each file, or of what was lost.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(
        dir: PathBuf,
        cap_bytes: u64,
        tell: impl Fn(Record) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, work) = bounded(WAITING);
        std::thread::Builder::new()
            .name("evidence".to_owned())
            .spawn(move || run(&dir, cap_bytes, &work, &tell))?;
        Ok(Self { jobs })
    }

    /// Hands over what was frozen; `false` when too much waits already.
    #[must_use]
    pub fn keep(&self, freeze: Freeze) -> bool {
        self.jobs.try_send(freeze).is_ok()
    }
}

fn run(dir: &Path, cap_bytes: u64, work: &Receiver<Freeze>, tell: &dyn Fn(Record)) {
    while let Ok(freeze) = work.recv() {
        let at = freeze.matched_at;
        let finding = freeze.finding.clone();
        let body = match write(dir, freeze) {
            Ok(file) => Body::Evidence(Box::new(file)),
            Err(why) => {
                tracing::error!(%finding, error = %why, state = "the finding and the cut stand; their frames are lost", "cannot keep evidence");
                gap(1, format!("the frames of finding {finding} could not be written: {why}"))
            }
        };
        tell(Record { at, body });
        match trim(dir, cap_bytes) {
            Ok(0) => {}
            Ok(gone) => tell(Record {
                at,
                body: gap(
                    gone,
                    format!("{gone} older files of evidence were removed: their directory is full"),
                ),
            }),
            Err(error) => {
                tracing::warn!(%error, "cannot keep the directory of evidence within its bounds")
            }
        }
    }
}

fn gap(count: u64, detail: String) -> Body {
    Body::Gap(Gap { cause: "evidence".to_owned(), count, detail })
}

fn write(dir: &Path, freeze: Freeze) -> Result<EvidenceFile, String> {
    let Freeze { finding, containment, explanation, matched_at, selection, processes } = freeze;
    private_dir(dir).map_err(|error| error.to_string())?;
    let Selection { frames, left_out } = selection;
    let mut comment = format!("finding {finding}: {explanation}");
    for process in &processes {
        comment.push_str(&format!(
            "\nprocess {} ({}): {}",
            process.pid, process.name, process.command
        ));
    }
    let bytes = pcapng(&comment, &frames, |kept| {
        (kept.at_ns == matched_at.nanos()).then(|| "the frame that decided".to_owned())
    });
    // A finding's name is of hexadecimal digits: it can't lead anywhere else.
    let name = format!("{finding}.pcapng");
    write_atomically(&dir.join(&name), &bytes, 0o600).map_err(|error| causes(&error))?;
    let at = |kept: Option<&super::Kept>| kept.map(|kept| Timestamp::from_nanos(kept.at_ns));
    Ok(EvidenceFile {
        finding,
        containment,
        file: name,
        sha256: hex(&Sha256::digest(&bytes)),
        bytes: bytes.len() as u64,
        frames: frames.len() as u64,
        left_out: left_out as u64,
        first_at: at(frames.first()),
        last_at: at(frames.last()),
        processes,
    })
}

/// Removes the oldest files until the rest fits; gives how many went.
fn trim(dir: &Path, cap_bytes: u64) -> std::io::Result<u64> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        if facts.is_file() && entry.path().extension().is_some_and(|end| end == "pcapng") {
            files.push((facts.modified()?, facts.len(), entry.path()));
        }
    }
    files.sort();
    let mut size: u64 = files.iter().map(|(_, length, _)| length).sum();
    let mut gone = 0;
    // The newest stays whatever its size.
    for (_, length, path) in files.iter().take(files.len().saturating_sub(1)) {
        if size <= cap_bytes {
            break;
        }
        std::fs::remove_file(path)?;
        size -= length;
        gone += 1;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::super::Kept;
    use super::*;
    use crate::queue::channel;
    use sekisho_engine::wire::LinkType;
    use std::time::Duration;

    fn freeze(name: &str) -> Freeze {
        let kept =
            |at_ns| Kept { at_ns, link: LinkType::Ethernet, wire_len: 60, bytes: vec![1; 400] };
        Freeze {
            finding: name.to_owned(),
            containment: None,
            explanation: "because".to_owned(),
            matched_at: Timestamp::from_nanos(9),
            selection: Selection { frames: vec![kept(4), kept(9)], left_out: 3 },
            processes: super::super::tree(i32::try_from(std::process::id()).unwrap()),
        }
    }

    #[test]
    fn a_file_is_written_hashed_and_told_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("evidence");
        let (sender, told) = channel();
        let store = Store::spawn(place.clone(), 2_500, move |record| {
            let _ = sender.send(record.body);
        })
        .unwrap();
        let mut files = Vec::new();
        let mut gone = 0;
        for name in ["f-000000000001", "f-000000000002", "f-000000000003", "f-000000000004"] {
            assert!(store.keep(freeze(name)));
            // Times of files tell which is oldest.
            std::thread::sleep(Duration::from_millis(20));
        }
        while let Ok(body) = told.recv_timeout(Duration::from_secs(1)) {
            match body {
                Body::Evidence(file) => files.push(*file),
                Body::Gap(gap) => gone += gap.count,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(files.len(), 4);
        let last = &files[3];
        let bytes = std::fs::read(place.join(&last.file)).unwrap();
        assert_eq!(
            (hex(&Sha256::digest(&bytes)), bytes.len() as u64),
            (last.sha256.clone(), last.bytes)
        );
        assert_eq!(
            (last.frames, last.left_out, last.first_at),
            (2, 3, Some(Timestamp::from_nanos(4)))
        );
        assert!(!last.processes.is_empty());
        assert!(gone >= 1, "nothing was removed");
        assert!(!place.join("f-000000000001.pcapng").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told_as_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("evidence");
        std::fs::write(&blocked, b"a file where the directory should be").unwrap();
        let (sender, told) = channel();
        let store = Store::spawn(blocked, 1 << 20, move |record| {
            let _ = sender.send(record.body);
        })
        .unwrap();
        assert!(store.keep(freeze("f-000000000001")));
        let body = told.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(&body, Body::Gap(gap) if gap.cause == "evidence"), "{body:?}");
    }
}
