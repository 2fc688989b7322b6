//! The product's own statistics and certificate on episodes of any source. Nothing is computed here that the product
//! computes: contacts go in one by one, as the engine would show them, and what comes out is the product's record.

use super::fleet::{self, DAY, HOUR, Oddities, Role};
use super::replay::after;
use sekisho_engine::certify::episode::{RHYTHM_PROVEN, score_of, scored};
use sekisho_engine::certify::review::{Signer, approve, list};
use sekisho_engine::certify::tails::{Features, terms};
use sekisho_engine::certify::threshold::{CONFIDENCE, Terms, certify, floor_of, score_in};
use sekisho_engine::learn::allowance::NetUpload;
use sekisho_engine::learn::dns::NameInformation;
use sekisho_engine::learn::host_budget::HostDay;
use sekisho_engine::learn::persistence::Hours;
use sekisho_engine::learn::registered_name;
use sekisho_engine::learn::rhythm::Rhythm;
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA, Learned, Pool, RoleBaseline, WEEK_HOURS};
use sekisho_schema::certificate::{Budgets, Certificate};
use sekisho_schema::episode::{
    Channel, DestinationKey, EpisodeKey, EpisodeScore, Oddity, ScoreInputs, Service, Tier,
    Workload, input,
};
use sekisho_schema::{Span, Timestamp, Transport};
use std::collections::BTreeMap;

/// Hosts that a roll-out is shown on: as many as make a cluster.
const ROLLED_OUT: usize = 3;

/// log10 of the evidence for a rhythm after each contact.
#[must_use]
pub fn evidence(times: &[f64]) -> Vec<f64> {
    let mut rhythm = Rhythm::default();
    let mut last = None;
    times.iter().map(|at| contact(&mut rhythm, &mut last, *at)).collect()
}

fn contact(rhythm: &mut Rhythm, last: &mut Option<f64>, at: f64) -> f64 {
    match last.replace(at) {
        Some(before) => rhythm.gap(Span::from_nanos(((at - before).max(0.0) * 1e9) as i64)),
        None => 0.0,
    }
}

/// Bytes of the state of one destination.
#[must_use]
pub const fn state_bytes() -> usize {
    size_of::<Rhythm>() + size_of::<Hours>() + size_of::<NetUpload>()
}

/// The product's word for an oddity of the generator.
const fn oddity_of(oddity: fleet::Oddity) -> Oddity {
    match oddity {
        fleet::Oddity::FullyEncrypted => Oddity::EncryptedFirstPayload,
        fleet::Oddity::HttpAddress => Oddity::HttpToAddress,
        fleet::Oddity::NoName => Oddity::NoName,
        fleet::Oddity::NoServerName => Oddity::NoServerName,
        fleet::Oddity::NotTls => Oddity::NotTls443,
        fleet::Oddity::SelfSigned => Oddity::SelfSigned,
    }
}

/// An episode while it is watched.
#[derive(Debug, Default)]
pub struct Watch {
    rhythm: Rhythm,
    hours: Hours,
    net: NetUpload,
    first: f64,
    last: Option<f64>,
    proven: Option<f64>,
    has_answered: bool,
    contacts: u64,
    oddities: Vec<Oddity>,
    /// Calls without payload, the last of them, and when they proved a rhythm.
    calls: Rhythm,
    last_call: Option<f64>,
    called: Option<f64>,
}

impl Watch {
    /// Begins to watch a destination of which this is odd.
    #[must_use]
    pub fn new(oddities: Oddities, is_new_process: bool) -> Self {
        let mut all: Vec<Oddity> = oddities.iter().map(oddity_of).collect();
        if is_new_process {
            all.push(Oddity::NewProcess);
        }
        all.sort_unstable();
        Self { oddities: all, ..Self::default() }
    }

    /// A contact at a time in seconds since the start of the traffic; only payload of the client is one.
    pub fn contact(&mut self, at: f64, up: f64, down: f64) {
        self.contact_of(at, (up, down), 1);
    }

