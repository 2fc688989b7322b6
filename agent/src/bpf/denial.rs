//! Refuses new packet and AF_XDP sockets through a BPF program at the kernel's security hook `socket_create`.
//!
//! While anybody is refused something, the program and its maps are kept in the kernel's own file system, so that
//! they outlive their maker; each entry ends by the kernel's clock, whoever is dead by then.

use super::object::{DENY, FindObjectError, array, hash, hash_mut, map};
use super::{Wanted, boot_nanos};
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{Lsm, ProgramError};
use aya::{Btf, BtfError, Ebpf, EbpfError, Pod};
use rustix::net::{AddressFamily, SocketType, socket};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Name of the program in its object, and of the hook.
const PROGRAM: &str = "deny_socket";
const HOOK: &str = "socket_create";
/// Below the kernel's file system: one directory for each guardian.
const DIRECTORY: &str = "sekisho";
const LINK: &str = "link";
/// Names of maps.
const CGROUPS: &str = "cgroups";
const NAMESPACES: &str = "namespaces";
const SPARED: &str = "spared";
/// Magic number of that file system (`BPF_FS_MAGIC`, linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Directories of others looked at for what has ended.
const MOST_OTHERS: usize = 256;

/// Why new raw sockets are not refused as wanted; nothing else is touched.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    /// The program did not take hold.
    #[error("cannot attach the program to the hook {HOOK}")]
    Attach(#[source] ProgramError),
    /// The kernel does not describe itself.
    #[error("cannot read the kernel's own description of its types (BTF)")]
    Describe(#[from] BtfError),
    /// A map was not as compiled.
    #[error(transparent)]
    Find(#[from] FindObjectError),
    /// No entry could be written or taken away.
    #[error("cannot change who is refused")]
    Hold(#[from] MapError),
    /// The kernel refused the program; most often it has no BPF LSM, or a capability is missing.
    #[error("the kernel takes no program at the hook {HOOK}")]
    Load(#[source] io::Error),
    /// The object's program is another than compiled.
    #[error("the program for the hook {HOOK} is not as it was compiled")]
    Program(#[source] ProgramError),
    /// The object was refused as a whole.
    #[error("cannot load the object")]
    Open(#[from] EbpfError),
    /// The program does not run although it is attached.
    #[error(
        "the program at the hook {HOOK} does not run: bpf is not among the active security modules (kernel parameter lsm=), or this is another pid namespace than the first"
    )]
    Silent,
    /// The question whether it runs could not be put.
    #[error("cannot try whether the program runs")]
    Try(#[source] io::Error),
}

/// How the program is held.
enum Hold {
    /// By this process alone.
    Own(FdLink),
    /// Also in the kernel's file system, at this path.
    Pinned(PinnedLink),
}

/// Refuses raw sockets to whom it is told.
pub struct Denial {
    object: Ebpf,
    /// `None` only while it changes.
    hold: Option<Hold>,
    /// The network namespace that this one is in.
    cookie: u64,
    directory: PathBuf,
    /// Whether what an earlier one of this namespace left is gone.
    is_alone: bool,
}

impl Denial {
    /// Loads the program, attaches it and sees it run; nobody is refused anything yet.
    ///
    /// `file_system` is where the kernel keeps what outlives its maker, as far as it is mounted ([`super::BPF_FS`]).
    ///
    /// # Errors
    /// [`DenyError`]; then nothing of it stays in the kernel.
    pub fn open(file_system: &Path) -> Result<Self, DenyError> {
        let btf = Btf::from_sys_fs()?;
        let mut object = Ebpf::load(DENY)?;
        program(&mut object)?.load(HOOK, &btf).map_err(not_loaded)?;
        let link = attach(&mut object)?;
        let cookie = hear(&mut object)?;
        let directory = file_system.join(DIRECTORY);
        let denial =
            Self { object, hold: Some(Hold::Own(link)), cookie, directory, is_alone: false };
        denial.sweep();
        Ok(denial)
    }

    /// Has the kernel refuse raw sockets to exactly these.
    ///
    /// What a predecessor in this network namespace left goes once its place is taken.
    ///
    /// # Errors
    /// [`DenyError`] when an entry could not be written or taken away; the others are in force.
    pub fn follow(&mut self, wanted: &Wanted) -> Result<(), DenyError> {
        let spared = wanted.spared.iter().map(|(pid, may)| (*pid, *may as u32)).collect();
        let namespaces = wanted.namespace.iter().map(|end| (self.cookie, *end)).collect();
        // Whoever is spared is so before anything is refused.
        let done = [
            make_exact(&mut self.object, SPARED, &spared),
            make_exact(&mut self.object, NAMESPACES, &namespaces),
            make_exact(&mut self.object, CGROUPS, &wanted.cgroups),
            self.keep(!wanted.is_empty()),
        ];
        if !self.is_alone {
            self.remove_where(|name, _| name.starts_with(&self.prefix()) && name != self.name());
            self.is_alone = true;
        }
        done.into_iter().collect()
    }

    /// Sockets refused since it was opened.
    #[must_use]
    pub fn refused(&mut self) -> u64 {
        let Ok(refused) = array::<u64>(&mut self.object, "refused") else { return 0 };
        refused.iter().flatten().sum()
    }

    /// Whether the refusal outlives this process.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        matches!(self.hold, Some(Hold::Pinned(_))) && self.place().join(LINK).exists()
    }

    fn prefix(&self) -> String {
        format!("{:x}-", self.cookie)
    }

    fn name(&self) -> String {
        format!("{}{}", self.prefix(), std::process::id())
    }

    fn place(&self) -> PathBuf {
        self.directory.join(self.name())
    }

    /// Has the program outlive us, or not any more. Where the kernel's file system is not mounted it never does.
    fn keep(&mut self, outlive: bool) -> Result<(), DenyError> {
        let link = match self.hold.take() {
            Some(Hold::Pinned(link)) if outlive && self.place().join(LINK).exists() => {
                self.hold = Some(Hold::Pinned(link));
                return Ok(());
            }
            // It goes on by our own descriptor.
            Some(Hold::Pinned(link)) => link.into(),
            Some(Hold::Own(link)) => link,
            None => attach(&mut self.object)?,
        };
        let _ = remove(&self.place());
        if !outlive || !self.make_place() {
            self.hold = Some(Hold::Own(link));
            return Ok(());
        }
        match link.pin(self.place().join(LINK)) {
            Ok(pinned) => self.hold = Some(Hold::Pinned(pinned)),
            // The attempt took the link with it.
            Err(_) => self.hold = Some(Hold::Own(attach(&mut self.object)?)),
        }
        Ok(())
    }

    /// Makes a directory with the maps in it, so that whoever comes later sees whether anything is in force yet.
    fn make_place(&self) -> bool {
        let place = self.place();
        let is_kept = self.directory.parent().is_some_and(is_bpf_fs);
        let mut builder = fs::DirBuilder::new();
        is_kept
            && builder.recursive(true).mode(0o700).create(&place).is_ok()
            && [CGROUPS, NAMESPACES].into_iter().all(|name| {
                map(&self.object, name).is_ok_and(|map| map.pin(place.join(name)).is_ok())
            })
    }

    /// Takes away what others left that has ended.
    fn sweep(&self) {
        let now = boot_nanos();
        self.remove_where(|name, place| {
            !name.starts_with(&self.prefix())
                && ![CGROUPS, NAMESPACES].iter().any(|map| is_in_force(&place.join(map), now))
        });
    }

    fn remove_where(&self, is_over: impl Fn(&str, &Path) -> bool) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries.take(MOST_OTHERS) {
            if is_over(&entry.file_name().to_string_lossy(), &entry.path()) {
                let _ = remove(&entry.path());
            }
        }
    }
}

impl Drop for Denial {
    fn drop(&mut self) {
        // Whoever is refused something stays so; an orphan that refuses nothing would only be in the way.
        let is_over = [CGROUPS, NAMESPACES].into_iter().all(|name| {
            hash::<u64, u64>(&self.object, name).is_ok_and(|map| is_empty(&map, boot_nanos()))
        });
        if is_over {
            let _ = remove(&self.place());
        }
    }
}

fn program(object: &mut Ebpf) -> Result<&mut Lsm, DenyError> {
    let program = object.program_mut(PROGRAM).ok_or(FindObjectError::Absent(PROGRAM))?;
    program.try_into().map_err(DenyError::Program)
}

/// What a person needs of a refusal; the verifier's own record is long, and empty where the kernel did not get so far.
fn not_loaded(error: ProgramError) -> DenyError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(%verifier_log, "the kernel refused a program");
            DenyError::Load(io_error)
        }
        other => DenyError::Program(other),
    }
}

