//! The guard against poisoned learning: what must not become normal, nor raise a threshold, unless a
//! person has looked at it and signed.

use super::cluster::{CLUSTER_HOSTS, Prevalence, is_of_the_host};
use super::episode::{Channel, DNS_TELLS, EpisodeKey, RHYTHM_PROVEN};
use super::sentence::amount;
use sekisho_schema::baseline::{Entry, Episode, Pool, RefusedEntry, RoleBaseline};
use sekisho_schema::episode::Oddity;
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A rhythm that lasts longer than this takes a signature.
pub const REGULAR_FOR: Span = Span::from_hours(24);
/// More net upload than this takes a signature, in bytes.
pub const LARGE: u64 = 10_000_000;
/// Contact on so many days takes a signature.
pub const PERSISTENT_DAYS: u32 = 3;

/// Why something takes a signature.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Why {
    /// Much went up.
    Large {
        /// Net payload bytes.
        net: u64,
    },
    /// Names below it carried information.
    Names {
        /// Bytes of it within an hour.
        bytes: f64,
    },
    /// Something is odd about its protocol.
    Odd {
        /// What.
        oddity: Oddity,
    },
    /// It came back on several days.
    Persistent {
        /// How many.
        days: u32,
    },
    /// It kept a rhythm.
    Regular {
        /// log10 of the odds against unplanned traffic.
        log10_odds: f64,
        /// For how long.
        lasted: Span,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { net } => {
                write!(f, "{} went up net", amount(Channel::Allowance, *net as f64))
            }
            Self::Names { bytes } => {
                write!(f, "names below it carried {bytes:.0} B of information within an hour")
            }
            Self::Odd { oddity } => f.write_str(oddity.words()),
            Self::Persistent { days } => write!(f, "it came back on {days} days"),
            Self::Regular { log10_odds, lasted } => write!(
                f,
                "it kept a rhythm for {} h, which unplanned traffic does once in 10^{log10_odds:.0}",
                lasted.nanos() / 3_600_000_000_000
            ),
        }
    }
}

/// Oddities that take a signature: those that benign software has seldom.
const fn is_grave(oddity: Oddity) -> bool {
    match oddity {
        Oddity::EncryptedFirstPayload
        | Oddity::HttpToAddress
        | Oddity::NoServerName
        | Oddity::NotTls443 => true,
        Oddity::NewProcess | Oddity::NoName | Oddity::SelfSigned => false,
    }
}

/// Why an episode takes a signature; empty when nothing about it does.
#[must_use]
pub fn reasons(episode: &Episode) -> Vec<Why> {
    let mut why = Vec::new();
    let lasted = episode.last_at.since(episode.first_at);
    if episode.rhythm >= RHYTHM_PROVEN && lasted > REGULAR_FOR {
        why.push(Why::Regular { log10_odds: episode.rhythm, lasted });
    }
    if episode.net > LARGE {
        why.push(Why::Large { net: episode.net });
    }
    if episode.days >= PERSISTENT_DAYS {
        why.push(Why::Persistent { days: episode.days });
    }
    if let Some(names) = episode.score(Channel::Dns).filter(|names| names.score > DNS_TELLS) {
        why.push(Why::Names { bytes: names.score });
    }
    let grave = episode.oddities.iter().filter(|oddity| is_grave(**oddity));
    why.extend(grave.map(|oddity| Why::Odd { oddity: *oddity }));
    why
}

/// Something that a person shall look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// Its name for `approve` and `refuse`: eight hexadecimal digits of its key.
    pub id: String,
    /// Who and to whom.
    pub key: EpisodeKey,
    /// On which hosts.
    pub hosts: Vec<String>,
    /// First contact.
    pub first_at: Timestamp,
    /// Last contact.
    pub last_at: Timestamp,
    /// The largest net upload of an episode, in bytes.
    pub net: u64,
    /// The largest upload of an episode, in bytes.
    pub up: u64,
    /// Why it takes a signature.
    pub why: Vec<Why>,
    /// One sentence.
    pub sentence: String,
}

/// How an item was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing about it takes a signature, or three hosts and more have it.
    Free,
    /// A person signed it.
    Approved,
    /// A person refused it.
    Refused,
    /// Nobody has decided.
    Undecided,
}

/// What stands where, looked up once for a pool.
#[derive(Debug)]
pub struct Desk<'a> {
    prevalence: &'a Prevalence,
    approved: BTreeSet<EpisodeKey>,
    refused: BTreeSet<EpisodeKey>,
}

