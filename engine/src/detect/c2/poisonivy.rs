//! `c2.poisonivy`: Poison Ivy's handshake and keep-alives.
//!
//! The implant connects and sends 256 random bytes; the controller sends them back enciphered
//! (Camellia, the password as key), 256 bytes too. Later both send 48-byte keep-alives; as each block is
//! enciphered by itself, bytes 16 to 31 are the same in all of them and depend on the password only.
//! Sources: FireEye, "Poison Ivy: Assessing Damage and Extracting Intelligence", 2013; Emerging Threats
//! open rules 2008380, 2008381 (256 bytes each way), 2017350 to 2017360 (bytes for eleven passwords,
//! which the pack carries).
//!
//! A known password's bytes prove, also in the middle of a connection. Keep-alives of an unknown
//! password after the handshake are suspect. The handshake alone is odd: 19 of 36,219 public TCP
//! payloads are benign segments of 256 bytes, so that size, order, direction and randomness are all
//! asked for. Evades: another keep-alive size.

use super::telling::{Sessions, Strength, Telling, hex, looks_random, payload, who};
use crate::detect::Outlook;
use crate::detect::registry::{Registration, Setup, Weight, WireDetector, reads};
use crate::detect::signal::{Pattern, Signal};
use crate::flow::{Appetite, FlowFacts, Observation, ObservationKind, Toward};
use sekisho_schema::finding::Direction;
use serde::Deserialize;

/// Bytes of the challenge and of its answer.
const CHALLENGE: usize = 256;
/// Bytes of a keep-alive, and those of them that depend on the password only.
const KEEP_ALIVE: usize = 48;
const CONSTANT: std::ops::Range<usize> = 16..32;
/// Equal keep-alives of an unknown password that are told.
const ENOUGH: u8 = 3;
/// Bytes from which randomness can be judged.
const JUDGED: usize = 16;

/// The bytes that a password gives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PoisonIvyPassword {
    /// The password.
    password: String,
    /// Bytes 16 to 31 of its keep-alives.
    constant: [u8; 16],
}

/// The line of the list of detectors.
pub(super) const REGISTRATION: Registration =
    Registration { id: "c2.poisonivy", reads: reads::STREAM, weight: Weight::Decides, build };

/// Constants of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PoisonIvySettings {
    /// Known passwords.
    passwords: Vec<PoisonIvyPassword>,
}

impl Default for PoisonIvySettings {
    fn default() -> Self {
        let known: [(&str, u128); 11] = [
            ("admin@388", 0xb0f6_8fd3_1c2b_0e50_7e16_85de_0cae_6e67),
            ("th3bug", 0x35d1_5014_94b2_24ac_9b00_2ef1_99a0_824d),
            ("keaidestone", 0x82ca_6feb_66ed_9e86_dc95_29f0_68a2_5db8),
            ("suzuki", 0xd477_ebff_b694_ccd1_25b6_3012_23d7_2e24),
            ("happyyongzi", 0xad4a_6cbb_a79c_303e_44bc_cfa5_db77_3c62),
            ("key@123", 0xef80_7bec_93e6_9206_1712_27be_e3e2_e119),
            ("gwx@123", 0x6c6e_d308_a626_34c7_bfc6_d3d9_df04_2597),
            ("wwwst@Admin", 0xb47d_5644_f323_e2a2_1d74_18b6_bc72_662a),
            ("xiaoxiaohuli", 0x4ec3_6955_10ad_3f34_31cc_d173_30ae_1664),
            ("smallfish", 0x1907_1b24_3b7a_9de7_771e_84f6_0f60_3e27),
            ("XGstone", 0xedd2_c6f2_b9ca_1edf_5cba_b70c_598e_9c49),
        ];
        let password = |(password, constant): (&str, u128)| PoisonIvyPassword {
            password: password.to_owned(),
            constant: constant.to_be_bytes(),
        };
        Self { passwords: known.map(password).into() }
    }
}

/// How far the conversation of a flow has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The implant's 256 bytes are on their way.
    #[default]
    Asking,
    /// The controller's answer is awaited.
    Asked,
    Answered,
    /// It is another protocol.
    Other,
}

/// The keep-alives of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Bytes of the head that were looked at.
    seen: usize,
    /// Bytes 0 to 31 of the last keep-alive.
    last: [u8; 32],
    /// Keep-alives in a row with equal constants and changing first blocks.
    equal: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    stage: Stage,
    remote: Way,
    local: Way,
}

/// Follows handshakes and keep-alives.
#[derive(Debug)]
pub(super) struct PoisonIvy {
    settings: PoisonIvySettings,
    telling: Telling,
    talks: Sessions<Talk>,
}