    /// The same to a destination that so many hosts of the fleet know by then.
    pub fn contact_of(&mut self, at: f64, (up, down): (f64, f64), hosts: u32) {
        if up <= 0.0 {
            return;
        }
        if self.contacts == 0 {
            self.first = at;
        }
        self.contacts += 1;
        contact(&mut self.rhythm, &mut self.last, at);
        // What the fleet has taken up is no matter of one host: its hours stand still.
        if (hosts as usize) < ROLLED_OUT {
            self.hours.mark(self.hour(at));
        }
        self.has_answered |= down > 0.0;
        self.net.add(up as u64, down as u64);
        if self.proven.is_none() && self.rhythm.peak() >= RHYTHM_PROVEN {
            self.proven = Some(at);
        }
    }

    /// A call that carried nothing, in order with the contacts: it counts once the destination has answered, and
    /// tells people, no more.
    pub fn call(&mut self, at: f64) {
        if !self.has_answered {
            return;
        }
        contact(&mut self.calls, &mut self.last_call, at);
        // Two tests of one destination: this one has half the weight.
        if self.called.is_none() && self.calls.peak() >= RHYTHM_PROVEN + std::f64::consts::LOG10_2 {
            self.called = Some(at);
        }
    }

    /// When people were told of a rhythm, of contacts or of calls.
    #[must_use]
    pub fn told(&self) -> Option<f64> {
        self.proven.into_iter().chain(self.called).min_by(f64::total_cmp)
    }

    fn hour(&self, at: f64) -> usize {
        ((at - self.first).max(0.0) / HOUR) as usize
    }

    /// log10 of the evidence for a rhythm at its highest.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.rhythm.peak()
    }

    /// When the rhythm was proven.
    #[must_use]
    pub const fn proven(&self) -> Option<f64> {
        self.proven
    }

    /// What enters the sum, for a destination that so many hosts speak to.
    #[must_use]
    pub fn features(&self, hosts: u32) -> Features {
        Features {
            rhythm: self.rhythm.peak(),
            hours: f64::from(self.hours.count()),
            net: self.net.highest() as f64,
            hosts: f64::from(hosts),
            oddities: self.oddities.clone(),
        }
    }

    fn inputs(&self, channel: Channel) -> Option<ScoreInputs> {
        match channel {
            Channel::Rhythm if self.has_answered => {
                let since = self.hours.count_from(self.hour(self.proven?));
                let mut inputs = self.rhythm.bets().to_vec();
                inputs.push((input::HOURS, f64::from(since)));
                Some(ScoreInputs(inputs))
            }
            Channel::Persistence if self.has_answered => Some(self.hours.inputs()),
            Channel::Allowance => Some(self.net.inputs()),
            _ => None,
        }
    }

    /// What a channel says now; nothing where it has nothing to say.
    #[must_use]
    pub fn score(&self, channel: Channel) -> Option<EpisodeScore> {
        scored(channel, after(self.last.unwrap_or(0.0)), self.inputs(channel)?)
    }

    /// The record of the episode; `None` without a contact.
    #[must_use]
    pub fn record(&self, key: EpisodeKey) -> Option<Episode> {
        let last = self.last?;
        let channels = [Channel::Rhythm, Channel::Persistence, Channel::Allowance];
        Some(Episode {
            key,
            first_at: after(self.first),
            last_at: after(last),
            contacts: self.contacts,
            days: self.hours.days(after(self.first)),
            hours: self.hours.count(),
            up: self.net.up(),
            down: self.net.down(),
            net: self.net.highest(),
            rhythm: self.rhythm.peak(),
            proven_at: self.proven.map(after),
            gaps: Vec::new(),
            oddities: self.oddities.clone(),
            users: 0,
            scores: channels.iter().filter_map(|channel| self.score(*channel)).collect(),
            crossings: Vec::new(),
        })
    }
}

