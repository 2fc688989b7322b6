//! Lists the targets: name, longest useful input in bytes, bytes of memory that such a one may take at once.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for target in &sekisho_fuzz::TARGETS {
        let memory = target.most_memory(target.longest);
        writeln!(out, "{} {} {memory}", target.name, target.longest)?;
    }
    Ok(())
}
