//! Episodes: a workload and a destination that is not in its baseline, watched for seven days, and
//! what each channel said of them at its highest.

use crate::net::Transport;
use crate::time::Timestamp;
use ipnet::IpNet;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One of the ways in which traffic to a destination can be remarkable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Hours of contact since the rhythm was proven.
    Rhythm,
    /// Hours of contact, with a rhythm or without.
    Persistence,
    /// Net payload bytes toward one destination in seven days.
    Allowance,
    /// Net payload bytes of a host toward all destinations outside its baseline in a day.
    HostBudget,
    /// Bytes of information in names below one registered domain.
    Dns,
    /// Upload to a destination of the baseline, against the largest of the 28 days before.
    Approved,
    /// All evidence about one destination, summed.
    Sum,
}

impl Channel {
    /// Every channel, in the order in which reports tell of them.
    pub const ALL: [Self; 7] = [
        Self::Rhythm,
        Self::Persistence,
        Self::Allowance,
        Self::HostBudget,
        Self::Dns,
        Self::Approved,
        Self::Sum,
    ];

    /// Its name in documents and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rhythm => "rhythm",
            Self::Persistence => "persistence",
            Self::Allowance => "allowance",
            Self::HostBudget => "host-budget",
            Self::Dns => "dns",
            Self::Approved => "approved",
            Self::Sum => "sum",
        }
    }

    /// The detector whose findings tell of it.
    #[must_use]
    pub const fn detector(self) -> &'static str {
        match self {
            Self::Rhythm => "behaviour.beacon",
            Self::Persistence => "behaviour.persistence",
            Self::Allowance => "behaviour.allowance",
            Self::HostBudget => "behaviour.host-budget",
            Self::Dns => "behaviour.dns-information",
            Self::Approved => "behaviour.volume",
            Self::Sum => "behaviour.sum",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a threshold unlocks, from the mildest to the hardest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// T0: a person is told. No promise stands behind it.
    Alert,
    /// T1: traffic to the destination is slowed and its upload bounded.
    Hold,
    /// T2: the destination is cut for every workload of the host.
    CutDestination,
    /// T3: the host's external egress is cut.
    IsolateHost,
}

impl Tier {
    /// Every tier, from the mildest.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Hold, Self::CutDestination, Self::IsolateHost];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Hold => "hold",
            Self::CutDestination => "cut-destination",
            Self::IsolateHost => "isolate-host",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text does not name a part of an episode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {expected}")]
pub struct ParseEpisodeError {
    text: String,
    expected: &'static str,
}

fn refuse(text: &str, expected: &'static str) -> ParseEpisodeError {
    ParseEpisodeError { text: text.to_owned(), expected }
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// A container, by its id.
    Container(Box<str>),
    /// The host itself: whose traffic it is could not be told.
    Host,
    /// A host of the inside, seen from a gateway.
    Inside(IpAddr),
    /// A program, by the path of its executable.
    Program(Box<str>),
    /// A systemd unit.
    Unit(Box<str>),
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Host => f.write_str("host"),
            Self::Inside(address) => write!(f, "inside:{address}"),
            Self::Program(path) => write!(f, "program:{path}"),
            Self::Unit(name) => write!(f, "unit:{name}"),
        }
    }
}

impl FromStr for Workload {
    type Err = ParseEpisodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || {
            refuse(text, "a workload: unit:NAME, container:ID, program:PATH, inside:ADDR or host")
        };
        if text == "host" {
            return Ok(Self::Host);
        }
        let (kind, value) = text.split_once(':').ok_or_else(refused)?;
        match kind {
            _ if value.is_empty() => Err(refused()),
            "container" => Ok(Self::Container(value.into())),
            "inside" => value.parse().map(Self::Inside).map_err(|_| refused()),
            "program" => Ok(Self::Program(value.into())),
            "unit" => Ok(Self::Unit(value.into())),
            _ => Err(refused()),
        }
    }
}

