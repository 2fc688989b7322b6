//! `behaviour.*` beside the allowances: what the learning stage saw of episodes, made into signals.
//!
//! None of these cuts by itself whatever a policy says, unless a certificate stands behind the channel's
//! threshold: behaviour is never proof, and the rate of its mistakes must be promised first.

use super::registry::Weight;
use super::signal::{Scored, Signal, SignalKind, Warrant};
use super::{RuleOf, SettingsFault, settings, warrant};
use crate::certify::authority::Authority;
use crate::certify::sentence;
use crate::flow::Observation;
use crate::learn::oddity::Oddities;
use crate::learn::{EpisodeSettings, Episodes, Remote, Told, What, rhythm};
use sekisho_schema::episode::{Channel, DestinationKey, EpisodeScore, Oddity, Tier, input};
use sekisho_schema::ruling::Ruling;
use sekisho_schema::{Evidence, Grade, Policy};
use serde::Deserialize;

/// Stable identifier of the detector of rhythms.
pub(crate) const BEACON: &str = "behaviour.beacon";
const FAN_OUT: &str = "behaviour.fanout";
const FIRST_SEEN: &str = "behaviour.first-seen";
const ICMP: &str = "behaviour.icmp";
const STAGING: &str = "behaviour.staging";

/// Every detector here.
const DETECTORS: [&str; 11] = [
    "behaviour.allowance",
    BEACON,
    "behaviour.dns-information",
    FAN_OUT,
    FIRST_SEEN,
    "behaviour.host-budget",
    ICMP,
    "behaviour.persistence",
    STAGING,
    "behaviour.sum",
    "behaviour.volume",
];

/// Constants of the detector of rhythms.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BeaconSettings {
    /// Contacts closer than this are one contact; in seconds.
    pub dead_seconds: f64,
    /// Slack added to both ends of every window; in seconds.
    pub resolution_seconds: f64,
    /// Base-10 logarithm of the e-value that is told.
    pub threshold_log10: f64,
}

impl Default for BeaconSettings {
    /// detection.md, sections 3 and 4.1.
    fn default() -> Self {
        Self { dead_seconds: 1.0, resolution_seconds: 0.5, threshold_log10: 6.0 }
    }
}

/// Constants of a detector with one threshold.
macro_rules! threshold {
    ($(#[$doc:meta])* $name:ident { $field:ident: $type:ty = $value:expr }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        struct $name {
            $field: $type,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $field: $value }
            }
        }
    };
}

threshold! {
    /// Hours of contact, of the 168 of an episode.
    PersistenceSettings { hours: u32 = 24 }
}
threshold! {
    /// Bytes of information an hour.
    DnsSettings { bytes_per_hour: f64 = 500.0 }
}
threshold! {
    /// Times the largest upload of the 28 days before.
    VolumeSettings { times_usual: f64 = 2.0 }
}
threshold! {
    /// Bytes an hour that say something new.
    IcmpSettings { bytes_per_hour: u64 = 10_000 }
}
threshold! {
    /// Distinct addresses an hour.
    FanOutSettings { addresses_per_hour: f64 = 300.0 }
}
threshold! {
    /// Bytes that leave after data was gathered.
    StagingSettings { pushed_bytes: u64 = 1_000_000 }
}

/// The detectors that packs switch on.
#[derive(Debug, Default)]
pub(super) struct Behaviours {
    warrants: Vec<Warrant>,
}

impl Behaviours {
    /// Switches detectors as the packs say, and has the learning stage go by their constants.
    pub(super) fn configure(
        &mut self,
        rules: &RuleOf<'_>,
        faults: &mut Vec<SettingsFault>,
        episodes: &mut Episodes,
    ) {
        self.warrants = DETECTORS.iter().filter_map(|detector| warrant(rules, detector)).collect();
        let mut of = EpisodeSettings {
            upload_bytes: episodes.settings().upload_bytes,
            first_seen: rules(FIRST_SEEN).is_some(),
            ..EpisodeSettings::default()
        };
        if let Some((beacon, _)) = settings::<BeaconSettings>(rules, BEACON, faults) {
            of.rhythm = rhythm::RhythmSettings {
                dead: beacon.dead_seconds,
                resolution: beacon.resolution_seconds,
            };
            of.rhythm_log10 = beacon.threshold_log10.max(0.1);
        }
        let name = Channel::Persistence.detector();
        if let Some((own, _)) = settings::<PersistenceSettings>(rules, name, faults) {
            of.persistence_hours = own.hours.max(2);
        }
        if let Some((own, _)) = settings::<DnsSettings>(rules, Channel::Dns.detector(), faults) {
            of.dns_bytes = own.bytes_per_hour.max(1.0);
        }
        let name = Channel::Approved.detector();
        if let Some((own, _)) = settings::<VolumeSettings>(rules, name, faults) {
            of.approved_log10 = own.times_usual.max(1.01).log10();
        }
        if let Some((own, _)) = settings::<IcmpSettings>(rules, ICMP, faults) {
            of.icmp_bytes = own.bytes_per_hour.max(1);
        }
        if let Some((own, _)) = settings::<FanOutSettings>(rules, FAN_OUT, faults) {
            of.fan_out = own.addresses_per_hour.max(2.0);
        }
        if let Some((own, _)) = settings::<StagingSettings>(rules, STAGING, faults) {
            of.push_bytes = own.pushed_bytes.max(1);
        }
        episodes.configure(of);
    }

