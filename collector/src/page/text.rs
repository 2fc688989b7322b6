//! Words for people, and strangers' words made harmless.

use sekisho_schema::finding::{Action, DecisionRecord, Reason};
use sekisho_schema::order::Command;
use sekisho_schema::sealed::HOST_LEVEL;
use sekisho_schema::{Containment, Measure, Scope, Sealed};

/// The longest text of a stranger that is shown, in characters.
const LONGEST: usize = 600;

/// A stranger's text with what could deceive a reader or a terminal written out: control, direction-changing and invisible characters.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (place, letter) in text.chars().enumerate() {
        if place == LONGEST {
            shown.push('…');
            break;
        }
        let deceives = letter.is_control()
            || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if deceives {
            shown.extend(letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A number of bytes in SI units.
#[must_use]
pub fn bytes(count: f64) -> String {
    let (value, unit) = match count {
        count if count >= 1e9 => (count / 1e9, "GB"),
        count if count >= 1e6 => (count / 1e6, "MB"),
        count if count >= 1e3 => (count / 1e3, "kB"),
        count => (count, "B"),
    };
    if value >= 100.0 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A length of time in the unit that suits it: `0.84 ms`, `12 ms`, `1.4 s`.
#[must_use]
pub fn short_time(nanos: i64) -> String {
    let nanos = nanos as f64;
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e7 => format!("{:.2} ms", n / 1e6),
        n if n < 1e9 => format!("{:.0} ms", n / 1e6),
        n => format!("{:.1} s", n / 1e9),
    }
}

/// What a scope cuts, in words.
#[must_use]
pub fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Cgroup(path) => format!("egress of the workload {}", visible(path)),
        Scope::Container(id) => format!("egress of the container {}", visible(id)),
        Scope::Destination(address) => format!("traffic to {address}"),
        Scope::Host => "all external egress of the host".to_owned(),
        Scope::Internal(host) => format!("egress of the inside host {}", visible(host)),
        Scope::Link(device) => format!("everything through the device {}", visible(device)),
        Scope::ManagementOnly => "everything but management".to_owned(),
    }
}

/// A scope and how it is held, in words: `traffic to 203.0.113.9, throttled to 8 kB a second`.
#[must_use]
pub fn held(scope: &Scope, measure: Measure) -> String {
    let what = self::scope(scope);
    match measure {
        Measure::Cut => format!("cut {what}"),
        Measure::Freeze => format!("cut {what} and stop its processes"),
        Measure::Observe => format!("count {what}, without a cut"),
        Measure::Quota { bytes: most } => {
            format!("cut {what} after {} more", bytes(most as f64))
        }
        Measure::Throttle { bytes_per_second } => {
            format!("throttle {what} to {} a second", bytes(bytes_per_second as f64))
        }
    }
}

/// What a sealed order says, in words; its seal is not checked.
#[must_use]
pub fn order(sealed: &str) -> String {
    let read = Sealed::parse(sealed).and_then(|sealed| sealed.read_order());
    let Ok(dispatch) = read else { return "can't be read".to_owned() };
    match &dispatch.order.what {
        Command::Contain { scope, lease, measure, .. } => {
            format!("{} for {lease}", held(scope, *measure))
        }
        Command::Confirm { containment } => format!("confirm {}", visible(&containment.0)),
        Command::Release { containment, .. } => format!("release {}", visible(&containment.0)),
    }
}

/// The name of a step of the ladder of responses.
#[must_use]
pub const fn level(level: u8) -> &'static str {
    match level {
        0 => "observe",
        1 => "throttle",
        2 => "quota",
        3 => "destination",
        4 => "workload",
        5 => "host",
        6 => "all but management",
        7 => "link",
        _ => "step",
    }
}

