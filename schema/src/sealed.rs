//! Seals: a document counts only with enough good signatures, and only while it is not older than what is known.
//!
//! The envelope follows DSSE's idea (sign the type together with the bytes) and TUF's rules
//! (version never falls, expiry, threshold of keys).

use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
pub use ed25519_dalek::SigningKey;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

mod learning;
mod orders;

pub use orders::{FRESH_FOR, HOST_LEVEL, Opened, Operators};

/// Name and version of the seal schema.
pub const SEAL_SCHEMA: &str = "sekisho.sealed/1";

/// A document in its envelope, as it travels and rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// [`SEAL_SCHEMA`].
    pub schema: String,
    /// `policy`, `rules` or `order`.
    pub kind: String,
    /// Version of the document; rises.
    pub version: u64,
    /// When it ceases to be fresh.
    pub expires: Timestamp,
    /// The document's bytes, base64.
    pub payload: String,
    /// Signatures by key id.
    pub signatures: BTreeMap<String, String>,
}

/// The keys that count, and how many of them must have signed.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchors {
    keys: BTreeMap<String, VerifyingKey>,
    threshold: usize,
}

/// A document that may be believed. The only ways to one are a checked seal or a place where no seal can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<T> {
    document: T,
    /// Where it comes from without a seal; `None` when a seal was checked.
    from: Option<Local>,
}

/// Where a document without a seal may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The program's own default, which cuts nothing.
    BuiltIn,
    /// A person with root on the local control socket.
    ControlSocket,
    /// Installed on this host by root, beside the program itself.
    Installed,
    /// A replay, where nothing can be cut.
    Replay,
}

/// Why a sealed document is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// Not an envelope.
    #[error("not a sealed document: {0}")]
    Malformed(String),
    /// Another kind of document.
    #[error("sealed as {found}, expected {expected}")]
    Kind {
        /// What it says it is.
        found: String,
        /// What was wanted.
        expected: String,
    },
    /// Nobody signed.
    #[error("unsigned")]
    Unsigned,
    /// Too few good signatures.
    #[error("{good} of {threshold} signatures are by a trust anchor (signed by {signers})")]
    Threshold {
        /// Good signatures by distinct anchors.
        good: usize,
        /// How many are needed.
        threshold: usize,
        /// Key ids on the envelope.
        signers: String,
    },
    /// A signature of an anchor does not fit the bytes.
    #[error("the signature of key {0} does not fit the document: it was changed after sealing")]
    Tampered(String),
    /// Past its expiry.
    #[error("expired at {0}")]
    Expired(Timestamp),
    /// An order for another host.
    #[error("an order for {found}, not for this host")]
    OtherHost {
        /// Whom it is for.
        found: String,
    },
    /// An order that would stay fresh for longer than an order may.
    #[error("an order that is fresh until {0}: at most 15 minutes are believed")]
    TooLongFresh(Timestamp),
    /// Older than, or different from, what is in force.
    #[error("version {found} is not above version {in_force} in force")]
    RolledBack {
        /// Its version.
        found: u64,
        /// The version in force.
        in_force: u64,
    },
    /// The payload is not the document.
    #[error("the sealed {kind} can't be read: {why}")]
    Payload {
        /// The kind of document.
        kind: String,
        /// What is wrong with it.
        why: String,
    },
}

impl SealError {
    /// A short, stable word for metrics: `unsigned`, `threshold`, `tampered`, `expired`, `rollback`, `other-host`, `malformed`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Kind { .. } | Self::Payload { .. } => "malformed",
            Self::OtherHost { .. } => "other-host",
            Self::Unsigned => "unsigned",
            Self::Threshold { .. } => "threshold",
            Self::Tampered(_) => "tampered",
            Self::Expired(_) | Self::TooLongFresh(_) => "expired",
            Self::RolledBack { .. } => "rollback",
        }
    }
}

/// Why a text is not a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an Ed25519 key: 32 bytes in base64 after \"{prefix}\"")]
pub struct ParseKeyError {
    prefix: &'static str,
}

/// Prefix of a public key's text form.
pub const PUBLIC_PREFIX: &str = "sekisho-ed25519-public:";
/// Prefix of a secret key's text form.
pub const SECRET_PREFIX: &str = "sekisho-ed25519-secret:";

fn key_bytes(text: &str, prefix: &'static str) -> Result<[u8; 32], ParseKeyError> {
    text.trim()
        .strip_prefix(prefix)
        .and_then(|body| BASE64.decode(body).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ParseKeyError { prefix })
}

