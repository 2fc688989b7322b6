use super::*;
use crate::enforce::KernelAllowance;
use sekisho_schema::Transport;
use sekisho_schema::policy::Exemption;

fn plan() -> Plan {
    Plan {
        uplinks: vec!["eth0".to_owned(), "wan-1".to_owned()],
        inside: ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "fc00::/7"]
            .map(|n| n.parse().unwrap())
            .to_vec(),
        on_link: ["10.77.1.0/24", "203.0.113.0/24", "2001:db8:1::/64"]
            .map(|n| n.parse().unwrap())
            .to_vec(),
        exempt: vec![
            Exemption::Peer {
                name: "backup".to_owned(),
                to: "198.51.100.20/32".parse().unwrap(),
                transport: Some(Transport::Tcp),
                port: Some(443),
            },
            Exemption::Peer {
                name: "storage".to_owned(),
                to: "2001:db8:5::/48".parse().unwrap(),
                transport: None,
                port: None,
            },
            Exemption::Service {
                name: "customers".to_owned(),
                transport: Transport::Tcp,
                port: 443,
                from: "0.0.0.0/0".parse().unwrap(),
            },
            Exemption::Service {
                name: "clocks".to_owned(),
                transport: Transport::Udp,
                port: 123,
                from: "203.0.113.0/24".parse().unwrap(),
            },
        ],
        collector: vec!["192.0.2.9:8443".parse().unwrap(), "[2001:db8::9]:8443".parse().unwrap()],
        known: true,
        collector_live: vec![(
            "10.77.1.5:40000".parse().unwrap(),
            "198.51.100.77:8443".parse().unwrap(),
        )],
        allowance: Some(KernelAllowance {
            bytes: 20_000_000,
            window: sekisho_schema::Span::from_hours(168),
            approved: vec!["203.0.113.64/26".parse().unwrap()],
        }),
        names: sekisho_schema::policy::Names {
            resolvers: vec!["10.77.1.53".parse().unwrap(), "2001:db8:5::53".parse().unwrap()],
            ..Default::default()
        },
        deputies: vec!["127.0.0.1:3128".parse().unwrap()],
        own_cgroups: vec![],
        bridged: true,
    }
}

fn lines(plan: &Plan, stale: &[String]) -> Vec<String> {
    let json = to_json(&skeleton(plan, stale)).unwrap();
    json["nftables"].as_array().unwrap().iter().map(ToString::to_string).collect()
}

/// `SEKISHO_GOLDEN=write cargo test -p sekisho-agent skeleton` writes the file anew; the difference is for review.
#[test]
fn the_ruleset_of_a_plan_is_the_reviewed_one() {
    let is = lines(&plan(), &["dev_gone0".to_owned()]).join("\n") + "\n";
    if std::env::var_os("SEKISHO_GOLDEN").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/enforce/skeleton/golden.ndjson"),
            &is,
        )
        .unwrap();
        return;
    }
    for (number, (is, was)) in is.lines().zip(include_str!("golden.ndjson").lines()).enumerate() {
        assert_eq!(is, was, "line {}", number + 1);
    }
    assert_eq!(is.lines().count(), include_str!("golden.ndjson").lines().count());
}

#[test]
fn every_exemption_stands_before_every_drop() {
    let lines = lines(&plan(), &[]);
    for family in ["inet", "netdev"] {
        let rules: Vec<&String> = lines
            .iter()
            .filter(|line| {
                line.contains("\"chain\":\"list\"")
                    && line.contains(&format!("\"family\":\"{family}\""))
                    && line.contains("\"rule\"")
            })
            .collect();
        let first_cut = rules.iter().position(|rule| rule.contains("@cut_dest4")).unwrap();
        for chain in ["exempt", "services"] {
            let jump = format!("{{\"jump\":{{\"target\":\"{chain}\"}}}}");
            let at = rules.iter().position(|rule| rule.contains(&jump)).unwrap();
            assert!(at < first_cut, "{family} {chain}");
        }
        assert!(
            !rules.iter().any(|rule| rule.contains("exempt ") || rule.contains("\"collector\""))
        );
        let place = |what: &str| rules.iter().rposition(|rule| rule.contains(what)).unwrap();
        assert!(
            place("all but management") < place("inside networks")
                && place("inside networks") < place("external egress")
        );
        assert_eq!(place("external egress"), rules.len() - 1, "nothing passes after the last cut");
    }
}

