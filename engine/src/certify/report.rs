//! The dry-run report: what a certificate would do to what was learned, and what every other threshold would.

use super::bound::poisson_upper;
use super::cluster::{CLUSTER_HOSTS, Common, Prevalence, has_contacts};
use super::episode::{Channel, EpisodeKey, EpisodeScore, Tier, scored};
use super::review::{Desk, Standing, id_of};
use super::season::unusual_moment;
use super::sentence::sentence;
use super::tails::{Features, terms};
use sekisho_schema::Timestamp;
use sekisho_schema::baseline::{Episode, Pool, RoleBaseline};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::ruling::{Reduced, Ruling};
use serde::Serialize;
use std::collections::BTreeMap;

/// Points of a curve.
const POINTS: usize = 48;

/// What would have been done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRun {
    /// The role.
    pub role: String,
    /// Hosts.
    pub hosts: u64,
    /// Weeks of one host, summed over hosts.
    pub host_weeks: f64,
    /// Beginning.
    pub from: Timestamp,
    /// End.
    pub until: Timestamp,
    /// Version of the certificate.
    pub certificate: u64,
    /// Tiers, from the hardest.
    pub tiers: Vec<TierReport>,
    /// For each channel, how many actions each threshold would have made.
    pub curves: Vec<Curve>,
    /// Every action that would have been taken, the hardest first, then by time.
    pub actions: Vec<WouldBe>,
}

/// What a tier promised and would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierReport {
    /// Which.
    pub tier: Tier,
    /// False actions per host-week that are promised, as far as granted.
    pub promised: f64,
    /// Actions that would have been taken.
    pub actions: u64,
    /// The same per host-week.
    pub per_host_week: f64,
    /// Channels that are locked, and why.
    pub locked: Vec<Locked>,
}

impl std::fmt::Display for TierReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<15} {} times, {:.3} a host-week; promised at most {:.3}",
            self.tier.name(),
            self.actions,
            self.per_host_week,
            self.promised
        )
    }
}

/// A channel of a tier that may not act.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Locked {
    /// Which.
    pub channel: Channel,
    /// Why.
    pub why: Reduced,
}

/// Threshold against actions per host-week.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The channel.
    pub channel: Channel,
    /// From the highest threshold down.
    pub points: Vec<Point>,
}

/// One threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// A score above it acts.
    pub threshold: f64,
    /// Actions per host-week, as seen.
    pub per_host_week: f64,
    /// Their upper bound at 95 %, for this channel alone.
    pub at_most: f64,
}

/// An action that would have been taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WouldBe {
    /// Its name for `approve` and `refuse`.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// On which host.
    pub host: String,
    /// Who and to whom.
    pub key: EpisodeKey,
    /// What would have been done.
    pub tier: Tier,
    /// By which channel.
    pub channel: Channel,
    /// The score.
    pub score: f64,
    /// The threshold that it is above.
    pub threshold: f64,
    /// With this threshold it would not have been done.
    pub counter_threshold: f64,
    /// Payload bytes that would have been stopped; `null` when it was not watched for.
    pub bytes_stopped: Option<u64>,
    /// Other workloads of the host that speak to the destination and would have been hit.
    pub users_hit: u64,
    /// Hosts that speak to the destination.
    pub hosts: u64,
    /// What kind of moment it was; `null` for an ordinary working hour.
    pub moment: Option<String>,
    /// How people decided: nothing to decide, approved, refused or undecided.
    pub standing: &'static str,
    /// What was made of it, to make the score again.
    pub ruling: Ruling,
    /// One sentence.
    pub sentence: String,
}

