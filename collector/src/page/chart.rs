//! Charts of learning: thresholds against cuts, gaps of a rhythm, hours of contact, amounts against their bounds.
//! Each is our own SVG with a text alternative; no word in it comes from a host.

use super::text::bytes;
use sekisho_engine::certify::report::{Curve, Point};
use sekisho_engine::certify::sentence::amount;
use sekisho_schema::episode::{Channel, EpisodeScore, input};
use std::fmt::Write as _;

/// Width of a chart: it is scaled to its column, and readable on a telephone without that.
const WIDTH: f64 = 400.0;
/// Where the drawing ends on the right.
const RIGHT: f64 = WIDTH - 10.0;
/// Thresholds that span more than this factor are drawn by their logarithm.
const DECADES: f64 = 20.0;

/// A bound in a chart: its words, and where it lies.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) words: String,
    pub(super) at: f64,
}

fn open(height: f64, label: &str) -> String {
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">"
    )
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// The next round number above a value: 1, 2 or 5 with zeros, also below one.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let fits = |step: &f64| step * power >= value * 0.999_999;
    [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0) * power
}

/// A score in its unit, short enough for an axis.
pub(super) fn short(channel: Channel, score: f64) -> String {
    match channel {
        Channel::Rhythm | Channel::Persistence => format!("{} h", trimmed(score)),
        Channel::Allowance | Channel::HostBudget | Channel::Dns => bytes(score.max(0.0)),
        Channel::Approved => format!("×{:.1}", 10_f64.powf(score)),
        Channel::Sum => trimmed(score),
    }
}

/// A number with one digit behind the point at most; two where it would be nothing else.
fn trimmed(value: f64) -> String {
    if value > 0.0 && value < 0.05 {
        return format!("{value:.2}");
    }
    let tenths = (value * 10.0).round() / 10.0;
    if tenths.fract() == 0.0 { format!("{tenths:.0}") } else { format!("{tenths:.1}") }
}

