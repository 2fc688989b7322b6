//! Reads what the contiguous first bytes of a stream's direction say: which protocol it is, decided
//! by their first ones, and then the facts that this protocol tells in clear.

mod http;
mod tls;

use super::dns;
use super::entry::{Entry, by, flag};
use super::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use super::teller::Teller;
use crate::app::http_head::{Cuts, may_be_request, may_be_response};
use crate::app::socks::{self, SocksReading};
use crate::app::ssh::{self, SshHello, SshOffer, SshReading};

/// No fact is waited for beyond this many bytes: a TLS record's length, and that of a request head.
const FACT_WITHIN: usize = 16 * 1024;
/// Messages and heads read in one go; honest clients pipeline few.
const MAX_UNITS: usize = 256;
/// Content type of a TLS handshake record (RFC 8446 §5.1).
pub(super) const TLS_HANDSHAKE: u8 = 22;
/// Content type of a TLS alert record (RFC 8446 §5.1).
const TLS_ALERT: u8 = 21;

/// What there is to do after the bytes at hand were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A tunnel begins behind this many bytes.
    Anew(usize),
    /// Nothing more is to be read.
    Done,
    /// What came is read; what comes next begins something of its own.
    Idle,
    /// More bytes are needed.
    More,
}

/// What the bytes of a direction are, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Unknown,
    Certificate,
    ClientHello,
    Dns,
    /// Nothing that is read here.
    Over,
    Request,
    /// The head was told, the observer wants more of the body.
    RequestBody(Cuts),
    Response,
    ResponseBody(Cuts),
    ServerHello,
    SocksReply,
    SocksRequest,
    SshBanner,
    SshOffer,
}

/// How far a direction is read; it is kept with the bytes that are held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    stage: Stage,
    /// Where the message or head under reading begins.
    unit: usize,
    /// Bytes that were looked at before and gave nothing whole.
    seen: usize,
    /// Length of the head when a name was looked for last.
    named_at: usize,
    /// Looking again is of no use before there are so many bytes.
    wake: usize,
    /// Bytes before those at hand are missing for good.
    pub(super) middle: bool,
}

impl Reader {
    /// Reads what came behind bytes that are given up.
    pub(super) fn in_the_middle() -> Self {
        Self { middle: true, ..Self::default() }
    }

    /// Takes note that everything before the unit under reading is let go, and says how much that is.
    pub(super) fn shed(&mut self) -> usize {
        let shed = std::mem::take(&mut self.unit);
        self.seen = self.seen.saturating_sub(shed);
        self.wake = self.wake.saturating_sub(shed);
        shed
    }

    /// Reads on; `bytes` are all contiguous bytes so far, `last` says that no more can follow them.
    pub(super) fn read<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &mut Entry,
        toward: Toward,
        bytes: &[u8],
        last: bool,
    ) -> Step {
        if bytes.len() < self.wake && !last {
            return Step::More;
        }
        for _ in 0..MAX_UNITS {
            let unit = bytes.get(self.unit..).unwrap_or_default();
            let step = match self.stage {
                // Servers pass over an empty line before a request (RFC 9112 §2.2).
                Stage::Unknown if unit == b"\r\n" && entry.is_client(toward) => {
                    return Step::More;
                }
                Stage::Unknown if is_late_request(unit) && entry.is_client(toward) => {
                    return Step::Anew(self.unit + 2);
                }
                Stage::Unknown => match classify(entry, toward, unit) {
                    Some(stage) => {
                        self.stage = stage;
                        continue;
                    }
                    None => return if unit.is_empty() { Step::Idle } else { Step::More },
                },
                Stage::Certificate => tls::certificate(teller, entry, unit),
                Stage::ClientHello => self.client_hello(teller, entry, unit, last),
                Stage::Dns => self.message(teller, entry, toward, unit, last),
                Stage::Over => Some(Step::Done),
                Stage::Request => self.request(teller, entry, toward, unit, last),
                Stage::RequestBody(cuts) => self.request_again(teller, entry, toward, unit, cuts),
                Stage::Response => self.response(teller, entry, toward, unit),
                Stage::ResponseBody(cuts) => self.response_again(teller, entry, toward, unit, cuts),
                Stage::ServerHello => self.server_hello(teller, entry, unit),
                Stage::SocksReply => socks_reply(entry, toward, unit),
                Stage::SocksRequest => socks_request(teller, entry, toward, unit),
                Stage::SshBanner => self.ssh_banner(teller, entry, toward, unit),
                Stage::SshOffer => ssh_offer(teller, entry, toward, unit),
            };
            match step {
                // The next unit, or the next stage of this one.
                None => self.seen = self.unit,
                Some(Step::Anew(at)) => return Step::Anew(self.unit + at),
                Some(Step::More) if unit.len() >= FACT_WITHIN && !self.is_body() => break,
                Some(Step::More) => return Step::More,
                Some(Step::Idle) => return Step::Idle,
                Some(Step::Done) => break,
            }
        }
        if self.stage == Stage::Dns {
            // The next segment may well begin a message.
            self.unit = bytes.len();
            return Step::Idle;
        }
        *self = Self { stage: Stage::Over, middle: self.middle, ..Self::default() };
        Step::Done
    }

    const fn is_body(&self) -> bool {
        matches!(self.stage, Stage::RequestBody(_) | Stage::ResponseBody(_))
    }

    /// Goes on behind a unit; whether there is anything.
    fn next_unit(&mut self, len: usize, stage: Stage) {
        self.unit += len;
        self.stage = stage;
        self.wake = 0;
    }

    /// A message of DNS over TCP, behind its length (RFC 1035 §4.2.2).
    fn message<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &mut Entry,
        toward: Toward,
        unit: &[u8],
        last: bool,
    ) -> Option<Step> {
        let Some((len, rest)) = unit.split_first_chunk::<2>() else {
            return Some(if unit.is_empty() { Step::Idle } else { Step::More });
        };
        let len = usize::from(u16::from_be_bytes(*len));
        match rest.split_at_checked(len) {
            Some((message, _)) => {
                if !dns::take_message(teller, entry, toward, message) {
                    return Some(Step::Done);
                }
                self.next_unit(2 + len, Stage::Dns);
                None
            }
            None if last || unit.len() >= FACT_WITHIN => {
                dns::take_message(teller, entry, toward, rest);
                Some(Step::Done)
            }
            None if dns::may_be_message(rest) => {
                self.wake = self.unit + 2 + len.min(FACT_WITHIN - 2);
                Some(Step::More)
            }
            None => Some(Step::Done),
        }
    }

    fn ssh_banner<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &Entry,
        toward: Toward,
        unit: &[u8],
    ) -> Option<Step> {
        match ssh::banner(unit) {
            SshReading::Incomplete => Some(Step::More),
            SshReading::Other => Some(Step::Done),
            SshReading::Whole(banner, len) => {
                let hello = &SshHello::Banner(banner);
                teller.tell(entry, ObservationKind::Ssh { toward, hello });
                self.next_unit(len, Stage::SshOffer);
                None
            }
        }
    }
}

