//! Networks: the longest prefix that holds an address, by networks in the order of their addresses.
//!
//! Two networks either lie apart or one lies within the other. So the last network that begins at or
//! before an address holds it, or one of those around that one does, or none.

use super::record::{MOST_TERMS, Tag};

/// Addresses as numbers: IPv4 as `u32`, IPv6 as two halves, which need less room than `u128`.
pub(super) trait Bits: Copy + Ord {
    fn wide(self) -> u128;
    /// The last address of a network that begins here.
    fn last(self, prefix: u8) -> Self;
    /// Whether a network that begins here holds an address.
    fn holds(self, prefix: u8, address: Self) -> bool;
}

impl Bits for u32 {
    fn wide(self) -> u128 {
        self.into()
    }

    fn last(self, prefix: u8) -> Self {
        self | Self::MAX.checked_shr(prefix.into()).unwrap_or(0)
    }

    #[inline]
    fn holds(self, prefix: u8, address: Self) -> bool {
        (self ^ address).checked_shr(32_u32.saturating_sub(prefix.into())).unwrap_or(0) == 0
    }
}

impl Bits for (u64, u64) {
    fn wide(self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }

    fn last(self, prefix: u8) -> Self {
        let wide = self.wide() | u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
        ((wide >> 64) as u64, wide as u64)
    }

    #[inline]
    fn holds(self, prefix: u8, address: Self) -> bool {
        let differs = self.wide() ^ address.wide();
        differs.checked_shr(128_u32.saturating_sub(prefix.into())).unwrap_or(0) == 0
    }
}

const PREFIX_SHIFT: u32 = 25;
/// Whether another network of the same set holds it, or is the same one.
const IS_WITHIN: u32 = 1 << 24;
const HAS_TEXT_ID: u32 = 1 << 23;
const TERMS: u32 = HAS_TEXT_ID - 1;
/// Statements about one network that are kept.
const MOST_STATEMENTS: usize = 32;

/// A network and who says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net<B> {
    pub(super) base: B,
    pub(super) id: u32,
    /// Prefix, [`IS_WITHIN`], [`HAS_TEXT_ID`] and terms.
    packed: u32,
}

impl<B: Bits> Net<B> {
    /// A network with the id and terms of a tag; `None` when there are more terms than it can name.
    pub(super) fn new(base: B, id: u32, tag: Tag, prefix: u8) -> Option<Self> {
        let (terms, text) = (tag.terms(), if tag.has_text_id() { HAS_TEXT_ID } else { 0 });
        let fits = terms <= TERMS && prefix < 128;
        let packed = u32::from(prefix) << PREFIX_SHIFT | text | terms;
        fits.then_some(Self { base, id, packed })
    }

    pub(super) const fn prefix(&self) -> u8 {
        (self.packed >> PREFIX_SHIFT) as u8
    }

    pub(super) const fn tag(&self) -> Tag {
        Tag::of_network(self.packed & HAS_TEXT_ID != 0, self.packed & TERMS)
    }

    const fn is_within(&self) -> bool {
        self.packed & IS_WITHIN != 0
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.base == other.base && self.prefix() == other.prefix()
    }
}

const _: () = assert!(TERMS <= MOST_TERMS);

/// Fewer networks than these are searched without a leap.
const FEW: usize = 64;
/// Networks that a leap leads to, on average.
const PER_BUCKET: usize = 4;
/// Most bits of an address that lead to its part of the networks.
const MOST_JUMP_BITS: u32 = 18;

/// The networks of one family.
#[derive(Clone, Debug)]
pub(super) struct Networks<B> {
    /// By address, the wider first.
    pub(super) nets: Vec<Net<B>>,
    /// Of each network that lies within another: its place, and that of the nearest one around it.
    around: Vec<(u32, u32)>,
    /// How many networks begin before each value of the bits that tell them apart.
    jump: Vec<u32>,
    /// The leading bits that all have in common.
    base: u128,
    /// How far the bits that tell them apart stand from the right.
    shift: u32,
    /// Statements that said nothing new, or one too much.
    pub(super) duplicates: u32,
}

impl<B> Default for Networks<B> {
    fn default() -> Self {
        let (nets, around, jump) = (Vec::new(), Vec::new(), Vec::new());
        Self { nets, around, jump, base: 0, shift: 0, duplicates: 0 }
    }
}

impl<B: Bits> Networks<B> {
    /// Makes networks ready; of those about the same one the earlier statement stands first.
    pub(super) fn new(mut nets: Vec<Net<B>>) -> Self {
        nets.sort_by(|a, b| a.base.cmp(&b.base).then(a.prefix().cmp(&b.prefix())));
        let duplicates = drop_repeated(&mut nets);
        nets.shrink_to_fit();
        let mut around = Vec::new();
        let mut open: Vec<(B, u32)> = Vec::new();
        for (at, net) in nets.iter_mut().enumerate() {
            while open.last().is_some_and(|(last, _)| *last < net.base) {
                open.pop();
            }
            if let Some((_, outer)) = open.last() {
                net.packed |= IS_WITHIN;
                around.push((at as u32, *outer));
            }
            open.push((net.base.last(net.prefix()), at as u32));
        }
        around.shrink_to_fit();
        let mut all = Self { nets, around, duplicates, ..Self::default() };
        all.lay_out();
        all
    }