/// A rate a host-week for an axis.
fn rate(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An axis of thresholds.
struct Axis {
    low: f64,
    high: f64,
    left: f64,
    by_logarithm: bool,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, left: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let by_logarithm = low > 0.0 && high / low > DECADES;
        let (low, high) = if by_logarithm { (low.log10(), high.log10()) } else { (low, high) };
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        let room = (high - low) * 0.04;
        Self { low: low - room, high: high + room, left, by_logarithm }
    }

    fn x(&self, value: f64) -> f64 {
        let at = if self.by_logarithm { value.max(f64::MIN_POSITIVE).log10() } else { value };
        self.left + (RIGHT - self.left) * ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Values for labels: decades, or three steps.
    fn ticks(&self) -> Vec<f64> {
        if self.by_logarithm {
            let decades = self.low.ceil() as i32..=self.high.floor() as i32;
            let count = decades.clone().count();
            let step = count.div_ceil(5).max(1);
            return decades.step_by(step).map(|decade| 10_f64.powi(decade)).collect();
        }
        (0..4).map(|part| self.low + (self.high - self.low) * f64::from(part) / 3.0).collect()
    }
}

/// Threshold against actions a host-week, as seen and at most, with the thresholds that are granted. Below the lowest
/// score everything acts: there the line goes on level.
pub(super) fn curve(curve: &Curve, marks: &[Mark], host_weeks: f64) -> String {
    let (top, bottom, height) = (20.0 + 16.0 * marks.len() as f64, 196.0, 244.0);
    let channel = curve.channel;
    let values = curve.points.iter().map(|point| point.threshold).chain(marks.iter().map(|m| m.at));
    if curve.points.is_empty() {
        return String::new();
    }
    let axis = Axis::of(values, 46.0);
    let seen = curve.points.iter().map(|point| point.per_host_week).fold(0.0, f64::max);
    let bound = curve.points.iter().map(|point| point.at_most).fold(0.0, f64::max);
    // A bound far above what was seen would press the line to the floor.
    let most = round_up(bound.min((seen * 4.0).max(0.05)));
    let y = |rate: f64| bottom - (bottom - top) * (rate / most).min(1.0);
    let thresholds: Vec<String> = marks.iter().map(|mark| mark.words.clone()).collect();
    let said = if thresholds.is_empty() {
        "no threshold is granted".to_owned()
    } else {
        format!("granted: {}", thresholds.join(", "))
    };
    let mut svg = open(
        height,
        &format!(
            "{}: how many actions a host-week each threshold would have made. Lowest threshold {}, {} a host-week; {said}. The numbers follow as a table.",
            words(channel),
            curve.points.last().map_or_else(String::new, |point| short(channel, point.threshold)),
            rate(seen),
        ),
    );
    for part in 0..=2 {
        let value = most * f64::from(part) / 2.0;
        line(&mut svg, "grid", (axis.left, y(value)), (RIGHT, y(value)));
        text(&mut svg, (axis.left - 5.0, y(value) + 4.0), "end", &rate(value));
    }
    for value in axis.ticks() {
        let x = axis.x(value);
        line(&mut svg, "grid", (x, bottom), (x, bottom + 4.0));
        text(
            &mut svg,
            (x.clamp(60.0, RIGHT - 16.0), bottom + 17.0),
            "middle",
            &short(channel, value),
        );
    }
    text(&mut svg, ((axis.left + RIGHT) / 2.0, bottom + 38.0), "middle", "threshold");
    let one_more = if host_weeks > 0.0 { 1.0 / host_weeks } else { 0.0 };
    let path = |of: fn(&Point) -> f64| -> String {
        let mut points: Vec<String> = Vec::new();
        for point in &curve.points {
            points.push(format!("{:.1},{:.1}", axis.x(point.threshold), y(of(point))));
        }
        if let Some(last) = curve.points.last() {
            let level = y(of(last) + one_more);
            points.push(format!("{:.1},{level:.1}", axis.x(last.threshold)));
            points.push(format!("{:.1},{level:.1}", axis.left));
        }
        points.join(" ")
    };
    let _ = write!(svg, "<polyline class=\"bound\" points=\"{}\"/>", path(|point| point.at_most));
    let _ =
        write!(svg, "<polyline class=\"rate\" points=\"{}\"/>", path(|point| point.per_host_week));
    for (at, mark) in marks.iter().enumerate() {
        let (x, label) = (axis.x(mark.at), 14.0 + 16.0 * at as f64);
        line(&mut svg, "mark", (x, label + 3.0), (x, bottom));
        let (anchor, beside) = if x > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
        text(&mut svg, (x + beside, label), anchor, &mark.words);
    }
    svg.push_str("</svg>");
    svg
}

/// What a channel looks at, in words.
pub(super) const fn words(channel: Channel) -> &'static str {
    match channel {
        Channel::Rhythm => "Rhythm",
        Channel::Persistence => "Persistence",
        Channel::Allowance => "Upload to one destination",
        Channel::HostBudget => "Upload of a host in a day",
        Channel::Dns => "Information in names",
        Channel::Approved => "Upload to what is usual",
        Channel::Sum => "All evidence together",
    }
}