/// Makes the detector.
fn build(setup: &Setup<'_>) -> Result<Box<dyn WireDetector>, String> {
    let telling = Telling::new(setup.warrant.clone(), setup.seed);
    let talks = Sessions::new(setup.seed);
    Ok(Box::new(PoisonIvy { settings: setup.settings()?, telling, talks }))
}

impl WireDetector for PoisonIvy {
    fn observe(
        &mut self,
        o: &Observation<'_>,
        _outlook: &Outlook<'_>,
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let ObservationKind::Head { toward, bytes } = o.kind else { return Appetite::Enough };
        if let Some(known) = self.settings.known(bytes, bytes.len().saturating_sub(KEEP_ALIVE)) {
            tell_known(&mut self.telling, o, toward, known, bytes, emit);
            return Appetite::Enough;
        }
        let is_client = (o.flow.direction == Direction::Outbound) == (toward == Toward::Remote);
        let known = self.talks.find(&o.flow).copied();
        // Behind the request that opens a tunnel a direction begins anew, and so does the talk.
        let anew = known.is_none_or(|talk| bytes.len() < talk.way(toward).seen);
        let mut talk = if anew { Talk::default() } else { known.unwrap_or_default() };
        if anew && !(is_client && may_ask(&o.flow, bytes)) {
            return Appetite::Enough;
        }
        let appetite = self.follow(o, &mut talk, (toward, is_client), bytes, emit);
        if let Some(place) = self.talks.of(&o.flow) {
            *place = talk;
        }
        appetite
    }

    fn evicted(&self) -> u64 {
        self.telling.evicted() + self.talks.evicted()
    }
}

impl PoisonIvy {
    fn follow(
        &mut self,
        o: &Observation<'_>,
        talk: &mut Talk,
        (toward, is_client): (Toward, bool),
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        let before = talk.stage;
        talk.stage = next_stage(before, is_client, bytes);
        let stage = talk.stage;
        let way = talk.way_mut(toward);
        let seen = std::mem::replace(&mut way.seen, bytes.len());
        if stage == Stage::Other {
            return Appetite::Enough;
        }
        // A longer answer may be one, with what follows it, and is no reason to say so.
        let exact = bytes.len() == CHALLENGE;
        if before == Stage::Asked && stage == Stage::Answered && exact {
            self.telling
                .tell(o, (toward, bytes), Strength::Shape, emit, || handshake(toward, bytes));
        }
        let mut at = seen.max(CHALLENGE);
        // A hole that closes can bring several keep-alives at once.
        let whole = bytes.len().saturating_sub(at).is_multiple_of(KEEP_ALIVE);
        while let Some(message) = bytes.get(at..at + KEEP_ALIVE).filter(|_| whole) {
            if stage != Stage::Answered {
                break;
            }
            if let Some(known) = self.settings.known(message, 0) {
                tell_known(&mut self.telling, o, toward, known, message, emit);
                talk.stage = Stage::Other;
                return Appetite::Enough;
            }
            way.take(message);
            if way.equal >= ENOUGH {
                let strength = Strength::Likely;
                self.telling
                    .tell(o, (toward, message), strength, emit, || unknown(toward, message));
            }
            at += KEEP_ALIVE;
        }
        Appetite::More
    }
}

impl Talk {
    const fn way(&self, toward: Toward) -> &Way {
        match toward {
            Toward::Remote => &self.remote,
            Toward::Local => &self.local,
        }
    }

    const fn way_mut(&mut self, toward: Toward) -> &mut Way {
        match toward {
            Toward::Remote => &mut self.remote,
            Toward::Local => &mut self.local,
        }
    }
}

impl PoisonIvySettings {
    /// The password of a keep-alive that begins here and is the last of the bytes.
    fn known(&self, bytes: &[u8], at: usize) -> Option<&PoisonIvyPassword> {
        let message = bytes.get(at..).filter(|message| message.len() == KEEP_ALIVE)?;
        let constant = message.get(CONSTANT)?;
        self.passwords.iter().find(|known| known.constant == constant)
    }
}

impl Way {
    fn take(&mut self, message: &[u8]) {
        let Some(now) = message.first_chunk::<32>() else { return };
        let constant = now.get(CONSTANT) == self.last.get(CONSTANT);
        let changes = now.first_chunk::<16>() != self.last.first_chunk::<16>();
        self.equal = match looks_random(message) {
            true if constant && changes => self.equal.saturating_add(1),
            true => 1,
            false => 0,
        };
        self.last = *now;
    }
}

/// Whether a client's first bytes may be the beginning of a challenge.
fn may_ask(flow: &FlowFacts<'_>, bytes: &[u8]) -> bool {
    flow.start_seen && bytes.len() <= CHALLENGE && (bytes.len() < JUDGED || looks_random(bytes))
}

/// Whether 256 bytes have as many different values as random ones: 162, give or take 6.
fn is_diverse(bytes: &[u8]) -> bool {
    let mut seen = [0_u64; 4];
    for byte in bytes {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones()).sum::<u32>() >= 132
}

