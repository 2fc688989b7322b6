//! A case through the whole engine, and what came of it.

use super::{Case, ScriptError};
use crate::engine::{Engine, EngineConfig};
use crate::input::Input;
use crate::limits::Limits;
use crate::output::Output;
use crate::rules::Rules;
use crate::wire::{Frame, LinkType};
use sekisho_schema::finding::Grade;
use sekisho_schema::{Body, Timestamp};
use std::collections::BTreeSet;

/// A finding, as far as cases look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The detector.
    pub detector: String,
    /// How bad.
    pub grade: Grade,
    /// The frame that completed it.
    pub frame: u64,
    /// The indicator that was sighted.
    pub indicator: Option<String>,
    /// Its sentence.
    pub explanation: String,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Every finding, in order.
    pub told: Vec<Told>,
    /// What is not as the case expects; empty when all is.
    pub faults: Vec<String>,
}

/// Plays a case to an engine with these rules, under the built-in dry-run policy.
///
/// # Errors
/// A line of the script that can't be read.
pub fn try_case(case: &Case, rules: Rules) -> Result<Verdict, ScriptError> {
    let frames = case.frames()?;
    let config = EngineConfig { host: "case".to_owned(), limits: Limits::default(), hash_seed: 0 };
    let mut engine = Engine::new(config);
    let begin = frames.first().map_or(0, |frame| frame.at_ns);
    engine.handle(Input::Rules(Box::new(rules), Timestamp::from_nanos(begin)));
    let mut told = Vec::new();
    for frame in &frames {
        engine.handle(Input::Frame(Frame {
            at_ns: frame.at_ns,
            link: LinkType::Ethernet,
            wire_len: frame.wire_len,
            bytes: &frame.bytes,
        }));
        while let Some(output) = engine.poll_output() {
            if let Output::Record(record) = output
                && let Body::Finding(finding) = record.body
            {
                told.push(Told {
                    detector: finding.detector,
                    grade: finding.grade,
                    frame: finding.frame,
                    indicator: finding.indicator.map(|indicator| indicator.value),
                    explanation: finding.explanation,
                });
            }
        }
    }
    let faults = faults(case, &told);
    Ok(Verdict { told, faults })
}

fn faults(case: &Case, told: &[Told]) -> Vec<String> {
    let mut faults = Vec::new();
    let expected: BTreeSet<&str> = case.expect.iter().map(String::as_str).collect();
    for detector in &expected {
        if !told.iter().any(|told| told.detector == *detector) {
            faults.push(format!("{detector} was not told"));
        }
    }
    for told in told {
        if told.grade >= Grade::Suspect && !expected.contains(told.detector.as_str()) {
            faults.push(format!("{} was told at frame {}", told.detector, told.frame));
        }
    }
    let of_expected = || told.iter().filter(|told| expected.contains(told.detector.as_str()));
    if let Some(frame) = case.frame
        && let Some(first) = of_expected().next()
        && first.frame != frame
    {
        faults.push(format!("told at frame {}, expected at {frame}", first.frame));
    }
    if let Some(grade) = case.grade
        && let Some(worst) = of_expected().map(|told| told.grade).max()
        && worst != grade
    {
        faults.push(format!("graded as {worst}, expected {grade}"));
    }
    faults
}
