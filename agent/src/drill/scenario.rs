//! What is rehearsed: a drill file, and the conversations that its script stands for.

use sekisho_engine::cases::{Case, CaseFile, ForgedFrame, ScriptError};
use sekisho_engine::wire::{Frame, LinkType, Proto, parse};
use sekisho_schema::policy::read_toml;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name and version of the schema of drill files.
const SCHEMA: &str = "sekisho.drill/1";
/// The shipped drills by name.
const SHIPPED: [(&str, &str); 2] = [
    ("indicator", include_str!("../../../rules/drills/indicator.toml")),
    ("plugx-tcp", include_str!("../../../rules/drills/plugx-tcp.toml")),
];
/// The cases that shipped drills speak from.
const CASES: [(&str, &str); 1] =
    [("plugx.tcp", include_str!("../../../rules/cases/plugx.tcp.toml"))];
/// The most that a drill may try to steal.
const MOST_BYTES: u64 = 1 << 30;
/// The longest that a drill may wait for its cut, in seconds.
const MOST_SECONDS: u64 = 120;
/// Flows of one story.
const MOST_FLOWS: usize = 16;
/// The forge leaves so much between two frames by itself.
const FRAME_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause that a story makes.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a drill can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadDrillError {
    /// There is none of that name.
    #[error("there is no drill \"{name}\"; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not TOML of this shape.
    #[error("{file}:{at}: {message}")]
    Malformed {
        /// The file.
        file: String,
        /// `line:column` of the fault.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// Its script can't be played.
    #[error("drill {name}: cannot play its story")]
    Script {
        /// The drill.
        name: String,
        /// The line.
        source: ScriptError,
    },
    /// Well-formed and without sense.
    #[error("drill {name}: {why}")]
    Senseless {
        /// The drill.
        name: String,
        /// What makes no sense.
        why: String,
    },
}

/// A drill file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDrill {
    schema: String,
    name: String,
    title: String,
    story: RawStory,
    expect: Expect,
    limits: DrillLimits,
}

/// `[story]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawStory {
    /// A detector with cases, and one of them.
    cases: Option<String>,
    case: Option<String>,
    /// Or a script of its own.
    packets: Option<String>,
    /// The case whose first words are the keep-alive.
    keep_alive_case: Option<String>,
    keep_alives: u32,
    every_ms: u64,
    theft_bytes: u64,
    mbit: u64,
    indicators: Vec<String>,
}

/// What must be found, and how high the ladder must be climbed at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The detector.
    pub detector: String,
    /// The least level.
    pub level: u8,
}

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DrillLimits {
    /// Milliseconds from the deciding frame to the kernel's acknowledgement.
    pub contain_ms: u64,
    /// Bytes of payload that may reach the other end after the match.
    pub leaked_bytes: u64,
    /// Seconds within which the cut must be held and proven.
    pub seconds: u64,
}

/// A drill, ready to be played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Its name.
    pub name: String,
    /// What it is, in a few words.
    pub title: String,
    /// What is found, at least.
    pub expect: Expect,
    /// What is too much.
    pub limits: DrillLimits,
    pub(super) story: Story,
}

/// Who says what to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Story {
    pub(super) flows: Vec<Flow>,
    pub(super) keep_alive: Vec<u8>,
    pub(super) keep_alives: u32,
    pub(super) every_ms: u64,
    pub(super) theft_bytes: u64,
    /// Bits a second of the theft, in millions; 0: as fast as it goes.
    pub(super) mbit: u64,
    /// The drill's own list.
    pub(super) indicators: Vec<String>,
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) tcp: bool,
    pub(super) to: SocketAddr,
    pub(super) turns: Vec<Turn>,
}

/// Something that is said in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// By the canary, or by the other end.
    pub(super) ours: bool,
    pub(super) after_ms: u64,
    pub(super) bytes: Vec<u8>,
}

impl Drill {
    /// The end that the theft goes to: that of the last TCP flow.
    pub(super) fn c2(&self) -> Option<SocketAddr> {
        self.story.flows.iter().rev().find(|flow| flow.tcp).map(|flow| flow.to)
    }
}

