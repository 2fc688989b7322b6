//! Entry point of `sekisho-collector`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(sekisho_collector::cli::main(std::env::args_os(), &mut out, &mut err))
}
