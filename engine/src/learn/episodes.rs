//! The episodes of this host and of those behind it: who speaks to whom outside the baseline, and what
//! each channel makes of it.
//!
//! Fed by what the flow stage tells of a flow (its start, its bursts, its volume, what was read in it), never
//! by packets. Bounded: the least-seen keys give way, those half-way to a threshold never.

mod calls;
mod counts;
mod crossed;
mod episode;
mod host;
mod key;
mod naming;
mod normal;
mod reading;
mod store;
mod telling;

pub use self::store::{RestoreEpisodesError, Saving};
pub use self::telling::{EpisodeSettings, Told, Unlocked, What};

use self::calls::Calls;
use self::counts::flood_of;
use self::crossed::Crossed;
use self::episode::{Episode, mark};
use self::host::Hosts;
use self::key::{Asked, At, Key, Place, hash_ends};
use self::naming::{asked_key, host_key, named, place_of};
use self::normal::Normal;
use self::telling::{Halves, Voice};
use super::dns::NameInformation;
use super::icmp::EchoHour;
use super::oddity::Oddities;
use super::space_saving::{Entered, SpaceSaving};
use super::{Name, approved::Envelope};
use crate::flow::Observation;
use crate::limits::Limits;
use sekisho_schema::certificate::Tails;
use sekisho_schema::episode::{
    Channel, DestinationKey, EpisodeKey, EpisodeScore, Oddity, Service, Workload,
};
use sekisho_schema::{FlowKey, Process, Timestamp, baseline};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The port of TLS on the web.
const HTTPS: u16 = 443;
/// The port of DNS: what its messages carry is judged by their names.
const DNS: u16 = 53;
/// Flows whose oddities wait for their first burst.
const ODD: usize = 1024;
/// Payload within which a name may still come.
const HELLO: u64 = 4096;
/// Flows whose owner is asked for at once.
const ASKED: usize = 256;
/// The largest number of workloads told apart.
const WORKLOADS: usize = 4096;
/// Tables' keys by which the hashes of two rows of a sketch differ, and other seeds.
const SEED: u64 = 0x1EA2_4E91_50DE_5EED;

/// Whose address it is, by its autonomous system.
pub trait AsnOf: Send + Sync {
    /// The number of the autonomous system that announces an address; `None` when unknown.
    fn asn(&self, address: IpAddr) -> Option<u32>;
}

/// How policy and baseline regard a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regard<'a> {
    /// The inside host that speaks; `None` for the own host.
    pub(crate) host: Option<IpAddr>,
    /// The entry of policy that approves the destination.
    pub(crate) object: Option<&'a str>,
    /// Whether the destination is in the baseline.
    pub(crate) is_known: bool,
    /// Whether the baseline is still being learned.
    pub(crate) is_learning: bool,
}

impl Regard<'_> {
    /// Whether it is watched as an episode: what is learned enters no baseline unwatched.
    const fn is_watched(&self) -> bool {
        self.object.is_none() && (!self.is_known || self.is_learning)
    }
}

/// Hosts of the inside that spoke to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Adopters {
    hosts: [u16; 3],
    count: u8,
    /// As many as the centre knows of.
    fleet: u8,
}
super::keep::keep_fields!(Adopters { hosts, count, fleet });