impl<'a> Desk<'a> {
    /// The decisions in a baseline.
    #[must_use]
    pub fn new(baseline: &RoleBaseline, prevalence: &'a Prevalence) -> Self {
        // What entered without a signature was free then; to take one now it must be signed.
        let signed = baseline.entry.iter().filter(|entry| entry.signed_by.is_some());
        Self {
            prevalence,
            approved: signed.map(Entry::key).collect(),
            refused: baseline.refused.iter().map(RefusedEntry::key).collect(),
        }
    }

    /// How an episode stands.
    #[must_use]
    pub fn standing(&self, episode: &Episode) -> Standing {
        // A host is no destination, and what is measured against its own past is in the baseline already.
        if is_of_the_host(episode) || episode.score(Channel::Approved).is_some() {
            return Standing::Free;
        }
        if self.refused.contains(&episode.key) {
            return Standing::Refused;
        }
        if self.approved.contains(&episode.key) {
            return Standing::Approved;
        }
        let common = (episode.key.destination.clone(), episode.key.service);
        let is_single = self.prevalence.hosts(&common) < CLUSTER_HOSTS as u64;
        if is_single && !reasons(episode).is_empty() { Standing::Undecided } else { Standing::Free }
    }
}

/// Everything that nobody has decided yet, in the order of keys.
#[must_use]
pub fn list(pool: &Pool, baseline: &RoleBaseline) -> Vec<Item> {
    let prevalence = Prevalence::of(pool);
    let desk = Desk::new(baseline, &prevalence);
    let mut items: BTreeMap<EpisodeKey, Item> = BTreeMap::new();
    for (host, episode) in &pool.episodes {
        if desk.standing(episode) != Standing::Undecided {
            continue;
        }
        let item = items.entry(episode.key.clone()).or_insert_with(|| Item {
            id: id_of(&episode.key),
            key: episode.key.clone(),
            hosts: Vec::new(),
            first_at: episode.first_at,
            last_at: episode.last_at,
            net: 0,
            up: 0,
            why: Vec::new(),
            sentence: String::new(),
        });
        if !item.hosts.contains(host) {
            item.hosts.push(host.clone());
        }
        item.first_at = item.first_at.min(episode.first_at);
        item.last_at = item.last_at.max(episode.last_at);
        item.net = item.net.max(episode.net);
        item.up = item.up.max(episode.up);
        for why in reasons(episode) {
            merge(&mut item.why, why);
        }
    }
    let mut items: Vec<Item> = items.into_values().collect();
    for item in &mut items {
        item.sentence = sentence(item);
    }
    items
}

/// Of two reasons of a kind the graver stays.
fn merge(known: &mut Vec<Why>, why: Why) {
    let same = known.iter_mut().find(|other| match (&**other, &why) {
        (Why::Odd { oddity: a }, Why::Odd { oddity: b }) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    });
    let Some(other) = same else {
        known.push(why);
        return;
    };
    let is_graver = match (&*other, &why) {
        (Why::Large { net: a }, Why::Large { net: b }) => b > a,
        (Why::Names { bytes: a }, Why::Names { bytes: b }) => b > a,
        (Why::Persistent { days: a }, Why::Persistent { days: b }) => b > a,
        (Why::Regular { lasted: a, .. }, Why::Regular { lasted: b, .. }) => b > a,
        _ => false,
    };
    if is_graver {
        *other = why;
    }
}

fn sentence(item: &Item) -> String {
    let why: Vec<String> = item.why.iter().map(Why::to_string).collect();
    format!("{} on {}: {}", item.key, item.hosts.join(", "), why.join("; "))
}

/// The name of a key: eight hexadecimal digits of the SHA-256 of its text.
#[must_use]
pub fn id_of(key: &EpisodeKey) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{}\n{}\n{}", key.workload, key.destination, key.service);
    sekisho_schema::sealed::hex(&Sha256::digest(text.as_bytes())).chars().take(8).collect()
}

/// Who decides, when, and in what words.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    /// The person.
    pub by: &'a str,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: &'a str,
}

/// The next version of a baseline: what nobody needs to sign enters by itself, with its envelope.
#[must_use]
pub fn draft(pool: &Pool, baseline: &RoleBaseline, at: Timestamp) -> RoleBaseline {
    let prevalence = Prevalence::of(pool);
    let desk = Desk::new(baseline, &prevalence);
    let mut entries: BTreeMap<EpisodeKey, Entry> =
        baseline.entry.iter().map(|entry| (entry.key(), entry.clone())).collect();
    let mut undecided = BTreeSet::new();
    for (_, episode) in &pool.episodes {
        if desk.standing(episode) == Standing::Undecided {
            undecided.insert(episode.key.clone());
        }
    }
    for (_, episode) in &pool.episodes {
        if is_of_the_host(episode) {
            continue;
        }
        let standing = desk.standing(episode);
        let is_out = standing == Standing::Refused || undecided.contains(&episode.key);
        if is_out && !entries.contains_key(&episode.key) {
            continue;
        }
        let common = (episode.key.destination.clone(), episode.key.service);
        let hosts = prevalence.hosts(&common);
        let entry = entries.entry(episode.key.clone()).or_insert_with(|| entry_of(episode, hosts));
        entry.first_seen = entry.first_seen.min(episode.first_at);
        entry.last_seen = entry.last_seen.max(episode.last_at);
        entry.hosts = entry.hosts.max(hosts);
        if !is_out {
            entry.upload = grown(baseline, &episode.key, entry.upload, episode.up);
        }
    }
    RoleBaseline {
        version: baseline.version + 1,
        made_at: at,
        entry: entries.into_values().collect(),
        ..baseline.clone()
    }
}

