//! The acceptance experiments of detection: `evaluate [E1 …] [--short] [--json] [--seed N]`, `evaluate --folder DIR`.

use sekisho_integration::evaluate;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let ended = evaluate::run(&words, &mut out, &mut err);
    let _ = out.flush();
    ended
}
