//! Networks: the longest prefix that holds an address, by sorted ranges that don't overlap.

use super::record::NONE;

/// Addresses as numbers: IPv4 as `u32`, IPv6 as two halves, which need less room than `u128`.
pub(super) trait Bits: Copy + Ord {
    fn wide(self) -> u128;
    fn of(wide: u128) -> Self;
    /// The last address of a network that begins here.
    fn last(self, prefix: u8) -> u128;
}

impl Bits for u32 {
    fn wide(self) -> u128 {
        self.into()
    }

    fn of(wide: u128) -> Self {
        wide as Self
    }

    fn last(self, prefix: u8) -> u128 {
        u128::from(self | Self::MAX.checked_shr(prefix.into()).unwrap_or(0))
    }
}

impl Bits for (u64, u64) {
    fn wide(self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }

    fn of(wide: u128) -> Self {
        ((wide >> 64) as u64, wide as u64)
    }

    fn last(self, prefix: u8) -> u128 {
        self.wide() | u128::MAX.checked_shr(prefix.into()).unwrap_or(0)
    }
}

/// A network and who says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net<B> {
    pub(super) base: B,
    pub(super) id: u32,
    /// As in a record, without a kind.
    pub(super) tag: u32,
    /// The next wider network that holds it, or the same network from another source.
    pub(super) parent: u32,
    pub(super) prefix: u8,
}

/// Fewer ranges than these are searched without a leap.
const FEW: usize = 64;
/// Most bits of an address that lead to its part of the ranges.
const MOST_JUMP_BITS: u32 = 18;

/// The networks of one family.
#[derive(Clone, Debug)]
pub(super) struct Networks<B> {
    pub(super) nets: Vec<Net<B>>,
    /// Where each range begins, and its most exact network.
    ranges: Vec<(B, u32)>,
    /// How many ranges begin before each value of the bits that tell ranges apart.
    jump: Vec<u32>,
    /// The leading bits that all ranges have in common.
    base: u128,
    /// How far the bits that tell them apart stand from the right.
    shift: u32,
}

impl<B> Default for Networks<B> {
    fn default() -> Self {
        Self { nets: Vec::new(), ranges: Vec::new(), jump: Vec::new(), base: 0, shift: 0 }
    }
}

impl<B: Bits> Networks<B> {
    /// Makes networks ready.
    pub(super) fn new(mut nets: Vec<Net<B>>) -> Self {
        nets.sort_by(|a, b| a.base.cmp(&b.base).then(a.prefix.cmp(&b.prefix)));
        nets.shrink_to_fit();
        let mut all = Self::default();
        let mut open: Vec<(u128, u32)> = Vec::new();
        let mut parents = Vec::with_capacity(nets.len());
        for (at, net) in nets.iter().enumerate() {
            all.close(&mut open, Some(net.base.wide()));
            parents.push(open.last().map_or(NONE, |(_, parent)| *parent));
            all.begin(net.base.wide(), at as u32);
            open.push((net.base.last(net.prefix), at as u32));
        }
        all.close(&mut open, None);
        for (net, parent) in nets.iter_mut().zip(parents) {
            net.parent = parent;
        }
        all.nets = nets;
        all.ranges.shrink_to_fit();
        all.lay_out();
        all
    }

