//! The demo: the story of a quiet server, an implant, a theft that gets nowhere, and business that goes on.
//!
//! `jtb [--once] [--json]`: shows the timeline as it happens and a table at the end; the collector's page stays up until
//! Ctrl-C unless `--once`. Leaves nothing behind, however it ends.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo prints for people")]

use sekisho_integration::story::Story;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let (mut once, mut as_json) = (false, false);
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--json" => as_json = true,
            "--once" => once = true,
            other => {
                eprintln!(
                    "error: the demo knows --once and --json, not {other}\nstate: nothing was started\nhelp:  cargo xtask demo --once --json"
                );
                return ExitCode::from(2);
            }
        }
    }
    let mut story = Story::set_up(as_json);
    let table = story.play();
    if as_json {
        println!("{}", table.json());
    } else {
        print!("{}", table.text());
    }
    if !once {
        eprintln!("the collector's page stays up at {} until Ctrl-C", table.page_url);
        loop {
            // Ctrl-C ends this process; the janitor of the laboratory cleans up after it.
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    if table.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
