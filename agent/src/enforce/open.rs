//! What a level leaves open, in words for people: the honest other half of a receipt.

use super::cell::DEEPEST_CGROUP;
use super::plan::Plan;
use crate::target::Target;
use sekisho_schema::{Measure, Scope};

/// What of a scope that is held so can still get out or about, by design or for want of means (containment.md, sections 2, 5 and 6).
///
/// What this host as a whole can't close, whatever the level, is in [`mod@super::coverage`]; what `target` itself names
/// as open comes along.
#[must_use]
pub fn open_for(
    scope: &Scope,
    measure: Measure,
    plan: &Plan,
    target: Option<&Target>,
) -> Vec<String> {
    let mut open = Vec::new();
    match measure {
        Measure::Cut | Measure::Freeze => {}
        Measure::Observe => open.push("everything passes: it is only counted".to_owned()),
        Measure::Quota { bytes } => open.push(format!(
            "{bytes} bytes of packets pass before the cut, counted once at the packets' hook and once on each device"
        )),
        Measure::Throttle { bytes_per_second } => open.push(format!(
            "{bytes_per_second} bytes a second pass, and about a tenth of that at once"
        )),
    }
    match scope {
        Scope::Destination(address) => destination(&mut open, measure, *address, plan),
        Scope::Cgroup(_) => workload(&mut open, plan, target),
        Scope::Container(_) => {
            if target.is_some_and(|target| !target.cgroups.is_empty()) {
                workload(&mut open, plan, target);
            }
            sender(&mut open, plan, target);
        }
        Scope::Internal(_) => {
            sender(&mut open, plan, target);
            open.push(
                "a hardware address and an address that nobody has seen of it yet pass until they are".to_owned(),
            );
        }
        Scope::Host => {
            open.push("the inside networks of the policy stay in reach, and whatever there speaks for this host: resolvers, proxies, mail".to_owned());
            exemptions(&mut open, plan);
            services(&mut open, plan);
        }
        Scope::ManagementOnly => {
            names(&mut open, plan);
            exemptions(&mut open, plan);
            services(&mut open, plan);
        }
        Scope::Link(device) => open.push(format!(
            "other devices than {device}; and nothing in the kernel raises it when this program and its guardian are gone"
        )),
    }
    open.extend(target.into_iter().flat_map(|target| target.open.iter().cloned()));
    open
}

fn destination(open: &mut Vec<String>, measure: Measure, address: std::net::IpAddr, plan: &Plan) {
    open.push(format!(
        "other addresses of the same peer: whoever speaks with {address} may know another (QUIC changes over by itself)"
    ));
    open.push(
        "a peer that is reached through a proxy, a resolver or a relay on the inside".to_owned(),
    );
    if measure.is_cut() {
        open.push("frames of raw senders with an 802.1Q tag".to_owned());
    }
    services(open, plan);
}

fn workload(open: &mut Vec<String>, plan: &Plan, target: Option<&Target>) {
    open.push(
        "frames of packet sockets that are open (and of new ones, where coverage names new_raw_sockets): they belong to no cgroup at the hooks of packets".to_owned(),
    );
    open.push("sockets that were made in another cgroup: handed over (socket activation), inherited, or accepted by a listener made elsewhere".to_owned());
    open.push("the loopback, but for ports 53 and 853 and declared proxies: any other service there that speaks for it".to_owned());
    open.push("a restart of the workload in a new cgroup, until that is found".to_owned());
    if let Some(target) = target {
        for cgroup in target.cgroups.iter().filter(|cgroup| cgroup.level > DEEPEST_CGROUP) {
            open.push(format!("{} lies deeper than {DEEPEST_CGROUP} levels", cgroup.path));
        }
        if !target.namespaces.is_empty() {
            open.push("sockets in a network namespace of its own, but for what comes out by its ports and addresses".to_owned());
        }
    }
    exemptions(open, plan);
    services(open, plan);
}

