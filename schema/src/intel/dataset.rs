//! Suricata datasets: one value a line, strings in base64, with an optional reputation after a comma.

use super::entry::{Facts, Id};
use super::observable::{Kind, Observable};
use super::report::{Hint, Intake, Offer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Bytes of the longest value of a dataset that is decoded.
const LONGEST: usize = 4096;

fn decode(text: &str) -> Option<String> {
    let is_base64 = text.len() >= 8 && text.len() <= LONGEST && text.len().is_multiple_of(4);
    let bytes = is_base64.then(|| BASE64.decode(text).ok())??;
    let plain = String::from_utf8(bytes).ok()?;
    (!plain.is_empty() && !plain.chars().any(char::is_control)).then_some(plain)
}

/// Whether the first lines are all strings in base64 that stand for something that is looked for.
pub(super) fn is_dataset(text: &str) -> bool {
    let mut some = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()).take(20) {
        let value = line.split_once(',').map_or(line, |(value, _)| value);
        if decode(value).is_none_or(|plain| Observable::parse(&plain).is_err()) {
            return false;
        }
        some = true;
    }
    some
}

pub(super) fn line(number: u32, text: &str, intake: &mut Intake<'_>) {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return;
    }
    let value = text.split_once(',').map_or(text, |(value, _)| value.trim());
    let facts = Facts::of_line(number);
    if value.parse::<std::net::IpAddr>().is_ok() || value.parse::<ipnet::IpNet>().is_ok() {
        intake.offer(&Offer::new(value, Hint::Ip, facts));
        return;
    }
    let is_hash =
        matches!(value.len(), 32 | 40 | 64) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash && intake.options.kind != Some(Kind::UserAgent) {
        intake.offer(&Offer::new(value, Hint::Any, facts));
        return;
    }
    match decode(value) {
        Some(plain) => {
            intake.offer(&Offer::new(&plain, Hint::Any, facts));
        }
        None => intake.leave(
            Id::Line(number),
            value,
            "not base64",
            "is no address, hash or text in base64".to_owned(),
        ),
    }
}
