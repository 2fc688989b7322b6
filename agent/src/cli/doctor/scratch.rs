//! Four network namespaces: the host under test, everybody else, a routed container and one on a macvlan device.

use super::Probed;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Where iproute2 is looked for: never by PATH, which belongs to whoever started us.
const IP: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];
/// The uplink, the other end of its wire, and their addresses on it.
pub(super) const OWN: &str = "sk0";
pub(super) const FAR: &str = "sk1";
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Addresses that belong to nobody (RFC 5737, RFC 3849), to be cut.
pub(super) const FAR4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(super) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0xf, 0, 0, 0, 1);
/// Address of the host under test, and of a neighbour that is inside.
pub(super) const OWN4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const INSIDE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// What follows the name of the host's namespace in that of the others.
pub(super) const PEER: &str = "p";
pub(super) const ROUTED: &str = "c";
pub(super) const ON_MACVLAN: &str = "m";
/// Tells the probing process the name of its namespace.
pub(super) const NAME: &str = "SEKISHO_DOCTOR_NETNS";

/// Namespaces that are removed whatever happens.
pub(super) struct Scratch {
    ip: &'static str,
    name: String,
}

impl Scratch {
    pub(super) fn make() -> Result<Self> {
        let ip = IP
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "iproute2 is not installed"))?;
        let scratch = Self { ip, name: format!("sekisho-doctor-{}", std::process::id()) };
        for (space, _) in scratch.spaces() {
            scratch.call(&format!("netns add {space}"))?;
        }
        let [(host, _), (peer, _), (routed, _), (macvlan, _)] = scratch.spaces();
        let own4 = OWN4;
        for (space, lines) in [
            (
                &host,
                vec![
                    format!(
                        "link add {OWN} address {} type veth peer name {FAR} netns {peer}",
                        text(OWN_MAC)
                    ),
                    format!("link add ct0 type veth peer name eth0 netns {routed}"),
                    format!("link add mv0 link {OWN} netns {macvlan} type macvlan mode bridge"),
                    format!("addr add {own4}/24 dev {OWN}"),
                    format!("addr add 2001:db8:5::2/64 dev {OWN} nodad"),
                    "addr add 10.99.8.1/24 dev ct0".to_owned(),
                    "addr add fd99:8::1/64 dev ct0 nodad".to_owned(),
                    "link set lo up".to_owned(),
                    format!("link set {OWN} up"),
                    "link set ct0 up".to_owned(),
                ],
            ),
            (
                &peer,
                vec![
                    format!("link set {FAR} address {}", text(FAR_MAC)),
                    format!("addr add {INSIDE4}/24 dev {FAR}"),
                    format!("addr add 2001:db8:5::1/64 dev {FAR} nodad"),
                    "link set lo up".to_owned(),
                    format!("addr add {FAR4}/32 dev lo"),
                    format!("addr add {FAR6}/128 dev lo nodad"),
                    format!("link set {FAR} up"),
                    format!("neigh add {own4} lladdr {} dev {FAR}", text(OWN_MAC)),
                    format!("-6 neigh add 2001:db8:5::2 lladdr {} dev {FAR}", text(OWN_MAC)),
                    format!("route add 10.99.8.0/24 via {own4}"),
                    "-6 route add fd99:8::/64 via 2001:db8:5::2".to_owned(),
                ],
            ),
            (
                &host,
                vec![
                    format!("neigh add {INSIDE4} lladdr {} dev {OWN}", text(FAR_MAC)),
                    format!("-6 neigh add 2001:db8:5::1 lladdr {} dev {OWN}", text(FAR_MAC)),
                    format!("route add default via {INSIDE4}"),
                    "-6 route add default via 2001:db8:5::1".to_owned(),
                ],
            ),
            (
                &routed,
                vec![
                    "addr add 10.99.8.2/24 dev eth0".to_owned(),
                    "addr add fd99:8::2/64 dev eth0 nodad".to_owned(),
                    "link set eth0 up".to_owned(),
                    "route add default via 10.99.8.1".to_owned(),
                    "-6 route add default via fd99:8::1".to_owned(),
                ],
            ),
            (
                &macvlan,
                vec![
                    "addr add 198.51.100.50/24 dev mv0".to_owned(),
                    "link set mv0 up".to_owned(),
                    format!("route add default via {INSIDE4}"),
                ],
            ),
        ] {
            for line in lines {
                scratch.call(&format!("-n {space} {line}"))?;
            }
        }
        Ok(scratch)
    }

    fn spaces(&self) -> [(String, &'static str); 4] {
        ["", PEER, ROUTED, ON_MACVLAN].map(|part| (space(&self.name, part), part))
    }

    /// Runs the tries in the namespace of the host under test.
    pub(super) fn probe(&self) -> Result<Probed> {
        let mut command = Command::new(self.ip);
        command
            .args(["netns", "exec", &self.name])
            .arg(std::env::current_exe()?)
            .args(["doctor", "--probe"]);
        let answer = call(&mut command, &self.name)?;
        serde_json::from_slice(&answer).map_err(Error::from)
    }

    fn call(&self, line: &str) -> Result<Vec<u8>> {
        call(Command::new(self.ip).args(line.split(' ')), &self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for (space, _) in self.spaces() {
            let _ = self.call(&format!("netns del {space}"));
        }
    }
}

/// Name of a namespace beside that of the host under test.
pub(super) fn space(host: &str, part: &str) -> String {
    if part.is_empty() { host.to_owned() } else { format!("{host}-{part}") }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn call(command: &mut Command, name: &str) -> Result<Vec<u8>> {
    let output = command.env_clear().env(NAME, name).output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
