//! Writes the seeds into `corpus`, beside what fuzzing found: `cargo run -p sekisho-fuzz --example seeds`.

use sekisho_fuzz::seeds::seeds;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let seeds = seeds();
    let names: BTreeSet<&str> = sekisho_fuzz::TARGETS.iter().map(|target| target.name).collect();
    for name in names {
        let folder = corpus.join(name);
        fs::create_dir_all(&folder)?;
        // A seed that is not made any more goes.
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("seed-") {
                fs::remove_file(entry.path())?;
            }
        }
    }
    for seed in &seeds {
        fs::write(corpus.join(seed.target).join(&seed.name), &seed.bytes)?;
    }
    Ok(())
}
