//! What an intruder does: a beacon, an operator's bursts, an upload at once or little by little.

use super::{
    Burst, DAY, Episode, HORIZON, HOUR, Oddities, Oddity, Role, Traits, keep_working_hours,
    periodic,
};
use crate::evaluate::draw::Draw;

/// Oddities of PlugX on port 443 without TLS and without a name.
pub const PLUGX_ODDITIES: Oddities =
    Oddities::of(&[Oddity::NotTls, Oddity::NoName, Oddity::FullyEncrypted]);

/// What an intruder plans.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Its name in tables.
    pub name: &'static str,
    /// Sleep of the beacon, in seconds; 0 for none.
    pub period: f64,
    /// Share by which a sleep varies.
    pub jitter: f64,
    /// Sleeps are also lengthened.
    pub both_ways: bool,
    /// What is odd about it.
    pub oddities: Oddities,
    /// The process is new to the host.
    pub is_new_process: bool,
    /// Each contact is a connection of its own.
    pub is_connection_each: bool,
    /// Only in working hours.
    pub works_days: bool,
    /// Bytes of an upload at once.
    pub total: f64,
    /// When it begins, in seconds.
    pub upload_at: f64,
    /// Bytes of one piece of it.
    pub piece: f64,
    /// Bytes a second.
    pub speed: f64,
    /// Bytes an hour that hide in the beacon.
    pub slow: f64,
    /// New destinations that the upload is spread over.
    pub destinations: usize,
}

impl Attack {
    /// A clean beacon and nothing else.
    #[must_use]
    pub const fn beacon(name: &'static str, period: f64, jitter: f64) -> Self {
        Self {
            name,
            period,
            jitter,
            both_ways: false,
            oddities: Oddities(0),
            is_new_process: false,
            is_connection_each: true,
            works_days: false,
            total: 0.0,
            upload_at: 0.0,
            piece: 20e6,
            speed: 3e6,
            slow: 0.0,
            destinations: 1,
        }
    }

    /// PlugX: raw on port 443, kept alive every 30 s over a connection that persists.
    #[must_use]
    pub const fn plugx(name: &'static str) -> Self {
        Self {
            oddities: PLUGX_ODDITIES,
            is_connection_each: false,
            ..Self::beacon(name, 30.0, 0.1)
        }
    }

    /// The same with an upload in the second night.
    #[must_use]
    pub const fn with_upload(self, total: f64) -> Self {
        Self { total, upload_at: 38.0 * HOUR, ..self }
    }

    /// The traffic of one run to one destination.
    #[must_use]
    pub fn episode(&self, draw: &mut Draw, role: Role) -> Episode {
        let start = draw.unit() * 4.0 * DAY + 9.0 * HOUR;
        let mut times = if self.period > 0.0 {
            periodic(draw, self.period, self.jitter, self.both_ways, 0.05, HORIZON)
        } else {
            Vec::new()
        };
        if self.works_days {
            keep_working_hours(&mut times, start);
        }
        let one = |draw: &mut Draw, at, up: (f64, f64), down: (f64, f64)| Burst {
            at,
            up: draw.lognormal(up.0, up.1),
            down: draw.lognormal(down.0, down.1),
        };
        let mut bursts: Vec<Burst> =
            times.into_iter().map(|at| one(draw, at, (450.0, 0.15), (250.0, 0.3))).collect();
        // An operator gives work a few times a week.
        for _ in 0..draw.poisson(6.0) {
            let mut at = draw.unit() * HORIZON;
            for _ in 0..draw.whole(3, 30) {
                at += draw.exponential(3.0);
                bursts.push(one(draw, at, (7.5_f64.exp(), 1.0), (7.0_f64.exp(), 1.0)));
            }
        }
        bursts.sort_by(|a, b| a.at.total_cmp(&b.at));
        if self.slow > 0.0 {
            let mut last = 0.0;
            for burst in &mut bursts {
                burst.up += self.slow * (burst.at - last).clamp(0.0, 6.0 * HOUR) / HOUR;
                last = burst.at;
            }
        }
        if self.total > 0.0 {
            let pieces = (self.total / self.piece).max(1.0) as u32;
            bursts.extend((0..pieces).map(|n| Burst {
                at: self.upload_at + f64::from(n) * self.piece / self.speed,
                up: self.piece,
                down: 3000.0,
            }));
        }
        Traits {
            oddities: self.oddities,
            is_new_process: self.is_new_process,
            is_connection_each: self.is_connection_each,
            ..Traits::new(self.name, role, start)
        }
        .episode(bursts)
    }
}
