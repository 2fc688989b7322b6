//! Other network namespaces with a way out of their own: a card moved there, or a device on one that is not ruled.

use super::Look;
use super::devices::{Device, devices, is_hooked};
use crate::target::{EnterError, of_process, others, within};
use std::time::Instant;

/// Namespaces entered in one look.
const MOST: usize = 256;
/// Kinds that stand on a device of another namespace.
const ON_ANOTHER: [&str; 4] = ["ipvlan", "ipvtap", "macvlan", "macvtap"];

/// Devices in other namespaces by which packets leave without a rule of ours.
pub(super) fn uplinks(own: &[Device], look: &Look, deadline: Instant) -> Vec<String> {
    // Whoever runs in a container is not the keeper of the host that it is on.
    let host = of_process(1).ok();
    let all = others(deadline);
    let mut gaps = Vec::new();
    let mut whole = all.len() <= MOST;
    for namespace in all.into_iter().take(MOST).filter(|other| Some(other.inode) != host) {
        if Instant::now() >= deadline {
            whole = false;
            break;
        }
        match within(&namespace, devices) {
            Ok(Ok(theirs)) => gaps.extend(
                theirs
                    .iter()
                    .filter(|device| device.up && leads_out(device, own, look))
                    .map(|device| format!("namespace_uplink:{}/{}", namespace.inode, device.name)),
            ),
            // One that went meanwhile has no way out any more.
            Err(EnterError::Gone { .. }) => {}
            Ok(Err(_)) | Err(_) => whole = false,
        }
    }
    if !whole {
        gaps.push("unknown_namespaces".to_owned());
    }
    gaps
}

fn leads_out(device: &Device, own: &[Device], look: &Look) -> bool {
    if device.is_hardware() {
        return true;
    }
    if !ON_ANOTHER.contains(&device.kind.as_str()) || !device.below_elsewhere {
        return false;
    }
    // Frames of such a device leave by the one below, past its egress hook.
    let below = own.iter().find(|other| Some(other.index) == device.below);
    below.is_none_or(|below| !is_hooked(below, own, &look.uplinks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macvlan_child_is_covered_by_the_hook_of_the_device_below_and_a_moved_card_by_none() {
        let own = [Device { index: 3, name: "eth0".to_owned(), up: true, ..Device::default() }];
        let child = Device {
            kind: "macvlan".to_owned(),
            below: Some(3),
            below_elsewhere: true,
            ..Device::default()
        };
        let ruled = Look { uplinks: vec!["eth0".to_owned()], ..Look::default() };
        assert!(!leads_out(&child, &own, &ruled));
        assert!(leads_out(&child, &own, &Look::default()));
        assert!(leads_out(&Device::default(), &own, &ruled), "hardware");
        let veth = Device { kind: "veth".to_owned(), ..child };
        assert!(!leads_out(&veth, &own, &Look::default()));
    }
}