/// The key of the n-th destination that anything spoke to.
#[must_use]
pub fn key(number: usize) -> EpisodeKey {
    EpisodeKey {
        workload: Workload::Unit("app.service".into()),
        destination: DestinationKey::Domain(format!("d{number}.example").into()),
        service: Service::new(Transport::Tcp, 443),
    }
}

/// The name of a machine.
fn host_name(number: usize) -> String {
    format!("h{number:03}")
}

/// Shows a generated episode to the statistics; `offset` is when its week began, in seconds.
#[must_use]
pub fn watch(episode: &fleet::Episode) -> Watch {
    let mut watch = Watch::new(episode.oddities, episode.is_new_process);
    let offset = episode.week as f64 * fleet::HORIZON + episode.start;
    let began = episode.began();
    for burst in &episode.bursts {
        let hosts = episode.hosts_after((burst.at - began) / HOUR);
        watch.contact_of(offset + burst.at, (burst.up, burst.down), hosts);
    }
    watch
}

/// What a role's machines did in some weeks, as the product records it.
pub struct Weeks {
    role: Role,
    hosts: usize,
    weeks: usize,
    /// Host, record, hosts that speak to it, what the generator made it as.
    pub episodes: Vec<(usize, Episode, u32, &'static str)>,
    days: BTreeMap<(usize, i64), u64>,
}

impl Weeks {
    /// Nothing yet, of so many machines and weeks.
    #[must_use]
    pub const fn new(role: Role, hosts: usize, weeks: usize) -> Self {
        Self { role, hosts, weeks, episodes: Vec::new(), days: BTreeMap::new() }
    }

    /// Host-weeks.
    #[must_use]
    pub const fn host_weeks(&self) -> f64 {
        (self.hosts * self.weeks) as f64
    }

    /// Takes a generated episode.
    pub fn take(&mut self, episode: &fleet::Episode) {
        let offset = episode.week as f64 * fleet::HORIZON + episode.start;
        for burst in &episode.bursts {
            let day = ((offset + burst.at) / DAY) as i64;
            let net = (burst.up - burst.down).max(0.0) as u64;
            *self.days.entry((episode.host, day)).or_default() += net;
        }
        let number = self.episodes.len();
        let Some(record) = watch(episode).record(key(number)) else { return };
        let hosts = if episode.is_rolled_out { ROLLED_OUT as u32 } else { 1 };
        self.episodes.push((episode.host, record, hosts, episode.kind));
    }

    /// The largest day of each host-week, as the product records it: host, week, record.
    #[must_use]
    pub fn host_days(&self) -> Vec<(usize, Episode)> {
        let mut weeks: BTreeMap<(usize, i64), HostDay> = BTreeMap::new();
        for ((host, day), net) in &self.days {
            let week = weeks.entry((*host, day / 7)).or_default();
            week.add(after((*day as f64 + 0.5) * DAY), *net, 0);
        }
        let record = |((host, week), day): (&(usize, i64), &HostDay)| {
            let score = scored(Channel::HostBudget, day.highest_at(), day.inputs())?;
            let key = EpisodeKey {
                workload: Workload::Host,
                destination: DestinationKey::Object(format!("week-{week}").into()),
                service: Service::new(Transport::Other(255), 0),
            };
            let episode = Episode { scores: vec![score], ..bare(key, *week) };
            (*week < self.weeks as i64).then_some((*host, episode))
        };
        weeks.iter().filter_map(record).collect()
    }

