//! The ways out of a host, and the ways that must stay open.

use super::node::{Actor, Node};
use super::probe::{Counter, Probe, Through, helper, settle};
use super::topology::{BACKUP, C2, C2_6, COLLECTOR, DB, Network, ROUTED, WEB};

/// One way out: how it is tried, where it is counted, and the name of the hole when no rule of a host can close it.
#[derive(Debug)]
struct Way {
    probe: Probe,
    through: Through,
    counter: usize,
    hole: Option<&'static str>,
}

/// Every way out of the web server to the intruder, each shown to get through.
#[derive(Debug)]
pub struct Escapes {
    /// At the intruder's server, and on the gateway's device towards the web server.
    counters: [Counter; 2],
    ways: Vec<Way>,
    _sink: Actor,
    _containers: [Node; 2],
    _attached: Vec<Actor>,
    /// Where and with what frames are sent straight back: only while that way is tried, as nothing else comes in.
    reflector: (Node, String),
}

/// The hole through which a frame leaves that came in.
const REFLECTED: &str = "xdp_tx";
const AT_C2: usize = 0;
const AT_GATEWAY: usize = 1;
/// Address behind the VXLAN device of the web server, and of its TUN device.
const BEHIND_VXLAN: &str = "10.99.9.2";
const BEHIND_TUN: &str = "10.99.77.2";

/// Arguments of a sender that builds frames itself: from which address, over which device, by which gateway.
pub(super) fn frame_arguments(
    source: &str,
    device: &str,
    to_mac: &str,
    own_mac: &str,
) -> Vec<String> {
    ["--dst", C2, "--src", source, "--dev", device, "--dmac", to_mac, "--smac", own_mac]
        .map(str::to_owned)
        .to_vec()
}

/// What ways are opened from.
struct Ground {
    routed: Node,
    macvlan: Node,
    helper: String,
    gateway_mac: String,
}

impl Ground {
    fn new(network: &Network) -> Self {
        let (routed, macvlan) = (network.routed_container(), network.macvlan_container());
        let helper = helper(network.lab.dir());
        let helper = helper.to_str().expect("a path in UTF-8").to_owned();
        Self { routed, macvlan, helper, gateway_mac: network.gw.mac("to-web") }
    }
}

type Plain<'a> = (&'static str, &'a Node, &'static str, Vec<String>, usize);

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The ways that a cut of the host has always been tried against.
fn ordinary<'a>(network: &'a Network, ground: &'a Ground) -> Vec<Plain<'a>> {
    let Ground { routed, macvlan, helper, gateway_mac } = ground;
    let web = &network.web;
    let web_frame = frame_arguments(WEB, "eth0", gateway_mac, &web.mac("eth0"));
    let macvlan_frame =
        frame_arguments(super::topology::MACVLAN, "eth0", gateway_mac, &macvlan.mac("eth0"));
    let routed_frame = frame_arguments(ROUTED, "eth0", &web.mac("ctr0"), &routed.mac("eth0"));
    let plain = words(&["--dst", C2]);
    let plain6 = words(&["--dst", C2_6]);
    let raw = words(&["--dst", C2, "--src", WEB]);
    let bypass = [web_frame.clone(), words(&["--helper", helper])].concat();
    vec![
        ("established TCP", web, "tcp", plain.clone(), AT_C2),
        ("established TCP over IPv6", web, "tcp", plain6.clone(), AT_C2),
        ("UDP", web, "udp", plain.clone(), AT_C2),
        ("UDP over IPv6", web, "udp", plain6.clone(), AT_C2),
        ("ICMP echo", web, "icmp", plain.clone(), AT_C2),
        ("raw socket with its own IP header", web, "hdrincl", raw, AT_C2),
        ("AF_PACKET", web, "packet", web_frame, AT_C2),
        ("AF_PACKET with PACKET_QDISC_BYPASS", web, "bypass", bypass, AT_C2),
        ("routed container, UDP", routed, "udp", plain.clone(), AT_C2),
        ("routed container, established TCP", routed, "tcp", plain.clone(), AT_C2),
        ("routed container, UDP over IPv6", routed, "udp", plain6, AT_C2),
        ("routed container, AF_PACKET", routed, "packet", routed_frame, AT_C2),
        ("macvlan container, UDP", macvlan, "udp", plain, AT_C2),
        ("macvlan container, AF_PACKET", macvlan, "packet", macvlan_frame, AT_C2),
    ]
}

