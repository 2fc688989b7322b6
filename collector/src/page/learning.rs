//! The page of learning: for each role what would have been held or cut, what waits for a person, and the buttons.

mod cards;
mod holidays;

pub use holidays::Holidays;

use super::board::{Moment, moment};
use super::chart::{self, Mark};
use super::text::visible;
use crate::clock::to_the_second;
use crate::learning::{LearningError, Rehearsed, Role};
use crate::store::{FleetSpent, PageRuling, RoleView, Word};
use cards::Deck;
use sekisho_engine::certify::report::TierReport;
use sekisho_schema::baseline::PoolError;
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::Certificate;
use sekisho_schema::episode::{Channel, Tier};
use sekisho_schema::{Timestamp, query_value};
use std::collections::{BTreeMap, BTreeSet};

/// Cards of one list on the page; more are in the API and in the report of the command line.
const CARDS: usize = 60;

/// A role to choose.
#[derive(Debug)]
pub struct Tab {
    /// Its name.
    pub name: String,
    /// The query that shows it.
    pub query: String,
    /// Whether it is shown.
    pub is_shown: bool,
}

/// A tier: promise, and what would have been.
#[derive(Debug)]
pub struct TierRow {
    /// What is done.
    pub deed: &'static str,
    /// What is promised.
    pub promised: String,
    /// What would have been done.
    pub done: String,
    /// Whether that is more than was promised.
    pub is_more: bool,
    /// What is locked, and how much is missing.
    pub locked: Vec<String>,
}

/// A channel's curve.
#[derive(Debug)]
pub struct CurveCard {
    /// What the channel looks at.
    pub channel: &'static str,
    /// Our own SVG.
    pub svg: String,
    /// Threshold, actions a host-week, their upper bound.
    pub rows: Vec<[String; 3]>,
}

/// Something that a person decides on, or has.
#[derive(Debug)]
pub struct Card {
    /// Its name.
    pub id: String,
    /// Whether it has a place on the page that others can point to; the first of its name has.
    pub is_first: bool,
    /// What would be done, or that it is to be decided.
    pub title: String,
    /// Class of the title.
    pub class: &'static str,
    /// When.
    pub at: Moment,
    /// On which host.
    pub host: String,
    /// Who speaks to whom.
    pub whom: String,
    /// One sentence.
    pub sentence: String,
    /// Facts by name.
    pub facts: Vec<(&'static str, String)>,
    /// Charts with their captions: our own SVG.
    pub charts: Vec<(String, String)>,
    /// What was decided.
    pub ruled: Option<String>,
    /// Whether it may be decided here.
    pub may_rule: bool,
}

/// A role on the page.
#[derive(Debug)]
pub struct RoleBoard {
    /// Its name.
    pub name: String,
    /// Its name as forms say it.
    pub raw: String,
    /// What it rests on.
    pub sum: String,
    /// What is in force.
    pub in_force: String,
    /// What a person must know first.
    pub notes: Vec<String>,
    /// Commands that come next.
    pub next: Vec<(String, String)>,
    /// The fleet's cuts.
    pub fleet: Option<(bool, String)>,
    /// Tiers, from the hardest.
    pub tiers: Vec<TierRow>,
    /// Curves by channel.
    pub curves: Vec<CurveCard>,
    /// What nobody has decided.
    pub undecided: Vec<Card>,
    /// How many more there are.
    pub undecided_more: usize,
    /// What would have been held or cut.
    pub actions: Vec<Card>,
    /// How many more there are.
    pub actions_more: usize,
}

/// Every text of the page of learning.
#[derive(Debug)]
pub struct LearningBoard {
    /// The organisation.
    pub organisation: String,
    /// When this was written.
    pub now: Moment,
    /// Roles to choose from.
    pub tabs: Vec<Tab>,
    /// The role that is shown.
    pub role: Option<RoleBoard>,
    /// The holidays that moments are told by.
    pub holidays: Holidays,
    /// Why none is.
    pub empty: String,
    /// What was decided just now.
    pub said: Option<String>,
    /// Proves that a form is this page's.
    pub token: String,
    /// Who decided last, to spare typing.
    pub by: String,
}

/// What is asked for and known beside the store.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The role; the first where none is named.
    pub role: Option<String>,
    /// An item that was decided just now.
    pub said: Option<String>,
    /// Who decided it.
    pub by: Option<String>,
    /// Proves that a form is this page's.
    pub token: String,
}