/// Reads a secret key from its text form.
///
/// # Errors
/// When the text is not such a key.
pub fn parse_secret(text: &str) -> Result<SigningKey, ParseKeyError> {
    key_bytes(text, SECRET_PREFIX).map(|bytes| SigningKey::from_bytes(&bytes))
}

/// Reads a public key from its text form.
///
/// # Errors
/// When the text is not such a key.
pub fn parse_public(text: &str) -> Result<VerifyingKey, ParseKeyError> {
    VerifyingKey::from_bytes(&key_bytes(text, PUBLIC_PREFIX)?)
        .map_err(|_| ParseKeyError { prefix: PUBLIC_PREFIX })
}

/// Text forms `(secret, public)` of the key pair grown from 32 random bytes.
#[must_use]
pub fn key_pair(seed: &[u8; 32]) -> (String, String) {
    let key = SigningKey::from_bytes(seed);
    (
        format!("{SECRET_PREFIX}{}", BASE64.encode(seed)),
        format!("{PUBLIC_PREFIX}{}", BASE64.encode(key.verifying_key().as_bytes())),
    )
}

/// The id of a key: the first eight bytes of its SHA-256, in hexadecimal.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.as_bytes())).chars().take(16).collect()
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]));
    text
}

/// Reads hexadecimal digits of either case into `into`; how many bytes, if they fit and nothing else
/// stands there.
#[must_use]
pub fn unhex(text: &str, into: &mut [u8]) -> Option<usize> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > into.len() {
        return None;
    }
    for ([high, low], out) in pairs.iter().zip(into.iter_mut()) {
        *out = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(pairs.len())
}

impl TrustAnchors {
    /// Anchors with the number of them that must have signed; at least one is always needed.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>, threshold: usize) -> Self {
        Self {
            keys: keys.into_iter().map(|key| (key_id(&key), key)).collect(),
            threshold: threshold.max(1),
        }
    }

    /// Ids of the anchors.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether there is no anchor at all, so that nothing can be believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Sealed {
    /// Puts a document's bytes into an envelope, without a signature yet.
    #[must_use]
    pub fn wrap(kind: &str, version: u64, expires: Timestamp, payload: &[u8]) -> Self {
        Self {
            schema: SEAL_SCHEMA.to_owned(),
            kind: kind.to_owned(),
            version,
            expires,
            payload: BASE64.encode(payload),
            signatures: BTreeMap::new(),
        }
    }

    /// Adds a signature.
    #[must_use]
    pub fn signed_by(mut self, key: &SigningKey) -> Self {
        let signature = key.sign(&self.signed_bytes());
        self.signatures.insert(key_id(&key.verifying_key()), BASE64.encode(signature.to_bytes()));
        self
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// [`SealError::Malformed`] with the parser's message.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let sealed: Self =
            serde_json::from_str(text).map_err(|error| SealError::Malformed(error.to_string()))?;
        if sealed.schema == SEAL_SCHEMA {
            Ok(sealed)
        } else {
            Err(SealError::Malformed(format!(
                "schema is \"{}\", expected \"{SEAL_SCHEMA}\"",
                sealed.schema
            )))
        }
    }

    /// The text form, one JSON object.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The document's bytes, not yet to be believed.
    ///
    /// # Errors
    /// [`SealError::Malformed`] when the payload is not base64.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, SealError> {
        BASE64
            .decode(&self.payload)
            .map_err(|error| SealError::Malformed(format!("payload: {error}")))
    }

    /// SHA-256 of what is signed, in hexadecimal: the name of this very envelope's content.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.signed_bytes()))
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [
            SEAL_SCHEMA,
            &self.kind,
            &self.version.to_string(),
            &self.expires.nanos().to_string(),
            &self.payload,
        ] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    /// Checks kind, signatures and threshold; not yet expiry and version.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold.
    pub fn check_signatures(&self, kind: &str, anchors: &TrustAnchors) -> Result<(), SealError> {
        if self.kind != kind {
            return Err(SealError::Kind { found: self.kind.clone(), expected: kind.to_owned() });
        }
        if self.signatures.is_empty() {
            return Err(SealError::Unsigned);
        }
        let bytes = self.signed_bytes();
        let mut good = 0;
        for (id, key) in &anchors.keys {
            let Some(text) = self.signatures.get(id) else { continue };
            let signature =
                BASE64.decode(text).ok().and_then(|raw| Signature::from_slice(&raw).ok());
            match signature {
                Some(signature) if key.verify_strict(&bytes, &signature).is_ok() => good += 1,
                _ => return Err(SealError::Tampered(id.clone())),
            }
        }
        if good >= anchors.threshold.max(1) {
            Ok(())
        } else {
            let signers = self.signatures.keys().cloned().collect::<Vec<_>>().join(", ");
            Err(SealError::Threshold { good, threshold: anchors.threshold.max(1), signers })
        }
    }

    /// Opens a policy: signatures, threshold, expiry, version above the one in force.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold; the policy in force stays.
    pub fn open_policy(
        &self,
        anchors: &TrustAnchors,
        now: Timestamp,
        in_force: u64,
    ) -> Result<Verified<crate::Policy>, SealError> {
        self.check_signatures("policy", anchors)?;
        if self.expires <= now {
            return Err(SealError::Expired(self.expires));
        }
        if self.version <= in_force {
            return Err(SealError::RolledBack { found: self.version, in_force });
        }
        self.reopen_policy(anchors)
    }

    /// Opens a policy that was already adopted once: signatures and threshold, but neither expiry nor version.
    ///
    /// An expired policy stays in force (it is reported as frozen): a lapse never opens what was shut.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold.
    pub fn reopen_policy(
        &self,
        anchors: &TrustAnchors,
    ) -> Result<Verified<crate::Policy>, SealError> {
        self.check_signatures("policy", anchors)?;
        let unreadable = |why: String| SealError::Payload { kind: "policy".to_owned(), why };
        let bytes = self.payload_bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let mut policy =
            crate::Policy::parse(text).map_err(|error| unreadable(error.to_string()))?;
        if policy.version != self.version {
            return Err(unreadable(format!(
                "it says version {}, its envelope {}",
                policy.version, self.version
            )));
        }
        policy.expires = Some(self.expires);
        Ok(Verified::sealed(policy))
    }
}

