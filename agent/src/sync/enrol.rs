//! Enrolment: a token and a pin become an identity and trust anchors.

use super::http::{HttpError, Link};
use super::identity::Identity;
use super::orders::keep_operators;
use super::tls::{Pin, TlsError, client_config, pinned_config};
use crate::state::{StoreError, private_dir, write_atomically};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sekisho_schema::sealed::{key_id, parse_public};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an agent could not be enrolled; nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No key or request could be made.
    #[error("cannot make a key and a certificate request")]
    Request(#[from] rcgen::Error),
    /// TLS.
    #[error("cannot set up the first handshake")]
    Tls(#[from] TlsError),
    /// The collector could not be asked, or said no.
    #[error("cannot enrol")]
    Http(#[from] HttpError),
    /// What came back is not an enrolment.
    #[error("the collector's answer is not an enrolment: {0}")]
    Answer(String),
    /// It could not be kept.
    #[error("enrolled at the collector and not kept here")]
    Keep(#[from] StoreError),
    /// A directory could not be made or read.
    #[error("cannot make directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What an enrolment gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// The agent's id at the collector.
    pub id: String,
    /// Ids of the trust anchors received.
    pub anchors: Vec<String>,
    /// How many of them must have signed.
    pub threshold: usize,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    certificate: String,
    ca: String,
    trust: Vec<String>,
    threshold: usize,
    #[serde(default)]
    operators: Vec<OperatorKey>,
}

#[derive(Deserialize)]
struct OperatorKey {
    name: String,
    key: String,
}

/// Enrols this host.
///
/// # Errors
/// [`EnrolError`].
pub async fn enrol(
    url: &str,
    token: &str,
    pin: Pin,
    host: &str,
    identity: &Path,
    trust: &Path,
) -> Result<Enrolled, EnrolError> {
    private_dir(identity)
        .map_err(|source| EnrolError::Directory { path: identity.to_owned(), source })?;
    std::fs::create_dir_all(trust)
        .map_err(|source| EnrolError::Directory { path: trust.to_owned(), source })?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, host);
    params.distinguished_name = name;
    let csr = params.serialize_request(&key)?.pem()?;
    let link = Link::connect(url, Arc::new(pinned_config(pin)?)).await?;
    let request = serde_json::json!({"token": token, "host": host, "csr": csr});
    let answer: Answer =
        serde_json::from_slice(&link.post("/v1/enroll", request.to_string()).await?)
            .map_err(|error| EnrolError::Answer(error.to_string()))?;
    let ca = CertificateDer::from_pem_slice(answer.ca.as_bytes())
        .map_err(|error| EnrolError::Answer(format!("ca: {error}")))?;
    if !Pin::of(&ca).is_ok_and(|found| found == pin) {
        return Err(EnrolError::Answer("its CA is not the pinned one".to_owned()));
    }
    client_config(&answer.ca, &answer.certificate, &key.serialize_pem())?;
    let anchors = keep_anchors(trust, &answer.trust, answer.threshold)?;
    let operators: Vec<(String, String)> =
        answer.operators.into_iter().map(|operator| (operator.name, operator.key)).collect();
    keep_operators(trust, &operators)?;
    let kept = Identity {
        id: answer.id.clone(),
        url: url.to_owned(),
        key: key.serialize_pem(),
        certificate: answer.certificate,
        ca: answer.ca,
    };
    kept.store(identity)?;
    Ok(Enrolled { id: answer.id, anchors, threshold: answer.threshold.max(1) })
}

fn keep_anchors(
    trust: &Path,
    texts: &[String],
    threshold: usize,
) -> Result<Vec<String>, EnrolError> {
    let mut keys = Vec::new();
    for text in texts {
        let key =
            parse_public(text).map_err(|error| EnrolError::Answer(format!("trust: {error}")))?;
        keys.push((key_id(&key), text.trim()));
    }
    // The threshold goes first: anchors without it would be too easily satisfied.
    write_atomically(
        &trust.join("threshold"),
        format!("{}\n", threshold.max(1)).as_bytes(),
        0o644,
    )?;
    for (id, text) in &keys {
        write_atomically(&trust.join(format!("{id}.pub")), format!("{text}\n").as_bytes(), 0o644)?;
    }
    Ok(keys.into_iter().map(|(id, _)| id).collect())
}