/// To whom it speaks, by the most lasting name that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKey {
    /// An autonomous system.
    Asn(u32),
    /// A registered domain that DNS, SNI or Host bound to the address; below a shared host the whole name.
    Domain(Box<str>),
    /// A network: /24 or /48 around the address.
    Network(IpNet),
    /// An object that policy names.
    Object(Box<str>),
}

impl DestinationKey {
    /// The network that stands for an address without a name: /24, or /48 of IPv6.
    #[must_use]
    pub fn network_of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 24 } else { 48 };
        Self::Network(
            IpNet::new(address, bits).map_or_else(|_| IpNet::from(address), |net| net.trunc()),
        )
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asn(number) => write!(f, "as{number}"),
            Self::Domain(name) => f.write_str(name),
            Self::Network(network) => write!(f, "{network}"),
            Self::Object(name) => write!(f, "object:{name}"),
        }
    }
}

impl FromStr for DestinationKey {
    type Err = ParseEpisodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(name) = text.strip_prefix("object:").filter(|name| !name.is_empty()) {
            return Ok(Self::Object(name.into()));
        }
        if let Some(number) = text.strip_prefix("as").and_then(|digits| digits.parse().ok()) {
            return Ok(Self::Asn(number));
        }
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::network_of(address));
        }
        let is_name = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/'));
        if is_name {
            Ok(Self::Domain(text.into()))
        } else {
            Err(refuse(text, "a destination: object:NAME, a domain, asNUMBER or a network"))
        }
    }
}

/// The class of a service's port: a client that hops over high ports stays one episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortClass {
    /// 1024 and above.
    High,
    /// The transport has no ports.
    None,
    /// Below 1024, by its number (RFC 6335, system ports).
    System(u16),
}

/// Which service it speaks to: transport and class of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The transport protocol.
    pub transport: Transport,
    /// The class of the remote port.
    pub port: PortClass,
}

impl Service {
    /// The service at a remote port; the port of a transport without ports is not looked at.
    #[must_use]
    pub const fn new(transport: Transport, port: u16) -> Self {
        let port = match transport {
            Transport::Tcp | Transport::Udp if port < 1024 => PortClass::System(port),
            Transport::Tcp | Transport::Udp => PortClass::High,
            Transport::Icmp | Transport::Icmpv6 | Transport::Other(_) => PortClass::None,
        };
        Self { transport, port }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            PortClass::High => write!(f, "{}/high", self.transport),
            PortClass::None => write!(f, "{}", self.transport),
            PortClass::System(port) => write!(f, "{}/{port}", self.transport),
        }
    }
}

impl FromStr for Service {
    type Err = ParseEpisodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || refuse(text, "a service: tcp/443, udp/high or icmp");
        let (name, port) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let transport = match name {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "icmp" => Transport::Icmp,
            "icmpv6" => Transport::Icmpv6,
            other => other
                .strip_prefix("ip-")
                .and_then(|number| number.parse().ok())
                .map(Transport::Other)
                .ok_or_else(refused)?,
        };
        let port = match (transport, port) {
            (Transport::Tcp | Transport::Udp, Some("high")) => PortClass::High,
            (Transport::Tcp | Transport::Udp, Some(number)) => {
                let number = number.parse().ok().filter(|number| *number < 1024);
                PortClass::System(number.ok_or_else(refused)?)
            }
            (Transport::Icmp | Transport::Icmpv6 | Transport::Other(_), None) => PortClass::None,
            _ => return Err(refused()),
        };
        Ok(Self { transport, port })
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}
as_text!(Workload);
as_text!(DestinationKey);
as_text!(Service);

/// What an episode is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeKey {
    /// Who speaks.
    pub workload: Workload,
    /// To whom.
    pub destination: DestinationKey,
    /// Which service.
    pub service: Service,
}

impl fmt::Display for EpisodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} ({})", self.workload, self.destination, self.service)
    }
}

