//! The same ways out tried against any ruleset: each is first shown to get through.

use super::matrix::frame_arguments;
use super::node::{Actor, Node};
use super::peers::{COLUMNS, Fate, TRACKING};
use super::probe::{BURST, Counter, Probe, Through, helper, settle};
use super::topology::{C2, C2_6, Network, WEB};

/// Who waits where, and from where is sent.
#[derive(Debug)]
pub struct Battery<'a> {
    network: &'a Network,
    at_c2: Counter,
    at_loopback: Counter,
    routed: Node,
    macvlan: Node,
    helper: String,
    gateway_mac: String,
    _sinks: [Actor; 3],
}

/// Probes that were shown to get through, ready to be fired at a cut.
#[derive(Debug)]
pub struct Salvo {
    ways: Vec<(Probe, Through)>,
    loopback: Vec<(Probe, Through)>,
}

impl<'a> Battery<'a> {
    /// Prepares the host: containers, listeners, connection tracking awake.
    #[must_use]
    pub fn prepare(network: &'a Network) -> Self {
        let helper = helper(network.lab.dir());
        let (routed, macvlan) = (network.routed_container(), network.macvlan_container());
        load(network, TRACKING);
        Self {
            at_c2: Counter::on(&network.c2, "eth0"),
            at_loopback: Counter::on(&network.web, "lo"),
            routed,
            macvlan,
            helper: helper.to_str().expect("a path in UTF-8").to_owned(),
            gateway_mac: network.gw.mac("to-web"),
            _sinks: [
                network.c2.actor(&["sink", "--port", "9999"]),
                network.c2.actor(&["sink", "--port", "53"]),
                network.web.actor(&["sink", "--port", "9998"]),
            ],
            network,
        }
    }

    /// Opens every way anew and shows that each gets through.
    pub fn aim(&mut self) -> Salvo {
        let web = &self.network.web;
        let frame = frame_arguments(WEB, "eth0", &self.gateway_mac, &web.mac("eth0"));
        let helped = [frame.clone(), vec!["--helper".to_owned(), self.helper.clone()]].concat();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let plain: Vec<String> = words(&["--dst", C2]);
        let wanted: [(&Node, &str, Vec<String>); 11] = [
            (web, "tcp", plain.clone()),
            (&self.routed, "tcp", plain.clone()),
            (web, "tcp-new", plain.clone()),
            (&self.routed, "tcp-new", plain.clone()),
            (&self.macvlan, "udp", plain.clone()),
            (web, "udp", plain.clone()),
            (web, "udp", words(&["--dst", C2, "--port", "53"])),
            (web, "udp", words(&["--dst", C2_6])),
            (web, "hdrincl", words(&["--dst", C2, "--src", WEB])),
            (web, "packet", frame),
            (web, "xsk", helped),
        ];
        let shown =
            |name: &str, node: &Node, kind: &str, words: &[String], counter: &mut Counter| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let mut probe = Probe::new(name, node, kind, &words);
                let through = probe.control(counter);
                (probe, through)
            };
        let at_c2 = &mut self.at_c2;
        let ways = COLUMNS.iter().zip(&wanted);
        let ways = ways.map(|(name, (node, kind, words))| shown(name, node, kind, words, at_c2));
        let ways = ways.collect();
        let at_loopback = &mut self.at_loopback;
        let loopback = ["127.0.0.1", "::1"].map(|address| {
            let to: Vec<String> = words(&["--dst", address, "--port", "9998"]);
            shown("loopback", web, "tcp", &to, at_loopback)
        });
        Salvo { ways, loopback: loopback.into() }
    }

    /// Fires every way at what is loaded now; what became of each, by column.
    pub fn fire(&mut self, salvo: &mut Salvo) -> [Fate; COLUMNS.len()] {
        let (at_c2, at_loopback) = (&mut self.at_c2, &mut self.at_loopback);
        let before: Vec<u64> =
            salvo.ways.iter().map(|(probe, _)| at_c2.seen(probe.tag())).collect();
        let before_loopback: Vec<u64> =
            salvo.loopback.iter().map(|(probe, _)| at_loopback.seen(probe.tag())).collect();
        // All at once: a way that is cut keeps its sender waiting for seconds.
        std::thread::scope(|scope| {
            for (probe, through) in salvo.ways.iter_mut().chain(&mut salvo.loopback) {
                scope.spawn(move || probe.send(through));
            }
        });
        settle();
        let mut fates = [Fate::Cut; COLUMNS.len()];
        for ((fate, (probe, _)), before) in fates.iter_mut().zip(&salvo.ways).zip(before) {
            if probe.arrived_since(at_c2, before) > 0 {
                *fate = Fate::Out;
            }
        }
        let mut arrived = salvo.loopback.iter().zip(before_loopback);
        let works =
            arrived.all(|((probe, _), before)| probe.arrived_since(at_loopback, before) >= BURST);
        fates[COLUMNS.len() - 1] = if works { Fate::Works } else { Fate::Broken };
        fates
    }
}

/// Loads a ruleset on the web server in one transaction.
pub fn load(network: &Network, rules: &str) {
    let file = network.lab.dir().join("peer.nft");
    std::fs::write(&file, rules).expect("a file in the laboratory's directory");
    network.web.run(&format!("nft -f {}", file.display()));
}

/// Takes away what [`load`] put there, connection tracking excepted.
pub fn unload(network: &Network, rules: &str) {
    for family in ["inet", "ip", "ip6", "netdev"] {
        if rules.contains(&format!("table {family} peer")) {
            network.web.run(&format!("nft delete table {family} peer"));
        }
    }
}