/// An envelope with what was uploaded since. One that was there before grows by half at most, so that
/// who uploads a little more each time does not raise it as fast as they like.
fn grown(baseline: &RoleBaseline, key: &EpisodeKey, now: u64, up: u64) -> u64 {
    let before = baseline.entry.iter().find(|entry| entry.key() == *key);
    let at_most =
        before.map_or(u64::MAX, |entry| entry.upload.saturating_add(entry.upload / 2).max(LARGE));
    now.max(up.min(at_most))
}

fn entry_of(episode: &Episode, hosts: u64) -> Entry {
    Entry {
        workload: episode.key.workload.clone(),
        destination: episode.key.destination.clone(),
        service: episode.key.service,
        first_seen: episode.first_at,
        last_seen: episode.last_at,
        hosts,
        upload: episode.up,
        signed_by: None,
        signed_at: None,
        reason: None,
    }
}

/// The next version of a baseline, with items signed.
#[must_use]
pub fn approve(baseline: &RoleBaseline, items: &[Item], signer: &Signer<'_>) -> RoleBaseline {
    let mut next = decided(baseline, items, signer);
    next.entry.extend(items.iter().map(|item| Entry {
        workload: item.key.workload.clone(),
        destination: item.key.destination.clone(),
        service: item.key.service,
        first_seen: item.first_at,
        last_seen: item.last_at,
        hosts: item.hosts.len() as u64,
        upload: item.up,
        signed_by: Some(signer.by.to_owned()),
        signed_at: Some(signer.at),
        reason: Some(signer.reason.to_owned()),
    }));
    next.entry.sort_by_key(Entry::key);
    next
}

/// The next version of a baseline, with items that shall stay held.
#[must_use]
pub fn refuse(baseline: &RoleBaseline, items: &[Item], signer: &Signer<'_>) -> RoleBaseline {
    let mut next = decided(baseline, items, signer);
    next.refused.extend(items.iter().map(|item| RefusedEntry {
        workload: item.key.workload.clone(),
        destination: item.key.destination.clone(),
        service: item.key.service,
        signed_by: signer.by.to_owned(),
        signed_at: signer.at,
        reason: signer.reason.to_owned(),
    }));
    next.refused.sort_by_key(RefusedEntry::key);
    next
}

/// The next version without earlier decisions on the items.
fn decided(baseline: &RoleBaseline, items: &[Item], signer: &Signer<'_>) -> RoleBaseline {
    let keys: BTreeSet<&EpisodeKey> = items.iter().map(|item| &item.key).collect();
    let mut next = baseline.clone();
    next.version += 1;
    next.made_at = signer.at;
    next.entry.retain(|entry| !keys.contains(&entry.key()));
    next.refused.retain(|entry| !keys.contains(&entry.key()));
    next
}

#[cfg(test)]
mod tests {
    use super::super::episode::{ScoreInputs, input, scored};
    use super::super::sample::{START, aiko, fleet, hour, key, learned, pool, upload};
    use super::*;

    fn nothing() -> RoleBaseline {
        RoleBaseline::empty("web", START)
    }

    /// Contact over so many hours with these properties, a few bytes each.
    fn lasting(destination: &str, hours: i64, days: u32, rhythm: f64) -> Episode {
        Episode { last_at: hour(hours), days, rhythm, ..upload(destination, 5000) }
    }

