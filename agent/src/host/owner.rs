//! The program behind a flow: socket by inet_diag, holder by procfs, what has ended by memory.
//!
//! Must run before the socket is ended: afterwards nobody holds it. Each answer says what told it and how sure it
//! is. Who sends without a socket of the flow's kind, or is gone with its socket, may stay unknown: no guess is made.

use super::recent::Recent;
use crate::bpf::Opener;
use crate::enforce::{FlowsError, SocketRecord, Sockets};
use crate::target::sockets::{ALL_STATES, Diagnosis, Socket, fits};
use crate::target::workload::{listed_inodes, sockets_of};
use crate::target::{
    AskKernelError, Tree, container_of, others, own_addresses, path_in, processes, within,
};
use sekisho_schema::{Certainty, FlowKey, OwnerSource, Process, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest search for one flow: a host of 10,000 processes must not hold up the cut's aftermath.
pub const SEARCH_LIMIT: Duration = Duration::from_millis(200);
/// Bytes read of a small procfs file.
const FILE_BYTES: u64 = 64 * 1024;
/// Generations climbed from a holder towards the process that opened the socket.
const GENERATIONS: usize = 16;
/// How long an ended process can be behind a socket that is still there: the kernel's patience with an orphan in
/// FIN_WAIT_2 is 60 s (tcp_fin_timeout).
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);
/// The tree of cgroups is read anew for an unknown id at most so often.
const TREE_EVERY: Duration = Duration::from_secs(1);
/// Tables of sockets under /proc/net that send what no transport of ours is.
const RAW_TABLES: [&str; 4] = ["icmp", "icmp6", "raw", "raw6"];

/// A socket that sends the packets of a flow.
#[derive(Clone, Copy, Debug)]
struct Sender {
    /// 0 when no process holds it any more.
    inode: u32,
    cgroup: Option<u64>,
    certainty: Certainty,
}

/// Asks the kernel's memory of openers; must not wait long.
pub type AskOpener = Box<dyn FnMut(&FlowKey) -> Option<Opener> + Send>;

/// Names who owns flows.
pub struct Owners {
    sockets: Diagnosis,
    naming: Naming,
    openers: Option<AskOpener>,
}

impl Owners {
    /// Opens the socket to the kernel; with a memory, processes that have ended are named too.
    ///
    /// # Errors
    /// [`AskKernelError`].
    pub fn open(recent: Option<Recent>) -> Result<Self, AskKernelError> {
        Ok(Self { sockets: Diagnosis::open()?, naming: Naming::new(recent), openers: None })
    }

    /// With the kernel's memory of who opened what.
    #[must_use]
    pub fn with_openers(self, openers: AskOpener) -> Self {
        Self { openers: Some(openers), ..self }
    }

    /// Who opened a flow, as the kernel remembers it: also when neither socket nor process is left.
    pub fn opener(&mut self, flow: &FlowKey) -> Option<Process> {
        let opener = self.openers.as_mut()?(&canonical(flow))?;
        Some(self.naming.opened(opener, Instant::now() + SEARCH_LIMIT))
    }

    /// Who owns the inside end of a flow, as far as it is found within [`SEARCH_LIMIT`].
    ///
    /// Looks in the network namespace in which it was opened, which must be that of the calling thread, then in
    /// all others that processes are in.
    ///
    /// # Errors
    /// [`AskKernelError`] when the kernel's list of sockets can't be read.
    pub fn owner(&mut self, flow: &FlowKey) -> Result<Option<Process>, AskKernelError> {
        let held = self.holder(flow)?;
        // Whoever holds the socket now is no guess. Who held it once is better remembered than inferred.
        if held.as_ref().is_some_and(|process| process.source == OwnerSource::SockDiag) {
            return Ok(held);
        }
        Ok(self.opener(flow).or(held))
    }

