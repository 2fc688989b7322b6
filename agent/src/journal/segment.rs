//! Writing: segments, rotation, the cap, and recovery of a torn tail.

use super::chain::{Hash, chain_hash, parse_hash};
use super::cursor::Cursor;
use super::is_first_class;
use sekisho_schema::sealed::hex;
use sekisho_schema::{Body, Envelope, Record};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// First word of every segment.
pub(super) const MAGIC: &str = "sekisho-journal/1";

/// Where a journal is and how large it may grow.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// The host that its lines name.
    pub host: String,
    /// Bytes after which a new segment begins.
    pub segment_bytes: u64,
    /// Bytes of all segments together; the oldest go, acknowledged ones first.
    pub cap_bytes: u64,
}

/// Why the journal can't be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or a segment.
    #[error("cannot write journal {path}")]
    Io {
        /// Directory or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A record that has no JSON form.
    #[error("cannot write a record as JSON")]
    Encode(#[from] serde_json::Error),
}

/// A segment's place in the order and what it holds, from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentName {
    pub(super) number: u64,
    pub(super) boot: String,
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

/// The segments of a journal, oldest first.
pub(super) fn segments(dir: &Path) -> std::io::Result<Vec<SegmentName>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(stem) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".log"))
        else {
            continue;
        };
        let mut parts = stem.split('-');
        if let (Some(number), Some(boot), Some(first), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && let (Ok(number), Ok(first)) = (number.parse(), first.parse())
        {
            found.push(SegmentName { number, boot: boot.to_owned(), first, path: path.clone() });
        }
    }
    found.sort_by_key(|segment| segment.number);
    Ok(found)
}

/// The journal, open for one boot of the agent.
#[derive(Debug)]
pub struct Journal {
    options: JournalOptions,
    boot: String,
    next_number: u64,
    file: Option<Open>,
    previous: Hash,
    seq: u64,
    written: u64,
    lost: [u64; 2],
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    length: u64,
    dirty: bool,
}

