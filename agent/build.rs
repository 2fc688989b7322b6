//! Compiles the kernel programs below `ebpf/`, when the feature of that name is on.

#![allow(clippy::print_stdout, reason = "so a build script speaks with cargo")]

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const PROGRAMS: [&str; 2] = ["deny", "owner"];
/// `v2` (Linux 4.14) returns whole registers, so that a refusal is a negative number to every kernel.
const FLAGS: [&str; 8] =
    ["-mcpu=v2", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fdebug-compilation-dir=.", "-c"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ebpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return Ok(());
    }
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let endian = std::env::var("CARGO_CFG_TARGET_ENDIAN")?;
    let target = if endian == "big" { "bpfeb" } else { "bpfel" };
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for program in PROGRAMS {
        let done = Command::new(&clang)
            .args(["-target", target])
            .args(FLAGS)
            // A path that is the same on every machine: it ends up in the object.
            .arg(format!("ebpf/{program}.bpf.c"))
            .arg("-o")
            .arg(out.join(format!("{program}.bpf.o")))
            .status()
            .map_err(|error| {
                format!(
                    "cannot start {clang}: {error}; the feature `ebpf` needs it: install the package clang, name it in \
                     CLANG, or build with --no-default-features, whose `sekisho version` says that it has no eBPF"
                )
            })?;
        if !done.success() {
            return Err(format!("{clang} could not compile ebpf/{program}.bpf.c: {done}").into());
        }
    }
    Ok(())
}