/// Seconds for an axis or a sentence.
fn seconds(value: f64) -> String {
    match value {
        v if v < 120.0 => format!("{} s", trimmed(v)),
        v if v < 7200.0 => format!("{} min", trimmed(v / 60.0)),
        v => format!("{} h", trimmed(v / 3600.0)),
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let x = share * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (x.floor() as usize, x.ceil() as usize);
    let value = |at: usize| sorted.get(at).copied().unwrap_or(0.0);
    value(low) + (value(high) - value(low)) * x.fract()
}

/// The last gaps of a rhythm: each a dot, with the band in which eight of ten lie.
pub(super) fn gaps(gaps: &[f32]) -> Option<(String, String)> {
    let gaps: Vec<f64> = gaps
        .iter()
        .map(|gap| f64::from(*gap))
        .filter(|gap| gap.is_finite() && *gap >= 0.0)
        .collect();
    if gaps.len() < 3 {
        return None;
    }
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let (low, middle, high) =
        (quantile(&sorted, 0.1), quantile(&sorted, 0.5), quantile(&sorted, 0.9));
    let caption = format!(
        "The last {} gaps between contacts: half are below {}, eight of ten lie from {} to {}. A machine waits like that, a person seldom.",
        gaps.len(),
        seconds(middle),
        seconds(low),
        seconds(high)
    );
    let (left, top, bottom) = (56.0, 12.0, 142.0);
    let most = round_up(sorted.last().copied().unwrap_or(1.0) * 1.05);
    let y = |gap: f64| bottom - (bottom - top) * (gap / most).min(1.0);
    let mut svg = open(176.0, &caption);
    for part in 0..=2 {
        let value = most * f64::from(part) / 2.0;
        line(&mut svg, "grid", (left, y(value)), (RIGHT, y(value)));
        text(&mut svg, (left - 5.0, y(value) + 4.0), "end", &seconds(value));
    }
    let _ = write!(
        svg,
        "<rect class=\"band\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        y(high),
        RIGHT - left,
        (y(low) - y(high)).max(1.0)
    );
    line(&mut svg, "middle", (left, y(middle)), (RIGHT, y(middle)));
    let step = (RIGHT - left) / gaps.len() as f64;
    for (at, gap) in gaps.iter().enumerate() {
        let x = left + step * (at as f64 + 0.5);
        let _ = write!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>", y(*gap));
    }
    text(&mut svg, (left, bottom + 18.0), "start", "oldest");
    text(&mut svg, (RIGHT, bottom + 18.0), "end", "last");
    text(&mut svg, ((left + RIGHT) / 2.0, bottom + 18.0), "middle", "gaps");
    svg.push_str("</svg>");
    Some((svg, caption))
}

/// Hours with contact of the seven days since the first: a field each.
pub(super) fn hours(score: &EpisodeScore) -> Option<(String, String)> {
    let days: Vec<u32> = input::DAYS
        .iter()
        .filter_map(|day| score.inputs.value(day))
        .map(|mask| mask as u32)
        .collect();
    if days.len() != input::DAYS.len() {
        return None;
    }
    let count: u32 = days.iter().map(|mask| mask.count_ones()).sum();
    let of_days = days.iter().filter(|mask| **mask != 0).count();
    let caption = format!(
        "Contact in {count} of the 168 hours since the first, on {of_days} of seven days; each field is an hour."
    );
    let (left, top, wide, high) = (46.0, 6.0, 14.2, 15.0);
    let mut svg = open(134.0, &caption);
    for (row, mask) in days.iter().enumerate() {
        let y = top + high * row as f64;
        text(&mut svg, (left - 5.0, y + 11.0), "end", &format!("day {}", row + 1));
        for hour in 0..24_u32 {
            let class = if mask >> hour & 1 == 1 { "on" } else { "off" };
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                left + wide * f64::from(hour),
                wide - 2.0,
                high - 2.0
            );
        }
    }
    let end = left + wide * 24.0;
    text(&mut svg, (left, 128.0), "start", "first hour");
    text(&mut svg, (end, 128.0), "end", "24th hour");
    svg.push_str("</svg>");
    Some((svg, caption))
}

