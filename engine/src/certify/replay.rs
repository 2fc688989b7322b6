//! Every record gives its own score again: from the finding alone, without the traffic.

use super::episode::score_of;
use super::sentence::sentence;
use sekisho_schema::Finding;
use sekisho_schema::ruling::Ruling;

/// Numbers that differ by less are the same: what a decimal text of a double may cost.
const TOLERANCE: f64 = 1e-9;

/// Why a record does not stand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// It carries no ruling.
    #[error("it carries no score to replay")]
    NoRuling,
    /// Its ruling can't be read.
    #[error("its ruling can't be read: {0}")]
    Malformed(String),
    /// An input is missing or is not a number.
    #[error("the inputs make no score of this channel")]
    NoScore,
    /// The inputs give another score.
    #[error("the inputs give {replayed}, the record says {recorded}")]
    Score {
        /// What the inputs give.
        replayed: f64,
        /// What the record says.
        recorded: f64,
    },
    /// The finding and its ruling disagree.
    #[error("the finding and its ruling disagree on {0}")]
    Disagree(&'static str),
    /// The score is not above the threshold that it is said to be above.
    #[error("a score of {score} is not above the threshold {threshold}")]
    Below {
        /// The score.
        score: f64,
        /// The threshold.
        threshold: f64,
    },
    /// The numbers give another sentence.
    #[error("the numbers give another sentence: {0}")]
    Sentence(String),
}

/// Makes the score and the sentence of a finding again, from nothing but the finding.
///
/// # Errors
/// The first thing that does not come out as it is recorded.
pub fn replay(finding: &Finding) -> Result<Ruling, ReplayError> {
    let ruling = finding
        .evidence
        .iter()
        .find_map(Ruling::from_evidence)
        .ok_or(ReplayError::NoRuling)?
        .map_err(ReplayError::Malformed)?;
    let recorded = ruling.score.score;
    let replayed = score_of(ruling.channel(), &ruling.score.inputs).ok_or(ReplayError::NoScore)?;
    if !same(replayed, recorded) {
        return Err(ReplayError::Score { replayed, recorded });
    }
    if finding.score.is_none_or(|score| !same(score, recorded)) {
        return Err(ReplayError::Disagree("the score"));
    }
    if finding.detector != ruling.channel().detector() {
        return Err(ReplayError::Disagree("the detector"));
    }
    if recorded <= ruling.threshold {
        return Err(ReplayError::Below { score: recorded, threshold: ruling.threshold });
    }
    // The smallest threshold that the score is not above is the score itself.
    if !same(ruling.counter_threshold, recorded) {
        return Err(ReplayError::Disagree("the threshold at which it would not have been"));
    }
    let told = sentence(&ruling);
    // A live finding names the host before it and ends like a sentence.
    let whole = finding.explanation.strip_suffix('.').unwrap_or(&finding.explanation);
    if whole != told && !whole.ends_with(&format!(": {told}")) {
        return Err(ReplayError::Sentence(told));
    }
    Ok(ruling)
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::episode::{Channel, ScoreInputs, Tier, input, scored};
    use super::super::sample::{START, key};
    use super::*;
    use sekisho_schema::ruling::Reduced;
    use sekisho_schema::{Action, DecisionRecord, Grade, Subject};

    fn inputs(channel: Channel) -> ScoreInputs {
        ScoreInputs(match channel {
            Channel::Rhythm => {
                input::BETS.iter().map(|bet| (*bet, 7.25)).chain([(input::HOURS, 14.0)]).collect()
            }
            Channel::Persistence => input::DAYS.iter().map(|day| (*day, 4095.0)).collect(),
            Channel::Allowance => vec![(input::UP, 3e9), (input::DOWN, 12_345.0)],
            Channel::HostBudget => vec![(input::NET, 5e7), (input::ANSWERED, 1e6)],
            Channel::Dns => vec![(input::HOUR, 616.5), (input::DAY, 2000.0)],
            Channel::Approved => vec![
                (input::TODAY, 1.1e9),
                (input::TODAY_USUAL, 1e8),
                (input::WEEK, 1.5e9),
                (input::WEEK_USUAL, 7e8),
            ],
            Channel::Sum => {
                input::TERMS.iter().zip(1..).map(|(term, n)| (*term, f64::from(n) / 3.0)).collect()
            }
        })
    }

    fn finding(channel: Channel, tier: Tier) -> Finding {
        let score = scored(channel, START, inputs(channel)).unwrap();
        let ruling = Ruling {
            key: key("theft.example"),
            threshold: score.score * 0.7,
            counter_threshold: score.score,
            reached: tier,
            tier: Tier::Hold,
            budget: 0.04,
            reduced: (tier > Tier::Hold).then_some(Reduced::Revoked),
            score,
        };
        Finding {
            id: "f-1".into(),
            detector: channel.detector().into(),
            grade: Grade::Suspect,
            score: Some(ruling.score.score),
            subject: Subject { kind: "destination".into(), value: "theft.example".into() },
            flow: None,
            name: None,
            process: None,
            place: None,
            indicator: None,
            explanation: sentence(&ruling),
            evidence: vec![ruling.to_evidence()],
            frame: 1,
            first_packet_at: START,
            matched_at: START,
            decision: DecisionRecord {
                action: Action::Withhold,
                scope: None,
                level: 1,
                reason: None,
                lease: None,
                containment: None,
            },
            rule: None,
            policy: 1,
        }
    }

    #[test]
    fn every_channel_and_tier_replays_from_the_text_of_its_record_alone() {
        for channel in Channel::ALL {
            for tier in [Tier::Hold, Tier::CutDestination, Tier::IsolateHost] {
                let text = serde_json::to_string(&finding(channel, tier)).unwrap();
                let read: Finding = serde_json::from_str(&text).unwrap();
                let ruling =
                    replay(&read).unwrap_or_else(|error| panic!("{channel}: {error}: {text}"));
                assert_eq!((ruling.channel(), ruling.reached), (channel, tier));
            }
        }
    }

    #[test]
    fn a_record_that_was_changed_does_not_replay() {
        let good = finding(Channel::Allowance, Tier::Hold);
        let text = serde_json::to_string(&good).unwrap();
        for (from, to) in [
            (r#""up":3000000000.0"#, r#""up":3100000000.0"#),
            (r#""up":3000000000.0"#, r#""net":3000000000.0"#),
            ("behaviour.allowance", "behaviour.beacon"),
            ("3.0 GB went up", "3.1 GB went up"),
            (r#""kind":"score""#, r#""kind":"volume""#),
            (r#""threshold":2"#, r#""threshold":9"#),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            let read: Finding = serde_json::from_str(&text.replace(from, to)).unwrap();
            assert!(replay(&read).is_err(), "{to}");
        }
    }
}
