//! Containers by the names that runtimes give their cgroups.

use super::cgroup::Tree;
use super::namespace::processes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Hexadecimal digits of a container id (OCI runtimes: 32 random bytes).
const ID_DIGITS: usize = 64;
/// Fewest digits by which a container may be named; what tools print.
pub(super) const SHORT_DIGITS: usize = 12;
/// Containers told in an error.
const TOLD: usize = 8;

/// Why no container was found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindContainerError {
    /// More than one begins so.
    #[error("\"{text}\" begins the ids of several containers: {}", found.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Whose it may be.
        found: Vec<String>,
    },
    /// None is called so.
    #[error("no container \"{text}\" is on this host; {}", known(found))]
    Absent {
        /// What was asked for.
        text: String,
        /// Some that are.
        found: Vec<String>,
    },
    /// It says too little.
    #[error(
        "\"{text}\" is too short for a container id: {SHORT_DIGITS} digits at least; {}",
        known(found)
    )]
    Short {
        /// What was asked for.
        text: String,
        /// Some that are on this host.
        found: Vec<String>,
    },
}

fn known(found: &[String]) -> String {
    if found.is_empty() {
        "no cgroup of a container is there at all".to_owned()
    } else {
        format!("there are: {}", found.join(", "))
    }
}

/// A container that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Its id, or its name where the runtime has no ids.
    pub(super) id: String,
    /// Its cgroups of version 2, the topmost ones.
    pub(super) paths: BTreeSet<String>,
    /// Processes that only a hierarchy of version 1 shows to be in it.
    pub(super) strays: BTreeSet<u32>,
}

/// The container of a cgroup path, as docker, containerd, CRI-O, podman, Kubernetes, LXC and machined lay them out.
#[must_use]
pub fn container_of(path: &str) -> Option<String> {
    let names: Vec<&str> = path.split('/').collect();
    (0..names.len()).rev().find_map(|at| {
        let above = at.checked_sub(1).and_then(|at| names.get(at)).copied().unwrap_or_default();
        identity(above, names.get(at)?)
    })
}

/// The container that one name of a cgroup path tells of.
fn identity(above: &str, name: &str) -> Option<String> {
    // The monitor of a container is not the container.
    if name.contains("conmon-") || name.starts_with("lxc.monitor") {
        return None;
    }
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let scope = name.strip_suffix(".scope");
    if let Some(machine) = scope.and_then(|name| name.strip_prefix("machine-")) {
        return unescape(machine);
    }
    if let Some(machine) =
        name.strip_suffix(".service").and_then(|name| name.strip_prefix("systemd-nspawn@"))
    {
        return unescape(machine);
    }
    // "docker-ID.scope", "cri-containerd-ID.scope", "crio-ID.scope", "libpod-ID.scope", or the id alone;
    // containerd without systemd: "kubepods-…:cri-containerd:ID".
    let id = scope.unwrap_or(name).rsplit(['-', ':']).next()?;
    if id.len() == ID_DIGITS && is_hex(id) {
        return Some(id.to_owned());
    }
    (above == "lxc" && !name.is_empty()).then(|| name.to_owned())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A name as systemd.unit(5) escapes it: `\x2d` is a hyphen.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', Some([b'x', high, low])) = (first, after.get(..3)) {
            let digits = [*high, *low];
            let digits = std::str::from_utf8(&digits).ok().filter(|digits| is_hex(digits))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(3..)?;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

/// Finds a container by its id, a unique beginning of it, or its name where the runtime has only names.
pub(super) fn find(text: &str, tree: Option<&Tree>) -> Result<Found, FindContainerError> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    if let Some(tree) = tree {
        tree.walk("/", None, &mut |path, _, _| {
            let (above, name) = path.rsplit_once('/').unwrap_or_default();
            if let Some(id) = identity(above.rsplit('/').next().unwrap_or_default(), name) {
                let found = entry(&mut all, id);
                // A walk by breadth meets the topmost first.
                let is_below = |top: &String| {
                    path.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('/'))
                };
                if !found.paths.iter().any(is_below) {
                    found.paths.insert(path.to_owned());
                }
            }
            true
        });
    }
    if !all.keys().any(|id| is_meant(text, id)) {
        by_processes(&mut all);
    }
    choose(text, all)
}