/// Amounts as bars against bounds.
pub(super) fn bars(
    rows: &[(String, f64)],
    marks: &[Mark],
    unit: impl Fn(f64) -> String,
    caption: &str,
) -> Option<(String, String)> {
    if rows.is_empty() {
        return None;
    }
    let (left, top, step) = (112.0, 8.0 + 16.0 * marks.len() as f64, 24.0);
    let bottom = top + step * rows.len() as f64;
    let highest = rows.iter().map(|(_, value)| *value).chain(marks.iter().map(|mark| mark.at));
    let most = round_up(highest.fold(0.0, f64::max));
    let x = |value: f64| left + (RIGHT - left) * (value.max(0.0) / most).min(1.0);
    let mut svg = open(bottom + 30.0, caption);
    for part in 0..=2 {
        let value = most * f64::from(part) / 2.0;
        line(&mut svg, "grid", (x(value), top), (x(value), bottom));
        let anchor = if part == 2 { "end" } else { "middle" };
        text(&mut svg, (x(value), bottom + 16.0), anchor, &unit(value));
    }
    for (at, (name, value)) in rows.iter().enumerate() {
        let y = top + step * at as f64;
        text(&mut svg, (left - 6.0, y + 15.0), "end", name);
        let length = x(*value) - left;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\"/>",
            y + 4.0,
            length.max(1.0)
        );
        // Inside a long bar, beside a short one.
        let words = unit(*value);
        if length > (RIGHT - left) * 0.7 {
            let _ = write!(
                svg,
                "<text class=\"inside\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>",
                left + length - 5.0,
                y + 15.0
            );
        } else {
            text(&mut svg, (left + length + 5.0, y + 15.0), "start", &words);
        }
    }
    for (at, mark) in marks.iter().enumerate() {
        let (place, label) = (x(mark.at), 12.0 + 16.0 * at as f64);
        line(&mut svg, "mark", (place, label + 3.0), (place, bottom));
        let (anchor, beside) = if place > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
        text(&mut svg, (place + beside, label), anchor, &mark.words);
    }
    svg.push_str("</svg>");
    Some((svg, caption.to_owned()))
}

/// The amounts of a score against the thresholds of its channel.
pub(super) fn score(score: &EpisodeScore, marks: &[Mark]) -> Option<(String, String)> {
    let value = |name: &str| score.inputs.value(name).unwrap_or(0.0);
    let row = |words: &str, value: f64| (words.to_owned(), value);
    let bounds: Vec<String> = marks.iter().map(|mark| mark.words.clone()).collect();
    let against = |what: &str| {
        if bounds.is_empty() {
            format!("{what}.")
        } else {
            format!("{what}, against thresholds: {}.", bounds.join(", "))
        }
    };
    let in_bytes = |value: f64| bytes(value.max(0.0));
    match score.channel {
        Channel::Allowance => bars(
            &[
                row("went up", value(input::UP)),
                row("came down", value(input::DOWN)),
                row("net", score.score),
            ],
            marks,
            in_bytes,
            &against("Bytes in seven days; what counts is net"),
        ),
        Channel::HostBudget => bars(
            &[row("net of a day", value(input::NET)), row("in answers", value(input::ANSWERED))],
            marks,
            in_bytes,
            &against("Bytes of the host in a day to what is outside its baseline"),
        ),
        Channel::Dns => bars(
            &[row("in an hour", value(input::HOUR)), row("in a day", value(input::DAY))],
            marks,
            in_bytes,
            &against("Information in new names below one domain"),
        ),
        Channel::Approved => bars(
            &[
                row("today", value(input::TODAY)),
                row("usual day", value(input::TODAY_USUAL)),
                row("seven days", value(input::WEEK)),
                row("usual seven", value(input::WEEK_USUAL)),
            ],
            &[],
            in_bytes,
            &format!(
                "Bytes up against the envelope of the 28 days before; the score is their ratio, {}",
                short(score.channel, score.score)
            ),
        ),
        Channel::Sum => {
            let rows: Vec<(String, f64)> = score
                .inputs
                .0
                .iter()
                .filter(|(_, value)| *value >= 0.05)
                .map(|(name, value)| ((*name).to_owned(), *value))
                .chain([row("together", score.score)])
                .collect();
            bars(
                &rows,
                marks,
                trimmed,
                &against("Evidence in decades: 3 is one benign episode in a thousand"),
            )
        }
        Channel::Persistence | Channel::Rhythm => None,
    }
}

/// A granted threshold in a chart.
pub(super) fn mark(tier: &str, channel: Channel, threshold: f64) -> Mark {
    Mark { words: format!("{tier} above {}", short(channel, threshold)), at: threshold }
}

