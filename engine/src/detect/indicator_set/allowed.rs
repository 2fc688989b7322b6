//! What the operator declares good, above every pack and list.

use super::Kind;
use ipnet::IpNet;
use sekisho_schema::intel::{CertificateHash, Observable, ParseObservableError};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    networks: Vec<IpNet>,
    endpoints: BTreeSet<SocketAddr>,
    names: BTreeSet<String>,
    exact_names: BTreeSet<String>,
    urls: BTreeSet<String>,
    url_prefixes: BTreeSet<String>,
    ja3: BTreeSet<[u8; 16]>,
    ja4: BTreeSet<String>,
    certificates: BTreeSet<CertificateHash>,
    user_agents: BTreeSet<String>,
}

impl Allowed {
    /// Adds an entry; whether it is one.
    pub(super) fn add(&mut self, text: &str) -> bool {
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            self.networks.push(network);
            return true;
        }
        match Observable::parse(text) {
            Ok(Observable::Address(address)) => self.networks.push(address.into()),
            Ok(Observable::Certificate(hash)) => _ = self.certificates.insert(hash),
            Ok(Observable::Domain { name, exact: false }) => {
                _ = self.names.insert(name.into_owned())
            }
            Ok(Observable::Domain { name, exact: true }) => {
                self.exact_names.insert(name.into_owned());
            }
            Ok(Observable::Endpoint(end)) => _ = self.endpoints.insert(end),
            Ok(Observable::Ja3(hash)) => _ = self.ja3.insert(hash),
            Ok(Observable::Ja4(text)) => _ = self.ja4.insert(text.into_owned()),
            Ok(Observable::Network(network)) => self.networks.push(network),
            Ok(Observable::Url(url)) => {
                let prefixes = url.is_prefix();
                let kept = if prefixes { &mut self.url_prefixes } else { &mut self.urls };
                kept.insert(url.as_str().to_owned());
            }
            Ok(Observable::UserAgent(text)) => _ = self.user_agents.insert(text.into_owned()),
            // To let everything of a registry pass is the operator's business.
            Err(ParseObservableError::Registry) => {
                self.names.insert(text.trim_matches('.').to_ascii_lowercase());
            }
            Err(_) => return false,
        }
        true
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    pub(super) fn has_endpoint(&self, end: &SocketAddr) -> bool {
        self.has_address(end.ip()) || self.endpoints.contains(end)
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.exact_names.contains(name)
            || super::suffixes(name).any(|(suffix, _)| self.names.contains(suffix))
    }

    /// Whether a request is allowed: its host, itself with or without the query, or what is above it.
    pub(super) fn has_url(&self, host: &str, url: &str) -> bool {
        let plain = url.split_once('?').map_or(url, |(plain, _)| plain);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        self.has_name(host)
            || address.is_ok_and(|address| self.has_address(address))
            || self.urls.contains(url)
            || self.urls.contains(plain)
            || self.url_prefixes.iter().any(|prefix| url.starts_with(prefix.as_str()))
    }

    pub(super) fn has(&self, kind: Kind, bytes: &[u8]) -> bool {
        let text = || std::str::from_utf8(bytes).unwrap_or_default();
        match kind {
            Kind::Ja3 => bytes.try_into().is_ok_and(|hash: [u8; 16]| self.ja3.contains(&hash)),
            Kind::Ja4 => self.ja4.contains(text()),
            Kind::Certificate => self.certificates.iter().any(|hash| hash.bytes() == bytes),
            Kind::UserAgent => self.user_agents.contains(text()),
            Kind::Address | Kind::Domain | Kind::Endpoint | Kind::Network | Kind::Url => false,
        }
    }
}
