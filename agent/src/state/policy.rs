//! Which policy is in force at start, and what it takes to replace it.

use super::store::{StoreError, write_atomically};
use sekisho_schema::policy::Mode;
use sekisho_schema::sealed::{Local, SealError, parse_public};
use sekisho_schema::{Policy, Sealed, Timestamp, TrustAnchors, Verified};
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Name of the last good policy in the state directory.
const POLICY_FILE: &str = "policy.sealed";
/// Name of the file in the trust directory that says how many anchors must have signed.
const THRESHOLD_FILE: &str = "threshold";

/// Where the policy in force came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyOrigin {
    /// The program's own, which cuts nothing.
    BuiltIn,
    /// The sealed file that the configuration names.
    File,
    /// The last one adopted, from the state directory.
    State,
}

/// A policy that may be used, and what was refused on the way to it.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// The policy.
    pub policy: Verified<Policy>,
    /// Where it came from.
    pub origin: PolicyOrigin,
    /// The digest of its envelope, so that the same one is known again; `None` for the built-in one.
    pub digest: Option<String>,
    /// Documents that were refused, with the reason; the one in force is older or the built-in one.
    pub refused: Vec<LoadPolicyError>,
}

/// Why a policy or an anchor is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadPolicyError {
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A trust anchor is not a key.
    #[error("cannot use trust anchor {path}: {why}")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The seal does not hold.
    #[error("policy {path} (version {version}) refused")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The version it says it has; 0 when it can't be read.
        version: u64,
        /// What does not hold.
        source: SealError,
    },
    /// It may be believed and can't be kept.
    #[error("policy adopted and not kept for the next start")]
    Keep(#[from] StoreError),
}

impl LoadPolicyError {
    /// A short, stable word for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Refused { source, .. } => source.reason(),
            Self::Read { .. } => "unreadable",
            Self::Anchor { .. } => "anchor",
            Self::Keep(_) => "not-kept",
        }
    }

    /// The version that the refused document says it has; 0 when unknown.
    #[must_use]
    pub const fn version(&self) -> u64 {
        match self {
            Self::Refused { version, .. } => *version,
            Self::Read { .. } | Self::Anchor { .. } | Self::Keep(_) => 0,
        }
    }
}

/// Reads the trust anchors: every `*.pub` of a directory, and `threshold` beside them (default 1).
///
/// A directory that does not exist holds no anchor. A file that is no key is refused as a whole
/// directory: an anchor missed silently could lower what a threshold means.
///
/// # Errors
/// [`LoadPolicyError::Read`] or [`LoadPolicyError::Anchor`].
pub fn load_anchors(dir: &Path) -> Result<TrustAnchors, LoadPolicyError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadPolicyError::Read { path, source }
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(TrustAnchors::new([], 1));
        }
        Err(error) => return Err(read(dir)(error)),
    };
    check_writers(dir)?;
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(read(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            check_writers(&path)?;
            let text = fs::read_to_string(&path).map_err(read(&path))?;
            keys.push(parse_public(&text).map_err(|error| LoadPolicyError::Anchor {
                path: path.clone(),
                why: error.to_string(),
            })?);
        }
    }
    let path = dir.join(THRESHOLD_FILE);
    if path.exists() {
        check_writers(&path)?;
    }
    let threshold = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| LoadPolicyError::Anchor {
            path,
            why: "the threshold is not a number".to_owned(),
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 1,
        // To go on with 1 would lower it.
        Err(error) => return Err(read(&path)(error)),
    };
    Ok(TrustAnchors::new(keys, threshold))
}

/// Who can write an anchor can sign any policy: only root, or whoever runs this, may.
///
/// # Errors
/// [`LoadPolicyError`] when it can't be looked at, or others may write it.
pub fn check_writers(path: &Path) -> Result<(), LoadPolicyError> {
    let data = fs::metadata(path)
        .map_err(|source| LoadPolicyError::Read { path: path.to_owned(), source })?;
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&data.uid());
    if ours && data.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(LoadPolicyError::Anchor {
        path: path.to_owned(),
        why: format!(
            "others may write it (owner {}, mode {:o}), and so seal a policy; chown it to root and chmod go-w",
            data.uid(),
            data.mode() & 0o7777
        ),
    })
}

