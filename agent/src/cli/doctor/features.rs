//! What this kernel has (containment.md, section 12): tried where it can be, read where trying would change the host.

use super::{Tries, Try, untried};
use crate::bpf::{Denial, DenyError, Wanted, boot_nanos};
use crate::chain::causes;
use crate::enforce::{Enforcer, Ownership, Plan};
use crate::target::AskKernelError;
use crate::target::sockets::{Diagnosis, LISTENING};
use sekisho_schema::Transport;
use std::fs;
use std::io::{Error, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where nft is looked for: never by PATH, which belongs to whoever started us.
const NFT: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
/// Names of kernel functions that are there when the kernel has a facility.
const FUNCTIONS: [(&str, &str, &str); 3] = [
    (
        "bpf_netfilter_link",
        "bpf_nf_link_attach",
        "BPF programs on netfilter's hooks, which a flush does not touch",
    ),
    (
        "flowtables",
        "nf_flow_offload_ip_hook",
        "forwarded flows can be offloaded past rules; a flowtable in use is named below",
    ),
    ("tcx", "tcx_prog_attach", "programs on devices, which could cut what tc redirects"),
];

/// What can be tried in a namespace of its own.
pub(super) fn of_scratch(plan: &Plan) -> Tries {
    let _ = Enforcer::remove();
    let tries: [(&str, Try); 6] = [
        (
            "bind_by_name",
            loads(
                "table netdev sekisho_try {\nchain c {\ntype filter hook egress device \"sk-nobody\" priority 0\n}\n}\n",
                "a chain on a device that is yet to come: hot-plug is covered at once",
            ),
        ),
        (
            "netdev_egress",
            loads(
                "table netdev sekisho_try {\nchain c {\ntype filter hook egress device \"lo\" priority 0\n}\n}\n",
                "frames of raw senders meet our rules",
            ),
        ),
        ("refuse_raw_sockets", refusal()),
        (
            "sock_diag_cgroup",
            match tells_cgroups() {
                Ok(true) => yes("sockets are told with the cgroup that they were made in"),
                Ok(false) => {
                    no("sockets are told without their cgroup: workloads are found by process")
                }
                Err(error) => no(&causes(&error)),
            },
        ),
        (
            "socket_cgroupv2",
            loads(
                "table inet sekisho_try {\nset s {\ntypeof socket cgroupv2 level 1\nflags timeout\n}\nchain c {\ntype filter hook output priority 0\nsocket cgroupv2 level 1 @s drop\n}\n}\n",
                "workloads are cut by their cgroup",
            ),
        ),
        ("table_owner", owner(plan)),
    ];
    tries.into_iter().map(|(name, tried)| (name.to_owned(), tried)).collect()
}

/// Whether the kernel tells the cgroup of a socket, asked for one of our own.
fn tells_cgroups() -> Result<bool, AskKernelError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr().map(|at| (listener, at)));
    let sockets = Diagnosis::open()?.list(Transport::Tcp, LISTENING)?;
    Ok(listener.is_ok_and(|(_, at)| {
        sockets.iter().any(|socket| socket.local == at && socket.cgroup.is_some())
    }))
}

/// What is read of this host.
pub(super) fn of_host() -> Tries {
    let mut tries: Tries = FUNCTIONS
        .into_iter()
        .zip(symbols())
        .map(|((name, _, means), found)| {
            let tried = match found {
                Some(true) => yes(means),
                Some(false) => no("this kernel has none"),
                None => untried("/proc/kallsyms can't be read"),
            };
            (name.to_owned(), tried)
        })
        .collect();
    tries.insert("bpf_lsm".to_owned(), bpf_lsm(Path::new("/sys/kernel/security/lsm")));
    tries.insert("bridge_nf".to_owned(), bridge_nf(Path::new("/proc/sys/net/bridge")));
    tries.insert("cgroup_freeze".to_owned(), freezer());
    tries
}

fn yes(detail: &str) -> Try {
    Try { works: Some(true), detail: detail.to_owned() }
}

fn no(detail: &str) -> Try {
    Try { works: Some(false), detail: detail.to_owned() }
}