impl<T> Verified<T> {
    /// A document from a place where no seal can be asked for.
    #[must_use]
    pub const fn locally(document: T, from: Local) -> Self {
        Self { document, from: Some(from) }
    }

    /// A document whose seal was checked.
    const fn sealed(document: T) -> Self {
        Self { document, from: None }
    }

    /// Whether a seal was checked; else it comes from a place where none can be asked for.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.from.is_none()
    }

    /// The document.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.document
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.document
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn policy(version: u64) -> String {
        format!(
            "schema = \"sekisho.policy/1\"\nversion = {version}\nmode = \"enforce\"\n[duty]\ngroup = \"web\"\nowner = \"a\"\ndeputy = \"b\"\n"
        )
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn sealed(version: u64, expires: Timestamp) -> Sealed {
        Sealed::wrap("policy", version, expires, policy(version).as_bytes())
    }

    fn later() -> Timestamp {
        NOW.after(Span::from_hours(24))
    }

    #[test]
    fn a_policy_signed_by_enough_anchors_opens() {
        let anchors = TrustAnchors::new([key(1).verifying_key(), key(2).verifying_key()], 2);
        let envelope =
            Sealed::parse(&sealed(7, later()).signed_by(&key(1)).signed_by(&key(2)).to_text())
                .unwrap();
        assert_eq!(envelope.open_policy(&anchors, NOW, 6).unwrap().version, 7);
    }

    #[test]
    fn unsigned_foreign_too_few_changed_expired_and_older_are_refused() {
        let anchors = TrustAnchors::new([key(1).verifying_key(), key(2).verifying_key()], 2);
        let open = |envelope: &Sealed| envelope.open_policy(&anchors, NOW, 6).unwrap_err().reason();
        assert_eq!(open(&sealed(7, later())), "unsigned");
        assert_eq!(open(&sealed(7, later()).signed_by(&key(9))), "threshold");
        assert_eq!(open(&sealed(7, later()).signed_by(&key(1))), "threshold");
        let good = sealed(7, later()).signed_by(&key(1)).signed_by(&key(2));
        assert_eq!(open(&Sealed { version: 8, ..good.clone() }), "tampered");
        assert_eq!(
            open(&Sealed { expires: later().after(Span::from_secs(1)), ..good }),
            "tampered"
        );
        assert_eq!(open(&sealed(7, NOW).signed_by(&key(1)).signed_by(&key(2))), "expired");
        assert_eq!(open(&sealed(6, later()).signed_by(&key(1)).signed_by(&key(2))), "rollback");
    }

    #[test]
    fn without_any_anchor_nothing_is_believed() {
        assert_eq!(
            sealed(7, later())
                .signed_by(&key(1))
                .open_policy(&TrustAnchors::new([], 0), NOW, 0)
                .unwrap_err()
                .reason(),
            "threshold"
        );
    }

    #[test]
    fn a_policy_once_adopted_opens_again_after_its_expiry() {
        let anchors = TrustAnchors::new([key(1).verifying_key()], 1);
        assert!(sealed(7, NOW).signed_by(&key(1)).reopen_policy(&anchors).is_ok());
    }
}
