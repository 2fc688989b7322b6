//! PlugX beyond the first bytes of a stream: HTTP, cookies, datagrams, DNS, dead drops, the local
//! network and bare IP. Enters: observations. Leaves: signals. Must not know: policy, modes, cuts.

mod cookie;
mod deaddrop;
mod dialogue;
mod dns;
mod http;
mod letters;
mod message;
mod p2p;
mod rawip;
mod udp;

#[cfg(test)]
mod forge;
#[cfg(test)]
mod scene;

use super::registry::{Registration, Weight, reads};

/// The detectors of this family.
pub(super) const DETECTORS: &[Registration] = &[
    Registration {
        id: http::PLUGX_HTTP,
        reads: reads::REQUEST | reads::RESPONSE,
        weight: Weight::Decides,
        build: http::build,
    },
    Registration {
        id: cookie::PLUGX_COOKIE,
        reads: reads::REQUEST,
        weight: Weight::Decides,
        build: cookie::build,
    },
    Registration {
        id: udp::PLUGX_UDP,
        reads: reads::DATAGRAM,
        weight: Weight::Decides,
        build: udp::build,
    },
    Registration {
        id: dns::PLUGX_DNS,
        reads: reads::MESSAGE,
        weight: Weight::Decides,
        build: dns::build,
    },
    Registration {
        id: deaddrop::PLUGX_DEADDROP,
        reads: reads::RESPONSE | reads::STARTED,
        weight: Weight::Scores,
        build: deaddrop::build,
    },
    Registration {
        id: p2p::PLUGX_P2P,
        reads: reads::STARTED | reads::ANY_STREAM | reads::DATAGRAM,
        weight: Weight::Scores,
        build: p2p::build,
    },
    Registration {
        id: rawip::PLUGX_RAWIP,
        reads: reads::STARTED | reads::OTHER | reads::ECHO,
        weight: Weight::Decides,
        build: rawip::build,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Grade;
    use sekisho_schema::pack::{DetectorEntry, RulePack};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    fn shipped() -> Vec<DetectorEntry> {
        let packs = crate::packs::shipped_packs();
        let (_, text) = packs.iter().find(|(name, _)| *name == "plugx.toml").unwrap();
        RulePack::parse(text).unwrap().detector
    }

    /// Every constant is written out in the pack, and is the built-in one.
    fn same<T: Debug + Default + DeserializeOwned + PartialEq + Serialize>(id: &str) {
        let entry = shipped().into_iter().find(|entry| entry.id == id).unwrap();
        assert_eq!(entry.settings_as::<T>().unwrap(), T::default(), "{id}");
        let written: Vec<String> = entry.settings.keys().cloned().collect();
        let known = serde_json::to_value(T::default()).unwrap();
        let mut known: Vec<String> = known.as_object().unwrap().keys().cloned().collect();
        known.sort();
        assert_eq!(written, known, "{id}");
    }

    #[test]
    fn the_shipped_constants_are_the_built_in_ones() {
        same::<cookie::CookieSettings>(cookie::PLUGX_COOKIE);
        same::<deaddrop::DeadDropSettings>(deaddrop::PLUGX_DEADDROP);
        same::<dns::DnsSettings>(dns::PLUGX_DNS);
        same::<http::HttpSettings>(http::PLUGX_HTTP);
        same::<p2p::SweepSettings>(p2p::PLUGX_P2P);
        same::<rawip::RawIpSettings>(rawip::PLUGX_RAWIP);
        same::<udp::UdpSettings>(udp::PLUGX_UDP);
    }

    #[test]
    fn every_detector_is_shipped_with_the_grade_of_its_weight() {
        for registration in DETECTORS {
            let entry = shipped().into_iter().find(|entry| entry.id == registration.id).unwrap();
            let grade = match registration.weight {
                Weight::Decides => Grade::Malicious,
                Weight::UpTo(_) | Weight::Scores => Grade::Suspect,
            };
            assert_eq!(entry.grade, grade, "{}", registration.id);
            assert!(!entry.source.is_empty());
        }
    }
}
