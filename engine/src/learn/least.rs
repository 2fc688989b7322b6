//! Which of many places has the least weight; of several the first.
//!
//! A tree of least weights, sixteen to a node and so one cache line each: a heap would be the same to its owner and
//! touch a line for each doubling.

/// Weights below one node.
const BRANCHES: usize = 16;
/// The weight of a place that is left out.
const OUT: u32 = u32::MAX;
/// The largest weight that is told apart.
pub(super) const MOST: u32 = OUT - 1;

/// Weights by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Least {
    /// The weights, and above them the least of each sixteen, up to a single node.
    levels: Vec<Vec<u32>>,
}

impl Least {
    /// The place with the least weight, and that weight; `None` when every place is left out.
    pub(super) fn first(&self) -> Option<(u32, u32)> {
        let mut at = 0;
        let mut least = OUT;
        for level in self.levels.iter().rev() {
            let node = level.get(at * BRANCHES..)?;
            let node = node.get(..BRANCHES).unwrap_or(node);
            least = node.iter().fold(OUT, |least, weight| least.min(*weight));
            at = at * BRANCHES + node.iter().position(|weight| *weight == least)?;
        }
        (least != OUT).then_some((at as u32, least))
    }

    /// Sets the weight of a place, [`MOST`] at most.
    pub(super) fn set(&mut self, place: u32, weight: u32) {
        self.put(place as usize, weight.min(MOST));
    }

    /// Leaves a place out until its weight is set again.
    pub(super) fn leave_out(&mut self, place: u32) {
        self.put(place as usize, OUT);
    }

    /// Whether a place is left out.
    pub(super) fn is_out(&self, place: u32) -> bool {
        let weights = self.levels.first();
        weights.and_then(|weights| weights.get(place as usize)).is_none_or(|weight| *weight == OUT)
    }

    fn put(&mut self, mut at: usize, mut weight: u32) {
        let mut height = 0;
        loop {
            if self.levels.len() <= height {
                // The single node above what there was so far.
                let below = height.checked_sub(1).and_then(|below| self.levels.get(below));
                let weights = below.map(|below| leasts(below)).unwrap_or_default();
                self.levels.push(weights);
            }
            let Some(level) = self.levels.get_mut(height) else { return };
            let is_new = level.len() <= at;
            if is_new {
                level.resize(at + 1, OUT);
            }
            let before = level.get_mut(at).map_or(weight, |known| std::mem::replace(known, weight));
            // What stands above does not change then.
            let is_same = before == weight && !is_new;
            if is_same || level.len() <= BRANCHES {
                return;
            }
            at /= BRANCHES;
            weight = level.chunks(BRANCHES).nth(at).map_or(OUT, least_of);
            height += 1;
        }
    }
}

fn least_of(node: &[u32]) -> u32 {
    node.iter().fold(OUT, |least, weight| least.min(*weight))
}

fn leasts(level: &[u32]) -> Vec<u32> {
    level.chunks(BRANCHES).map(least_of).collect()
}

impl FromIterator<u32> for Least {
    fn from_iter<I: IntoIterator<Item = u32>>(weights: I) -> Self {
        let mut levels: Vec<Vec<u32>> =
            vec![weights.into_iter().map(|weight| weight.min(MOST)).collect()];
        while let Some(level) = levels.last().filter(|level| level.len() > BRANCHES) {
            levels.push(leasts(level));
        }
        Self { levels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(weights: &[u32]) -> Option<(u32, u32)> {
        let least = weights.iter().copied().filter(|weight| *weight != OUT).min()?;
        Some((weights.iter().position(|weight| *weight == least)? as u32, least))
    }

    #[test]
    fn it_names_the_first_of_the_least_whatever_is_set_and_left_out() {
        let mut draw = 7_u64;
        let mut random = move || {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            draw
        };
        let (mut least, mut weights) = (Least::default(), Vec::new());
        assert_eq!(least.first(), None);
        for place in 0..5000_u32 {
            let weight = (random() % 50) as u32;
            least.set(place, weight);
            weights.push(weight);
            if place < 600 || place % 97 == 0 {
                assert_eq!(least.first(), slow(&weights), "{place}");
            }
        }
        for _ in 0..5000 {
            let place = random() as usize % weights.len();
            let weight = (random() % 60) as u32;
            if random() % 3 == 0 {
                least.leave_out(place as u32);
                weights[place] = OUT;
            } else {
                least.set(place as u32, weight);
                weights[place] = weight;
            }
            assert_eq!(least.first(), slow(&weights));
            assert_eq!(least.is_out(place as u32), weights[place] == OUT);
        }
        while let Some((place, _)) = least.first() {
            least.leave_out(place);
            weights[place as usize] = OUT;
        }
        assert_eq!(slow(&weights), None);
    }

    #[test]
    fn built_at_once_it_is_the_same() {
        for count in [0_usize, 1, 16, 17, 256, 257, 4097] {
            let weights: Vec<u32> = (0..count as u32).map(|n| n * 7919 % 1000).collect();
            let least: Least = weights.iter().copied().collect();
            assert_eq!(least.first(), slow(&weights), "{count}");
        }
        assert_eq!([u32::MAX].into_iter().collect::<Least>().first(), Some((0, OUT - 1)));
    }
}
