//! The network of the story: a web server and a database behind a gateway, and the world outside.

use super::Lab;
use super::node::Node;

/// Address of the web server.
pub const WEB: &str = "10.77.1.2";
/// IPv6 address of the web server.
pub const WEB6: &str = "fd77:1::2";
/// Address of the database server.
pub const DB: &str = "10.77.2.2";
/// Address of the collector.
pub const COLLECTOR: &str = "10.77.9.2";
/// Address of the gateway on the server's network; its resolver answers here.
pub const RESOLVER: &str = "10.77.1.1";
/// Address of the intruder's server.
pub const C2: &str = "203.0.113.9";
/// IPv6 address of the intruder's server.
pub const C2_6: &str = "2001:db8:203::9";
/// Address of the update mirror.
pub const MIRROR: &str = "198.51.100.10";
/// Address of the backup host.
pub const BACKUP: &str = "198.51.100.20";
/// Address of the customers.
pub const CUSTOMERS: &str = "192.0.2.50";
/// Address of the routed container on the web server.
pub const ROUTED: &str = "10.88.0.2";
/// Address of the macvlan container on the web server's uplink.
pub const MACVLAN: &str = "10.77.1.77";
/// Prefix of addresses that all lead to the intruder's server (RFC 2544).
pub const MANY_C2: &str = "198.18";

/// The laboratory with its network.
#[derive(Debug)]
pub struct Network {
    /// The web server, on which the agent runs; uplink `eth0`.
    pub web: Node,
    /// The database server.
    pub db: Node,
    /// The gateway.
    pub gw: Node,
    /// The intruder's server.
    pub c2: Node,
    /// The update mirror.
    pub mirror: Node,
    /// The backup host.
    pub backup: Node,
    /// The customers.
    pub customers: Node,
    /// The collector's host.
    pub collector: Node,
    /// The laboratory itself; last, so that it goes last.
    pub lab: Lab,
}

fn inside(lab: &Lab, gw: &Node, name: &str, port: &str, net: &str, net6: &str) -> Node {
    let node = lab.node(name);
    lab.cable(gw, port, &node, "eth0");
    gw.ip(&format!("addr add {net}.1/24 dev {port}"));
    gw.ip(&format!("-6 addr add {net6}::1/64 dev {port} nodad"));
    node.ip(&format!("addr add {net}.2/24 dev eth0"));
    node.ip(&format!("-6 addr add {net6}::2/64 dev eth0 nodad"));
    node.ip(&format!("route add default via {net}.1"));
    node.ip(&format!("-6 route add default via {net6}::1"));
    node
}

fn outside(lab: &Lab, gw: &Node, name: &str, address: &str, address6: &str) -> Node {
    let node = lab.node(name);
    let (port, hop) = (
        format!("to-{name}"),
        address.rsplit_once('.').map(|(net, _)| format!("{net}.1")).expect("an IPv4 address"),
    );
    let hop6 = address6
        .rsplit_once("::")
        .map(|(net, _)| format!("{net}::1"))
        .expect("a short IPv6 address");
    lab.cable(gw, &port, &node, "eth0");
    gw.ip(&format!("addr add {hop}/32 dev {port}"));
    gw.ip(&format!("-6 addr add {hop6}/128 dev {port} nodad"));
    gw.ip(&format!("route add {address}/32 dev {port}"));
    gw.ip(&format!("-6 route add {address6}/128 dev {port}"));
    node.ip(&format!("addr add {address}/24 dev eth0"));
    node.ip(&format!("-6 addr add {address6}/64 dev eth0 nodad"));
    node.ip(&format!("route add default via {hop}"));
    node.ip(&format!("-6 route add default via {hop6}"));
    node
}

impl Network {
    /// Builds the network of the story.
    #[must_use]
    pub fn build() -> Self {
        let lab = Lab::open();
        let gw = lab.node("gw");
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            gw.run(&format!("sysctl -qw {setting}"));
        }
        let web = inside(&lab, &gw, "web-1", "to-web", "10.77.1", "fd77:1");
        let db = inside(&lab, &gw, "db-1", "to-db", "10.77.2", "fd77:2");
        let collector = inside(&lab, &gw, "collector", "to-col", "10.77.9", "fd77:9");
        let c2 = outside(&lab, &gw, "c2", C2, C2_6);
        let mirror = outside(&lab, &gw, "mirror", MIRROR, "2001:db8:198::10");
        let backup = outside(&lab, &gw, "backup", BACKUP, "2001:db8:1982::20");
        let customers = outside(&lab, &gw, "customers", CUSTOMERS, "2001:db8:192::50");
        gw.ip(&format!("route add {MANY_C2}.0.0/16 via {C2}"));
        c2.ip(&format!("route add local {MANY_C2}.0.0/16 dev lo"));
        Self { web, db, gw, c2, mirror, backup, customers, collector, lab }
    }

    /// A container in its own namespace, routed by the web server.
    #[must_use]
    pub fn routed_container(&self) -> Node {
        let node = self.lab.node("routed");
        self.lab.cable(&self.web, "ctr0", &node, "eth0");
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            self.web.run(&format!("sysctl -qw {setting}"));
        }
        self.web.ip("addr add 10.88.0.1/24 dev ctr0");
        self.web.ip("-6 addr add fd77:88::1/64 dev ctr0 nodad");
        node.ip(&format!("addr add {ROUTED}/24 dev eth0"));
        node.ip("-6 addr add fd77:88::2/64 dev eth0 nodad");
        node.ip("route add default via 10.88.0.1");
        node.ip("-6 route add default via fd77:88::1");
        self.gw.ip(&format!("route add 10.88.0.0/24 via {WEB}"));
        self.gw.ip(&format!("-6 route add fd77:88::/64 via {WEB6}"));
        node
    }

    /// A container with a macvlan device on the web server's uplink.
    #[must_use]
    pub fn macvlan_container(&self) -> Node {
        let node = self.lab.node("macvlan");
        self.web.ip("link add name mv0 link eth0 type macvlan mode bridge");
        self.web.ip(&format!("link set dev mv0 netns {}", node.netns));
        node.ip("link set dev mv0 name eth0");
        node.ip("link set dev eth0 up");
        node.ip(&format!("addr add {MACVLAN}/24 dev eth0"));
        node.ip("route add default via 10.77.1.1");
        node
    }
}