/// What policy did with a finding, in words; and whether it cut.
#[must_use]
pub fn decision(decision: &DecisionRecord) -> String {
    let what = decision.scope.as_deref().map_or_else(
        || "nothing".to_owned(),
        |text| text.parse().map_or_else(|_| visible(text), |parsed| scope(&parsed)),
    );
    let lease = decision.lease.map_or_else(String::new, |lease| format!(" for {lease}"));
    match decision.action {
        Action::Contain => format!("cut {what}{lease}"),
        Action::Record => "recorded only".to_owned(),
        Action::Withhold => format!(
            "not cut ({}): would have cut {what}{lease}",
            decision.reason.map_or("withheld", reason)
        ),
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::AlreadyContained => "contained already",
        Reason::Budget => "the automatic budget is spent",
        Reason::CannotEnforce => "the host can't hold a cut",
        Reason::DryRun => "dry-run",
        Reason::Escalated => "a contained actor tried other ways",
        Reason::Exemption => "exempt",
        Reason::Learn => "learning",
        Reason::Owner => "until the workload behind it is known",
        Reason::Trial => "on trial",
    }
}

/// The commands that release a containment, each with who runs it where; none when its name or its host's is not one:
/// names are strangers' words until their shape is checked, and people paste commands.
#[must_use]
pub fn release_commands(host: &str, containment: &Containment) -> Vec<(String, String)> {
    let id = &containment.id;
    let is_name = id.0.strip_prefix("c-").is_some_and(|digits| {
        digits.len() == 12
            && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    });
    let is_host = (1..=253).contains(&host.len())
        && !host.starts_with('-')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name || !is_host {
        return Vec::new();
    }
    let local = format!("sekisho release {id} --reason \"…\"");
    if containment.level < HOST_LEVEL {
        return vec![(format!("To release, on {host}"), local)];
    }
    let order =
        format!("sekisho-collector order release {host} {id} --reason \"…\" --key FILE --key FILE");
    vec![
        ("To release, two operators".to_owned(), order),
        (format!("or, on {host}"), format!("{local} --break-glass")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::{ContainmentId, Timestamp};

    #[test]
    fn what_could_deceive_a_reader_is_written_out() {
        assert_eq!(visible("a\u{202e}b\u{1b}[2Jc\nd"), "a\\u{202e}b\\u{1b}[2Jc\\u{a}d");
        assert_eq!(visible("関所 ü"), "関所 ü");
        assert_eq!(visible(&"x".repeat(10_000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_name_that_is_not_a_containments_gives_no_command_to_paste() {
        let named = |id: &str, level| Containment {
            id: ContainmentId(id.into()),
            scope: Scope::Host,
            level,
            since: Timestamp::EPOCH,
            until: Timestamp::MAX,
            cause: String::new(),
            finding: None,
            by: None,
            measure: sekisho_schema::Measure::Cut,
            trial_until: None,
        };
        let commands = |host: &str, id: &str, level| -> Vec<String> {
            release_commands(host, &named(id, level)).into_iter().map(|(_, text)| text).collect()
        };
        let id = "c-0123456789ab";
        assert_eq!(commands("web-1", id, 3), [format!("sekisho release {id} --reason \"…\"")]);
        let of_host = commands("web-1", id, 5);
        assert!(of_host[0].starts_with(&format!("sekisho-collector order release web-1 {id} ")));
        assert!(of_host[1].ends_with("--break-glass"), "{of_host:?}");
        for id in ["c-0123456789ab; rm -rf /", "$(reboot)", "c-0123456789AB", "c-", ""] {
            assert!(commands("web-1", id, 3).is_empty());
        }
        for host in ["web-1; reboot", "$(reboot)", "-h", ""] {
            assert!(commands(host, id, 5).is_empty());
        }
    }

    #[test]
    fn quantities_are_told_in_fitting_units() {
        assert_eq!(
            (bytes(0.0), bytes(999.0), bytes(1500.0), bytes(2e6), bytes(3.26e9)),
            ("0 B".into(), "999 B".into(), "1.5 kB".into(), "2 MB".into(), "3.3 GB".into())
        );
        assert_eq!(
            (
                short_time(840_000),
                short_time(1_400_000),
                short_time(12_000_000),
                short_time(1_400_000_000)
            ),
            ("840 µs".into(), "1.40 ms".into(), "12 ms".into(), "1.4 s".into())
        );
    }
}
