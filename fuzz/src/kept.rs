//! What was kept of episodes, read back and gone on from.

use crate::documents;
use crate::packets::{tight_limits, watching};
use crate::tape::START;
use sekisho_engine::drive;
use sekisho_engine::learn::Episodes;
use sekisho_schema::Timestamp;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// What the bytes begin with.
const MAGIC: &[u8] = b"sekisho.episodes/1\n";
/// Bytes of the digest at the end.
const DIGEST: usize = 32;
/// Hours, in nanoseconds.
const HOUR: i64 = 3_600_000_000_000;

/// What an engine kept of some traffic, between its head and its digest.
static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut engine = watching(0, tight_limits(), false);
    documents::play(&mut engine);
    let saved = engine.episodes().save();
    let end = saved.len().saturating_sub(DIGEST);
    saved.get(MAGIC.len()..end).unwrap_or_default().to_vec()
});

/// The saved state that an input stands for, sealed as its writer does: byte of how, then all of it; or, with an odd
/// byte, changes of what an engine kept: a place in three bytes and a byte for it, behind the end one more.
#[must_use]
pub fn saved(data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    match data.split_first() {
        Some((how, changes)) if how & 1 == 1 => {
            bytes.extend_from_slice(&BASE);
            for change in changes.chunks_exact(4) {
                let &[low, middle, high, value] = change else { continue };
                let place = u32::from_le_bytes([low, middle, high, 0]) as usize;
                match bytes.get_mut(MAGIC.len() + place) {
                    Some(byte) => *byte = value,
                    None => bytes.push(value),
                }
            }
        }
        Some((_, rest)) => bytes.extend_from_slice(rest),
        None => {}
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Episodes of before: refused whole, or gone on from.
pub fn episodes(data: &[u8]) {
    let mut plain = Episodes::new(&tight_limits(), 0);
    assert!(plain.restore(data).is_err(), "what nobody sealed");
    let bytes = saved(data);
    if plain.restore(&bytes).is_err() {
        assert!(plain.is_empty(), "what is refused leaves something behind");
        return;
    }
    // Whatever was read is written, and read again, to the same bytes.
    let written = plain.save();
    let mut again = Episodes::new(&tight_limits(), 7);
    assert!(again.restore(&written).is_ok(), "what was written cannot be read");
    assert_eq!(again.save(), written, "what is read is not what was written");
    let _told = (plain.scores().count(), plain.records().count());

    let mut engine = watching(0, tight_limits(), true);
    assert!(engine.episodes_mut().restore(&written).is_ok(), "another engine cannot go on");
    documents::play(&mut engine);
    for hour in [1, 2, 200] {
        let at = Timestamp::from_nanos(START + hour * HOUR);
        engine.episodes_mut().turn_hour(at);
        drive::tick(&mut engine, at, &mut drop);
    }
    let (finished, _lost) = engine.episodes_mut().take_finished();
    let _told = (finished.len(), engine.episodes().records().count());
}
