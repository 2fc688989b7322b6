//! Tells for all cipher settings at once which of them can have made a header: hardly ever any.
//!
//! No header has a bit in the third byte of its second word. Under one setting and alignment a random
//! header passes once in 256 times, so that most are refused after two keystream bytes a setting.

use super::cipher::{CipherKind, CipherSetting};

/// Settings of one shape that are tried side by side.
const LANES: usize = 4;
/// Settings that have a bit in the answer; a pack has no more of them.
pub(super) const MOST: usize = u64::BITS as usize;

/// Four settings' numbers, on which a compiler works at once.
#[derive(Clone, Copy, Debug)]
struct Lanes([u32; LANES]);

impl Lanes {
    const fn all(value: u32) -> Self {
        Self([value; LANES])
    }

    #[inline]
    fn map(self, f: impl Fn(u32) -> u32) -> Self {
        Self(self.0.map(f))
    }

    #[inline]
    fn with(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }

    /// T3's output function.
    #[inline]
    fn fold(self) -> Self {
        self.map(|n| ((n.wrapping_sub(n >> 8)) ^ (n >> 16)).wrapping_sub(n >> 24) & 0xFF)
    }

    /// A bit for each lane that holds a value.
    #[inline]
    fn equal(self, value: u32) -> u64 {
        let [a, b, c, d] = self.map(|n| u32::from(n == value)).0;
        u64::from(a | b << 1 | c << 2 | d << 3)
    }
}

/// Up to four settings of T2.
#[derive(Clone, Copy, Debug)]
struct Twos {
    constant: Lanes,
}

/// Up to four settings of T3: n1 starts as key ^ x1, n2 as (key & keyed) ^ x2.
#[derive(Clone, Copy, Debug)]
struct Threes {
    x1: Lanes,
    keyed: Lanes,
    x2: Lanes,
    /// What the third and the seventh step have added and taken in all.
    add: [Lanes; 2],
    sub: [Lanes; 2],
}

/// The settings by shape, each with the place of its first lane among the bits of the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefilter {
    ones: Vec<(CipherKind, usize)>,
    twos: Vec<(Twos, [usize; LANES])>,
    threes: Vec<(Threes, [usize; LANES])>,
}

/// The index of a lane that holds no setting.
const NONE: usize = usize::MAX;

impl Prefilter {
    pub(super) fn new(settings: &[CipherSetting]) -> Self {
        let mut filter = Self::default();
        let (mut twos, mut threes) = (Vec::new(), Vec::new());
        for (index, setting) in settings.iter().enumerate().take(MOST) {
            match setting.kind {
                CipherKind::T1 | CipherKind::T1old => filter.ones.push((setting.kind, index)),
                CipherKind::T2 { constant } => twos.push((index, constant)),
                CipherKind::T3 { x1, x2, add, sub } => threes.push((index, [x1, x2, add, sub])),
            }
        }
        for four in twos.chunks(LANES) {
            let constant = lanes(four, |constant| *constant);
            filter.twos.push((Twos { constant }, places(four)));
        }
        for four in threes.chunks(LANES) {
            let steps = |at: usize, times: u32| {
                lanes(four, |fields: &[u32; 4]| {
                    fields.get(at).copied().unwrap_or(0).wrapping_mul(times)
                })
            };
            let three = Threes {
                x1: steps(0, 1),
                keyed: lanes(four, |[x1, ..]| if *x1 == 0 { 0 } else { u32::MAX }),
                x2: steps(1, 1),
                add: [steps(2, 3), steps(2, 7)],
                sub: [steps(3, 3), steps(3, 7)],
            };
            filter.threes.push((three, places(four)));
        }
        filter
    }

    /// A bit for each setting under which a header with this key and third flag byte is possible.
    #[inline]
    pub(super) fn candidates(&self, key: u32, third: u8) -> u64 {
        let third = u32::from(third);
        let mut found = 0;
        for (kind, index) in &self.ones {
            let mut stream = [0; 7];
            kind.keystream(key).apply(&mut stream);
            let [_, _, a, _, _, _, b] = stream.map(u32::from);
            found |= u64::from(a == third || b == third) << index;
        }
        for (twos, places) in &self.twos {
            found |= spread(twos.hits(key, third), places);
        }
        for (threes, places) in &self.threes {
            found |= spread(threes.hits(key, third), places);
        }
        found
    }
}

impl Twos {
    #[inline]
    fn hits(&self, key: u32, third: u32) -> u64 {
        let mut k = Lanes::all(key);
        let mut hits = 0;
        for index in 0..7 {
            k = k
                .map(|k| (k << 7).wrapping_sub(k >> 3).wrapping_add(index))
                .with(self.constant, u32::wrapping_add);
            if index == 2 || index == 6 {
                hits |= k.map(|k| (k ^ k >> 8 ^ k >> 16 ^ k >> 24) & 0xFF).equal(third);
            }
        }
        hits
    }
}

impl Threes {
    #[inline]
    fn hits(&self, key: u32, third: u32) -> u64 {
        let n1 = self.x1.map(|x1| key ^ x1);
        let n2 = self.keyed.map(|keyed| key & keyed).with(self.x2, |key, x2| key ^ x2);
        let mut hits = 0;
        for (add, sub) in self.add.iter().zip(&self.sub) {
            let first = n1.with(*add, u32::wrapping_add).fold();
            let second = n2.with(*sub, u32::wrapping_sub);
            hits |= first.with(second, |a, b| a ^ b).fold().equal(third);
        }
        hits
    }
}

/// The bits of lanes at the places of their settings.
#[inline]
fn spread(hits: u64, places: &[usize; LANES]) -> u64 {
    if hits == 0 {
        return 0;
    }
    places
        .iter()
        .enumerate()
        .filter(|(lane, place)| hits >> lane & 1 == 1 && **place != NONE)
        .fold(0, |all, (_, place)| all | 1 << place)
}

fn lanes<T>(four: &[(usize, T)], field: impl Fn(&T) -> u32) -> Lanes {
    let mut lanes = [0; LANES];
    for (lane, (_, setting)) in lanes.iter_mut().zip(four) {
        *lane = field(setting);
    }
    Lanes(lanes)
}

fn places<T>(four: &[(usize, T)]) -> [usize; LANES] {
    let mut places = [NONE; LANES];
    for (place, (index, _)) in places.iter_mut().zip(four) {
        *place = *index;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::plugx::cipher::published;

    /// Against the keystream itself, one setting after the other.
    #[test]
    fn exactly_the_settings_pass_whose_keystream_fits() {
        let settings = published();
        let filter = Prefilter::new(&settings);
        let mut key = 1_u32;
        for round in 0..20_000_u32 {
            key = key.wrapping_mul(0x915F_77F5).wrapping_add(round);
            let third = (key >> 11) as u8;
            let mut expected = 0;
            for (index, setting) in settings.iter().enumerate() {
                let mut stream = [0; 8];
                setting.kind.keystream(key).apply(&mut stream);
                let hit = stream[2] == third || stream[6] == third;
                expected |= u64::from(hit) << index;
            }
            assert_eq!(filter.candidates(key, third), expected, "{key:08x} {third:02x}");
        }
    }
}