    /// The records of every host, as agents hand them in: a roll-out is on three hosts.
    #[must_use]
    pub fn learned(&self) -> Vec<Learned> {
        let mut of_host: Vec<Vec<Episode>> = vec![Vec::new(); self.hosts];
        for (host, record, hosts, _) in &self.episodes {
            for copy in 0..*hosts as usize {
                of_host[(host + copy) % self.hosts].push(record.clone());
            }
        }
        for (host, record) in self.host_days() {
            of_host[host].push(record);
        }
        let hours = self.weeks as u64 * WEEK_HOURS;
        let learned = |(host, episodes): (usize, Vec<Episode>)| Learned {
            schema: LEARNED_SCHEMA.to_owned(),
            host: host_name(host),
            role: self.role.name().to_owned(),
            agent: "evaluate".to_owned(),
            from: after(0.0),
            until: after(self.weeks as f64 * fleet::HORIZON),
            hours,
            hours_of_week: vec![self.weeks as u32; WEEK_HOURS as usize],
            workloads: Vec::new(),
            episodes,
        };
        of_host.into_iter().enumerate().map(learned).collect()
    }

    /// The records pooled.
    ///
    /// # Panics
    ///
    /// When the product refuses its own records.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool::of(self.role.name(), &self.learned()).expect("records of the product itself")
    }

    /// The baseline of the role before anybody signed anything.
    #[must_use]
    pub fn baseline(&self) -> RoleBaseline {
        RoleBaseline::empty(self.role.name(), after(0.0))
    }

    /// The certificate after somebody signed everything on the review list, as all of it is benign.
    #[must_use]
    pub fn certificate(&self, budgets: &Budgets) -> Certificate {
        certificate(&self.pool(), &self.baseline(), budgets)
    }
}

/// The certificate after everything on the review list was signed.
#[must_use]
pub fn certificate(pool: &Pool, baseline: &RoleBaseline, budgets: &Budgets) -> Certificate {
    let signer = Signer { by: "the experiment", at: after(0.0), reason: "made benign" };
    let signed = approve(baseline, &list(pool, baseline), &signer);
    let of =
        Terms { budgets, confidence: CONFIDENCE, version: 1, at: after(0.0), agent: "evaluate" };
    certify(pool, &signed, &of)
}

/// An episode about which nothing is known but its key.
fn bare(key: EpisodeKey, week: i64) -> Episode {
    let at = after(week as f64 * fleet::HORIZON);
    Episode {
        key,
        first_at: at,
        last_at: at,
        contacts: 0,
        days: 0,
        hours: 0,
        up: 0,
        down: 0,
        net: 0,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 0,
        scores: Vec::new(),
        crossings: Vec::new(),
    }
}

/// A score that went over a threshold.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// Which tier it unlocks.
    pub tier: Tier,
    /// In which channel, with all that made it.
    pub score: EpisodeScore,
    /// The threshold.
    pub threshold: f64,
}

/// Channels that a certificate has a threshold for, in a tier.
fn channels(certificate: &Certificate, tier: Tier) -> impl Iterator<Item = (Channel, f64)> {
    Channel::ALL
        .into_iter()
        .filter_map(move |channel| Some((channel, certificate.threshold(tier, channel)?)))
}

/// The score of a channel with all that made it; the sum is made from the tails of the certificate.
pub fn full_score(
    channel: Channel,
    episode: &Episode,
    hosts: u32,
    of: &Certificate,
) -> Option<EpisodeScore> {
    let tails = of.tails.as_ref()?;
    if channel != Channel::Sum {
        return episode.score(channel).cloned();
    }
    // The product says whether the sum has a word here at all.
    score_in(channel, episode, u64::from(hosts), tails)?;
    let features = Features::of(episode, u64::from(hosts));
    scored(Channel::Sum, episode.last_at, terms(tails, &features))
}

/// Everything in which an episode went over a threshold of a tier. A cluster is held, never cut.
#[must_use]
pub fn crossings(
    certificate: &Certificate,
    tier: Tier,
    episode: &Episode,
    hosts: u32,
) -> Vec<Crossing> {
    if tier > Tier::Hold && hosts as usize >= ROLLED_OUT {
        return Vec::new();
    }
    channels(certificate, tier)
        .filter_map(|(channel, threshold)| {
            let score = full_score(channel, episode, hosts, certificate)?;
            (score.score > threshold).then_some(Crossing { tier, score, threshold })
        })
        .collect()
}