/// Loads rules in the scratch namespace, and takes them away again.
fn loads(rules: &str, means: &str) -> Try {
    let Some(nft) = NFT.iter().find(|path| Path::new(path).exists()) else {
        return untried("nft is not installed");
    };
    let run = |text: &str| -> std::io::Result<()> {
        let mut child = Command::new(nft)
            .args(["-f", "-"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::other(said.lines().next().unwrap_or("refused").to_owned()))
    };
    let family = rules.split(' ').nth(1).unwrap_or("inet");
    match run(rules) {
        Ok(()) => {
            let _ = run(&format!("delete table {family} sekisho_try"));
            yes(means)
        }
        Err(error) => no(&error.to_string()),
    }
}

/// Whether new packet sockets can be refused: done to this scratch namespace alone, and undone.
fn refusal() -> Try {
    let opens = || {
        rustix::net::socket(
            rustix::net::AddressFamily::PACKET,
            rustix::net::SocketType::DGRAM,
            None,
        )
    };
    let tried = || -> Result<[bool; 3], DenyError> {
        // Nothing is kept: no such place.
        let mut denial = Denial::open(Path::new("/nonexistent"))?;
        let before = opens().is_ok();
        let end = boot_nanos().saturating_add(5_000_000_000);
        denial.follow(&Wanted { namespace: Some(end), ..Wanted::default() })?;
        let during = opens().err() == Some(rustix::io::Errno::PERM);
        denial.follow(&Wanted::default())?;
        Ok([before, during, opens().is_ok()])
    };
    match tried() {
        Ok([true, true, true]) => {
            yes("new packet and AF_XDP sockets of what is contained are refused")
        }
        Ok(all) => no(&format!(
            "a packet socket opened before, was refused during and opened after the try: {all:?}"
        )),
        Err(error) => no(&format!(
            "{}; new AF_XDP and packet sockets of what is contained are only named, not refused",
            causes(&error)
        )),
    }
}

/// Whether tables can be made our own, and stay when we are gone.
fn owner(plan: &Plan) -> Try {
    let tried =
        Enforcer::open_holding(true).map_err(|error| causes(&error)).and_then(|mut enforcer| {
            enforcer.reload(plan).map_err(|error| causes(&error))?;
            let port = enforcer.port();
            let owned = enforcer.ownership_of(port).map_err(|error| causes(&error))?;
            let _ = enforcer.remove_held();
            Ok(owned)
        });
    match tried {
        Ok(Ownership::Owned) => yes("nobody else can change our tables, and they outlive us"),
        Ok(Ownership::Shared { why }) => {
            no(&format!("{why}; what others change is set right within a second"))
        }
        Ok(Ownership::Absent) => no("the tables were not there"),
        Err(why) => no(&why),
    }
}

/// Whether the kernel has the functions of [`FUNCTIONS`]; `None` where it does not say.
fn symbols() -> [Option<bool>; 3] {
    let Ok(all) = fs::read_to_string("/proc/kallsyms") else { return [None; 3] };
    let mut found = [false; 3];
    for line in all.lines() {
        let Some(name) = line.split(' ').nth(2) else { continue };
        let name = name.split('\t').next().unwrap_or(name);
        for ((_, wanted, _), found) in FUNCTIONS.iter().zip(&mut found) {
            *found |= name == *wanted;
        }
    }
    found.map(Some)
}

fn bpf_lsm(file: &Path) -> Try {
    match fs::read_to_string(file) {
        Ok(list) if list.trim().split(',').any(|name| name == "bpf") => {
            yes("active: programs may refuse sockets of contained workloads")
        }
        Ok(list) => no(&format!(
            "not active (active: {}); add bpf to the kernel's parameter lsm= and start the host anew, or new AF_XDP and packet sockets of a contained workload are only named, not refused",
            list.trim()
        )),
        Err(_) => untried(
            "/sys/kernel/security can't be read: mount -t securityfs none /sys/kernel/security",
        ),
    }
}

fn bridge_nf(dir: &Path) -> Try {
    match fs::read_to_string(dir.join("bridge-nf-call-iptables")) {
        Ok(text) if text.trim() == "1" => yes("bridged frames meet the rules for IP"),
        Ok(_) => no("off: bridged frames meet only the rules for bridges"),
        Err(_) => no("not loaded: bridged frames meet only the rules for bridges"),
    }
}

/// Whether cgroups can be made to stand still: a file in every group but the root.
fn freezer() -> Try {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4)).flatten()
    });
    let Some(mount) = mount else { return no("no cgroup v2 is mounted") };
    let groups = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut groups = groups.filter(|path| path.is_dir()).peekable();
    if groups.peek().is_none() {
        return untried("there is no cgroup yet in which to look");
    }
    if groups.any(|group| group.join("cgroup.freeze").exists()) {
        yes("contained workloads can be made to stand still")
    } else {
        no("cgroups have no cgroup.freeze")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_bpf_among_its_modules_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lsm");
        assert_eq!(bpf_lsm(&file).works, None);
        fs::write(&file, "lockdown,capability,landlock").unwrap();
        let tried = bpf_lsm(&file);
        assert_eq!(tried.works, Some(false));
        assert!(tried.detail.contains("lsm="), "{}", tried.detail);
        fs::write(&file, "lockdown,capability,bpf\n").unwrap();
        assert_eq!(bpf_lsm(&file).works, Some(true));
    }
}
