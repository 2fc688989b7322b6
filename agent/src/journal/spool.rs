//! The journal as upload spool: batches of lines after the cursor.

use super::cursor::Cursor;
use super::segment::{SegmentName, segments};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

/// Lines of one boot, ready to send byte for byte as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The boot that they belong to.
    pub boot: String,
    /// Each event's JSON.
    pub events: Vec<String>,
    /// Each event's chain hash, in hexadecimal.
    pub chain: Vec<String>,
    /// Sequence of the last one.
    pub last_seq: u64,
    segment: u64,
    offset: u64,
}

/// Why the spool can't be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the upload spool in {dir}")]
pub struct ReadSpoolError {
    dir: PathBuf,
    source: std::io::Error,
}

/// A reader that follows the journal.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    cursor: Cursor,
    offset: u64,
}

impl Spool {
    /// A spool that begins at the stored cursor.
    #[must_use]
    pub fn open(dir: PathBuf) -> Self {
        let cursor = Cursor::load(&dir);
        Self { dir, cursor, offset: 0 }
    }

    /// How far the collector has acknowledged.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The next lines to send, of one boot, within the bounds; `None` when all is sent.
    ///
    /// # Errors
    /// [`ReadSpoolError`].
    pub fn next_batch(
        &mut self,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, ReadSpoolError> {
        let refuse = |dir: &PathBuf| {
            let dir = dir.clone();
            move |source| ReadSpoolError { dir, source }
        };
        let segments = match segments(&self.dir) {
            Ok(segments) => segments,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(&self.dir)(error)),
        };
        for segment in segments.iter().filter(|segment| segment.number >= self.cursor.segment) {
            let offset = if segment.number == self.cursor.segment { self.offset } else { 0 };
            match read_batch(segment, offset, &self.cursor, max_events, max_bytes) {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => {}
                // Dropped for the cap between listing and opening.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(refuse(&self.dir)(error)),
            }
        }
        Ok(None)
    }

    /// Takes the collector's acknowledgement and stores the cursor.
    ///
    /// # Errors
    /// [`crate::state::StoreError`]; the batch would then be sent again after a restart.
    pub fn acknowledge(
        &mut self,
        batch: &Batch,
        through: u64,
    ) -> Result<(), crate::state::StoreError> {
        let seq = through.min(batch.last_seq);
        // A partial acknowledgement makes the next read skip by sequence from the segment's start.
        self.offset = if seq == batch.last_seq { batch.offset } else { 0 };
        self.cursor = Cursor { segment: batch.segment, boot: batch.boot.clone(), seq };
        self.cursor.store(&self.dir)
    }
}

impl Spool {
    /// Goes beyond a batch without acknowledging it.
    pub(super) fn skip(&mut self, batch: &Batch) {
        self.offset = batch.offset;
        self.cursor =
            Cursor { segment: batch.segment, boot: batch.boot.clone(), seq: batch.last_seq };
    }
}

fn read_batch(
    segment: &SegmentName,
    offset: u64,
    cursor: &Cursor,
    max_events: usize,
    max_bytes: usize,
) -> std::io::Result<Option<Batch>> {
    let acknowledged = if segment.boot == cursor.boot { cursor.seq } else { 0 };
    let mut file = File::open(&segment.path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::new(file);
    let mut batch =
        Batch { boot: segment.boot.clone(), segment: segment.number, offset, ..Batch::default() };
    let (mut bytes, mut line) = (0, Vec::new());
    let mut seq = if offset == 0 { segment.first } else { acknowledged + 1 };
    let mut is_header = offset == 0;
    while batch.events.len() < max_events && bytes < max_bytes {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        // A line without its end is still being written.
        if read == 0 || line.last() != Some(&b'\n') {
            break;
        }
        if std::mem::take(&mut is_header) {
            batch.offset += read as u64;
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        if let Some((hash, json)) = text.trim_end_matches('\n').split_once(' ')
            && seq > acknowledged
        {
            if !batch.events.is_empty() && bytes + json.len() > max_bytes {
                break;
            }
            bytes += json.len();
            batch.events.push(json.to_owned());
            batch.chain.push(hash.to_owned());
            batch.last_seq = seq;
        }
        seq += 1;
        batch.offset += read as u64;
    }
    Ok(if batch.events.is_empty() { None } else { Some(batch) })
}
