//! TLS: who the collector must be, and who we are.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sekisho_schema::sealed::hex;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is not what it should be.
    #[error("cannot read {what}: {why}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The library refuses keys or certificates.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// The SHA-256 of a certificate authority's public key (SubjectPublicKeyInfo in DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// Why a text is not a pin.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not a CA pin: sha256: and 64 hexadecimal digits, as `sekisho-collector init` prints it"
)]
pub struct ParsePinError(String);

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let refuse = || ParsePinError(text.to_owned());
        let digits =
            text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or_else(refuse)?;
        let mut pin = [0_u8; 32];
        for (byte, pair) in pin.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(refuse)?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl Pin {
    /// The pin of a certificate.
    ///
    /// # Errors
    /// When the certificate can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self(Sha256::digest(parsed.subject_public_key_info()).into()))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS for an enrolled agent: the collector must chain to our CA, and we show our certificate.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(ca: &str, certificate: &str, key: &str) -> Result<ClientConfig, TlsError> {
    let pem = |what| {
        move |error: rustls::pki_types::pem::Error| TlsError::Pem { what, why: error.to_string() }
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(ca).map_err(pem("the CA certificate"))? {
        roots.add(root)?;
    }
    let chain = certificates(certificate).map_err(pem("the agent's certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem("the agent's key"))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(rustls::pki_types::pem::Error::NoItemsFound) } else { Ok(found) }
}

/// TLS for the very first handshake: nothing is known of the collector but the pin of its CA.
///
/// # Errors
/// [`TlsError`].
pub fn pinned_config(pin: Pin) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = Arc::new(PinnedVerifier { pin, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Believes a server whose chain ends in the pinned CA, and checks everything else as usual.
#[derive(Debug)]
struct PinnedVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned =
            others.iter().find(|certificate| Pin::of(certificate).is_ok_and(|pin| pin == self.pin));
        let Some(pinned) = pinned else {
            let shown: Vec<String> = others
                .iter()
                .filter_map(|certificate| Pin::of(certificate).ok())
                .map(|pin| pin.to_string())
                .collect();
            let shown = if shown.is_empty() { "no CA at all".to_owned() } else { shown.join(", ") };
            return Err(rustls::Error::General(format!(
                "the collector's CA is not the pinned one: it showed {shown}, the pin is {}",
                self.pin
            )));
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
