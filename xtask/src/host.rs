//! The machine: Debian packages, root, child processes, the workspace's folders.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, for a person.
pub(crate) type Failure = String;

/// Debian packages that build and laboratories need, with a file each that shows the package is there.
const PACKAGES: [(&str, &str); 9] = [
    ("clang", "/usr/bin/clang"),
    ("gcc", "/usr/bin/gcc"),
    ("iproute2", "/usr/sbin/ip|/sbin/ip|/usr/bin/ip"),
    ("libc6-dev", "/usr/include/stdio.h"),
    ("libpcap-dev", "/usr/include/pcap/pcap.h"),
    ("nftables", "/usr/sbin/nft|/sbin/nft"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("procps", "/usr/sbin/sysctl|/sbin/sysctl"),
    ("tcpdump", "/usr/bin/tcpdump|/usr/sbin/tcpdump"),
];

/// The workspace's top folder.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from)
}

/// Space that is free where cargo builds, in gigabytes; NaN where `df` does not say.
pub(crate) fn free_gb() -> f64 {
    let said = Command::new("df").args(["-B1", "--output=avail"]).arg(top()).output();
    said.ok()
        .and_then(|said| String::from_utf8(said.stdout).ok()?.lines().nth(1)?.trim().parse().ok())
        .map_or(f64::NAN, |bytes: f64| bytes / 1e9)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            status.lines().find_map(|line| line.strip_prefix("Uid:").map(str::to_owned))
        })
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// A command that runs as root: itself, or through sudo.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg("--").arg(program);
    command
}

/// A cargo command in the workspace, two jobs at most as the smallest machine has two cores.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(top());
    command
}

/// Runs a command to its end and asks for success.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().map_err(|error| format!("cannot start {shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} ended with {status}")) }
}

/// Runs a command and returns what it wrote to stdout; its stderr is shown.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let shown = show(command);
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        Err(format!("{shown} ended with {}", done.status))
    }
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Installs what is missing, and says which.
pub(crate) fn install_packages() -> Result<(), Failure> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, files)| !files.split('|').any(|file| Path::new(file).exists()))
        .map(|(package, _)| *package)
        .collect();
    let names = PACKAGES.map(|(package, _)| package).join(", ");
    if missing.is_empty() {
        eprintln!("Debian packages needed: {names}: all there");
        return Ok(());
    }
    eprintln!("Debian packages needed: {names}; installing {}", missing.join(", "));
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!(
            "this is not a Debian-like machine: install {} by its own means and run again",
            missing.join(", ")
        ));
    }
    run(as_root("apt-get").args(["update", "-qq"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = as_root("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null());
    run(&mut install)
}

/// Builds the binaries of the product and the laboratory.
pub(crate) fn build_binaries(profile: &str) -> Result<(), Failure> {
    let mut command = cargo(&[
        "build",
        "--locked",
        "-j2",
        "-p",
        "sekisho-agent",
        "-p",
        "sekisho-collector",
        "-p",
        "sekisho-integration",
        "--bins",
    ]);
    if profile == "release" {
        command.arg("--release");
    }
    run(&mut command)
}
