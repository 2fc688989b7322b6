//! `c2.dnscat2`: the dnscat2 tunnel in names that are asked for.
//!
//! A name carries a message as hexadecimal digits, dots ignored, below a zone of the intruder or
//! behind the label `dnscat` (iagox86/dnscat2, `doc/protocol.md`): u16 packet id, u8 type (0 begin,
//! 1 message, 2 end, 3 encryption), u16 session, then at least four bytes (one for type 2, two for
//! type 3), all big-endian. The packet id changes with each message, the session stays: names with
//! different packet ids, a valid type and one session below one zone are told once there are
//! [`Dnscat2Settings::names`] of them. By chance that is 2^-22 for each further random name.
//!
//! A stranger's page can make a browser ask for the addresses of any name: if nothing but A and AAAA
//! was asked for, the finding is suspect and can't cut. What evades it: another coding of the header,
//! a new session for each message, DNS over HTTPS.
//!
//! Measured: found in all five public captures that hold it (two of nDPI, three of a collection of
//! tunnels), at the fourth name of a session; 0 findings in the other 85,638 questions of 141 captures.

use super::super::Outlook;
use super::super::registry::{Registration, Setup, Weight, WireDetector, reads};
use super::super::signal::{Pattern, Signal, Warrant};
use super::codec::{digest, hex_digit};
use super::framework::{Asked, ask, is_led, lesser};
use crate::flow::{Appetite, Observation};
use crate::learn::Bounded;
use sekisho_schema::{Evidence, Grade, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub(super) const REGISTRATION: Registration = Registration {
    id: "c2.dnscat2",
    reads: reads::MESSAGE,
    weight: Weight::Decides,
    build: |setup| Ok(Box::new(Dnscat2::new(setup)?)),
};

/// Sessions watched at once; each costs less than 100 bytes.
const SESSIONS: usize = 4096;
/// Most names that can be asked for before a session is told.
const MOST: usize = 16;
/// A session that is silent for so long begins anew.
const SILENCE: Span = Span::from_secs(3600);
/// A session that goes on is told again after this span.
const AGAIN: Span = Span::from_secs(10);

/// The constants of [`REGISTRATION`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Dnscat2Settings {
    /// Names of one session that prove it, 2 to 16.
    names: usize,
    /// The label that stands before the digits when there is no zone.
    prefix: String,
    /// Record types that are asked for (IANA numbers).
    types: Vec<u16>,
}

impl Default for Dnscat2Settings {
    fn default() -> Self {
        Self { names: 4, prefix: "dnscat".to_owned(), types: vec![1, 5, 15, 16, 28] }
    }
}

/// The clear header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    packet: u16,
    kind: u8,
    session: u16,
}

#[derive(Debug)]
struct Session {
    packets: [u16; MOST],
    count: usize,
    /// Whether a type was asked for that a browser does not ask for.
    deliberate: bool,
    last_at: Timestamp,
    told_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Dnscat2 {
    warrant: Warrant,
    suspect: Warrant,
    settings: Dnscat2Settings,
    sessions: Bounded<(IpAddr, u16, u64), Session>,
}

impl Dnscat2 {
    fn new(setup: &Setup<'_>) -> Result<Self, String> {
        let mut settings: Dnscat2Settings = setup.settings()?;
        settings.names = settings.names.clamp(2, MOST);
        Ok(Self {
            warrant: setup.warrant.clone(),
            suspect: lesser(&setup.warrant, Grade::Suspect),
            settings,
            sessions: Bounded::new(SESSIONS, setup.seed),
        })
    }
}

/// Reads the header of a message out of a name; the zone is what follows the digits, or the prefix.
fn header<'n>(name: &'n str, prefix: &str) -> Option<(Header, &'n str)> {
    let (digits, direct) = match name.split_once('.') {
        Some((first, rest)) if first == prefix => (rest, true),
        _ => (name, false),
    };
    let mut rest = digits;
    let mut head = [0_u8; 5];
    let mut count = 0_usize;
    while !rest.is_empty() {
        let (label, after) = rest.split_once('.').unwrap_or((rest, ""));
        if !label.bytes().all(|byte| hex_digit(byte).is_some()) {
            break;
        }
        for digit in label.bytes().filter_map(hex_digit) {
            if let Some(byte) = head.get_mut(count / 2) {
                *byte = *byte << 4 | digit;
            }
            count += 1;
        }
        rest = after;
    }
    let [p0, p1, kind, s0, s1] = head;
    let least = match kind {
        0 | 1 => 18,
        2 => 12,
        3 => 14,
        _ => return None,
    };
    if count < least || !count.is_multiple_of(2) || direct != rest.is_empty() {
        return None;
    }
    let header = Header {
        packet: u16::from_be_bytes([p0, p1]),
        kind,
        session: u16::from_be_bytes([s0, s1]),
    };
    Some((header, if direct { "" } else { rest }))
}