/// Reads a sealed document.
///
/// # Errors
/// [`LoadPolicyError::Read`], or [`LoadPolicyError::Refused`] when it is no envelope.
pub fn read_sealed_policy(path: &Path) -> Result<Sealed, LoadPolicyError> {
    let text = fs::read_to_string(path)
        .map_err(|source| LoadPolicyError::Read { path: path.to_owned(), source })?;
    Sealed::parse(&text).map_err(|source| LoadPolicyError::Refused {
        path: path.to_owned(),
        version: 0,
        source,
    })
}

/// The policy to start with: the newest of the last one adopted and the file that the
/// configuration names, else the built-in dry-run, which cuts nothing.
#[must_use]
pub fn load_policy(
    state: &Path,
    trust: &Path,
    file: Option<&Path>,
    now: Timestamp,
) -> LoadedPolicy {
    let mut refused = Vec::new();
    let anchors = load_anchors(trust).unwrap_or_else(|error| {
        refused.push(error);
        TrustAnchors::new([], 1)
    });
    let mut best = LoadedPolicy {
        policy: Verified::locally(Policy::built_in(Mode::DryRun), Local::BuiltIn),
        origin: PolicyOrigin::BuiltIn,
        digest: None,
        refused: Vec::new(),
    };
    let kept = state.join(POLICY_FILE);
    if kept.exists() {
        let opened = read_sealed_policy(&kept)
            .and_then(|sealed| Ok((reopen(&kept, &sealed, &anchors)?, sealed.digest())));
        match opened {
            Ok((policy, digest)) => {
                let (origin, digest) = (PolicyOrigin::State, Some(digest));
                best = LoadedPolicy { policy, origin, digest, refused: Vec::new() }
            }
            Err(error) => refused.push(error),
        }
    }
    if let Some(file) = file {
        match open_file(file, &anchors, now, best.policy.version) {
            Ok(Some((sealed, policy))) => {
                let (origin, digest) = (PolicyOrigin::File, Some(sealed.digest()));
                best = LoadedPolicy { policy, origin, digest, refused: Vec::new() };
                if let Err(error) = write_atomically(&kept, sealed.to_text().as_bytes(), 0o600) {
                    refused.push(error.into());
                }
            }
            // The very policy that is in force already.
            Ok(None) => {}
            Err(error) => refused.push(error),
        }
    }
    LoadedPolicy { refused, ..best }
}

fn reopen(
    path: &Path,
    sealed: &Sealed,
    anchors: &TrustAnchors,
) -> Result<Verified<Policy>, LoadPolicyError> {
    sealed.reopen_policy(anchors).map_err(|source| LoadPolicyError::Refused {
        path: path.to_owned(),
        version: sealed.version,
        source,
    })
}

fn open_file(
    path: &Path,
    anchors: &TrustAnchors,
    now: Timestamp,
    in_force: u64,
) -> Result<Option<(Sealed, Verified<Policy>)>, LoadPolicyError> {
    let sealed = read_sealed_policy(path)?;
    let refuse = |source| LoadPolicyError::Refused {
        path: path.to_owned(),
        version: sealed.version,
        source,
    };
    if sealed.version == in_force {
        return sealed.check_signatures("policy", anchors).map(|()| None).map_err(refuse);
    }
    let policy = sealed.open_policy(anchors, now, in_force).map_err(refuse)?;
    Ok(Some((sealed, policy)))
}

