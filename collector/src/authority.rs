//! Our own certificate authority: who the server is, and who an agent is.
//!
//! An agent brings a key and nothing else; its name is the collector's choice. Server and
//! agent certificates carry different extended key usages, so that one can't pass for the other.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sekisho_schema::sealed::hex;
use sekisho_schema::{Span, Timestamp};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Life of an agent's certificate: long enough for a host that is cut off for weeks (control-plane.md, decision 11).
pub const AGENT_LIFE: Span = Span::from_hours(24 * 30);
/// Life of the server's certificate.
pub const SERVER_LIFE: Span = Span::from_hours(24 * 397);
/// What must be left of the server's certificate at start, else a new one is made.
pub const SERVER_RENEWAL: Span = Span::from_hours(24 * 90);
/// Life of the authority's own certificate.
const CA_LIFE: Span = Span::from_hours(24 * 3650);
/// Clocks of agents may be this far behind ours.
const SKEW: Span = Span::from_hours(1);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The organisation can't be part of a SPIFFE id.
    #[error(
        "\"{0}\" can't name an organisation: use lower-case letters, digits, dots and hyphens, at most 200"
    )]
    Organisation(String),
    /// A name or address can't stand in a certificate.
    #[error("\"{0}\" can't stand in the server's certificate")]
    Name(String),
    /// The request of an agent is not one, or its signature does not show possession of the key.
    #[error("the certificate request can't be used: {0}")]
    Request(String),
    /// The library refused.
    #[error("cannot make or read a certificate: {0}")]
    Make(String),
}

/// A key pair with its certificate, both as PEM.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The secret key.
    pub key: String,
}

/// A certificate for an agent.
#[derive(Debug)]
pub struct AgentCertificate {
    /// The certificate as PEM.
    pub pem: String,
    /// When it ends.
    pub until: Timestamp,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), in hexadecimal.
    pub spki: String,
}

/// What a certificate of an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentShown {
    /// The agent.
    pub agent: String,
    /// SHA-256 of its public key, in hexadecimal.
    pub spki: String,
    /// When it ends.
    pub until: Timestamp,
}

/// The certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    organisation: String,
}

fn make(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}

fn params(name: &str, now: Timestamp, life: Span) -> CertificateParams {
    let at = |time: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(time.seconds()).unwrap_or(0))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // A short life keeps a short past: what is renewed at half of its life would else be due at birth.
    params.not_before = at(now.before(SKEW.min(Span::from_nanos(life.nanos() / 10))));
    params.not_after = at(now.after(life));
    params
}

/// Checks that an organisation can be the trust domain of a SPIFFE id.
///
/// # Errors
/// When it can't.
pub fn check_organisation(name: &str) -> Result<(), AuthorityError> {
    let fits = !name.is_empty()
        && name.len() <= 200
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
    if fits { Ok(()) } else { Err(AuthorityError::Organisation(name.to_owned())) }
}

