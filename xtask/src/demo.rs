//! The two README commands.

use crate::host::{self, Failure};

/// The JTB story, from a bare machine.
pub(crate) fn demo(arguments: &[&str]) -> Result<(), Failure> {
    if let Some(unknown) = arguments.iter().find(|word| !matches!(**word, "--once" | "--json")) {
        return Err(format!("demo knows --once and --json, not {unknown}"));
    }
    host::install_packages()?;
    host::build_binaries("release")?;
    let folder = host::target().join("release");
    host::run(host::as_root(folder.join("jtb")).args(arguments).env("SEKISHO_BIN_DIR", &folder))
}

/// The whole test suite, laboratories included.
pub(crate) fn test(arguments: &[&str]) -> Result<(), Failure> {
    host::install_packages()?;
    // The laboratories run the binaries as users get them.
    host::build_binaries("release")?;
    let extra = arguments.strip_prefix(&["--"]).unwrap_or(arguments);
    let mut command =
        host::cargo(&["test", "--locked", "-j2", "--workspace", "--no-fail-fast", "--"]);
    command.args(extra).env("SEKISHO_BIN_DIR", host::target().join("release"));
    if !host::is_root() {
        // The tests make network namespaces: the test programs, not cargo, run as root.
        command.env(format!("CARGO_TARGET_{}_RUNNER", triple()), "sudo -E --");
    }
    host::run(&mut command)
}

fn triple() -> String {
    format!("{}_unknown_linux_gnu", std::env::consts::ARCH).to_uppercase()
}
