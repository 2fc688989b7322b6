//! Distinct outside addresses that a host began to speak to within an hour.

use super::dns::mixed;
use super::keep::keep_fields;
use sekisho_schema::{Span, Timestamp};
use std::net::IpAddr;

const HOUR: Span = Span::from_hours(1);
/// Words of the set; linear counting of so many places tells up to about 2,000 apart.
const WORDS: usize = 8;

/// A set of addresses of which only the size is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FanOut {
    began: Timestamp,
    places: [u64; WORDS],
    /// Times that it was told within the hour.
    pub(super) told: u8,
}
keep_fields!(FanOut { began, places, told });

impl FanOut {
    /// Takes an address that was spoken to; returns about how many within the hour, where this one was new.
    pub fn contact(&mut self, at: Timestamp, remote: IpAddr) -> Option<f64> {
        if at.since(self.began) > HOUR || at < self.began {
            *self = Self { began: at, ..Self::default() };
        }
        let salt = self.began.nanos() as u64;
        let hash = match remote.to_canonical() {
            IpAddr::V4(address) => mixed(&address.octets(), salt),
            IpAddr::V6(address) => mixed(&address.octets(), salt),
        };
        let bit = hash as usize % (WORDS * 64);
        let word = self.places.get_mut(bit / 64)?;
        if *word >> (bit % 64) & 1 == 1 {
            return None;
        }
        *word |= 1 << (bit % 64);
        Some(self.distinct())
    }

    /// About how many distinct addresses there were (Whang, Vander-Zanden, Taylor 1990).
    #[must_use]
    pub fn distinct(&self) -> f64 {
        let places = (WORDS * 64) as f64;
        let free: u32 = self.places.iter().map(|word| word.count_zeros()).sum();
        -places * (f64::from(free.max(1)) / places).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_addresses_of_an_hour_are_counted_to_a_tenth() {
        let at = Timestamp::from_nanos(1_780_000_000_000_000_007);
        for count in [1_u32, 20, 100, 400, 1000] {
            let mut fan = FanOut::default();
            for n in 0..count * 3 {
                let second = Span::from_millis(i64::from(n));
                fan.contact(at.after(second), std::net::Ipv4Addr::from_bits(n % count).into());
            }
            let got = fan.distinct();
            let slack = 1.0 + f64::from(count) * 0.15;
            assert!((got - f64::from(count)).abs() < slack, "{count}: {got}");
            fan.contact(at.after(Span::from_hours(2)), std::net::Ipv4Addr::LOCALHOST.into());
            assert!(fan.distinct() < 1.5);
        }
    }
}
