//! One value a line; `#` begins a comment; the form of a hosts file is understood.

use super::entry::Facts;
use super::observable::{Observable, plain_name, plain_v4};
use super::report::{Hint, Intake, Offer};

const DIGIT: u8 = 1;
const LETTER: u8 = 2;
const DOT: u8 = 4;
const OTHER: u8 = 8;

/// What each byte can be part of.
const CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let mut at = 0;
    while at < classes.len() {
        #[allow(
            clippy::indexing_slicing,
            reason = "the bound of the loop; const code has no `get_mut`"
        )]
        {
            classes[at] = match at as u8 {
                b'0'..=b'9' => DIGIT,
                b'a'..=b'z' | b'-' | b'_' => LETTER,
                b'.' => DOT,
                _ => OTHER,
            };
        }
        at += 1;
    }
    classes
};

/// What the first line of a text is, as far as one look at each byte can tell.
pub(super) struct Quick<'a> {
    /// The line without its end.
    pub(super) line: &'a str,
    /// What follows it.
    pub(super) rest: &'a str,
    /// The address or name in lower case that the line is, and nothing beside; `None` says that it
    /// has to be read with more care, not that it is neither.
    pub(super) read: Option<Observable<'a>>,
}

/// Reads the first line. Lists are mostly addresses and names: these take no second look.
pub(super) fn quick(text: &str) -> Quick<'_> {
    let mut seen = 0;
    // Of the label that is read, and of the names' labels so far.
    let (mut len, mut longest, mut dots, mut gap, mut of_label) = (0_usize, 0, 0_usize, false, 0);
    let mut end = text.len();
    for (at, byte) in text.bytes().enumerate() {
        let class = CLASSES.get(usize::from(byte)).copied().unwrap_or(OTHER);
        if class == OTHER {
            if byte == b'\n' {
                end = at;
            } else {
                let end = text.get(at..).and_then(|rest| rest.find('\n')).map(|more| at + more);
                let (line, rest) = cut(text, end.unwrap_or(text.len()));
                return Quick { line, rest, read: None };
            }
            break;
        }
        seen |= class;
        let is_dot = class == DOT;
        gap |= is_dot & (len == 0);
        dots += usize::from(is_dot);
        len = if is_dot { 0 } else { len + 1 };
        of_label = if is_dot { 0 } else { of_label | class };
        longest = longest.max(len);
    }
    let (line, rest) = cut(text, end);
    let read = if seen == DIGIT | DOT {
        plain_v4(line.as_bytes())
    } else if gap || len == 0 || longest > 63 || of_label == DIGIT || dots == 0 {
        None
    } else {
        plain_name(line, dots + 1)
    };
    Quick { line, rest, read }
}

/// Reads a value as [`quick`] reads a line.
pub(super) fn quick_value(text: &str) -> Option<Observable<'_>> {
    let Quick { line, read, .. } = quick(text);
    read.filter(|_| line.len() == text.len())
}

/// A line and what follows its end.
fn cut(text: &str, end: usize) -> (&str, &str) {
    (text.get(..end).unwrap_or(text), text.get(end + 1..).unwrap_or_default())
}

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
