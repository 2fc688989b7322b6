//! The plot: findings as markers over the rate of bytes out, for the last hour.

use super::text::bytes;
use crate::clock;
use crate::store::Sample;
use sekisho_schema::{Span, Timestamp};
use std::fmt::Write as _;

/// What the plot shows.
pub(super) const HOUR: Span = Span::from_hours(1);
/// Width of one step of the line.
const BIN: i64 = 20_000_000_000;
/// A pair of samples further apart than this says nothing about the time between.
const APART: i64 = 90_000_000_000;
/// States come every ten seconds, so that the last steps are not complete yet.
const INCOMPLETE: i64 = 12_000_000_000;

/// Bytes per second in each step from `start`; `None` where nobody said.
fn rates(samples: &[Sample], start: i64, now: i64) -> Vec<Option<f64>> {
    let steps = usize::try_from((now - INCOMPLETE - start) / BIN).unwrap_or(0);
    let mut rates = vec![None; steps];
    for pair in samples.windows(2) {
        let [from, to] = pair else { continue };
        let (begin, end) = (from.at.nanos(), to.at.nanos());
        if from.agent != to.agent || from.boot != to.boot || end <= begin || end - begin > APART {
            continue;
        }
        let per_nano = to.bytes_out.saturating_sub(from.bytes_out) as f64 / (end - begin) as f64;
        for (place, rate) in rates.iter_mut().enumerate() {
            let left = start + i64::try_from(place).unwrap_or(0) * BIN;
            let shared = end.min(left + BIN) - begin.max(left);
            if shared > 0 {
                *rate = Some(rate.unwrap_or(0.0) + per_nano * shared as f64 * 1e9 / BIN as f64);
            }
        }
    }
    rates
}

/// The next round number above a value: 1, 2 or 5 with zeros.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(value)
}

struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    start: i64,
    now: i64,
    most: f64,
}

impl Frame {
    fn x(&self, at: i64) -> f64 {
        self.left
            + (self.right - self.left) * (at - self.start) as f64 / (self.now - self.start) as f64
    }

    fn y(&self, rate: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * rate / self.most
    }
}

/// The plot as SVG of a width in pixels. All text in it is our own.
pub(super) fn draw(
    width: u32,
    samples: &[Sample],
    findings: &[(Timestamp, String)],
    now: Timestamp,
) -> String {
    let start = now.before(HOUR).nanos();
    let rates = rates(samples, start, now.nanos());
    let highest = rates.iter().flatten().copied().fold(0.0, f64::max);
    let most = round_up(highest.max(100.0));
    let frame = Frame {
        left: 62.0,
        right: f64::from(width) - 14.0,
        top: 48.0,
        bottom: 186.0,
        start,
        now: now.nanos(),
        most,
    };
    let class = if width > 600 { "wide" } else { "narrow" };
    let mut svg = format!(
        "<svg class=\"plot {class}\" viewBox=\"0 0 {width} 226\" role=\"img\" aria-label=\"Bytes out per second and findings, last hour. Highest {} per second; {} findings.\">",
        bytes(highest),
        findings.len()
    );
    axes(&mut svg, &frame, width);
    line(&mut svg, &frame, &rates);
    markers(&mut svg, &frame, findings);
    svg.push_str("</svg>");
    svg
}

fn axes(svg: &mut String, frame: &Frame, width: u32) {
    for part in 0..=2 {
        let rate = frame.most * f64::from(part) / 2.0;
        let y = frame.y(rate);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            frame.left, frame.right
        );
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}/s</text>",
            frame.left - 6.0,
            y + 4.0,
            bytes(rate)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"26\" text-anchor=\"end\">findings</text>",
        frame.left - 6.0
    );
    let step: i64 = if width > 600 { 10 } else { 20 };
    let minute = 60_000_000_000;
    let mut at = (frame.start / (step * minute) + 1) * step * minute;
    while at <= frame.now {
        let x = frame.x(at);
        let label: String = clock::of_day(Timestamp::from_nanos(at)).chars().take(5).collect();
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"12\" y2=\"{:.1}\"/>",
            frame.bottom
        );
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            frame.bottom + 16.0
        );
        at += step * minute;
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">time of day (UTC), last hour</text>",
        (frame.left + frame.right) / 2.0,
        frame.bottom + 34.0
    );
}

