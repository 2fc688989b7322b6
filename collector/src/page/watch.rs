//! What stands around the cuts: who was told, how much may still be cut, rehearsals, orders.

use super::board::{Moment, moment};
use super::text::{self, visible};
use crate::clock;
use crate::policy::InForce;
use crate::store::{DrillView, NoticeView, OrderState, OrderView, Overdue, Store, StoreError};
use sekisho_schema::Timestamp;
use std::collections::BTreeSet;

/// Notices on the page; more are listed by the command line.
const NOTICES: u64 = 20;
/// Orders on the page.
const ORDERS: u64 = 15;

/// A notice on the page.
#[derive(Debug)]
pub struct NoticeRow {
    /// Its number.
    pub id: u64,
    /// When.
    pub at: Moment,
    /// Its kind in words.
    pub kind: String,
    /// Host or group.
    pub whom: String,
    /// One sentence.
    pub text: String,
    /// Class and words on who was told.
    pub told: Vec<(&'static str, String)>,
}

/// How much of its cuts of hosts a group has spent.
#[derive(Debug)]
pub struct FuseRow {
    /// The group.
    pub group: String,
    /// `2 of 3 within the hour`.
    pub text: String,
    /// Whether nothing is left.
    pub blown: bool,
}

/// A rehearsal on the page.
#[derive(Debug)]
pub struct DrillRow {
    /// Group and name.
    pub group: String,
    /// Its name.
    pub name: String,
    /// When it was held last.
    pub last: Option<Moment>,
    /// Class and words on its outcome.
    pub outcome: (&'static str, String),
    /// Figures of the last one.
    pub figures: String,
}

/// An order on the page.
#[derive(Debug)]
pub struct OrderRow {
    /// Its name.
    pub id: String,
    /// When it was sent.
    pub sent: Moment,
    /// The host.
    pub host: String,
    /// What is ordered.
    pub what: String,
    /// Who sealed it.
    pub by: String,
    /// Class and words on how it fares.
    pub state: (&'static str, &'static str),
    /// What the host answered.
    pub detail: Option<String>,
}

/// Everything of this file.
#[derive(Debug, Default)]
pub struct Around {
    /// Notices that nobody took on.
    pub notices: Vec<NoticeRow>,
    /// Whether notices go nowhere but to the page.
    pub untold: bool,
    /// What groups have spent.
    pub fuses: Vec<FuseRow>,
    /// Rehearsals.
    pub drills: Vec<DrillRow>,
    /// Orders, newest first.
    pub orders: Vec<OrderRow>,
    /// What was removed because of its age or size.
    pub removed: Option<String>,
    /// Alarms of this file.
    pub alarms: Vec<String>,
}

impl Around {
    pub(super) fn read(
        store: &Store,
        policy: Option<&InForce>,
        notifies: bool,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let notices = store.notices(false, NOTICES)?;
        let rules = policy.and_then(|policy| policy.policy.as_ref());
        let plans = rules.map(|policy| policy.drill.as_slice()).unwrap_or_default();
        let since = policy.map_or(now, |policy| policy.stored.pushed_at);
        let overdue = store.drills_overdue(plans, since, now)?;
        let most = rules.map(|policy| policy.budget.group_host_cuts_per_hour);
        let fuses: Vec<FuseRow> = store
            .spent(now)?
            .into_iter()
            .map(|(group, spent)| FuseRow {
                group: visible(&group),
                text: match most {
                    None => format!("{} cut automatically within the hour", hosts(spent.count)),
                    Some(most) => format!(
                        "{} of at most {most} cut automatically within the hour",
                        hosts(spent.count)
                    ),
                },
                blown: most.is_some_and(|most| spent.count >= most),
            })
            .collect();
        let mut alarms: Vec<String> = fuses
            .iter()
            .filter(|fuse| fuse.blown)
            .map(|fuse| {
                format!(
                    "{}: the fuse is out: {}; more are cut at level 3 unless a person orders it",
                    fuse.group, fuse.text
                )
            })
            .collect();
        let failed = notices.iter().filter(|notice| is_failed(notice)).count();
        if failed > 0 {
            alarms.push(format!("{failed} of the notices did not reach anybody: see below"));
        }
        Ok(Self {
            notices: notices.iter().map(notice_row).collect(),
            untold: !notifies,
            fuses,
            drills: drill_rows(&store.drills()?, &overdue),
            orders: store.orders(ORDERS, now)?.iter().map(order_row).collect(),
            removed: store.prunings(1)?.first().map(|pruning| {
                format!(
                    "Events from before {} UTC were removed because of their {}; what was cut is kept longer.",
                    clock::to_the_second(pruning.before),
                    pruning.why
                )
            }),
            alarms,
        })
    }
}

fn hosts(count: u32) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}

fn is_failed(notice: &NoticeView) -> bool {
    notice.deliveries.iter().any(|way| way.failure.is_some())
        && notice.deliveries.iter().all(|way| way.delivered_at.is_none())
}

fn kind(word: &str) -> String {
    match word {
        "agent-lost" => "agent lost".to_owned(),
        "drill-failed" => "rehearsal failed".to_owned(),
        "drill-overdue" => "rehearsal overdue".to_owned(),
        "escalated" => "cut at a higher level".to_owned(),
        "fuse" => "fuse out".to_owned(),
        "identity-copied" => "old certificate shown".to_owned(),
        "not-applied" => "NOT CUT".to_owned(),
        "order-refused" => "order refused".to_owned(),
        "store-full" => "database full".to_owned(),
        "trial-released" => "trial let go".to_owned(),
        other => visible(other),
    }
}

fn notice_row(notice: &NoticeView) -> NoticeRow {
    let whom = notice.host.as_deref().or(notice.group.as_deref()).unwrap_or("this collector");
    NoticeRow {
        id: notice.id,
        at: moment(notice.at),
        kind: kind(&notice.kind),
        whom: visible(whom),
        text: visible(&notice.text),
        told: notice
            .deliveries
            .iter()
            .map(|way| match (way.delivered_at, &way.failure) {
                (Some(at), _) => ("good", format!("{} told at {}", way.who, clock::of_day(at))),
                (None, Some(why)) => (
                    "bad",
                    format!(
                        "{} not reached after {} tries: {}",
                        way.who,
                        way.attempts,
                        visible(why)
                    ),
                ),
                (None, None) => ("unsure", format!("{} being told", way.who)),
            })
            .collect(),
    }
}

fn drill_rows(drills: &[DrillView], overdue: &[Overdue]) -> Vec<DrillRow> {
    let late: BTreeSet<(&str, &str)> =
        overdue.iter().map(|one| (one.group.as_str(), one.name.as_str())).collect();
    let mut rows: Vec<DrillRow> = overdue
        .iter()
        .filter(|one| {
            !drills.iter().any(|drill| drill.group == one.group && drill.name == one.name)
        })
        .map(|one| DrillRow {
            group: visible(&one.group),
            name: visible(&one.name),
            last: None,
            outcome: ("bad", format!("overdue: asked for each {}", one.every)),
            figures: String::new(),
        })
        .collect();
    rows.extend(drills.iter().map(|drill| {
        let is_late = late.contains(&(drill.group.as_str(), drill.name.as_str()));
        let outcome = match (drill.passed, is_late) {
            (true, false) => ("good", "held".to_owned()),
            (true, true) => ("bad", "overdue".to_owned()),
            (false, _) => ("bad", format!("FAILED: {}", visible(&drill.detail))),
        };
        let figures = [
            drill.time_to_detect_ns.map(|nanos| format!("found in {}", text::short_time(nanos))),
            drill.time_to_contain_ns.map(|nanos| format!("cut in {}", text::short_time(nanos))),
            Some(format!("{} left after the match", text::bytes(drill.leaked_bytes as f64))),
            Some(format!("on {}", visible(&drill.host))),
        ];
        DrillRow {
            group: visible(&drill.group),
            name: visible(&drill.name),
            last: Some(moment(drill.at)),
            outcome,
            figures: figures.into_iter().flatten().collect::<Vec<_>>().join(" · "),
        }
    }));
    rows
}

fn order_row(order: &OrderView) -> OrderRow {
    OrderRow {
        id: visible(&order.id),
        sent: moment(order.sent_at),
        host: visible(&order.host),
        what: text::order(&order.sealed),
        by: visible(&order.sealed_by),
        state: match order.state {
            OrderState::Done => ("good", "carried out"),
            OrderState::Handed => ("unsure", "handed over, no answer yet"),
            OrderState::Lapsed => ("bad", "lapsed: the host did not answer in time"),
            OrderState::Refused => ("bad", "refused by the host"),
            OrderState::Waiting => ("unsure", "waiting for the host"),
        },
        detail: order.detail.as_deref().map(visible),
    }
}
