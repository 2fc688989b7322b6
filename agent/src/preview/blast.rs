//! Which of the recorded flows a cut would have refused.

use super::row::{Hour, Row};
use crate::enforce::{Plan, is_cut};
use sekisho_schema::event::{Preview, PreviewLine};
use sekisho_schema::finding::Direction;
use sekisho_schema::{ContainmentId, Scope, Timestamp, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Lines of a preview: the ones with the most bytes.
pub const LINES: usize = 50;

/// What belongs on one line: a service that outsiders used, or a peer that was spoken to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LineKey {
    service: Option<u16>,
    transport: Transport,
    /// Empty for a service: its clients are counted, not listed.
    remote: Option<String>,
    port: Option<u16>,
}

/// Previews a cut of `scope` under `plan` by the flows of these hours.
#[must_use]
pub fn preview(
    scope: &Scope,
    plan: &Plan,
    hours: &[Hour],
    since: Timestamp,
    until: Timestamp,
    containment: Option<ContainmentId>,
) -> Preview {
    let mut told = Preview {
        scope: scope.to_string(),
        containment,
        since,
        until,
        hours: hours.len() as u64,
        complete: hours.iter().all(|hour| hour.uncounted == 0),
        ..Preview::default()
    };
    let mut lines: BTreeMap<LineKey, (PreviewLine, BTreeSet<ipnet::IpNet>)> = BTreeMap::new();
    for row in hours.iter().flat_map(|hour| hour.rows.values()).filter(|row| row.last_at >= since) {
        if !is_refused(scope, plan, row) {
            told.kept_flows += row.flows;
            told.kept_bytes_out = told.kept_bytes_out.saturating_add(row.bytes_out);
            continue;
        }
        told.refused_flows += row.flows;
        told.refused_bytes_out = told.refused_bytes_out.saturating_add(row.bytes_out);
        told.complete &= row.key.outside.prefix_len() == row.key.outside.max_prefix_len();
        let service = row.key.service;
        let key = LineKey {
            service,
            transport: row.key.transport,
            remote: service.is_none().then(|| row.key.outside.addr().to_string()),
            port: row.key.port,
        };
        let (line, clients) = lines.entry(key).or_insert_with(|| {
            let line = PreviewLine {
                what: if service.is_some() { "service" } else { "peer" }.to_owned(),
                transport: row.key.transport,
                port: service.or(row.key.port),
                remote: service.is_none().then(|| row.key.outside.addr().to_string()),
                first_at: row.first_at,
                last_at: row.last_at,
                ..PreviewLine::default()
            };
            (line, BTreeSet::new())
        });
        clients.insert(row.key.outside);
        line.clients = clients.len() as u64;
        line.flows += row.flows;
        line.bytes_out = line.bytes_out.saturating_add(row.bytes_out);
        line.bytes_in = line.bytes_in.saturating_add(row.bytes_in);
        line.first_at = line.first_at.min(row.first_at);
        line.last_at = line.last_at.max(row.last_at);
        line.name = row.name.clone().or_else(|| line.name.take());
        line.workloads.extend(row.workloads.iter().cloned());
    }
    let mut all: Vec<PreviewLine> = lines.into_values().map(|(line, _)| line).collect();
    // Stable: of two with the same bytes the order of their keys decides.
    all.sort_by_key(|line| std::cmp::Reverse(line.bytes_out.saturating_add(line.bytes_in)));
    told.lines_left_out = all.len().saturating_sub(LINES) as u64;
    all.truncate(LINES);
    told.lines = all;
    told
}