fn line(svg: &mut String, frame: &Frame, rates: &[Option<f64>]) {
    let middle =
        |place: usize| frame.x(frame.start + i64::try_from(place).unwrap_or(0) * BIN + BIN / 2);
    let mut run: Vec<(f64, f64)> = Vec::new();
    let mut close = |run: &mut Vec<(f64, f64)>| {
        if let (Some(first), Some(last)) = (run.first().copied(), run.last().copied()) {
            let points =
                run.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
            let _ = write!(
                svg,
                "<polygon class=\"area\" points=\"{:.1},{:.1} {points} {:.1},{:.1}\"/>",
                first.0, frame.bottom, last.0, frame.bottom
            );
            let _ = write!(svg, "<polyline class=\"rate\" points=\"{points}\"/>");
            if run.len() == 1 {
                let _ = write!(
                    svg,
                    "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>",
                    first.0, first.1
                );
            }
        }
        run.clear();
    };
    for (place, rate) in rates.iter().enumerate() {
        match rate {
            Some(rate) => run.push((middle(place), frame.y(*rate))),
            None => close(&mut run),
        }
    }
    close(&mut run);
}

fn markers(svg: &mut String, frame: &Frame, findings: &[(Timestamp, String)]) {
    for (at, grade) in findings {
        let (class, height) = match grade.as_str() {
            "malicious" => ("malicious", 22.0),
            "suspect" => ("suspect", 27.0),
            _ => ("odd", 32.0),
        };
        let x = frame.x(at.nanos().clamp(frame.start, frame.now));
        let _ = write!(
            svg,
            "<line class=\"{class} stem\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{height:.1}\" y2=\"{:.1}\"/>",
            frame.bottom
        );
        let _ = write!(
            svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{height:.1}\" r=\"5\"><title>{class} finding at {} UTC</title></circle>",
            clock::of_day(*at)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn sample(agent: &str, boot: &str, secs_ago: i64, bytes_out: u64) -> Sample {
        Sample {
            agent: agent.into(),
            boot: boot.into(),
            at: NOW.before(Span::from_secs(secs_ago)),
            bytes_out,
        }
    }

    #[test]
    fn a_steady_stream_of_two_hosts_adds_up() {
        let mut samples: Vec<Sample> = (0..=60)
            .rev()
            .map(|step| sample("a", "1", step * 10, u64::try_from(60 - step).unwrap() * 1000))
            .collect();
        samples.extend(
            (0..=60)
                .rev()
                .map(|step| sample("b", "1", step * 10, u64::try_from(60 - step).unwrap() * 500)),
        );
        let rates = rates(&samples, NOW.before(HOUR).nanos(), NOW.nanos());
        assert!(rates[..148].iter().all(Option::is_none));
        assert!(rates[152..].iter().all(|rate| (rate.unwrap() - 150.0).abs() < 0.01), "{rates:?}");
    }

    #[test]
    fn a_restart_of_the_agent_is_no_traffic_and_an_outage_is_a_gap() {
        let samples = [
            sample("a", "1", 600, 0),
            sample("a", "1", 590, 9000),
            sample("a", "2", 580, 10),
            sample("a", "2", 300, 5000),
        ];
        let rates = rates(&samples, NOW.before(HOUR).nanos(), NOW.nanos());
        let total: f64 = rates.iter().flatten().sum();
        assert!((total * 20.0 - 9000.0).abs() < 1.0, "{total}");
    }

    #[test]
    fn axes_carry_units_and_each_finding_its_marker() {
        let svg = draw(
            960,
            &[],
            &[(NOW.before(Span::from_secs(60)), "malicious".into()), (NOW, "<script>".into())],
            NOW,
        );
        assert!(
            svg.contains("100 B/s")
                && svg.contains("time of day (UTC)")
                && svg.matches("<circle").count() == 2
                && !svg.contains("script")
        );
    }
}
