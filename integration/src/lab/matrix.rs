//! The ways out of a host, and the ways that must stay open.

use super::node::{Actor, Node};
use super::probe::{Counter, Probe, Through, bypass_helper, settle};
use super::topology::{BACKUP, C2, C2_6, COLLECTOR, DB, Network, ROUTED, WEB};

/// Every way out of the web server to the intruder, each shown to get through.
#[derive(Debug)]
pub struct Escapes {
    counter: Counter,
    ways: Vec<(Probe, Through)>,
    _sink: Actor,
    _containers: [Node; 2],
}

/// Arguments of a sender that builds frames itself: from which address, over which device, by which gateway.
fn frame_arguments(from: &Node, source: &str, gateway_mac: &str) -> Vec<String> {
    [
        "--dst",
        C2,
        "--src",
        source,
        "--dev",
        "eth0",
        "--dmac",
        gateway_mac,
        "--smac",
        &from.mac("eth0"),
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Escapes {
    /// Builds the containers, opens every way and shows that it gets through.
    #[must_use]
    pub fn open(network: &Network) -> Self {
        let (routed, macvlan) = (network.routed_container(), network.macvlan_container());
        let helper = bypass_helper(network.lab.dir());
        let helper = helper.to_str().expect("a path in UTF-8");
        let sink = network.c2.actor(&["sink", "--port", "9999"]);
        let mut counter = Counter::on(&network.c2, "eth0");
        let gateway = network.gw.mac("to-web");
        let web_frame = frame_arguments(&network.web, WEB, &gateway);
        let macvlan_frame = frame_arguments(&macvlan, super::topology::MACVLAN, &gateway);
        let routed_frame = frame_arguments(&routed, ROUTED, &network.web.mac("ctr0"));
        let plain = vec!["--dst".to_owned(), C2.to_owned()];
        let plain6 = vec!["--dst".to_owned(), C2_6.to_owned()];
        let raw = [plain.clone(), vec!["--src".to_owned(), WEB.to_owned()]].concat();
        let bypass = [web_frame.clone(), vec!["--helper".to_owned(), helper.to_owned()]].concat();
        let ways: Vec<(&str, &Node, &str, &[String])> = vec![
            ("established TCP", &network.web, "tcp", &plain),
            ("established TCP over IPv6", &network.web, "tcp", &plain6),
            ("UDP", &network.web, "udp", &plain),
            ("UDP over IPv6", &network.web, "udp", &plain6),
            ("ICMP echo", &network.web, "icmp", &plain),
            ("raw socket with its own IP header", &network.web, "hdrincl", &raw),
            ("AF_PACKET", &network.web, "packet", &web_frame),
            ("AF_PACKET with PACKET_QDISC_BYPASS", &network.web, "bypass", &bypass),
            ("routed container, UDP", &routed, "udp", &plain),
            ("routed container, established TCP", &routed, "tcp", &plain),
            ("routed container, UDP over IPv6", &routed, "udp", &plain6),
            ("routed container, AF_PACKET", &routed, "packet", &routed_frame),
            ("macvlan container, UDP", &macvlan, "udp", &plain),
            ("macvlan container, AF_PACKET", &macvlan, "packet", &macvlan_frame),
        ];
        let ways = ways
            .into_iter()
            .map(|(name, node, kind, arguments)| {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let mut probe = Probe::new(name, node, kind, &arguments);
                let through = probe.control(&mut counter);
                (probe, through)
            })
            .collect();
        Self { counter, ways, _sink: sink, _containers: [routed, macvlan] }
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

    /// The ways that are still open, with the frames that got through.
    pub fn leaks(&mut self) -> Vec<(String, u64)> {
        let counter = &mut self.counter;
        let before: Vec<u64> =
            self.ways.iter_mut().map(|(probe, through)| probe.fire(counter, through)).collect();
        settle();
        let arrived =
            self.ways.iter().zip(before).map(|((probe, _), before)| {
                (probe.name.clone(), probe.arrived_since(counter, before))
            });
        arrived.filter(|(_, leaked)| *leaked > 0).collect()
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
        for (probe, through) in
            self.ways.iter_mut().filter(|(probe, _)| !probe.name.contains("TCP"))
        {
            probe.assert_open(&mut self.counter, through);
        }
    }
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
