//! What passes a cut here and now is named: devices, filters, sockets, namespaces and programs of a real kernel.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that meets the unexpected ends; the laboratory is shared with other tests"
)]

mod lab;

use lab::Lab;
use sekisho_agent::enforce::{Bell, Look};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

fn run(words: &str) {
    let mut all = words.split(' ');
    let output = Command::new(all.next().unwrap()).args(all).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn look(uplinks: &[&str], ours: Vec<u32>) -> BTreeSet<String> {
    let uplinks = uplinks.iter().map(|name| (*name).to_owned()).collect();
    Look { uplinks, bridged: false, ours }.now(Duration::from_secs(5)).into_iter().collect()
}

/// What is new since a look, and what has gone.
fn news(before: &BTreeSet<String>, now: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    // Other laboratories of this machine come and go; what they hold is told by process and namespace.
    let named = |from: &BTreeSet<String>, without: &BTreeSet<String>| {
        let gaps = from.difference(without).filter(|gap| {
            !gap.starts_with("af_xdp_socket") && !gap.starts_with("namespace_uplink")
        });
        gaps.cloned().collect()
    };
    (named(now, before), named(before, now))
}

#[test]
fn each_way_past_a_cut_is_named_while_it_is_there_and_no_longer() {
    Lab::run("ways", |_| {
        let calm = look(&["h0"], vec![]);
        assert!(
            !calm.iter().any(|gap| gap.starts_with("unknown")),
            "all could be looked at: {calm:?}"
        );
        let tried = |set_up: &[&str], tear_down: &[&str], gap: &str| {
            set_up.iter().for_each(|words| run(words));
            let (opened, closed) = news(&calm, &look(&["h0"], vec![]));
            assert_eq!((opened, closed), (vec![gap.to_owned()], vec![]), "{set_up:?}");
            tear_down.iter().for_each(|words| run(words));
            assert_eq!(news(&calm, &look(&["h0"], vec![])), (vec![], vec![]), "{tear_down:?}");
        };
        tried(
            &["ip tuntap add dev tun9 mode tun", "ip link set tun9 up"],
            &["ip link del tun9"],
            "tunnel:tun9",
        );
        tried(
            &[
                "ip link add vx9 type vxlan id 7 remote 203.0.113.2 dstport 4789 dev h0",
                "ip link set vx9 up",
            ],
            &["ip link del vx9"],
            "tunnel:vx9",
        );
        run("ip link add v9 type veth peer name w9");
        run("ip link set v9 up");
        tried(
            &["ip link add link v9 name mv9 type macvlan", "ip link set mv9 up"],
            &["ip link del mv9"],
            "device_without_hook:mv9",
        );
        // On a device with a hook of ours it is none: its frames leave by that one.
        run("ip link add link h0 name mv8 type macvlan");
        run("ip link set mv8 up");
        assert_eq!(news(&calm, &look(&["h0"], vec![])), (vec![], vec![]));
        assert_eq!(
            news(&calm, &look(&[], vec![])).0,
            ["device_without_hook:mv8", "no_uplink_known"]
        );
        run("ip link del mv8");
        for (discipline, remove) in [("clsact", "clsact"), ("ingress", "ingress")] {
            let filter = format!(
                "tc filter add dev v9 {} protocol all u32 match u32 0 0 action mirred egress redirect dev h0",
                if discipline == "clsact" { "ingress" } else { "parent ffff:" }
            );
            tried(
                &[&format!("tc qdisc add dev v9 {discipline}"), &filter],
                &[&format!("tc qdisc del dev v9 {remove}")],
                "tc_redirect:v9",
            );
        }
        tried(
            &[
                "tc qdisc add dev v9 root handle 1: htb",
                "tc filter add dev v9 parent 1: protocol all u32 match u32 0 0 action mirred egress mirror dev h0",
            ],
            &["tc qdisc del dev v9 root"],
            "tc_redirect:v9",
        );
        // A filter that sends nothing elsewhere is no way out.
        run("tc qdisc add dev v9 clsact");
        run("tc filter add dev v9 egress protocol all u32 match u32 0 0 classid 1:1");
        assert_eq!(news(&calm, &look(&["h0"], vec![])), (vec![], vec![]));
    });
}

#[test]
fn a_packet_socket_is_named_with_the_process_that_holds_it_unless_it_is_ours() {
    Lab::run("packet", |_| {
        let calm = look(&["h0"], vec![]);
        let capture = pcap::Capture::from_device("h0").unwrap().open().unwrap();
        let own = std::process::id();
        let (opened, _) = news(&calm, &look(&["h0"], vec![]));
        // A program that this one starts meanwhile inherits the socket for a moment, and is named too.
        assert!(
            opened.iter().any(|gap| gap.starts_with(&format!("packet_socket:{own}/"))),
            "{opened:?}"
        );
        let held = |gaps: BTreeSet<String>| {
            gaps.iter().any(|gap| gap.starts_with(&format!("packet_socket:{own}/")))
        };
        assert!(!held(look(&["h0"], vec![own])), "our own is no news");
        drop(capture);
        assert!(!held(look(&["h0"], vec![])));
    });
}

#[test]
fn an_af_xdp_socket_is_named_though_the_kernel_lists_none() {
    use rustix::net::{AddressFamily, SocketType, socket};
    Lab::run("xsk", |_| {
        let own = format!("af_xdp_socket:{}/", std::process::id());
        let held = |gaps: &BTreeSet<String>| gaps.iter().any(|gap| gap.starts_with(&own));
        assert!(!held(&look(&["h0"], vec![])));
        let xsk = socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
        assert!(held(&look(&["h0"], vec![])), "{:?}", look(&["h0"], vec![]));
        drop(xsk);
        assert!(!held(&look(&["h0"], vec![])));
    });
}

#[test]
fn a_namespace_with_a_way_out_of_its_own_is_named_and_one_behind_our_hooks_is_not() {
    Lab::run("space", |lab| {
        let inside = |gaps: &BTreeSet<String>| {
            gaps.iter()
                .filter(|gap| gap.starts_with("namespace_uplink:") && gap.ends_with("/mv0"))
                .count()
        };
        let others = inside(&look(&["h0"], vec![]));
        let container = lab.macvlan_container();
        assert_eq!(inside(&look(&["h0"], vec![])), others, "its frames pass the hook of h0");
        assert_eq!(inside(&look(&["other0"], vec![])), others + 1);
        drop(container);
        assert_eq!(inside(&look(&["other0"], vec![])), others);
    });
}

#[test]
fn a_change_of_devices_or_filters_rings_at_once() {
    Lab::run("bell", |_| {
        let mut bell = Bell::hang().unwrap();
        bell.quiet();
        // Other laboratories of this machine name namespaces too; between two of them it is quiet.
        let quiet = (0..100).any(|_| !bell.wait(Duration::from_millis(50)));
        assert!(quiet, "it rings without a change");
        let rings = |bell: &mut Bell, words: &str| {
            run(words);
            let began = Instant::now();
            assert!(bell.wait(Duration::from_secs(5)), "{words}");
            assert!(began.elapsed() < Duration::from_millis(500), "{words}: {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(50));
            bell.quiet();
        };
        rings(&mut bell, "ip link add v9 type veth peer name w9");
        rings(&mut bell, "ip link set v9 name x9");
        rings(&mut bell, "tc qdisc add dev x9 clsact");
        rings(
            &mut bell,
            "tc filter add dev x9 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev h0",
        );
        let name = format!("sk-bell-{}", std::process::id());
        rings(&mut bell, &format!("ip netns add {name}"));
        run(&format!("ip netns del {name}"));
    });
}

#[test]
fn the_doctors_matrix_is_as_told_on_this_kernel_and_leaves_nothing_behind() {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_sekisho"))
        .args(["doctor", "-o", "json"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let rows = told["matrix"].as_array().unwrap();
    assert_eq!(rows.len(), 17, "{told}");
    for row in rows {
        assert!(row["untried"].is_null(), "{row}");
        let name = row["sender"].as_str().unwrap();
        let expected = match name {
            "AF_PACKET of ethertype 0x88b5" | "AF_PACKET with an 802.1Q tag" => {
                ["declared", "cut", "cut"]
            }
            "UDP to an inside address" => ["open", "open", "cut"],
            _ => ["cut", "cut", "cut"],
        };
        for (level, cell) in ["3", "5", "6"].into_iter().zip(expected) {
            assert_eq!(row["levels"][level], cell, "{name} at level {level}: {row}");
        }
    }
    for feature in
        ["netdev_egress", "socket_cgroupv2", "table_owner", "bpf_lsm", "tcx", "sock_diag_cgroup"]
    {
        assert!(told["features"][feature]["detail"].is_string(), "{feature}: {told}");
    }
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let ours = String::from_utf8_lossy(&left.stdout)
        .lines()
        .filter(|line| line.starts_with("sekisho-doctor-"))
        .count();
    assert_eq!(ours, 0, "a namespace was left behind");
}

#[test]
fn a_look_at_a_whole_host_is_cheap() {
    Lab::run("cost", |_| {
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let began = Instant::now();
                assert!(!look(&["h0"], vec![]).is_empty());
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("a look: median {:?}, worst {:?}", times[2], times[4]);
        assert!(times[2] < Duration::from_millis(500), "{times:?}");
    });
}
