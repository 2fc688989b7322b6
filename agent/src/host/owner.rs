//! The program behind a flow: socket by inet_diag, holder by procfs.
//!
//! Must run before the socket is ended: afterwards nobody holds it.

use crate::enforce::{FlowsError, SocketRecord, Sockets};
use sekisho_schema::{FlowKey, Process, Transport};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest search through procfs: a host of 10,000 processes must not hold up the cut's aftermath.
pub const SEARCH_LIMIT: Duration = Duration::from_millis(200);
/// Bytes read of a small procfs file.
const FILE_BYTES: usize = 64 * 1024;
/// Generations climbed from a holder towards the process that opened the socket.
const GENERATIONS: usize = 16;
/// Hexadecimal digits of a container id (OCI runtimes: 32 random bytes).
const CONTAINER_ID_DIGITS: usize = 64;

/// The process that holds the inside end of a flow; `None` when nobody of this network namespace does, or the search took too long.
///
/// # Errors
/// [`FlowsError`] when the kernel's list of sockets can't be read.
pub fn owner(flow: &FlowKey, sockets: &mut Sockets) -> Result<Option<Process>, FlowsError> {
    if !matches!(flow.transport, Transport::Tcp | Transport::Udp) {
        return Ok(None);
    }
    let (local, remote) = (
        flow.local.ip().to_canonical(),
        SocketAddr::new(flow.remote.ip().to_canonical(), flow.remote.port()),
    );
    let at_home = |socket: &&SocketRecord| {
        socket.local.port() == flow.local.port()
            && (socket.local.ip() == local || socket.local.ip().is_unspecified())
    };
    let mut inode = sockets
        .list(flow.transport)?
        .iter()
        .filter(at_home)
        .find(|socket| socket.remote == remote)
        .map(|socket| socket.inode);
    if inode.is_none() && flow.transport == Transport::Udp {
        // Most UDP programs never connect: the local port is all there is to go by.
        inode = sockets.unconnected()?.iter().find(at_home).map(|socket| socket.inode);
    }
    Ok(inode.and_then(|inode| holder(inode, Path::new("/proc"), Instant::now() + SEARCH_LIMIT)))
}

/// The process that holds a socket, newest first: malware is seldom the oldest process of a host.
fn holder(inode: u32, proc: &Path, deadline: Instant) -> Option<Process> {
    if inode == 0 {
        return None;
    }
    let wanted = format!("socket:[{inode}]");
    let mut pids: Vec<i32> = fs::read_dir(proc)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    for pid in pids {
        if Instant::now() >= deadline {
            return None;
        }
        if holds(proc, pid, &wanted) {
            let eldest = eldest(proc, pid, &wanted);
            return Some(describe(eldest, &proc.join(eldest.to_string())));
        }
    }
    None
}

/// Whether a process holds a socket. One that ended meanwhile, or that we may not look at, holds nothing that we can name.
fn holds(proc: &Path, pid: i32, wanted: &str) -> bool {
    fs::read_dir(proc.join(pid.to_string()).join("fd")).is_ok_and(|descriptors| {
        descriptors.flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted)
        })
    })
}

/// Up from a holder while the parent holds the same socket: children inherit descriptors that they never use.
fn eldest(proc: &Path, mut pid: i32, wanted: &str) -> i32 {
    for _ in 0..GENERATIONS {
        match parent(proc, pid) {
            Some(parent) if parent > 1 && holds(proc, parent, wanted) => pid = parent,
            _ => break,
        }
    }
    pid
}

fn parent(proc: &Path, pid: i32) -> Option<i32> {
    let status = read_bounded(&proc.join(pid.to_string()).join("status"))?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn describe(pid: i32, home: &Path) -> Process {
    let cgroup = read_bounded(&home.join("cgroup")).and_then(|text| unified_path(&text));
    Process {
        pid,
        exe: fs::read_link(home.join("exe")).ok().map(|path| path.to_string_lossy().into_owned()),
        unit: cgroup.as_deref().and_then(unit_of),
        container: cgroup.as_deref().and_then(container_of),
        cgroup,
    }
}

fn read_bounded(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES as u64).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The cgroup v2 path of a `/proc/PID/cgroup` (hierarchy 0; cgroups(7)).
fn unified_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The systemd unit of a cgroup path: its last service or scope.
fn unit_of(path: &str) -> Option<String> {
    path.rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
        .map(str::to_owned)
}

/// The container of a cgroup path, as docker, containerd, CRI-O, podman and Kubernetes lay them out.
fn container_of(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        // "docker-ID.scope", "cri-containerd-ID.scope", "crio-ID.scope", "libpod-ID.scope", or the id alone.
        let part = part.strip_suffix(".scope").unwrap_or(part);
        // containerd without systemd: "kubepods-…:cri-containerd:ID".
        let id = part.rsplit(['-', ':']).next()?;
        (id.len() == CONTAINER_ID_DIGITS
            && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
        .then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

    #[test]
    fn a_container_is_read_from_every_layout() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods/besteffort/pod1234/{ID}"),
            format!("/kubepods.slice/crio-{ID}.scope/container"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:{ID}"
            ),
        ] {
            assert_eq!(container_of(&path).as_deref(), Some(ID), "{path}");
        }
        for path in [
            "/system.slice/web.service",
            "/",
            "",
            "/user.slice/user-1000.slice/session-2.scope",
            &format!("/docker/{}", ID.trim_start_matches('0')),
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_unit_is_the_last_service_or_scope() {
        assert_eq!(unit_of("/system.slice/web.service").as_deref(), Some("web.service"));
        assert_eq!(
            unit_of("/user.slice/user-0.slice/session-1.scope").as_deref(),
            Some("session-1.scope")
        );
        assert_eq!(unit_of("/system.slice/web.service/worker").as_deref(), Some("web.service"));
        assert_eq!(unit_of("/"), None);
        assert_eq!(
            unified_path("12:cpu:/x\n0::/system.slice/a.service\n").as_deref(),
            Some("/system.slice/a.service")
        );
    }

    #[test]
    fn the_owner_of_a_udp_flow_is_found_without_a_connection() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let flow = FlowKey {
            transport: Transport::Udp,
            local: SocketAddr::new("127.0.0.1".parse().unwrap(), port),
            remote: "192.0.2.1:53".parse().unwrap(),
        };
        let process = owner(&flow, &mut Sockets::open().unwrap()).unwrap().unwrap();
        assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
    }

    #[test]
    fn the_owner_of_an_own_flow_is_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let flow = FlowKey {
            transport: Transport::Tcp,
            local: client.local_addr().unwrap(),
            remote: client.peer_addr().unwrap(),
        };
        let process = owner(&flow, &mut Sockets::open().unwrap()).unwrap().unwrap();
        assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(process.exe.unwrap(), std::env::current_exe().unwrap().to_string_lossy());
        let other = FlowKey { remote: "192.0.2.1:1".parse().unwrap(), ..flow };
        assert_eq!(owner(&other, &mut Sockets::open().unwrap()).unwrap(), None);
    }
}
