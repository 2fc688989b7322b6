//! `c2.cobaltstrike`: what Cobalt Strike says in clear when its operator changed little.
//!
//! | sign | worth |
//! |---|---|
//! | the default certificate, by its hash (Elastic detection rules; Censys) | presented by the host itself: the pack's grade, may cut; by the other end: suspect |
//! | POST to a known profile's URI whose body is a chain of u32 BE lengths, each of 16-byte blocks, that ends with the body (VRT 45910; default profile) | the pack's grade, may cut |
//! | GET of a known profile's URI whose cookie holds exactly one 128-byte RSA block (default and Amazon profiles) | suspect, never cuts: a site can set such a cookie and redirect to itself |
//! | DNS stager `aaa.stage.` or `xyz.stage.` and eight digits (VRT 45906–8; Elastic) | suspect, never cuts: a page can make a browser ask for it |
//! | ten answers 0.0.0.0 with TTL 0 within 90 s to names `hex.zone` of one zone (ET 2026040) | suspect, never cuts |
//! | the EICAR text in a field `X-Malware` of an answer (trial builds) | suspect, never cuts |
//! | `GET /wxyz` whose letters sum to 92 or 93 (stager; dissect.cobaltstrike) | odd: 1 of 128 such requests by chance |
//! | JA4 of WinINet or WinHTTP without a server name | odd: every Windows program's own |
//!
//! A certificate is said by the server: its key comes with the program, so that anyone can present it
//! to a host that merely follows a link. What evades it: any certificate, profile or server name of one's own.
//!
//! Measured: the five clear captures of the Amazon profile are found at the first GET and at the
//! first POST; 0 findings of the signs that cut in the other public captures.

mod http;
mod names;

pub(super) use self::http::{parameters, path_and_query};

use self::http::{Profile, Sign};
use self::names::{Beacons, Staging};
use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, is_own_word, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::codec::hex_digit;
use super::framework::{Asked, ask, lesser};
use crate::app::dns::{AnswerData, DnsMessage};
use crate::app::hello::{Certificate, ClientHello};
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use sekisho_schema::finding::Direction;
use sekisho_schema::{Evidence, Grade, Span};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.cobaltstrike",
    reads: reads::REQUEST | reads::RESPONSE | reads::MESSAGE | reads::HELLO | reads::SERVER,
    weight: Weight::Decides,
    build: |setup| Ok(Box::new(CobaltStrike::new(setup)?)),
};

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct CobaltStrikeSettings {
    /// SHA-256 or SHA-1 of certificates, hexadecimal.
    certificates: Vec<String>,
    /// JA4 of the libraries that beacons use.
    client_hellos: Vec<String>,
    /// Sums of a stager's URI modulo 256.
    stager_sums: Vec<u8>,
    /// Answers 0.0.0.0 that are told, and the seconds within which they come.
    idle_answers: u8,
    idle_seconds: u32,
    /// Known profiles.
    profiles: Vec<Profile>,
}

impl Default for CobaltStrikeSettings {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            certificates: texts(&[
                "87f2085c32b6a2cc709b365f55873e207a9caa10bffecf2fd16d3cf9d94d390c",
                "64257fc0fac31c01a5ccd816c73ea86e639260da1604d04db869bb603c2886e6",
            ]),
            client_hellos: texts(&[
                "t12d190800_d83cc789557e_16bbda4055b2",
                "t12d210800_76e208dd3e22_16bbda4055b2",
            ]),
            stager_sums: vec![92, 93],
            idle_answers: 10,
            idle_seconds: 90,
            profiles: http::known(),
        }
    }
}

/// A certificate by its hash.
#[derive(Debug, PartialEq, Eq)]
enum Hash {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        let read = |into: &mut [u8]| {
            into.iter_mut().zip(text.as_bytes().as_chunks::<2>().0).all(|(byte, pair)| {
                let [high, low] = pair.map(hex_digit);
                high.zip(low).map(|(high, low)| *byte = high << 4 | low).is_some()
            })
        };
        let (mut sha1, mut sha256) = ([0; 20], [0; 32]);
        match text.len() {
            40 if read(&mut sha1) => Ok(Self::Sha1(sha1)),
            64 if read(&mut sha256) => Ok(Self::Sha256(sha256)),
            _ => Err(format!("\"{text}\" is no SHA-1 or SHA-256 in hexadecimal digits")),
        }
    }
}