/// The other senders of the matrix of containment.md, section 2, that a rule can stop.
fn rare<'a>(network: &'a Network, ground: &'a Ground) -> Vec<Plain<'a>> {
    let web = &network.web;
    let frame = frame_arguments(WEB, "eth0", &ground.gateway_mac, &web.mac("eth0"));
    let helped = [frame.clone(), words(&["--helper", &ground.helper])].concat();
    web.ip(&format!("link add vx0 type vxlan id 7 remote {C2} dstport 4789 dev eth0"));
    web.ip("addr add 10.99.9.1/24 dev vx0");
    web.ip("link set vx0 up");
    web.ip(&format!("neigh add {BEHIND_VXLAN} lladdr 02:00:00:00:09:02 dev vx0 nud permanent"));
    web.ip("tuntap add dev tun0 mode tun");
    web.ip("addr add 10.99.77.1/24 dev tun0");
    web.ip("link set tun0 up");
    network.gw.ip(&format!("route add {BEHIND_TUN}/32 via {WEB}"));
    let behind_tun = [
        frame_arguments(BEHIND_TUN, "tun0", &ground.gateway_mac, &web.mac("eth0")),
        words(&["--helper", &ground.helper]),
    ]
    .concat();
    vec![
        ("new TCP connections", web, "tcp-new", words(&["--dst", C2]), AT_C2),
        ("UDP to port 53 of any address", web, "udp", words(&["--dst", C2, "--port", "53"]), AT_C2),
        ("IP in IP by a raw socket", web, "ipip", words(&["--dst", C2, "--src", WEB]), AT_C2),
        ("VXLAN device of the host", web, "udp", words(&["--dst", BEHIND_VXLAN]), AT_C2),
        ("AF_PACKET SOCK_DGRAM", web, "dgram", helped.clone(), AT_C2),
        ("AF_PACKET transmit ring", web, "ring", helped, AT_C2),
        ("AF_PACKET with an 802.1Q tag", web, "packet-vlan", frame.clone(), AT_GATEWAY),
        ("AF_PACKET of ethertype 0x88b5", web, "packet-ethertype", frame, AT_GATEWAY),
        ("TUN device of a user-space VPN", web, "tun", behind_tun, AT_C2),
    ]
}

impl Escapes {
    /// Builds the containers, opens the ordinary ways and shows that each gets through.
    #[must_use]
    pub fn open(network: &Network) -> Self {
        Self::build(network, false)
    }

    /// The whole matrix: rarer senders, and those that pass every rule of a host.
    #[must_use]
    pub fn every(network: &Network) -> Self {
        Self::build(network, true)
    }

    fn build(network: &Network, all: bool) -> Self {
        let ground = Ground::new(network);
        let sink = network.c2.actor(&["sink", "--port", "9999"]);
        let counters = [Counter::on(&network.c2, "eth0"), Counter::on(&network.gw, "to-web")];
        let mut escapes = Self {
            counters,
            ways: Vec::new(),
            _sink: sink,
            _containers: [ground.routed.clone(), ground.macvlan.clone()],
            _attached: Vec::new(),
            reflector: (network.web.clone(), ground.helper.clone()),
        };
        let mut plain = ordinary(network, &ground);
        if all {
            plain.extend(rare(network, &ground));
        }
        for (name, node, kind, arguments, counter) in plain {
            escapes.add(name, node, kind, &arguments, counter, None);
        }
        if all {
            escapes.add_holes(network, &ground);
        }
        escapes
    }

