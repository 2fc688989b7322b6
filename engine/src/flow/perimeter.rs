//! Inside or outside: which addresses are ours.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks that no packet leaves for, whatever policy says: "this network" (RFC 1122 §3.2.1.3),
/// loopback and the limited broadcast.
const NEVER_OUTSIDE: [(Ipv4Addr, Ipv4Addr); 3] = [
    (Ipv4Addr::new(0, 0, 0, 0), Ipv4Addr::new(0, 255, 255, 255)),
    (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255)),
    (Ipv4Addr::BROADCAST, Ipv4Addr::BROADCAST),
];

/// The border between inside and outside: networks of the policy and the host's own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Perimeter {
    /// Disjoint ranges, ascending, both ends included.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Perimeter {
    /// Makes the border from the networks inside it and the host's own addresses.
    ///
    /// Loopback, the unspecified address and the limited broadcast are always inside.
    #[must_use]
    pub fn new(inside: &[IpNet], own: &[IpAddr]) -> Self {
        let mut v4: Vec<_> =
            NEVER_OUTSIDE.iter().map(|(from, to)| (from.to_bits(), to.to_bits())).collect();
        // Unspecified and loopback are neighbours.
        let mut v6 = vec![(0, Ipv6Addr::LOCALHOST.to_bits())];
        for net in inside {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        for address in own {
            match address.to_canonical() {
                IpAddr::V4(address) => v4.push((address.to_bits(), address.to_bits())),
                IpAddr::V6(address) => v6.push((address.to_bits(), address.to_bits())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether an address is inside; an IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    #[inline]
    pub fn is_inside(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => covers(&self.v4, address.to_bits()),
            IpAddr::V6(address) => covers(&self.v6, address.to_bits()),
        }
    }
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(from, _)| *from <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, to)| value <= *to)
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut disjoint: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match disjoint.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => disjoint.push((from, to)),
        }
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perimeter(inside: &[&str], own: &[&str]) -> Perimeter {
        let inside: Vec<IpNet> = inside.iter().map(|net| net.parse().unwrap()).collect();
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        Perimeter::new(&inside, &own)
    }

    #[test]
    fn both_ends_of_a_network_are_inside_and_their_neighbours_are_not() {
        let border = perimeter(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"], &["198.51.100.7"]);
        let inside = |ip: &str| border.is_inside(ip.parse().unwrap());
        for ip in [
            "10.0.0.0",
            "10.255.255.255",
            "10.1.2.3",
            "198.51.100.7",
            "2001:db8::",
            "127.0.0.1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(inside(ip), "{ip}");
        }
        for ip in [
            "9.255.255.255",
            "11.0.0.0",
            "198.51.100.6",
            "198.51.100.8",
            "2001:db9::",
            "::2",
            "::ffff:11.0.0.1",
        ] {
            assert!(!inside(ip), "{ip}");
        }
    }

    #[test]
    fn without_any_network_only_the_host_itself_is_inside() {
        let border = perimeter(&[], &["2001:db8::9"]);
        assert!(border.is_inside("2001:db8::9".parse().unwrap()));
        assert!(!border.is_inside("192.168.0.1".parse().unwrap()));
    }
}