impl LearningBoard {
    /// Makes the page.
    ///
    /// # Errors
    /// [`LearningError`], but for a role that sent nothing yet: the page says so.
    pub fn read(
        store: &crate::store::Store,
        asked: &Asked,
        calendar: &Calendar,
        now: Timestamp,
    ) -> Result<Self, LearningError> {
        let roles = store.roles()?;
        let wanted = asked.role.clone().or_else(|| {
            let learned = roles.iter().find(|role| role.learned > 0).or_else(|| roles.first());
            learned.map(|role| role.role.clone())
        });
        let fleet = store.fleet(now)?;
        let mut empty = "No host is enrolled, so nothing is learned.".to_owned();
        let (mut board, mut said) = (None, None);
        if let Some(name) = &wanted {
            match Role::read(store, name, now) {
                Ok(role) => {
                    said = asked.said.as_deref().and_then(|item| {
                        let ruling = role.rulings.iter().find(|ruling| ruling.item == item)?;
                        Some(format!("Recorded: {}.", ruled(ruling)))
                    });
                    board = Some(RoleBoard::of(&role, fleet.get(name), calendar, now));
                }
                Err(LearningError::Pool(PoolError::Empty(_))) => empty = nothing_yet(name, &roles),
                Err(error) => return Err(error),
            }
        }
        let tab = |view: &RoleView| Tab {
            name: visible(&view.role),
            query: query_value(&view.role),
            is_shown: wanted.as_ref() == Some(&view.role),
        };
        Ok(Self {
            organisation: store.meta("organisation")?.unwrap_or_default(),
            now: moment(now),
            tabs: roles.iter().map(tab).collect(),
            role: board,
            holidays: Holidays::of(calendar, now),
            empty,
            said,
            token: asked.token.clone(),
            by: asked.by.clone().unwrap_or_default(),
        })
    }
}

fn nothing_yet(name: &str, roles: &[RoleView]) -> String {
    let hosts = roles.iter().find(|role| role.role == name).map_or(0, |role| role.hosts);
    format!(
        "{hosts} {} of role {} {} enrolled; none has sent what it learned yet. An agent sends it each hour.",
        if hosts == 1 { "host" } else { "hosts" },
        visible(name),
        if hosts == 1 { "is" } else { "are" }
    )
}

fn ruled(ruling: &PageRuling) -> String {
    let word = match ruling.word {
        Word::Approve => "approved as normal",
        Word::KeepHeld => "kept held",
    };
    format!(
        "{} {word} by {} at {} UTC ({})",
        visible(&ruling.key.to_string()),
        visible(&ruling.by),
        to_the_second(ruling.at),
        visible(&ruling.reason)
    )
}

const fn deed(tier: Tier) -> &'static str {
    match tier {
        Tier::Alert => "alert",
        Tier::Hold => "hold (slow, upload bounded)",
        Tier::CutDestination => "cut the destination",
        Tier::IsolateHost => "cut the host",
    }
}

const fn short_deed(tier: Tier) -> &'static str {
    match tier {
        Tier::Alert => "alert",
        Tier::Hold => "hold",
        Tier::CutDestination => "cut",
        Tier::IsolateHost => "cut host",
    }
}

fn marks(certificate: &Certificate, channel: Channel) -> Vec<Mark> {
    [Tier::Hold, Tier::CutDestination, Tier::IsolateHost]
        .into_iter()
        .filter_map(|tier| {
            let threshold = certificate.threshold(tier, channel)?;
            Some(chart::mark(short_deed(tier), channel, threshold))
        })
        .collect()
}

fn tier_row(tier: &TierReport) -> TierRow {
    let locked: Vec<String> = tier
        .locked
        .iter()
        .map(|locked| {
            let why = locked.why.to_string();
            let why = why.strip_prefix("locked: ").unwrap_or(&why);
            format!("{}: {why}", chart::words(locked.channel))
        })
        .collect();
    TierRow {
        deed: deed(tier.tier),
        promised: if tier.promised > 0.0 {
            format!("at most {:.3} a host-week", tier.promised)
        } else {
            "nothing: locked".to_owned()
        },
        done: match tier.actions {
            0 => "never".to_owned(),
            1 => format!("once, {:.3} a host-week", tier.per_host_week),
            count => format!("{count} times, {:.3} a host-week", tier.per_host_week),
        },
        is_more: tier.per_host_week > tier.promised,
        locked,
    }
}