    /// Whether anything is to be learned: without a detector nobody would be told.
    pub(super) const fn is_on(&self) -> bool {
        !self.warrants.is_empty()
    }

    /// Makes signals of what there is to tell.
    pub(super) fn speak(
        &self,
        o: &Observation<'_>,
        (policy, enforces): (&Policy, bool),
        (episodes, authority): (&mut Episodes, &mut Authority),
        emit: &mut Vec<Signal>,
    ) {
        for told in episodes.take_told() {
            let score = told.score.as_ref().filter(|_| told.tier.is_some());
            let ruling = score.and_then(|score| {
                let hosts = u64::from(told.hosts);
                match policy.rule_for(detector_of(&told), Grade::Suspect) {
                    Some(rule) if rule.level > 0 && enforces => {
                        authority.rule(&told.key, score, hosts)
                    }
                    Some(rule) if rule.level > 0 => authority.rehearse(&told.key, score, hosts),
                    _ => authority.tell(&told.key, score, hosts),
                }
            });
            if let Some(warrant) = self.warrant_of(&told, ruling.as_ref(), policy) {
                emit.push(signal(o, &told, &warrant, ruling.as_ref()));
            }
        }
    }

    /// What a pack lends; what a certificate rules speaks without one. Where an allowance of policy has a
    /// detector of its own, the channel speaks only with a ruling; and what was ruled before is not said again.
    fn warrant_of(&self, told: &Told, ruling: Option<&Ruling>, policy: &Policy) -> Option<Warrant> {
        let detector = detector_of(told);
        let channel = told.score.as_ref().map(|score| score.channel);
        let is_silent =
            matches!(channel, Some(Channel::Allowance | Channel::HostBudget | Channel::Sum))
                || told.tier.is_some();
        if is_silent && ruling.is_none() {
            return None;
        }
        let known = self.warrants.iter().find(|warrant| warrant.detector == detector);
        let own = Warrant { detector, grade: Grade::Suspect, rule: None, weight: Weight::Scores };
        let warrant = match (known, ruling) {
            (Some(known), _) => known.clone(),
            (None, Some(_)) => own,
            (None, None) => return None,
        };
        let level = policy.rule_for(detector, warrant.grade).map_or(0, |rule| rule.level);
        let weight = match ruling.map(|ruling| highest_level(ruling.tier)) {
            None | Some(0) => Weight::Scores,
            Some(highest) if level <= highest => Weight::Decides,
            Some(highest) => Weight::UpTo(highest),
        };
        Some(Warrant { weight, ..warrant })
    }
}

/// The step of the ladder of responses that a tier reaches up to: quota, destination, host.
const fn highest_level(tier: Tier) -> u8 {
    match tier {
        Tier::Alert => 0,
        Tier::Hold => 2,
        Tier::CutDestination => 3,
        Tier::IsolateHost => 5,
    }
}

const fn detector_of(told: &Told) -> &'static str {
    match (&told.what, &told.score) {
        (What::Echoes { .. }, _) => ICMP,
        (What::FanOut { .. } | What::Flood { .. }, _) => FAN_OUT,
        (What::Push(_), _) => STAGING,
        (What::Rhythm { .. }, _) => BEACON,
        (What::Channel | What::Names, Some(score)) => score.channel.detector(),
        (What::Channel | What::FirstSeen | What::Names, None) | (What::FirstSeen, Some(_)) => {
            FIRST_SEEN
        }
    }
}

