//! The acceptance experiments of detection, on the product's own statistics.

use crate::host::{self, Failure};
use std::process::Command;

/// Builds the laboratory's measuring program and hands it the words; a missed target is a failure.
pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    host::run(&mut host::cargo(&[
        "build",
        "--locked",
        "--release",
        "-j2",
        "-p",
        "sekisho-integration",
        "--bin",
        "evaluate",
    ]))?;
    host::run(Command::new(host::target().join("release/evaluate")).args(words))
}