impl Journal {
    /// Opens a journal for a new boot; a torn last line of the boot before is cut off.
    ///
    /// # Errors
    /// [`JournalError::Io`] when directory or segments can't be read or written.
    pub fn open(options: JournalOptions, boot: &str) -> Result<Self, JournalError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        // Who speaks with whom is nobody else's business.
        crate::state::private_dir(&options.dir).map_err(at(&options.dir))?;
        let segments = segments(&options.dir).map_err(at(&options.dir))?;
        let mut previous = [0; 32];
        // A segment whose very header is torn holds nothing and says nothing about the chain.
        for segment in segments.iter().rev() {
            match recover(&segment.path).map_err(at(&segment.path))? {
                Some(hash) => {
                    previous = hash;
                    break;
                }
                None => fs::remove_file(&segment.path).map_err(at(&segment.path))?,
            }
        }
        let next_number = segments.last().map_or(1, |last| last.number + 1);
        Ok(Self {
            options,
            boot: boot.to_owned(),
            next_number,
            file: None,
            previous,
            seq: 0,
            written: 0,
            lost: [0; 2],
        })
    }

    /// Sequence of the last record written in this boot.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Unacknowledged records dropped for the cap so far: first class, others.
    #[must_use]
    pub const fn lost(&self) -> [u64; 2] {
        self.lost
    }

    /// Appends one record; it is durable after the next [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError`]; the journal is then as it was before.
    pub fn append(&mut self, record: Record) -> Result<Envelope, JournalError> {
        let envelope = Envelope::new(self.seq + 1, &self.options.host, record);
        let json = serde_json::to_string(&envelope)?;
        let hash = chain_hash(&self.previous, &json);
        let line = format!("{} {json}\n", hex(&hash));
        if self.file.as_ref().is_some_and(|open| {
            open.length + line.len() as u64 > self.options.segment_bytes && open.length > 200
        }) {
            self.sync()?;
            self.file = None;
        }
        let mut open = match self.file.take() {
            Some(open) => open,
            None => self.begin_segment()?,
        };
        let written = open.file.write_all(line.as_bytes());
        if let Err(source) = written {
            // Half a line is worse than none: the next append must follow a whole one.
            let _ = open.file.set_len(open.length);
            let _ = open.file.seek(SeekFrom::End(0));
            let path = open.path.clone();
            self.file = Some(open);
            return Err(JournalError::Io { path, source });
        }
        open.length += line.len() as u64;
        open.dirty = true;
        self.written += line.len() as u64;
        self.file = Some(open);
        self.previous = hash;
        self.seq += 1;
        Ok(envelope)
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the system can't say that it is.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let Some(open) = self.file.as_mut().filter(|open| open.dirty) else { return Ok(()) };
        open.file
            .sync_data()
            .map_err(|source| JournalError::Io { path: open.path.clone(), source })?;
        open.dirty = false;
        Ok(())
    }

    /// Bytes written in this boot.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of all segments.
    ///
    /// # Errors
    /// What the system says.
    pub fn bytes(&self) -> std::io::Result<u64> {
        Ok(segments(&self.options.dir)?
            .iter()
            .filter_map(|segment| fs::metadata(&segment.path).ok())
            .map(|data| data.len())
            .sum())
    }

    /// Drops the oldest segments beyond the cap: acknowledged ones first. Returns how many
    /// unacknowledged records were lost by it.
    ///
    /// # Errors
    /// What the system says.
    pub fn enforce_cap(&mut self, cursor: &Cursor) -> std::io::Result<u64> {
        let mut segments = segments(&self.options.dir)?;
        // The segment being written is never dropped.
        if let Some(open) = &self.file {
            segments.retain(|segment| segment.path != open.path);
        }
        let mut total = self.bytes()?;
        let mut lost = 0;
        let (acknowledged, waiting): (Vec<_>, Vec<_>) =
            segments.into_iter().partition(|segment| segment.number < cursor.segment);
        for segment in acknowledged.iter().chain(&waiting) {
            if total <= self.options.cap_bytes {
                break;
            }
            let length = fs::metadata(&segment.path)?.len();
            if segment.number >= cursor.segment {
                let classes = count_classes(
                    &segment.path,
                    if segment.boot == cursor.boot { cursor.seq } else { 0 },
                )?;
                for (sum, class) in self.lost.iter_mut().zip(classes) {
                    *sum += class;
                    lost += class;
                }
            }
            fs::remove_file(&segment.path)?;
            total = total.saturating_sub(length);
        }
        Ok(lost)
    }

    fn begin_segment(&mut self) -> Result<Open, JournalError> {
        let path = self.options.dir.join(format!(
            "{:010}-{}-{}.log",
            self.next_number,
            self.boot,
            self.seq + 1
        ));
        let refuse = |source| JournalError::Io { path: path.clone(), source };
        let header = format!("{MAGIC} {} {} {}\n", self.boot, self.seq + 1, hex(&self.previous));
        let made =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).map_err(refuse);
        let mut file = made?;
        if let Err(source) =
            file.write_all(header.as_bytes()).and_then(|()| sync_dir(&self.options.dir))
        {
            let _ = fs::remove_file(&path);
            return Err(refuse(source));
        }
        self.next_number += 1;
        Ok(Open { file, path, length: header.len() as u64, dirty: true })
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn count_classes(path: &Path, acknowledged: u64) -> std::io::Result<[u64; 2]> {
    let mut classes = [0; 2];
    for line in BufReader::new(File::open(path)?).lines().skip(1) {
        let line = line?;
        let Some((_, json)) = line.split_once(' ') else { continue };
        let Ok(envelope) = serde_json::from_str::<Envelope>(json) else { continue };
        if envelope.seq > acknowledged {
            let [first, others] = &mut classes;
            *(if is_first_class(&envelope.body) { first } else { others }) += 1;
        }
    }
    Ok(classes)
}

/// Cuts a torn tail off a segment and returns its last hash; `None` when even its header is torn.
///
/// Only what follows the last line feed is torn: a whole line with a wrong hash is tampering,
/// which stays in place for `journal verify` to show.
fn recover(path: &Path) -> std::io::Result<Option<Hash>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == 0 {
        return Ok(None);
    }
    if whole < bytes.len() {
        file.set_len(whole as u64)?;
        file.sync_all()?;
    }
    let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
    let last = text.lines().next_back().unwrap_or_default();
    let hash = match last.strip_prefix(MAGIC) {
        Some(header) => header.split(' ').next_back(),
        None => last.split(' ').next(),
    };
    Ok(Some(hash.and_then(parse_hash).unwrap_or_default()))
}

/// A gap in the records themselves.
#[must_use]
pub(super) fn journal_gap(count: u64, detail: &str) -> Body {
    Body::Gap(sekisho_schema::event::Gap {
        cause: "journal".to_owned(),
        count,
        detail: detail.to_owned(),
    })
}
