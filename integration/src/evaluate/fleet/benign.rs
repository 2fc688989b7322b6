//! What a machine without an intruder does with a destination that is new to it.

use super::{
    Burst, Episode, HORIZON, HOUR, Oddities, Oddity, Role, Traits, keep_working_hours, periodic,
};
use crate::evaluate::draw::Draw;

/// How often a benign destination shows an oddity, in the order of [`Oddity::ALL`].
const ODDITY_RATES: [(Oddity, f64, f64); 6] = [
    (Oddity::NoName, 0.03, 0.006),
    (Oddity::NoServerName, 0.02, 0.004),
    (Oddity::NotTls, 0.004, 0.003),
    (Oddity::FullyEncrypted, 0.004, 0.005),
    (Oddity::SelfSigned, 0.015, 0.004),
    (Oddity::HttpAddress, 0.02, 0.003),
];

fn oddities(draw: &mut Draw, role: Role) -> Oddities {
    ODDITY_RATES.into_iter().fold(Oddities::default(), |odd, (oddity, server, workstation)| {
        let rate = if role == Role::Server { server } else { workstation };
        if draw.happens(rate) { odd.with(oddity) } else { odd }
    })
}

/// A benign episode that begins so many seconds after the start of its week.
pub(super) fn episode(draw: &mut Draw, role: Role, start: f64) -> Episode {
    let kind = draw.unit();
    let traits = Traits {
        oddities: oddities(draw, role),
        is_new_process: draw.happens(0.05),
        ..Traits::new("", role, start)
    };
    match role {
        Role::Server => server(draw, kind, traits),
        Role::Workstation => workstation(draw, kind, traits),
    }
}

/// Bursts at these times with log-normal sizes: median and deviation, each way.
fn sized(draw: &mut Draw, times: Vec<f64>, up: (f64, f64), down: (f64, f64)) -> Vec<Burst> {
    times
        .into_iter()
        .map(|at| Burst {
            at,
            up: draw.lognormal(up.0, up.1),
            down: draw.lognormal(down.0, down.1),
        })
        .collect()
}

/// So many times with exponential gaps of a mean that is itself log-normal.
fn irregular(draw: &mut Draw, count: usize, median: f64, sigma: f64) -> Vec<f64> {
    let mean = draw.lognormal(median, sigma);
    let mut at = 0.0;
    (0..count)
        .map(|_| {
            at += draw.exponential(mean);
            at
        })
        .collect()
}

/// One and a log-normal number more.
fn some(draw: &mut Draw, median: f64, sigma: f64) -> usize {
    1 + draw.lognormal(median, sigma) as usize
}

fn server(draw: &mut Draw, kind: f64, traits: Traits) -> Episode {
    if kind < 0.55 {
        // Mirrors, packages, CDNs.
        let count = some(draw, 4.0, 1.0);
        let times = irregular(draw, count, 20.0, 1.2);
        let bursts = sized(draw, times, (1500.0, 0.8), (2e5, 2.0));
        return Traits { kind: "fetch", ..traits }.episode(bursts);
    }
    if kind < 0.70 {
        return retry(draw, traits);
    }
    if kind < 0.78 {
        return telemetry(draw, traits);
    }
    if kind < 0.86 {
        let period = draw.among(&[300.0, 900.0, 3600.0, 21_600.0, 86_400.0]);
        let times = periodic(draw, period, 0.0, false, 2.0, HORIZON);
        let bursts = sized(draw, times, (3000.0, 0.5), (20_000.0, 1.5));
        let is_rolled_out = draw.happens(0.3);
        return Traits { kind: "cron", is_rolled_out, seconds: 3.0, ..traits }.episode(bursts);
    }
    if kind < 0.865 {
        // An unannounced target of backups or replication.
        let count = draw.whole(50, 400);
        let total = draw.lognormal(2e9, 1.3);
        let lasts = draw.lognormal(2.0 * HOUR, 0.6);
        let bursts = spread(draw, count, lasts, total, 2000.0);
        return Traits { kind: "bulk", seconds: 20.0, ..traits }.episode(bursts);
    }
    let count = some(draw, 60.0, 1.3);
    let times = irregular(draw, count, 900.0, 1.2);
    let bursts = sized(draw, times, (2500.0, 1.0), (6000.0, 1.2));
    let is_rolled_out = draw.happens(0.2);
    Traits { kind: "api", is_rolled_out, ..traits }.episode(bursts)
}

/// A loop that calls a dead peer: connections without a byte of payload.
fn retry(draw: &mut Draw, traits: Traits) -> Episode {
    let period = draw.among(&[1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0]);
    let lasts = draw.lognormal(2.0 * HOUR, 1.5).min(HORIZON);
    let jitter = draw.among(&[0.0, 0.0, 0.1]);
    let times = periodic(draw, period, jitter, false, 0.05, lasts);
    let bursts = times.into_iter().map(|at| Burst { at, up: 0.0, down: 0.0 }).collect();
    Traits { kind: "retry", seconds: 0.0, ..traits }.episode(bursts)
}

