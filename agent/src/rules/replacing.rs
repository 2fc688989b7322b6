//! Replaces the rules while they are in use: piece by piece, so that no second copy is ever held.
//!
//! A thread of its own makes one sixteenth of the indicators after the other; the detecting thread
//! puts each in its place, which takes no time, and hands the old one back to be dropped here. In
//! between some pieces are new and some old: what both say is always found. Nothing begins before
//! every source was read once to its end and the result was found plausible.

use super::{Collected, CompiledFile, InForce, LoadRulesError, PIECES, RuleSources};
use sekisho_engine::detect::indicator_set::Piece;
use sekisho_engine::rules::{DetectorRule, Shrunk, plausible};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why rules are not replaced, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceRulesError {
    /// A file is not what it was when the replacement began.
    #[error("{0} was changed in between")]
    Changed(PathBuf),
    /// A compiled set is an older one than that in force.
    #[error(
        "{path} holds version {found} of the set \"{name}\" and version {in_force} is in force; an older one may be a replay"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// The set.
        name: String,
        /// Its version in the file.
        found: u64,
        /// Its version in use.
        in_force: u64,
    },
    /// Too much would be missing.
    #[error("the new indicators are not plausible: {0}")]
    Shrunk(Shrunk),
    /// Something can't be read.
    #[error("not all sources can be used")]
    Sources(#[source] LoadRulesError),
}

/// What tells that a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (data.dev(), data.ino()),
        len: data.len(),
        modified: (data.mtime(), data.mtime_nsec()),
    })
}

/// Refuses a set of the same name and place that is older than the one in force.
fn not_older(in_force: &InForce, becomes: &InForce) -> Result<(), ReplaceRulesError> {
    for (path, (name, found)) in &becomes.versions {
        if let Some((known, version)) = in_force.versions.get(path)
            && known == name
            && found < version
        {
            return Err(ReplaceRulesError::Older {
                path: path.clone(),
                name: name.clone(),
                found: *found,
                in_force: *version,
            });
        }
    }
    Ok(())
}

/// Rules on their way to replace others.
#[derive(Debug)]
pub struct Replacement {
    sources: RuleSources,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// What can't be used, and was accepted to be missing.
    pub left_out: Vec<LoadRulesError>,
    /// Detectors that are switched on, by their identifier.
    pub detectors: BTreeMap<String, DetectorRule>,
    /// Name and version of each pack.
    pub packs: Vec<(String, u64)>,
    /// Source and number of lines of each list.
    pub lists: Vec<(String, usize)>,
    /// What is in force when the last piece is exchanged.
    pub becomes: InForce,
    next: usize,
}

impl Replacement {
    /// Reads every source once without keeping an indicator, and compares with what is in force.
    ///
    /// # Errors
    /// A source that can't be read, what would be missing, or a set older than the one in force; with `force` nothing of that ends it.
    pub fn begin(
        sources: RuleSources,
        in_force: &InForce,
        force: bool,
    ) -> Result<Self, ReplaceRulesError> {
        let files = sources.packs.iter().cloned().chain(sources.all_lists());
        let stamps = files.map(|path| (path.clone(), stamp(&path))).collect();
        // No indicator belongs to a piece beyond the last: all is read and nothing is kept.
        let Collected { builder, mut left_out, mut lists } = sources.collect(Some(PIECES));
        for (report, path) in lists.iter_mut().zip(sources.all_lists()) {
            if report.sources.is_none() {
                continue;
            }
            let checked = CompiledFile::open(&path, sources.anchors.as_ref())
                .and_then(|mut file| file.check());
            if let Err(source) = checked {
                report.brought = None;
                left_out.push(LoadRulesError::Compiled { path, source });
            }
        }
        let becomes = sources.in_force(&builder, &lists);
        if !force {
            if !left_out.is_empty() {
                return Err(ReplaceRulesError::Sources(left_out.swap_remove(0)));
            }
            plausible(&in_force.counts, &becomes.counts).map_err(ReplaceRulesError::Shrunk)?;
            not_older(in_force, &becomes)?;
        }
        let empty = builder.build();
        Ok(Self {
            sources,
            stamps,
            left_out,
            detectors: empty.detectors,
            packs: empty.packs,
            lists: empty.lists,
            becomes,
            next: 0,
        })
    }

    /// Makes the next piece, to be exchanged; the one that it replaces should be dropped before the
    /// next is asked for. `None` after the last.
    ///
    /// # Errors
    /// What changed since the replacement began: the pieces that are not yet exchanged stay.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, ReplaceRulesError> {
        if self.next >= PIECES {
            return Ok(None);
        }
        for (path, before) in &self.stamps {
            if stamp(path) != *before {
                return Err(ReplaceRulesError::Changed(path.clone()));
            }
        }
        let Collected { builder, mut left_out, .. } = self.sources.collect(Some(self.next));
        if left_out.len() > self.left_out.len() {
            return Err(ReplaceRulesError::Sources(left_out.swap_remove(0)));
        }
        let piece = builder.build_piece(self.next);
        self.next += 1;
        Ok(Some(piece))
    }
}
