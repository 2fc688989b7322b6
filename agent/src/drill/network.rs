//! The network of the cell: a canary, the other end of its cable, and every address of the story behind it.

use super::cell::{call, find};
use super::scenario::{CANARY, Drill, GATE, PEER};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Where iproute2 is looked for.
const IP: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];
/// The device of the other end.
pub(super) const OUTER: &str = "skdrill0";
/// The device of the canary: its uplink.
pub(super) const UPLINK: &str = "uplink0";

/// The canary's network namespace.
#[derive(Debug)]
pub(super) struct Network {
    canary: String,
}

impl Network {
    /// Builds it around this process's own network namespace, which is the outside.
    pub(super) fn build(drill: &Drill, prefix: &str) -> Result<Self, String> {
        let canary = format!("{prefix}-canary");
        let ip = |line: &str| call(&IP, line).map(drop);
        ip(&format!("netns add {canary}"))?;
        // Both have a name, for who looks into the cell while it stands.
        ip(&format!("netns attach {prefix}-outside 1"))?;
        ip("link set lo up")?;
        ip(&format!("link add {OUTER} type veth peer name {UPLINK} netns {canary}"))?;
        ip(&format!("addr add {GATE}/30 dev {OUTER}"))?;
        ip(&format!("link set {OUTER} up"))?;
        let outside: BTreeSet<_> =
            drill.story.flows.iter().map(|flow| flow.to.ip()).chain([PEER.ip()]).collect();
        for address in outside {
            ip(&format!("addr add {address}/32 dev lo"))?;
        }
        for line in [
            "link set lo up".to_owned(),
            format!("addr add {CANARY}/30 dev {UPLINK}"),
            format!("link set {UPLINK} up"),
            format!("route add default via {GATE}"),
        ] {
            ip(&format!("-n {canary} {line}"))?;
        }
        Ok(Self { canary })
    }

    /// A program that will run in the canary.
    pub(super) fn command(&self, program: &str) -> Result<Command, String> {
        let mut command = Command::new(find(&IP)?);
        command.args(["netns", "exec", &self.canary, program]).stdin(Stdio::null());
        Ok(command)
    }
}
