//! The acceptance experiments of detection, on the product's own statistics.
//!
//! In come a seed, or a folder of captures and logs; out come numbers with their targets, and what others' published
//! formulas say of the same traffic. The generator and the others' formulas must not know how the product judges, and
//! the experiments must not compute a statistic of ours themselves: [`ours`] is the only file that calls the product.

pub mod draw;
pub mod fleet;
pub mod folder;
pub mod ours;
pub mod peers;
pub mod replay;
pub mod table;

mod approved;
mod drift;
mod explain;
mod governor;
mod null;
mod poison;
mod power;
mod promise;
mod scenarios;
mod volume;

use self::table::Outcome;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// The seed of the published numbers; no number was chosen by looking at what it gives.
const SEED: u64 = 20_161_125;

const USAGE: &str = "evaluate [E1 E2 E5 E7 E8 E10 E11 E12 E13 E14] [--short] [--json] [--seed N]\n\
evaluate --folder DIR [--json]   E3, E4 and E9 on captures, Zeek conn and dns logs, and lists of packets\n";

/// How an experiment is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Fewer runs, for every day.
    pub is_short: bool,
    /// What every random number comes from.
    pub seed: u64,
}

impl Plan {
    /// One of two numbers of runs.
    #[must_use]
    pub const fn runs(self, whole: usize, short: usize) -> usize {
        if self.is_short { short } else { whole }
    }
}

/// An experiment by its number.
type Experiment = (&'static str, fn(Plan) -> Outcome);

/// The experiments that need nothing but a seed, in the order in which a fault of one explains those of the next.
const EXPERIMENTS: [Experiment; 10] = [
    ("E1", null::run),
    ("E2", power::run),
    ("E5", promise::run),
    ("E7", volume::low_and_slow),
    ("E8", volume::spread),
    ("E10", poison::run),
    ("E11", drift::run),
    ("E12", approved::run),
    ("E13", governor::run),
    ("E14", explain::run),
];

/// What was asked for.
#[derive(Debug)]
struct Asked {
    experiments: Vec<Experiment>,
    folder: Option<PathBuf>,
    plan: Plan,
    is_json: bool,
}

impl Asked {
    fn parse(words: &[String]) -> Result<Self, String> {
        let plan = Plan { is_short: false, seed: SEED };
        let mut asked = Self { experiments: Vec::new(), folder: None, plan, is_json: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--short" => asked.plan.is_short = true,
                "--json" => asked.is_json = true,
                "--seed" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    asked.plan.seed = number.ok_or("--seed takes a whole number")?;
                }
                "--folder" => {
                    asked.folder = Some(words.next().ok_or("--folder takes a folder")?.into());
                }
                name => {
                    let name = name.to_uppercase();
                    let known = EXPERIMENTS.iter().find(|(id, _)| *id == name);
                    asked.experiments.push(*known.ok_or_else(|| match name.as_str() {
                        "E3" | "E4" | "E9" => format!("{name} needs --folder DIR"),
                        "E6" => "E6 is a laboratory: cargo test -p sekisho-integration --test quiet_server".to_owned(),
                        _ => format!("there is no experiment {name}"),
                    })?);
                }
            }
        }
        if asked.folder.is_some() && !asked.experiments.is_empty() {
            return Err("--folder runs E3, E4 and E9; the others need no folder".to_owned());
        }
        if asked.folder.is_none() && asked.experiments.is_empty() {
            asked.experiments = EXPERIMENTS.to_vec();
        }
        Ok(asked)
    }
}

/// Runs what the words ask for; ends with 1 when a target was missed, with 2 when it could not be run.
pub fn run(words: &[String], out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let asked = match Asked::parse(words) {
        Ok(asked) => asked,
        Err(why) => {
            let _ = write!(err, "error: {why}\nstate: nothing was measured\nhelp:  {USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut missed = Vec::new();
    let mut tell = |outcome: &Outcome, seconds: f64| {
        let text = if asked.is_json {
            format!("{}\n", outcome.json(seconds))
        } else {
            format!("{}\n", outcome.text(seconds))
        };
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        if !outcome.holds() {
            missed.push(outcome.id);
        }
    };
    if let Some(folder) = &asked.folder {
        let began = Instant::now();
        match folder::run(folder, asked.plan) {
            Ok(outcomes) => {
                let seconds = began.elapsed().as_secs_f64() / outcomes.len().max(1) as f64;
                outcomes.iter().for_each(|outcome| tell(outcome, seconds));
            }
            Err(why) => {
                let _ = write!(
                    err,
                    "error: {why}\nstate: nothing was judged\nhelp:  a folder of .pcap, .pcapng, conn.log, dns.log or .csv files\n"
                );
                return ExitCode::from(2);
            }
        }
    }
    for (_, experiment) in &asked.experiments {
        let began = Instant::now();
        let outcome = experiment(asked.plan);
        tell(&outcome, began.elapsed().as_secs_f64());
    }
    let summary = if asked.is_json {
        json!({"type": "summary", "seed": asked.plan.seed, "short": asked.plan.is_short, "missed": missed})
            .to_string()
    } else if missed.is_empty() {
        "every target was held".to_owned()
    } else {
        format!("missed: {}", missed.join(", "))
    };
    let _ = writeln!(out, "{summary}");
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked, String> {
        Asked::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_a_name_everything_that_needs_no_folder_is_run() {
        assert_eq!(asked(&["--short"]).unwrap().experiments.len(), EXPERIMENTS.len());
        assert_eq!(asked(&["e7", "E8"]).unwrap().experiments.len(), 2);
        assert!(asked(&["--folder", "x"]).unwrap().experiments.is_empty());
    }

    #[test]
    fn what_cannot_be_run_here_is_refused_with_the_reason() {
        assert!(asked(&["E3"]).unwrap_err().contains("--folder"));
        assert!(asked(&["E6"]).unwrap_err().contains("laboratory"));
        assert!(asked(&["E99"]).is_err() && asked(&["E1", "--folder", "x"]).is_err());
    }
}