    fn holder(&mut self, flow: &FlowKey) -> Result<Option<Process>, AskKernelError> {
        let deadline = Instant::now() + SEARCH_LIMIT;
        let flow = canonical(flow);
        if !matches!(flow.transport, Transport::Tcp | Transport::Udp) {
            return Ok(self.naming.raw_sender(&RAW_TABLES, Certainty::Likely, deadline));
        }
        let mut sender = sender(&mut self.sockets, &flow)?;
        if sender.is_none() {
            sender = elsewhere(&flow, deadline);
        }
        Ok(match sender {
            Some(sender) => self.naming.name(sender, deadline),
            None => self.naming.raw_sender(&["packet"], Certainty::Possible, deadline),
        })
    }
}

/// The process that holds the inside end of a flow, for a caller without [`Owners`]: nothing that has ended, nor of other namespaces.
///
/// # Errors
/// [`FlowsError`] when the kernel's list of sockets can't be read.
pub fn owner(flow: &FlowKey, sockets: &mut Sockets) -> Result<Option<Process>, FlowsError> {
    if !matches!(flow.transport, Transport::Tcp | Transport::Udp) {
        return Ok(None);
    }
    let flow = canonical(flow);
    let at_port = |socket: &&SocketRecord| socket.local.port() == flow.local.port();
    let connected = sockets.list(flow.transport)?;
    let mut found =
        connected.iter().filter(at_port).find(|socket| socket.remote == flow.remote).cloned();
    if found.is_none() && flow.transport == Transport::Udp {
        let at_home = |socket: &&SocketRecord| is_home(socket.local, flow.local);
        found = sockets.unconnected()?.iter().find(at_home).cloned();
    }
    Ok(found.and_then(|socket| {
        let sender =
            Sender { inode: socket.inode, cgroup: socket.cgroup, certainty: Certainty::Sure };
        Naming::new(None).name(sender, Instant::now() + SEARCH_LIMIT)
    }))
}

fn canonical(flow: &FlowKey) -> FlowKey {
    let end = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    FlowKey { transport: flow.transport, local: end(flow.local), remote: end(flow.remote) }
}

/// Whether a socket of the calling thread's namespace may send from this end; one of every address only from an address that is there.
fn is_home(socket: SocketAddr, end: SocketAddr) -> bool {
    let is_own =
        || end.ip().is_loopback() || own_addresses().is_ok_and(|own| own.contains(&end.ip()));
    socket.port() == end.port()
        && (socket.ip() == end.ip() || socket.ip().is_unspecified() && is_own())
}

/// The socket of a flow in the namespace of the diagnosis, which is that of the calling thread.
fn sender(sockets: &mut Diagnosis, flow: &FlowKey) -> Result<Option<Sender>, AskKernelError> {
    let found = sockets.of_flow(flow.transport, flow.local, flow.remote)?;
    let is_connected = |socket: &&Socket| socket.remote == flow.remote;
    if let Some(socket) = found.as_ref().filter(is_connected) {
        return Ok(Some(of_socket(socket, Certainty::Sure)));
    }
    // The kernel's own search passes over sockets that are bound to a device, and chooses one of several that share a port.
    let mut all = sockets.list(flow.transport, ALL_STATES)?;
    all.retain(|socket| !socket.listens && fits(socket, flow.local, flow.remote));
    if let Some(socket) = all.iter().find(is_connected) {
        return Ok(Some(of_socket(socket, Certainty::Sure)));
    }
    all.retain(|socket| is_home(socket.local, flow.local));
    let certainty = if all.len() > 1 { Certainty::Likely } else { Certainty::Sure };
    let chosen = found.as_ref().filter(|found| all.contains(found)).or(all.first());
    Ok(chosen.map(|socket| of_socket(socket, certainty)))
}

const fn of_socket(socket: &Socket, certainty: Certainty) -> Sender {
    Sender { inode: socket.inode, cgroup: socket.cgroup, certainty }
}

