//! Filters of traffic control that send packets elsewhere: mirred actions and BPF programs.

use super::devices::Device;
use crate::netlink::{Channel, NetlinkError, attribute, attributes, text_of, u32_at};
use std::collections::BTreeSet;

/// `RTM_GETQDISC` and `RTM_GETTFILTER` (linux/rtnetlink.h).
const GET_QDISC: u16 = 38;
const GET_FILTER: u16 = 46;
/// Bytes of `struct tcmsg`: family, padding, index at 4, handle at 8, parent at 12, info.
const HEAD_BYTES: usize = 20;
/// `TCA_KIND` and `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` (linux/pkt_sched.h).
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Handle of the qdiscs `clsact` and `ingress`.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// `TCA_MIRRED_PARMS`; in `struct tc_mirred` the action is behind five numbers of four bytes.
const MIRRED_PARAMETERS: u16 = 2;
const MIRRED_ACTION_AT: usize = 20;
/// `TCA_EGRESS_REDIR` and `TCA_EGRESS_MIRROR`: packets leave by another device.
const LEAVING: [u32; 2] = [1, 2];

/// Where the actions of a kind of filter are within its options (`TCA_<KIND>_ACT`, linux/pkt_cls.h).
fn actions_at(kind: &str) -> &'static [u16] {
    match kind {
        "basic" | "cgroup" | "flower" | "route" => &[3, 2, 6],
        "bpf" => &[1],
        "flow" => &[9],
        "fw" => &[4],
        "matchall" => &[2],
        "u32" => &[7],
        _ => &[],
    }
}

/// What a filter does that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Program,
    Redirect,
    Unread,
}

/// Devices with such filters, by name.
pub(super) fn redirects(devices: &[Device]) -> Result<Vec<String>, NetlinkError> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    let disciplines =
        channel.dump(GET_QDISC, &[0; HEAD_BYTES], |found: &mut BTreeSet<(u32, u32)>, answer| {
            let (Some(index), Some(handle)) = (u32_at(answer.body, 4), u32_at(answer.body, 8))
            else {
                return;
            };
            let rest = answer.body.get(HEAD_BYTES..).unwrap_or_default();
            match attribute(rest, KIND).map(text_of).as_deref() {
                Some("clsact") => found.extend([(index, CLSACT_INGRESS), (index, CLSACT_EGRESS)]),
                Some("ingress") => {
                    found.insert((index, INGRESS_HANDLE));
                }
                // A handle of nought is the kernel's own choice, which takes no filters.
                _ if handle != 0 => {
                    found.insert((index, handle));
                }
                _ => {}
            }
        })?;
    let mut gaps = BTreeSet::new();
    for (index, parent) in disciplines {
        let Some(device) = devices.iter().find(|device| device.index == index) else { continue };
        for deed in deeds(&mut channel, index, parent)? {
            let kind = match deed {
                Deed::Program => "tc_program",
                Deed::Redirect => "tc_redirect",
                Deed::Unread => "tc_filter",
            };
            gaps.insert(format!("{kind}:{}", device.name));
        }
    }
    Ok(gaps.into_iter().collect())
}

fn deeds(channel: &mut Channel, index: u32, parent: u32) -> Result<BTreeSet<Deed>, NetlinkError> {
    let mut head = [0_u8; HEAD_BYTES];
    for (at, number) in [(4, index), (12, parent)] {
        if let Some(place) = head.get_mut(at..at + 4) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
    }
    let asked = channel.dump(GET_FILTER, &head, |deeds: &mut BTreeSet<Deed>, answer| {
        let rest = answer.body.get(HEAD_BYTES..).unwrap_or_default();
        if let (Some(kind), Some(options)) =
            (attribute(rest, KIND).map(text_of), attribute(rest, OPTIONS))
        {
            deeds.extend(read(&kind, options));
        }
    });
    match asked {
        // The device or its discipline went in between, or takes no filters.
        Err(NetlinkError::Refused { .. }) => Ok(BTreeSet::new()),
        asked => asked,
    }
}

fn read(kind: &str, options: &[u8]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let places = actions_at(kind);
    if places.is_empty() {
        deeds.push(Deed::Unread);
    }
    // A program may redirect by itself, whatever its actions are.
    if kind == "bpf" {
        deeds.push(Deed::Program);
    }
    let actions = places.iter().filter_map(|place| attribute(options, *place)).flat_map(attributes);
    for (_, action) in actions {
        match attribute(action, KIND).map(text_of).as_deref() {
            Some("mirred") => {
                let parameters =
                    attribute(action, OPTIONS).and_then(|own| attribute(own, MIRRED_PARAMETERS));
                let action = parameters.and_then(|own| u32_at(own, MIRRED_ACTION_AT));
                if action.is_none_or(|action| LEAVING.contains(&action)) {
                    deeds.push(Deed::Redirect);
                }
            }
            Some("bpf") => deeds.push(Deed::Program),
            _ => {}
        }
    }
    deeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    fn matchall(eaction: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        let actions = writer.nest(2);
        let first = writer.nest(1);
        writer.text(KIND, "mirred");
        let options = writer.nest(OPTIONS);
        let mut parameters = vec![0; MIRRED_ACTION_AT];
        parameters.extend_from_slice(&eaction.to_ne_bytes());
        parameters.extend_from_slice(&9_u32.to_ne_bytes());
        writer.attribute(MIRRED_PARAMETERS, &parameters);
        for open in [&options, &first, &actions] {
            writer.end_nest(open);
        }
        writer.as_bytes().to_vec()
    }

    #[test]
    fn only_what_leaves_by_another_device_is_a_redirect() {
        assert_eq!(read("matchall", &matchall(1)), [Deed::Redirect]);
        assert_eq!(read("matchall", &matchall(2)), [Deed::Redirect]);
        assert!(read("matchall", &matchall(3)).is_empty(), "into this host is no way out");
        assert_eq!(read("bpf", &[]), [Deed::Program]);
        assert_eq!(read("rsvp", &[]), [Deed::Unread], "a filter that can't be read is told");
    }
}
