//! E14: every record of a hold or a cut replays to the same score, and one sentence says why.

use super::Plan;
use super::draw::Draw;
use super::fleet::{DAY, Role, Size, population, uploads};
use super::ours::{self, Weeks, key};
use super::replay::after;
use super::scenarios::scenarios;
use super::table::{Grid, Outcome};
use sekisho_engine::certify::authority::Authority;
use sekisho_engine::certify::episode::{score_of, scored};
use sekisho_engine::certify::sentence::{amount, sentence};
use sekisho_engine::learn::approved::Envelope;
use sekisho_engine::learn::dns::NameInformation;
use sekisho_schema::Verified;
use sekisho_schema::certificate::{Budgets, Certificate};
use sekisho_schema::episode::{Channel, EpisodeKey, EpisodeScore, Tier};
use sekisho_schema::finding::Evidence;
use sekisho_schema::ruling::Ruling;
use sekisho_schema::sealed::Local;
use std::collections::BTreeMap;

/// Weeks of learning, and then of test.
const WEEKS: usize = 4;
/// Where the keys of what is no episode of the fleet begin.
const FIRST: usize = 2_000_000;

/// Counts of one channel.
#[derive(Default)]
struct Told {
    records: usize,
    replayed: usize,
    explained: usize,
    example: String,
}

/// Scores that differ by less are the same: what a decimal text of a number may cost.
const SAME: f64 = 1e-12;

/// Whether a record alone gives its score again, and each of its numbers is in its sentence.
fn look(ruling: &Ruling, told: &mut BTreeMap<Channel, Told>) {
    let told = told.entry(ruling.channel()).or_default();
    told.records += 1;
    let text = serde_json::to_string(&ruling.to_evidence()).unwrap_or_default();
    let read = serde_json::from_str::<Evidence>(&text)
        .ok()
        .and_then(|evidence| Ruling::from_evidence(&evidence))
        .and_then(Result::ok);
    let Some(read) = read else { return };
    let again = score_of(read.channel(), &read.score.inputs);
    let is_same = again.is_some_and(|again| {
        (again - ruling.score.score).abs() <= SAME * ruling.score.score.abs().max(1.0)
    });
    told.replayed += usize::from(is_same);
    let sentence = sentence(&read);
    let has = |number: f64| sentence.contains(&amount(read.channel(), number));
    let is_whole = has(read.threshold)
        && has(read.counter_threshold)
        && read.score.score > read.threshold
        && read.score.score <= read.counter_threshold
        && sentence.lines().count() == 1;
    told.explained += usize::from(is_whole);
    if told.example.is_empty() || read.tier > Tier::Hold {
        told.example = sentence;
    }
}

/// Rules on a score; `true` when it came to a hold at least.
fn rule(
    authority: &mut Authority,
    key: &EpisodeKey,
    score: &EpisodeScore,
    hosts: u64,
    told: &mut BTreeMap<Channel, Told>,
) {
    if let Some(ruling) = authority.rule(key, score, hosts)
        && ruling.reached >= Tier::Hold
    {
        look(&ruling, told);
    }
}

/// Every score of a record, the sum made from the certificate's tails.
fn scores(
    certificate: &Certificate,
    record: &sekisho_schema::baseline::Episode,
    hosts: u32,
) -> Vec<EpisodeScore> {
    Channel::ALL
        .into_iter()
        .filter_map(|channel| ours::full_score(channel, record, hosts, certificate))
        .collect()
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E14", "records of holds and cuts: replayed and explained");
    let mut draw = Draw::new(plan.seed ^ 14);
    let mut told: BTreeMap<Channel, Told> = BTreeMap::new();
    let size = Size::USUAL;
    let mut learned: BTreeMap<Role, Weeks> = BTreeMap::new();
    let mut test: BTreeMap<Role, Weeks> = BTreeMap::new();
    for weeks in [&mut learned, &mut test] {
        for role in Role::ALL {
            weeks.insert(role, Weeks::new(role, size.of(role), WEEKS));
        }
        population(&mut draw, size, WEEKS, 1.0, |episode| {
            if let Some(weeks) = weeks.get_mut(&episode.role) {
                weeks.take(&episode);
            }
        });
    }
    for role in Role::ALL {
        let (Some(learned), Some(test)) = (learned.get(&role), test.get(&role)) else { continue };
        let certificate = learned.certificate(&Budgets::default());
        let mut authority = Authority::default();
        authority.certify(Verified::locally(certificate.clone(), Local::Installed));
        let days = test.host_days();
        let mut all: Vec<_> =
            test.episodes.iter().map(|(_, record, hosts, _)| (record.clone(), *hosts)).collect();
        all.extend(days.into_iter().map(|(_, record)| (record, 1)));
        let mut next = FIRST;
        for attack in scenarios() {
            let record = ours::watch(&attack.episode(&mut draw, role)).record(key(next));
            all.extend(record.map(|record| (record, 1)));
            next += 1;
        }
        for (record, hosts) in &all {
            for score in scores(&certificate, record, *hosts) {
                rule(&mut authority, &record.key, &score, u64::from(*hosts), &mut told);
            }
        }
        for n in 0..plan.runs(50, 10) {
            for score in names_and_uploads(&mut draw) {
                rule(&mut authority, &key(next + n), &score, 1, &mut told);
            }
        }
    }
    tell(&mut outcome, &told);
    outcome
}

/// A tunnel in names, and an upload to an approved destination that grew tenfold.
fn names_and_uploads(draw: &mut Draw) -> Vec<EpisodeScore> {
    let mut names = NameInformation::default();
    for n in 0..200 {
        let name = format!("{:016x}{:016x}", draw.bits(), draw.bits());
        names.ask(after(f64::from(n)), &name);
    }
    let dns = scored(Channel::Dns, after(200.0), names.inputs());
    let (_, bytes) = uploads(draw, 40);
    let mut envelope = Envelope::new(after(0.0));
    for (day, bytes) in bytes.iter().enumerate() {
        let more = if day == 39 { 9.0 * bytes + 1e9 } else { 0.0 };
        envelope.add(after((day as f64 + 0.5) * DAY), (bytes + more) as u64);
    }
    let approved = envelope
        .inputs()
        .and_then(|inputs| scored(Channel::Approved, envelope.highest_at(), inputs));
    dns.into_iter().chain(approved).collect()
}

fn tell(outcome: &mut Outcome, told: &BTreeMap<Channel, Told>) {
    let mut grid = Grid::new(&["channel", "records", "replayed", "explained", "an example"]);
    let sum = |of: fn(&Told) -> usize| told.values().map(of).sum::<usize>();
    let (records, replayed, explained) =
        (sum(|t| t.records), sum(|t| t.replayed), sum(|t| t.explained));
    for (channel, told) in told {
        grid.rows.push(vec![
            channel.to_string(),
            told.records.to_string(),
            told.replayed.to_string(),
            told.explained.to_string(),
            told.example.clone(),
        ]);
    }
    outcome.hold(
        "channels with a record",
        "all seven",
        told.len().to_string(),
        told.len() == Channel::ALL.len(),
    );
    outcome.hold(
        "records that replay to the same score",
        "100 %",
        format!("{replayed} of {records}"),
        replayed == records,
    );
    outcome.hold(
        "one sentence with number, threshold and counter-threshold",
        "100 %",
        format!("{explained} of {records}"),
        explained == records,
    );
    outcome.grid = Some(grid);
}
