//! Which rules are looked for: the shipped packs, the operator's packs and lists.
//!
//! An operator's pack replaces the shipped one of the same name. A pack or list that can't be
//! read is named and left out; the others are in force.

use sekisho_engine::packs::shipped_packs;
use sekisho_engine::rules::{BuildRulesError, Rules, RulesBuilder};
use sekisho_schema::Verified;
use sekisho_schema::pack::{ParsePackError, RulePack};
use sekisho_schema::sealed::Local;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes of the largest indicator list: some four million names.
const LARGEST_LIST: u64 = 128 << 20;

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
}

/// Loads the shipped packs, the packs of files and directories, and lists.
///
/// Of a directory every `*.toml` counts as a pack; a file that is not `*.toml` is a list.
#[must_use]
pub fn load_rules(packs: &[PathBuf], lists: &[PathBuf], from: Local) -> LoadedRules {
    let mut left_out = Vec::new();
    let mut own = Vec::new();
    let mut lists = lists.to_vec();
    for path in packs {
        match files_of(path) {
            Ok(files) => {
                for file in files {
                    if file.extension().is_none_or(|extension| extension != "toml") {
                        lists.push(file);
                        continue;
                    }
                    match read_pack(&file) {
                        Ok(pack) => own.push(pack),
                        Err(error) => left_out.push(error),
                    }
                }
            }
            Err(error) => left_out.push(error),
        }
    }
    let mut builder = RulesBuilder::new();
    for (name, text) in shipped_packs() {
        match RulePack::parse(text) {
            Ok(pack) if own.iter().any(|other: &RulePack| other.name == pack.name) => {}
            Ok(pack) => left_out.extend(
                builder
                    .add_pack(&Verified::locally(pack, Local::BuiltIn))
                    .err()
                    .map(LoadRulesError::from),
            ),
            Err(source) => left_out.push(LoadRulesError::Pack { path: name.into(), source }),
        }
    }
    for pack in own {
        left_out.extend(
            builder.add_pack(&Verified::locally(pack, from)).err().map(LoadRulesError::from),
        );
    }
    for list in lists {
        match read_list(&list) {
            Ok(text) => left_out.extend(
                builder
                    .add_list(&list.display().to_string(), &text)
                    .err()
                    .map(LoadRulesError::from),
            ),
            Err(source) => left_out.push(LoadRulesError::Read { path: list, source }),
        }
    }
    LoadedRules { rules: builder.build(), left_out }
}

/// A list that would not fit is refused whole: half of it would look like all of it.
fn read_list(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST_LIST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_LIST {
        let why = format!("it has more than {} MiB", LARGEST_LIST >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, LoadRulesError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let refuse = |source| LoadRulesError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(refuse)? {
        let file = entry.map_err(refuse)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
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
