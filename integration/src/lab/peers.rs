//! How others cut a host: the shapes of their rules, restated in nft from what their documents and sources say they do.
//!
//! In come addresses of the laboratory; out come rulesets. Nothing here is copied: each text is ours and says what the
//! shape means, in one transaction even where the original needs several, which flatters it.

use super::topology::{BACKUP, C2, COLLECTOR};

/// A cell of the table: what happened to what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing arrived.
    Cut,
    /// It arrived at the intruder.
    Out,
    /// What must go on goes on.
    Works,
    /// What must go on does not.
    Broken,
}

impl Fate {
    /// The word in the table.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Out => "OUT",
            Self::Works => "ok",
            Self::Broken => "broken",
        }
    }
}

/// Ways that are tried, in the order of the columns.
pub const COLUMNS: [&str; 12] = [
    "est TCP",
    "est TCP ctr",
    "new TCP",
    "new TCP ctr",
    "macvlan ctr",
    "UDP any",
    "UDP/53 any",
    "IPv6",
    "raw IP",
    "AF_PACKET",
    "AF_XDP",
    "loopback",
];

/// A shape: its name, its rules, and what was seen of it before (`None`: not comparable there).
#[derive(Debug)]
pub struct Shape {
    /// Whose it is.
    pub name: &'static str,
    /// The ruleset.
    pub rules: String,
    /// What an earlier measurement of the same shape found, by column.
    pub seen_before: [Option<Fate>; 12],
}

/// Reads a row of the earlier table: `c` cut, `O` out, `-` not comparable; the last is `k` ok or `b` broken.
fn row(text: &str) -> [Option<Fate>; 12] {
    let mut cells = [None; 12];
    for (cell, letter) in cells.iter_mut().zip(text.chars()) {
        *cell = match letter {
            'c' => Some(Fate::Cut),
            'O' => Some(Fate::Out),
            'k' => Some(Fate::Works),
            'b' => Some(Fate::Broken),
            _ => None,
        };
    }
    cells
}

/// Connection tracking, awake before anything else is loaded: some shapes judge otherwise when they wake it themselves.
pub const TRACKING: &str = "\
table inet tracking {
  chain in { type filter hook input priority 10; ct state established counter; }
  chain out { type filter hook output priority 10; ct state established counter; }
  chain through { type filter hook forward priority 10; ct state established counter; }
}";

/// Every shape, and two of reference that only say what a hook can do.
#[must_use]
pub fn shapes() -> Vec<Shape> {
    let mut shapes = blocking_a_source();
    shapes.extend(whole_hosts());
    shapes
}

fn blocking_a_source() -> Vec<Shape> {
    vec![
        // Own table at priority 0; the server's first IPv4 address, DNS and DHCP to anybody, the stub resolver alone
        // of the loopback.
        Shape {
            name: "Velociraptor quarantine",
            rules: format!(
                "table inet peer {{
  chain in {{ type filter hook input priority 0; policy drop;
    ip saddr {COLLECTOR} tcp sport 8443 ct state established accept
    udp sport 53 ct state established accept
    tcp sport 53 ct state established accept
    udp sport {{ 67, 68 }} ct state established accept
    ip daddr 127.0.0.53 accept; }}
  chain out {{ type filter hook output priority 0; policy drop;
    ip daddr {COLLECTOR} tcp dport 8443 ct state established,new accept
    udp dport {{ 53, 67, 68 }} ct state established,new accept
    tcp dport 53 ct state established,new accept
    ip saddr 127.0.0.53 accept; }}
  chain through {{ type filter hook forward priority 0; policy drop; }}
}}"
            ),
            seen_before: row("ccccOcOccOOb"),
        },
        // A set of sources, with time-outs, in a table for each family; only the IPv4 address was banned.
        Shape {
            name: "CrowdSec bouncer (saddr)",
            rules: format!(
                "table ip peer {{
  set banned {{ type ipv4_addr; flags timeout; elements = {{ {C2} timeout 4h }}; }}
  chain in {{ type filter hook input priority -10; policy accept; ip saddr @banned drop; }}
  chain through {{ type filter hook forward priority -10; policy accept; ip saddr @banned drop; }}
}}
table ip6 peer {{
  set banned {{ type ipv6_addr; flags timeout; }}
  chain in {{ type filter hook input priority -10; policy accept; ip6 saddr @banned drop; }}
  chain through {{ type filter hook forward priority -10; policy accept; ip6 saddr @banned drop; }}
}}"
            ),
            seen_before: row("OOccOOOOOOOk"),
        },
        // The source address, dropped on its way in and through.
        Shape {
            name: "Wazuh block-ip",
            rules: format!(
                "table ip peer {{
  chain in {{ type filter hook input priority 0; policy accept; ip saddr {C2} drop; }}
  chain through {{ type filter hook forward priority 0; policy accept; ip saddr {C2} drop; }}
}}"
            ),
            seen_before: row("OOccOOOOOOOk"),
        },
        // Rejects what a banned source sends to the port of the jail.
        Shape {
            name: "Fail2ban nft default",
            rules: format!(
                "table inet peer {{
  set banned {{ type ipv4_addr; elements = {{ {C2} }}; }}
  chain in {{ type filter hook input priority -1; policy accept;
    tcp dport 22 ip saddr @banned reject; }}
}}"
            ),
            seen_before: row("OOOOOOOOOOOk"),
        },
        // IPv4 of the uplink and of the container bridge by its usual name: established passes, named endpoints pass.
        Shape {
            name: "Harden-Runner OSS",
            rules: format!(
                "table ip peer {{
  chain out {{ type filter hook output priority 0; policy accept;
    oifname eth0 ct state related,established accept
    oifname eth0 ip daddr {{ {COLLECTOR}, {BACKUP} }} accept
    oifname eth0 reject; }}
  chain through {{ type filter hook forward priority 0; policy accept;
    iifname docker0 ct state related,established accept
    iifname docker0 reject; }}
}}"
            ),
            seen_before: row("O-c-OccOcOOk"),
        },
    ]
}

fn whole_hosts() -> Vec<Shape> {
    vec![
        // Everything in and out but the loopback and the server; nothing about what is forwarded.
        Shape {
            name: "eGuard isolate",
            rules: format!(
                "table inet peer {{
  chain in {{ type filter hook input priority 0; policy drop;
    iifname lo accept
    ip saddr {COLLECTOR} accept; }}
  chain out {{ type filter hook output priority 0; policy drop;
    oifname lo accept
    ip daddr {COLLECTOR} accept; }}
}}"
            ),
            seen_before: row("cOcOOccccOOk"),
        },
        Shape {
            name: "ref: inet output+forward -300",
            rules: format!(
                "table inet peer {{
  chain out {{ type filter hook output priority -300; policy drop;
    oifname lo accept
    ip daddr {COLLECTOR} accept; }}
  chain through {{ type filter hook forward priority -300; policy drop; }}
}}"
            ),
            seen_before: row("ccccOccccOOk"),
        },
        Shape {
            name: "ref: netdev egress on uplink",
            rules: format!(
                "table netdev peer {{
  chain out {{ type filter hook egress device eth0 priority -500; policy drop;
    ether type arp accept
    ip daddr {COLLECTOR} accept; }}
}}"
            ),
            seen_before: row("ccccccccccOk"),
        },
    ]
}
