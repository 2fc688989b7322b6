//! How long to wait before trying again: full jitter, doubling.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that grow with each failure.
#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { ceiling: FIRST }
    }

    pub(super) const fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// A wait between nothing and the ceiling, which doubles: a thousand agents that lost their
    /// collector at once do not come back at once.
    pub(super) fn next(&mut self) -> Duration {
        let share = f64::from(random()) / f64::from(u32::MAX);
        let wait = self.ceiling.mul_f64(share);
        self.ceiling = (self.ceiling * 2).min(LONGEST);
        wait
    }
}

fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_never_beyond() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST) && waits[0] <= FIRST);
        assert_eq!(backoff.ceiling, LONGEST);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