#[derive(Debug)]
struct CobaltStrike {
    warrant: Warrant,
    suspect: Warrant,
    odd: Warrant,
    settings: CobaltStrikeSettings,
    certificates: Vec<Hash>,
    staging: Staging,
    beacons: Beacons,
}

impl CobaltStrike {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        let settings: CobaltStrikeSettings = setup.settings()?;
        let certificates =
            settings.certificates.iter().map(|text| Hash::parse(text)).collect::<Result<_, _>>()?;
        let within = Span::from_secs(i64::from(settings.idle_seconds));
        Ok(Self {
            warrant: setup.warrant.clone(),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            odd: lesser(&setup.warrant, Grade::Odd),
            certificates,
            staging: Staging::new(setup.seed),
            beacons: Beacons::new(settings.idle_answers, within, setup.seed),
            settings,
        })
    }

    fn observe_request(
        &self,
        o: &Observation<'_>,
        toward: Toward,
        head: &crate::app::http_head::RequestHead<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let sign = match http::examine(head, &self.settings.profiles, &self.settings.stager_sums) {
            http::Reading::More => return Appetite::More,
            http::Reading::Nothing => return Appetite::Enough,
            http::Reading::Found(sign) => sign,
        };
        let path = http::shown(head.target);
        let method = http::shown(head.method);
        let (warrant, what) = match sign {
            Sign::Metadata { profile } => (
                &self.suspect,
                format!(
                    "a beacon's check-in of Cobalt Strike's {profile} profile: the cookie of its GET holds exactly one 128-byte block in base64"
                ),
            ),
            Sign::Output { profile, chunks, bytes } => (
                &self.warrant,
                format!(
                    "a beacon's output of Cobalt Strike's {profile} profile: the body of {bytes} bytes is {chunks} messages with their lengths before them, all of whole 16-byte blocks"
                ),
            ),
            Sign::Stager { sum } => (
                &self.odd,
                format!(
                    "a request for a four-letter path whose letters sum to {sum} modulo 256, as stagers of Cobalt Strike ask; of other such requests 1 in 128 does"
                ),
            ),
        };
        let told = match toward {
            Toward::Remote => format!("{{host}} sent {{remote}} {what}."),
            Toward::Local => format!("{{remote}} sent {{host}} {what}."),
        };
        let evidence =
            vec![Evidence::new("header", [("method", method.into()), ("target", path.into())])];
        emit.push(warrant.pattern(o, is_own_word(toward), Pattern { told, evidence }));
        Appetite::Enough
    }

    fn observe_message(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        message: &DnsMessage<'_>,
        emit: &mut Vec<Signal>,
    ) {
        if let Some(Asked { host, who: [who, whom], question }) = ask(o) {
            let name = question.name.as_str();
            let Some(stage) = names::stage(name) else { return };
            let count = self.staging.count(host, &stage, o.at);
            let told = format!(
                "{who} asked {whom} for {name}, as Cobalt Strike's DNS stager asks for the payload piece by piece; pieces asked for so far: {count}."
            );
            self.tell_name(o, name, told, emit);
        } else if message.is_response() && toward == Toward::Local {
            let Some(question) = message.question() else { return };
            let name = question.name.as_str();
            let Some(zone) = names::beacon_zone(name) else { return };
            let mut answers = message.answers();
            let (Some(answer), None) = (answers.next(), answers.next()) else { return };
            if answer.data != AnswerData::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
                || answer.ttl != 0
            {
                return;
            }
            if let Some((count, seconds)) = self.beacons.count(o.flow.key.local.ip(), zone, o.at) {
                let told = format!(
                    "{{host}} was told 0.0.0.0 with TTL 0 for names of hexadecimal digits under {zone} {count} times within {seconds} s, as Cobalt Strike's DNS server answers an idle beacon."
                );
                self.tell_name(o, name, told, emit);
            }
        }
    }

    fn tell_name(&self, o: &Observation<'_>, name: &str, told: String, emit: &mut Vec<Signal>) {
        let shown: String = name.chars().take(64).collect();
        let evidence = vec![Evidence::new("name", [("name", shown.into())])];
        let mut signal = self.suspect.pattern(o, true, Pattern { told, evidence });
        // The resolver that was asked is not the team server.
        signal.target = None;
        signal.name = Some(name.to_owned());
        emit.push(signal);
    }

    fn observe_certificate(
        &self,
        o: &Observation<'_>,
        certificate: &Certificate<'_>,
        emit: &mut Vec<Signal>,
    ) {
        let found = self.certificates.iter().position(|hash| match hash {
            Hash::Sha1(hash) => *hash == certificate.sha1(),
            Hash::Sha256(hash) => *hash == certificate.sha256(),
        });
        let Some(text) = found.and_then(|at| self.settings.certificates.get(at)) else { return };
        let told = match o.flow.direction {
            Direction::Inbound => format!(
                "{{host}} presented Cobalt Strike's default certificate {text} to {{remote}}: it is a team server."
            ),
            _ => format!(
                "{{remote}} presented Cobalt Strike's default certificate {text} to {{host}}, which had asked for it."
            ),
        };
        let evidence = vec![Evidence::new("certificate", [("hash", text.as_str().into())])];
        // Whoever holds the published key can present it to any visitor: only as the host's own word
        // does it prove.
        let own = o.flow.direction == Direction::Inbound;
        emit.push(self.warrant.pattern(o, own, Pattern { told, evidence }));
    }

    fn observe_hello(&self, o: &Observation<'_>, hello: &ClientHello<'_>, emit: &mut Vec<Signal>) {
        if self.settings.client_hellos.is_empty() || hello.sni().is_some() {
            return;
        }
        let ja4 = hello.ja4();
        if self.settings.client_hellos.iter().any(|known| known == ja4.as_str()) {
            let told = format!(
                "{{host}} began TLS with {{remote}} without a server name and with the JA4 {}, which Windows' own libraries have, and Cobalt Strike's beacon with them.",
                ja4.as_str()
            );
            let evidence = vec![Evidence::new("fingerprint", [("ja4", ja4.as_str().into())])];
            emit.push(self.odd.pattern(o, true, Pattern { told, evidence }));
        }
    }
}