    fn add(
        &mut self,
        name: &str,
        node: &Node,
        kind: &str,
        arguments: &[String],
        counter: usize,
        hole: Option<&'static str>,
    ) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut probe = Probe::new(name, node, kind, &arguments);
        let through = probe.control(&mut self.counters[counter]);
        self.ways.push(Way { probe, through, counter, hole });
    }

    /// Senders that pass every hook of netfilter. Those that need a program on a device get a device of their own
    /// where they can, because a program that redirects everything would take the other ways along.
    fn add_holes(&mut self, network: &Network, ground: &Ground) {
        let web = &network.web;
        let helper = ground.helper.as_str();
        let gateway = &ground.gateway_mac;
        let xsk =
            [frame_arguments(WEB, "eth0", gateway, &web.mac("eth0")), words(&["--helper", helper])]
                .concat();
        self.add("AF_XDP", web, "xsk", &xsk, AT_C2, Some("af_xdp"));
        for (nth, (name, kind, hole)) in [
            ("XDP_REDIRECT from a container", "xdp-redirect", "xdp_redirect"),
            ("tc redirect from a container", "mirred", "tc_redirect"),
            ("bpf_redirect from a container", "tcx-redirect", "tc_redirect"),
            ("bpf_redirect_neigh from a container", "tcx-redirect-neigh", "tc_redirect"),
        ]
        .into_iter()
        .enumerate()
        {
            let node = network.lab.node(&format!("by{nth}"));
            let (device, address) = (format!("by{nth}"), format!("10.88.{}.2", nth + 1));
            network.lab.cable(web, &device, &node, "eth0");
            web.ip(&format!("addr add 10.88.{}.1/24 dev {device}", nth + 1));
            node.ip(&format!("addr add {address}/24 dev eth0"));
            node.ip(&format!("route add default via 10.88.{}.1", nth + 1));
            network.gw.ip(&format!("route add 10.88.{}.0/24 via {WEB}", nth + 1));
            if kind == "mirred" {
                web.run(&format!("tc qdisc add dev {device} clsact"));
                web.run(&format!("tc filter add dev {device} ingress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0"));
            } else {
                self._attached.push(attach(web, helper, &[kind, &device, "eth0"]));
            }
            if kind == "tcx-redirect-neigh" {
                // It finds the next hop by itself; the sender knows nothing of it.
                node.ip(&format!(
                    "neigh replace 10.88.{}.1 lladdr {} dev eth0 nud permanent",
                    nth + 1,
                    web.mac(&device)
                ));
                self.add(name, &node, "udp", &words(&["--dst", C2]), AT_C2, Some(hole));
            } else {
                let frame = frame_arguments(&address, "eth0", gateway, &node.mac("eth0"));
                self.add(name, &node, "packet", &frame, AT_C2, Some(hole));
            }
        }
        let reflected = frame_arguments(WEB, "to-web", gateway, &web.mac("eth0"));
        let mut probe = Probe::new(
            "XDP_TX of what comes in",
            &network.gw,
            "packet",
            &reflected.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let reflecting = self.reflect();
        let through = probe.control(&mut self.counters[AT_C2]);
        drop(reflecting);
        self.ways.push(Way { probe, through, counter: AT_C2, hole: Some(REFLECTED) });
    }

    /// Sends what comes in on the uplink straight back, for as long as the actor lives.
    fn reflect(&self) -> Actor {
        attach(&self.reflector.0, &self.reflector.1, &["xdp-tx", "eth0"])
    }

    /// How many ways there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ways.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// Frames that arrived of a burst of each way, with the name of its hole.
    pub fn arrived(&mut self) -> Vec<(String, u64, Option<&'static str>)> {
        let mut before = Vec::new();
        for nth in 0..self.ways.len() {
            let reflecting = (self.ways[nth].hole == Some(REFLECTED)).then(|| {
                settle();
                self.reflect()
            });
            let way = &mut self.ways[nth];
            before.push(way.probe.fire(&mut self.counters[way.counter], &way.through));
            if reflecting.is_some() {
                settle();
            }
        }
        settle();
        let counters = &mut self.counters;
        let tried = self.ways.iter().zip(before);
        tried
            .map(|(way, before)| {
                let arrived = way.probe.arrived_since(&mut counters[way.counter], before);
                (way.probe.name.clone(), arrived, way.hole)
            })
            .collect()
    }

    /// The ways that are still open, with the frames that got through.
    pub fn leaks(&mut self) -> Vec<(String, u64)> {
        let arrived = self.arrived().into_iter();
        arrived
            .filter(|(_, leaked, _)| *leaked > 0)
            .map(|(name, leaked, _)| (name, leaked))
            .collect()
    }

    /// Asserts that every way is cut.
    pub fn assert_cut(&mut self) {
        let leaks = self.leaks();
        assert!(
            leaks.is_empty(),
            "{} of {} ways out are open in spite of the cut: {leaks:?}",
            leaks.len(),
            self.ways.len()
        );
    }

    /// Asserts that every way without a connection of its own is open (a cut may have ended connections for good).
    pub fn assert_open(&mut self) {
        let ways = self
            .ways
            .iter_mut()
            .filter(|way| !way.probe.name.contains("TCP") && way.hole != Some(REFLECTED));
        for way in ways {
            way.probe.assert_open(&mut self.counters[way.counter], &way.through);
        }
    }
}

/// Attaches a program that sends frames past netfilter, for as long as the actor lives.
fn attach(node: &Node, helper: &str, arguments: &[&str]) -> Actor {
    let mut command = node.command(helper);
    command.arg("attach");
    Actor::start(command, "ways", arguments)
}

/// Ways that no cut of the host's external egress may touch, each shown to work.
#[derive(Debug)]
pub struct Lifelines {
    ways: Vec<(Probe, Through, Counter)>,
    _sinks: Vec<Actor>,
}

impl Lifelines {
    /// Loopback, the database inside, the collector, and the exempt backup host on TCP port 8200.
    #[must_use]
    pub fn open(network: &Network) -> Self {
        let peers: [(&str, &Node, &str, &str, &str); 5] = [
            ("loopback", &network.web, "lo", "127.0.0.1", "9999"),
            ("loopback over IPv6", &network.web, "lo", "::1", "9999"),
            ("database inside", &network.db, "eth0", DB, "9999"),
            ("collector", &network.collector, "eth0", COLLECTOR, "9999"),
            ("exempt backup host", &network.backup, "eth0", BACKUP, "8200"),
        ];
        let mut sinks = Vec::new();
        let mut ways = Vec::new();
        for (name, node, device, address, port) in peers {
            if address != "::1" {
                sinks.push(node.actor(&["sink", "--port", port]));
            }
            let mut counter = Counter::on(node, device);
            let mut probe =
                Probe::new(name, &network.web, "tcp", &["--dst", address, "--port", port]);
            let through = probe.control(&mut counter);
            ways.push((probe, through, counter));
        }
        Self { ways, _sinks: sinks }
    }

    /// Asserts that all of them still work.
    pub fn assert_open(&mut self) {
        for (probe, through, counter) in &mut self.ways {
            probe.assert_open(counter, through);
        }
    }
}