fn entry(all: &mut BTreeMap<String, Found>, id: String) -> &mut Found {
    all.entry(id.clone()).or_insert_with(|| Found { id, ..Found::default() })
}

/// Where containers live in cgroups of version 1, only their processes tell.
fn by_processes(all: &mut BTreeMap<String, Found>) {
    for pid in processes() {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        let path = |line: &str| line.splitn(3, ':').nth(2).and_then(container_of);
        if let Some(id) = text.lines().find_map(path) {
            entry(all, id).strays.insert(pid);
        }
    }
}

fn is_meant(text: &str, id: &str) -> bool {
    text == id
        || (text.len() >= SHORT_DIGITS
            && is_hex(text)
            && id.len() == ID_DIGITS
            && id.starts_with(text))
}

fn choose(text: &str, mut all: BTreeMap<String, Found>) -> Result<Found, FindContainerError> {
    if let Some(found) = all.remove(text) {
        return Ok(found);
    }
    let meant: Vec<String> = all.keys().filter(|id| is_meant(text, id)).cloned().collect();
    let text = text.to_owned();
    match meant.as_slice() {
        [one] => Ok(all.remove(one).unwrap_or_default()),
        [] => {
            let found: Vec<String> = all.into_keys().take(TOLD).collect();
            if text.len() < SHORT_DIGITS && is_hex(&text) {
                Err(FindContainerError::Short { text, found })
            } else {
                Err(FindContainerError::Absent { text, found })
            }
        }
        _ => Err(FindContainerError::Ambiguous { text, found: meant }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

    fn head(digits: usize) -> &'static str {
        ID.get(..digits).unwrap()
    }

    #[test]
    fn a_container_is_read_from_every_layout() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods/besteffort/pod1234/{ID}"),
            format!("/kubepods.slice/crio-{ID}.scope/container"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:{ID}"
            ),
        ] {
            assert_eq!(container_of(&path).as_deref(), Some(ID), "{path}");
        }
        for (path, name) in [
            ("/lxc.payload.web1/system.slice/a.service", "web1"),
            ("/lxc/web1", "web1"),
            ("/machine.slice/machine-my\\x2dweb.scope", "my-web"),
            ("/machine.slice/systemd-nspawn@web1.service/payload", "web1"),
        ] {
            assert_eq!(container_of(path).as_deref(), Some(name), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/system.slice/web.service",
            "/",
            "",
            "/user.slice/user-1000.slice/session-2.scope",
            "/lxc.monitor.web1",
            "/machine.slice/machine-\\xzz.scope",
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/docker/{}", ID.trim_start_matches('0')),
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_beginning_must_be_long_enough_and_of_one() {
        let twin = format!("{}{}", head(20), "f".repeat(44));
        let all = |ids: &[&str]| {
            ids.iter()
                .map(|id| ((*id).to_owned(), Found { id: (*id).to_owned(), ..Found::default() }))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(choose(head(12), all(&[ID])).unwrap().id, ID);
        assert_eq!(choose(ID, all(&[ID, &twin])).unwrap().id, ID);
        assert_eq!(choose("web1", all(&[ID, "web1"])).unwrap().id, "web1");
        assert!(matches!(choose(head(11), all(&[ID])), Err(FindContainerError::Short { .. })));
        assert!(matches!(
            choose(head(12), all(&[ID, &twin])),
            Err(FindContainerError::Ambiguous { found, .. }) if found.len() == 2
        ));
        let error = choose("web2", all(&["web1"])).unwrap_err();
        assert!(error.to_string().contains("web1"), "{error}");
    }
}