fn next_stage(stage: Stage, is_client: bool, bytes: &[u8]) -> Stage {
    match (stage, is_client) {
        (Stage::Asking, true) => match bytes.len() {
            CHALLENGE if looks_random(bytes) && is_diverse(bytes) => Stage::Asked,
            0..CHALLENGE if bytes.len() < JUDGED || looks_random(bytes) => Stage::Asking,
            _ => Stage::Other,
        },
        // The implant waits for its answer.
        (Stage::Asked, true) if bytes.len() > CHALLENGE => Stage::Other,
        (Stage::Asked, false) => match bytes.get(..CHALLENGE) {
            Some(answer) if looks_random(answer) && is_diverse(answer) => Stage::Answered,
            None if bytes.len() < JUDGED || looks_random(bytes) => Stage::Asked,
            Some(_) | None => Stage::Other,
        },
        (Stage::Asking, false) => Stage::Other,
        (stage, _) => stage,
    }
}

fn tell_known(
    telling: &mut Telling,
    o: &Observation<'_>,
    toward: Toward,
    known: &PoisonIvyPassword,
    bytes: &[u8],
    emit: &mut Vec<Signal>,
) {
    let message = bytes.get(bytes.len().saturating_sub(KEEP_ALIVE)..).unwrap_or_default();
    telling.tell(o, (toward, message), Strength::Proof, emit, || Pattern {
        told: format!(
            "{} as Poison Ivy does: a keep-alive of 48 bytes whose bytes 16 to 31 are those of the \
             password \"{}\"; the chance of this in other traffic is below 1 in 10^37.",
            who(toward),
            known.password,
        ),
        evidence: vec![payload(toward, message, [("password", known.password.as_str().into())])],
    });
}

fn handshake(toward: Toward, bytes: &[u8]) -> Pattern {
    Pattern {
        told: format!(
            "{} as Poison Ivy's controller would: 256 random bytes were answered with 256 random \
             bytes before anything else was said.",
            who(toward)
        ),
        evidence: vec![payload(toward, bytes, [])],
    }
}

fn unknown(toward: Toward, message: &[u8]) -> Pattern {
    let constant = hex(message.get(CONSTANT).unwrap_or_default());
    Pattern {
        told: format!(
            "{} as Poison Ivy does: after 256 random bytes each way, {ENOUGH} messages of 48 bytes \
             whose first blocks change and whose bytes 16 to 31 are always {constant}.",
            who(toward)
        ),
        evidence: vec![payload(toward, message, [("constant", constant.as_str().into())])],
    }
}

#[cfg(test)]
mod tests {
    use super::super::telling::shipped;
    use super::*;

    #[test]
    fn the_shipped_settings_are_the_defaults() {
        assert_eq!(shipped::<PoisonIvySettings>(REGISTRATION.id), PoisonIvySettings::default());
    }

    #[test]
    fn the_bytes_of_a_published_password_are_known_at_the_right_place_only() {
        let settings = PoisonIvySettings::default();
        // plugx.md, V7.
        let v7 = *b"\xb0\xf6\x8f\xd3\x1c\x2b\x0e\x50\x7e\x16\x85\xde\x0c\xae\x6e\x67";
        let message = [[0x1F; 16], v7, [0x9A; 16]].concat();
        assert_eq!(settings.known(&message, 0).unwrap().password, "admin@388");
        assert!(settings.known(&message[..47], 0).is_none());
        assert!(settings.known(&[&message[..], b"x"].concat(), 0).is_none());
        assert!(settings.known(&[v7, [0; 16], [0; 16]].concat(), 0).is_none());
    }

    #[test]
    fn only_random_bytes_of_the_right_size_in_the_right_order_are_a_handshake() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let random = [0_u8; 300].map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 40) as u8
        });
        let next = next_stage;
        assert_eq!(next(Stage::Asking, true, &random[..100]), Stage::Asking);
        assert_eq!(next(Stage::Asking, true, &random[..256]), Stage::Asked);
        assert_eq!(next(Stage::Asked, false, &random[..100]), Stage::Asked);
        assert_eq!(next(Stage::Asked, false, &random[..256]), Stage::Answered);
        assert_eq!(next(Stage::Asked, false, &random), Stage::Answered);
        assert_eq!(next(Stage::Asking, true, &random[..257]), Stage::Other);
        assert_eq!(next(Stage::Asking, false, &random[..256]), Stage::Other);
        assert_eq!(next(Stage::Asked, true, &random), Stage::Other);
        assert_eq!(next(Stage::Asking, true, &[b'a'; 256]), Stage::Other);
        assert_eq!(next(Stage::Asked, false, &[0; 256]), Stage::Other);
    }
}