    #[test]
    fn what_is_regular_large_odd_or_persistent_is_listed_and_nothing_else() {
        let mut odd = upload("odd.example", 100);
        odd.oddities = vec![Oddity::NoName, Oddity::NotTls443];
        let mut unnamed = upload("unnamed.example", 100);
        unnamed.oddities = vec![Oddity::NoName];
        let episodes = vec![
            lasting("beacon.example", 25, 2, 6.0),
            lasting("brief.example", 24, 2, 40.0),
            lasting("irregular.example", 160, 2, 5.9),
            lasting("daily.example", 60, 3, 0.0),
            upload("large.example", LARGE + 1),
            upload("small.example", LARGE),
            odd,
            unnamed,
        ];
        let items = list(&pool(&[learned("a", 1, episodes)]), &nothing());
        let listed: Vec<String> =
            items.iter().map(|item| item.key.destination.to_string()).collect();
        assert_eq!(listed, ["beacon.example", "daily.example", "large.example", "odd.example"]);
        assert_eq!(
            items[0].sentence,
            "unit:web.service to beacon.example (tcp/443) on a: it kept a rhythm for 25 h, which \
             unplanned traffic does once in 10^6"
        );
        assert_eq!(
            items[3].sentence,
            "unit:web.service to odd.example (tcp/443) on a: it speaks something else than TLS on port 443"
        );
    }

    #[test]
    fn names_that_carried_information_are_listed() {
        let mut names = upload("tunnel.example", 0);
        let inputs = ScoreInputs(vec![(input::HOUR, 616.0), (input::DAY, 616.0)]);
        names.scores = vec![scored(Channel::Dns, START, inputs).unwrap()];
        let items = list(&pool(&[learned("a", 1, vec![names])]), &nothing());
        assert!(
            items[0]
                .sentence
                .ends_with("names below it carried 616 B of information within an hour")
        );
    }

    #[test]
    fn what_three_hosts_have_enters_by_itself_and_what_two_have_is_listed_once() {
        let of = |host: &str, name: &str| learned(host, 1, vec![lasting(name, 160, 7, 40.0)]);
        let three = [of("a", "x.example"), of("b", "x.example"), of("c", "x.example")];
        assert_eq!(list(&pool(&three), &nothing()), []);
        let two = list(&pool(&three[..2]), &nothing());
        assert_eq!(two.len(), 1);
        assert_eq!(two[0].hosts, ["a", "b"]);
    }

    #[test]
    fn a_draft_takes_in_what_is_free_and_leaves_out_what_is_undecided_or_refused() {
        let mut records = fleet(2);
        records[0].episodes.push(lasting("beacon.example", 100, 5, 9.0));
        records[1].episodes.push(upload("theft.example", 1 << 30));
        let pool = pool(&records);
        let items = list(&pool, &nothing());
        let theft: Vec<Item> = items.iter().filter(|item| item.net > LARGE).cloned().collect();
        let refused = refuse(&nothing(), &theft, &aiko());
        let drafted = draft(&pool, &refused, hour(1));
        assert!(drafted.knows(&key("own1.example")) && drafted.knows(&key("own2.example")));
        assert!(!drafted.knows(&key("beacon.example")) && !drafted.knows(&key("theft.example")));
        assert_eq!((drafted.version, drafted.refused.len()), (2, 1));
        assert_eq!(list(&pool, &drafted).len(), 1);
    }

    #[test]
    fn an_approval_carries_who_when_and_why_and_ends_the_matter() {
        let pool = pool(&[learned("a", 1, vec![lasting("beacon.example", 100, 5, 9.0)])]);
        let approved = approve(&nothing(), &list(&pool, &nothing()), &aiko());
        let entry = &approved.entry[0];
        assert_eq!(
            (entry.signed_by.as_deref(), entry.signed_at, entry.reason.as_deref()),
            (Some("Aiko"), Some(START), Some("the new backup"))
        );
        assert_eq!(list(&pool, &approved), []);
        assert!(RoleBaseline::parse(&approved.to_text().unwrap()).is_ok());
        // A second thought replaces the first.
        let items = list(&pool, &nothing());
        let refused = refuse(&approved, &items, &aiko());
        assert_eq!((refused.entry.len(), refused.refused.len(), refused.version), (0, 1, 2));
    }

    #[test]
    fn an_envelope_grows_by_half_at_most_without_a_signature() {
        let first = draft(
            &pool(&[learned("a", 1, vec![upload("own.example", 8_000_000)])]),
            &nothing(),
            START,
        );
        let pool = pool(&[learned("a", 1, vec![upload("own.example", 9_900_000)])]);
        assert_eq!(draft(&pool, &first, START).entry[0].upload, 9_900_000);
        let mut large = first.clone();
        large.entry[0].upload = 1_000_000_000;
        let mut grown = upload("own.example", 9_000_000_000);
        grown.scores[0].channel = Channel::Approved;
        let pool = super::super::sample::pool(&[learned("a", 1, vec![grown])]);
        assert_eq!(draft(&pool, &large, START).entry[0].upload, 1_500_000_000);
    }

    #[test]
    fn every_item_has_a_name_of_its_own() {
        assert_ne!(id_of(&key("a.example")), id_of(&key("b.example")));
        assert_eq!(id_of(&key("a.example")).len(), 8);
    }
}
