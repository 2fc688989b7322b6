//! Zeek Intel files: tab-separated, their columns named by a `#fields` line.

use super::entry::{Facts, Id};
use super::observable::Kind;
use super::report::{Hint, Intake, Offer};

/// Which column holds what, as the `#fields` line says.
#[derive(Debug, Default)]
pub(super) struct Zeek {
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Confidence,
    Description,
    Indicator,
    Other,
    Source,
    Type,
}

impl Zeek {
    pub(super) fn line(&mut self, number: u32, text: &str, intake: &mut Intake<'_>) {
        if let Some(names) = text.strip_prefix("#fields") {
            self.fields = names.split_whitespace().map(field).collect();
            return;
        }
        if text.trim().is_empty() || text.starts_with('#') {
            return;
        }
        let place = Id::Line(number);
        let (mut value, mut kind, mut source, mut labels, mut confidence) =
            ("", "", None, "", None);
        // Tabs by the book; files edited by hand have blanks.
        let by_tab = text.contains('\t');
        let mut columns = text.split('\t');
        let mut words = text.split_whitespace();
        for field in &self.fields {
            let next = if by_tab { columns.next() } else { words.next() };
            let Some(column) = next.map(str::trim).filter(|column| *column != "-") else {
                continue;
            };
            match field {
                Field::Confidence => confidence = confidence_of(column),
                Field::Description => labels = column,
                Field::Indicator => value = column,
                Field::Other => {}
                Field::Source => source = Some(column),
                Field::Type => kind = column,
            }
        }
        let hint = match kind {
            "Intel::ADDR" => Hint::Ip,
            "Intel::SUBNET" => Hint::Kind(Kind::Network),
            "Intel::DOMAIN" => Hint::Kind(Kind::Domain),
            "Intel::URL" => Hint::Kind(Kind::Url),
            "Intel::CERT_HASH" => Hint::Kind(Kind::Certificate),
            "Intel::JA3" => Hint::Kind(Kind::Ja3),
            "Intel::JA4" => Hint::Kind(Kind::Ja4),
            "Intel::SOFTWARE" => Hint::Kind(Kind::UserAgent),
            "" => {
                let why = "no #fields line names indicator and indicator_type before it";
                return intake.leave(place, text, "no header", why.to_owned());
            }
            other => {
                let why = format!("{other} is not looked for");
                return intake.leave(place, value, "kind not looked for", why);
            }
        };
        let facts = Facts { source, labels, confidence, ..Facts::of_line(number) };
        // A subnet of one address is written in either form.
        let hint = if hint == Hint::Kind(Kind::Network) { Hint::Ip } else { hint };
        // Zeek's URLs have no scheme, and their names are exact.
        let exact = (kind == "Intel::DOMAIN").then_some(true);
        intake.offer(&Offer { exact, ..Offer::new(value, hint, facts) });
    }
}

fn confidence_of(text: &str) -> Option<u8> {
    let number: f64 = text.parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number as u8)
}

fn field(name: &str) -> Field {
    match name {
        "indicator" => Field::Indicator,
        "indicator_type" => Field::Type,
        "meta.confidence" => Field::Confidence,
        "meta.desc" => Field::Description,
        "meta.source" => Field::Source,
        _ => Field::Other,
    }
}