/// When an intrusion is first over a threshold of a tier, in seconds since its episode began.
///
/// Bytes are looked at with every burst, the rest at the checkpoints. `spread` destinations share the host's budget.
#[must_use]
pub fn first_crossing(
    certificate: &Certificate,
    tier: Tier,
    episode: &fleet::Episode,
    spread: usize,
) -> Option<f64> {
    let thresholds: BTreeMap<Channel, f64> = channels(certificate, tier).collect();
    let tails = certificate.tails.as_ref()?;
    let over = |channel: Channel, score: Option<f64>| {
        thresholds.get(&channel).is_some_and(|above| score.is_some_and(|score| score > *above))
    };
    let mut watch = Watch::new(episode.oddities, episode.is_new_process);
    let mut day = HostDay::default();
    let mut checkpoints = super::peers::CHECKPOINTS.iter().copied().peekable();
    let began = episode.began();
    for (at_burst, burst) in episode.bursts.iter().enumerate() {
        let at = episode.start + burst.at;
        watch.contact(at, burst.up, burst.down);
        let net = (burst.up - burst.down).max(0.0) * spread as f64;
        day.add(after(at), net as u64, 0);
        let day = scored(Channel::HostBudget, after(at), day.inputs()).map(|score| score.score);
        let net = watch.score(Channel::Allowance).map(|score| score.score);
        if over(Channel::HostBudget, day) || over(Channel::Allowance, net) {
            return Some(burst.at);
        }
        let next = episode.bursts.get(at_burst + 1).map_or(f64::INFINITY, |next| next.at);
        while let Some(checkpoint) = checkpoints.next_if(|c| began + c < next) {
            let sum = score_of(Channel::Sum, &terms(tails, &watch.features(1)));
            let slow = [Channel::Rhythm, Channel::Persistence]
                .into_iter()
                .any(|channel| over(channel, watch.score(channel).map(|score| score.score)));
            if slow || over(Channel::Sum, sum) {
                return Some(began + checkpoint);
            }
        }
    }
    None
}

/// What a question told of its domain.
#[derive(Clone, Debug)]
pub struct NameTold {
    /// The registered domain.
    pub domain: String,
    /// Who asked, and below which domain.
    pub key: String,
    /// The score of the domain so far.
    pub score: f64,
    /// Whether it is over the least threshold.
    pub is_over: bool,
}

/// The information in names, by client and registered domain.
#[derive(Default)]
pub struct NameKeys {
    below: BTreeMap<String, NameInformation>,
}

impl NameKeys {
    /// Takes a question: who asked whom for which name. Nothing comes of names of reverse zones.
    pub fn ask(
        &mut self,
        at: f64,
        (client, resolver, name): (&str, &str, &str),
    ) -> Option<NameTold> {
        let Asked { domain, below } = asked(name, resolver)?;
        let key = format!("{client} below {domain}");
        let entry = self.below.entry(key.clone()).or_default();
        entry.ask(Timestamp::from_nanos((at * 1e9) as i64), &below);
        let score = score_of(Channel::Dns, &entry.inputs())?;
        Some(NameTold { domain, key, score, is_over: score > floor_of(Channel::Dns) })
    }

    /// Clients and domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.below.len()
    }

    /// Whether nobody asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.below.is_empty()
    }
}

/// A name in its parts.
struct Asked {
    domain: String,
    below: String,
}

/// The domain of a name, and what its owner made up. All names without a suffix are the resolver's.
fn asked(name: &str, resolver: &str) -> Option<Asked> {
    if name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa") {
        return None;
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_suffix = last.starts_with("xn--") || last.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_suffix {
        return Some(Asked { domain: format!("resolver {resolver}"), below: name.to_owned() });
    }
    let domain = registered_name(name);
    let below = name.strip_suffix(domain).unwrap_or_default().trim_end_matches('.');
    Some(Asked { domain: domain.to_owned(), below: below.to_owned() })
}
