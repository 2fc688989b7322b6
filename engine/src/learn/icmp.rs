//! Payload bytes of echoes that a host sent to one address within an hour, where they say something new.
//!
//! A ping says the same again and again, but for a time stamp in its first bytes; a tunnel does not.

use super::dns::mixed;
use super::keep::keep_fields;
use sekisho_schema::{Span, Timestamp};

const HOUR: Span = Span::from_hours(1);
/// Bytes in which pings carry the time (two words of 64 bits).
const STAMP: usize = 16;

/// Echoes to one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EchoHour {
    began: Timestamp,
    last: u64,
    bytes: u64,
    largest: u32,
    /// Times that it was told within the hour.
    pub(super) told: u8,
}
keep_fields!(EchoHour { began, last, bytes, largest, told });

impl EchoHour {
    /// Takes an echo's payload; returns the bytes of the hour that said something new.
    pub fn echo(&mut self, at: Timestamp, payload: &[u8]) -> u64 {
        if at.since(self.began) > HOUR || at < self.began {
            *self = Self { began: at, last: self.last, ..Self::default() };
        }
        let told = payload.get(STAMP..).unwrap_or_default();
        let hash = mixed(told, payload.len() as u64);
        if hash != self.last {
            self.last = hash;
            self.bytes = self.bytes.saturating_add(payload.len() as u64);
            self.largest = self.largest.max(payload.len() as u32);
        }
        self.bytes
    }

    /// Bytes that said something new within the hour that ends now.
    #[must_use]
    pub fn within(&self, at: Timestamp) -> u64 {
        if at.since(self.began) > HOUR || at < self.began { 0 } else { self.bytes }
    }

    /// Bytes of the longest payload of the hour that said something new.
    #[must_use]
    pub const fn largest(&self) -> u32 {
        self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_counted_and_a_ping_is_not() {
        let at = Timestamp::from_nanos(1_780_000_000_000_000_000);
        let (mut ping, mut tunnel) = (EchoHour::default(), EchoHour::default());
        let mut sent = (0, 0);
        for second in 0..3600_u32 {
            let now = at.after(Span::from_secs(i64::from(second)));
            let mut payload: Vec<u8> = (0..56).collect();
            payload[..4].copy_from_slice(&second.to_be_bytes());
            sent.0 = ping.echo(now, &payload);
            payload[40..44].copy_from_slice(&second.to_be_bytes());
            sent.1 = tunnel.echo(now, &payload);
        }
        assert_eq!(sent, (56, 3600 * 56));
        assert_eq!(tunnel.largest(), 56);
        let later = at.after(Span::from_hours(3));
        assert_eq!(tunnel.echo(later, &[9; 100]), 100);
    }
}