fn sender(open: &mut Vec<String>, plan: &Plan, target: Option<&Target>) {
    let (ports, macs, addresses) = target.map_or((0, 0, 0), |target| {
        (target.ports.len(), target.macs.len(), target.addresses.len())
    });
    if ports == 0 && macs == 0 && addresses > 0 {
        open.push("it is known by address alone: another address passes".to_owned());
    } else if ports == 0 && macs > 0 {
        open.push("its port is not known: another hardware address passes".to_owned());
    }
    if !plan.bridged && ports == 0 {
        open.push(
            "other hosts on its own network: this host is not the bridge between them".to_owned(),
        );
    }
    open.push("ARP, neighbour discovery and DHCP on its own network".to_owned());
    names(open, plan);
    exemptions(open, plan);
}

fn names(open: &mut Vec<String>, plan: &Plan) {
    let names = &plan.names;
    if names.resolvers.is_empty() || names.questions_per_second == 0 {
        return;
    }
    let resolvers: Vec<String> = names.resolvers.iter().map(ToString::to_string).collect();
    open.push(format!(
        "questions to {}: {} a second in all, with a first label of up to {} bytes",
        resolvers.join(", "),
        names.questions_per_second,
        names.longest_label
    ));
}

fn exemptions(open: &mut Vec<String>, plan: &Plan) {
    use sekisho_schema::policy::Exemption;
    for exemption in &plan.exempt {
        if let Exemption::Peer { name, to, .. } = exemption {
            open.push(format!("exempt peer \"{name}\" ({to})"));
        }
    }
    if !plan.collector.is_empty() {
        open.push("the collector's endpoints, for every program".to_owned());
    }
}

fn services(open: &mut Vec<String>, plan: &Plan) {
    use sekisho_schema::policy::Exemption;
    for exemption in &plan.exempt {
        if let Exemption::Service { name, transport, port, from } = exemption {
            open.push(format!(
                "answers of exempt service \"{name}\" ({transport}/{port}) to {from}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Cgroup;

    fn open(scope: &str, measure: Measure, plan: &Plan, target: Option<&Target>) -> String {
        open_for(&scope.parse().unwrap(), measure, plan, target).join("\n")
    }

    #[test]
    fn every_level_says_what_it_leaves_open() {
        let plan = Plan {
            collector: vec!["192.0.2.9:8443".parse().unwrap()],
            names: sekisho_schema::policy::Names {
                resolvers: vec!["10.0.0.53".parse().unwrap()],
                ..Default::default()
            },
            ..Plan::default()
        };
        let cut = Measure::Cut;
        assert!(open("dest:203.0.113.9", cut, &plan, None).contains("QUIC"));
        assert!(open("dest:203.0.113.9", Measure::Observe, &plan, None).contains("only counted"));
        assert!(
            open("dest:203.0.113.9", Measure::Quota { bytes: 5000 }, &plan, None)
                .contains("5000 bytes")
        );
        assert!(open("host", cut, &plan, None).contains("inside networks"));
        let managed = open("management-only", cut, &plan, None);
        assert!(managed.contains("10.0.0.53") && managed.contains("collector"));
        let deep = Cgroup { level: 9, id: 1, path: "/1/2/3/4/5/6/7/8/9".to_owned() };
        let target = Target { cgroups: [deep].into(), ..Target::default() };
        let workload = open("cgroup:/1", cut, &plan, Some(&target));
        assert!(workload.contains("packet sockets") && workload.contains("deeper than 8"));
        let by_address =
            Target { addresses: ["10.0.0.9".parse().unwrap()].into(), ..Target::default() };
        let sender = open("internal:10.0.0.9", cut, &plan, Some(&by_address));
        assert!(sender.contains("address alone") && sender.contains("not the bridge"));
        assert!(open("link:eth0", cut, &plan, None).contains("nothing in the kernel"));
    }
}
