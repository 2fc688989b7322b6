//! How much of what is normal learning has seen: of the week, of the jobs, of the peers.

use sekisho_schema::baseline::{Learned, WEEK_HOURS};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

const WEEK: Span = Span::from_hours(168);
const DAY_SECONDS: i64 = 86_400;

/// What one host's learning covers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Covered {
    /// The host.
    pub host: String,
    /// Its role.
    pub role: String,
    /// Weeks of watching.
    pub weeks: f64,
    /// Hours of the week that were watched at least once, of 168.
    pub week_hours: u64,
    /// Hours of the week that were watched at least twice.
    pub week_hours_twice: u64,
    /// Holidays of the calendar within the time; `null` when its years are not known.
    pub holidays: Option<u64>,
    /// Workloads that spoke.
    pub workloads: u64,
    /// Workloads that spoke on two days or more: of jobs that run seldom one run was seen, or none.
    pub workloads_settled: u64,
    /// Workloads that spoke for the first time within the last seven days.
    pub workloads_new: u64,
    /// Destinations.
    pub destinations: u64,
    /// Destinations first spoken to within the last seven days.
    pub destinations_new: u64,
    /// The chance that the next contact goes to a destination never seen (Good–Turing).
    pub chance_of_new: f64,
    /// What is not covered yet, in one sentence.
    pub sentence: String,
}

/// Measures a record.
#[must_use]
pub fn covered(learned: &Learned, calendar: &Calendar) -> Covered {
    let since = learned.until.before(WEEK);
    // Within the first week everything is new, which says nothing.
    let is_new = |first: Timestamp| first >= since && learned.from < since;
    let times = |least: u32| learned.hours_of_week.iter().filter(|seen| **seen >= least).count();
    let mut contacts: BTreeMap<_, (u64, Timestamp)> = BTreeMap::new();
    for episode in &learned.episodes {
        let common = (&episode.key.destination, episode.key.service);
        let known = contacts.entry(common).or_insert((0, episode.first_at));
        known.0 = known.0.saturating_add(episode.contacts);
        known.1 = known.1.min(episode.first_at);
    }
    let all: u64 = contacts.values().map(|(count, _)| *count).sum();
    let once = contacts.values().filter(|(count, _)| *count == 1).count();
    let settled = learned.workloads.iter().filter(|workload| workload.days >= 2).count();
    let new = learned.workloads.iter().filter(|workload| is_new(workload.first_at)).count();
    let mut covered = Covered {
        host: learned.host.clone(),
        role: learned.role.clone(),
        weeks: learned.hours as f64 / WEEK_HOURS as f64,
        week_hours: times(1) as u64,
        week_hours_twice: times(2) as u64,
        holidays: holidays(learned, calendar),
        workloads: learned.workloads.len() as u64,
        workloads_settled: settled as u64,
        workloads_new: new as u64,
        destinations: contacts.len() as u64,
        destinations_new: contacts.values().filter(|(_, first)| is_new(*first)).count() as u64,
        chance_of_new: if all == 0 { 1.0 } else { once as f64 / all as f64 },
        sentence: String::new(),
    };
    covered.sentence = sentence(&covered);
    covered
}

/// Holidays between the first and the last day; `None` when the calendar does not know one of the years.
fn holidays(learned: &Learned, calendar: &Calendar) -> Option<u64> {
    let (first, last) = (calendar.local_day(learned.from), calendar.local_day(learned.until));
    if last < first {
        return None;
    }
    let mut day = learned.from;
    // Years are known whole: a look at each end and at each year's distance between is enough.
    while day < learned.until {
        if !calendar.knows(day) {
            return None;
        }
        day = day.after(Span::from_secs(365 * DAY_SECONDS));
    }
    calendar.knows(learned.until).then(|| calendar.holidays.range(first..=last).count() as u64)
}

fn sentence(covered: &Covered) -> String {
    let mut lacks = Vec::new();
    let missing = WEEK_HOURS.saturating_sub(covered.week_hours);
    if missing > 0 {
        lacks.push(format!("{missing} of the 168 hours of the week were never watched"));
    } else if covered.week_hours_twice < WEEK_HOURS {
        let once = WEEK_HOURS - covered.week_hours_twice;
        lacks.push(format!("{once} of the 168 hours of the week were watched only once"));
    }
    if covered.holidays == Some(0) {
        lacks.push("no public holiday was among them".to_owned());
    }
    let unsettled = covered.workloads - covered.workloads_settled.min(covered.workloads);
    if unsettled > 0 {
        lacks.push(format!("{unsettled} of {} workloads spoke on one day only", covered.workloads));
    }
    if covered.workloads_new > 0 {
        lacks.push(format!("{} workloads are new this week", covered.workloads_new));
    }
    if covered.chance_of_new >= 0.01 {
        lacks.push(format!(
            "{:.0} % of contacts may yet go to destinations never seen",
            covered.chance_of_new * 100.0
        ));
    }
    if lacks.is_empty() {
        "the week, the jobs and the peers are covered".to_owned()
    } else {
        format!("not covered yet: {}", lacks.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{START, hour, learned, upload};
    use super::*;
    use sekisho_schema::baseline::SeenWorkload;

    fn japan() -> Calendar {
        Calendar::parse(include_str!("../../../rules/calendar/japan.toml")).unwrap()
    }

    fn workload(name: &str, first: i64, days: u32) -> SeenWorkload {
        SeenWorkload {
            workload: format!("unit:{name}").parse().unwrap(),
            first_at: hour(first),
            last_at: hour(600),
            days,
        }
    }

    #[test]
    fn a_few_days_say_what_they_lack() {
        let mut record = learned("a", 1, vec![upload("a.example", 1)]);
        record.hours = 50;
        record.hours_of_week = (0..168).map(|hour| u32::from(hour < 50)).collect();
        record.workloads = vec![workload("cron.service", 3, 1)];
        let found = covered(&record, &Calendar::unknown());
        assert_eq!((found.week_hours, found.week_hours_twice, found.holidays), (50, 0, None));
        assert_eq!(
            found.sentence,
            "not covered yet: 118 of the 168 hours of the week were never watched; 1 of 1 workloads \
             spoke on one day only; 100 % of contacts may yet go to destinations never seen"
        );
    }

    #[test]
    fn weeks_of_steady_traffic_are_covered_and_what_is_new_is_told() {
        let mut steady = upload("a.example", 1);
        steady.contacts = 10_000;
        let mut late = upload("b.example", 1);
        late.first_at = hour(600);
        let mut record = learned("a", 4, vec![steady, late]);
        record.workloads = vec![workload("web.service", 0, 28), workload("new.service", 600, 2)];
        let found = covered(&record, &Calendar::unknown());
        assert_eq!((found.destinations, found.destinations_new, found.workloads_new), (2, 1, 1));
        assert_eq!(found.sentence, "not covered yet: 1 workloads are new this week");
        record.workloads.pop();
        let found = covered(&record, &Calendar::unknown());
        assert_eq!(found.sentence, "the week, the jobs and the peers are covered");
    }

    #[test]
    fn holidays_within_the_time_are_counted_where_the_years_are_known() {
        // START is 25 May 2026; four weeks of it hold no holiday, ten hold the 20th of July.
        assert!(START.to_string().starts_with("2026-05-25"));
        assert_eq!(covered(&learned("a", 4, Vec::new()), &japan()).holidays, Some(0));
        assert_eq!(covered(&learned("a", 10, Vec::new()), &japan()).holidays, Some(1));
        assert_eq!(covered(&learned("a", 100, Vec::new()), &japan()).holidays, None);
    }
}
