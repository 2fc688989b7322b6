//! Documents that people write and others may have changed: packs, policies, seals, cases.

use crate::packets::{tight_limits, watching};
use crate::tape::START;
use sekisho_engine::cases::CaseFile;
use sekisho_engine::rules::RulesBuilder;
use sekisho_engine::wire::{Frame, LinkType};
use sekisho_engine::{Engine, EngineConfig, Input, Limits, drive};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::{Local, SigningKey};
use sekisho_schema::{Policy, Sealed, Timestamp, TrustAnchors, Verified};
use std::sync::LazyLock;

/// The key that signs seeds.
pub(crate) static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

/// A flow that most detectors look at, as frames.
static TRAFFIC: LazyLock<Vec<(i64, Vec<u8>)>> = LazyLock::new(|| {
    let cases = [
        include_str!("../../rules/cases/plugx.tcp.toml"),
        include_str!("../../rules/cases/c2.gh0st.toml"),
    ];
    let files = cases.iter().filter_map(|text| CaseFile::parse(text).ok());
    let first = files.filter_map(|file| file.cases.into_iter().next()?.frames().ok());
    first.flatten().map(|frame| (frame.at_ns, frame.bytes)).collect()
});

pub(crate) fn play(engine: &mut Engine) {
    for (at_ns, bytes) in TRAFFIC.iter() {
        let wire_len = bytes.len() as u32;
        let frame = Frame { at_ns: *at_ns, link: LinkType::Ethernet, wire_len, bytes };
        drive::step(engine, frame, &mut drop);
    }
    drive::tick(engine, Timestamp::from_nanos(START + 7_200_000_000_000), &mut drop);
}

/// A rule pack, which then looks at traffic.
pub fn rule_pack(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(pack) = RulePack::parse(text) else { return };
    let mut builder = RulesBuilder::new();
    // A refusal leaves nothing behind: the rest must still be fit for use.
    let _refused = builder.add_pack(&Verified::locally(pack, Local::BuiltIn));
    let rules = Box::new(builder.build());
    let limits = Limits { heads_bytes: 1 << 20, ..tight_limits() };
    let mut engine = Engine::new(EngineConfig { host: "fuzz".to_owned(), limits, hash_seed: 0 });
    engine.handle(Input::Rules(rules, Timestamp::from_nanos(START)));
    play(&mut engine);
}

/// A policy, under which traffic is then judged.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(policy) = Policy::parse(text) else { return };
    let mut engine = watching(0, tight_limits(), true);
    let policy = Box::new(Verified::locally(policy, Local::Installed));
    engine.handle(Input::Policy(policy, Timestamp::from_nanos(START)));
    play(&mut engine);
}

/// An envelope, opened with a key that signed it or not.
pub fn sealed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(envelope) = Sealed::parse(text) else { return };
    let again = Sealed::parse(&envelope.to_text());
    assert_eq!(again.as_ref(), Ok(&envelope), "an envelope that does not survive being written");
    let _digest = (envelope.digest(), envelope.payload_bytes());
    let anchors = TrustAnchors::new([KEY.verifying_key()], 1);
    let now = Timestamp::from_nanos(START);
    let fresh = envelope.open_policy(&anchors, now, 0);
    let known = envelope.reopen_policy(&anchors);
    assert!(fresh.is_err() || known.is_ok(), "what is opened can be opened again");
    let nobody = TrustAnchors::new([], 1);
    assert!(envelope.open_policy(&nobody, now, 0).is_err(), "a seal that nobody vouches for");
}

/// A case file, and the frames that its scripts stand for.
pub fn cases(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(file) = CaseFile::parse(text) else { return };
    let _both = file.has_both();
    for case in file.cases.iter().take(64) {
        for frame in case.frames().iter().flatten() {
            assert!(frame.bytes.len() <= 14 + 40 + 0xFFFF, "a frame longer than any");
        }
    }
}
