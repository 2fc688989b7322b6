//! What scopes are on a real host: cgroups, containers, inside hosts behind a bridge, and their changes.
//!
//! Needs root, iproute2, perl and a writable cgroup v2. Everything has a name of this run and goes with the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that meets the unexpected ends"
)]

#[path = "targets/lab.rs"]
mod lab;

use lab::{Cgroup, Space, mac_text, waits_until};
use sekisho_agent::bpf::Openers;
use sekisho_agent::host::owner::Owners;
use sekisho_agent::host::recent::{self, Recent};
use sekisho_agent::target::{
    self, Changed, FindContainerError, FindHostError, FreezeError, Namespace, ResolveError,
    Resolver, Target,
};
use sekisho_schema::{Certainty, FlowKey, OwnerSource, Process, Scope, Transport};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

fn resolver() -> Resolver {
    Resolver::open().unwrap()
}

fn resolve(scope: &str) -> Result<Target, ResolveError> {
    resolver().resolve(&scope.parse().unwrap())
}

fn texts<T: ToString>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|one| one.to_string()).collect()
}

fn tells(target: &Target, words: &str) -> bool {
    target.open.iter().any(|line| line.contains(words))
}

/// What changed once something had; nothing may be heard before.
fn next_change(resolver: &mut Resolver) -> Changed {
    let mut all = Changed::default();
    assert!(
        waits_until(|| {
            let changed = resolver.changed();
            all.scopes.extend(changed.scopes);
            all.notes.extend(changed.notes);
            all.is_lost |= changed.is_lost;
            !all.scopes.is_empty()
        }),
        "no change was heard"
    );
    all
}

#[test]
fn a_cgroup_is_told_by_its_id_its_depth_and_its_own_listeners() {
    let home = Cgroup::new();
    let (web, other) = (home.below("a/web.service"), home.below("a/other.service"));
    let worker = home.below("a/web.service/worker");
    let listen = "$l = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die; print $l->sockport, \"\\n\"";
    let start = |path: &str| {
        let mut process = home.start(
            path,
            &["perl", "-MIO::Socket::INET", "-e", &format!("$|=1; {listen}; sleep 600")],
        );
        let port: u16 = process.line().parse().unwrap();
        (process, port)
    };
    let (_web, of_web) = start(&web);
    let (_worker, of_worker) = start(&worker);
    let (_other, of_other) = start(&other);
    let target = resolve(&format!("cgroup:{web}/")).unwrap();
    let cgroup = target.cgroups.iter().next().unwrap();
    assert_eq!((target.cgroups.len(), cgroup.level, cgroup.id), (1, 3, home.id(&web)));
    assert_eq!(cgroup.path, web);
    let ports = BTreeSet::from([of_web, of_worker].map(|port| (Transport::Tcp, port)));
    assert_eq!(target.listeners, ports, "not {of_other}, which another workload has");
    assert!(
        target.namespaces.is_empty() && target.ports.is_empty() && target.open.is_empty(),
        "{target:?}"
    );
    // The id is the one that the kernel gives sockets of the workload.
    assert_ne!(cgroup.id, home.id(&other));
    let words = target::describe(&target).join("; ");
    assert!(words.contains(&format!("{web} (id {}, level 3)", cgroup.id)), "{words}");
}

#[test]
fn a_cgroup_that_is_not_there_is_an_error_that_says_what_is() {
    let home = Cgroup::new();
    home.below("a/web.service");
    let error = resolve(&format!("cgroup:{}/a/wep.service/x", home.path)).unwrap_err();
    match &error {
        ResolveError::NoCgroup { nearest, children, .. } => {
            assert_eq!(
                (nearest, children),
                (&format!("{}/a", home.path), &vec!["web.service".to_owned()])
            );
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("web.service"), "{error}");
    for path in ["cgroup://", "cgroup:/a/../..", "cgroup:/."] {
        assert!(matches!(resolve(path), Err(ResolveError::Root { .. })), "{path}");
    }
    let deep = home.below("2/3/4/5/6/7/8");
    assert_eq!(resolve(&format!("cgroup:{deep}")).unwrap().cgroups.first().unwrap().level, 8);
    let deep = home.below("2/3/4/5/6/7/8/9");
    assert!(matches!(resolve(&format!("cgroup:{deep}")), Err(ResolveError::Deep { level: 9, .. })));
    for scope in ["host", "management-only", "dest:192.0.2.1"] {
        assert!(matches!(resolve(scope), Err(ResolveError::Needless { .. })), "{scope}");
    }
}

#[test]
fn sockets_made_elsewhere_are_told_and_listed() {
    let home = Cgroup::new();
    let (path, plain) = (home.below("activated"), home.below("plain"));
    let (_plain, quiet) = (home.start(&plain, &["sleep", "600"]), format!("cgroup:{plain}"));
    let target = resolve(&quiet).unwrap();
    assert!(target.open.is_empty() && target.listeners.is_empty(), "{target:?}");
    // What a service manager does: the socket is made by us and used by the workload.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let _server = listener.accept().unwrap();
    let _one = home.start_with(&path, &["sleep", "600"], OwnedFd::from(listener));
    let _two = home.start_with(&path, &["sleep", "600"], OwnedFd::from(client));
    let _three = home.start_with(
        &path,
        &["sleep", "600"],
        OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()),
    );
    let target = resolve(&format!("cgroup:{path}")).unwrap();
    assert!(target.listeners.contains(&(Transport::Tcp, port)));
    for words in ["1 of its connections", "1 of its listeners", "1 of its UDP sockets"] {
        assert!(tells(&target, words), "{words}: {:?}", target.open);
    }
    let strays = resolver().strays(&target).unwrap();
    assert_eq!(strays.len(), 3, "{strays:?}");
    assert!(strays.iter().any(|stray| (stray.local, stray.remote) == ends));
    assert_eq!(strays.iter().filter(|stray| stray.listens).count(), 1);
    assert!(resolver().strays(&resolve(&quiet).unwrap()).unwrap().is_empty());
}