impl WireDetector for Dnscat2 {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let Some(Asked { host, who: [who, whom], question }) = ask(o) else {
            return Appetite::Enough;
        };
        if !self.settings.types.contains(&question.qtype) {
            return Appetite::Enough;
        }
        let name = question.name.as_str();
        let Some((header, zone)) = header(name, &self.settings.prefix) else {
            return Appetite::Enough;
        };
        let key = (host, header.session, digest(zone.as_bytes()));
        let fresh = || Session {
            packets: [0; MOST],
            count: 0,
            deliberate: false,
            last_at: o.at,
            told_at: None,
        };
        let Some(session) = self.sessions.upsert(&key, fresh, |_| true) else {
            return Appetite::Enough;
        };
        if o.at.since(session.last_at) > SILENCE {
            *session = fresh();
        }
        session.last_at = o.at;
        session.deliberate |= !is_led(question.qtype);
        let known = session.packets.iter().take(session.count).any(|id| *id == header.packet);
        if !known && let Some(place) = session.packets.get_mut(session.count) {
            *place = header.packet;
            session.count += 1;
        }
        let again = session.told_at.is_none_or(|told| o.at.since(told) > AGAIN);
        if session.count < self.settings.names || !again {
            return Appetite::Enough;
        }
        session.told_at = Some(o.at);
        let warrant = if session.deliberate { &self.warrant } else { &self.suspect };
        let names = session.count;
        let place =
            if zone.is_empty() { "behind dnscat.".to_owned() } else { format!("under {zone}") };
        let told = format!(
            "{who} asked {whom} for {names} different names {place} that each begin like a dnscat2 message: a packet id, a type (now {}) and the same session 0x{:04x} in all; four random names agree so by chance in less than 1 of 10^26 cases.",
            header.kind, header.session,
        );
        let evidence = vec![Evidence::new(
            "name",
            [
                ("digits", name.chars().take(64).collect::<String>().into()),
                ("zone", zone.into()),
                ("session", format!("0x{:04x}", header.session).into()),
                ("names", names.into()),
                ("type", question.qtype.into()),
            ],
        )];
        let mut signal = warrant.pattern(o, true, Pattern { told, evidence });
        if !zone.is_empty() {
            // The resolver that was asked is not the tunnel's end.
            signal.target = None;
            signal.name = Some(zone.to_owned());
        }
        emit.push(signal);
        Appetite::Enough
    }

    fn evicted(&self) -> u64 {
        self.sessions.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(packet: u16, kind: u8, session: u16, body: &str, zone: &str) -> String {
        format!("{packet:04x}{kind:02x}{session:04x}{body}{zone}")
    }

    #[test]
    fn a_message_is_read_with_its_zone_whatever_the_dots() {
        let text = name_of(0x5d23, 1, 0x340f, "59af30942087.2c7ac9", ".t.example.org");
        let (found, zone) = header(&text, "dnscat").unwrap();
        assert_eq!(found, Header { packet: 0x5d23, kind: 1, session: 0x340f });
        assert_eq!(zone, "t.example.org");
        let dotted = "5d.23.01340f.59af3094.t.example.org";
        assert_eq!(header(dotted, "dnscat").unwrap().0, found);
        let direct = format!("dnscat.{}", name_of(0x546b, 3, 0x03f5, "0000", ""));
        assert_eq!(
            header(&direct, "dnscat"),
            Some((Header { packet: 0x546b, kind: 3, session: 0x03f5 }, ""))
        );
    }

    #[test]
    fn hashes_addresses_and_short_names_are_no_messages() {
        for other in [
            "d41d8cd98f00b204e9800998ecf8427e.hash.example", // type 0x8c
            "0123.example.org",
            "www.example.org",
            "5d2301340f59af.t.example.org", // a message of type 1 has nine bytes
            "5d2301340f59af3094208.t.example.org", // half a byte
            "5d2301340f59af309420",         // no zone and no prefix
            "dnscat.5d2301340f59af309420.example", // a prefix and a zone
            "",
            ".",
        ] {
            assert_eq!(header(other, "dnscat"), None, "{other}");
        }
    }

    #[test]
    fn shipped_settings_are_the_defaults() {
        assert_eq!(
            super::super::framework::shipped::<Dnscat2Settings>("c2.dnscat2"),
            Dnscat2Settings::default()
        );
    }
}
