//! What learning costs: a packet with it beside one without it, a key's memory, a flood of keys, a week.

use super::{median, number};
use crate::host::{self, Failure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Most that learning may cost, as a multiple of a run without it.
pub(super) const LEARNING_RATIO: f64 = 1.25;
/// Most resident memory of all tables of learning together, in MB: 65,536 keys of at most 256 bytes, which a test of the
/// engine holds, and the usual destinations, names, hosts and echoes beside them.
const LEARNING_MB: f64 = 32.0;
/// Milliseconds that a step of writing down what was learned may take in the packet path.
const STEP_MS: f64 = 2.0;
/// Distinct keys of the flood, and of its short form.
const FLOOD: [&str; 2] = ["10000000", "1000000"];
/// Most seconds for seven days of capture time.
const WEEK_SECONDS: f64 = 300.0;

/// What `learn-cost` measured.
fn learn_cost(words: &[&str]) -> Result<Value, Failure> {
    let text = host::output(Command::new(host::target().join("release/learn-cost")).args(words))?;
    serde_json::from_str(&text).map_err(|error| format!("learn-cost wrote {text:?}: {error}"))
}

fn numbers(of: &Value, pointer: &str) -> Vec<f64> {
    let all = of.pointer(pointer).and_then(Value::as_array);
    all.into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn is(of: &Value, pointer: &str) -> bool {
    of.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// The price of a packet with learning beside one without it; what is amiss. Where each flow of a few packets is a
/// destination of its own, as in a flood, it is told only.
pub(super) fn price(name: &str, file: &Path, gate: f64) -> Result<Vec<Failure>, Failure> {
    let file = file.display().to_string();
    let of = learn_cost(&["pairs", &file, "--runs", "5"])?;
    let mut faults = Vec::new();
    let both = [("learning", "/ratios"), ("learning under a certificate", "/unlocked_ratios")];
    for (what, pointer) in both {
        let ratios = numbers(&of, pointer);
        let ratio = median(ratios.clone());
        println!(
            "  {what:<29}{ratio:>6.2} times a run without it (at most {gate:.2}; {ratios:.2?})"
        );
        if ratio.is_nan() || ratio > gate {
            faults.push(format!("{what} costs {ratio:.2} times a run without it on {name}"));
        }
    }
    Ok(faults)
}

/// The flood of keys and the week; what is amiss.
pub(super) fn flood_and_week(short: bool) -> Result<Vec<Failure>, Failure> {
    let mut faults = Vec::new();
    let [whole, few] = FLOOD;
    let keys = if short { few } else { whole };
    let with = learn_cost(&["flood", keys])?;
    let without = learn_cost(&["flood", keys, "--without"])?;
    let grown = (number(&with, "/grown")? - number(&without, "/grown")?) / 1e6;
    let (half, sent) = (number(&with, "/half_proven_kept")?, number(&with, "/half_sent_kept")?);
    let told = number(&with, "/floods_told")?;
    println!(
        "a flood of {keys} distinct keys: {:.0} ns each ({:.0} without learning), {:.0} watched at the end, {:.0} evicted and counted, {:.1} ms at the turn of the hour",
        number(&with, "/ns_a_key")?,
        number(&without, "/ns_a_key")?,
        number(&with, "/watched")?,
        number(&with, "/evicted")?,
        number(&with, "/hour_us")? / 1000.0,
    );
    let step = number(&with, "/save_step_us")?;
    println!(
        "  written down in steps of 512 keys: the longest {:.2} ms (at most {STEP_MS}), and {:.1} ms beside the packets for the digest",
        step / 1000.0,
        number(&with, "/save_seal_us")? / 1000.0
    );
    println!("  {grown:.1} MB resident for all tables of learning (at most {LEARNING_MB})");
    println!(
        "  half-way to a threshold before it: 20, still watched after it: {:.0}; told as a flood: {told:.0} times",
        half + sent
    );
    let wanted = [
        (grown <= LEARNING_MB, format!("learning takes {grown:.0} MB")),
        (half + sent >= 20.0, "a key that was half-way to a threshold gave way".to_owned()),
        (told >= 1.0, "a flood of keys was not told".to_owned()),
        (step <= STEP_MS * 1000.0, format!("a step of writing down takes {step:.0} µs")),
    ];
    faults.extend(wanted.into_iter().filter(|(is, _)| !is).map(|(_, why)| why));
    let week = learn_cost(&["week"])?;
    let seconds = number(&week, "/seconds")?;
    println!(
        "seven days of a busy host, {:.0} frames: {seconds:.1} s (at most {WEEK_SECONDS:.0}); state of {:.0} bytes; findings {}",
        number(&week, "/frames")?,
        number(&week, "/saved_bytes")?,
        week.get("findings").cloned().unwrap_or_default(),
    );
    let wanted = [
        (seconds <= WEEK_SECONDS, format!("seven days take {seconds:.0} s")),
        (is(&week, "/again_the_same"), "a second replay told something else".to_owned()),
        (is(&week, "/other_seed_the_same"), "another hash seed told something else".to_owned()),
        (is(&week, "/restarted_the_same"), "a restored state went on to something else".to_owned()),
    ];
    faults.extend(wanted.into_iter().filter(|(is, _)| !is).map(|(_, why)| why));
    if faults.is_empty() {
        println!("  the same bytes: a second time, with another hash seed, and from a saved state");
    }
    Ok(faults)
}
