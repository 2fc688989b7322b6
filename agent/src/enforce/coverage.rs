//! Paths out of this host that no rule of ours sees, by name.

use super::netlink::{Channel, attribute, text_of};
use super::plan::Plan;
use rustix::net::{AddressFamily, SocketType};
use sekisho_schema::Coverage;

/// `RTM_GETLINK` (linux/rtnetlink.h).
const GET_LINK: u16 = 18;
/// `IFLA_IFNAME`, `IFLA_XDP`, and within it `IFLA_XDP_ATTACHED` (linux/if_link.h).
const IFLA_NAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
/// Bytes of `struct ifinfomsg`.
const LINK_HEAD_BYTES: usize = 16;

/// What a cut on this host does not close, sorted.
///
/// Always named, because no cheap look can exclude it: `tc_redirect` (tc mirred, `bpf_redirect`, Cilium's
/// host routing), `vlan_tagged_frames` (frames of raw senders with an 802.1Q tag, for a destination cut;
/// a host cut drops them), `xdp_redirect` and `xdp_tx`. `af_xdp` is named where the kernel has such
/// sockets; `xdp_program:DEVICE` where a program is attached right now. `unknown_xdp` means that the devices
/// could not be asked.
#[must_use]
pub fn coverage(plan: &Plan) -> Coverage {
    let mut gaps: Vec<String> =
        ["tc_redirect", "vlan_tagged_frames", "xdp_redirect", "xdp_tx"].map(str::to_owned).to_vec();
    // The kernel refuses the family where it has none (EAFNOSUPPORT); any other answer leaves it possible.
    if !matches!(
        rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None),
        Err(rustix::io::Errno::AFNOSUPPORT)
    ) {
        gaps.push("af_xdp".to_owned());
    }
    match devices_with_xdp() {
        Some(devices) => gaps.extend(devices.iter().map(|device| format!("xdp_program:{device}"))),
        None => gaps.push("unknown_xdp".to_owned()),
    }
    if plan.uplinks.is_empty() {
        gaps.push("no_uplink_known".to_owned());
    }
    gaps.sort();
    gaps
}

fn devices_with_xdp() -> Option<Vec<String>> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE).ok()?;
    channel
        .dump(GET_LINK, &[0; LINK_HEAD_BYTES], |names: &mut Vec<String>, answer| {
            let Some(body) = answer.body.get(LINK_HEAD_BYTES..) else { return };
            let attached = attribute(body, IFLA_XDP)
                .and_then(|xdp| attribute(xdp, XDP_ATTACHED))
                .and_then(<[u8]>::first)
                .copied();
            if attached.is_some_and(|mode| mode != 0) {
                names.extend(attribute(body, IFLA_NAME).map(text_of));
            }
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_sees_is_never_left_out() {
        let gaps = coverage(&Plan::default());
        for name in ["no_uplink_known", "tc_redirect", "xdp_tx"] {
            assert!(gaps.iter().any(|gap| gap == name), "{gaps:?}");
        }
        assert!(!gaps.iter().any(|gap| gap == "unknown_xdp"), "{gaps:?}");
    }
}
