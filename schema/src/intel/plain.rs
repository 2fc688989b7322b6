//! One value a line; `#` begins a comment; the form of a hosts file is understood.

use super::entry::Facts;
use super::report::{Hint, Intake, Offer};

pub(super) fn line(number: u32, text: &str, intake: &mut Intake<'_>) {
    let value = value_of(text);
    if value.is_empty() {
        return;
    }
    intake.offer(&Offer::new(value, Hint::Any, Facts::of_line(number)));
}

/// The value without comment and blanks.
fn value_of(text: &str) -> &str {
    let text = text.trim();
    if text.starts_with(['#', ';']) || text.starts_with("//") {
        return "";
    }
    let value = match text.split_once('#') {
        None => text,
        // A `#` within a URL or User-Agent is part of it; a comment stands apart.
        Some((before, _)) if !before.contains('/') && !before.starts_with("ua:") => {
            before.trim_end()
        }
        Some(_) => match text.find(" #").or_else(|| text.find("\t#")) {
            Some(end) => text.get(..end).unwrap_or(text).trim_end(),
            None => text,
        },
    };
    for nowhere in ["0.0.0.0", "127.0.0.1", "::1", "::"] {
        if let Some(rest) = value.strip_prefix(nowhere)
            && rest.starts_with([' ', '\t'])
        {
            return rest.trim();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::value_of;

    #[test]
    fn comments_and_the_form_of_a_hosts_file_are_taken_off() {
        for (line, value) in [
            ("c2.example # seen", "c2.example"),
            ("c2.example#seen", "c2.example"),
            ("# c2.example", ""),
            ("; c2.example", ""),
            ("// c2.example", ""),
            ("http://c2.example/a#b", "http://c2.example/a#b"),
            ("http://c2.example/a # b", "http://c2.example/a"),
            ("1.2.3.0/24 # net", "1.2.3.0/24"),
            ("0.0.0.0 c2.example", "c2.example"),
            ("127.0.0.1\tc2.example", "c2.example"),
            ("0.0.0.0", "0.0.0.0"),
            ("  203.0.113.9  ", "203.0.113.9"),
            ("", ""),
        ] {
            assert_eq!(value_of(line), value, "{line}");
        }
    }
}