/// Whether a cut would have refused the flows of a row: the ruleset as a pure function, with what a row knows.
fn is_refused(scope: &Scope, plan: &Plan, row: &Row) -> bool {
    let (local_port, remote_port) = match row.key.direction {
        Direction::Inbound => (row.key.service.unwrap_or(0), 0),
        Direction::Outbound => (0, row.key.port.unwrap_or(0)),
    };
    let remote = SocketAddr::new(row.key.outside.addr(), remote_port);
    match scope {
        Scope::Cgroup(path) => {
            let is_in = |workload: &String| {
                workload == path
                    || workload
                        .strip_prefix(path.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
            };
            row.workloads.iter().any(is_in) && !plan.passes(row.key.transport, local_port, remote)
        }
        Scope::Container(id) => {
            row.workloads.iter().any(|workload| workload.contains(id.as_str()))
                && !plan.passes(row.key.transport, local_port, remote)
        }
        Scope::Internal(host) => {
            host.parse() == Ok(row.key.inside)
                && !plan.passes(row.key.transport, local_port, remote)
        }
        // Everything that leaves leaves by a device; which one a flow took is not recorded.
        Scope::Link(_) => true,
        Scope::Destination(_) | Scope::Host | Scope::ManagementOnly => {
            is_cut(scope, row.key.transport, local_port, remote, plan)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::flow;
    use super::*;
    use sekisho_schema::policy::Exemption;

    fn plan() -> Plan {
        Plan {
            inside: vec!["10.0.0.0/8".parse().unwrap()],
            exempt: vec![Exemption::Service {
                name: "customers".to_owned(),
                transport: Transport::Tcp,
                port: 443,
                from: "0.0.0.0/0".parse().unwrap(),
            }],
            ..Plan::default()
        }
    }

    fn hours() -> Vec<Hour> {
        let mut hour = Hour::new(0);
        for client in 1..=9 {
            hour.add(flow(
                Direction::Inbound,
                "10.0.0.5:443",
                &format!("198.51.100.{client}:5"),
                1_000,
            ));
            hour.add(flow(
                Direction::Inbound,
                "10.0.0.5:22",
                &format!("198.51.100.{client}:5"),
                10,
            ));
        }
        hour.add(flow(Direction::Outbound, "10.0.0.5:40000", "203.0.113.9:443", 5_000));
        hour.add(flow(Direction::Outbound, "10.0.0.5:40001", "203.0.113.10:25", 50));
        vec![hour]
    }

    fn told(scope: &str) -> Preview {
        preview(&scope.parse().unwrap(), &plan(), &hours(), Timestamp::EPOCH, Timestamp::MAX, None)
    }

    #[test]
    fn a_cut_of_the_host_refuses_peers_and_services_that_are_not_exempt() {
        let told = told("host");
        assert_eq!((told.refused_flows, told.refused_bytes_out), (11, 5_140));
        assert_eq!((told.kept_flows, told.kept_bytes_out), (9, 9_000));
        let lines: Vec<_> = told
            .lines
            .iter()
            .map(|line| (line.what.as_str(), line.port, line.remote.as_deref(), line.clients))
            .collect();
        assert_eq!(
            lines,
            [
                ("peer", Some(443), Some("203.0.113.9"), 1),
                ("service", Some(22), None, 9),
                ("peer", Some(25), Some("203.0.113.10"), 1),
            ]
        );
        assert!(told.complete);
    }

    #[test]
    fn a_cut_of_one_destination_refuses_only_that() {
        let told = told("dest:203.0.113.9");
        assert_eq!((told.refused_flows, told.lines.len()), (1, 1));
        assert_eq!(self::told("dest:203.0.113.99").refused_flows, 0);
    }

    #[test]
    fn a_workload_is_told_by_the_flows_that_it_was_seen_to_hold() {
        let mut hours = hours();
        hours[0].attribute(|key| key.port == Some(25), "/system.slice/mail.service");
        let of = |scope: &str| {
            preview(
                &scope.parse().unwrap(),
                &plan(),
                &hours,
                Timestamp::EPOCH,
                Timestamp::MAX,
                None,
            )
        };
        assert_eq!(of("cgroup:/system.slice/mail.service").refused_flows, 1);
        assert_eq!(of("cgroup:/system.slice").refused_flows, 1);
        assert_eq!(of("cgroup:/system.slice/mail").refused_flows, 0);
    }
}