#[test]
fn every_chain_of_drops_asks_first_what_is_exempt() {
    let lines = lines(&plan(), &[]);
    for (family, chain) in [
        ("inet", "above"),
        ("inet", "workload"),
        ("inet", "sent"),
        ("netdev", "sent"),
        ("bridge", "sent"),
        ("inet", "beyond"),
        ("netdev", "beyond"),
    ] {
        let rules: Vec<&String> = lines
            .iter()
            .filter(|line| {
                line.contains(&format!("\"chain\":\"{chain}\""))
                    && line.contains(&format!("\"family\":\"{family}\""))
                    && line.contains("{\"rule\"")
            })
            .collect();
        let place = |what: &str| rules.iter().position(|rule| rule.contains(what));
        let exempt = place("{\"jump\":{\"target\":\"exempt\"}}").unwrap();
        let last = rules.iter().rposition(|rule| rule.contains("\"drop\"")).unwrap();
        assert!(exempt < last && last == rules.len() - 1, "{family} {chain}");
        for rule in rules.iter().take(exempt).filter(|rule| rule.contains("\"drop\"")) {
            // Whom a workload would have speak for it is no exemption of the workload's.
            assert!(chain == "workload" && rule.contains("dport"), "{rule}");
        }
    }
}

#[test]
fn nothing_is_dropped_without_a_set_and_no_set_is_ever_emptied() {
    for line in lines(&plan(), &[]) {
        if line.contains("\"drop\"") {
            // Chains that are only jumped to from a rule with a set.
            let jumped_to = ["disguised", "known", "above", "sent", "workload", "beyond"]
                .iter()
                .any(|name| line.contains(&format!("\"chain\":\"{name}\"")));
            assert!(line.contains("\"@") || jumped_to, "{line}");
            assert!(line.contains("\"counter\""), "{line}");
        }
        assert!(
            !line.starts_with("{\"flush\":{\"set\"")
                && !line.starts_with("{\"delete\"")
                && !line.contains("ruleset"),
            "{line}"
        );
        if line.starts_with("{\"add\":{\"set\"") {
            assert!(
                line.contains("\"flags\":[\"timeout\"]")
                    && (line.contains("\"timeout\":86400") || line.contains("spent"))
                    && line.contains("\"timeout\":")
                    && !line.contains("\"interval\""),
                "{line}"
            );
        }
    }
}

#[test]
fn destinations_known_beforehand_are_dropped_only_where_the_plan_says_so() {
    let listed = lines(&plan(), &[]);
    let postrouting: Vec<&String> = listed
        .iter()
        .filter(|line| {
            line.contains("\"chain\":\"postrouting\"")
                && line.contains("{\"rule\"")
                && line.contains("\"table\":\"sekisho\"")
        })
        .collect();
    // First the list of every hook, whose exemptions end the matter.
    assert!(postrouting[0].contains("{\"jump\":{\"target\":\"egress\"}}"));
    assert!(postrouting[1..].iter().all(|rule| rule.contains("known beforehand")));
    let jumps = |known| {
        let lines = lines(&Plan { known, ..plan() }, &[]);
        lines.iter().filter(|line| line.contains("{\"jump\":{\"target\":\"known\"}}")).count()
    };
    assert_eq!((jumps(true), jumps(false)), (4, 0));
}

#[test]
fn an_empty_plan_lets_nothing_more_through() {
    let rules: Vec<String> = lines(&Plan::default(), &[])
        .into_iter()
        .filter(|line| line.contains("\"accept\":null"))
        .collect();
    for rule in &rules {
        assert!(
            ["loopback", "ARP", "DHCP", "IPv6 neighbour", "\"arp\""]
                .iter()
                .any(|what| rule.contains(what)),
            "{rule}"
        );
    }
    assert!(!rules.is_empty());
}

#[test]
fn a_device_name_of_any_bytes_makes_its_own_chain() {
    assert_eq!(device_chain("eth0.100"), "dev_eth0.100");
    assert_eq!(device_chain("wan-1"), "dev_wan/2d1");
    assert_ne!(device_chain("a-b"), device_chain("a:b"));
}
