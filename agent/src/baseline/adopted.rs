//! Sealed documents that come into the state directory, and the highest version of each role that ever came:
//! versions rise within a role, and a host that moves to another goes by that one's.

use super::files::{
    BASELINE_FILE, BaselineFileError, CERTIFICATE_FILE, NOT_SEALED, malformed, read, refused,
    sealed,
};
use crate::state::write_atomically;
use sekisho_schema::baseline::BASELINE_KIND;
use sekisho_schema::certificate::CERTIFICATE_KIND;
use sekisho_schema::{Sealed, Timestamp, TrustAnchors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the highest versions that were taken in, in the state directory.
const VERSIONS_FILE: &str = "versions.json";
/// Roles whose versions are remembered; a host moves seldom, and what is beyond is taken as new.
const ROLES: usize = 256;

/// The highest version of each role that was taken in, by kind.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Versions {
    baseline: BTreeMap<String, u64>,
    certificate: BTreeMap<String, u64>,
}

impl Versions {
    /// What can't be read holds nothing back but the document that lies there.
    fn read(state: &Path) -> Self {
        let text = read(&state.join(VERSIONS_FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write(&self, state: &Path) -> Result<(), BaselineFileError> {
        let path = state.join(VERSIONS_FILE);
        let text = serde_json::to_vec(self).map_err(|error| malformed(&path, error.to_string()))?;
        Ok(write_atomically(&path, &text, 0o600)?)
    }
}

/// Takes a sealed baseline or certificate into the state directory, where the next start finds it;
/// returns its kind and version.
///
/// # Errors
/// [`BaselineFileError`]: what was in force stays in force.
pub fn adopt(
    state: &Path,
    path: &Path,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<(&'static str, u64), BaselineFileError> {
    let text = read(path)?;
    let Some(envelope) = sealed(path, &text)? else {
        return Err(malformed(path, NOT_SEALED.to_owned()));
    };
    let is_baseline = match envelope.kind.as_str() {
        BASELINE_KIND => true,
        CERTIFICATE_KIND => false,
        other => {
            return Err(malformed(
                path,
                format!("it is a sealed {other}, not a baseline or a certificate"),
            ));
        }
    };
    let (kind, name) = if is_baseline {
        (BASELINE_KIND, BASELINE_FILE)
    } else {
        (CERTIFICATE_KIND, CERTIFICATE_FILE)
    };
    // The role of a document, once its seal holds and its version is not below that.
    let role_of = |sealed: &Sealed, at: Timestamp, least: u64| {
        if is_baseline {
            sealed.open_baseline(anchors, least).map(|baseline| baseline.role.clone())
        } else {
            sealed.open_certificate(anchors, at, least).map(|opened| opened.role.clone())
        }
    };
    let role = role_of(&envelope, now, 0).map_err(|source| refused(path, &envelope, source))?;
    // What can't be read is not in force, and holds nothing back; what expired does.
    let kept = read(&state.join(name)).ok().and_then(|text| Sealed::parse(&text).ok());
    let is_of_another =
        |kept: &Sealed| role_of(kept, Timestamp::EPOCH, 0).is_ok_and(|known| known != role);
    let kept = kept.filter(|kept| !is_of_another(kept));
    let mut versions = Versions::read(state);
    let of_kind = if is_baseline { &mut versions.baseline } else { &mut versions.certificate };
    let in_force = kept.as_ref().map_or(0, |kept| kept.version);
    let least = in_force.max(of_kind.get(&role).copied().unwrap_or(0));
    role_of(&envelope, now, least).map_err(|source| refused(path, &envelope, source))?;
    let is_another = |kept: &Sealed| {
        kept.version == envelope.version
            && kept.payload_bytes().ok() != envelope.payload_bytes().ok()
    };
    let version = envelope.version;
    if kept.as_ref().is_some_and(is_another) {
        return Err(malformed(
            path,
            format!(
                "another {kind} of version {version} is in force: each change needs a version of its own"
            ),
        ));
    }
    if of_kind.len() < ROLES || of_kind.contains_key(&role) {
        of_kind.insert(role, version);
    }
    versions.write(state)?;
    write_atomically(&state.join(name), text.as_bytes(), 0o600)?;
    Ok((kind, version))
}

#[cfg(test)]
mod tests {
    use super::super::files::{read_baseline, write_sealed};
    use super::*;
    use sekisho_schema::Span;
    use sekisho_schema::baseline::RoleBaseline;
    use sekisho_schema::sealed::SigningKey;
    use std::path::PathBuf;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn anchors() -> TrustAnchors {
        TrustAnchors::new([key(1).verifying_key()], 1)
    }

    fn seal(dir: &Path, role: &str, version: u64, seed: u8) -> PathBuf {
        let baseline = RoleBaseline { version, ..RoleBaseline::empty(role, NOW) };
        let path = dir.join(format!("{role}-{version}-{seed}.sealed"));
        let until = NOW.after(Span::from_hours(1));
        let text = baseline.to_text().unwrap();
        write_sealed(&path, (BASELINE_KIND, version), &text, &key(seed), until).unwrap();
        path
    }

    #[test]
    fn a_sealed_baseline_is_adopted_and_an_older_or_foreign_one_leaves_it_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let adopt = |path: &Path| adopt(state, path, &anchors(), NOW);
        assert_eq!(adopt(&seal(state, "web", 4, 1)).unwrap(), (BASELINE_KIND, 4));
        assert!(adopt(&seal(state, "web", 3, 1)).is_err());
        assert!(adopt(&seal(state, "web", 5, 2)).is_err());
        let other = RoleBaseline {
            version: 4,
            ..RoleBaseline::empty("web", NOW.after(Span::from_secs(1)))
        };
        let path = state.join("other.sealed");
        let until = NOW.after(Span::from_hours(1));
        write_sealed(&path, (BASELINE_KIND, 4), &other.to_text().unwrap(), &key(1), until).unwrap();
        let said = adopt(&path).unwrap_err().to_string();
        assert!(said.contains("another baseline of version 4 is in force"), "{said}");
        let unsealed = seal(state, "web", 6, 1).with_extension("toml");
        assert!(adopt(&unsealed).is_err());
        let kept = read_baseline(&state.join(BASELINE_FILE), &anchors()).unwrap();
        assert!(kept.is_sealed() && kept.version == 4);
    }

    #[test]
    fn a_host_that_moves_takes_the_lower_version_of_its_new_role_and_no_older_one_of_its_old() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let adopt = |role: &str, version: u64| {
            adopt(state, &seal(state, role, version, 1), &anchors(), NOW)
                .map(|(_, version)| version)
        };
        assert_eq!(adopt("web", 9).unwrap(), 9);
        assert_eq!(adopt("db", 2).unwrap(), 2);
        assert!(adopt("db", 1).is_err());
        // Back again: what was replaced before it left stays replaced.
        assert!(adopt("web", 8).is_err());
        assert_eq!((adopt("web", 9).unwrap(), adopt("web", 10).unwrap()), (9, 10));
        // A file of versions that is damaged holds nothing back but what lies there.
        std::fs::write(state.join(VERSIONS_FILE), "{").unwrap();
        assert!(adopt("web", 9).is_err());
        assert_eq!(adopt("web", 11).unwrap(), 11);
    }
}
