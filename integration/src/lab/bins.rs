//! Where the binaries are.

use std::path::{Path, PathBuf};

/// Directory variable that overrides the search.
pub const BIN_DIR: &str = "SEKISHO_BIN_DIR";

/// Path of the product's binary `name`; fails loudly when it has not been built.
#[must_use]
pub fn product(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os(BIN_DIR) {
        let path = Path::new(&dir).join(name);
        assert!(
            path.is_file(),
            "{} is not there: {BIN_DIR} names a directory without {name}",
            path.display()
        );
        return path;
    }
    let dirs = candidates();
    dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("{name} has not been built: looked in {dirs:?}; run `cargo build -p sekisho-agent -p sekisho-collector` or set {BIN_DIR}")
    })
}

/// Path of this crate's own `actor`.
#[must_use]
pub fn actor() -> PathBuf {
    let dirs = candidates();
    dirs.iter().map(|dir| dir.join("actor")).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "actor has not been built: looked in {dirs:?}; run `cargo build -p sekisho-integration`"
        )
    })
}

/// The profile directory of the running executable first, then its siblings.
fn candidates() -> Vec<PathBuf> {
    let own = std::env::current_exe().expect("the path of this executable");
    let mut dir = own.parent().expect("an executable has a directory").to_owned();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let target = dir.parent().map(Path::to_owned).unwrap_or_default();
    let mut dirs = vec![dir];
    for profile in ["release", "debug"] {
        let sibling = target.join(profile);
        if !dirs.contains(&sibling) {
            dirs.push(sibling);
        }
    }
    dirs
}
