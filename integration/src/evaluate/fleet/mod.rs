//! A synthetic fleet from a seed: benign episodes, intrusions, daily uploads to approved destinations.
//!
//! In comes a seed; out come episodes: one host's traffic to one new destination during seven days.
//! Every rate and law is an assumption (detection.md, sections 4.4, 4.5 and 4.7), not a measurement. The
//! generator must not know how anything is recognised.

mod attack;
mod benign;
mod uploads;

pub use attack::{Attack, PLUGX_ODDITIES};
pub use uploads::{Kind as UploadKind, uploads};

use super::draw::Draw;

/// Seconds of an hour.
pub const HOUR: f64 = 3600.0;
/// Seconds of a day.
pub const DAY: f64 = 24.0 * HOUR;
/// How long an episode is watched, in seconds.
pub const HORIZON: f64 = 7.0 * DAY;

/// What a machine is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A server.
    Server,
    /// A person's machine.
    Workstation,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Server, Self::Workstation];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Workstation => "workstation",
        }
    }

    /// New destinations of a host in a week, on average.
    const fn rate(self) -> f64 {
        match self {
            Self::Server => 4.0,
            Self::Workstation => 60.0,
        }
    }
}

/// An oddity of protocol or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// The first payload looks fully encrypted.
    FullyEncrypted,
    /// HTTP to a bare address.
    HttpAddress,
    /// No name is bound to the address.
    NoName,
    /// TLS without a server name.
    NoServerName,
    /// Something other than TLS on port 443.
    NotTls,
    /// The certificate is self-signed.
    SelfSigned,
}

impl Oddity {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::FullyEncrypted,
        Self::HttpAddress,
        Self::NoName,
        Self::NoServerName,
        Self::NotTls,
        Self::SelfSigned,
    ];
}

/// A set of oddities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities(u8);

impl Oddities {
    /// The set of these.
    #[must_use]
    pub const fn of(these: &[Oddity]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < these.len() {
            bits |= 1 << these[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether one is in the set.
    #[must_use]
    pub const fn has(self, oddity: Oddity) -> bool {
        self.0 & 1 << oddity as u8 != 0
    }

    /// The same set with one more.
    #[must_use]
    pub const fn with(self, oddity: Oddity) -> Self {
        Self(self.0 | 1 << oddity as u8)
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Oddity> {
        Oddity::ALL.into_iter().filter(move |oddity| self.has(*oddity))
    }
}

/// A moment of an episode: an application's burst, and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Seconds since the episode began.
    pub at: f64,
    /// Payload bytes toward the destination.
    pub up: f64,
    /// Payload bytes back.
    pub down: f64,
}

/// A connection as a log of flows has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connection {
    /// Seconds since the episode began.
    pub at: f64,
    /// Bytes toward the destination, with headers.
    pub up: f64,
    /// Bytes back.
    pub down: f64,
    /// How long it lasted, in seconds.
    pub seconds: f64,
}

/// One host's traffic to one destination that was new to it, during seven days.
#[derive(Clone, Debug)]
pub struct Episode {
    /// What the generator made; nothing that judges may look at it.
    pub kind: &'static str,
    /// What the machine is there for.
    pub role: Role,
    /// Which machine.
    pub host: usize,
    /// In which week it began.
    pub week: usize,
    /// Seconds between the start of that week and the episode's.
    pub start: f64,
    /// What was sent and answered, in order of time.
    pub bursts: Vec<Burst>,
    /// The same as a log of flows has it.
    pub connections: Vec<Connection>,
    /// What is odd about it.
    pub oddities: Oddities,
    /// Whether the whole fleet takes it up, two hosts an hour.
    pub is_rolled_out: bool,
    /// Whether a process that is new to the host speaks.
    pub is_new_process: bool,
}

/// What episodes of a kind have in common.
#[derive(Clone, Copy, Debug)]
struct Traits {
    kind: &'static str,
    role: Role,
    start: f64,
    oddities: Oddities,
    /// Each burst is a connection; else one connection persists, made anew about every two days.
    is_connection_each: bool,
    is_rolled_out: bool,
    is_new_process: bool,
    /// Seconds that a connection lasts.
    seconds: f64,
}

impl Traits {
    const fn new(kind: &'static str, role: Role, start: f64) -> Self {
        Self {
            kind,
            role,
            start,
            oddities: Oddities(0),
            is_connection_each: true,
            is_rolled_out: false,
            is_new_process: false,
            seconds: 1.0,
        }
    }

    fn episode(self, mut bursts: Vec<Burst>) -> Episode {
        bursts.retain(|burst| burst.at < HORIZON);
        bursts.sort_by(|a, b| a.at.total_cmp(&b.at));
        Episode {
            kind: self.kind,
            role: self.role,
            host: 0,
            week: 0,
            start: self.start,
            connections: self.connections(&bursts),
            bursts,
            oddities: self.oddities,
            is_rolled_out: self.is_rolled_out,
            is_new_process: self.is_new_process,
        }
    }

    fn connections(&self, bursts: &[Burst]) -> Vec<Connection> {
        let (Some(first), Some(last)) = (bursts.first(), bursts.last()) else { return Vec::new() };
        let seconds = self.seconds;
        if self.is_connection_each {
            // 200 bytes stand for the headers of a short connection.
            let one = |b: &Burst| Connection { at: b.at, up: b.up + 200.0, down: b.down, seconds };
            return bursts.iter().map(one).collect();
        }
        let whole = last.at - first.at;
        let count = (whole / (2.0 * DAY)).ceil().max(1.0);
        let share = |of: fn(&Burst) -> f64| bursts.iter().map(of).sum::<f64>() / count;
        let (up, down) = (share(|b| b.up), share(|b| b.down));
        let each = whole / count;
        (0..count as usize)
            .map(|n| Connection { at: first.at + each * n as f64, up, down, seconds: each })
            .collect()
    }
}

impl Episode {
    /// Hosts of the fleet that know the destination so many hours after the episode began.
    #[must_use]
    pub fn hosts_after(&self, hours: f64) -> u32 {
        1 + if self.is_rolled_out { (hours * 2.0) as u32 } else { 0 }
    }

    /// The first moment; 0 for an episode without any.
    #[must_use]
    pub fn began(&self) -> f64 {
        self.bursts.first().map_or(0.0, |burst| burst.at)
    }

    /// All bytes toward the destination.
    #[must_use]
    pub fn total_up(&self) -> f64 {
        self.bursts.iter().map(|burst| burst.up).sum()
    }

    /// Bytes toward the destination up to a moment.
    #[must_use]
    pub fn up_until(&self, at: f64) -> f64 {
        self.bursts.iter().take_while(|burst| burst.at <= at).map(|burst| burst.up).sum()
    }
}

/// Times that come back every `period` seconds until `until`.
///
/// Cobalt Strike shortens a sleep by up to the share `jitter`; Empire and PoshC2 (`both_ways`) also lengthen it.
/// `clock` is the deviation of timers and network, in seconds.
pub fn periodic(
    draw: &mut Draw,
    period: f64,
    jitter: f64,
    both_ways: bool,
    clock: f64,
    until: f64,
) -> Vec<f64> {
    let most = (until / period * 2.2) as usize + 4;
    let mut times = Vec::new();
    let mut at = 0.0;
    while times.len() < most {
        let unit = draw.unit();
        let factor = if both_ways { 2.0 * unit - 1.0 } else { -unit };
        at += (period * (1.0 + jitter * factor) + draw.normal(0.0, clock)).max(0.2);
        if at >= until {
            break;
        }
        times.push(at);
    }
    times
}

/// Keeps what falls on Monday to Friday, 08:30 to 18:30.
fn keep_working_hours(times: &mut Vec<f64>, start: f64) {
    times.retain(|at| {
        let of_week = (at + start) % HORIZON;
        let hour = (of_week % DAY) / HOUR;
        of_week < 5.0 * DAY && (8.5..18.5).contains(&hour)
    });
}

/// Machines of a fleet, by role.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Servers.
    pub servers: usize,
    /// Workstations.
    pub workstations: usize,
}

impl Size {
    /// The fleet of detection.md, section 4.4.
    pub const USUAL: Self = Self { servers: 40, workstations: 20 };

