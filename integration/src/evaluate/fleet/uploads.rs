//! What a machine sends day by day to a destination that was approved.

use crate::evaluate::draw::Draw;

/// What the destination is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nightly backups, six times as large on Saturdays, slowly growing.
    Backup,
    /// A repository that is pushed to on most working days.
    Git,
    /// Logs.
    Logs,
    /// A service that people use.
    Service,
}

/// Bytes of each day; a tenth of the destinations change their level for good, and legitimately.
pub fn uploads(draw: &mut Draw, days: usize) -> (Kind, Vec<f64>) {
    let drawn = draw.unit();
    let kind = match drawn {
        x if x < 0.2 => Kind::Backup,
        x if x < 0.5 => Kind::Logs,
        x if x < 0.8 => Kind::Service,
        _ => Kind::Git,
    };
    // Logarithms of the medians of the destinations' medians, and their deviations.
    let (log, sigma) = match kind {
        Kind::Backup => (22.0_f64, 1.0),
        Kind::Git => (15.0, 1.0),
        Kind::Logs => (18.0, 1.0),
        Kind::Service => (16.0, 1.2),
    };
    let median = draw.lognormal(log.exp(), sigma);
    let mut bytes: Vec<f64> = (0..days).map(|day| of_day(draw, kind, median, day)).collect();
    if draw.happens(0.1) {
        let from = draw.whole(28, days);
        let factor = draw.within(1.3, 3.0);
        bytes[from..].iter_mut().for_each(|bytes| *bytes *= factor);
    }
    (kind, bytes)
}

fn of_day(draw: &mut Draw, kind: Kind, median: f64, day: usize) -> f64 {
    let (weekday, is_weekend) = (day % 7, day % 7 >= 5);
    match kind {
        Kind::Backup => {
            let weekly = if weekday == 5 { 6.0 } else { 1.0 };
            draw.lognormal(median, 0.25) * weekly * (1.0 + 0.002 * day as f64)
        }
        Kind::Git => {
            let is_pushed = draw.happens(if is_weekend { 0.1 } else { 0.7 });
            let size = draw.lognormal(median, 1.3);
            if is_pushed { size } else { 0.0 }
        }
        Kind::Logs => draw.lognormal(median, 0.15) * if is_weekend { 0.6 } else { 1.0 },
        Kind::Service => draw.lognormal(median, 0.8) * if is_weekend { 0.3 } else { 1.0 },
    }
}