/// The socket of a flow in any other network namespace; behind a translation of addresses, one with the same port.
fn elsewhere(flow: &FlowKey, deadline: Instant) -> Option<Sender> {
    let mut alike: Vec<Sender> = Vec::new();
    for namespace in others(deadline) {
        if Instant::now() >= deadline {
            break;
        }
        let found = within(&namespace, || {
            let mut sockets = Diagnosis::open()?;
            let exact = sender(&mut sockets, flow)?;
            let all = match exact {
                Some(_) => Vec::new(),
                None => sockets.list(flow.transport, ALL_STATES)?,
            };
            Ok::<_, AskKernelError>((exact, all))
        });
        // One that can't be entered, or went away meanwhile, tells nothing.
        let Ok(Ok((exact, all))) = found else { continue };
        if exact.is_some() {
            return exact;
        }
        alike.extend(all.iter().filter_map(|socket| translated(socket, flow)));
    }
    let best = alike.iter().map(|sender| sender.certainty).max()?;
    let mut chosen = alike.into_iter().filter(|sender| sender.certainty == best);
    let first = chosen.next()?;
    let is_alone = chosen.next().is_none();
    Some(if is_alone { first } else { Sender { certainty: Certainty::Possible, ..first } })
}

/// What a socket is to a flow whose inside address was translated: routers keep the port where they can.
fn translated(socket: &Socket, flow: &FlowKey) -> Option<Sender> {
    if socket.listens || socket.local.port() != flow.local.port() {
        return None;
    }
    if socket.remote == flow.remote {
        return Some(of_socket(socket, Certainty::Likely));
    }
    // Well-known ports are used by many: a socket without a peer proves little.
    let is_open = flow.transport == Transport::Udp && socket.remote.ip().is_unspecified();
    is_open.then(|| of_socket(socket, Certainty::Possible))
}

/// From sockets to processes.
struct Naming {
    tree: Option<Tree>,
    paths: BTreeMap<u64, String>,
    read_at: Option<Instant>,
    recent: Option<Recent>,
}

impl Naming {
    fn new(recent: Option<Recent>) -> Self {
        Self { tree: Tree::find().ok(), paths: BTreeMap::new(), read_at: None, recent }
    }

    fn name(&mut self, sender: Sender, deadline: Instant) -> Option<Process> {
        let path = sender.cgroup.and_then(|id| self.path_of(id, deadline));
        if let Some(pid) = self.holder(sender.inode, path.as_deref(), deadline) {
            return Some(describe(pid, OwnerSource::SockDiag, sender.certainty));
        }
        // The root is everybody's.
        let path = path.filter(|path| path != "/")?;
        if let Some(process) = self.ended(&path, sender.certainty) {
            return Some(process);
        }
        Some(Process {
            pid: 0,
            exe: None,
            name: None,
            unit: unit_of(&path),
            container: container_of(&path),
            cgroup: Some(path),
            source: OwnerSource::CgroupOnly,
            certainty: sender.certainty,
        })
    }

    /// The process that opened a connection, with what is left of it.
    fn opened(&mut self, opener: Opener, deadline: Instant) -> Process {
        let certainty = match (opener.is_exact, opener.is_here) {
            (true, true) => Certainty::Sure,
            (true, false) => Certainty::Likely,
            // Another may have sent to the same end since.
            (false, _) => Certainty::Possible,
        };
        if began(opener.pid).is_some_and(|began| began <= opener.at) {
            let name = Some(opener.name);
            return Process { name, ..describe(opener.pid, OwnerSource::Ebpf, certainty) };
        }
        let cgroup = self.path_of(opener.cgroup, deadline);
        let remembered = self.recent.as_ref().and_then(|recent| recent.process(opener.pid));
        // A number is given again: only a program of the same name may be the same.
        let exe = remembered.and_then(|process| process.exe).filter(|exe| {
            let file = exe.rsplit('/').next().unwrap_or(exe);
            !opener.name.is_empty() && file.starts_with(&opener.name)
        });
        Process {
            pid: opener.pid.cast_signed(),
            exe,
            name: Some(opener.name),
            unit: cgroup.as_deref().and_then(unit_of),
            container: cgroup.as_deref().and_then(container_of),
            cgroup,
            source: OwnerSource::Ebpf,
            certainty,
        }
    }

