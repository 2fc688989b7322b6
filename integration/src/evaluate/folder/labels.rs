//! What a file is said to hold: by `labels.toml` beside the files, else by words in its path.
//!
//! ```toml
//! [[file]]
//! name = "*_beaconing_*"     # `*` at either end stands for anything
//! holds = "idle"             # idle, tasked, benign, server, dns-tunnel or dns-benign
//! server = "203.0.113.9"     # the far end of what was planted; optional
//! ```

use super::series::Taken;
use std::path::Path;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Nothing but what people do.
    Benign,
    /// Names that people ask for.
    DnsBenign,
    /// A tunnel in names.
    DnsTunnel,
    /// An implant that waits for work.
    Idle,
    /// A server's days, with something planted in it.
    Server,
    /// An implant at work, or among other traffic.
    Tasked,
    /// Nobody said.
    Unknown,
}

impl Holds {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::DnsBenign => "dns-benign",
            Self::DnsTunnel => "dns-tunnel",
            Self::Idle => "idle",
            Self::Server => "server",
            Self::Tasked => "tasked",
            Self::Unknown => "unknown",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Benign,
            Self::DnsBenign,
            Self::DnsTunnel,
            Self::Idle,
            Self::Server,
            Self::Tasked,
        ];
        all.into_iter().find(|holds| holds.name() == text)
    }
}

struct Label {
    pattern: String,
    holds: Holds,
    server: Option<String>,
}

/// The labels of a folder.
pub(super) struct Labels(Vec<Label>);

impl Labels {
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("labels.toml");
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Self(Vec::new())) };
        parse(&text).map(Self).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// What a file holds, and the far end of what was planted.
    pub(super) fn of(&self, shown: &str, taken: &Taken) -> (Holds, Option<String>) {
        let label = self.0.iter().find(|label| fits(&label.pattern, shown));
        label.map_or_else(
            || (guessed(shown, taken), None),
            |label| (label.holds, label.server.clone()),
        )
    }
}

/// Reads the lines of the little table; whatever else stands in it is refused.
fn parse(text: &str) -> Result<Vec<Label>, String> {
    let mut labels: Vec<Label> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let refuse = |why: &str| format!("line {}: {why}", number + 1);
        if line.is_empty() {
            continue;
        }
        if line == "[[file]]" {
            labels.push(Label { pattern: String::new(), holds: Holds::Unknown, server: None });
            continue;
        }
        let label = labels.last_mut().ok_or_else(|| refuse("[[file]] must come first"))?;
        let (key, value) = line.split_once('=').ok_or_else(|| refuse("not KEY = \"VALUE\""))?;
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "name" => value.clone_into(&mut label.pattern),
            "holds" => label.holds = Holds::parse(value).ok_or_else(|| refuse("unknown kind"))?,
            "server" => label.server = Some(value.to_owned()),
            _ => return Err(refuse("only name, holds and server are known")),
        }
    }
    if labels.iter().any(|label| label.pattern.is_empty() || label.holds == Holds::Unknown) {
        return Err("every [[file]] needs name and holds".to_owned());
    }
    Ok(labels)
}

fn fits(pattern: &str, shown: &str) -> bool {
    let base = shown.rsplit('/').next().unwrap_or(shown);
    [shown, base].iter().any(|name| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(begin)) => name.starts_with(begin),
        (None, None) => *name == pattern,
    })
}

/// What the words of a path say; a benign word in the file's own name outweighs a folder's.
fn guessed(shown: &str, taken: &Taken) -> Holds {
    let shown = shown.to_lowercase();
    let base = shown.rsplit('/').next().unwrap_or(&shown);
    let says = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    let benign = ["benign", "normal", "good", "browsing", "clean"];
    let tunnels = ["tunnel", "exfil", "iodine", "dnscat", "dns2tcp", "ozyman", "tuns"];
    let is_of_names = says(&shown, &["dns"]) || says(&shown, &tunnels);
    let is_benign = says(base, &benign) || (says(&shown, &benign) && !says(base, &tunnels));
    match (is_of_names, is_benign) {
        (true, true) => Holds::DnsBenign,
        (false, true) => Holds::Benign,
        (true, false) if says(&shown, &tunnels) && !taken.questions.is_empty() => Holds::DnsTunnel,
        _ if says(&shown, &["idle", "beaconing"]) => Holds::Idle,
        _ if taken.seconds() >= 20.0 * 3600.0 => Holds::Server,
        _ if says(
            &shown,
            &["task", "only", "random", "mixed", "cobalt", "_http", "filtered", "c2"],
        ) =>
        {
            Holds::Tasked
        }
        _ => Holds::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_outweigh_words_and_stars_stand_for_anything() {
        let text = "[[file]]\nname = \"*_x_*\"\nholds = \"idle\" # waits\nserver = \"1.2.3.4\"\n";
        let labels = Labels(parse(text).unwrap());
        let taken = Taken::default();
        assert_eq!(
            labels.of("a/normal_x_1.pcap", &taken),
            (Holds::Idle, Some("1.2.3.4".to_owned()))
        );
        assert_eq!(labels.of("a/normal_1.pcap", &taken), (Holds::Benign, None));
        assert!(parse("name = \"a\"").is_err() && parse("[[file]]\nname = \"a\"").is_err());
        assert!(parse("[[file]]\nname = \"a\"\nholds = \"evil\"").is_err());
    }

    #[test]
    fn words_of_a_path_tell_what_a_file_holds() {
        let taken = Taken::default();
        assert_eq!(guessed("dns-tunnels/good.pcap", &taken), Holds::DnsBenign);
        assert_eq!(guessed("c2-frameworks/covenant_beaconing_0.csv", &taken), Holds::Idle);
        assert_eq!(guessed("c2-frameworks/empire_tasks_0.csv", &taken), Holds::Tasked);
        assert_eq!(guessed("notes.csv", &taken), Holds::Unknown);
    }
}
