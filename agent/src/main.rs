//! The `sekisho` program.

use std::io::{self, Write};
use std::process::ExitCode;

/// Standard output that may be closed by its reader, as `head` does: that is no failure.
struct Out(io::BufWriter<io::Stdout>);

fn unless_closed<T>(done: io::Result<T>, otherwise: T) -> io::Result<T> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(otherwise),
        done => done,
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_closed(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(self.0.flush(), ())
    }
}

fn main() -> ExitCode {
    let mut out = Out(io::BufWriter::new(io::stdout()));
    let mut err = io::stderr();
    let code = sekisho_agent::cli::main(std::env::args_os(), &mut out, &mut err);
    // What could not be flushed can't be told on the same stream either.
    let flushed = out.flush();
    ExitCode::from(if flushed.is_err() && code == 0 { 2 } else { code })
}
