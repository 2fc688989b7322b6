//! Facts about this host: its interfaces, the program behind a flow, the place of a remote end.
//!
//! Enters: the kernel's and procfs' view, an operator's MMDB file. Leaves: plain facts, absent ones as `None`.
//! Must not know: detectors, policy, containments, the collector.

pub mod geoip;
pub mod interfaces;
pub mod owner;
pub mod recent;

/// The cgroup v2 path of this process; none in the root, where nothing has to be spared (cgroups(7)).
#[must_use]
pub fn own_cgroups() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.filter(|own| *own != "/").map(str::to_owned).into_iter().collect()
}