/// A score in full, for sentences.
pub(super) fn full(channel: Channel, score: f64) -> String {
    match channel {
        Channel::Rhythm | Channel::Persistence => short(channel, score),
        _ => amount(channel, score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_schema::Timestamp;
    use sekisho_schema::episode::ScoreInputs;

    #[test]
    fn a_curve_names_its_thresholds_and_lies_within_its_frame() {
        let points = (0..40)
            .map(|n| Point {
                threshold: 1e9 / f64::from(1 << n.min(20)),
                per_host_week: f64::from(n) / 160.0,
                at_most: f64::from(n + 3) / 160.0,
            })
            .collect();
        let drawn = curve(
            &Curve { channel: Channel::Allowance, points },
            &[mark("hold", Channel::Allowance, 39e6), mark("cut", Channel::Allowance, 110e6)],
            160.0,
        );
        assert!(
            drawn.contains("hold above 39 MB") && drawn.contains("cut above 110 MB"),
            "{drawn}"
        );
        for part in drawn.split("points=\"").skip(1) {
            for point in part.split('"').next().unwrap().split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((40.0..=RIGHT).contains(&x) && (0.0..=200.0).contains(&y), "{point}");
            }
        }
        assert_eq!(curve(&Curve { channel: Channel::Sum, points: Vec::new() }, &[], 160.0), "");
    }

    #[test]
    fn gaps_of_a_beacon_are_dots_and_a_sentence_and_too_few_are_none() {
        let beacon: Vec<f32> = (0..16).map(|n| 55.0 + n as f32 * 0.5).collect();
        let (svg, caption) = gaps(&beacon).unwrap();
        assert_eq!(svg.matches("<circle").count(), 16);
        assert!(caption.contains("half are below 58.8 s"), "{caption}");
        assert!(svg.contains("role=\"img\" aria-label=\"The last 16 gaps"));
        assert!(gaps(&[60.0, 60.0]).is_none() && gaps(&[f32::NAN; 5]).is_none());
    }

    #[test]
    fn a_volume_is_drawn_against_its_threshold_and_an_envelope_against_its_past() {
        let of = |channel, inputs: &[(&'static str, f64)], score| EpisodeScore {
            channel,
            score,
            at: Timestamp::EPOCH,
            inputs: ScoreInputs(inputs.to_vec()),
        };
        let volume = of(Channel::Allowance, &[(input::UP, 3e9), (input::DOWN, 1e6)], 2.999e9);
        let (svg, caption) = score(&volume, &[mark("hold", Channel::Allowance, 39e6)]).unwrap();
        assert_eq!(
            (svg.matches("class=\"bar\"").count(), svg.matches("class=\"mark\"").count()),
            (3, 1)
        );
        assert!(caption.contains("hold above 39 MB"), "{caption}");
        let names = [input::TODAY, input::TODAY_USUAL, input::WEEK, input::WEEK_USUAL];
        let inputs: Vec<_> = names.into_iter().zip([9e6, 1e6, 12e6, 5e6]).collect();
        let (_, caption) = score(&of(Channel::Approved, &inputs, 0.95), &[]).unwrap();
        assert!(caption.contains("×8.9"), "{caption}");
    }

    #[test]
    fn hours_of_contact_are_fields() {
        let inputs: Vec<_> = input::DAYS.into_iter().map(|day| (day, 7.0)).collect();
        let of = EpisodeScore {
            channel: Channel::Persistence,
            score: 21.0,
            at: Timestamp::EPOCH,
            inputs: ScoreInputs(inputs),
        };
        let (svg, caption) = hours(&of).unwrap();
        assert_eq!(svg.matches("class=\"on\"").count(), 21);
        assert!(caption.starts_with("Contact in 21 of the 168 hours"), "{caption}");
        assert!(hours(&EpisodeScore { inputs: ScoreInputs(Vec::new()), ..of }).is_none());
    }
}