impl Authority {
    /// Makes the certificate and key of a new authority.
    ///
    /// # Errors
    /// When the organisation's name does not fit or the library refuses.
    pub fn create(organisation: &str, now: Timestamp) -> Result<Identity, AuthorityError> {
        check_organisation(organisation)?;
        let mut params = params(&format!("Sekisho collector CA of {organisation}"), now, CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.self_signed(&key).map_err(make)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Takes up an authority from its files' texts.
    ///
    /// # Errors
    /// When one of them can't be read.
    pub fn open(
        organisation: &str,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<Self, AuthorityError> {
        check_organisation(organisation)?;
        let key = KeyPair::from_pem(key_pem).map_err(make)?;
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(make)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(make)?;
        Ok(Self {
            issuer,
            certificate,
            pem: certificate_pem.to_owned(),
            organisation: organisation.to_owned(),
        })
    }

    /// The authority's certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The pin of the authority: `sha256:` and the SHA-256 of its public key (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// When the certificate can't be read.
    pub fn pin(&self) -> Result<String, AuthorityError> {
        pin(&self.certificate)
    }

    /// Makes the server's certificate for these names and addresses, and for this host itself.
    ///
    /// # Errors
    /// When a name does not fit or the library refuses.
    pub fn issue_server(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<Identity, AuthorityError> {
        let mut params = params("sekisho-collector", now, SERVER_LIFE);
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for name in names.iter().map(String::as_str).chain(["localhost"]) {
            let name = SanType::DnsName(
                name.try_into().map_err(|_| AuthorityError::Name(name.to_owned()))?,
            );
            params.subject_alt_names.push(name);
        }
        params
            .subject_alt_names
            .extend(addresses.iter().chain(&loopback).map(|address| SanType::IpAddress(*address)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Makes a certificate for an agent: from its request only the key is taken.
    ///
    /// # Errors
    /// When the request is not one or does not show possession of its key.
    pub fn issue_agent(
        &self,
        request_pem: &str,
        agent: &str,
        life: Span,
        now: Timestamp,
    ) -> Result<AgentCertificate, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        let mut params = params(agent, now, life);
        let id = format!("spiffe://{}/agent/{agent}", self.organisation);
        params.subject_alt_names = vec![SanType::URI(
            id.as_str().try_into().map_err(|_| AuthorityError::Name(id.clone()))?,
        )];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(make)?;
        let (_, read) = X509Certificate::from_der(certificate.der()).map_err(make)?;
        let spki = hex(&Sha256::digest(read.public_key().raw));
        Ok(AgentCertificate { pem: certificate.pem(), until: now.after(life), spki })
    }

    /// The agent that a certificate, already verified against this authority, names.
    #[must_use]
    pub fn agent_of(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        self.shown(certificate).map(|shown| shown.agent)
    }

    /// What a certificate, already verified against this authority, says of an agent.
    #[must_use]
    pub fn shown(&self, certificate: &CertificateDer<'_>) -> Option<AgentShown> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let spki = hex(&Sha256::digest(certificate.public_key().raw));
        let until =
            Timestamp::EPOCH.after(Span::from_secs(certificate.validity().not_after.timestamp()));
        let prefix = format!("spiffe://{}/agent/", self.organisation);
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri
                .strip_prefix(&prefix)
                .filter(|id| {
                    !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
                })
                .map(|agent| AgentShown { agent: agent.to_owned(), spki: spki.clone(), until }),
            _ => None,
        })
    }
}

/// The pin of a certificate: `sha256:` and the SHA-256 of its public key (SubjectPublicKeyInfo).
///
/// # Errors
/// When the certificate can't be read.
pub fn pin(certificate: &CertificateDer<'_>) -> Result<String, AuthorityError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(make)?;
    Ok(format!("sha256:{}", hex(&Sha256::digest(certificate.public_key().raw))))
}

/// When a certificate in PEM ends.
///
/// # Errors
/// When the certificate can't be read.
pub fn ends(pem: &str) -> Result<Timestamp, AuthorityError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(make)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(make)?;
    Ok(Timestamp::EPOCH.after(Span::from_secs(certificate.validity().not_after.timestamp())))
}

/// Reads the certificate and key of the server for its listener.
///
/// # Errors
/// When one of them can't be read.
pub fn read_identity(
    identity: &Identity,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
    let certificate =
        CertificateDer::from_pem_slice(identity.certificate.as_bytes()).map_err(make)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(make)?;
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn authority() -> Authority {
        let identity = Authority::create("example.org", NOW).unwrap();
        Authority::open("example.org", &identity.certificate, &identity.key).unwrap()
    }

    #[test]
    fn the_pin_is_the_hash_of_the_authoritys_public_key() {
        let identity = Authority::create("example.org", NOW).unwrap();
        let authority =
            Authority::open("example.org", &identity.certificate, &identity.key).unwrap();
        let key = KeyPair::from_pem(&identity.key).unwrap();
        let expected = format!("sha256:{}", hex(&Sha256::digest(key.subject_public_key_info())));
        assert_eq!(authority.pin().unwrap(), expected);
        assert_eq!(expected.len(), 7 + 64);
    }

    #[test]
    fn the_agents_name_is_the_collectors_choice_whatever_the_request_says() {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::new(vec!["collector.example".to_owned()]).unwrap();
        wish.subject_alt_names
            .push(SanType::URI("spiffe://example.org/agent/00000000-dead".try_into().unwrap()));
        wish.is_ca = IsCa::NoCa;
        let request = wish.serialize_request(&key).unwrap().pem().unwrap();
        let issued = authority
            .issue_agent(&request, "0a1b2c3d-0000-4000-8000-000000000001", AGENT_LIFE, NOW)
            .unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        assert_eq!(authority.agent_of(&der).unwrap(), "0a1b2c3d-0000-4000-8000-000000000001");
        let (_, read) = X509Certificate::from_der(&der).unwrap();
        assert!(!issued.pem.contains("dead") && !read.is_ca());
        assert_eq!(read.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert_eq!(read.public_key().raw, key.subject_public_key_info());
        assert_eq!(ends(&issued.pem).unwrap(), NOW.after(AGENT_LIFE));
    }

    #[test]
    fn the_servers_certificate_names_no_agent() {
        let authority = authority();
        let server = authority
            .issue_server(&["collector.example".to_owned()], &["192.0.2.7".parse().unwrap()], NOW)
            .unwrap();
        assert_eq!(authority.agent_of(&read_identity(&server).unwrap().0), None);
    }

    #[test]
    fn a_request_that_does_not_prove_its_key_is_refused() {
        assert!(matches!(
            authority().issue_agent(
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
                "0a",
                AGENT_LIFE,
                NOW
            ),
            Err(AuthorityError::Request(_))
        ));
        assert!(check_organisation("Bad Org/agent").is_err() && check_organisation("").is_err());
    }
}