/// What is odd about an episode's protocol, each free to see in the first payload or in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oddity {
    /// The first payload looks like random bytes.
    EncryptedFirstPayload,
    /// HTTP to a bare address.
    HttpToAddress,
    /// A workload's program that was never seen before.
    NewProcess,
    /// No name was asked for.
    NoName,
    /// TLS without a server name.
    NoServerName,
    /// Something else than TLS on port 443.
    NotTls443,
    /// A certificate that nobody else signed.
    SelfSigned,
}

impl Oddity {
    /// Every oddity.
    pub const ALL: [Self; 7] = [
        Self::EncryptedFirstPayload,
        Self::HttpToAddress,
        Self::NewProcess,
        Self::NoName,
        Self::NoServerName,
        Self::NotTls443,
        Self::SelfSigned,
    ];

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EncryptedFirstPayload => "encrypted-first-payload",
            Self::HttpToAddress => "http-to-address",
            Self::NewProcess => "new-process",
            Self::NoName => "no-name",
            Self::NoServerName => "no-server-name",
            Self::NotTls443 => "not-tls443",
            Self::SelfSigned => "self-signed",
        }
    }

    /// The term of the sum that it enters: of those of one term only the strongest counts.
    #[must_use]
    pub const fn term(self) -> &'static str {
        match self {
            Self::HttpToAddress | Self::NoName | Self::NoServerName => "name",
            Self::EncryptedFirstPayload | Self::NotTls443 => "crypto",
            Self::SelfSigned => "certificate",
            Self::NewProcess => "process",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::EncryptedFirstPayload => "its first payload looks like random bytes",
            Self::HttpToAddress => "it speaks HTTP to a bare address",
            Self::NewProcess => "its program was never seen before",
            Self::NoName => "no name was asked for",
            Self::NoServerName => "its TLS names no server",
            Self::NotTls443 => "it speaks something else than TLS on port 443",
            Self::SelfSigned => "the certificate is self-signed",
        }
    }
}

/// Names of inputs, so that a score can be recomputed from its record alone.
pub mod input {
    /// log10 of each of the six bets of the rhythm, at their highest together.
    pub const BETS: [&str; 6] = ["bet-1", "bet-2", "bet-3", "bet-4", "bet-5", "bet-6"];
    /// Distinct hours of the clock with contact since the rhythm was proven.
    pub const HOURS: &str = "hours";
    /// Hours with contact, a bit for each of the 24 hours of a day.
    pub const DAYS: [&str; 7] = ["day-1", "day-2", "day-3", "day-4", "day-5", "day-6", "day-7"];
    /// Payload bytes toward the destination.
    pub const UP: &str = "up";
    /// Payload bytes from the destination.
    pub const DOWN: &str = "down";
    /// Net payload bytes toward all destinations outside the baseline.
    pub const NET: &str = "net";
    /// Payload bytes answered on flows that the outside began.
    pub const ANSWERED: &str = "answered";
    /// Bytes of information in new names of the hour.
    pub const HOUR: &str = "hour";
    /// Bytes of information in new names of the day.
    pub const DAY: &str = "day";
    /// Upload of today, in bytes.
    pub const TODAY: &str = "today";
    /// The largest daily upload that is usual, in bytes.
    pub const TODAY_USUAL: &str = "today-usual";
    /// Upload of the last seven days, in bytes.
    pub const WEEK: &str = "week";
    /// The largest upload in seven days that is usual, in bytes.
    pub const WEEK_USUAL: &str = "week-usual";
    /// The terms of the sum, each -log10 of how often benign episodes look like that.
    pub const TERMS: [&str; 8] = [
        "rhythm",
        "active-hours",
        "upload",
        "prevalence",
        "name",
        "crypto",
        "certificate",
        "process",
    ];

