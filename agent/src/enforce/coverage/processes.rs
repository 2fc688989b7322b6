//! What processes hold open that sends past rules: packet sockets, AF_XDP sockets, links of BPF programs.
//!
//! A descriptor that is only on its way from one process to another, or only registered with io_uring, is not seen.

use super::devices::Device;
use crate::target::{here, of_process, processes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::Instant;

/// Descriptors looked at in one look.
const MOST_DESCRIPTORS: usize = 500_000;
/// The kernel tells the protocol of a socket as an attribute of its descriptor (net/socket.c, sockfs).
const PROTOCOL: &str = "system.sockprotoname";
/// Name of the protocol of AF_XDP sockets (net/xdp/xsk.c).
const AF_XDP: &[u8] = b"XDP";

/// What was found in descriptors.
#[derive(Debug, Default)]
struct Found {
    gaps: BTreeSet<String>,
    /// Packet sockets of this namespace whose holder was seen.
    held: BTreeSet<u64>,
    seen: usize,
    incomplete: bool,
}

/// Sockets and links that send past rules, with who holds them.
pub(super) fn ways(devices: &[Device], ours: &[u32], deadline: Instant) -> Vec<String> {
    let own = here().ok();
    let mut found = Found::default();
    let listed = fs::read_to_string("/proc/thread-self/net/packet");
    let packets: BTreeSet<u64> = listed.as_deref().map(inodes).unwrap_or_default();
    found.incomplete |= listed.is_err();
    for pid in processes() {
        if Instant::now() >= deadline || found.seen >= MOST_DESCRIPTORS {
            found.incomplete = true;
            break;
        }
        match look_at(pid, own, devices, ours, &packets, &mut found) {
            Ok(()) => {}
            // It ended meanwhile.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) || is_gone(&error) => {}
            Err(_) => found.incomplete = true,
        }
    }
    if packets.difference(&found.held).next().is_some() {
        found.gaps.insert("packet_socket:unknown".to_owned());
    }
    if found.incomplete {
        found.gaps.insert("unknown_sockets".to_owned());
    }
    found.gaps.into_iter().collect()
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn look_at(
    pid: u32,
    own: Option<u64>,
    devices: &[Device],
    ours: &[u32],
    packets: &BTreeSet<u64>,
    found: &mut Found,
) -> io::Result<()> {
    let name = || {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .map(|name| shown(name.trim()))
            .unwrap_or_default()
    };
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        found.seen += 1;
        let path = entry.path();
        let Ok(target) = fs::read_link(&path) else { continue };
        let Some(target) = target.to_str() else { continue };
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'))
        {
            let inode: u64 = inode.parse().unwrap_or(0);
            if packets.contains(&inode) {
                found.held.insert(inode);
                if !ours.contains(&pid) {
                    found.gaps.insert(format!("packet_socket:{pid}/{}", name()));
                }
                continue;
            }
            let mut protocol = [0_u8; 32];
            let told = rustix::fs::getxattr(&path, PROTOCOL, &mut protocol).unwrap_or(0);
            let told = protocol.get(..told).unwrap_or_default().split(|byte| *byte == 0).next();
            if told == Some(AF_XDP) {
                found.gaps.insert(format!("af_xdp_socket:{pid}/{}", name()));
            }
        } else if target.starts_with("anon_inode:bpf") && target.contains("link") {
            let Some(number) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(told) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else {
                continue;
            };
            // Device numbers are those of the namespace that the program was attached in.
            if of_process(pid).ok() == own {
                found.gaps.extend(link(&told, devices));
            }
        }
    }
    Ok(())
}

/// Letters that can't be taken for parts of a gap's name.
fn shown(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_ascii_graphic() && letter != ':' { letter } else { '_' })
        .take(16)
        .collect()
}

/// Inodes in `/proc/net/packet`, the last column.
fn inodes(table: &str) -> BTreeSet<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next_back()?.parse().ok())
        .collect()
}

/// A link of a BPF program to a device, as its descriptor tells it.
fn link(told: &str, devices: &[Device]) -> Option<String> {
    let told: BTreeMap<&str, &str> = told
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let kind = match *told.get("link_type")? {
        "netkit" => "netkit_program",
        "tcx" => "tcx_program",
        "xdp" => "xdp_program",
        _ => return None,
    };
    let index: u32 = told.get("ifindex")?.parse().ok()?;
    let device = devices.iter().find(|device| device.index == index);
    Some(
        device
            .map_or_else(|| format!("{kind}:{index}"), |device| format!("{kind}:{}", device.name)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_tables_are_read() {
        let table = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                     0000000000000000 3      3    0003   0     1 0      0      14522\n";
        assert_eq!(inodes(table), BTreeSet::from([14522]));
        let eth0 = Device { index: 4, name: "eth0".to_owned(), ..Device::default() };
        let told = "pos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\tabc\nprog_id:\t9\nifindex:\t4\nattach_type:\t47\n";
        assert_eq!(link(told, &[eth0]).as_deref(), Some("tcx_program:eth0"));
        assert_eq!(link("link_type:\tcgroup\n", &[]), None);
    }

    #[test]
    fn a_name_that_a_process_gave_itself_can_be_no_other_gap() {
        assert_eq!(shown("a:b c\nd"), "a_b_c_d");
    }
}