fn attach(object: &mut Ebpf) -> Result<FdLink, DenyError> {
    let program = program(object)?;
    let id = program.attach().map_err(DenyError::Attach)?;
    Ok(program.take_link(id).map_err(DenyError::Attach)?.into())
}

/// Asks the program whether it runs, by a socket that it sees, and for the cookie of our network namespace.
fn hear(object: &mut Ebpf) -> Result<u64, DenyError> {
    let mut asked = array::<[u32; 4]>(object, "asked")?;
    let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    asked.set(0, [thread, 0, 0, 0], 0)?;
    drop(
        socket(AddressFamily::NETLINK, SocketType::RAW, None)
            .map_err(|error| DenyError::Try(error.into()))?,
    );
    let [_, seen, first, second] = asked.get(&0, 0)?;
    asked.set(0, [0; 4], 0)?;
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    if seen == 0 || cookie == 0 { Err(DenyError::Silent) } else { Ok(cookie) }
}

/// Makes a map hold these and nothing else.
fn make_exact<K: Pod + Ord, V: Pod + PartialEq>(
    object: &mut Ebpf,
    name: &'static str,
    wanted: &BTreeMap<K, V>,
) -> Result<(), DenyError> {
    let mut map = hash_mut::<K, V>(object, name)?;
    let held: BTreeMap<K, V> = map.iter().filter_map(Result::ok).collect();
    let mut done = Ok(());
    for (key, value) in wanted {
        if held.get(key) != Some(value)
            && let Err(error) = map.insert(*key, *value, 0)
        {
            done = Err(error.into());
        }
    }
    for key in held.keys().filter(|key| !wanted.contains_key(key)) {
        match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => done = Err(error.into()),
        }
    }
    done
}

