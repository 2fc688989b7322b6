//! Paths out of this host that no rule of ours sees, by name, looked for here and now.
//!
//! Enters: the plan's devices, whose packet sockets are no news, and how long a look may take. Leaves: names,
//! sorted; what could not be looked at is named as unknown. Must not know: containments, policy, who reads it.

mod bell;
mod devices;
mod filters;
mod flowtables;
mod hardware;
mod namespaces;
mod processes;

pub use bell::Bell;

use super::plan::Plan;
use sekisho_schema::Coverage;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Ways that no cheap look can exclude, so that they are always named: a program that is loaded after the look,
/// and is gone before the next one, was never seen.
const ALWAYS: [&str; 5] = ["af_xdp", "tc_redirect", "vlan_tagged_frames", "xdp_redirect", "xdp_tx"];
/// The gap that is there while nobody is refused a new packet or AF_XDP socket.
pub const NEW_RAW_SOCKETS: &str = "new_raw_sockets";
/// Names of one kind, at most; the rest is counted.
const MOST_OF_A_KIND: usize = 16;

/// Whether a gap is always named, whatever was seen.
#[must_use]
pub fn is_always(gap: &str) -> bool {
    ALWAYS.contains(&gap)
}

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Devices with an egress hook of ours.
    pub uplinks: Vec<String>,
    /// Whether the bridge is ruled too.
    pub bridged: bool,
    /// Processes whose packet sockets are ours.
    pub ours: Vec<u32>,
}

impl Look {
    /// A look for a plan, on behalf of these processes.
    #[must_use]
    pub fn of(plan: &Plan, ours: Vec<u32>) -> Self {
        Self { uplinks: plan.uplinks.clone(), bridged: plan.bridged, ours }
    }

    /// Everything that passes a cut here and now, sorted; takes hardly longer than `patience`.
    ///
    /// Beside the ways that are always named: `xdp_program:DEVICE`, `tc_redirect:DEVICE` (mirred), `tc_program:DEVICE`
    /// (a BPF filter), `tc_filter:DEVICE` (unread), `tcx_program:DEVICE`, `netkit_program:DEVICE`, `flowtable:FAMILY/TABLE/NAME`, `packet_socket:PID/NAME`,
    /// `af_xdp_socket:PID/NAME`, `tunnel:DEVICE`, `device_without_hook:DEVICE`, `bridge_port:DEVICE`, `cilium:DEVICE`,
    /// `namespace_uplink:INODE/DEVICE`, `user_space_nic:ADDRESS`, `rdma:DEVICE`, `no_uplink_known`. What could not be
    /// looked at is `unknown_devices`, `unknown_filters`, `unknown_flowtables`, `unknown_sockets`, `unknown_namespaces`.
    #[must_use]
    pub fn now(&self, patience: Duration) -> Coverage {
        let deadline = Instant::now() + patience;
        let mut gaps = self.quick();
        match devices::devices() {
            Ok(all) => {
                gaps.extend(filters::redirects(&all).unwrap_or_else(unknown("unknown_filters")));
                gaps.extend(processes::ways(&all, &self.ours, deadline));
                gaps.extend(namespaces::uplinks(&all, self, deadline));
            }
            Err(_) => {
                gaps.extend(["unknown_filters", "unknown_namespaces"].map(str::to_owned));
                gaps.extend(processes::ways(&[], &self.ours, deadline));
            }
        }
        gaps.extend(flowtables::flowtables().unwrap_or_else(unknown("unknown_flowtables")));
        gaps.extend(hardware::beside_the_kernel());
        tidied(gaps)
    }

    /// What a question about devices alone tells, with what is always named.
    fn quick(&self) -> Vec<String> {
        let mut gaps: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
        match devices::devices() {
            Ok(all) => gaps.extend(devices::gaps(&all, self)),
            Err(_) => gaps.push("unknown_devices".to_owned()),
        }
        if self.uplinks.is_empty() {
            gaps.push("no_uplink_known".to_owned());
        }
        gaps
    }
}

fn unknown<E>(name: &'static str) -> impl FnOnce(E) -> Vec<String> {
    move |_| vec![name.to_owned()]
}

/// What a cut on this host does not close as far as its devices tell, sorted: a look that costs one question.
#[must_use]
pub fn coverage(plan: &Plan) -> Coverage {
    tidied(Look::of(plan, Vec::new()).quick())
}

/// Kinds of gaps and how many there are of each: what may be told where no names belong.
#[must_use]
pub fn kinds(gaps: &[String]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for gap in gaps {
        *kinds.entry(kind(gap).to_owned()).or_default() += 1;
    }
    kinds
}

