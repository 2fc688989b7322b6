//! Who may shake hands: agents of ours that were not denied; also those whose certificate ended a while ago, so that
//! a host that was cut off for weeks can still renew it by the key that it has.

use super::room::Room;
use crate::clock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sekisho_schema::Span;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long after its end a certificate may still be shown, to be renewed and for nothing else
/// (control-plane.md, section 5).
pub(super) const GRACE: Span = Span::from_hours(24 * 90);

/// Checks the certificates that agents show.
pub(super) struct Doorkeeper {
    room: Arc<Room>,
    usual: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").field("usual", &self.usual).finish_non_exhaustive()
    }
}

impl Doorkeeper {
    pub(super) fn new(room: Arc<Room>, usual: Arc<dyn ClientCertVerifier>) -> Self {
        Self { room, usual }
    }

    /// A certificate that has ended is checked as of its last second, when that is not too long ago.
    fn as_of_its_end(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        refusal: Error,
    ) -> Result<ClientCertVerified, Error> {
        // What it says of itself is not believed before it is verified: it only chooses the time to verify at.
        let Some(shown) = self.room.authority.shown(leaf) else { return Err(refusal) };
        let now = clock::now();
        if shown.until > now || now.since(shown.until) > GRACE {
            return Err(refusal);
        }
        let seconds = u64::try_from(shown.until.seconds()).unwrap_or(0).saturating_sub(1);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.usual.verify_client_cert(leaf, others, at)
    }
}

impl ClientCertVerifier for Doorkeeper {
    fn offer_client_auth(&self) -> bool {
        self.usual.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.usual.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.usual.verify_client_cert(leaf, others, now) {
            Err(
                refusal @ Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ),
            ) => self.as_of_its_end(leaf, others, refusal),
            other => other,
        }?;
        let agent = self.room.authority.agent_of(leaf);
        if agent.is_some_and(|agent| self.room.denied.borrow().contains(&agent)) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