/// Makes the report.
#[must_use]
pub fn dry_run(
    pool: &Pool,
    baseline: &RoleBaseline,
    certificate: &Certificate,
    calendar: &Calendar,
) -> DryRun {
    let prevalence = Prevalence::of(pool);
    let desk = Desk::new(baseline, &prevalence);
    let mut actions = Vec::new();
    let mut scores: BTreeMap<Channel, Vec<f64>> = BTreeMap::new();
    for (host, episode) in &pool.episodes {
        let common = (episode.key.destination.clone(), episode.key.service);
        let hosts = prevalence.hosts(&common);
        let standing = desk.standing(episode);
        for score in scores_of(episode, hosts, certificate) {
            scores.entry(score.channel).or_default().push(score.score);
            let Some(ruling) =
                would_be(episode, score, certificate, cluster_of(&prevalence, &common))
            else {
                continue;
            };
            actions.push(WouldBe {
                id: id_of(&episode.key),
                at: ruling.score.at,
                host: host.clone(),
                key: episode.key.clone(),
                tier: ruling.tier,
                channel: ruling.channel(),
                score: ruling.score.score,
                threshold: ruling.threshold,
                counter_threshold: ruling.counter_threshold,
                bytes_stopped: bytes_stopped(episode, &ruling),
                users_hit: episode.users,
                hosts,
                moment: unusual_moment(calendar, ruling.score.at),
                standing: word(standing),
                sentence: sentence(&ruling),
                ruling,
            });
        }
    }
    actions.sort_by(|a, b| {
        (b.tier, a.at, &a.host, &a.key, a.channel).cmp(&(a.tier, b.at, &b.host, &b.key, b.channel))
    });
    let host_weeks = pool.host_weeks();
    DryRun {
        role: pool.role.clone(),
        hosts: pool.hosts.len() as u64,
        host_weeks,
        from: pool.from,
        until: pool.until,
        certificate: certificate.version,
        tiers: tiers(&actions, certificate, host_weeks),
        curves: scores
            .into_iter()
            .map(|(channel, scores)| Curve { channel, points: points(scores, host_weeks) })
            .collect(),
        actions,
    }
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Approved => "approved",
        Standing::Free => "nothing to decide",
        Standing::Refused => "refused",
        Standing::Undecided => "undecided",
    }
}

fn cluster_of(prevalence: &Prevalence, common: &Common) -> Option<u64> {
    prevalence.is_cluster(common).then(|| prevalence.hosts(common).max(CLUSTER_HOSTS as u64))
}

/// The scores of an episode; the sum is made here, with the tails of the certificate.
fn scores_of(episode: &Episode, hosts: u64, certificate: &Certificate) -> Vec<EpisodeScore> {
    let mut scores: Vec<EpisodeScore> =
        episode.scores.iter().filter(|score| score.channel != Channel::Sum).cloned().collect();
    if let Some(tails) = certificate.tails.as_ref().filter(|_| has_contacts(episode)) {
        let inputs = terms(tails, &Features::of(episode, hosts));
        // It is highest when the last of its parts is.
        let at = scores.iter().map(|score| score.at).max().unwrap_or(episode.last_at);
        scores.extend(scored(Channel::Sum, at, inputs));
    }
    scores
}

/// The ruling on an episode's highest score, as if governor and drift guard had let everything pass.
fn would_be(
    episode: &Episode,
    mut score: EpisodeScore,
    certificate: &Certificate,
    cluster: Option<u64>,
) -> Option<Ruling> {
    let above = |tier: &Tier| {
        certificate
            .threshold(*tier, score.channel)
            .filter(|threshold| score.score > *threshold)
            .map(|threshold| (*tier, threshold))
    };
    let (reached, threshold) =
        [Tier::IsolateHost, Tier::CutDestination, Tier::Hold].iter().find_map(above)?;
    // The moment of the crossing, where the engine watched for it.
    let crossing = episode
        .crossings
        .iter()
        .find(|crossing| crossing.channel == score.channel && crossing.tier == reached);
    if let Some(crossing) = crossing {
        score.at = crossing.at;
    }
    let reduced = cluster
        .filter(|_| reached > Tier::Hold && score.channel != Channel::HostBudget)
        .map(|hosts| Reduced::Cluster { hosts });
    let budget = certificate.grant(reached, score.channel).map_or(0.0, |grant| grant.budget);
    Some(Ruling {
        key: episode.key.clone(),
        reached,
        tier: if reduced.is_some() { Tier::Hold } else { reached },
        threshold,
        counter_threshold: score.score,
        budget,
        reduced,
        score,
    })
}