    /// Machines of a role.
    #[must_use]
    pub const fn of(self, role: Role) -> usize {
        match role {
            Role::Server => self.servers,
            Role::Workstation => self.workstations,
        }
    }

    /// All machines.
    #[must_use]
    pub const fn all(self) -> usize {
        self.servers + self.workstations
    }
}

/// Makes the benign episodes of a fleet's weeks, one after another.
///
/// `rate` multiplies how many new destinations there are.
pub fn population(
    draw: &mut Draw,
    size: Size,
    weeks: usize,
    rate: f64,
    mut each: impl FnMut(Episode),
) {
    for role in Role::ALL {
        for host in 0..size.of(role) {
            // Hosts differ, so that host-weeks are over-dispersed.
            let activity = draw.gamma(4.0, 0.25);
            for week in 0..weeks {
                for _ in 0..draw.poisson(role.rate() * activity * rate) {
                    let start = start_of(draw, role);
                    each(Episode { host, week, ..benign::episode(draw, role, start) });
                }
            }
        }
    }
}

/// When in the week somebody or something meets a new destination.
fn start_of(draw: &mut Draw, role: Role) -> f64 {
    loop {
        let start = draw.unit() * HORIZON;
        let hour = (start % DAY) / HOUR;
        if role == Role::Server || (start < 5.0 * DAY && (8.5..18.0).contains(&hour)) {
            return start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(seed: u64) -> Vec<Episode> {
        let mut episodes = Vec::new();
        let size = Size { servers: 40, workstations: 4 };
        population(&mut Draw::new(seed), size, 4, 1.0, |episode| episodes.push(episode));
        episodes
    }

    #[test]
    fn a_fleet_is_what_its_seed_says() {
        let (a, b) = (fleet(3), fleet(3));
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(&b).all(|(a, b)| a.bursts == b.bursts && a.kind == b.kind));
    }

    #[test]
    fn rates_are_those_of_the_design() {
        let episodes = fleet(4);
        let of = |role| episodes.iter().filter(|e| e.role == role).count() as f64;
        assert!((of(Role::Server) / 160.0 - 4.0).abs() < 1.0, "{}", of(Role::Server) / 160.0);
        let fetches = episodes.iter().filter(|e| e.kind == "fetch").count() as f64;
        assert!((fetches / of(Role::Server) - 0.55).abs() < 0.06);
    }

    #[test]
    fn nothing_lies_behind_the_horizon_or_out_of_order() {
        for episode in fleet(5) {
            assert!(episode.bursts.iter().all(|b| (0.0..HORIZON).contains(&b.at)));
            assert!(episode.bursts.is_sorted_by(|a, b| a.at <= b.at), "{}", episode.kind);
        }
    }
}
