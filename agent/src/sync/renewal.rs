//! Our certificate is renewed in time: over the present one, with a new key, at half to two thirds of its life.

use super::http::{HttpError, Link};
use super::identity::Identity;
use super::tls::{TlsError, client_config};
use crate::clock;
use crate::state::StoreError;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sekisho_schema::{Span, Timestamp};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The share of its life after which a certificate is renewed at the earliest, in percent (control-plane.md, section 5).
const EARLIEST: i64 = 50;
/// The share at the latest, in percent.
const LATEST: i64 = 67;
/// A renewal that failed is tried again after this share of the certificate's life, in percent; at most each hour.
const AGAIN: i64 = 5;

/// Why a certificate could not be renewed; the present one stays.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The present certificate can't be read.
    #[error("cannot read the present certificate: {0}")]
    Present(String),
    /// No key or request could be made.
    #[error("cannot make a key and a certificate request")]
    Request(#[from] rcgen::Error),
    /// The collector could not be asked, or said no.
    #[error("cannot ask for a certificate")]
    Http(#[from] HttpError),
    /// What came back is not a certificate for the new key.
    #[error("the collector's answer is not a certificate for us: {0}")]
    Answer(String),
    /// What came back can't be used.
    #[error("cannot use the new certificate")]
    Tls(#[from] TlsError),
    /// It could not be kept.
    #[error("cannot keep the new certificate")]
    Keep(#[from] StoreError),
}

/// From when until when a certificate counts, and when it shall be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: Timestamp,
    until: Timestamp,
    /// Drawn from the certificate itself: agents that enrolled together do not renew together, and a restart
    /// changes nothing.
    draw: u16,
}

impl Validity {
    /// Of a certificate in PEM.
    ///
    /// # Errors
    /// [`RenewError::Present`].
    pub fn of(pem: &str) -> Result<Self, RenewError> {
        let fail = |why: String| RenewError::Present(why);
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| fail(error.to_string()))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|error| fail(error.to_string()))?;
        let at = |seconds| Timestamp::EPOCH.after(Span::from_secs(seconds));
        let validity = certificate.validity();
        let hash = Sha256::digest(&der);
        let draw = hash.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        Ok(Self {
            from: at(validity.not_before.timestamp()),
            until: at(validity.not_after.timestamp()),
            draw,
        })
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    const fn life(&self) -> Span {
        self.until.since(self.from)
    }

    /// When it shall be renewed.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        let percent = self.life().nanos() / 100;
        let jitter = percent * (LATEST - EARLIEST) / i64::from(u16::MAX) * i64::from(self.draw);
        self.from.after(Span::from_nanos(percent * EARLIEST + jitter))
    }

    /// How long a renewal that failed waits.
    #[must_use]
    pub fn again(&self) -> Span {
        Span::from_nanos(self.life().nanos() / 100 * AGAIN)
            .min(Span::from_secs(3600))
            .max(Span::from_secs(1))
    }
}

#[derive(Deserialize)]
struct Answer {
    certificate: String,
}

/// Renews the certificate of the identity in `dir` over a connection made with it, and keeps the new one.
///
/// # Errors
/// [`RenewError`].
pub async fn renew(link: &Link, dir: &Path, present: &Identity) -> Result<Identity, RenewError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.pem()?;
    let answer = link.post("/v1/renew", serde_json::json!({"csr": csr}).to_string()).await?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|error| RenewError::Answer(error.to_string()))?;
    let fresh =
        Identity { key: key.serialize_pem(), certificate: answer.certificate, ..present.clone() };
    // That certificate and key fit is checked by this too.
    client_config(&fresh.ca, &fresh.certificate, &fresh.key)?;
    let validity = Validity::of(&fresh.certificate)?;
    if validity.until() <= clock::now() {
        return Err(RenewError::Answer(format!("it ended at {}", validity.until())));
    }
    fresh.replace(dir)?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_due_between_half_and_two_thirds_of_the_life_and_not_for_all_at_once() {
        let day = Span::from_hours(24);
        let validity = |draw| Validity {
            from: Timestamp::EPOCH,
            until: Timestamp::EPOCH.after(Span::from_hours(24 * 30)),
            draw,
        };
        let earliest = validity(0).due().since(Timestamp::EPOCH);
        let latest = validity(u16::MAX).due().since(Timestamp::EPOCH);
        assert_eq!(earliest, Span::from_nanos(day.nanos() * 15));
        assert!(latest > Span::from_nanos(day.nanos() * 20), "{latest}");
        assert!(latest <= Span::from_nanos(day.nanos() * 30 / 100 * 67), "{latest}");
        assert_eq!(validity(0).again(), Span::from_secs(3600));
    }
}