impl RoleBoard {
    fn of(role: &Role, fleet: Option<&FleetSpent>, calendar: &Calendar, now: Timestamp) -> Self {
        let rehearsed = role.rehearse(calendar, now);
        let Rehearsed { report, certificate, provisional } = &rehearsed;
        let mut undecided = role.undecided();
        // What left most comes first.
        undecided.sort_by(|a, b| b.net.cmp(&a.net).then_with(|| a.key.cmp(&b.key)));
        let unsealed = role.unsealed();
        let mut deck = Deck::new(role, certificate);
        let cards: Vec<Card> = undecided.iter().take(CARDS).map(|item| deck.item(item)).collect();
        let mut actions: Vec<Card> = Vec::new();
        let (mut place, mut more) = (BTreeMap::new(), BTreeSet::new());
        for action in &report.actions {
            // What several channels say of the same is one card: it is decided once.
            let of = (action.host.as_str(), &action.key);
            if let Some(card) = place.get(&of).and_then(|at: &usize| actions.get_mut(*at)) {
                deck.also(card, action);
            } else if actions.len() < CARDS {
                place.insert(of, actions.len());
                actions.push(deck.action(action));
            } else {
                more.insert(of);
            }
        }
        let curves = report.curves.iter().map(|curve| {
            let thin = curve.points.len().div_ceil(12).max(1);
            CurveCard {
                channel: chart::words(curve.channel),
                svg: chart::curve(curve, &marks(certificate, curve.channel), report.host_weeks),
                rows: curve
                    .points
                    .iter()
                    .step_by(thin)
                    .map(|point| {
                        [
                            chart::short(curve.channel, point.threshold),
                            format!("{:.3}", point.per_host_week),
                            format!("{:.3}", point.at_most),
                        ]
                    })
                    .collect(),
            }
        });
        Self {
            name: visible(&report.role),
            raw: report.role.clone(),
            sum: format!(
                "{} {}, {:.1} host-weeks from {} to {} UTC, {} episodes outside the baseline",
                report.hosts,
                if report.hosts == 1 { "host" } else { "hosts" },
                report.host_weeks,
                to_the_second(report.from),
                to_the_second(report.until),
                role.pool.episodes.len()
            ),
            in_force: in_force(role),
            notes: notes(role, *provisional, undecided.len(), unsealed),
            next: next(&report.role, role, undecided.len(), unsealed),
            fleet: fleet.map(fleet_line),
            tiers: report.tiers.iter().map(tier_row).collect(),
            curves: curves.collect(),
            undecided_more: undecided.len().saturating_sub(cards.len()),
            undecided: cards,
            actions_more: more.len(),
            actions,
        }
    }
}

fn in_force(role: &Role) -> String {
    let baseline = match role.baseline.version {
        0 => "No baseline is in force".to_owned(),
        version => format!(
            "Baseline {version} is in force: {} destinations are normal, {} stay held",
            role.baseline.entry.len(),
            role.baseline.refused.len()
        ),
    };
    let certificate = role.certificate.as_ref().map_or_else(
        || "no certificate: behaviour alerts, and holds or cuts nothing".to_owned(),
        |certificate| {
            format!(
                "certificate {} of {} UTC, from {:.1} host-weeks",
                certificate.version,
                to_the_second(certificate.made_at),
                certificate.host_weeks
            )
        },
    );
    format!("{baseline}; {certificate}.")
}

fn notes(role: &Role, provisional: bool, undecided: usize, unsealed: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if provisional {
        notes.push(
            "What follows is what a certificate made now would do, if everything were decided."
                .to_owned(),
        );
    }
    let held = role.certificate.as_ref().map_or(0, |certificate| certificate.undecided);
    if held > 0 {
        notes.push(format!(
            "The certificate in force grants nothing: {held} items were undecided when it was made. Decide, then certify again."
        ));
    } else if undecided > 0 {
        notes.push(format!(
            "{undecided} {} below: a certificate made now would grant nothing until somebody decides.",
            if undecided == 1 { "item is undecided" } else { "items are undecided" }
        ));
    }
    if unsealed > 0 {
        notes.push(format!(
            "{unsealed} {} recorded here and not sealed yet: no host knows of {}.",
            if unsealed == 1 { "decision is" } else { "decisions are" },
            if unsealed == 1 { "it" } else { "them" }
        ));
    }
    notes
}

/// Commands are shown for names that need no quoting only.
fn next(name: &str, role: &Role, undecided: usize, unsealed: usize) -> Vec<(String, String)> {
    let is_plain = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !name.starts_with('-');
    if !is_plain {
        return Vec::new();
    }
    let command = |verb: &str, file: &str| {
        format!("sekisho-collector baseline {verb} --role {name} --out {file}.toml")
    };
    let mut next = Vec::new();
    if unsealed > 0 || role.baseline.version == 0 {
        next.push(("To make the next baseline".to_owned(), command("draft", "baseline")));
    }
    let is_certified = role.certificate.as_ref().is_some_and(|certificate| {
        certificate.undecided == 0 && certificate.baseline == role.baseline.version
    });
    if undecided == 0 && !is_certified {
        next.push(("To certify".to_owned(), command("certify", "certificate")));
    }
    if !next.is_empty() {
        next.push((
            "Seal each where the key is, then push it".to_owned(),
            "sekisho-collector baseline seal FILE.toml --key KEY --out FILE.sealed; sekisho-collector baseline push FILE.sealed".to_owned(),
        ));
    }
    next
}

fn fleet_line(spent: &FleetSpent) -> (bool, String) {
    let back = spent.back_at.map_or_else(String::new, |at| {
        format!("; the next comes back at {} UTC", to_the_second(at))
    });
    let text = if spent.left == 0 && spent.taken > 0 {
        format!(
            "The {} automatic cuts of this week are spent: what would be cut is held, nothing is opened{back}.",
            spent.of
        )
    } else {
        format!("{} of {} automatic cuts of seven days are spent{back}.", spent.taken, spent.of)
    };
    (spent.left == 0 && spent.taken > 0, text)
}

/// The name of an item that a form may decide on.
#[must_use]
pub fn is_item(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