impl WireDetector for CobaltStrike {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        match o.kind {
            ObservationKind::Request { toward, head } => {
                return self.observe_request(o, toward, head, emit);
            }
            ObservationKind::Response { toward, head } if http::is_trial(head) => {
                let told = "{remote} answered {host} with the EICAR test text in the field X-Malware, which team servers of Cobalt Strike's trial send.".to_owned();
                let evidence = vec![Evidence::new("header", [("name", "X-Malware".into())])];
                let pattern = Pattern { told, evidence };
                emit.push(self.suspect.pattern(o, is_own_word(toward), pattern));
            }
            ObservationKind::Message { toward, message } => {
                self.observe_message(o, toward, message, emit);
            }
            ObservationKind::Certificate(certificate) => {
                self.observe_certificate(o, certificate, emit);
            }
            ObservationKind::Hello(hello) => self.observe_hello(o, hello, emit),
            _ => {}
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.staging.evicted() + self.beacons.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_settings_are_the_defaults() {
        let shipped: CobaltStrikeSettings = super::super::framework::shipped("c2.cobaltstrike");
        assert_eq!(shipped, CobaltStrikeSettings::default());
    }

    #[test]
    fn hashes_are_read_or_refused() {
        let sha1 = "6ece5ece4192683d2d84e25b0ba7e04f9cb7eb7c";
        assert!(matches!(Hash::parse(sha1), Ok(Hash::Sha1([0x6E, 0xCE, ..]))));
        for bad in ["", "6ece", &"zz".repeat(20), &"+1".repeat(32), &"é".repeat(20)] {
            assert!(Hash::parse(bad).is_err(), "{bad}");
        }
    }
}
