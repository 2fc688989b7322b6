//! Net payload bytes toward one destination within an episode.

use super::keep::keep_fields;
use crate::certify::episode::{ScoreInputs, input};

/// What went up and came down, and how it stood when most had gone up on balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetUpload {
    up: u64,
    down: u64,
    highest_up: u64,
    highest_down: u64,
}
keep_fields!(NetUpload { up, down, highest_up, highest_down });

impl NetUpload {
    /// Adds payload bytes; returns the most that had gone up on balance so far.
    pub fn add(&mut self, up: u64, down: u64) -> u64 {
        self.up = self.up.saturating_add(up);
        self.down = self.down.saturating_add(down);
        if self.up.saturating_sub(self.down) > self.highest() {
            (self.highest_up, self.highest_down) = (self.up, self.down);
        }
        self.highest()
    }

    /// The most that had gone up on balance, in bytes.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest_up.saturating_sub(self.highest_down)
    }

    /// Payload bytes toward the destination so far.
    #[must_use]
    pub const fn up(&self) -> u64 {
        self.up
    }

    /// Payload bytes from the destination so far.
    #[must_use]
    pub const fn down(&self) -> u64 {
        self.down
    }

    /// What the score of channel allowance is made from.
    #[must_use]
    pub fn inputs(&self) -> ScoreInputs {
        ScoreInputs(vec![
            (input::UP, self.highest_up as f64),
            (input::DOWN, self.highest_down as f64),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certify::episode::{Channel, score_of};

    #[test]
    fn the_score_is_the_running_maximum_of_the_balance_as_in_the_prototype() {
        // max.accumulate(max(cumsum(up - down), 0)) of these steps ends at 60.
        let steps = [(0, 40), (50, 0), (50, 0), (0, 90), (20, 0), (10, 5)];
        let mut net = NetUpload::default();
        let told: Vec<u64> = steps.iter().map(|(up, down)| net.add(*up, *down)).collect();
        assert_eq!(told, [0, 10, 60, 60, 60, 60]);
        assert_eq!(score_of(Channel::Allowance, &net.inputs()), Some(60.0));
        assert_eq!((net.up(), net.down()), (130, 135));
    }
}