fn signal(o: &Observation<'_>, told: &Told, warrant: &Warrant, ruling: Option<&Ruling>) -> Signal {
    let remote = Remote::new(o.flow.key.remote.ip(), o.flow.bound_name).to_string();
    let of_host = matches!(told.what, What::FanOut { .. } | What::Flood { .. } | What::Push(_))
        || is_of_host(told);
    let destination = match &told.what {
        What::Names => match &told.key.destination {
            DestinationKey::Domain(name) => name.to_string(),
            _ => format!("names without a public suffix, asked of {remote}"),
        },
        _ => remote,
    };
    let mut evidence = evidence(told);
    let odd: Vec<&str> = told.oddities.list().map(Oddity::words).collect();
    if let Some(piece) = evidence.first_mut() {
        piece.facts.insert("episode".to_owned(), told.key.to_string().into());
        if !odd.is_empty() {
            piece.facts.insert("odd".to_owned(), odd.into());
        }
    }
    evidence.extend(ruling.map(Ruling::to_evidence));
    let scored = Scored {
        about: if of_host { None } else { Some(destination.clone()) },
        score: score_of(told),
        told: match ruling {
            Some(ruling) => format!("{{host}}: {}.", sentence::sentence(ruling)),
            None => sentence(o, told, &destination),
        },
        evidence,
    };
    let kind = SignalKind::Scored(Box::new(scored));
    let mut signal = warrant.signal(told.at, o.frame, &o.flow, kind);
    signal.first_at = told.first_at;
    if matches!(told.what, What::Names) {
        // The question's flow ends at a resolver, which is not to be cut.
        signal.target = None;
        signal.name = Some(destination);
    }
    signal
}

fn is_of_host(told: &Told) -> bool {
    told.score.as_ref().is_some_and(|score| score.channel == Channel::HostBudget)
}

/// The number behind a signal.
fn score_of(told: &Told) -> f64 {
    match (&told.what, &told.score) {
        (_, Some(score)) => score.score,
        (What::Echoes { bytes, .. }, None) => *bytes as f64,
        (What::FanOut { distinct }, None) => *distinct,
        (What::Flood { gone }, None) => *gone as f64,
        (What::Push(push), None) => push.pushed as f64,
        (What::Rhythm { log10_e, .. }, None) => *log10_e,
        (What::Channel | What::FirstSeen | What::Names, None) => 1.0,
    }
}

/// The facts; those of a channel replay its score.
fn evidence(told: &Told) -> Vec<Evidence> {
    let mut piece = match &told.what {
        What::Channel | What::Names => Evidence::new("channel", []),
        What::Echoes { bytes, largest } => Evidence::new(
            "volume",
            [
                ("bytes_out", (*bytes).into()),
                ("largest", (*largest).into()),
                ("window", "1h".into()),
            ],
        ),
        What::FanOut { distinct } => Evidence::new(
            "fan-out",
            [("addresses", distinct.round().into()), ("window", "1h".into())],
        ),
        What::FirstSeen => Evidence::new("first-seen", []),
        What::Flood { gone } => {
            Evidence::new("fan-out", [("forgotten", (*gone).into()), ("window", "1h".into())])
        }
        What::Push(push) => Evidence::new(
            "staging",
            [
                ("fell_bytes", push.fell.into()),
                ("gathered_bytes", push.gathered.into()),
                ("hinted_at", push.hinted_at.to_string().into()),
                ("pushed_bytes", push.pushed.into()),
                ("usual_bytes", push.usual.into()),
            ],
        ),
        What::Rhythm { hits, bets, window, log10_e, inputs } => {
            let mut piece = Evidence::new(
                "cadence",
                [
                    ("bets", (*bets).into()),
                    ("chance", window.chance.into()),
                    ("high_seconds", window.high.into()),
                    ("hits", (*hits).into()),
                    ("log10_e", (*log10_e).into()),
                    ("low_seconds", window.low.into()),
                ],
            );
            for (name, value) in inputs {
                piece.facts.insert((*name).to_owned(), (*value).into());
            }
            piece
        }
    };
    if let Some(score) = &told.score {
        piece.facts.insert("channel".to_owned(), score.channel.name().into());
        piece.facts.insert("score".to_owned(), score.score.into());
        for (name, value) in &score.inputs.0 {
            piece.facts.insert((*name).to_owned(), (*value).into());
        }
    }
    vec![piece]
}

