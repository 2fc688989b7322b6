//! What the collector does with a policy: check that it may be passed on, and hold the one in force.
//!
//! The keys that seal policies are elsewhere. Agents check every seal again; the check here
//! keeps a mistake from travelling.

use crate::dir::{Dir, DirError};
use crate::store::{Store, StoreError, StoredPolicy};
use sekisho_schema::sealed::SealError;
use sekisho_schema::{Policy, Sealed, Timestamp};

/// The policy in force, as it is passed on and shown.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The envelope as stored.
    pub stored: StoredPolicy,
    /// What is in it, with its expiry; `None` when it can't be read here. Shown only: agents check the seal.
    pub policy: Option<Policy>,
}

/// Why a policy is not passed on.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The trust anchors can't be read.
    #[error(transparent)]
    Anchors(#[from] DirError),
    /// Nobody is trusted to seal yet.
    #[error("no trust anchor is known, so no seal can be believed")]
    NoAnchors,
    /// The seal does not hold.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl InForce {
    /// Takes up a stored policy.
    #[must_use]
    pub fn new(stored: StoredPolicy) -> Self {
        let policy = Sealed::parse(&stored.sealed).ok().and_then(|sealed| {
            let mut policy =
                Policy::parse(std::str::from_utf8(&sealed.payload_bytes().ok()?).ok()?).ok()?;
            policy.expires = Some(sealed.expires);
            Some(policy)
        });
        Self { stored, policy }
    }
}

/// How many anchors must have sealed a policy.
///
/// # Errors
/// When the database refuses.
pub fn threshold(store: &Store) -> Result<usize, StoreError> {
    Ok(store.meta("threshold")?.and_then(|text| text.parse().ok()).unwrap_or(1).max(1))
}

/// Checks a sealed policy and stores it as the one in force; running servers notice by themselves.
///
/// # Errors
/// Why it is refused; the policy in force stays.
pub fn push(dir: &Dir, store: &Store, text: &str, now: Timestamp) -> Result<Sealed, PushError> {
    let sealed = Sealed::parse(text)?;
    let anchors = dir.anchors(threshold(store)?)?;
    if anchors.is_empty() {
        return Err(PushError::NoAnchors);
    }
    let in_force = store.newest_policy()?.map_or(0, |policy| policy.version);
    sealed.open_policy(&anchors, now, in_force)?;
    if store.keep_policy(&sealed, now)? {
        Ok(sealed)
    } else {
        let in_force = store.newest_policy()?.map_or(0, |policy| policy.version);
        Err(SealError::RolledBack { found: sealed.version, in_force }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Span;
    use sekisho_schema::sealed::{key_pair, parse_secret};

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn sealed(version: u64, expires: Timestamp, seed: Option<u8>) -> String {
        let text = format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"enforce\"\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        );
        let sealed = Sealed::wrap("policy", version, expires, text.as_bytes());
        match seed {
            Some(seed) => {
                sealed.signed_by(&parse_secret(&key_pair(&[seed; 32]).0).unwrap()).to_text()
            }
            None => sealed.to_text(),
        }
    }

    #[test]
    fn only_a_sealed_newer_and_fresh_policy_is_passed_on() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::new(place.path());
        dir.create().unwrap();
        let store = Store::open(&dir.database(), true).unwrap();
        let later = NOW.after(Span::from_hours(24));
        let refused = |text: &str| match push(&dir, &store, text, NOW).unwrap_err() {
            PushError::Seal(error) => error.reason().to_owned(),
            other => other.to_string(),
        };
        assert!(refused(&sealed(3, later, Some(1))).contains("no trust anchor"));
        crate::dir::write_public(&dir.trust().join("one.pub"), &key_pair(&[1; 32]).1).unwrap();
        assert_eq!(refused(&sealed(3, later, None)), "unsigned");
        assert_eq!(refused(&sealed(3, later, Some(2))), "threshold");
        assert_eq!(refused(&sealed(3, NOW, Some(1))), "expired");
        assert!(store.newest_policy().unwrap().is_none());
        push(&dir, &store, &sealed(3, later, Some(1)), NOW).unwrap();
        assert_eq!(refused(&sealed(3, later, Some(1))), "rollback");
        assert_eq!(refused(&sealed(2, later, Some(1))), "rollback");
        let in_force = InForce::new(store.newest_policy().unwrap().unwrap());
        assert_eq!(
            (in_force.stored.version, in_force.policy.unwrap().duty.owner.as_str()),
            (3, "a")
        );
    }
}