fn is_empty(map: &HashMap<&MapData, u64, u64>, now: u64) -> bool {
    map.iter().all(|entry| entry.is_ok_and(|(_, end)| end <= now))
}

/// Whether a map that somebody left holds anything yet; one that can't be read counts as if.
fn is_in_force(path: &Path, now: u64) -> bool {
    if !path.exists() {
        return false;
    }
    let Ok(map) = MapData::from_pin(path).and_then(Map::from_map_data) else { return true };
    HashMap::try_from(&map).map_or(true, |map| !is_empty(&map, now))
}

fn is_bpf_fs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|told| u64::try_from(told.f_type) == Ok(BPF_FS_MAGIC))
}

/// Removes a directory with the files in it. The link first: what it holds ends with it.
fn remove(place: &Path) -> io::Result<()> {
    for name in [LINK, CGROUPS, NAMESPACES] {
        match fs::remove_file(place.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    fs::remove_dir(place)
}

#[cfg(test)]
mod tests {
    use super::super::Spared;
    use super::*;
    use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};

    /// Families of sockets (linux/socket.h).
    const INET: u64 = 2;
    const PACKET: u64 = 17;
    const XDP: u64 = 44;
    const REFUSED: u32 = (-1_i32).cast_unsigned();
    const SECOND: u64 = 1_000_000_000;

    /// The judgement as the kernel runs it, with arguments of the test's own: also where the kernel takes no program at
    /// the hook itself.
    struct Trial(Ebpf, u64);

    impl Trial {
        fn open() -> Self {
            let mut object = Ebpf::load(DENY).unwrap();
            let program: &mut RawTracePoint =
                object.program_mut("try_socket").unwrap().try_into().unwrap();
            program.load().unwrap();
            let mut trial = Self(object, 0);
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            array::<[u32; 4]>(&mut trial.0, "asked").unwrap().set(0, [thread, 0, 0, 0], 0).unwrap();
            assert_eq!(trial.says(16, false), 0);
            let told = array::<[u32; 4]>(&mut trial.0, "asked").unwrap().get(&0, 0).unwrap();
            assert_eq!(told[1], 1, "it saw who asked");
            trial.1 = u64::from(told[2]) | u64::from(told[3]) << 32;
            assert_ne!(trial.1, 0);
            trial
        }

        fn says(&mut self, family: u64, is_kernels: bool) -> u32 {
            let program: &mut RawTracePoint =
                self.0.program_mut("try_socket").unwrap().try_into().unwrap();
            let mut options = RawTracePointRunOptions::new();
            options.args[..4].copy_from_slice(&[family, 3, 0, u64::from(is_kernels)]);
            program.test_run(options).unwrap().return_value
        }

        fn hold(&mut self, namespace: Option<u64>, cgroups: &[(u64, u64)], spared: Option<Spared>) {
            let namespaces = namespace.iter().map(|end| (self.1, *end)).collect();
            let spared = spared.iter().map(|may| (std::process::id(), *may as u32)).collect();
            make_exact::<u32, u32>(&mut self.0, SPARED, &spared).unwrap();
            make_exact::<u64, u64>(&mut self.0, NAMESPACES, &namespaces).unwrap();
            let cgroups = cgroups.iter().copied().collect();
            make_exact::<u64, u64>(&mut self.0, CGROUPS, &cgroups).unwrap();
        }
    }

    #[test]
    fn in_a_contained_namespace_raw_sockets_are_refused_until_the_lease_ends_and_nothing_else_is() {
        let mut trial = Trial::open();
        let answers =
            |trial: &mut Trial| [PACKET, XDP, INET].map(|family| trial.says(family, false));
        assert_eq!(answers(&mut trial), [0, 0, 0], "nothing is contained");
        trial.hold(Some(boot_nanos() + SECOND), &[], None);
        assert_eq!(answers(&mut trial), [REFUSED, REFUSED, 0]);
        assert_eq!(trial.says(PACKET, true), 0, "a socket of the kernel's own");
        trial.hold(Some(boot_nanos() + SECOND), &[], Some(Spared::Packet));
        assert_eq!(answers(&mut trial), [0, REFUSED, 0]);
        trial.hold(Some(boot_nanos() + SECOND), &[], Some(Spared::All));
        assert_eq!(answers(&mut trial), [0, 0, 0]);
        trial.hold(Some(boot_nanos() + SECOND), &[], None);
        assert_eq!(answers(&mut trial), [REFUSED, REFUSED, 0]);
        trial.hold(None, &[], None);
        assert_eq!(answers(&mut trial), [0, 0, 0], "released");
        // Nobody takes this one away.
        trial.hold(Some(boot_nanos() + SECOND / 20), &[], None);
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(answers(&mut trial), [0, 0, 0], "its lease has ended");
        let refused = array::<u64>(&mut trial.0, "refused").unwrap();
        assert_eq!(refused.iter().flatten().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_contained_cgroup_is_refused_raw_sockets_with_all_below_it_and_its_neighbour_is_not() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = Path::new(root.unwrap().split(' ').nth(1).unwrap());
        let top = root.join(format!("sekisho-deny-{}", std::process::id()));
        let below = top.join("a/b");
        let beside = top.join("c");
        fs::create_dir_all(&below).unwrap();
        fs::create_dir_all(&beside).unwrap();
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        let held = top.join("a");
        // A process of its own moves, so that other tests of this one stay where they are.
        let said = [&below, &held, &beside].map(|place| {
            let child = Command::new(std::env::current_exe().unwrap())
                .args([CHILD, "--exact", "--nocapture"])
                .env(MOVED, place)
                .env("HELD", id(&held).to_string())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success(), "{said}");
            said.contains("refused: yes")
        });
        for path in [below.as_path(), &held, &beside, &top] {
            fs::remove_dir(path).unwrap();
        }
        assert_eq!(said, [true, true, false]);
    }

    const MOVED: &str = "SEKISHO_TEST_DENY";
    const CHILD: &str = "bpf::denial::tests::a_process_in_a_cgroup_says_what_it_is_refused";

    #[test]
    fn a_process_in_a_cgroup_says_what_it_is_refused() {
        let mut trial = Trial::open();
        let held = std::env::var("HELD").map_or(u64::MAX, |id| id.parse().unwrap());
        if let Some(place) = std::env::var_os(MOVED) {
            let procs = Path::new(&place).join("cgroup.procs");
            fs::write(procs, std::process::id().to_string()).unwrap();
        }
        trial.hold(None, &[(held, boot_nanos() + 5 * SECOND)], None);
        let said = [PACKET, XDP, INET].map(|family| trial.says(family, false));
        assert!(said == [0; 3] || said == [REFUSED, REFUSED, 0], "{said:?}");
        let word = if said == [0; 3] { "no" } else { "yes" };
        let line = format!("refused: {word}\n");
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
    }
}