    /// Makes the leap to the part of the networks where an address stands.
    fn lay_out(&mut self) {
        let ends = self.nets.first().zip(self.nets.last());
        let Some((first, last)) = ends.filter(|_| self.nets.len() > FEW) else { return };
        let apart = 128 - (first.base.wide() ^ last.base.wide()).leading_zeros();
        let buckets = self.nets.len() / PER_BUCKET;
        let bits = (usize::BITS - buckets.leading_zeros()).clamp(1, MOST_JUMP_BITS);
        self.shift = apart.saturating_sub(bits);
        let mask = u128::MAX.checked_shl(apart).unwrap_or(0);
        self.base = first.base.wide() & mask;
        let mut jump = vec![0_u32; (1 << bits.min(apart)) + 1];
        for net in &self.nets {
            let bucket = ((net.base.wide() - self.base) >> self.shift) as usize;
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

    /// The most exact network that holds an address, then those around it, until told to stop.
    #[inline]
    pub(super) fn each(&self, address: B, mut goes_on: impl FnMut(u32, &Net<B>) -> bool) {
        let (low, high) = if self.jump.is_empty() {
            (0, self.nets.len())
        } else {
            let Some(offset) = address.wide().checked_sub(self.base) else { return };
            let bucket = usize::try_from(offset >> self.shift).unwrap_or(usize::MAX);
            match (self.jump.get(bucket), self.jump.get(bucket.saturating_add(1))) {
                (Some(low), Some(high)) => (*low as usize, *high as usize),
                // Behind all of them.
                _ => (self.nets.len(), self.nets.len()),
            }
        };
        let part = self.nets.get(low..high).unwrap_or_default();
        let after = low + part.partition_point(|net| net.base <= address);
        let mut next = after.checked_sub(1);
        while let Some((at, net)) = next.and_then(|at| Some((at, self.nets.get(at)?))) {
            if net.base.holds(net.prefix(), address) && !goes_on(at as u32, net) {
                return;
            }
            next = self.around(at, net);
        }
    }

    fn around(&self, at: usize, net: &Net<B>) -> Option<usize> {
        if !net.is_within() {
            return None;
        }
        let place = self.around.binary_search_by_key(&(at as u32), |(inner, _)| *inner).ok()?;
        self.around.get(place).map(|(_, outer)| *outer as usize)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.nets.capacity() * size_of::<Net<B>>()
            + self.around.capacity() * size_of::<(u32, u32)>()
            + self.jump.capacity() * size_of::<u32>()
    }
}

/// Drops of sorted networks the statements that say again what was said, and those beyond what is
/// kept of one; how many.
fn drop_repeated<B: Bits>(nets: &mut Vec<Net<B>>) -> u32 {
    let before = nets.len();
    let mut same: Vec<Net<B>> = Vec::with_capacity(MOST_STATEMENTS);
    nets.retain(|net| {
        if same.first().is_some_and(|first| !first.is_same(net)) {
            same.clear();
        }
        let is_new = same.len() < MOST_STATEMENTS
            && !same.iter().any(|other| other.tag().terms() == net.tag().terms());
        if is_new {
            same.push(*net);
        }
        is_new
    });
    u32::try_from(before - nets.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net<B: Bits>(base: B, terms: u32, prefix: u8) -> Net<B> {
        Net::new(base, 0, Tag::of_network(false, terms), prefix).unwrap()
    }

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
            let nets: Vec<Net<u32>> = (0..round * 20_u32)
                .map(|terms| {
                    let prefix = 8 + (random() % 25) as u8;
                    let base = (random() as u32 & 0x0FFF_0FFF)
                        & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                    net(base, terms, prefix)
                })
                .collect();
            let ready = Networks::new(nets.clone());
            for _ in 0..2000 {
                let mut address = random() as u32 & 0x0FFF_FFFF;
                if let Some(net) = nets.get(random() as usize % nets.len().max(1)) {
                    address = match random() % 4 {
                        0 => net.base,
                        1 => net.base.last(net.prefix()),
                        2 => net.base.last(net.prefix()).wrapping_add(1) & 0x0FFF_FFFF,
                        _ => address,
                    };
                }
                let mut expected: Vec<u8> = nets
                    .iter()
                    .filter(|net| net.base <= address && address <= net.base.last(net.prefix()))
                    .map(Net::prefix)
                    .collect();
                expected.sort_unstable_by(|a, b| b.cmp(a));
                let mut found = Vec::new();
                ready.each(address, |_, net| {
                    found.push(net.prefix());
                    true
                });
                assert_eq!(found, expected, "{address:#x} of {} networks", nets.len());
            }
        }
    }

    #[test]
    fn a_network_at_the_end_of_the_address_space_ends_there() {
        let ready = Networks::new(vec![net((u64::MAX, 0), 0, 64)]);
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

    #[test]
    fn a_network_that_is_said_again_and_again_is_kept_once_for_each_source_and_not_too_often() {
        let said: Vec<Net<u32>> = (0..10_000).map(|n| net(0x0A00_0000, n % 40, 24)).collect();
        let ready = Networks::new(said);
        let mut told = Vec::new();
        ready.each(0x0A00_0005, |_, net| {
            told.push(net.tag().terms());
            true
        });
        told.sort_unstable();
        assert_eq!(told, (0..32).collect::<Vec<_>>());
        assert_eq!((ready.nets.len(), ready.duplicates), (32, 10_000 - 32));
    }
}