    /// Makes the leap to the part of the ranges where an address stands.
    fn lay_out(&mut self) {
        let ends = self.ranges.first().zip(self.ranges.last());
        let Some((first, last)) = ends.filter(|_| self.ranges.len() > FEW) else { return };
        let apart = 128 - (first.0.wide() ^ last.0.wide()).leading_zeros();
        let bits = (usize::BITS - self.ranges.len().leading_zeros()).clamp(1, MOST_JUMP_BITS);
        self.shift = apart.saturating_sub(bits);
        let mask = u128::MAX.checked_shl(apart).unwrap_or(0);
        self.base = first.0.wide() & mask;
        let mut jump = vec![0_u32; (1 << bits.min(apart)) + 1];
        for (start, _) in &self.ranges {
            let bucket = ((start.wide() - self.base) >> self.shift) as usize;
            if let Some(count) = jump.get_mut(bucket + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for count in &mut jump {
            sum += *count;
            *count = sum;
        }
        self.jump = jump;
    }

    /// Ends the networks that end before an address; behind each its parent goes on.
    fn close(&mut self, open: &mut Vec<(u128, u32)>, before: Option<u128>) {
        while let Some((last, _)) = open.last().copied() {
            if before.is_some_and(|before| last >= before) {
                return;
            }
            open.pop();
            if let Some(next) = last.checked_add(1) {
                self.begin(next, open.last().map_or(NONE, |(_, parent)| *parent));
            }
        }
    }

    fn begin(&mut self, start: u128, owner: u32) {
        // What began at the same address and ended at once, or is less exact, gives way.
        match self.ranges.last_mut() {
            Some(last) if last.0.wide() == start => last.1 = owner,
            _ => self.ranges.push((B::of(start), owner)),
        }
    }

    /// The most exact network that holds an address, then those around it, until told to stop.
    #[inline]
    pub(super) fn each(&self, address: B, mut goes_on: impl FnMut(u32, &Net<B>) -> bool) {
        let (low, high) = if self.jump.is_empty() {
            (0, self.ranges.len())
        } else {
            let Some(offset) = address.wide().checked_sub(self.base) else { return };
            let bucket = usize::try_from(offset >> self.shift).unwrap_or(usize::MAX);
            match (self.jump.get(bucket), self.jump.get(bucket.saturating_add(1))) {
                (Some(low), Some(high)) => (*low as usize, *high as usize),
                // Behind all of them.
                _ => (self.ranges.len(), self.ranges.len()),
            }
        };
        let part = self.ranges.get(low..high).unwrap_or_default();
        let after = low + part.partition_point(|(start, _)| *start <= address);
        let Some((_, owner)) = after.checked_sub(1).and_then(|at| self.ranges.get(at)) else {
            return;
        };
        let mut at = *owner;
        while let Some(net) = self.nets.get(at as usize) {
            if !goes_on(at, net) {
                return;
            }
            at = net.parent;
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.nets.capacity() * size_of::<Net<B>>()
            + self.ranges.capacity() * size_of::<(B, u32)>()
            + self.jump.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: the ranges find the networks that a look at every one of them finds, longest first.
    #[test]
    fn ranges_find_what_a_look_at_every_network_finds() {
        let mut state = 11_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..40 {
            let nets: Vec<Net<u32>> = (0..round * 20)
                .map(|_| {
                    let prefix = 8 + (random() % 25) as u8;
                    let base = (random() as u32 & 0x0FFF_0FFF)
                        & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                    Net { base, id: 0, tag: 0, parent: NONE, prefix }
                })
                .collect();
            let ready = Networks::new(nets.clone());
            for _ in 0..2000 {
                let mut address = random() as u32 & 0x0FFF_FFFF;
                if let Some(net) = nets.get(random() as usize % nets.len().max(1)) {
                    address = match random() % 4 {
                        0 => net.base,
                        1 => net.base.last(net.prefix) as u32,
                        2 => (net.base.last(net.prefix) as u32).wrapping_add(1) & 0x0FFF_FFFF,
                        _ => address,
                    };
                }
                let mut expected: Vec<u8> = nets
                    .iter()
                    .filter(|net| {
                        net.base <= address && u128::from(address) <= net.base.last(net.prefix)
                    })
                    .map(|net| net.prefix)
                    .collect();
                expected.sort_unstable_by(|a, b| b.cmp(a));
                let mut found = Vec::new();
                ready.each(address, |_, net| {
                    found.push(net.prefix);
                    true
                });
                assert_eq!(found, expected, "{address:#x} of {} networks", nets.len());
            }
        }
    }

    #[test]
    fn a_network_at_the_end_of_the_address_space_ends_there() {
        let net = Net { base: (u64::MAX, 0), id: 0, tag: 0, parent: NONE, prefix: 64 };
        let ready = Networks::new(vec![net]);
        let count = |address| {
            let mut count = 0;
            ready.each(address, |_, _| {
                count += 1;
                true
            });
            count
        };
        assert_eq!(
            (count((u64::MAX, u64::MAX)), count((u64::MAX, 0)), count((u64::MAX - 1, 0))),
            (1, 1, 0)
        );
    }
}