#[test]
fn a_port_on_which_others_listen_too_is_not_held() {
    let home = Cgroup::new();
    let (one, two) = (home.below("one"), home.below("two"));
    let bind = |address: &str, port: u16| {
        format!(
            "$l = IO::Socket::INET->new(Listen => 1, LocalAddr => '{address}', LocalPort => {port}) or die"
        )
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _mine = home.perl(&one, &bind("127.0.0.1", port));
    assert!(resolve(&format!("cgroup:{one}")).unwrap().listeners.contains(&(Transport::Tcp, port)));
    let _theirs = home.perl(&two, &bind("127.0.0.2", port));
    let target = resolve(&format!("cgroup:{one}")).unwrap();
    assert!(
        target.listeners.is_empty() && tells(&target, &format!("tcp port {port}")),
        "{target:?}"
    );
}

#[test]
fn a_packet_socket_of_a_workload_is_told() {
    let home = Cgroup::new();
    let path = home.below("raw");
    let _one = home.start(&path, &["sleep", "600"]);
    assert!(!tells(&resolve(&format!("cgroup:{path}")).unwrap(), "AF_PACKET"));
    // PF_PACKET is 17, SOCK_RAW 3, ETH_P_ALL in network byte order 0x0300.
    let _two = home.perl(&path, "socket($s, 17, 3, 0x0300) or die");
    assert!(tells(
        &resolve(&format!("cgroup:{path}")).unwrap(),
        "1 of its sockets send whole frames"
    ));
}

/// A host with two containers in namespaces of their own, whose devices have the same numbers.
fn with_containers(body: impl FnOnce(&Cgroup, &Space, [&Space; 2]) + Send) {
    let home = Cgroup::new();
    let host = Space::new();
    let spaces = [Space::new(), Space::new()];
    for (n, space) in spaces.iter().enumerate() {
        space.wire("eth0", &host, &format!("host{n}"));
        space.ip(&format!("addr add 10.8.{n}.2/24 dev eth0"));
        space.ip(&format!("addr add fd08:{n}::2/64 dev eth0 nodad"));
    }
    host.ip("addr add 10.8.0.1/24 dev host0");
    host.within(|| body(&home, &host, [&spaces[0], &spaces[1]]));
}

#[test]
fn a_container_is_its_cgroup_its_wire_and_its_addresses() {
    with_containers(|home, host, [space, twin]| {
        let path = home.below(&format!("docker-{ID}.scope"));
        let other = home.below(&format!("docker-{}.scope", "9".repeat(64)));
        let process = home.start(&path, &["ip", "netns", "exec", &space.0, "sleep", "600"]);
        let _twin = home.start(&other, &["ip", "netns", "exec", &twin.0, "sleep", "600"]);
        assert!(waits_until(|| target::of_process(process.pid()).unwrap() == space.inode()));
        for name in [ID, &ID[..12]] {
            let target = resolve(&format!("container:{name}")).unwrap();
            assert_eq!(texts(target.cgroups.iter().map(|cgroup| &cgroup.path)), [path.as_str()]);
            assert_eq!(texts(&target.ports), ["host0"]);
            assert_eq!(target.macs, BTreeSet::from([space.mac("eth0")]));
            let global: Vec<String> = texts(
                target.addresses.iter().filter(|address| !address.to_string().starts_with("fe80")),
            );
            assert_eq!(global, ["10.8.0.2", "fd08::2"]);
            assert_eq!(target.addresses.len(), 3, "with its link-local one: {target:?}");
            assert_eq!(
                target.namespaces,
                BTreeSet::from([Namespace { inode: space.inode(), pid: process.pid() }])
            );
            assert!(target.open.is_empty(), "{:?}", target.open);
        }
        let target = resolve(&format!("container:{}", "9".repeat(64))).unwrap();
        assert_eq!(texts(&target.ports), ["host1"]);
        assert!(!target.macs.contains(&host.mac("host0")));
        for (name, word) in
            [(&ID[..11], "too short"), ("nobody", "no container"), ("ffffffffffff", "no container")]
        {
            let error = resolve(&format!("container:{name}")).unwrap_err();
            assert!(
                matches!(error, ResolveError::Container(_)) && error.to_string().contains(word),
                "{error}"
            );
        }
        let _third = home.below(&format!("libpod-{}{}.scope", &ID[..12], "0".repeat(52)));
        assert!(matches!(
            resolve(&format!("container:{}", &ID[..12])),
            Err(ResolveError::Container(FindContainerError::Ambiguous { .. }))
        ));
    });
}

#[test]
fn a_container_in_the_hosts_namespace_is_its_cgroup_alone() {
    let id = "5".repeat(64);
    let home = Cgroup::new();
    let path = home.below(&format!("cri-containerd-{id}.scope"));
    let _process = home.start(&path, &["sleep", "600"]);
    let target = resolve(&format!("container:{id}")).unwrap();
    assert_eq!(target.cgroups.len(), 1);
    assert!(
        target.ports.is_empty() && target.macs.is_empty() && target.addresses.is_empty(),
        "{target:?}"
    );
}

#[test]
fn a_namespace_shared_with_others_is_cut_for_a_container_and_told_for_a_cgroup() {
    with_containers(|home, _, [space, _]| {
        let id = "7".repeat(64);
        let path = home.below(&format!("crio-{id}.scope"));
        let other = home.below("pause");
        let inside = ["ip", "netns", "exec", &space.0, "sleep", "600"];
        let process = home.start(&path, &inside);
        assert!(waits_until(|| target::of_process(process.pid()).unwrap() == space.inode()));
        let alone = resolve(&format!("cgroup:{path}")).unwrap();
        assert_eq!(texts(&alone.ports), ["host0"]);
        let sharer = home.start(&other, &inside);
        assert!(waits_until(|| target::of_process(sharer.pid()).unwrap() == space.inode()));
        let shared = resolve(&format!("cgroup:{path}")).unwrap();
        assert!(shared.ports.is_empty() && shared.addresses.is_empty(), "{shared:?}");
        assert!(tells(&shared, &format!("share it with 1 of others (process {})", sharer.pid())));
        assert_eq!(shared.namespaces, alone.namespaces);
        let container = resolve(&format!("container:{id}")).unwrap();
        assert_eq!(texts(&container.ports), ["host0"]);
        assert!(tells(&container, "which are cut with it"), "{:?}", container.open);
    });
}

#[test]
fn work_inside_a_namespace_leaves_the_caller_where_it_is() {
    let space = Space::new();
    let named = Namespace { inode: space.inode(), pid: 0 };
    let before = target::here().unwrap();
    assert_ne!(before, space.inode());
    assert_eq!(target::within(&named, || target::here().unwrap()).unwrap(), space.inode());
    assert_eq!(target::here().unwrap(), before);
    // A process that is elsewhere by now does not lead astray.
    let lying = Namespace { inode: space.inode(), pid: std::process::id() };
    assert_eq!(target::within(&lying, || target::here().unwrap()).unwrap(), space.inode());
    let others = target::others(std::time::Instant::now() + Duration::from_secs(2));
    assert!(others.iter().any(|other| other.inode == space.inode()));
    assert!(others.iter().all(|other| other.inode != before));
    let inode = space.inode();
    drop(space);
    let mut ran = false;
    let gone = target::within(&Namespace { inode, pid: 0 }, || ran = true);
    assert!(matches!(gone, Err(target::EnterError::Gone { .. })) && !ran);
}

/// A gateway whose inside is a bridge with hosts on ports of their own.
struct Site {
    gateway: Space,
    hosts: Vec<Space>,
}

impl Site {
    fn new(hosts: usize) -> Self {
        let gateway = Space::new();
        gateway.ip("link add lan type bridge");
        gateway.ip("link set lan up");
        gateway.ip("addr add 10.9.0.1/24 dev lan");
        gateway.ip("addr add fd09::1/64 dev lan nodad");
        let hosts: Vec<Space> = (0..hosts).map(|_| Space::new()).collect();
        for (n, host) in hosts.iter().enumerate() {
            host.wire("eth0", &gateway, &format!("lan{n}"));
            gateway.ip(&format!("link set lan{n} master lan"));
            host.ip(&format!("addr add 10.9.0.{}/24 dev eth0", n + 2));
            host.ip(&format!("addr add fd09::{}/64 dev eth0 nodad", n + 2));
        }
        let site = Self { gateway, hosts };
        for n in 0..site.hosts.len() {
            assert!(waits_until(|| site.speaks(n, "10.9.0.1:9") && site.speaks(n, "[fd09::1]:9")));
        }
        site
    }

    /// Has a host send to the gateway until it has an answer to give: neighbours learn each other.
    fn speaks(&self, n: usize, to: &str) -> bool {
        self.speaks_from(n, if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }, to)
    }

    fn speaks_from(&self, n: usize, from: &str, to: &str) -> bool {
        self.hosts[n].within(|| {
            let Ok(socket) = UdpSocket::bind(from) else { return false };
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket.connect(to).unwrap();
            // The gateway answers that nobody is there.
            socket.send(b"x").is_ok()
                && matches!(socket.recv(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
        })
    }
}

#[test]
fn an_inside_host_is_its_mac_all_its_addresses_and_its_port() {
    let site = Site::new(2);
    site.hosts[0].ip("addr add fd09::abcd/64 dev eth0 nodad");
    assert!(waits_until(|| site.speaks_from(0, "[fd09::abcd]:0", "[fd09::1]:9")));
    let mac = site.hosts[0].mac("eth0");
    site.gateway.within(|| {
        for name in ["10.9.0.2", "fd09::2", &mac_text(mac)] {
            let target = resolve(&format!("internal:{name}")).unwrap();
            assert_eq!(target.macs, BTreeSet::from([mac]), "{name}");
            assert_eq!(texts(&target.ports), ["lan0"]);
            for address in ["10.9.0.2", "fd09::2", "fd09::abcd"] {
                assert!(
                    target.addresses.contains(&address.parse::<IpAddr>().unwrap()),
                    "{name}: {target:?}"
                );
            }
            for address in ["10.9.0.3", "fd09::3", "10.9.0.1"] {
                assert!(
                    !target.addresses.contains(&address.parse::<IpAddr>().unwrap()),
                    "{name}: {target:?}"
                );
            }
            assert!(target.open.is_empty(), "{:?}", target.open);
        }
        let error = resolve("internal:02:00:00:00:00:99").unwrap_err();
        assert!(error.to_string().contains(&mac_text(mac)), "{error}");
        for name in [
            "10.9.0.1",
            "127.0.0.1",
            "224.0.0.1",
            "203.0.113.1",
            "ff02::1",
            &mac_text(site.gateway.mac("lan")),
        ] {
            let refused = resolve(&format!("internal:{name}"));
            assert!(
                matches!(refused, Err(ResolveError::Host(FindHostError::NotInside { .. }))),
                "{name}: {refused:?}"
            );
        }
        assert!(matches!(
            resolve("internal:printer"),
            Err(ResolveError::Host(FindHostError::Unreadable(_)))
        ));
        // One that was never heard is held by what is known of it.
        let target = resolve("internal:10.9.0.77").unwrap();
        assert_eq!(
            (texts(&target.addresses), target.macs.len()),
            (vec!["10.9.0.77".to_owned()], 0)
        );
        assert!(tells(&target, "in no neighbour table"));
    });
}

#[test]
fn a_router_is_not_cut_by_the_mac_of_all_behind_it() {
    let site = Site::new(2);
    site.gateway.ip("route add 10.77.0.0/16 via 10.9.0.3");
    let mac = site.hosts[1].mac("eth0");
    site.gateway.within(|| {
        for name in ["10.9.0.3", &mac_text(mac)] {
            let refused = resolve(&format!("internal:{name}"));
            assert!(
                matches!(refused, Err(ResolveError::Host(FindHostError::Router { .. }))),
                "{name}: {refused:?}"
            );
        }
        assert_eq!(resolve("internal:10.9.0.2").unwrap().macs.len(), 1);
        let far = resolve("internal:10.77.1.1").unwrap();
        assert_eq!(
            (texts(&far.addresses), far.macs.len(), far.ports.len()),
            (vec!["10.77.1.1".to_owned()], 0, 0)
        );
        assert!(tells(&far, "behind the router 10.9.0.3"), "{:?}", far.open);
    });
}

#[test]
fn a_port_with_others_behind_it_is_told_and_not_held() {
    let site = Site::new(1);
    let second = Space::new();
    // Another host behind the same port, as behind a switch.
    site.hosts[0].ip("link add sw type bridge");
    second.wire("eth0", &site.hosts[0], "down0");
    for words in [
        "link set down0 master sw",
        "addr flush dev eth0",
        "link set eth0 master sw",
        "link set sw up",
    ] {
        site.hosts[0].ip(words);
    }
    second.ip("addr add 10.9.0.9/24 dev eth0");
    let site = Site { hosts: vec![second], ..site };
    site.gateway.within(|| assert_eq!(resolve("internal:10.9.0.9").unwrap().macs.len(), 0));
    assert!(waits_until(|| site.speaks(0, "10.9.0.1:9")));
    site.gateway.within(|| {
        let target = resolve("internal:10.9.0.9").unwrap();
        assert_eq!(target.macs, BTreeSet::from([site.hosts[0].mac("eth0")]));
        assert!(target.ports.is_empty() && tells(&target, "behind port lan0 are"), "{target:?}");
    });
}

#[test]
fn a_restarted_service_is_heard_and_has_another_id() {
    let home = Cgroup::new();
    let (path, other) = (home.below("a/web.service"), home.below("a/other.service"));
    let scope: Scope = format!("cgroup:{path}").parse().unwrap();
    let mut resolver = resolver();
    let before = resolver.watch(&scope).unwrap();
    fs::remove_dir(home.tree.directory(&other)).unwrap();
    fs::create_dir(home.tree.directory(&other)).unwrap();
    assert!(resolver.changed().scopes.is_empty(), "another service's restart is nobody's change");
    fs::remove_dir(home.tree.directory(&path)).unwrap();
    assert_eq!(next_change(&mut resolver).scopes, BTreeSet::from([scope.clone()]));
    assert!(matches!(resolver.resolve(&scope), Err(ResolveError::NoCgroup { .. })));
    fs::create_dir(home.tree.directory(&path)).unwrap();
    assert_eq!(next_change(&mut resolver).scopes, BTreeSet::from([scope.clone()]));
    let after = resolver.resolve(&scope).unwrap();
    assert_ne!(before.cgroups, after.cgroups);
    assert_eq!(after.cgroups.first().unwrap().id, home.id(&path));
    // The whole slice may go and come back.
    for path in [&path, &other, &format!("{}/a", home.path)] {
        fs::remove_dir(home.tree.directory(path)).unwrap();
    }
    assert!(next_change(&mut resolver).scopes.contains(&scope));
    home.below("a/web.service");
    assert!(waits_until(|| {
        resolver.changed();
        resolver.resolve(&scope).is_ok()
    }));
    fs::remove_dir(home.tree.directory(&path)).unwrap();
    assert!(next_change(&mut resolver).scopes.contains(&scope), "the new slice is watched too");
    resolver.unwatch(&scope);
    home.below("a/web.service");
    assert!(resolver.changed().scopes.is_empty());
}

#[test]
fn a_scope_that_is_not_there_yet_is_heard_when_it_comes() {
    let home = Cgroup::new();
    let scope: Scope = format!("cgroup:{}/a/b", home.path).parse().unwrap();
    let mut resolver = resolver();
    assert!(resolver.watch(&scope).is_err());
    home.below("a");
    assert!(next_change(&mut resolver).scopes.contains(&scope));
    home.below("a/b");
    assert!(next_change(&mut resolver).scopes.contains(&scope));
    assert!(resolver.resolve(&scope).is_ok());
}

#[test]
fn a_container_that_gets_a_wire_is_heard() {
    with_containers(|home, host, [_, _]| {
        let id = "3".repeat(64);
        let path = home.below(&format!("docker-{id}.scope"));
        let lonely = Space::new();
        let process = home.start(&path, &["ip", "netns", "exec", &lonely.0, "sleep", "600"]);
        assert!(waits_until(|| target::of_process(process.pid()).unwrap() == lonely.inode()));
        let scope: Scope = format!("container:{id}").parse().unwrap();
        let mut resolver = resolver();
        assert!(resolver.watch(&scope).unwrap().ports.is_empty());
        assert!(resolver.changed().scopes.is_empty());
        lonely.wire("eth0", host, "late0");
        assert!(next_change(&mut resolver).scopes.contains(&scope));
        assert!(waits_until(|| {
            resolver.changed();
            texts(&resolver.resolve(&scope).unwrap().ports) == ["late0"]
        }));
    });
}

#[test]
fn new_addresses_and_macs_of_an_inside_host_are_noted() {
    let site = Site::new(2);
    site.gateway.within(|| {
        let scope: Scope = "internal:10.9.0.2".parse().unwrap();
        let mut resolver = resolver();
        let before = resolver.watch(&scope).unwrap();
        assert_eq!(texts(&before.ports), ["lan0"]);
        resolver.changed();
        assert!(site.speaks(1, "10.9.0.1:9"));
        site.hosts[1].ip("addr add fd09::bbbb/64 dev eth0 nodad");
        assert!(waits_until(|| site.speaks_from(1, "[fd09::bbbb]:0", "[fd09::1]:9")));
        assert_eq!(
            resolver.changed(),
            Changed::default(),
            "another host's address is nobody's change"
        );
        site.hosts[0].ip("addr add fd09::aaaa/64 dev eth0 nodad");
        assert!(waits_until(|| site.speaks_from(0, "[fd09::aaaa]:0", "[fd09::1]:9")));
        let changed = next_change(&mut resolver);
        assert!(
            changed.notes.iter().any(|note| note.text.contains("new address fd09::aaaa")),
            "{changed:?}"
        );
        let address: IpAddr = "fd09::aaaa".parse().unwrap();
        assert!(!before.addresses.contains(&address));
        assert!(resolver.resolve(&scope).unwrap().addresses.contains(&address));
        // The host changes its hardware address: said, and it stays held by its port.
        site.hosts[0].ip("link set eth0 address 02:aa:bb:cc:dd:01");
        assert!(waits_until(|| site.speaks(0, "10.9.0.1:9")));
        let mut notes = String::new();
        assert!(
            waits_until(|| {
                notes.extend(resolver.changed().notes.into_iter().map(|note| note.text + "\n"));
                notes.contains("new MAC 02:aa:bb:cc:dd:01 on port lan0")
            }),
            "{notes}"
        );
        let after = resolver.resolve(&scope).unwrap();
        assert!(after.ports.contains("lan0") && after.macs.is_superset(&before.macs), "{after:?}");
        assert!(waits_until(|| resolver
            .resolve(&scope)
            .unwrap()
            .macs
            .contains(&[2, 0xaa, 0xbb, 0xcc, 0xdd, 1])));
        // Without the watch nobody remembers, and the port now seems to be of two.
        assert!(after.addresses.contains(&address));
    });
}

#[test]
fn a_device_is_heard_to_go_and_to_come() {
    let site = Site::new(1);
    site.gateway.within(|| {
        let scope: Scope = "link:lan0".parse().unwrap();
        let mut resolver = resolver();
        assert_eq!(texts(&resolver.watch(&scope).unwrap().ports), ["lan0"]);
        resolver.changed();
        site.gateway.ip("link set lan0 down");
        site.gateway.ip("link set lan0 name wan7");
        let changed = next_change(&mut resolver);
        assert!(changed.notes.iter().any(|note| note.text.contains("is called wan7 now")), "{changed:?}");
        let error = resolver.resolve(&scope).unwrap_err();
        assert!(matches!(&error, ResolveError::NoDevice { known, .. } if known.contains(&"wan7".to_owned())), "{error}");
        site.gateway.ip("link set wan7 name lan0");
        assert!(next_change(&mut resolver).scopes.contains(&scope));
        assert!(resolver.resolve(&scope).is_ok());
        assert!(matches!(Resolver::open().unwrap().resolve(&Scope::Link("lo".to_owned())), Err(ResolveError::Loopback { .. })));
    });
}

#[test]
fn a_flood_of_changes_has_everything_looked_at_anew() {
    let home = Cgroup::new();
    let path = home.below("web");
    let scope: Scope = format!("cgroup:{path}").parse().unwrap();
    let mut resolver = resolver();
    resolver.watch(&scope).unwrap();
    for n in 0..5_000 {
        let other = home.tree.directory(&format!("{}/n{n}", home.path));
        fs::create_dir(&other).unwrap();
        fs::remove_dir(&other).unwrap();
    }
    let changed = resolver.changed();
    assert!(changed.is_lost && changed.scopes.contains(&scope), "{changed:?}");
}

#[test]
fn a_frozen_workload_stands_still_and_goes_on() {
    let home = Cgroup::new();
    let path = home.below("busy");
    let process = home.perl(&path, "if (fork == 0) { while (1) { $n++ } }");
    let used = || -> u64 {
        let text = fs::read_to_string(home.tree.directory(&path).join("cpu.stat")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
    };
    let start = used();
    assert!(waits_until(|| used() > start));
    let frozen = target::freeze(&home.tree, &path, true, &[]).unwrap();
    assert_eq!(frozen.processes, 2);
    assert!(frozen.took < Duration::from_secs(1));
    let still = used();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(used(), still);
    target::freeze(&home.tree, &path, false, &[]).unwrap();
    assert!(waits_until(|| used() > still));
    // Neither its own guardian nor all of the host may stand still.
    let refused = target::freeze(&home.tree, &home.path, true, &[process.pid()]);
    assert!(
        matches!(refused, Err(FreezeError::Spared { pid, .. }) if pid == process.pid()),
        "{refused:?}"
    );
    let own = target::path_in(&fs::read_to_string("/proc/self/cgroup").unwrap()).unwrap();
    for path in ["/", "", own.as_str()] {
        let refused = target::freeze(&home.tree, path, true, &[]);
        assert!(
            matches!(refused, Err(FreezeError::Root { .. } | FreezeError::Spared { .. })),
            "{path}: {refused:?}"
        );
    }
    assert!(matches!(
        target::freeze(&home.tree, "/no/such", true, &[]),
        Err(FreezeError::Write { .. })
    ));
    let moved = used();
    assert!(waits_until(|| used() > moved), "a refused freeze changes nothing");
}

fn owner(flow: &FlowKey, recent: Option<&Recent>) -> Option<Process> {
    Owners::open(recent.cloned()).unwrap().owner(flow).unwrap()
}

fn tcp(local: &str, remote: &str) -> FlowKey {
    FlowKey {
        transport: Transport::Tcp,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    }
}

fn udp(local: &str, remote: &str) -> FlowKey {
    FlowKey { transport: Transport::Udp, ..tcp(local, remote) }
}

/// Connects, sends and ends; tells its number and its port beforehand, and what it called itself.
fn lives_a_moment(home: &Cgroup, path: &str, to: &SocketAddr) -> (u32, u16) {
    let program = format!(
        "$|=1; $0 = 'moment'; $s = IO::Socket::INET->new(PeerAddr => '{to}') or die; setsockopt($s, SOL_SOCKET, SO_LINGER, pack('II', 1, 0)) or die; syswrite($s, 'x'); print $s->sockport, \"\\n\""
    );
    let mut process = home.start(path, &["perl", "-MSocket", "-MIO::Socket::INET", "-e", &program]);
    let (pid, port) = (process.pid(), process.line().parse().unwrap());
    drop(process);
    assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "it has ended");
    (pid, port)
}

#[test]
fn a_process_that_ended_with_its_socket_is_missed_by_procfs_and_named_by_the_kernels_memory() {
    let home = Cgroup::new();
    let path = home.below("moment.service");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let flow = |port: u16| tcp(&format!("127.0.0.1:{port}"), &to.to_string());
    // First without: nothing is left of it, the socket was reset.
    let (_, port) = lives_a_moment(&home, &path, &to);
    let missed = owner(&flow(port), None);
    assert!(
        missed.as_ref().is_none_or(|process| process.pid == 0 || !process.may_be_scope()),
        "{missed:?}"
    );
    let openers = Openers::open().unwrap();
    let mut owners = Owners::open(None)
        .unwrap()
        .with_openers(Box::new(move |flow| openers.opener(flow).unwrap()));
    let (pid, port) = lives_a_moment(&home, &path, &to);
    let named = owners.owner(&flow(port)).unwrap().unwrap();
    assert_eq!(named.pid, i32::try_from(pid).unwrap());
    assert_eq!((named.source, named.certainty), (OwnerSource::Ebpf, Certainty::Sure));
    assert_eq!(named.name.as_deref(), Some("moment"));
    assert_eq!(
        (named.cgroup.as_deref(), named.unit.as_deref()),
        (Some(path.as_str()), Some("moment.service"))
    );
    // Ends that nobody opened are nobody's, also with a memory.
    let other = owners.opener(&FlowKey { remote: "192.0.2.1:1".parse().unwrap(), ..flow(port) });
    assert_eq!(other, None);
    // Who holds the socket now comes before who opened it.
    let client = TcpStream::connect(to).unwrap();
    let held = owners.owner(&flow(client.local_addr().unwrap().port())).unwrap().unwrap();
    assert_eq!(
        (held.pid, held.source),
        (i32::try_from(std::process::id()).unwrap(), OwnerSource::SockDiag)
    );
}

#[test]
fn a_datagram_of_a_process_that_ended_names_it_as_possible_and_no_more() {
    let home = Cgroup::new();
    let path = home.below("datagram.service");
    let openers = Openers::open().unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = receiver.local_addr().unwrap();
    let program = format!(
        "$|=1; $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '{to}') or die; send($s, 'x', 0); print $s->sockport, \"\\n\""
    );
    let mut process = home.start(&path, &["perl", "-MIO::Socket::INET", "-e", &program]);
    let (pid, port): (u32, u16) = (process.pid(), process.line().parse().unwrap());
    drop(process);
    let flow = udp(&format!("127.0.0.1:{port}"), &to.to_string());
    let missed = owner(&flow, None);
    assert!(missed.is_none_or(|process| !process.may_be_scope()));
    let mut owners = Owners::open(None)
        .unwrap()
        .with_openers(Box::new(move |flow| openers.opener(flow).unwrap()));
    let named = owners.owner(&flow).unwrap().unwrap();
    assert_eq!(
        (named.pid, named.source, named.certainty),
        (i32::try_from(pid).unwrap(), OwnerSource::Ebpf, Certainty::Possible)
    );
}

#[test]
fn a_process_that_ended_before_its_socket_is_named_by_its_cgroup_and_from_memory() {
    let (mut reporter, recent) = recent::follow().unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let wish = std::sync::Arc::clone(&stop);
    let thread = std::thread::spawn(move || reporter.run(&wish).unwrap());
    let home = Cgroup::new();
    let path = home.below("short.service");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    // More than anybody reads: the kernel goes on sending for a process that is no more.
    let program = format!(
        "$|=1; $s = IO::Socket::INET->new(PeerAddr => '{to}') or die; $s->blocking(0); syswrite($s, 'x' x 65536) for 1..200; print $s->sockport, \"\\n\"; sleep 600"
    );
    let mut process = home.start(&path, &["perl", "-MIO::Socket::INET", "-e", &program]);
    let flow = tcp(&format!("127.0.0.1:{}", process.line()), &to.to_string());
    let alive = owner(&flow, None).unwrap();
    assert_eq!(
        (alive.pid, alive.certainty),
        (i32::try_from(process.pid()).unwrap(), Certainty::Sure)
    );
    assert_eq!(alive.cgroup.as_deref(), Some(path.as_str()));
    let pid = process.pid();
    drop(process);
    assert!(fs::metadata(format!("/proc/{pid}")).is_err());
    let gone = owner(&flow, None).unwrap();
    assert_eq!((gone.pid, gone.exe.as_deref(), gone.source), (0, None, OwnerSource::CgroupOnly));
    assert_eq!(
        (gone.cgroup.as_deref(), gone.unit.as_deref()),
        (Some(path.as_str()), Some("short.service"))
    );
    assert!(waits_until(|| recent.ended_in(&path).iter().any(|ended| ended.pid == pid)));
    let named = owner(&flow, Some(&recent)).unwrap();
    assert_eq!(
        (named.pid, named.source),
        (i32::try_from(pid).unwrap(), OwnerSource::ProcConnector)
    );
    assert!(
        named.exe.as_ref().unwrap().contains("perl") && named.certainty == Certainty::Likely,
        "{named:?}"
    );
    // Two programs that ended in one cgroup: which of them it was is a guess, and said to be one.
    let _other = home.start(&path, &["sleep", "0.05"]);
    assert!(waits_until(|| recent
        .ended_in(&path)
        .first()
        .is_some_and(|ended| ended.exe.as_ref().is_some_and(|exe| exe.contains("sleep")))));
    assert!(!owner(&flow, Some(&recent)).unwrap().may_be_scope());
    drop(listener);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn a_socket_in_a_container_is_found_there_and_behind_a_translation() {
    with_containers(|home, host, [space, _]| {
        let id = "4".repeat(64);
        let path = home.below(&format!("docker-{id}.scope"));
        host.ip("addr add 203.0.113.1/24 dev host1");
        let connect = "$s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '10.8.0.1:4444', LocalPort => 5555) or die; $u = IO::Socket::INET->new(Proto => 'udp', LocalPort => 5556) or die; print \"ready\\n\"; sleep 600";
        let mut process = home.start(
            &path,
            &[
                "ip",
                "netns",
                "exec",
                &space.0,
                "perl",
                "-MIO::Socket::INET",
                "-e",
                &format!("$|=1; {connect}"),
            ],
        );
        assert_eq!(process.line(), "ready");
        for flow in [udp("10.8.0.2:5555", "10.8.0.1:4444"), udp("10.8.0.2:5556", "192.0.2.1:53")] {
            let found = owner(&flow, None).unwrap();
            assert_eq!(found.container.as_deref(), Some(id.as_str()), "{found:?}");
            assert_eq!(
                (found.certainty, found.pid),
                (Certainty::Sure, i32::try_from(process.pid()).unwrap())
            );
        }
        let behind = owner(&udp("203.0.113.1:5555", "10.8.0.1:4444"), None).unwrap();
        assert_eq!(
            (behind.container.as_deref(), behind.certainty),
            (Some(id.as_str()), Certainty::Likely)
        );
        let maybe = owner(&udp("203.0.113.1:5556", "192.0.2.1:53"), None).unwrap();
        assert!(!maybe.may_be_scope(), "{maybe:?}");
        assert_eq!(owner(&udp("10.8.0.2:5557", "10.8.0.1:4444"), None), None);
        // A socket of the host on the same port is not the container's.
        let own = UdpSocket::bind("0.0.0.0:5556").unwrap();
        let found = owner(&udp("10.8.0.2:5556", "192.0.2.1:53"), None).unwrap();
        assert_eq!(found.container.as_deref(), Some(id.as_str()));
        let found = owner(&udp("203.0.113.1:5556", "192.0.2.1:53"), None).unwrap();
        assert_eq!(
            (found.pid, found.certainty),
            (i32::try_from(std::process::id()).unwrap(), Certainty::Sure)
        );
        drop(own);
    });
}

#[test]
fn of_two_sockets_that_share_a_port_either_is_likely() {
    let space = Space::new();
    space.within(|| {
        let flow = udp("127.0.0.1:5600", "127.0.0.9:53");
        let share = || {
            let local: SocketAddr = "0.0.0.0:5600".parse().unwrap();
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                rustix::net::SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
            rustix::net::bind(&socket, &local).unwrap();
            socket
        };
        let one = share();
        assert_eq!(owner(&flow, None).unwrap().certainty, Certainty::Sure);
        let two = share();
        assert_eq!(owner(&flow, None).unwrap().certainty, Certainty::Likely);
        drop((one, two));
        // A child that another test is about to start holds copies until it is on its way.
        let ended = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while owner(&flow, None).is_some() {
            assert!(std::time::Instant::now() < ended, "{:?}", owner(&flow, None));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

#[test]
fn whole_frames_are_laid_to_the_only_program_that_can_send_them() {
    let space = Space::new();
    let home = Cgroup::new();
    let path = home.below("raw");
    let frames = "socket($s, 17, 3, 0x0300) or die";
    let start = |program: &str| {
        let mut process = home.start(
            &path,
            &[
                "ip",
                "netns",
                "exec",
                &space.0,
                "perl",
                "-e",
                &format!("$|=1; {program}; print \"ready\\n\"; sleep 600"),
            ],
        );
        assert_eq!(process.line(), "ready");
        process
    };
    space.within(|| {
        let flow = tcp("10.0.0.1:5", "192.0.2.1:443");
        assert_eq!(owner(&flow, None), None);
        let one = start(frames);
        let found = owner(&flow, None).unwrap();
        assert_eq!(
            (found.pid, found.source),
            (i32::try_from(one.pid()).unwrap(), OwnerSource::PacketSocket)
        );
        assert!(!found.may_be_scope(), "a packet socket proves nothing by itself");
        let two = start(frames);
        assert_eq!(owner(&flow, None), None, "one of two is no answer");
        drop(two);
        // SOCK_RAW of IPPROTO_ICMP.
        let ping = FlowKey { transport: Transport::Icmp, ..tcp("10.0.0.1:0", "192.0.2.1:0") };
        assert_eq!(owner(&ping, None), None);
        let raw = start("socket($s, 2, 3, 1) or die");
        let found = owner(&ping, None).unwrap();
        assert_eq!(
            (found.pid, found.certainty),
            (i32::try_from(raw.pid()).unwrap(), Certainty::Likely)
        );
    });
}
