//! The `sekisho` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut err = std::io::stderr();
    let code = sekisho_agent::cli::main(std::env::args_os(), &mut out, &mut err);
    // What could not be flushed can't be told on the same stream either.
    let flushed = std::io::Write::flush(&mut out);
    ExitCode::from(if flushed.is_err() && code == 0 { 2 } else { code })
}
