//! The cell: user, process, mount and network namespaces that end with whoever made them.

use rustix::process::{
    Resource, Rlimit, Signal, getegid, geteuid, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::UnshareFlags;
use std::fs;
use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// Ourselves, also when a newer program lies in our place.
pub(super) const OURSELVES: &str = "/proc/self/exe";
/// The detecting thread asks for SCHED_FIFO 1, as everywhere: a user namespace grants it by this bound alone.
const REALTIME: u64 = 1;

/// Moves into the cell and runs `drill stage` there, on this process's own input and output.
///
/// # Errors
/// What the system says where no cell can be made.
pub fn enter() -> io::Result<ExitStatus> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where it is refused, detection in the cell is as it is on a host that refuses it.
    let _ =
        setrlimit(Resource::Rtprio, Rlimit { current: Some(REALTIME), maximum: Some(REALTIME) });
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let rest = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET;
    match leave(rest | UnshareFlags::NEWUSER) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
        // Kernels that give no user namespace: the other three hide the host as well, for who has the power.
        Err(_) => leave(rest)?,
    }
    Command::new(OURSELVES)
        .args(["drill", "stage"])
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .status()
}

#[allow(
    deprecated,
    reason = "its successor is unsafe for the sake of file descriptor tables, which are not touched here"
)]
fn leave(flags: UnshareFlags) -> io::Result<()> {
    rustix::thread::unshare(flags).map_err(io::Error::from)
}

/// Makes the cell habitable, as its process 1: nothing that is mounted reaches the host, `/proc` shows the cell
/// alone, and `/run` is empty.
pub(super) fn settle() -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    if std::process::id() != 1 {
        return Err("this is no cell: it is not process 1".to_owned());
    }
    for line in
        ["--make-rprivate /", "-t proc proc /proc", "-t tmpfs -o mode=0700,size=256m tmpfs /run"]
    {
        call(&["/usr/bin/mount", "/bin/mount"], line)?;
    }
    fs::create_dir_all("/run/netns").map_err(|error| error.to_string())
}

/// Runs a program that is at one of these places, never by PATH, with the words of a line.
pub(super) fn call(places: &[&str], line: &str) -> Result<String, String> {
    let program = find(places)?;
    let output = Command::new(program)
        .args(line.split(' '))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The first of these places that there is.
pub(super) fn find<'a>(places: &[&'a str]) -> Result<&'a str, String> {
    places
        .iter()
        .find(|place| fs::exists(place).unwrap_or(false))
        .copied()
        .ok_or_else(|| format!("{} is not installed", places.first().unwrap_or(&"a program")))
}