/// Opens a policy that arrived and keeps it for the next start.
///
/// # Errors
/// [`LoadPolicyError::Refused`]: the policy in force stays. A policy that can't be kept is
/// refused too, because a restart would silently fall back behind it.
pub fn adopt_policy(
    state: &Path,
    trust: &Path,
    sealed: &Sealed,
    now: Timestamp,
    in_force: u64,
) -> Result<Verified<Policy>, LoadPolicyError> {
    let anchors = load_anchors(trust)?;
    let refuse = |source| LoadPolicyError::Refused {
        path: PathBuf::from("from the collector"),
        version: sealed.version,
        source,
    };
    let policy = sealed.open_policy(&anchors, now, in_force).map_err(refuse)?;
    write_atomically(&state.join(POLICY_FILE), sealed.to_text().as_bytes(), 0o600)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Span;
    use sekisho_schema::sealed::{key_pair, parse_secret};

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn sealed(version: u64, seed: u8, expires: Timestamp) -> Sealed {
        let text = format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"enforce\"\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        );
        Sealed::wrap("policy", version, expires, text.as_bytes())
            .signed_by(&parse_secret(&key_pair(&[seed; 32]).0).unwrap())
    }

    fn house() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (state, trust) = (dir.path().join("state"), dir.path().join("trust"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&trust).unwrap();
        fs::write(trust.join("a.pub"), key_pair(&[1; 32]).1).unwrap();
        (dir, state, trust)
    }

    #[test]
    fn without_any_policy_the_built_in_one_cuts_nothing() {
        let (_dir, state, trust) = house();
        let loaded = load_policy(&state, &trust, None, NOW);
        assert_eq!(
            (loaded.origin, loaded.policy.mode, loaded.refused.len()),
            (PolicyOrigin::BuiltIn, Mode::DryRun, 0)
        );
    }

    #[test]
    fn an_adopted_policy_is_in_force_after_a_restart_even_when_it_has_expired() {
        let (_dir, state, trust) = house();
        let soon = NOW.after(Span::from_secs(10));
        assert_eq!(adopt_policy(&state, &trust, &sealed(7, 1, soon), NOW, 0).unwrap().version, 7);
        let loaded = load_policy(&state, &trust, None, soon.after(Span::from_hours(1)));
        assert_eq!((loaded.origin, loaded.policy.version), (PolicyOrigin::State, 7));
        assert_eq!(loaded.digest, Some(sealed(7, 1, soon).digest()));
    }

    #[test]
    fn foreign_older_and_expired_policies_leave_the_last_good_one() {
        let (_dir, state, trust) = house();
        let later = NOW.after(Span::from_hours(1));
        adopt_policy(&state, &trust, &sealed(7, 1, later), NOW, 0).unwrap();
        for (policy, reason) in [
            (sealed(8, 2, later), "threshold"),
            (sealed(7, 1, later), "rollback"),
            (sealed(6, 1, later), "rollback"),
            (sealed(8, 1, NOW), "expired"),
        ] {
            assert_eq!(adopt_policy(&state, &trust, &policy, NOW, 7).unwrap_err().reason(), reason);
        }
        assert_eq!(load_policy(&state, &trust, None, NOW).policy.version, 7);
    }

    #[test]
    fn a_policy_file_of_the_configuration_is_adopted_once_and_an_unsealed_one_never() {
        let (dir, state, trust) = house();
        let file = dir.path().join("policy.sealed");
        fs::write(&file, sealed(3, 1, NOW.after(Span::from_hours(1))).to_text()).unwrap();
        assert_eq!(load_policy(&state, &trust, Some(&file), NOW).origin, PolicyOrigin::File);
        let again = load_policy(&state, &trust, Some(&file), NOW);
        assert_eq!(
            (again.origin, again.policy.version, again.refused.len()),
            (PolicyOrigin::State, 3, 0)
        );
        fs::write(&file, "mode = \"enforce\"").unwrap();
        let loaded = load_policy(&state, &trust, Some(&file), NOW);
        assert_eq!((loaded.policy.version, loaded.refused[0].reason()), (3, "malformed"));
    }

    #[test]
    fn an_anchor_that_others_may_write_is_refused_with_its_path() {
        use std::os::unix::fs::PermissionsExt as _;
        for name in ["trust", "trust/a.pub"] {
            let (dir, _state, trust) = house();
            let path = dir.path().join(name);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o002)).unwrap();
            let said = load_anchors(&trust).unwrap_err().to_string();
            assert!(said.contains(path.to_str().unwrap()) && said.contains("others"), "{said}");
        }
    }

    #[test]
    fn a_threshold_that_can_t_be_read_is_not_one() {
        let (_dir, _state, trust) = house();
        fs::create_dir(trust.join(THRESHOLD_FILE)).unwrap();
        assert_eq!(load_anchors(&trust).unwrap_err().reason(), "unreadable");
    }

    #[test]
    fn an_anchor_that_is_no_key_leaves_no_anchor_at_all() {
        let (_dir, _state, trust) = house();
        fs::write(trust.join("b.pub"), "not a key").unwrap();
        assert!(load_anchors(&trust).is_err());
    }
}
