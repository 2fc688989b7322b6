//! Who opened a connection or sent a datagram, remembered by the kernel also when nobody of it is left.

use super::Opener;
use super::object::{FindObjectError, OWNER, hash};
use crate::target::{FindTreeError, Tree};
use aya::maps::MapError;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, SockOps};
use aya::{Ebpf, EbpfError};
use sekisho_schema::{FlowKey, Transport};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Programs of calls by which a process opens a connection or sends.
const CALLS: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];
/// The program that learns both ends of a connection.
const EVENTS: &str = "connected";
const OPENERS: &str = "openers";
/// Sizes of `struct ends` and `struct opener` (ebpf/owner.bpf.c).
const ENDS_BYTES: usize = 40;
const OPENER_BYTES: usize = 48;
/// A port that nothing is sent to: connecting a datagram socket sends nothing either (discard, RFC 863).
const NOBODY: u16 = 9;

type Ends = [u8; ENDS_BYTES];

/// Why nobody remembers who opened what; sockets that are still there tell it as before.
#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    /// The root of cgroup v2 can't be opened.
    #[error("cannot open the root of cgroup v2")]
    Cgroup(#[source] io::Error),
    /// Nothing to attach to.
    #[error("cannot find the root of cgroup v2")]
    Find(#[from] FindTreeError),
    /// The object is not as compiled.
    #[error(transparent)]
    Object(#[from] FindObjectError),
    /// The object was refused as a whole.
    #[error("cannot load the object")]
    Open(#[from] EbpfError),
    /// A program did not take hold.
    #[error("cannot attach {name} to the root of cgroup v2")]
    Program {
        /// Which.
        name: &'static str,
        /// Why not.
        source: ProgramError,
    },
    /// What is remembered can't be read.
    #[error("cannot read what is remembered")]
    Read(#[from] MapError),
    /// A call of our own was not remembered.
    #[error("the programs do not run, or this is another pid namespace than the first")]
    Silent,
    /// No socket to try it with.
    #[error("cannot try whether the programs run")]
    Try(#[source] io::Error),
}

/// A link (Linux 5.7) always stands beside those of others, and takes no flag that says so.
const BESIDE_OTHERS: CgroupAttachMode = CgroupAttachMode::Single;

/// What the kernel remembers for as long as this lives.
pub struct Openers {
    object: Ebpf,
    /// The network namespace that this one is in.
    cookie: u64,
}

impl Openers {
    /// Has the kernel remember from now on, and sees that it does.
    ///
    /// # Errors
    /// [`RememberError`]; then nothing of it stays in the kernel.
    pub fn open() -> Result<Self, RememberError> {
        let root = Tree::find()?.directory("/");
        let root = File::open(root).map_err(RememberError::Cgroup)?;
        let mut object = Ebpf::load(OWNER)?;
        for name in CALLS {
            let failed = |source| RememberError::Program { name, source };
            let program = object.program_mut(name).ok_or(FindObjectError::Absent(name))?;
            let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
            program.load().map_err(failed)?;
            program.attach(&root, BESIDE_OTHERS).map_err(failed)?;
        }
        let failed = |source| RememberError::Program { name: EVENTS, source };
        let program = object.program_mut(EVENTS).ok_or(FindObjectError::Absent(EVENTS))?;
        let program: &mut SockOps = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        program.attach(&root, BESIDE_OTHERS).map_err(failed)?;
        let mut openers = Self { object, cookie: 0 };
        openers.cookie = openers.hear()?;
        Ok(openers)
    }

    /// Who opened the connection of a flow, or sent its datagrams.
    ///
    /// # Errors
    /// [`RememberError`] when what is remembered can't be read.
    pub fn opener(&self, flow: &FlowKey) -> Result<Option<Opener>, RememberError> {
        let Some(exact) = ends(flow) else { return Ok(None) };
        if let Some(opener) = self.read(&exact)? {
            return Ok(Some(Opener { is_exact: flow.transport == Transport::Tcp, ..opener }));
        }
        if flow.transport != Transport::Udp {
            return Ok(None);
        }
        // A connected socket had no port of its own yet when it was seen.
        let mut any = *flow;
        any.local.set_port(0);
        match ends(&any) {
            Some(any) => self.read(&any),
            None => Ok(None),
        }
    }

    fn read(&self, ends: &Ends) -> Result<Option<Opener>, RememberError> {
        let openers = hash::<Ends, [u8; OPENER_BYTES]>(&self.object, OPENERS)?;
        match openers.get(ends, 0) {
            Ok(bytes) => Ok(opener(&bytes, self.cookie)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Connects a datagram socket, and finds it remembered with the cookie of our network namespace.
    fn hear(&self) -> Result<u64, RememberError> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(RememberError::Try)?;
        // Without a loopback that is up it fails, after it was seen.
        let _ = socket.connect((Ipv4Addr::LOCALHOST, NOBODY));
        let flow = FlowKey {
            transport: Transport::Udp,
            local: (Ipv4Addr::UNSPECIFIED, 0).into(),
            remote: (Ipv4Addr::LOCALHOST, NOBODY).into(),
        };
        let openers = hash::<Ends, [u8; OPENER_BYTES]>(&self.object, OPENERS)?;
        let told = ends(&flow).and_then(|ends| openers.get(&ends, 0).ok());
        let told = told.ok_or(RememberError::Silent)?;
        opener(&told, 0)
            .filter(|opener| opener.pid == std::process::id())
            .and_then(|_| long_at(&told, 16))
            .ok_or(RememberError::Silent)
    }
}

/// A flow as the programs write it; `None` for what they do not see.
fn ends(flow: &FlowKey) -> Option<Ends> {
    let mut ends = [0; ENDS_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = ends.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    match flow.transport {
        Transport::Tcp => put(0, &mapped(flow.local.ip())),
        Transport::Udp => {}
        _ => return None,
    }
    put(16, &mapped(flow.remote.ip()));
    put(32, &u32::from(flow.transport.number()).to_ne_bytes());
    put(36, &flow.local.port().to_ne_bytes());
    put(38, &flow.remote.port().to_ne_bytes());
    Some(ends)
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn opener(bytes: &[u8; OPENER_BYTES], cookie: u64) -> Option<Opener> {
    let name = bytes.get(32..48)?.split(|byte| *byte == 0).next()?;
    Some(Opener {
        at: long_at(bytes, 0)?,
        cgroup: long_at(bytes, 8)?,
        is_here: long_at(bytes, 16)? == cookie,
        is_exact: false,
        pid: u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?),
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

fn long_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}