/// Names of the drills: the shipped ones, and those of `drills` in the directory of rules.
#[must_use]
pub fn names(rules: &Path) -> Vec<String> {
    let mut names: Vec<String> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    for entry in fs::read_dir(rules.join("drills")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Loads a drill by its name; a file in `drills` of the directory of rules goes before a shipped one.
///
/// # Errors
/// [`LoadDrillError`].
pub fn load(rules: &Path, name: &str) -> Result<Drill, LoadDrillError> {
    // A name is the name of a file, never a way to another one.
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let file = rules.join("drills").join(format!("{name}.toml"));
    let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
    let (text, from) = if is_plain && !name.starts_with('.') && file.is_file() {
        let text = fs::read_to_string(&file)
            .map_err(|source| LoadDrillError::Read { path: file.clone(), source })?;
        (text, file.display().to_string())
    } else if let Some((name, text)) = shipped {
        ((*text).to_owned(), format!("rules/drills/{name}.toml"))
    } else {
        return Err(LoadDrillError::Unknown {
            name: name.to_owned(),
            known: names(rules).join(", "),
        });
    };
    read(&text, &from, rules)
}

fn read(text: &str, from: &str, rules: &Path) -> Result<Drill, LoadDrillError> {
    let raw: RawDrill = read_toml(text).map_err(|(at, message)| LoadDrillError::Malformed {
        file: from.to_owned(),
        at,
        message,
    })?;
    let refuse = |why: String| LoadDrillError::Senseless { name: raw.name.clone(), why };
    if raw.schema != SCHEMA {
        return Err(refuse(format!("schema is \"{}\", expected \"{SCHEMA}\"", raw.schema)));
    }
    if raw.story.theft_bytes > MOST_BYTES || !(1..=MOST_SECONDS).contains(&raw.limits.seconds) {
        return Err(refuse(format!(
            "theft-bytes is at most {MOST_BYTES}, seconds are 1 to {MOST_SECONDS}"
        )));
    }
    if raw.expect.level == 0 || raw.expect.level > 6 {
        return Err(refuse("expect.level is 1 to 6".to_owned()));
    }
    let script = |source| LoadDrillError::Script { name: raw.name.clone(), source };
    let cases = raw.story.cases.as_deref().map(|name| cases(name, rules)).transpose()?;
    let named = |case: &str| {
        cases
            .as_ref()
            .and_then(|file| file.cases.iter().find(|known| known.name == case).cloned())
            .ok_or_else(|| {
                refuse(format!("there is no case \"{case}\" among those of [story] cases"))
            })
    };
    let case = match (&raw.story.case, &raw.story.packets) {
        (Some(case), None) => named(case)?,
        (None, Some(packets)) => case_of(packets),
        _ => return Err(refuse("[story] has either cases and case, or packets".to_owned())),
    };
    let flows = flows(&case.frames().map_err(script)?);
    let keep_alive = match &raw.story.keep_alive_case {
        None => Vec::new(),
        Some(case) => first_words(&named(case)?.frames().map_err(script)?),
    };
    if raw.story.keep_alives > 0 && keep_alive.is_empty() {
        return Err(refuse("keep-alives need a keep-alive-case that says something".to_owned()));
    }
    let drill = Drill {
        name: raw.name.clone(),
        title: raw.title.clone(),
        expect: raw.expect.clone(),
        limits: raw.limits,
        story: Story {
            flows,
            keep_alive,
            keep_alives: raw.story.keep_alives.min(1000),
            every_ms: raw.story.every_ms.min(10_000),
            theft_bytes: raw.story.theft_bytes,
            mbit: raw.story.mbit,
            indicators: raw.story.indicators.clone(),
        },
    };
    check(&drill).map_err(refuse)?;
    Ok(drill)
}

fn check(drill: &Drill) -> Result<(), String> {
    let flows = &drill.story.flows;
    if drill.c2().is_none() || flows.len() > MOST_FLOWS {
        return Err(format!("its story has 1 to {MOST_FLOWS} flows, of which one is TCP"));
    }
    if flows.iter().any(|flow| flow.to.is_ipv6()) {
        return Err("its story speaks IPv4".to_owned());
    }
    if drill.story.flows.iter().flat_map(|flow| &flow.turns).all(|turn| !turn.ours) {
        return Err("nothing is said in its story".to_owned());
    }
    Ok(())
}

fn cases(name: &str, rules: &Path) -> Result<CaseFile, LoadDrillError> {
    let shipped = CASES.iter().find(|(known, _)| *known == name);
    let path = rules.join("cases").join(format!("{name}.toml"));
    let text = match shipped {
        Some((_, text)) => (*text).to_owned(),
        None => fs::read_to_string(&path)
            .map_err(|source| LoadDrillError::Read { path: path.clone(), source })?,
    };
    CaseFile::parse(&text).map_err(|error| LoadDrillError::Malformed {
        file: path.display().to_string(),
        at: error.at,
        message: error.message,
    })
}

fn case_of(packets: &str) -> Case {
    Case {
        name: String::new(),
        expect: Vec::new(),
        frame: None,
        grade: None,
        indicators: None,
        at: None,
        packets: packets.to_owned(),
    }
}

/// One payload of a forged frame: who said it to whom.
struct Said {
    tcp: bool,
    from: SocketAddr,
    to: SocketAddr,
    at_ns: i64,
    bytes: Vec<u8>,
    begins: bool,
}

fn said(frame: &ForgedFrame) -> Option<Said> {
    let wire_len = u32::try_from(frame.bytes.len()).ok()?;
    let view = parse(&Frame {
        at_ns: frame.at_ns,
        link: LinkType::Ethernet,
        wire_len,
        bytes: &frame.bytes,
    })
    .ok()?;
    if !matches!(view.proto, Proto::Tcp | Proto::Udp) {
        return None;
    }
    Some(Said {
        tcp: view.proto == Proto::Tcp,
        from: SocketAddr::new(view.src, view.src_port),
        to: SocketAddr::new(view.dst, view.dst_port),
        at_ns: frame.at_ns,
        bytes: view.payload.to_vec(),
        begins: view.tcp.is_some_and(|tcp| tcp.syn && !tcp.ack),
    })
}

/// The conversations of forged frames. The end that speaks first, or opens, is the canary.
fn flows(frames: &[ForgedFrame]) -> Vec<Flow> {
    let mut flows: Vec<(SocketAddr, Flow)> = Vec::new();
    let mut before = None;
    for said in frames.iter().filter_map(said) {
        let gap = before.map_or(0, |before| said.at_ns - before);
        before = Some(said.at_ns);
        let known = flows.iter().rposition(|(from, flow)| {
            !said.begins
                && flow.tcp == said.tcp
                && ((*from, flow.to) == (said.from, said.to)
                    || (*from, flow.to) == (said.to, said.from))
        });
        let at = known.unwrap_or_else(|| {
            flows.push((said.from, Flow { tcp: said.tcp, to: said.to, turns: Vec::new() }));
            flows.len() - 1
        });
        let Some((from, flow)) = flows.get_mut(at) else { continue };
        if said.bytes.is_empty() {
            continue;
        }
        let gap = Duration::from_nanos(u64::try_from(gap).unwrap_or(0));
        let pause = gap.saturating_sub(FRAME_PAUSE).min(LONGEST_PAUSE);
        flow.turns.push(Turn {
            ours: *from == said.from,
            after_ms: u64::try_from(pause.as_millis()).unwrap_or(0),
            bytes: said.bytes,
        });
    }
    flows.into_iter().map(|(_, flow)| flow).collect()
}

/// What the opening end says first.
fn first_words(frames: &[ForgedFrame]) -> Vec<u8> {
    let flows = flows(frames);
    let turns = flows.into_iter().flat_map(|flow| flow.turns);
    turns.filter(|turn| turn.ours).map(|turn| turn.bytes).next().unwrap_or_default()
}

/// The address of the canary: inside every perimeter that anybody writes, and nobody's in a cell.
pub(super) const CANARY: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 2);
/// The way out of the canary.
pub(super) const GATE: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 1);
/// The legitimate peer (RFC 5737).
pub(super) const PEER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77)), 443);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_drill_can_be_played() {
        let none = Path::new("/nonexistent");
        assert_eq!(names(none), ["indicator", "plugx-tcp"]);
        for name in names(none) {
            let drill = load(none, &name).unwrap();
            assert_eq!(drill.name, name);
            assert!(drill.c2().is_some() && drill.story.theft_bytes > 0, "{name}");
        }
    }

    #[test]
    fn the_words_of_plugx_are_those_of_its_cases() {
        let drill = load(Path::new("/nonexistent"), "plugx-tcp").unwrap();
        let [flow] = drill.story.flows.as_slice() else { panic!("{drill:?}") };
        // The header in a segment of its own, then the body.
        let lengths: Vec<usize> = flow.turns.iter().map(|turn| turn.bytes.len()).collect();
        assert_eq!(lengths.first(), Some(&16));
        assert!(flow.turns.len() == 2 && flow.turns.iter().all(|turn| turn.ours));
        assert_eq!(drill.story.keep_alive.len(), 16);
    }

    #[test]
    fn both_sides_of_a_name_asked_for_are_told_apart() {
        let drill = load(Path::new("/nonexistent"), "indicator").unwrap();
        let [dns, http] = drill.story.flows.as_slice() else { panic!("{drill:?}") };
        assert!(!dns.tcp && dns.turns.len() == 2 && dns.turns[0].ours && !dns.turns[1].ours);
        assert!(http.tcp && http.turns.len() == 1 && drill.c2() == Some(http.to));
    }

    #[test]
    fn a_name_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("drills")).unwrap();
        fs::write(dir.path().join("secret.toml"), "schema = 1").unwrap();
        let error = load(dir.path(), "../secret").unwrap_err().to_string();
        assert!(error.starts_with("there is no drill"), "{error}");
    }
}
