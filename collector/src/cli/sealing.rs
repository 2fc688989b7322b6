//! Files of the verbs that seal: what is sealed, with which keys, and how a sealed file is written.

use super::Failure;
use super::policies::read_key;
use crate::clock::to_the_second;
use clap::Args;
use sekisho_schema::{Sealed, Span};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a verb that failed leaves.
pub(super) const UNCHANGED: &str = "nothing was written or changed";
/// The longest that a seal may be fresh.
pub(super) const LONGEST: Span = Span::from_hours(24 * 400);

#[derive(Args)]
pub(super) struct Seal {
    /// The document in TOML, or a sealed one to which a signature is added
    pub(super) file: PathBuf,
    /// Secret key; repeat it for several
    #[arg(long, required = true)]
    pub(super) key: Vec<PathBuf>,
    /// How long the seal is fresh (ignored when a signature is added)
    #[arg(long, default_value = "90d")]
    pub(super) expires: String,
    /// Where to write the sealed document
    #[arg(long)]
    pub(super) out: PathBuf,
}

/// A file as text.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::unable(
            format!("cannot read {}: {error}", path.display()),
            UNCHANGED,
            "name a file that you may read",
        )
    })
}

/// Written beside and renamed, so that a half-written document is never pushed.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let half = path.with_extension("half");
    std::fs::write(&half, text).and_then(|()| std::fs::rename(&half, path)).map_err(|error| {
        Failure::unable(
            format!("cannot write {}: {error}", path.display()),
            "it was not written",
            "choose a file that you may write with --out",
        )
    })
}

/// Signs with each key and writes; `what` is said of it, with its version.
pub(super) fn write_sealed(
    mut sealed: Sealed,
    keys: &[PathBuf],
    path: &Path,
    what: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    for key in keys {
        sealed = sealed.signed_by(&read_key(key)?);
    }
    write_file(path, &format!("{}\n", sealed.to_text()))?;
    writeln!(
        out,
        "{what} {} sealed by {} until {} UTC: {}",
        sealed.version,
        sealed.signatures.keys().cloned().collect::<Vec<_>>().join(", "),
        to_the_second(sealed.expires),
        path.display()
    )?;
    Ok(())
}