    /// The path of a cgroup by its id, remembered also after it is gone.
    fn path_of(&mut self, id: u64, deadline: Instant) -> Option<String> {
        if let Some(path) = self.paths.get(&id) {
            return Some(path.clone());
        }
        let tree = self.tree.as_ref()?;
        if self.read_at.is_none_or(|at| at.elapsed() >= TREE_EVERY) {
            // Ids are never used again, so that what was read stays true.
            let now = tree.paths(deadline);
            if self.paths.len() + now.len() > 4 * MAX_PATHS {
                self.paths.clear();
            }
            self.paths.extend(now);
            self.read_at = Some(Instant::now());
            return self.paths.get(&id).cloned();
        }
        tree.path_of(id, deadline)
    }

    /// A process that holds a socket; those of its cgroup are asked first, the newest before others: malware is seldom the oldest process of a host.
    fn holder(&self, inode: u32, cgroup: Option<&str>, deadline: Instant) -> Option<u32> {
        if inode == 0 {
            return None;
        }
        let likely: BTreeSet<u32> = match (&self.tree, cgroup) {
            (Some(tree), Some(path)) if path != "/" => tree.members(path).pids,
            _ => BTreeSet::new(),
        };
        let found = likely
            .iter()
            .rev()
            .copied()
            .take_while(|_| Instant::now() < deadline)
            .find(|pid| holds(*pid, inode));
        let found = found.or_else(|| {
            let mut pids: Vec<u32> = processes().filter(|pid| !likely.contains(pid)).collect();
            pids.sort_unstable_by(|a, b| b.cmp(a));
            pids.into_iter()
                .take_while(|_| Instant::now() < deadline)
                .find(|pid| holds(*pid, inode))
        });
        found.map(|pid| eldest(pid, inode))
    }

    /// The process of a cgroup that has ended lately; sure it never is, for the socket no longer tells.
    fn ended(&self, path: &str, certainty: Certainty) -> Option<Process> {
        let recent = self.recent.as_ref()?;
        let mut ended = recent.ended_in(path);
        ended.retain(|process| process.ended.is_some_and(|at| at.elapsed() < ORPHAN_LIMIT));
        let programs: BTreeSet<&str> =
            ended.iter().filter_map(|process| process.exe.as_deref()).collect();
        let alone = programs.len() == 1 && !self.has_others(path, &programs);
        let last = ended.first()?;
        Some(Process {
            pid: i32::try_from(last.pid).ok()?,
            exe: last.exe.clone(),
            name: None,
            cgroup: Some(path.to_owned()),
            unit: unit_of(path),
            container: container_of(path),
            source: OwnerSource::ProcConnector,
            certainty: certainty.min(if alone { Certainty::Likely } else { Certainty::Possible }),
        })
    }

    /// Whether processes that still live in a cgroup run other programs than these.
    fn has_others(&self, path: &str, programs: &BTreeSet<&str>) -> bool {
        self.tree.as_ref().is_some_and(|tree| {
            tree.members(path).pids.iter().any(|pid| {
                let exe = fs::read_link(format!("/proc/{pid}/exe"));
                !exe.is_ok_and(|exe| exe.to_str().is_some_and(|exe| programs.contains(exe)))
            })
        })
    }

    /// The only process, besides this one, that has a socket of such a table.
    fn raw_sender(
        &self,
        tables: &[&str],
        certainty: Certainty,
        deadline: Instant,
    ) -> Option<Process> {
        let inodes: BTreeSet<u32> = tables.iter().flat_map(|table| listed_inodes(table)).collect();
        if inodes.is_empty() {
            return None;
        }
        let mut holders = BTreeSet::new();
        for pid in processes().filter(|pid| *pid != std::process::id()) {
            if Instant::now() >= deadline {
                return None;
            }
            if let Some(inode) = sockets_of(pid).find(|inode| inodes.contains(inode)) {
                holders.insert(eldest(pid, inode));
            }
        }
        let mut holders = holders.into_iter();
        let one = holders.next()?;
        holders.next().is_none().then(|| describe(one, OwnerSource::PacketSocket, certainty))
    }
}