/// Whether a request seems to begin behind an empty line.
fn is_late_request(bytes: &[u8]) -> bool {
    matches!(bytes, [b'\r', b'\n', rest @ ..] if !rest.is_empty() && may_be_request(rest))
}

/// What the first bytes of a direction begin; `None` while that is open.
fn classify(entry: &Entry, toward: Toward, bytes: &[u8]) -> Option<Stage> {
    if entry.has(flag::DNS) && !is_foreign_on_dns(bytes)? {
        return Some(Stage::Dns);
    }
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    let stage = match *bytes.first()? {
        TLS_HANDSHAKE => match bytes.get(5) {
            Some(1) => Stage::ClientHello,
            Some(2) => Stage::ServerHello,
            Some(_) => Stage::Over,
            None => return None,
        },
        // A warning may come before a server's hello (RFC 5246 §7.2).
        TLS_ALERT if !entry.is_client(toward) && begins(&[TLS_ALERT, 3]) => Stage::ServerHello,
        b'H' if may_be_response(bytes) => {
            return if bytes.len() > 1 { Some(Stage::Response) } else { None };
        }
        b'S' if begins(b"SSH-") => {
            return if bytes.len() > 1 { Some(Stage::SshBanner) } else { None };
        }
        first if first.is_ascii_uppercase() && may_be_request(bytes) => Stage::Request,
        4 if entry.is_client(toward) => Stage::SocksRequest,
        5 if entry.is_client(toward) => Stage::SocksRequest,
        5 => Stage::SocksReply,
        0 if entry.has(by(flag::SOCKS_4, toward.opposite())) => Stage::SocksReply,
        _ => Stage::Over,
    };
    Some(stage)
}

/// Whether bytes on the port of DNS begin another protocol: as the length of a message, what those
/// begin with is more than any client sends. `None` while that is open.
fn is_foreign_on_dns(bytes: &[u8]) -> Option<bool> {
    let first = *bytes.first()?;
    if first != TLS_HANDSHAKE && !first.is_ascii_uppercase() {
        return Some(false);
    }
    let (word, _) = bytes.split_first_chunk::<6>()?;
    Some(match word {
        [TLS_HANDSHAKE, 3, 0..=4, _, _, 1 | 2] => true,
        _ => {
            word.starts_with(b"SSH-")
                || may_be_response(word)
                || may_be_request(bytes) && word.iter().skip(2).all(|b| matches!(b, b' '..=b'~'))
        }
    })
}

fn ssh_offer<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    toward: Toward,
    unit: &[u8],
) -> Option<Step> {
    match SshOffer::parse(unit, entry.is_client(toward)) {
        SshReading::Incomplete => Some(Step::More),
        SshReading::Other => Some(Step::Done),
        SshReading::Whole(offer, _) => {
            let hello = &SshHello::Offer(offer);
            teller.tell(entry, ObservationKind::Ssh { toward, hello });
            Some(Step::Done)
        }
    }
}

fn socks_request<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    toward: Toward,
    unit: &[u8],
) -> Option<Step> {
    match socks::request(unit) {
        SocksReading::Incomplete => Some(Step::More),
        SocksReading::Other => Some(Step::Done),
        SocksReading::Whole { end, target } => {
            entry.put(by(flag::SOCKS_4, toward), unit.first() == Some(&4));
            if let Some(target) = target {
                teller.tell_server(entry, &target, NameSource::Socks);
            }
            Some(Step::Anew(end))
        }
    }
}

fn socks_reply(entry: &mut Entry, toward: Toward, unit: &[u8]) -> Option<Step> {
    let asked_4 = by(flag::SOCKS_4, toward.opposite());
    match socks::reply(unit, entry.has(asked_4)) {
        SocksReading::Incomplete => Some(Step::More),
        SocksReading::Other => Some(Step::Done),
        SocksReading::Whole { end, .. } => {
            entry.put(asked_4, false);
            Some(Step::Anew(end))
        }
    }
}