/// A new agent or telemetry end point that stays.
fn telemetry(draw: &mut Draw, traits: Traits) -> Episode {
    let period = draw.among(&[10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0]);
    let is_rolled_out = draw.happens(0.6);
    let is_connection_each = draw.happens(0.6);
    let jitter = draw.among(&[0.0, 0.02, 0.1, 0.3]);
    let times = periodic(draw, period, jitter, true, 0.05, HORIZON);
    let size = draw.lognormal(2000.0, 1.0);
    let bursts = sized(draw, times, (size, 0.25), (400.0, 0.3));
    let is_new_process = traits.is_new_process || (!is_rolled_out && draw.happens(0.3));
    Traits { kind: "telemetry", is_rolled_out, is_connection_each, is_new_process, ..traits }
        .episode(bursts)
}

/// So many equal parts of a total, anywhere within a time.
fn spread(draw: &mut Draw, count: usize, lasts: f64, total: f64, down: f64) -> Vec<Burst> {
    let up = total / count as f64;
    (0..count).map(|_| Burst { at: draw.unit() * lasts, up, down }).collect()
}

fn workstation(draw: &mut Draw, kind: f64, traits: Traits) -> Episode {
    if kind < 0.88 {
        return browsing(draw, traits);
    }
    if kind < 0.95 {
        // A page that polls while its tab is open.
        let period = draw.among(&[5.0, 10.0, 15.0, 30.0, 60.0]);
        let lasts = draw.lognormal(1200.0, 1.3).min(9.0 * HOUR);
        let jitter = draw.among(&[0.0, 0.05, 0.2]);
        let times = periodic(draw, period, jitter, true, 0.05, lasts);
        let bursts = sized(draw, times, (900.0, 0.2), (1500.0, 0.6));
        let is_connection_each = draw.happens(0.5);
        return Traits { kind: "tab", is_connection_each, ..traits }.episode(bursts);
    }
    if kind < 0.965 {
        let period = draw.among(&[30.0, 60.0, 300.0, 900.0, 3600.0]);
        let jitter = draw.among(&[0.0, 0.05, 0.2]);
        let mut times = periodic(draw, period, jitter, true, 0.05, HORIZON);
        keep_working_hours(&mut times, traits.start);
        let bursts = sized(draw, times, (1500.0, 0.5), (600.0, 0.5));
        let (is_connection_each, is_rolled_out) = (draw.happens(0.6), draw.happens(0.4));
        let is_new_process = draw.happens(0.3);
        let traits = Traits { is_connection_each, is_rolled_out, is_new_process, ..traits };
        return Traits { kind: "application", ..traits }.episode(bursts);
    }
    if kind < 0.975 {
        // A file is shared.
        let total = draw.lognormal(15e6, 1.5);
        let bursts =
            spread(draw, 3 + (total / 4e6) as usize, (total / 2e6).max(30.0), total, 1500.0);
        return Traits { kind: "share", seconds: 3.0, ..traits }.episode(bursts);
    }
    if kind < 0.985 {
        return call(draw, traits);
    }
    let count = some(draw, 40.0, 1.2);
    let mut times = irregular(draw, count, 300.0, 1.2);
    keep_working_hours(&mut times, traits.start);
    once_at_least(&mut times);
    let bursts = sized(draw, times, (3000.0, 1.2), (15_000.0, 1.3));
    Traits { kind: "service", ..traits }.episode(bursts)
}

fn once_at_least(times: &mut Vec<f64>) {
    if times.is_empty() {
        times.push(0.0);
    }
}

/// One or more visits with a few pages each.
fn browsing(draw: &mut Draw, traits: Traits) -> Episode {
    let visits = some(draw, 1.3, 0.7);
    let mut times = Vec::new();
    for visit in 0..visits {
        let begins = if visit == 0 { 0.0 } else { draw.unit() * HORIZON };
        let pages = some(draw, 6.0, 1.0);
        times.extend(irregular(draw, pages, 4.0, 1.3).into_iter().map(|at| begins + at));
    }
    keep_working_hours(&mut times, traits.start);
    once_at_least(&mut times);
    let bursts = sized(draw, times, (1800.0, 0.9), (40_000.0, 1.6));
    Traits { kind: "browsing", ..traits }.episode(bursts)
}

/// A call with picture: as much each way, every second.
fn call(draw: &mut Draw, traits: Traits) -> Episode {
    let lasts = draw.lognormal(1800.0, 0.7);
    let up = draw.lognormal(1.2e5, 0.5);
    let down = up * draw.lognormal(1.3, 0.4);
    let bursts = (0..lasts.ceil() as u32).map(|n| Burst { at: f64::from(n), up, down }).collect();
    let oddities = traits.oddities.with(Oddity::NoName);
    Traits { kind: "call", oddities, is_connection_each: false, ..traits }.episode(bursts)
}
