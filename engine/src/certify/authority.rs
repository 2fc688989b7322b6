//! What a score may do now: thresholds with a promise, held by governor and drift guard.

use super::cluster::CLUSTER_HOSTS;
use super::drift::DriftGuard;
use super::episode::{Channel, EpisodeKey, EpisodeScore, Tier};
use super::governor::{Governor, RETURNS_AFTER};
use super::threshold::floor_of;
use sekisho_schema::baseline::ChangeWindow;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::ruling::{Reduced, Ruling};
use sekisho_schema::{Span, Timestamp, Verified};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys whose ruling of the last seven days is remembered; beyond, the oldest is forgotten.
const REMEMBERED: usize = 4096;
/// Weeks between two cuts of a host that goes by its own share, at most.
const LONGEST_SHARE: f64 = 520.0;

/// The collector's word on the fleet's cuts counts for so long; after it a host goes by its own share.
pub const FLEET_WORD_LASTS: Span = Span::from_secs(15 * 60);

/// What the collector said last of the automatic cuts of a role in seven days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetWord {
    /// How many a week may have.
    pub of: u32,
    /// How many are left.
    pub left: u32,
    /// When it was said, by this host's clock.
    pub at: Timestamp,
}

/// The authority of a host.
#[derive(Debug)]
pub struct Authority {
    certificate: Option<Verified<Certificate>>,
    windows: Vec<ChangeWindow>,
    state: AuthorityState,
}

/// What of an authority outlives a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityState {
    governor: Governor,
    drift: DriftGuard,
    /// Version of the certificate that the drift guard watches.
    version: u64,
    ruled: Vec<Ruled>,
    /// `None` for a host that is in no fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fleet: Option<FleetWord>,
    /// The last cut that this host took a token for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut_at: Option<Timestamp>,
    /// What a dry run would have spent: it takes no token of the governor.
    #[serde(default = "empty")]
    rehearsed: Governor,
}

fn empty() -> Governor {
    Governor::new(0.0, 1)
}

/// What becomes of a ruling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Acting {
    /// Policy does nothing about the channel: it is told.
    Tells,
    /// Everything is decided and withheld.
    Rehearses,
    /// It is done.
    Acts,
}

/// What was ruled last about a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruled {
    key: EpisodeKey,
    channel: Channel,
    reached: Tier,
    at: Timestamp,
    /// Whether a change window let it pass: what goes beyond that is ruled anew.
    announced: bool,
    /// Whether policy did something about it: once it does, it is ruled anew.
    #[serde(default = "acts")]
    acts: bool,
    /// Whether a dry run decided it: once it is enforced, it is ruled anew.
    #[serde(default)]
    rehearsed: bool,
    /// Whether a token was taken for it, or would have been.
    #[serde(default)]
    cut: bool,
}

impl Ruled {
    const fn acting(&self) -> Acting {
        match (self.acts, self.rehearsed) {
            (true, _) => Acting::Acts,
            (false, true) => Acting::Rehearses,
            (false, false) => Acting::Tells,
        }
    }
}

const fn acts() -> bool {
    true
}

impl AuthorityState {
    /// The automatic cuts of a week.
    #[must_use]
    pub const fn governor(&self) -> &Governor {
        &self.governor
    }

    /// The cuts of a week that a dry run would have made: of as many tokens as the governor has.
    #[must_use]
    pub const fn rehearsed(&self) -> &Governor {
        &self.rehearsed
    }

    /// The running test of the promise.
    #[must_use]
    pub const fn drift(&self) -> &DriftGuard {
        &self.drift
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            certificate: None,
            windows: Vec::new(),
            state: AuthorityState {
                governor: Governor::new(0.0, 1),
                drift: DriftGuard::new(0.0),
                version: 0,
                ruled: Vec::new(),
                fleet: None,
                cut_at: None,
                rehearsed: empty(),
            },
        }
    }
}

impl Authority {
    /// Goes on where an earlier run stopped; before the certificate is given.
    pub fn restore(&mut self, state: AuthorityState) {
        self.state = state;
    }

    /// What outlives a restart.
    #[must_use]
    pub const fn state(&self) -> &AuthorityState {
        &self.state
    }

    /// Takes a certificate into force. A newer one ends a revocation; the tokens that are out stay out.
    pub fn certify(&mut self, certificate: Verified<Certificate>) {
        let promise =
            certificate.promise(Tier::CutDestination) + certificate.promise(Tier::IsolateHost);
        self.state.governor.resize(promise, 1);
        self.state.rehearsed.resize(promise, 1);
        if certificate.version != self.state.version {
            self.state.drift = DriftGuard::new(promise);
            self.state.version = certificate.version;
        }
        self.certificate = Some(certificate);
    }

    /// Takes the collector's word on the fleet's cuts.
    pub const fn fleet(&mut self, word: FleetWord) {
        self.state.fleet = Some(word);
    }

