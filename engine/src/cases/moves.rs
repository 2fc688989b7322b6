//! Sequences of what may happen to containments, drawn from a number: for property tests of whatever keeps
//! containments, each beside a small model of its own.

use sekisho_schema::{Measure, Scope, Span};
use std::net::{IpAddr, Ipv4Addr};

/// Something that happens to containments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The wall clock is set by so much.
    Clock(Span),
    /// Somebody confirms one of those that are held: the number counts over them, around.
    Confirm(usize),
    /// Somebody orders a cut.
    Contain {
        /// Of what.
        scope: Scope,
        /// For how long.
        lease: Span,
        /// How held.
        measure: Measure,
        /// Whether the same order comes twice.
        twice: bool,
    },
    /// Something malicious is found to speak to the destination of this number, of [`destination`].
    Found(u8),
    /// Time passes.
    Pass(Span),
    /// The proof of one of those that are held comes, good or bad.
    Prove(usize, bool),
    /// Somebody releases one of those that are held.
    Release {
        /// Which one, counted around.
        which: usize,
        /// Whether the guard on opening is broken.
        break_glass: bool,
    },
}

/// The outside address of a number: of those that are for documentation (RFC 5737).
#[must_use]
pub const fn destination(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, number))
}

/// So many moves; the same seed gives the same ones.
#[must_use]
pub fn moves(seed: u64, count: usize) -> Vec<Move> {
    let mut dice = Dice(seed);
    (0..count).map(|_| dice.next_move()).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn one_of<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        let at = self.below(of.len().max(1) as u64) as usize;
        of.get(at).copied().unwrap_or(otherwise)
    }

    fn next_move(&mut self) -> Move {
        match self.below(20) {
            0..7 => {
                let scope = self.scope();
                let measure = self.measure(&scope);
                let lease = self.one_of(&[2, 30, 300, 3600, 86_400], 60);
                let lease = Span::from_secs(lease);
                Move::Contain { scope, lease, measure, twice: self.below(4) == 0 }
            }
            7..11 => Move::Found(self.below(6) as u8 + 1),
            11..15 => {
                Move::Pass(Span::from_secs(self.one_of(&[1, 1, 5, 11, 60, 130, 900, 7200], 1)))
            }
            15 => Move::Confirm(self.roll() as usize),
            16 => Move::Prove(self.roll() as usize, self.below(3) > 0),
            17 => Move::Clock(Span::from_secs(self.one_of(&[-7200, -30, 30, 86_400], 5))),
            _ => Move::Release { which: self.roll() as usize, break_glass: self.below(2) == 0 },
        }
    }

    fn scope(&mut self) -> Scope {
        match self.below(12) {
            0..6 => Scope::Destination(destination(self.below(6) as u8 + 1)),
            6 | 7 => Scope::Host,
            8 => Scope::ManagementOnly,
            9 => Scope::Cgroup("/system.slice/web.service".to_owned()),
            10 => Scope::Container("0a1b2c3d".to_owned()),
            _ => Scope::Internal("10.77.9.9".to_owned()),
        }
    }

    fn measure(&mut self, scope: &Scope) -> Measure {
        let any = [
            Measure::Cut,
            Measure::Cut,
            Measure::Freeze,
            Measure::Observe,
            Measure::Quota { bytes: 1_000_000 },
            Measure::Throttle { bytes_per_second: 8_000 },
        ];
        let measure = self.one_of(&any, Measure::Cut);
        if scope.takes(measure) { measure } else { Measure::Cut }
    }
}