/// Every episode, and what belongs to whole hosts.
pub struct Episodes {
    settings: EpisodeSettings,
    unlocked: Unlocked,
    tails: Option<Box<Tails>>,
    asn: Option<Box<dyn AsnOf>>,
    seed: u64,
    capacity: usize,
    table: SpaceSaving<Key, Episode>,
    envelopes: SpaceSaving<Key, Envelope>,
    names: SpaceSaving<(u16, Asked), NameInformation>,
    echoes: SpaceSaving<(u16, IpAddr), EchoHour>,
    adopters: SpaceSaving<Key, Adopters>,
    bound: SpaceSaving<(IpAddr, IpAddr), Name>,
    calls: SpaceSaving<Key, Calls>,
    hosts: Hosts,
    /// What people signed as normal, where they did.
    normal: Option<Normal>,
    workloads: Vec<Workload>,
    odd: BTreeMap<FlowKey, Oddities>,
    odd_evicted: u64,
    asks_owners: bool,
    /// Episodes whose workload is not known yet, by the flow whose owner was asked for; and whether the
    /// baseline was being learned then.
    asked: BTreeMap<FlowKey, (Key, bool)>,
    to_ask: Vec<FlowKey>,
    /// The flow in which TLS began last, without a name so far.
    tls: Option<FlowKey>,
    /// A first burst that waits for the name.
    waiting: Option<(FlowKey, Timestamp)>,
    /// Episodes that are over and were not taken yet, and those that were lost for it.
    finished: Vec<baseline::Episode>,
    lost: u64,
    /// Keys that gave way or were refused when the hour began, and whether that was told within it.
    gone: (u64, bool),
    told: Vec<Told>,
    crossed: Crossed,
}

impl std::fmt::Debug for Episodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Episodes").field("keys", &self.table.len()).finish_non_exhaustive()
    }
}

impl Episodes {
    /// Makes an empty set of episodes within these bounds; the seed changes nothing of what is told.
    #[must_use]
    pub fn new(limits: &Limits, seed: u64) -> Self {
        let seed = seed ^ SEED;
        Self {
            settings: EpisodeSettings::default(),
            unlocked: Unlocked::default(),
            tails: None,
            asn: None,
            seed,
            capacity: limits.episodes,
            table: SpaceSaving::new(limits.episodes, seed, Key::hash),
            envelopes: SpaceSaving::new(limits.envelopes, seed, Key::hash),
            names: SpaceSaving::new(limits.asked_domains, seed, Asked::hash),
            echoes: SpaceSaving::new(limits.echo_peers, seed, |state, key| state.hash_one(key)),
            adopters: SpaceSaving::new(limits.episodes, seed, Key::hash),
            bound: SpaceSaving::new(limits.named_peers, seed, hash_ends),
            calls: SpaceSaving::new(limits.called, seed, Key::hash),
            hosts: Hosts::new(limits.learned_hosts, seed),
            normal: None,
            workloads: vec![Workload::Host],
            odd: BTreeMap::new(),
            odd_evicted: 0,
            asks_owners: false,
            asked: BTreeMap::new(),
            to_ask: Vec::new(),
            tls: None,
            waiting: None,
            finished: Vec::new(),
            lost: 0,
            gone: (0, false),
            told: Vec::new(),
            crossed: Crossed::default(),
        }
    }

    /// Goes by these constants from now on.
    pub fn configure(&mut self, settings: EpisodeSettings) {
        self.settings = settings;
    }

    /// Half of this many net bytes up keep an episode from being evicted.
    pub const fn keep_uploads(&mut self, bytes: u64) {
        self.settings.upload_bytes = bytes;
    }

    /// The constants in force.
    #[must_use]
    pub const fn settings(&self) -> &EpisodeSettings {
        &self.settings
    }

    /// Lets channels decide above these thresholds: what no certificate unlocks is only told.
    pub fn unlock(&mut self, unlocked: Unlocked) {
        self.unlocked = unlocked;
    }

    /// Compares with these benign episodes from now on.
    pub fn calibrate(&mut self, tails: Option<Tails>) {
        self.tails = tails.filter(|tails| tails.episodes > 0).map(Box::new);
    }

    /// Knows addresses without a name by their autonomous system from now on.
    pub fn know_networks(&mut self, asn: Box<dyn AsnOf>) {
        self.asn = Some(asn);
    }