    /// Gives the certificate back: nothing is granted any more, and what was spent stays spent.
    pub fn withdraw(&mut self) {
        self.certificate = None;
    }

    /// Takes the change windows of a baseline into force.
    pub fn announce(&mut self, windows: Vec<ChangeWindow>) {
        self.windows = windows;
    }

    /// The change windows in force, open or not.
    #[must_use]
    pub fn windows(&self) -> &[ChangeWindow] {
        &self.windows
    }

    /// The certificate in force.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    /// Whether cutting was taken back.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.state.drift.revoked_at().is_some()
    }

    /// What a score may do, if it may do anything that it has not done yet; `hosts` is how many took
    /// the destination up within a day, as far as that is known.
    pub fn rule(&mut self, key: &EpisodeKey, score: &EpisodeScore, hosts: u64) -> Option<Ruling> {
        self.rule_as(key, score, hosts, Acting::Acts)
    }

    /// The same in a dry run: as it would be ruled, of a week's tokens of its own.
    pub fn rehearse(
        &mut self,
        key: &EpisodeKey,
        score: &EpisodeScore,
        hosts: u64,
    ) -> Option<Ruling> {
        self.rule_as(key, score, hosts, Acting::Rehearses)
    }

    /// The same where policy does nothing about it: it is told, and costs no token.
    pub fn tell(&mut self, key: &EpisodeKey, score: &EpisodeScore, hosts: u64) -> Option<Ruling> {
        self.rule_as(key, score, hosts, Acting::Tells)
    }

    fn rule_as(
        &mut self,
        key: &EpisodeKey,
        score: &EpisodeScore,
        hosts: u64,
        acting: Acting,
    ) -> Option<Ruling> {
        let at = score.at;
        self.state.drift.turn(at);
        let (reached, threshold, budget) = self.reached(score)?;
        let window = self.window(key, score);
        let mut ruled = Ruled {
            key: key.clone(),
            channel: score.channel,
            reached,
            at,
            announced: window.is_some(),
            acts: acting == Acting::Acts,
            rehearsed: acting == Acting::Rehearses,
            cut: false,
        };
        if self.has_ruled(&ruled) {
            return None;
        }
        let (tier, reduced) = match window {
            Some(name) => (Tier::Alert, Some(Reduced::Window { name })),
            None if acting == Acting::Tells && reached > Tier::Alert => (reached, None),
            None => self.reduce(key, score, (reached, acting), hosts),
        };
        ruled.cut = tier > Tier::Hold && acting > Acting::Tells;
        self.remember(ruled);
        Some(Ruling {
            key: key.clone(),
            score: score.clone(),
            reached,
            tier,
            threshold,
            counter_threshold: score.score,
            budget,
            reduced,
        })
    }

    /// The hardest tier whose threshold a score is above; an alert needs no certificate.
    fn reached(&self, score: &EpisodeScore) -> Option<(Tier, f64, f64)> {
        if let Some(certificate) = &self.certificate {
            for tier in [Tier::IsolateHost, Tier::CutDestination, Tier::Hold] {
                let threshold = certificate.threshold(tier, score.channel);
                if let Some(threshold) = threshold.filter(|threshold| score.score > *threshold) {
                    let budget = certificate.grant(tier, score.channel)?.budget;
                    return Some((tier, threshold, budget));
                }
            }
        }
        let floor = floor_of(score.channel);
        (score.score > floor).then_some((Tier::Alert, floor, 0.0))
    }

    /// The change window that covers a score: it was announced with an amount, and what is beyond that was not.
    fn window(&self, key: &EpisodeKey, score: &EpisodeScore) -> Option<String> {
        let window = self.windows.iter().find(|window| window.covers(key, score.at))?;
        let is_within = match score.channel {
            Channel::Allowance => score.score <= window.upload as f64,
            // The budget of a host is about no destination in particular.
            Channel::HostBudget => false,
            _ => true,
        };
        is_within.then(|| window.name.clone())
    }

    /// The tier that is acted on, and why it is milder than the one that was reached.
    fn reduce(
        &mut self,
        key: &EpisodeKey,
        score: &EpisodeScore,
        (reached, acting): (Tier, Acting),
        hosts: u64,
    ) -> (Tier, Option<Reduced>) {
        match reached {
            Tier::Alert => (Tier::Alert, self.why_locked(score.channel)),
            Tier::Hold => (Tier::Hold, None),
            // One episode is one cut, whatever the number of channels that ask for it.
            _ if self.is_cut(key, reached, acting) => (reached, None),
            _ => self.reduce_cut(score.at, (reached, acting), hosts),
        }
    }

    /// Whether a token was taken for as much within seven days, by any channel.
    fn is_cut(&self, key: &EpisodeKey, reached: Tier, acting: Acting) -> bool {
        self.state.ruled.iter().any(|ruled| {
            ruled.cut && ruled.key == *key && ruled.reached >= reached && ruled.acting() >= acting
        })
    }

    fn reduce_cut(
        &mut self,
        at: Timestamp,
        (reached, acting): (Tier, Acting),
        hosts: u64,
    ) -> (Tier, Option<Reduced>) {
        if hosts >= CLUSTER_HOSTS as u64 {
            return (Tier::Hold, Some(Reduced::Cluster { hosts }));
        }
        if acting == Acting::Rehearses {
            // The promise is about cuts: what is withheld tests it no more than it spends it.
            if self.is_revoked() {
                return (Tier::Hold, Some(Reduced::Revoked));
            }
            if !self.state.rehearsed.take(at) {
                return (Tier::Hold, Some(Reduced::Spent { of: self.state.rehearsed.size() }));
            }
            return (reached, None);
        }
        self.state.drift.note(at);
        if self.is_revoked() {
            return (Tier::Hold, Some(Reduced::Revoked));
        }
        if let Some(of) = self.spent_by_fleet(at) {
            return (Tier::Hold, Some(Reduced::Spent { of }));
        }
        if !self.state.governor.take(at) {
            return (Tier::Hold, Some(Reduced::Spent { of: self.state.governor.size() }));
        }
        self.state.cut_at = self.state.cut_at.max(Some(at));
        (reached, None)
    }

    /// How many cuts a week may have, when the fleet has none left for this host.
    ///
    /// A host that hears nothing goes by its share: as often as the promise says of one host, so that a fleet
    /// without its collector keeps the promise too.
    fn spent_by_fleet(&self, at: Timestamp) -> Option<u32> {
        let word = self.state.fleet?;
        // A word from before the clock stepped back is as good as none.
        let is_fresh =
            word.at <= at.after(FLEET_WORD_LASTS) && at < word.at.after(FLEET_WORD_LASTS);
        if is_fresh {
            return (word.left == 0).then_some(word.of);
        }
        let promise = self.certificate.as_ref().map_or(0.0, |certificate| {
            certificate.promise(Tier::CutDestination) + certificate.promise(Tier::IsolateHost)
        });
        let weeks = if promise > 0.0 { (1.0 / promise).min(LONGEST_SHARE) } else { LONGEST_SHARE };
        let share = Span::from_secs((weeks * RETURNS_AFTER.as_secs_f64()).ceil() as i64);
        let is_spent = self.state.cut_at.is_some_and(|cut| at < cut.after(share));
        is_spent.then_some(self.state.governor.size())
    }

    /// Why nothing but an alert is possible in a channel; `None` when the score is just too low.
    fn why_locked(&self, channel: Channel) -> Option<Reduced> {
        let Some(certificate) = &self.certificate else {
            return Some(Reduced::Locked { missing_host_weeks: None });
        };
        if certificate.undecided > 0 {
            return Some(Reduced::Undecided { items: certificate.undecided });
        }
        let hold = certificate.grant(Tier::Hold, channel)?;
        hold.threshold
            .is_none()
            .then_some(Reduced::Locked { missing_host_weeks: Some(hold.missing_host_weeks) })
    }

    /// Whether as much was ruled within seven days: an episode is told once per tier, and costs one token.
    fn has_ruled(&mut self, now: &Ruled) -> bool {
        self.state.ruled.retain(|ruled| now.at < ruled.at.after(RETURNS_AFTER));
        self.state.ruled.iter().any(|ruled| {
            ruled.key == now.key
                && ruled.channel == now.channel
                && ruled.reached >= now.reached
                && (now.announced || !ruled.announced)
                && ruled.acting() >= now.acting()
        })
    }

    fn remember(&mut self, now: Ruled) {
        self.state.ruled.retain(|ruled| ruled.key != now.key || ruled.channel != now.channel);
        if self.state.ruled.len() >= REMEMBERED {
            self.state.ruled.remove(0);
        }
        self.state.ruled.push(now);
    }

    /// What is granted and what is locked, by tier and channel.
    #[must_use]
    pub fn standing(&self) -> BTreeMap<(Tier, Channel), Result<f64, Reduced>> {
        let mut standing = BTreeMap::new();
        for tier in [Tier::Hold, Tier::CutDestination, Tier::IsolateHost] {
            for channel in Channel::ALL {
                let Some(certificate) = &self.certificate else {
                    let none = Reduced::Locked { missing_host_weeks: None };
                    standing.insert((tier, channel), Err(none));
                    continue;
                };
                let Some(grant) = certificate.grant(tier, channel) else { continue };
                let stands = match grant.threshold {
                    _ if certificate.undecided > 0 => {
                        Err(Reduced::Undecided { items: certificate.undecided })
                    }
                    _ if tier > Tier::Hold && self.is_revoked() => Err(Reduced::Revoked),
                    Some(threshold) => Ok(threshold),
                    None => {
                        Err(Reduced::Locked { missing_host_weeks: Some(grant.missing_host_weeks) })
                    }
                };
                standing.insert((tier, channel), stands);
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests;
