//! Every input in `corpus` and `regressions` through its target, in bounded memory.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

use peak_alloc::PeakAlloc;
use sekisho_fuzz::{TARGETS, Target, seeds::seeds};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Counts the memory of the whole process, so that only one test may run at a time.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes that the committed inputs may take together.
const MOST_BYTES: usize = 300 << 10;

fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for kind in ["corpus", "regressions"] {
        let Ok(folder) = fs::read_dir(top.join(kind).join(target.name)) else { continue };
        for entry in folder {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// Runs a target; what it held at once besides what was there before.
fn held(target: &Target, bytes: &[u8]) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(bytes);
    MEMORY.peak_usage().saturating_sub(before)
}

fn check(target: &Target, bytes: &[u8], what: &dyn std::fmt::Debug) -> usize {
    let most = target.most_memory(bytes.len());
    // The runner's own thread may write a line meanwhile; what the target holds it holds each time.
    let held = (0..3).map(|_| held(target, bytes)).find(|held| *held <= most);
    let held = held.unwrap_or_else(|| self::held(target, bytes));
    assert!(
        held <= most,
        "{}: {held} bytes of memory for {} bytes of {what:?}, {most} allowed",
        target.name,
        bytes.len()
    );
    held
}

#[test]
fn every_input_is_read_as_it_must_be_and_in_bounded_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut total = 0;
    for target in &TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        total += inputs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        // What is made once is made before it is measured.
        for (_, bytes) in inputs.iter().take(2) {
            (target.run)(bytes);
        }
        let mut most = 0;
        for (path, bytes) in &inputs {
            most = most.max(check(target, bytes, &path.file_name()));
        }
        println!("{}: {} inputs, at most {most} bytes held", target.name, inputs.len());
    }
    assert!(total <= MOST_BYTES, "{total} bytes of inputs");
}

#[test]
fn inputs_changed_at_random_are_read_as_they_must_be_and_in_bounded_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in &TARGETS {
        let inputs = inputs(target);
        (target.run)(&inputs[0].1);
        let is_slow =
            matches!(target.name, "engine" | "episodes" | "rule_pack" | "policy" | "cases");
        let rounds = if is_slow { 40 } else { 2000 };
        let mut random = Random(11);
        for round in 0..rounds {
            let (path, seed) = &inputs[random.below(inputs.len())];
            let (_, other) = &inputs[random.below(inputs.len())];
            let bytes = changed(&mut random, seed, other);
            check(target, &bytes, &(round, path.file_name()));
        }
    }
}

fn changed(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let from = random.below(other.len() + 1);
        let run = random.below(24);
        let piece: Vec<u8> = other.iter().skip(from).take(run).copied().collect();
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, piece)),
            2 => drop(bytes.drain(at..(at + run).min(bytes.len()))),
            3 => {
                let end = (at + piece.len()).min(bytes.len());
                drop(bytes.splice(at..end, piece));
            }
            4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 0x7F, 0x80, 0xFF, b'9', b'"', b'\n'][random.below(8)];
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn every_target_has_seeds_that_are_the_same_each_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = seeds();
    assert_eq!(made, seeds());
    for target in &TARGETS {
        let of_it: Vec<_> = made.iter().filter(|seed| seed.target == target.name).collect();
        assert!(!of_it.is_empty(), "{} has no seed", target.name);
        assert!(of_it.iter().all(|seed| seed.bytes.len() <= target.longest), "{}", target.name);
    }
    assert!(made.iter().all(|seed| TARGETS.iter().any(|target| target.name == seed.target)));
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}