/// What went up after the crossing; of a volume at least what is above the threshold.
fn bytes_stopped(episode: &Episode, ruling: &Ruling) -> Option<u64> {
    let crossing = episode
        .crossings
        .iter()
        .find(|crossing| crossing.channel == ruling.channel() && crossing.tier == ruling.reached);
    match (crossing, ruling.channel()) {
        (Some(crossing), _) => Some(episode.up.saturating_sub(crossing.up)),
        (None, Channel::Allowance | Channel::HostBudget) => {
            Some((ruling.score.score - ruling.threshold).max(0.0) as u64)
        }
        (None, _) => None,
    }
}

fn tiers(actions: &[WouldBe], certificate: &Certificate, host_weeks: f64) -> Vec<TierReport> {
    [Tier::IsolateHost, Tier::CutDestination, Tier::Hold]
        .into_iter()
        .map(|tier| {
            let count = actions.iter().filter(|action| action.tier == tier).count() as u64;
            let of_tier = certificate.grant.iter().filter(|grant| grant.tier == tier);
            let locked = of_tier.filter_map(|grant| {
                let why = match grant.threshold {
                    _ if certificate.undecided > 0 => {
                        Reduced::Undecided { items: certificate.undecided }
                    }
                    Some(_) => return None,
                    None => Reduced::Locked { missing_host_weeks: Some(grant.missing_host_weeks) },
                };
                Some(Locked { channel: grant.channel, why })
            });
            TierReport {
                tier,
                promised: if certificate.undecided > 0 { 0.0 } else { certificate.promise(tier) },
                actions: count,
                per_host_week: if host_weeks > 0.0 { count as f64 / host_weeks } else { 0.0 },
                locked: locked.collect(),
            }
        })
        .collect()
}

/// Thresholds at the scores themselves, thinning out: the highest one by one, the rest evenly over the decades.
fn points(mut scores: Vec<f64>, host_weeks: f64) -> Vec<Point> {
    if host_weeks <= 0.0 {
        return Vec::new();
    }
    scores.sort_by(|a, b| b.total_cmp(a));
    let step = (scores.len() as f64).powf(1.0 / POINTS as f64).max(1.0);
    let mut points: Vec<Point> = Vec::new();
    let mut next = 0.0;
    for (above, threshold) in scores.iter().enumerate() {
        // Equal scores are one point, with the least of their counts.
        let is_new = points.last().is_none_or(|point| point.threshold > *threshold);
        if !is_new || (above as f64) < next {
            continue;
        }
        next = (above as f64 * step).max(above as f64 + 1.0);
        points.push(Point {
            threshold: *threshold,
            per_host_week: above as f64 / host_weeks,
            at_most: poisson_upper(above as u64, super::threshold::CONFIDENCE) / host_weeks,
        });
    }
    points
}

#[cfg(test)]
mod tests {
    use super::super::replay::replay;
    use super::super::review::{approve, list};
    use super::super::sample::{START, aiko, fleet, hour, pool, upload};
    use super::super::threshold::{CONFIDENCE, Terms, certify};
    use super::*;
    use sekisho_schema::baseline::{Crossing, Learned};
    use sekisho_schema::certificate::Budgets;
    use sekisho_schema::{Action, DecisionRecord, Finding, Grade, Subject};

    fn certificate(records: &[Learned], baseline: &RoleBaseline) -> Certificate {
        let budgets = Budgets::default();
        let terms = Terms {
            budgets: &budgets,
            confidence: CONFIDENCE,
            version: 1,
            at: START,
            agent: "0.1.0",
        };
        certify(&pool(records), baseline, &terms)
    }

    fn theft() -> Vec<Learned> {
        let mut records = fleet(40);
        let mut theft = upload("theft.example", 3_000_000_000);
        theft.users = 2;
        theft.crossings = vec![Crossing {
            tier: Tier::CutDestination,
            channel: Channel::Allowance,
            at: hour(3),
            score: 1_100_000.0,
            threshold: 1e6,
            up: 1_200_000,
        }];
        records[7].episodes.push(theft);
        records
    }

    fn report() -> DryRun {
        let nothing = RoleBaseline::empty("web", START);
        let certificate = certificate(&fleet(40), &nothing);
        dry_run(&pool(&theft()), &nothing, &certificate, &Calendar::unknown())
    }