/// Paths of cgroups remembered by id before the memory begins anew.
const MAX_PATHS: usize = 16_384;

/// Whether a process holds a socket. One that ended meanwhile, or that we may not look at, holds nothing that we can name.
fn holds(pid: u32, inode: u32) -> bool {
    sockets_of(pid).any(|held| held == inode)
}

/// Up from a holder while the parent holds the same socket: children inherit descriptors that they never use.
fn eldest(mut pid: u32, inode: u32) -> u32 {
    for _ in 0..GENERATIONS {
        match parent(pid) {
            Some(parent) if parent > 1 && holds(parent, inode) => pid = parent,
            _ => break,
        }
    }
    pid
}

/// When a process began by CLOCK_BOOTTIME (proc(5), stat, field 22, in hundredths of a second).
fn began(pid: u32) -> Option<u64> {
    let stat = read_bounded(Path::new(&format!("/proc/{pid}/stat")))?;
    // The name may have spaces and brackets in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse::<u64>().ok()?.checked_mul(10_000_000)
}

fn parent(pid: u32) -> Option<u32> {
    let status = read_bounded(Path::new(&format!("/proc/{pid}/status")))?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn describe(pid: u32, source: OwnerSource, certainty: Certainty) -> Process {
    let home = Path::new("/proc").join(pid.to_string());
    let cgroup = read_bounded(&home.join("cgroup")).and_then(|text| path_in(&text));
    Process {
        pid: pid.cast_signed(),
        exe: fs::read_link(home.join("exe")).ok().map(|path| path.to_string_lossy().into_owned()),
        name: None,
        unit: cgroup.as_deref().and_then(unit_of),
        container: cgroup.as_deref().and_then(container_of),
        cgroup,
        source,
        certainty,
    }
}

fn read_bounded(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The systemd unit of a cgroup path: its last service or scope.
fn unit_of(path: &str) -> Option<String> {
    path.rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn a_unit_is_the_last_service_or_scope() {
        assert_eq!(unit_of("/system.slice/web.service").as_deref(), Some("web.service"));
        assert_eq!(
            unit_of("/user.slice/user-0.slice/session-1.scope").as_deref(),
            Some("session-1.scope")
        );
        assert_eq!(unit_of("/system.slice/web.service/worker").as_deref(), Some("web.service"));
        assert_eq!(unit_of("/"), None);
    }

    /// Both ways of asking, with and without a memory.
    fn owners_of(flow: &FlowKey) -> [Option<Process>; 2] {
        [
            owner(flow, &mut Sockets::open().unwrap()).unwrap(),
            Owners::open(None).unwrap().owner(flow).unwrap(),
        ]
    }

    #[test]
    fn the_owner_of_a_udp_flow_is_found_without_a_connection() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let flow = FlowKey {
            transport: Transport::Udp,
            local: SocketAddr::new("127.0.0.1".parse().unwrap(), port),
            remote: "192.0.2.1:53".parse().unwrap(),
        };
        for process in owners_of(&flow) {
            assert_eq!(process.unwrap().pid, i32::try_from(std::process::id()).unwrap());
        }
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
        for process in owners_of(&flow) {
            let process = process.unwrap();
            assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
            assert_eq!(process.exe.unwrap(), std::env::current_exe().unwrap().to_string_lossy());
            assert_eq!(
                (process.source, process.certainty),
                (OwnerSource::SockDiag, Certainty::Sure)
            );
        }
        let other = FlowKey { remote: "192.0.2.1:1".parse().unwrap(), ..flow };
        assert_eq!(owner(&other, &mut Sockets::open().unwrap()).unwrap(), None);
        let named = Owners::open(None).unwrap().owner(&other).unwrap();
        // Somebody else's packet socket may be on this host: then it is no more than possible.
        assert!(named.is_none_or(|process| !process.may_be_scope()));
    }
}
