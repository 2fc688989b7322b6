//! One sentence for a ruling: the number, the threshold, and the threshold at which it would not have been.

use super::episode::{Channel, DAY_FLOOR, DNS_DAY_HOURS, Tier, input, mixture};
use sekisho_schema::ruling::Ruling;

/// A ruling in plain English, with the numbers that decided.
#[must_use]
pub fn sentence(ruling: &Ruling) -> String {
    let mut text = format!(
        "{}: {}; {} is due above {} and would not be at {}",
        ruling.key,
        what(ruling),
        deed(ruling.reached),
        amount(ruling.channel(), ruling.threshold),
        amount(ruling.channel(), ruling.counter_threshold),
    );
    if ruling.budget > 0.0 {
        text.push_str(&format!(
            " (a threshold that benign traffic passes at most {} times a host-week)",
            rounded(ruling.budget, 4)
        ));
    }
    if let Some(reduced) = &ruling.reduced {
        text.push_str(&format!("; done is {} only: {reduced}", deed(ruling.tier)));
    }
    text
}

const fn deed(tier: Tier) -> &'static str {
    match tier {
        Tier::Alert => "an alert",
        Tier::Hold => "a hold",
        Tier::CutDestination => "a cut of the destination",
        Tier::IsolateHost => "a cut of the host",
    }
}

/// What the channel saw.
fn what(ruling: &Ruling) -> String {
    let score = &ruling.score;
    let value = |name: &str| score.inputs.value(name).unwrap_or(0.0);
    match score.channel {
        Channel::Rhythm => format!(
            "contact in {} hours since its rhythm was proven (odds of 10^{:.1} against unplanned traffic)",
            score.score,
            mixture(&score.inputs).unwrap_or(0.0)
        ),
        Channel::Persistence => format!("contact in {} of the hours of seven days", score.score),
        Channel::Allowance => format!(
            "{} went up and {} came down in seven days, {} net",
            bytes(value(input::UP)),
            bytes(value(input::DOWN)),
            bytes(score.score)
        ),
        Channel::HostBudget => format!(
            "{} net went to destinations outside the baseline in a day, {} of it in answers",
            bytes(score.score),
            bytes(value(input::ANSWERED))
        ),
        Channel::Dns => {
            let (hour, day) = (value(input::HOUR), value(input::DAY));
            if hour >= day / DNS_DAY_HOURS {
                format!("new names below it carried {} of information in an hour", bytes(hour))
            } else {
                format!("new names below it carried {} of information in a day", bytes(day))
            }
        }
        Channel::Approved => format!(
            "{} went up today against {} on the largest of 28 days, {} in seven days against {}, a ratio of {:.2} above floors of {} and more",
            bytes(value(input::TODAY)),
            bytes(value(input::TODAY_USUAL)),
            bytes(value(input::WEEK)),
            bytes(value(input::WEEK_USUAL)),
            10_f64.powf(score.score),
            bytes(DAY_FLOOR)
        ),
        Channel::Sum => {
            let mut terms: Vec<(&str, f64)> =
                score.inputs.0.iter().filter(|(_, value)| *value >= 0.05).copied().collect();
            terms.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            let told: Vec<String> =
                terms.iter().map(|(name, value)| format!("{name} {value:.1}")).collect();
            format!("evidence of {:.2} together ({})", score.score, told.join(", "))
        }
    }
}

/// A score or a threshold of a channel, in its unit.
#[must_use]
pub fn amount(channel: Channel, score: f64) -> String {
    match channel {
        Channel::Rhythm | Channel::Persistence => format!("{} h", rounded(score, 1)),
        Channel::Allowance | Channel::HostBudget | Channel::Dns => bytes(score),
        Channel::Approved => format!("a ratio of {:.2}", 10_f64.powf(score)),
        Channel::Sum => format!("{score:.2}"),
    }
}

/// A number without the digits that nobody reads: the last of them do not survive every way through decimal
/// text, and the sentence must.
fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes as a person compares them, in powers of 1000.
fn bytes(value: f64) -> String {
    for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if value >= size {
            return format!("{:.1} {unit}", value / size);
        }
    }
    format!("{value:.0} B")
}
