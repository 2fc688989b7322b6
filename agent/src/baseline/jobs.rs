//! The jobs of this host that run by the clock: timers that are enabled, and the folders of cron.
//!
//! A job that has not run while learning has not been learned, whatever else was.

use sekisho_schema::baseline::Learned;
use sekisho_schema::episode::Workload;
use sekisho_schema::{Span, Timestamp};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Where enabled timers are linked (systemd.unit(5)), below the root.
const TIMERS: [&str; 3] = [
    "etc/systemd/system/timers.target.wants",
    "usr/lib/systemd/system/timers.target.wants",
    "lib/systemd/system/timers.target.wants",
];
/// Where systemd notes when a persistent timer last elapsed (systemd.timer(5)).
const STAMPS: &str = "var/lib/systemd/timers";
/// Folders of cron, and how often their scripts run.
const CRON: [(&str, i64); 4] = [
    ("etc/cron.hourly", 1),
    ("etc/cron.daily", 24),
    ("etc/cron.weekly", 168),
    ("etc/cron.monthly", 31 * 24),
];
/// Jobs that are told of at most.
const MOST: usize = 1024;

/// A job that runs by the clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Job {
    /// Its timer or script.
    pub name: String,
    /// Whether it ran while learning, as far as can be known.
    pub covered: bool,
}

/// The jobs below a root directory, by name, and whether a record covers them.
#[must_use]
pub fn jobs(root: &Path, learned: &Learned) -> Vec<Job> {
    let mut jobs = Vec::new();
    for dir in TIMERS {
        for name in names(&root.join(dir)) {
            if let Some(stem) = name.strip_suffix(".timer") {
                let service = Workload::Unit(activated(&root.join(dir).join(&name), stem).into());
                let spoke = learned.workloads.iter().any(|seen| seen.workload == service);
                let covered = spoke || elapsed_within(root, &name, learned);
                jobs.push(Job { name, covered });
            }
        }
    }
    for (dir, hours) in CRON {
        // Whether a script ran can't be known: at least its turn must have come.
        let covered = learned.until.since(learned.from) >= Span::from_hours(hours)
            && learned.hours >= hours.unsigned_abs();
        jobs.extend(
            names(&root.join(dir))
                .into_iter()
                .filter(|name| !name.starts_with('.'))
                .map(|name| Job { name: format!("/{dir}/{name}"), covered }),
        );
    }
    jobs.sort();
    // The same timer may be linked from several places.
    jobs.dedup_by(|a, b| a.name == b.name);
    jobs.truncate(MOST);
    jobs
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The unit that a timer activates: its `Unit=`, else the service of its name.
fn activated(timer: &Path, stem: &str) -> String {
    let text = fs::read_to_string(timer).unwrap_or_default();
    let unit = text.lines().find_map(|line| line.trim().strip_prefix("Unit="));
    unit.map_or_else(|| format!("{stem}.service"), |unit| unit.trim().to_owned())
}

fn elapsed_within(root: &Path, timer: &str, learned: &Learned) -> bool {
    let stamp = root.join(STAMPS).join(format!("stamp-{timer}"));
    let elapsed = fs::metadata(stamp).and_then(|data| data.modified()).ok();
    let since_epoch = elapsed.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since_epoch.is_some_and(|since| {
        let at = Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        learned.from <= at && at <= learned.until
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::baseline::{LEARNED_SCHEMA, SeenWorkload};
    use std::fs::File;
    use std::time::Duration;

    const START: Timestamp = Timestamp::from_nanos(1_779_667_200_000_000_000);

    fn learned(weeks: i64) -> Learned {
        let until = START.after(Span::from_hours(weeks * 168));
        let spoke = |name: &str| SeenWorkload {
            workload: Workload::Unit(name.into()),
            first_at: START,
            last_at: START,
            days: 1,
        };
        Learned {
            schema: LEARNED_SCHEMA.into(),
            host: "a".into(),
            role: "web".into(),
            agent: "0.1.0".into(),
            from: START,
            until,
            hours: weeks.unsigned_abs() * 168,
            hours_of_week: vec![1; 168],
            workloads: vec![spoke("backup.service"), spoke("mirror@a.service")],
            episodes: Vec::new(),
        }
    }

    #[test]
    fn a_job_is_covered_when_it_spoke_elapsed_or_had_its_turn() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let wants = root.join("etc/systemd/system/timers.target.wants");
        for dir in [
            wants.clone(),
            root.join("usr/lib/systemd/system/timers.target.wants"),
            root.join(STAMPS),
            root.join("etc/cron.weekly"),
            root.join("etc/cron.monthly"),
        ] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(wants.join("backup.timer"), "[Timer]\nOnCalendar=daily\n").unwrap();
        fs::write(
            root.join("usr/lib/systemd/system/timers.target.wants/backup.timer"),
            "[Timer]\n",
        )
        .unwrap();
        fs::write(wants.join("mirror.timer"), "[Timer]\n Unit=mirror@a.service\n").unwrap();
        fs::write(wants.join("quarter.timer"), "[Timer]\n").unwrap();
        fs::write(wants.join("trim.timer"), "[Timer]\n").unwrap();
        for (name, hours) in [("quarter", -5), ("trim", 5)] {
            let stamp =
                File::create(root.join(STAMPS).join(format!("stamp-{name}.timer"))).unwrap();
            let at = START.after(Span::from_hours(hours)).nanos();
            stamp.set_modified(UNIX_EPOCH + Duration::from_nanos(at.unsigned_abs())).unwrap();
        }
        fs::write(root.join("etc/cron.weekly/rotate"), "").unwrap();
        fs::write(root.join("etc/cron.monthly/invoice"), "").unwrap();
        fs::write(root.join("etc/cron.monthly/.placeholder"), "").unwrap();

        let of = |weeks| -> Vec<(String, bool)> {
            jobs(root, &learned(weeks)).into_iter().map(|job| (job.name, job.covered)).collect()
        };
        let expected = [
            ("/etc/cron.monthly/invoice", false),
            ("/etc/cron.weekly/rotate", true),
            ("backup.timer", true),
            ("mirror.timer", true),
            ("quarter.timer", false),
            ("trim.timer", true),
        ];
        assert_eq!(of(4), expected.map(|(name, covered)| (name.to_owned(), covered)));
        assert!(of(5).iter().any(|(name, covered)| name.ends_with("invoice") && *covered));
        assert_eq!(jobs(&root.join("nowhere"), &learned(4)), []);
    }
}
