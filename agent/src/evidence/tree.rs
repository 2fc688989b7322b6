//! The processes behind a socket, from the one that holds it to the first of the host.

use sekisho_schema::event::Ancestor;
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// Generations told: deeper trees are cut off at the old end.
const GENERATIONS: usize = 16;
/// Bytes read of a small procfs file, and told of a command line.
const FILE_BYTES: u64 = 16 * 1024;
const COMMAND_BYTES: usize = 512;

/// A process and its ancestors; what ended meanwhile is left out.
#[must_use]
pub fn tree(pid: i32) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid > 0 && found.len() < GENERATIONS) {
        let home = Path::new("/proc").join(pid.to_string());
        let Some(status) = read(&home.join("status")) else { break };
        let status = String::from_utf8_lossy(&status).into_owned();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        found.push(Ancestor {
            pid,
            name: field("Name:").unwrap_or_default().to_owned(),
            exe: fs::read_link(home.join("exe")).ok().map(|exe| exe.to_string_lossy().into_owned()),
            command: read(&home.join("cmdline")).map(|raw| command(&raw)).unwrap_or_default(),
            uid: field("Uid:").and_then(|ids| ids.split_whitespace().next()?.parse().ok()),
        });
        next = field("PPid:").and_then(|parent| parent.parse().ok());
    }
    found
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The arguments with spaces between them; control characters are shown as dots, so that no line can be forged.
fn command(raw: &[u8]) -> String {
    let words = raw.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(
            String::from_utf8_lossy(word).chars().map(|c| if c.is_control() { '.' } else { c }),
        );
        if text.len() > COMMAND_BYTES {
            let end = (0..=COMMAND_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_with_its_parent() {
        let mut child = std::process::Command::new("sleep").args(["30", "x\ny"]).spawn();
        // `sleep` refuses the second argument only after it was started: any child will do.
        if child.is_err() {
            child = std::process::Command::new("cat").spawn();
        }
        let mut child = child.unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let told = tree(pid);
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(told.first().map(|process| process.pid), Some(pid));
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(told.iter().any(|process| process.pid == own && process.exe.is_some()), "{told:?}");
        assert!(told.iter().all(|process| !process.command.contains('\n')));
    }

    #[test]
    fn what_is_gone_has_no_tree() {
        assert!(tree(i32::MAX).is_empty() && tree(0).is_empty() && tree(-1).is_empty());
    }
}