    /// Every name.
    pub(super) fn all() -> impl Iterator<Item = &'static str> {
        let single =
            [HOURS, UP, DOWN, NET, ANSWERED, HOUR, DAY, TODAY, TODAY_USUAL, WEEK, WEEK_USUAL];
        single.into_iter().chain(BETS).chain(DAYS).chain(TERMS)
    }
}

/// Inputs of a score, by the names of [`input`], in the order in which they enter it; a map where
/// it is written down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreInputs(pub Vec<(&'static str, f64)>);

impl ScoreInputs {
    /// The input with this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

impl Serialize for ScoreInputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ScoreInputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inputs;
        impl<'de> Visitor<'de> for Inputs {
            type Value = ScoreInputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("inputs of a score by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ScoreInputs, A::Error> {
                let mut inputs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, f64>()? {
                    let known = input::all()
                        .find(|known| *known == name)
                        .ok_or_else(|| A::Error::custom(format!("no score takes \"{name}\"")))?;
                    if inputs.iter().any(|(other, _)| *other == known) {
                        return Err(A::Error::custom(format!("\"{name}\" is given twice")));
                    }
                    inputs.push((known, value));
                }
                // A map may have been written in any order.
                inputs.sort_by_key(|(name, _)| input::all().position(|known| known == *name));
                Ok(ScoreInputs(inputs))
            }
        }
        deserializer.deserialize_map(Inputs)
    }
}

/// What a channel said of an episode at its highest: all that is needed to replay the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeScore {
    /// Which channel.
    pub channel: Channel,
    /// Its highest score.
    pub score: f64,
    /// When it was reached.
    pub at: Timestamp,
    /// What it was made from.
    pub inputs: ScoreInputs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_what_they_write() {
        for text in [
            "unit:web.service",
            "container:0a1b",
            "program:/usr/bin/x y",
            "inside:10.0.0.7",
            "host",
        ] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
        for text in ["example.co.jp", "as64500", "203.0.113.0/24", "2001:db8::/48", "object:backup"]
        {
            assert_eq!(text.parse::<DestinationKey>().unwrap().to_string(), text);
        }
        for text in ["tcp/443", "udp/high", "icmp", "ip-47"] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        assert!("web".parse::<Workload>().is_err() && "unit:".parse::<Workload>().is_err());
        assert!("a b".parse::<DestinationKey>().is_err() && "".parse::<DestinationKey>().is_err());
        assert!("tcp/4444".parse::<Service>().is_err() && "tcp".parse::<Service>().is_err());
    }

    #[test]
    fn an_address_without_a_name_stands_for_its_network() {
        let of = |text: &str| text.parse::<DestinationKey>().unwrap().to_string();
        assert_eq!(of("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(of("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(of("2001:db8:1:2::3"), "2001:db8:1::/48");
    }

    #[test]
    fn inputs_keep_their_order_and_refuse_what_no_score_takes() {
        let score = EpisodeScore {
            channel: Channel::Allowance,
            score: 7.0,
            at: Timestamp::EPOCH,
            inputs: ScoreInputs(vec![(input::UP, 10.0), (input::DOWN, 3.0)]),
        };
        let text = serde_json::to_string(&score).unwrap();
        assert!(text.contains(r#""inputs":{"up":10.0,"down":3.0}"#), "{text}");
        assert_eq!(serde_json::from_str::<EpisodeScore>(&text).unwrap(), score);
        for bad in [r#"{"sideways":1.0}"#, r#"{"up":1.0,"up":2.0}"#] {
            assert!(serde_json::from_str::<ScoreInputs>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_are_written_down() {
        for oddity in Oddity::ALL {
            assert_eq!(serde_json::to_value(oddity).unwrap(), oddity.name());
        }
        for channel in Channel::ALL {
            assert_eq!(serde_json::to_value(channel).unwrap(), channel.name());
        }
        for tier in Tier::ALL {
            assert_eq!(serde_json::to_value(tier).unwrap(), tier.name());
        }
    }

    #[test]
    fn names_of_inputs_are_distinct() {
        let mut names: Vec<_> = input::all().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
