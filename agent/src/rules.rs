//! Which rules are looked for: the shipped packs, the operator's packs and lists.
//!
//! An operator's pack replaces the shipped one of the same name. A pack or list that can't be
//! read is named and left out; the others are in force. Of several statements about the same
//! observable the first source decides: the operator's packs, then the lists in the order of the
//! configuration, then the shipped packs.

mod compiled;
mod replacing;
mod source;

pub use self::compiled::{
    Compilation, CompileError, CompiledFile, OpenCompiledError, Seal, compile,
};
pub use self::replacing::{ReplaceRulesError, Replacement};
pub use self::source::{ListOptions, ListReport, check_file};

use self::source::read_source;
use sekisho_engine::detect::indicator_set::IndicatorSet;
use sekisho_engine::packs::{shipped_lists, shipped_packs};
use sekisho_engine::rules::{BuildRulesError, LIST_DEFAULTS, Rules, RulesBuilder, SourceCounts};
use sekisho_schema::intel::{self, ReadOptions};
use sekisho_schema::pack::{ParsePackError, RulePack};
use sekisho_schema::sealed::Local;
use sekisho_schema::{Timestamp, TrustAnchors, Verified};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a pack or a list is left out.
#[derive(Debug, thiserror::Error)]
pub enum LoadRulesError {
    /// It can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no rule pack.
    #[error("{path}:{source}")]
    Pack {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        source: ParsePackError,
    },
    /// It is a compiled set that can't be used.
    #[error("cannot use {path}")]
    Compiled {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: OpenCompiledError,
    },
    /// It has something that is no indicator.
    #[error(transparent)]
    Build(#[from] BuildRulesError),
}

/// Rules, and what was left out of them.
#[derive(Debug, Default)]
pub struct LoadedRules {
    /// What is in force.
    pub rules: Rules,
    /// What is not.
    pub left_out: Vec<LoadRulesError>,
    /// What each list brought, in the order of the configuration.
    pub lists: Vec<ListReport>,
    /// What a reload is compared with.
    pub in_force: InForce,
}

/// What is in force, as far as new rules are compared with it.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// Indicators by source; a source that could not be read is named with 0.
    pub counts: SourceCounts,
    /// Name and version of each compiled set, by its file.
    pub versions: BTreeMap<PathBuf, (String, u64)>,
}

/// Where rules come from.
#[derive(Clone, Debug)]
pub struct RuleSources {
    /// Packs: files and directories.
    pub packs: Vec<PathBuf>,
    /// Lists, feeds and compiled sets.
    pub lists: Vec<PathBuf>,
    /// What vouches for packs and lists without a seal.
    pub from: Local,
    /// What the seals of compiled sets are checked against; `None` takes a seal unchecked, as of a
    /// file that root installed.
    pub anchors: Option<TrustAnchors>,
    /// What has ceased to count by then is not loaded; `None` loads all.
    pub now: Option<Timestamp>,
    /// Hides the tables from whoever writes a feed.
    pub seed: u64,
}

impl RuleSources {
    /// Sources without trust anchors, of which all is loaded whatever its age.
    #[must_use]
    pub fn new(packs: &[PathBuf], lists: &[PathBuf], from: Local) -> Self {
        Self {
            packs: packs.to_vec(),
            lists: lists.to_vec(),
            from,
            anchors: None,
            now: None,
            seed: 1,
        }
    }

    /// Loads them all.
    #[must_use]
    pub fn load(&self) -> LoadedRules {
        let Collected { builder, left_out, lists } = self.collect(None);
        let in_force = self.in_force(&builder, &lists);
        LoadedRules { rules: builder.build(), left_out, lists, in_force }
    }