    #[test]
    fn a_would_be_cut_tells_what_it_would_have_stopped_and_whom_it_would_have_hit() {
        let report = report();
        let cut =
            report.actions.iter().find(|action| action.channel == Channel::Allowance).unwrap();
        assert_eq!((cut.tier, cut.at, cut.host.as_str()), (Tier::CutDestination, hour(3), "h008"));
        assert_eq!((cut.bytes_stopped, cut.users_hit), (Some(2_998_800_000), 2));
        assert_eq!(cut.moment.as_deref(), Some("outside working hours"));
        assert_eq!(cut.standing, "undecided");
        assert!(cut.sentence.contains("would not be at 3.0 GB"), "{}", cut.sentence);
        let tier = report.tiers.iter().find(|tier| tier.tier == Tier::CutDestination).unwrap();
        assert_eq!(tier.actions, report.actions.len() as u64);
        let isolate = report.tiers.first().unwrap();
        assert_eq!(
            (isolate.tier, isolate.actions, isolate.locked.len()),
            (Tier::IsolateHost, 0, 3)
        );
    }

    #[test]
    fn a_counter_threshold_is_one_at_which_it_would_not_have_been() {
        let nothing = RoleBaseline::empty("web", START);
        for action in report().actions {
            let mut raised = certificate(&fleet(40), &nothing);
            for grant in &mut raised.grant {
                if grant.channel == action.channel {
                    grant.threshold = grant.threshold.map(|_| action.counter_threshold);
                }
            }
            let again = dry_run(&pool(&theft()), &nothing, &raised, &Calendar::unknown());
            assert!(again.actions.iter().all(|other| other.channel != action.channel));
        }
    }

    #[test]
    fn a_curve_falls_from_the_highest_threshold_and_its_bound_lies_above_it() {
        let report = report();
        let curve = report.curves.iter().find(|curve| curve.channel == Channel::Allowance).unwrap();
        assert_eq!(curve.points.first().map(|point| point.per_host_week), Some(0.0));
        for pair in curve.points.windows(2) {
            assert!(pair[0].threshold > pair[1].threshold);
            assert!(pair[0].per_host_week < pair[1].per_host_week);
            assert!(pair[1].at_most > pair[1].per_host_week);
        }
        // 41 scores, the highest of which is exceeded by none and the lowest by 40.
        let last = curve.points.last().unwrap();
        assert!(last.per_host_week <= 40.0 / 160.0 && curve.points.len() > 20);
    }

    #[test]
    fn every_action_of_the_report_replays_from_its_own_record() {
        for action in report().actions {
            let finding = Finding {
                id: "f-1".into(),
                detector: action.channel.detector().into(),
                grade: Grade::Suspect,
                score: Some(action.score),
                subject: Subject { kind: "destination".into(), value: String::new() },
                flow: None,
                name: None,
                process: None,
                place: None,
                indicator: None,
                explanation: action.sentence.clone(),
                evidence: vec![action.ruling.to_evidence()],
                frame: 0,
                first_packet_at: action.at,
                matched_at: action.at,
                decision: DecisionRecord {
                    action: Action::Withhold,
                    scope: None,
                    level: 3,
                    reason: None,
                    lease: None,
                    containment: None,
                },
                rule: None,
                policy: 1,
            };
            assert_eq!(replay(&finding), Ok(action.ruling));
        }
    }

    #[test]
    fn nothing_would_be_done_while_items_are_undecided_and_each_is_named() {
        let nothing = RoleBaseline::empty("web", START);
        let records = theft();
        let locked = certificate(&records, &nothing);
        let report = dry_run(&pool(&records), &nothing, &locked, &Calendar::unknown());
        assert!(report.actions.is_empty());
        assert!(report.tiers.iter().all(|tier| tier.promised == 0.0 && !tier.locked.is_empty()));
        let items = list(&pool(&records), &nothing);
        assert_eq!(items[0].sentence.matches("theft.example").count(), 1);
        let approved = approve(&nothing, &items, &aiko());
        let granted = certificate(&records, &approved);
        assert!(granted.promise(Tier::CutDestination) > 0.11);
    }
}
