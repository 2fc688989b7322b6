//! Net payload bytes of a host within a day toward all destinations that nobody approved, and what it
//! answered on flows that the outside began.

use super::keep::keep_fields;
use super::week::day_of;
use crate::certify::episode::{ScoreInputs, input};
use sekisho_schema::Timestamp;

/// Days after which the largest day is looked for anew.
const DAYS: i64 = 7;

/// A host's day, and its largest of seven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostDay {
    day: i64,
    net: u64,
    answered: u64,
    highest_net: u64,
    highest_answered: u64,
    highest_at: Timestamp,
    began: i64,
}
keep_fields!(HostDay { day, net, answered, highest_net, highest_answered, highest_at, began });

impl HostDay {
    /// Adds payload bytes that went up beyond what came down with them, and payload bytes answered to
    /// strangers; returns the bytes of the day.
    pub fn add(&mut self, at: Timestamp, net: u64, answered: u64) -> u64 {
        let day = day_of(at);
        if day > self.day {
            (self.day, self.net, self.answered) = (day, 0, 0);
        }
        if day >= self.began.saturating_add(DAYS) {
            self.begin_anew(at);
        }
        self.net = self.net.saturating_add(net);
        self.answered = self.answered.saturating_add(answered);
        let bytes = self.net.saturating_add(self.answered);
        if bytes > self.highest() {
            (self.highest_net, self.highest_answered) = (self.net, self.answered);
            self.highest_at = at;
        }
        bytes
    }

    /// Whether its seven days are over.
    #[must_use]
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.began > 0 && day_of(at) >= self.began.saturating_add(DAYS)
    }

    /// The largest day is looked for anew from now on.
    pub fn begin_anew(&mut self, at: Timestamp) {
        self.began = day_of(at);
        (self.highest_net, self.highest_answered) = (0, 0);
    }

    /// Bytes of the largest day.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest_net.saturating_add(self.highest_answered)
    }

    /// When the largest day was largest.
    #[must_use]
    pub const fn highest_at(&self) -> Timestamp {
        self.highest_at
    }

    /// What the score of channel host budget is made from.
    #[must_use]
    pub fn inputs(&self) -> ScoreInputs {
        ScoreInputs(vec![
            (input::NET, self.highest_net as f64),
            (input::ANSWERED, self.highest_answered as f64),
        ])
    }
}

/// Rows and columns of [`DayCounts`]: 2 × 4096 counters of 8 bytes.
const ROWS: usize = 2;
const COLUMNS: usize = 4096;

/// Bytes of a day by host, of any number of hosts: a count-min sketch, which never counts too little.
#[derive(Clone, Debug, PartialEq)]
pub struct DayCounts {
    day: i64,
    rows: [Vec<u64>; ROWS],
}

impl Default for DayCounts {
    fn default() -> Self {
        Self { day: 0, rows: [vec![0; COLUMNS], vec![0; COLUMNS]] }
    }
}

impl super::keep::Keep for DayCounts {
    fn keep(&self, out: &mut Vec<u8>) {
        self.day.keep(out);
        self.rows.iter().for_each(|row| row.keep(out));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let day = i64::take(from)?;
        let rows = [Vec::take(from)?, Vec::take(from)?];
        rows.iter().all(|row| row.len() == COLUMNS).then_some(Self { day, rows })
    }
}

impl DayCounts {
    /// Adds bytes of a host, which is known by two independent hashes; returns its bytes of the day,
    /// or more where others share its places.
    pub fn add(&mut self, at: Timestamp, hashes: [u32; 2], bytes: u64) -> u64 {
        let day = day_of(at);
        if day > self.day {
            self.day = day;
            self.rows.iter_mut().for_each(|row| row.fill(0));
        }
        let mut least = u64::MAX;
        for (row, hash) in self.rows.iter_mut().zip(hashes) {
            if let Some(count) = row.get_mut(hash as usize % COLUMNS) {
                *count = count.saturating_add(bytes);
                least = least.min(*count);
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};
    use crate::learn::keep::Keep;
    use sekisho_schema::Span;

    fn on(day: i64, hour: i64) -> Timestamp {
        Timestamp::from_nanos(1_780_012_800_000_000_000).after(Span::from_hours(24 * day + hour))
    }

    #[test]
    fn the_score_is_the_largest_day_of_seven() {
        let mut host = HostDay::default();
        assert_eq!(host.add(on(0, 1), 10, 0), 10);
        assert_eq!(host.add(on(0, 2), 5, 100), 115);
        assert_eq!(host.add(on(1, 0), 7, 0), 7);
        assert_eq!(score_of(Channel::HostBudget, &host.inputs()), Some(115.0));
        assert_eq!(host.highest_at(), on(0, 2));
        host.add(on(8, 0), 3, 0);
        assert_eq!(score_of(Channel::HostBudget, &host.inputs()), Some(3.0));
    }

    #[test]
    fn a_sketch_never_counts_too_little_and_rarely_too_much() {
        let mut counts = DayCounts::default();
        let hashes = |host: u32| {
            let mixed = u64::from(host).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            [(mixed >> 32) as u32, (mixed >> 7) as u32]
        };
        for host in 0..1000 {
            counts.add(on(0, 0), hashes(host), 100);
        }
        let mut over = 0;
        for host in 0..1000 {
            let count = counts.add(on(0, 1), hashes(host), 0);
            assert!(count >= 100);
            over += usize::from(count > 100);
        }
        assert!(over < 150, "{over}");
        let mut bytes = Vec::new();
        counts.keep(&mut bytes);
        assert_eq!(DayCounts::take(&mut bytes.as_slice()).unwrap(), counts);
        assert_eq!(counts.add(on(1, 0), hashes(1), 0), 0, "another day");
    }
}