    /// What is in force after this was loaded, as its readers counted it.
    fn in_force(&self, builder: &RulesBuilder, lists: &[ListReport]) -> InForce {
        let mut versions = BTreeMap::new();
        let mut counts: SourceCounts = builder.pack_counts().collect();
        for (list, path) in lists.iter().zip(self.all_lists()) {
            versions.extend(list.version.clone().map(|version| (path.clone(), version)));
            match (list.brought, &list.sources) {
                (None, _) => counts.extend([(path.display().to_string(), 0)]),
                (Some(_), Some(within)) => counts.extend(within.clone()),
                (Some(brought), None) => counts.extend([(list.name.clone(), brought)]),
            }
        }
        InForce { counts, versions }
    }

    /// The operator's packs and, beside the configured ones, lists that stand where packs do.
    fn own(&self, left_out: &mut Vec<LoadRulesError>) -> Vec<RulePack> {
        let mut own = Vec::new();
        for path in &self.packs {
            match files_of(path) {
                Ok(files) => {
                    for file in files.into_iter().filter(|file| is_pack(file)) {
                        match read_pack(&file) {
                            Ok(pack) => own.push(pack),
                            Err(error) => left_out.push(error),
                        }
                    }
                }
                Err(error) => left_out.push(error),
            }
        }
        own
    }

    fn all_lists(&self) -> Vec<PathBuf> {
        let beside = self.packs.iter().filter(|path| !path.is_dir() && !is_pack(path));
        self.lists.iter().chain(beside).cloned().collect()
    }

    fn collect(&self, only: Option<usize>) -> Collected {
        let mut left_out = Vec::new();
        let own = self.own(&mut left_out);
        let mut builder = RulesBuilder::seeded(self.seed);
        if let Some(piece) = only {
            builder.keep_only(piece);
        }
        for pack in &own {
            let pack = Verified::locally(pack.clone(), self.from);
            left_out.extend(builder.add_pack(&pack).err().map(LoadRulesError::from));
        }
        let mut lists = Vec::new();
        for list in self.all_lists() {
            let options = ListOptions { now: self.now, ..ListOptions::default() };
            match read_source(&mut builder, &list, &options, self.anchors.as_ref()) {
                Ok(report) => lists.push(report),
                Err(error) => {
                    lists.push(ListReport::unread(&list));
                    left_out.push(error);
                }
            }
        }
        for (name, text) in shipped_packs() {
            match RulePack::parse(text) {
                Ok(pack) if own.iter().any(|other: &RulePack| other.name == pack.name) => {}
                Ok(pack) => left_out.extend(
                    builder
                        .add_shipped(&Verified::locally(pack, Local::BuiltIn))
                        .err()
                        .map(LoadRulesError::from),
                ),
                Err(source) => left_out.push(LoadRulesError::Pack { path: name.into(), source }),
            }
        }
        for (name, text) in shipped_lists() {
            let options = ReadOptions { now: self.now, ..ReadOptions::default() };
            let read = builder.read_list(name, LIST_DEFAULTS, |taker| {
                intel::read(text.as_bytes(), options, taker)
            });
            left_out.extend(read.err().map(LoadRulesError::from));
        }
        Collected { builder, left_out, lists }
    }
}

/// What all sources gave.
struct Collected {
    builder: RulesBuilder,
    left_out: Vec<LoadRulesError>,
    lists: Vec<ListReport>,
}

/// How many pieces a set has.
pub const PIECES: usize = IndicatorSet::PIECES;

/// Loads the shipped packs, the packs of files and directories, and lists.
///
/// Of a directory every `*.toml` counts as a pack; a file that is not `*.toml` is a list, a feed or
/// a compiled set.
#[must_use]
pub fn load_rules(packs: &[PathBuf], lists: &[PathBuf], from: Local) -> LoadedRules {
    RuleSources::new(packs, lists, from).load()
}

fn is_pack(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, LoadRulesError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let refuse = |source| LoadRulesError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(refuse)? {
        let file = entry.map_err(refuse)?.path();
        if is_pack(&file) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_pack(path: &Path) -> Result<RulePack, LoadRulesError> {
    let text = fs::read_to_string(path)
        .map_err(|source| LoadRulesError::Read { path: path.to_owned(), source })?;
    RulePack::parse(&text).map_err(|source| LoadRulesError::Pack { path: path.to_owned(), source })
}
