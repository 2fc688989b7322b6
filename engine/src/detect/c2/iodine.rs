//! `c2.iodine`: IPv4 in DNS names, or raw to the server's port 53.
//!
//! A name begins with a letter that commands (yarrick/iodine, `doc/proto_00000502.txt`): `v` and 10
//! base32 letters (u32 version, u16 counter), `l` and 31 letters (u8 user, 16 bytes of MD5, u16
//! counter), `p` and 7 letters (u8 user, u8 acknowledgement, u16 counter) as keep-alive. A version of
//! the list is told as suspect; a login under the same zone, or a run of keep-alives of one user with
//! a rising counter where the beginning was not seen, is told with the grade of the pack. Chance: a
//! version query 2^-30, a run of five keep-alives about 2^-56.
//!
//! Raw datagrams begin `10 d1 9e` and a byte of command (1 login with 16 bytes, 2 data, 3 keep-alive)
//! and user; the inside end's own one is suspect, with a second or with the server's answer it proves.
//!
//! If nothing but addresses was asked for, which a stranger's page can have done, it stays suspect.
//! What evades it: another base32 alphabet or first letter, DNS over HTTPS.
//!
//! Measured: found at the second query (login) in the three public captures that begin with the
//! handshake; 0 findings elsewhere in the DNS of the public captures.

use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, is_own_word, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::codec::{base32, digest};
use super::framework::{Asked, ask, is_led, lesser};
use super::telling::hex;
use crate::flow::{Appetite, Observation, ObservationKind, Toward};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, FlowKey, Grade, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.iodine",
    reads: reads::MESSAGE | reads::DATAGRAM,
    weight: Weight::Decides,
    build: |setup| Ok(Box::new(Iodine::new(setup)?)),
};

/// Zones watched at once for all inside ends.
const ZONES: usize = 4096;
/// Raw flows watched at once.
const FLOWS: usize = 1024;
/// First bytes of a raw datagram.
const RAW: [u8; 3] = [0x10, 0xD1, 0x9E];
/// Most that the counter rises between two keep-alives: every other query takes a number too.
const STEP: u16 = 64;
/// A zone that is silent for so long begins anew.
const SILENCE: Span = Span::from_secs(3600);
/// A tunnel that goes on is told again after this span.
const AGAIN: Span = Span::from_secs(10);

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct IodineSettings {
    /// Protocol versions that are known.
    versions: Vec<u32>,
    /// Keep-alives in a row that prove a tunnel whose beginning was not seen, at least 3.
    pings: u8,
}

impl Default for IodineSettings {
    fn default() -> Self {
        Self { versions: vec![0x402, 0x403, 0x500, 0x501, 0x502, 0x800], pings: 5 }
    }
}

/// What a name commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Login { user: u8 },
    Ping { user: u8, counter: u16 },
    Version(u32),
}

/// Reads the command of a first label.
fn command(label: &str) -> Option<Command> {
    let (first, rest) = label.as_bytes().split_first()?;
    match (first, rest.len()) {
        (b'v', 10) => {
            let mut bytes = [0; 6];
            base32(rest, &mut bytes)?;
            let [a, b, c, d, ..] = bytes;
            Some(Command::Version(u32::from_be_bytes([a, b, c, d])))
        }
        (b'l', 31) => {
            let mut bytes = [0; 19];
            base32(rest, &mut bytes)?;
            let [user, ..] = bytes;
            (user < 16).then_some(Command::Login { user })
        }
        (b'p', 7) => {
            let mut bytes = [0; 4];
            base32(rest, &mut bytes)?;
            let [user, _, high, low] = bytes;
            (user < 16).then_some(Command::Ping { user, counter: u16::from_be_bytes([high, low]) })
        }
        _ => None,
    }
}

#[derive(Clone, Debug)]
struct Zone {
    version: Option<u32>,
    login: bool,
    /// User and counter of the last keep-alive, and how many followed each other.
    ping: Option<(u8, u16)>,
    run: u8,
    /// Whether a type was asked for that a browser does not ask for.
    deliberate: bool,
    last_at: Timestamp,
    told_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Iodine {
    warrant: Warrant,
    suspect: Warrant,
    settings: IodineSettings,
    zones: Bounded<(IpAddr, u64), Zone>,
    /// Raw datagrams of a flow: the inside end's, the other's, and the digest of its last.
    raw: Bounded<FlowKey, (u8, u8, u64)>,
}

impl Iodine {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        let mut settings: IodineSettings = setup.settings()?;
        settings.pings = settings.pings.max(3);
        Ok(Self {
            warrant: setup.warrant.clone(),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            settings,
            zones: Bounded::new(ZONES, setup.seed),
            raw: Bounded::new(FLOWS, setup.seed),
        })
    }