fn sentence(o: &Observation<'_>, told: &Told, destination: &str) -> String {
    let port = o.flow.key.remote.port();
    match &told.what {
        What::Channel | What::Names => match &told.score {
            Some(score) => channel_sentence(told, score, destination, port),
            None => String::new(),
        },
        What::Echoes { bytes, largest } => format!(
            "{{host}} sent {bytes} bytes in echoes to {destination} within an hour that said \
             something new each time, up to {largest} bytes at once; a ping says the same again \
             and again."
        ),
        What::FanOut { distinct } => format!(
            "{{host}} began to speak to about {distinct:.0} addresses outside within an hour, lastly \
             to {destination}."
        ),
        What::FirstSeen => format!(
            "{{host}} spoke to {destination} port {port} for the first time{}.",
            oddities(told.oddities)
        ),
        What::Flood { gone } => format!(
            "so many new destinations came within an hour, lastly {destination} by {{host}}, that \
             {gone} others had to be forgotten; none that was half-way to a threshold."
        ),
        What::Push(push) => push_sentence(push, destination),
        What::Rhythm { hits, bets, window, log10_e, .. } => format!(
            "{{host}} comes back to {destination} port {port} by the clock: {hits} of the last {bets} \
             gaps fell in the {:.1}-{:.1} s predicted beforehand; unplanned traffic does that at most \
             {} % of the time, and all gaps together speak 10^{log10_e:.1} to 1 against it.",
            window.low,
            window.high,
            (window.chance * 100.0).ceil(),
        ),
    }
}

fn push_sentence(push: &crate::learn::staging::Push, destination: &str) -> String {
    let pulled = (push.gathered > 0).then(|| {
        format!(
            "pulled {} bytes from hosts of the inside within six hours, the most before being {}",
            push.gathered, push.usual
        )
    });
    let fell =
        (push.fell > 0).then(|| format!("lost {} bytes of free space within an hour", push.fell));
    let gathered: Vec<String> = pulled.into_iter().chain(fell).collect();
    format!(
        "{{host}} sent {} bytes to destinations that nobody approved, lastly to {destination}, after it \
         {} (since {}).",
        push.pushed,
        gathered.join(" and "),
        push.hinted_at,
    )
}

fn oddities(odd: Oddities) -> String {
    let names: Vec<&str> = odd.list().map(Oddity::words).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

/// What a channel says: the number, where it comes from, and what would not have been told.
fn channel_sentence(told: &Told, score: &EpisodeScore, destination: &str, port: u16) -> String {
    let value = |name: &str| score.inputs.value(name).unwrap_or(0.0);
    let first = told.first_at;
    let number = score.score;
    let said = match score.channel {
        Channel::Allowance => format!(
            "{{host}} sent {number:.0} bytes more to {destination} port {port} than came back since {first}"
        ),
        Channel::Approved => format!(
            "{{host}} sent {:.0} bytes to {destination} today and {:.0} within seven days, where the most \
             of the 28 days before is {:.0} and {:.0}: {:.1} times what is usual",
            value(input::TODAY),
            value(input::WEEK),
            value(input::TODAY_USUAL),
            value(input::WEEK_USUAL),
            10_f64.powf(number),
        ),
        Channel::Dns => format!(
            "{{host}} sent {:.0} bytes of information in new names below {destination} within an hour and \
             {:.0} within a day",
            value(input::HOUR),
            value(input::DAY),
        ),
        Channel::HostBudget => format!(
            "{{host}} sent {:.0} bytes within a day to destinations outside its baseline, and answered {:.0} \
             to strangers",
            value(input::NET),
            value(input::ANSWERED),
        ),
        Channel::Persistence => format!(
            "{{host}} spoke to {destination} port {port} in {number:.0} of the 168 hours since {first}, and \
             no other host did"
        ),
        Channel::Rhythm => format!(
            "{{host}} kept coming back to {destination} port {port} by the clock for {number:.0} hours since \
             that was proven"
        ),
        // Nothing but a certificate has a threshold for it, and then the ruling speaks.
        Channel::Sum => format!("what {{host}} does with {destination} port {port} is rare"),
    };
    format!(
        "{said}{}; a threshold above {number:.3} would not have told it.",
        oddities(told.oddities)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_speaks_through_a_detector_of_the_list() {
        for channel in Channel::ALL {
            assert!(DETECTORS.contains(&channel.detector()), "{channel}");
        }
        assert!(DETECTORS.is_sorted());
    }
}
