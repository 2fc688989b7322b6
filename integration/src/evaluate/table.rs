//! What an experiment says: lines with a target and whether it was held, and a table with the others beside it.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// One measured number and what it must be.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// What it must be.
    pub target: String,
    /// What it was.
    pub measured: String,
    /// Whether it was; `None` for a number that is only told.
    pub held: Option<bool>,
}

/// A table for people: who or what, down; which number, across.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// Names of the columns.
    pub head: Vec<String>,
    /// The rows; the first cell says what the row is about.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// An empty table with these columns.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|word| (*word).to_owned()).collect(), rows: Vec::new() }
    }

    fn text(&self) -> String {
        let rows = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            rows().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> =
            (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in rows() {
            text.push_str("   ");
            for (cell, width) in row.iter().zip(widths.iter().copied()) {
                let _ = write!(text, " {cell:<width$} ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// All that an experiment says.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its number, `E1` to `E14`.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Its numbers.
    pub lines: Vec<Line>,
    /// The others beside us.
    pub grid: Option<Grid>,
    /// What a reader must know to read the numbers.
    pub notes: Vec<String>,
}

impl Outcome {
    /// An experiment that has said nothing yet.
    #[must_use]
    pub const fn new(id: &'static str, title: &'static str) -> Self {
        Self { id, title, lines: Vec::new(), grid: None, notes: Vec::new() }
    }

    /// Adds a number with its target.
    pub fn hold(
        &mut self,
        what: impl Into<String>,
        target: impl Into<String>,
        measured: impl Into<String>,
        held: bool,
    ) {
        let (what, target, measured) = (what.into(), target.into(), measured.into());
        self.lines.push(Line { what, target, measured, held: Some(held) });
    }

    /// Adds a number that is only told.
    pub fn tell(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        let (what, measured) = (what.into(), measured.into());
        self.lines.push(Line { what, target: String::new(), measured, held: None });
    }

    /// Adds what a reader must know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Whether every target was held, and there was one.
    #[must_use]
    pub fn holds(&self) -> bool {
        let mut judged = self.lines.iter().filter_map(|line| line.held).peekable();
        judged.peek().is_some() && judged.all(|held| held)
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self, seconds: f64) -> Value {
        let line = |line: &Line| json!({"what": line.what, "target": line.target, "measured": line.measured, "held": line.held});
        json!({
            "type": "experiment",
            "id": self.id,
            "title": self.title,
            "held": self.holds(),
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
            "head": self.grid.as_ref().map(|grid| &grid.head),
            "rows": self.grid.as_ref().map(|grid| &grid.rows),
            "notes": self.notes,
            "seconds": (seconds * 10.0).round() / 10.0,
        })
    }

    /// Text for a terminal.
    #[must_use]
    pub fn text(&self, seconds: f64) -> String {
        let mut text = format!("{} {} ({seconds:.1} s)\n", self.id, self.title);
        let mut lines = Grid::new(&["", "target", "measured", ""]);
        for line in &self.lines {
            let held = match line.held {
                Some(true) => "held",
                Some(false) => "MISSED",
                None => "",
            };
            lines.rows.push(vec![
                line.what.clone(),
                line.target.clone(),
                line.measured.clone(),
                held.to_owned(),
            ]);
        }
        text.push_str(&lines.text());
        if let Some(grid) = &self.grid {
            text.push('\n');
            text.push_str(&grid.text());
        }
        for note in &self.notes {
            let _ = writeln!(text, "    note: {note}");
        }
        text
    }
}

/// A share as people read it.
#[must_use]
pub fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let share = 100.0 * part as f64 / whole as f64;
    if share > 0.0 && share < 10.0 { format!("{share:.1} %") } else { format!("{share:.0} %") }
}

/// A span of seconds as people read it.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// Bytes as people read them.
#[must_use]
pub fn megabytes(bytes: f64) -> String {
    if bytes < 9.95e6 { format!("{:.1} MB", bytes / 1e6) } else { format!("{:.0} MB", bytes / 1e6) }
}

/// The middle of some numbers; `None` for none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_without_a_target_holds_nothing() {
        let mut outcome = Outcome::new("E0", "nothing");
        outcome.tell("a number", "1");
        assert!(!outcome.holds());
        outcome.hold("another", "1", "1", true);
        assert!(outcome.holds());
        outcome.hold("a third", "1", "2", false);
        assert!(!outcome.holds() && outcome.text(0.0).contains("MISSED"));
    }
}