    fn observe_name(&mut self, o: &Observation<'_>, emit: &mut Vec<Signal>) {
        let Some(Asked { host, who: [who, whom], question }) = ask(o) else { return };
        let Some((label, zone)) = question.name.as_str().split_once('.') else { return };
        let Some(command) = command(label) else { return };
        if matches!(command, Command::Version(version) if !self.settings.versions.contains(&version))
        {
            return;
        }
        let key = (host, digest(zone.as_bytes()));
        let fresh = || Zone {
            version: None,
            login: false,
            ping: None,
            run: 0,
            deliberate: false,
            last_at: o.at,
            told_at: None,
        };
        let Some(seen) = self.zones.upsert(&key, fresh, |_| true) else { return };
        if o.at.since(seen.last_at) > SILENCE {
            *seen = fresh();
        }
        seen.last_at = o.at;
        seen.deliberate |= !is_led(question.qtype);
        let (news, what) = match command {
            Command::Version(version) => {
                let news = seen.version.replace(version).is_none();
                (news, format!("a version query of iodine protocol {version:08x}"))
            }
            Command::Login { user } if seen.version.is_some() => {
                let news = !std::mem::replace(&mut seen.login, true);
                (news, format!("a version query and then a login of user {user}, as iodine begins"))
            }
            Command::Login { .. } => return,
            Command::Ping { user, counter } => {
                seen.run = match seen.ping.replace((user, counter)) {
                    Some((same, before))
                        if same == user && (1..=STEP).contains(&counter.wrapping_sub(before)) =>
                    {
                        seen.run.saturating_add(1)
                    }
                    Some(before) if before == (user, counter) => seen.run,
                    _ => 1,
                };
                if seen.run < self.settings.pings {
                    return;
                }
                let what = format!(
                    "{} keep-alives of iodine in a row, of user {user} and with a rising counter",
                    seen.run
                );
                (seen.run == self.settings.pings, what)
            }
        };
        let again = seen.told_at.is_none_or(|told| o.at.since(told) > AGAIN);
        if !news && !again {
            return;
        }
        seen.told_at = Some(o.at);
        let proven = seen.deliberate && (seen.login || seen.run >= self.settings.pings);
        let warrant = if proven { &self.warrant } else { &self.suspect };
        let told = format!("{who} sent {whom} {what}, in names under {zone}.");
        let evidence = vec![Evidence::new(
            "name",
            [
                ("label", label.chars().take(64).collect::<String>().into()),
                ("zone", zone.into()),
                ("type", question.qtype.into()),
            ],
        )];
        let mut signal = warrant.pattern(o, true, Pattern { told, evidence });
        // The resolver that was asked is not the tunnel's end.
        signal.target = None;
        signal.name = Some(zone.to_owned());
        emit.push(signal);
    }

    fn observe_raw(
        &mut self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) {
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return };
        let [a, b, c, code] = *head;
        let fits = match code >> 4 {
            1 => rest.len() == 16,
            2 => !rest.is_empty(),
            3 => rest.is_empty(),
            _ => false,
        };
        if [a, b, c] != RAW || !fits {
            return;
        }
        let fresh = || (0, 0, 0);
        let Some((own, other, heard)) = self.raw.upsert(&o.flow.key, fresh, |_| true) else {
            return;
        };
        let said = digest(bytes);
        if is_own_word(toward) {
            // A service that sends back what a stranger says is no client.
            if *other != 0 && *heard == said {
                return;
            }
            *own = own.saturating_add(1);
        } else {
            *heard = said;
            *other = other.saturating_add(1);
        }
        let proven = *own >= 2 || (*own >= 1 && *other >= 1);
        let warrant = if proven { &self.warrant } else { &self.suspect };
        let (own, other) = (*own, *other);
        let told = format!(
            "{{host}} and {{remote}} exchanged iodine's raw datagrams: {own} of {{host}} and {other} of {{remote}} begin 10 d1 9e, the last with command {}.",
            code >> 4
        );
        let evidence = vec![Evidence::new("payload", [("head", hex(bytes).into())])];
        emit.push(warrant.pattern(o, own >= 1, Pattern { told, evidence }));
    }
}

impl WireDetector for Iodine {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if let ObservationKind::Head { toward, bytes } = o.kind {
            self.observe_raw(o, toward, bytes, emit);
        } else {
            self.observe_name(o, emit);
        }
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.zones.evicted() + self.raw.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::BASE32;
    use super::*;

    /// Base32 as the protocol's text has it, written apart from the reader.
    fn encode(bytes: &[u8]) -> String {
        let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
        let padded = format!("{bits:0<width$}", width = bits.len().div_ceil(5) * 5);
        padded
            .as_bytes()
            .chunks(5)
            .map(|five| {
                let five = std::str::from_utf8(five).unwrap();
                char::from(BASE32[usize::from_str_radix(five, 2).unwrap()])
            })
            .collect()
    }

    #[test]
    fn the_commands_of_the_protocol_are_read() {
        let version = format!("v{}", encode(&[0, 0, 5, 2, 0x11, 0x22]));
        assert_eq!(command(&version), Some(Command::Version(0x502)));
        let mut login = vec![3];
        login.extend([0xA7; 16]);
        login.extend([1, 2]);
        assert_eq!(command(&format!("l{}", encode(&login))), Some(Command::Login { user: 3 }));
        let ping = format!("p{}", encode(&[1, 0x12, 0x30, 0x39]));
        assert_eq!(command(&ping), Some(Command::Ping { user: 1, counter: 12345 }));
    }

    #[test]
    fn words_of_the_same_length_are_no_commands_or_not_twice() {
        assert_eq!(command("platform"), None);
        assert_eq!(
            command("packages"),
            Some(Command::Ping { user: 0, counter: command_counter("packages") })
        );
        for word in ["versions", "video-cdn01", "l", "", "p", "www", "vaaaakardl9"] {
            assert_eq!(command(word), None, "{word}");
        }
    }

    fn command_counter(word: &str) -> u16 {
        let mut bytes = [0; 4];
        base32(&word.as_bytes()[1..], &mut bytes).unwrap();
        u16::from_be_bytes([bytes[2], bytes[3]])
    }

    #[test]
    fn shipped_settings_are_the_defaults() {
        assert_eq!(
            super::super::framework::shipped::<IodineSettings>("c2.iodine"),
            IodineSettings::default()
        );
    }
}
