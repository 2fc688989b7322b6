//! The stream of notices (server-sent events): which event came, with the last line of its data.

/// The longest line that a notice may have, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Splits a stream of bytes into events.
#[derive(Debug, Default)]
pub(super) struct Notices {
    line: Vec<u8>,
    event: Option<String>,
    data: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) event: String,
    pub(super) data: String,
}

impl Notices {
    /// The events that end within these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Notice> {
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
                let data = std::mem::take(&mut self.data);
                events.extend(self.event.take().map(|event| Notice { event, data }));
            } else if let Some(name) = line.strip_prefix("event:") {
                self.event = Some(name.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data:") {
                data.trim().clone_into(&mut self.data);
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
            let events: Vec<(String, String)> = text
                .chunks(size)
                .flat_map(|chunk| notices.push(chunk))
                .map(|notice| (notice.event, notice.data))
                .collect();
            let expected = [("policy", "{\"version\":7}"), ("drain", "")]
                .map(|(event, data)| (event.to_owned(), data.to_owned()));
            assert_eq!(events, expected, "{size}");
        }
    }
}