/// The kind of a gap: its name without what it was found at.
#[must_use]
pub fn kind(gap: &str) -> &str {
    gap.split(':').next().unwrap_or(gap)
}

/// What a gap means, in a sentence.
#[must_use]
pub fn explain(gap: &str) -> &'static str {
    match kind(gap) {
        "af_xdp" => "a program with CAP_NET_RAW and an AF_XDP socket sends below every hook",
        "af_xdp_socket" => "this process holds an AF_XDP socket, which sends below every hook",
        "bridge_port" => {
            "a bridge passes frames of others on to this device, and no rule of ours is on the bridge"
        }
        "cilium" => {
            "a BPF data path moves packets of containers past the hooks of this host; cut them by its own policy"
        }
        "device_without_hook" => {
            "this device has no egress hook of ours, so that frames of raw senders leave by it"
        }
        "flowtable" => "forwarded flows that are offloaded to it meet no rule but those on devices",
        "namespace_uplink" => {
            "another network namespace has a device of its own to the outside, which no rule of ours sees"
        }
        "netkit_program" | "tc_program" | "tcx_program" => {
            "a BPF program on this device may redirect packets past our hooks"
        }
        NEW_RAW_SOCKETS => {
            "new packet and AF_XDP sockets of what is contained are not refused: `sekisho status` says why"
        }
        "no_uplink_known" => {
            "no interface is known to lead out, so frames of raw senders are not seen"
        }
        "packet_socket" => {
            "this process holds a packet socket: its frames meet our hooks on devices only, and pass a cut of one destination with an 802.1Q tag"
        }
        "rdma" => "an RDMA device sends without the kernel's network stack",
        "tc_filter" => {
            "a filter of a kind that can't be read is on this device, and may send packets elsewhere"
        }
        "tc_redirect" => "a tc or BPF program may redirect packets between devices after our hooks",
        "tunnel" => {
            "packets in this tunnel leave under another address; a cut of one destination sees it only before they enter"
        }
        "unknown_devices" | "unknown_filters" | "unknown_flowtables" | "unknown_namespaces"
        | "unknown_sockets" => {
            "this could not be looked at, so that nothing is known of it; the guardian needs the capabilities of its unit"
        }
        "user_space_nic" => {
            "a network card is driven by a program or a virtual machine, past the kernel"
        }
        "vlan_tagged_frames" => {
            "frames with an 802.1Q tag of raw senders pass a cut of one destination (a cut of the host drops them)"
        }
        "xdp_program" => "an XDP program is attached to this device and may send on its own",
        "xdp_redirect" | "xdp_tx" => "an XDP program may send packets on below every hook",
        _ => "a path that no rule of ours sees",
    }
}

/// Sorted, each once, and not too many of a kind.
fn tidied(mut gaps: Vec<String>) -> Coverage {
    gaps.sort();
    gaps.dedup();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<String> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        let count = told.entry(kind(&gap).to_owned()).or_default();
        *count += 1;
        if *count <= MOST_OF_A_KIND {
            kept.push(gap);
        }
    }
    for (kind, count) in told {
        if count > MOST_OF_A_KIND {
            kept.push(format!("{kind}:and {} more", count - MOST_OF_A_KIND));
        }
    }
    kept.sort();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_sees_is_never_left_out() {
        let quick = coverage(&Plan::default());
        let whole = Look::default().now(Duration::from_secs(1));
        for name in [
            "af_xdp",
            "no_uplink_known",
            "tc_redirect",
            "vlan_tagged_frames",
            "xdp_redirect",
            "xdp_tx",
        ] {
            for gaps in [&quick, &whole] {
                assert!(gaps.iter().any(|gap| gap == name), "{name}: {gaps:?}");
            }
        }
        assert!(!quick.iter().any(|gap| gap == "unknown_devices"), "{quick:?}");
    }

    #[test]
    fn many_of_a_kind_are_counted_instead_of_named() {
        let gaps = tidied(
            (0..40).map(|n| format!("tunnel:tun{n:02}")).chain(["xdp_tx".to_owned()]).collect(),
        );
        assert_eq!(gaps.len(), MOST_OF_A_KIND + 2);
        assert!(gaps.contains(&"tunnel:and 24 more".to_owned()), "{gaps:?}");
        assert_eq!(kinds(&gaps).get("tunnel"), Some(&17));
    }

    #[test]
    fn every_name_has_a_sentence_of_its_own() {
        let other = explain("something else");
        for name in ALWAYS {
            assert_ne!(explain(name), other, "{name}");
        }
        assert_ne!(explain("packet_socket:12/dhclient"), other);
    }
}