    /// Takes in at how many hosts of the whole group a destination was seen.
    pub fn prevail(&mut self, destination: &DestinationKey, hosts: u8) {
        let at = At { place: Place::of(destination), host: 0, service: None };
        let hash = at.hash(self.adopters.hasher());
        let make = || (at.own(), Adopters::default());
        if let Some(entered) = self.adopters.enter(hash, |key| key.is(&at), make, |_| true) {
            entered.value.fleet = hosts;
        }
    }

    /// Episodes that are watched.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is watched.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be told since the last time, in its order.
    pub(crate) fn take_told(&mut self) -> std::vec::Drain<'_, Told> {
        for told in &self.told {
            self.crossed.note(told, &self.unlocked);
        }
        self.told.drain(..)
    }

    /// Whether there is anything to tell.
    pub(crate) const fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// Episodes that are over since the last time, and how many more were lost because nobody took them.
    pub fn take_finished(&mut self) -> (Vec<baseline::Episode>, u64) {
        (std::mem::take(&mut self.finished), std::mem::take(&mut self.lost))
    }

    /// What each channel says of each episode at its highest.
    pub fn scores(&self) -> impl Iterator<Item = (EpisodeKey, EpisodeScore)> + '_ {
        let channels = [Channel::Rhythm, Channel::Persistence, Channel::Allowance, Channel::Sum];
        let tails = self.tails.as_deref();
        let episodes = self.table.slots().flat_map(move |slot| {
            let scores = channels.map(|channel| slot.value.score(channel, tails));
            scores.into_iter().flatten().map(move |score| {
                (named(&self.hosts, &self.workloads, slot.key.at(), slot.value.workload), score)
            })
        });
        let envelopes = self.envelopes.slots().filter_map(move |slot| {
            let score = telling::approved(&slot.value)?;
            Some((named(&self.hosts, &self.workloads, slot.key.at(), 0), score))
        });
        let names = self.names.slots().filter_map(move |slot| {
            let score = telling::dns(&slot.value)?;
            Some((asked_key(&self.hosts, slot.key.0, slot.key.1.at()), score))
        });
        let hosts = self
            .hosts
            .all()
            .filter_map(|host| Some((host_key(host.workload()), telling::host_budget(&host.day)?)));
        episodes.chain(envelopes).chain(names).chain(hosts)
    }

    /// The records of all episodes that are watched, as they stand.
    pub fn records(&self) -> impl Iterator<Item = baseline::Episode> + '_ {
        self.table.slots().map(move |slot| {
            let key = named(&self.hosts, &self.workloads, slot.key.at(), slot.value.workload);
            self.crossed.tell(slot.value.record(key, self.tails.as_deref()))
        })
    }

    /// Takes a burst of payload toward the outside, in a flow that the inside began.
    pub(crate) fn burst(&mut self, o: &Observation<'_>, regard: &Regard<'_>) {
        let regard = &self.by_signature(o, regard);
        if !regard.is_watched() {
            return;
        }
        let key = o.flow.key;
        self.settle(o, regard);
        if self.tls == Some(key) && o.flow.bound_name.is_none() && o.flow.bytes_out <= HELLO {
            // The rest of the hello will say whom it is for.
            self.waiting = Some((key, o.at));
            return;
        }
        self.contact(o, o.at, regard);
    }

    /// Counts a burst that waited for a name, now that there is one, or none will come.
    fn settle(&mut self, o: &Observation<'_>, regard: &Regard<'_>) {
        if let Some((_, at)) = self.waiting.filter(|(key, _)| *key == o.flow.key) {
            self.waiting = None;
            if regard.is_watched() {
                self.contact(o, at, regard);
            }
        }
    }

    fn contact(&mut self, o: &Observation<'_>, at: Timestamp, regard: &Regard<'_>) {
        let host = self.hosts.id(regard.host);
        let asks = self.asks_owners && host == 0 && self.asked.len() < ASKED;
        let odd = self.odd.remove(&o.flow.key).unwrap_or_default();
        let Some((episode, key, is_new, mut voice)) = self.episode(o, at, host, true) else {
            return;
        };
        let is_named = matches!(key.place, Place::Domain(_));
        let odd = if is_named { odd } else { odd.with(Oddity::NoName.into()) };
        episode.oddities = episode.oddities.with(odd);
        if o.flow.bytes_in > 0 {
            episode.mark(mark::ANSWERED);
        }
        let (window, is_new_hour) = episode.contact(at, voice.settings.rhythm);
        if is_new && !regard.is_learning {
            voice.first_seen(key, episode, at);
        }
        voice.contact(key, episode, at, window, is_new_hour || !odd.is_empty());
        if asks && is_new {
            let key = key.own();
            self.asked.insert(o.flow.key, (key, regard.is_learning));
            self.to_ask.push(o.flow.key);
        }
    }

    /// Takes payload in either direction of a flow that the inside began.
    pub(crate) fn volume(
        &mut self,
        o: &Observation<'_>,
        (up, down): (u64, u64),
        regard: &Regard<'_>,
    ) {
        let regard = &self.by_signature(o, regard);
        self.settle(o, regard);
        let host = self.hosts.id(regard.host);
        if (regard.object.is_some() || regard.is_known) && up > 0 {
            self.usual(o, up, host, regard);
        }
        if !regard.is_watched() {
            return;
        }
        let odd = self.odd.remove(&o.flow.key).unwrap_or_default();
        let mut grown = up.saturating_sub(down);
        if let Some((episode, key, _, mut voice)) = self.episode(o, o.at, host, false) {
            episode.oddities = episode.oddities.with(odd);
            if o.flow.bytes_in > 0 {
                episode.mark(mark::ANSWERED);
            }
            let before = episode.bytes.highest();
            grown = episode.bytes.add(up, down) - before;
            if grown > 0 {
                voice.volume(key, episode, o.at);
            }
        }
        self.host_bytes(o.at, host, regard.host, (grown, 0));
        let Some(host) = self.hosts.of(host) else { return };
        let least = self.settings.push_bytes;
        if let Some(push) = host.staging.push(o.at, up)
            && push.pushed >= least.saturating_mul(1 << (2 * u32::from(host.staging.told)).min(40))
        {
            host.staging.told = host.staging.told.saturating_add(1);
            let key = host_key(host.workload());
            self.told.push(Told::of_host(key, o.at, What::Push(push)));
        }
    }

    /// Takes payload that an inside host answered to a stranger.
    pub(crate) fn answered(&mut self, at: Timestamp, host: Option<IpAddr>, bytes: u64) {
        let id = self.hosts.id(host);
        self.host_bytes(at, id, host, (0, bytes));
    }

    /// Takes payload that came to an inside host from another.
    pub(crate) fn pulled(&mut self, at: Timestamp, host: Option<IpAddr>, bytes: u64) {
        let id = self.hosts.id(host);
        if let Some(host) = self.hosts.of(id) {
            host.staging.pull(at, bytes);
        }
    }

    /// Takes a fall of free space on a volume of data of the own host within an hour.
    pub fn space_fell(&mut self, at: Timestamp, bytes: u64) {
        if let Some(host) = self.hosts.of(0) {
            host.staging.space_fell(at, bytes);
        }
    }

    fn host_bytes(
        &mut self,
        at: Timestamp,
        id: u16,
        address: Option<IpAddr>,
        (net, answered): (u64, u64),
    ) {
        let Some(host) = self.hosts.of(id) else {
            self.hosts.others(at, address, net.saturating_add(answered));
            return;
        };
        host.day.add(at, net, answered);
        if self.unlocked.is_locked(Channel::HostBudget) {
            return;
        }
        if let Some(score) = telling::host_budget(&host.day)
            && let Some(tier) = self.unlocked.tier(Channel::HostBudget, score.score)
        {
            let key = host_key(host.workload());
            let told = Told::of_host(key, at, What::Channel);
            self.told.push(Told { score: Some(score), tier: Some(tier), ..told });
        }
    }

    /// The episode of a flow, made if it is new; `seen` says whether this is a contact.
    fn episode<'a>(
        &'a mut self,
        o: &'a Observation<'_>,
        at: Timestamp,
        host: u16,
        seen: bool,
    ) -> Option<(&'a mut Episode, At<'a>, bool, Voice<'a>)> {
        let Self { table, adopters, bound, asn, settings, unlocked, tails, told, .. } = self;
        let Self { hosts, workloads, finished, lost, capacity, gone, crossed, .. } = self;
        let place = place_of(bound, asn.as_deref(), &o.flow);
        let adopters = if seen { adopters_of(adopters, hosts, place, host) } else { 1 };
        let service = Service::new(o.flow.key.transport, o.flow.key.remote.port());
        let key = At { place, host, service: Some(service) };
        let tails = tails.as_deref();
        let halves = Halves { settings, unlocked, tails };
        let hash = key.hash(table.hasher());
        let before = table.evicted().saturating_add(table.refused());
        let is_flooded = !gone.1 && before - gone.0.min(before) >= flood_of(*capacity);
        let mut voice = Voice { settings, unlocked, tails, hosts, workloads, told };
        if is_flooded {
            gone.1 = true;
            voice.flood(host, at, before - gone.0);
        }
        let is_it = |known: &Key| known.is(&key);
        let known = if seen { None } else { table.place(hash, is_it) };
        let (episode, is_new) = if let Some(place) = known {
            (table.at_place(place)?, false)
        } else {
            let make = || (key.own(), Episode::new(at, 0));
            let entered = table.enter(hash, is_it, make, |value| !halves.protect(value))?;
            (entered.value, entered.is_new)
        };
        if episode.is_over(at) {
            let over = crossed.tell(voice.record(key, episode));
            crossed.forget(&over.key);
            if finished.len() < *capacity {
                finished.push(over);
            } else {
                *lost += 1;
            }
            let (workload, hosts) = (episode.workload, episode.hosts);
            *episode = Episode::new(at, workload);
            episode.hosts = hosts;
        }
        episode.hosts = episode.hosts.max(adopters);
        Some((episode, key, is_new, voice))
    }

    /// Upload to a destination that is usual.
    fn usual(&mut self, o: &Observation<'_>, up: u64, host: u16, regard: &Regard<'_>) {
        let Self { envelopes, bound, asn, settings, unlocked, tails, told, .. } = self;
        let Self { hosts, workloads, .. } = self;
        let place = match regard.object {
            Some(object) => Place::Object(object),
            None => place_of(bound, asn.as_deref(), &o.flow),
        };
        let key = At { place, host, service: None };
        let hash = key.hash(envelopes.hasher());
        let half = unlocked.least(Channel::Approved).min(settings.approved_log10) / 2.0;
        let may_go = |known: &Envelope| known.score().is_none_or(|score| score < half);
        let make = || (key.own(), Envelope::new(o.at));
        let Some(entered) = envelopes.enter(hash, |known| known.is(&key), make, may_go) else {
            return;
        };
        if let Some(score) = entered.value.add(o.at, up) {
            let tails = tails.as_deref();
            let mut voice = Voice { settings, unlocked, tails, hosts, workloads, told };
            voice.usual(key, entered.value, score, o.at);
        }
    }

    /// Asks from now on who owns the first flow of each new episode of the own host.
    pub(crate) const fn ask_owners(&mut self) {
        self.asks_owners = true;
    }

    /// The next flow whose owner is to be asked for.
    pub(crate) fn next_to_ask(&mut self) -> Option<FlowKey> {
        self.to_ask.pop()
    }

    /// Takes in who owns a flow that was asked about: its episode is that workload's from now on.
    pub(crate) fn adopt_owner(&mut self, flow: &FlowKey, process: Option<&Process>) {
        let Some((key, is_learning)) = self.asked.remove(flow) else { return };
        let workload = match process {
            Some(Process { container: Some(container), .. }) => {
                Workload::Container(container.as_str().into())
            }
            Some(Process { unit: Some(unit), .. }) => Workload::Unit(unit.as_str().into()),
            Some(Process { exe: Some(exe), .. }) => Workload::Program(exe.as_str().into()),
            _ => return,
        };
        let known = self.workloads.iter().position(|known| *known == workload);
        let is_new = known.is_none();
        let place = match known {
            Some(place) => place,
            None if self.workloads.len() < WORKLOADS => {
                self.workloads.push(workload);
                self.workloads.len() - 1
            }
            None => return,
        };
        let hash = key.at().hash(self.table.hasher());
        if let Some(episode) = self.table.find_mut(hash, |known| *known == key) {
            episode.workload = u16::try_from(place).unwrap_or(0);
            if is_new && !is_learning {
                episode.oddities = episode.oddities.with(Oddity::NewProcess.into());
            }
        }
    }

    /// Hands on what hosts, names and envelopes said within seven days that are over.
    fn end_weeks(&mut self, at: Timestamp) {
        let mut over = Vec::new();
        for host in self.hosts.all_mut().filter(|host| host.day.is_over(at)) {
            let score = telling::host_budget(&host.day).filter(|score| score.score > 0.0);
            over.extend(
                score.map(|score| telling::of_channel(host_key(host.workload()), score, at)),
            );
            host.day.begin_anew(at);
        }
        for slot in self.names.slots_mut().filter(|slot| slot.value.is_over(at)) {
            let score = telling::dns(&slot.value).filter(|score| score.score > 0.0);
            let key = || asked_key(&self.hosts, slot.key.0, slot.key.1.at());
            over.extend(score.map(|score| telling::of_channel(key(), score, at)));
            slot.value.begin_anew(at);
        }
        for slot in self.envelopes.slots_mut().filter(|slot| slot.value.is_over(at)) {
            let key = || named(&self.hosts, &self.workloads, slot.key.at(), 0);
            let score = telling::approved(&slot.value);
            over.extend(score.map(|score| telling::of_channel(key(), score, at)));
            slot.value.begin_anew(at);
        }
        let room = self.capacity.saturating_sub(self.finished.len());
        self.lost += over.len().saturating_sub(room) as u64;
        self.finished.extend(over.into_iter().take(room).map(|over| self.crossed.tell(over)));
    }

    /// An hour is over: what no longer is half-way to a threshold may go again, what is over goes first.
    pub fn turn_hour(&mut self, at: Timestamp) {
        self.table.reorder(|episode| {
            let silent = at.since(episode.contact_at());
            episode.is_over(at) && silent >= episode::LASTS
        });
        self.envelopes.reorder(|_| false);
        self.names.reorder(|_| false);
        self.echoes.reorder(|echoes| echoes.within(at) == 0);
        self.end_weeks(at);
        self.crossed.turn_hour(at);
        self.gone = (self.table.evicted().saturating_add(self.table.refused()), false);
    }
}

/// Hosts that were seen with a destination, one more being this; one, where a single host is watched.
fn adopters_of(
    adopters: &mut SpaceSaving<Key, Adopters>,
    hosts: &Hosts,
    place: Place<'_>,
    host: u16,
) -> u8 {
    if hosts.is_alone() && adopters.len() == 0 {
        return 1;
    }
    let at = At { place, host: 0, service: None };
    let hash = at.hash(adopters.hasher());
    let make = || (at.own(), Adopters::default());
    let Some(entered) = adopters.enter(hash, |key| key.is(&at), make, |_| true) else {
        return 1;
    };
    let Adopters { hosts, count, fleet } = entered.value;
    let known = hosts.iter().take(usize::from(*count)).any(|known| *known == host);
    if !known && let Some(place) = hosts.get_mut(usize::from(*count)) {
        *place = host;
        *count += 1;
    }
    (*count).max(*fleet).max(1)
}

#[cfg(test)]
mod tests;
