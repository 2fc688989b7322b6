//! The stream of notices (server-sent events): which event came, nothing more.

/// The longest line that a notice may have, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Splits a stream of bytes into the names of its events.
#[derive(Debug, Default)]
pub(super) struct Notices {
    line: Vec<u8>,
    event: Option<String>,
}

impl Notices {
    /// The names of the events that end within these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
            self.line.clear();
            if line.is_empty() {
                events.extend(self.event.take());
            } else if let Some(name) = line.strip_prefix("event:") {
                self.event = Some(name.trim().to_owned());
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_when_it_is_whole_however_it_was_cut_up() {
        let text =
            b": alive\n\nevent: policy\ndata: {\"version\":7}\n\nevent: drain\r\n\r\nevent: pol";
        for size in 1..text.len() {
            let mut notices = Notices::default();
            let events: Vec<String> =
                text.chunks(size).flat_map(|chunk| notices.push(chunk)).collect();
            assert_eq!(events, ["policy", "drain"], "{size}");
        }
    }
}
