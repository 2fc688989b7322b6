//! What of a name somebody registered, by the public suffix list that is compiled in.

/// The part of a name that somebody registered: the label before its public suffix and that suffix.
///
/// The list's private part counts too: below a shared host each customer's name is one of its own. A
/// name without a known suffix gives its last two labels; a suffix itself, or a single label, is given whole.
#[must_use]
pub fn registered_name(name: &str) -> &str {
    split(name).registered
}

/// A name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split<'a> {
    /// What somebody registered.
    pub(crate) registered: &'a str,
    /// What its owner put before it, without the dot between.
    pub(crate) below: &'a str,
    /// Whether its suffix is on the list.
    pub(crate) is_known: bool,
}

/// Takes a name in lower case without trailing dot apart.
pub(crate) fn split(name: &str) -> Split<'_> {
    let whole = Split { registered: name, below: "", is_known: false };
    let Some(domain) = psl::domain(name.as_bytes()) else {
        let is_known = psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known());
        return Split { is_known, ..whole };
    };
    let is_known = domain.suffix().is_known();
    let at = name.len().saturating_sub(domain.as_bytes().len());
    match (name.get(at..), name.get(..at)) {
        (Some(registered), Some(front)) => {
            Split { registered, below: front.strip_suffix('.').unwrap_or(front), is_known }
        }
        _ => Split { is_known, ..whole },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_name_is_what_somebody_registered() {
        for (name, registered) in [
            ("www.example.com", "example.com"),
            ("example.com", "example.com"),
            ("a.b.example.co.jp", "example.co.jp"),
            ("www.city.chiyoda.tokyo.jp", "city.chiyoda.tokyo.jp"),
            ("localhost", "localhost"),
            ("tenant.github.io", "tenant.github.io"),
            ("a.tenant.workers.dev", "tenant.workers.dev"),
            ("x.notgithub.io", "notgithub.io"),
            ("github.io", "github.io"),
            ("co.jp", "co.jp"),
            ("", ""),
        ] {
            assert_eq!(registered_name(name), registered, "{name}");
        }
    }

    #[test]
    fn what_is_below_and_whether_the_suffix_is_known_are_told() {
        let split_of = |name| {
            let Split { registered, below, is_known } = split(name);
            (registered, below, is_known)
        };
        assert_eq!(split_of("a.b.example.co.jp"), ("example.co.jp", "a.b", true));
        assert_eq!(split_of("t1.x.duckdns.org"), ("x.duckdns.org", "t1", true));
        assert_eq!(split_of("printer.corp-lan"), ("printer.corp-lan", "", false));
        assert_eq!(split_of("a.printer.corp-lan"), ("printer.corp-lan", "a", false));
    }
}
