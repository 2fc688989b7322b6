//! The table at the end of the story: what was measured, line by line, and whether it holds.

use serde_json::{Value, json};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub name: &'static str,
    /// What came of it, for people.
    pub value: String,
    /// Whether it is as it must be.
    pub holds: bool,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table {
    /// The same facts by name, for machines.
    pub facts: Value,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Where the collector's page is.
    pub page_url: String,
}

impl Table {
    /// Whether every line holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.holds)
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut facts = self.facts.clone();
        facts["page_url"] = json!(self.page_url);
        facts["lines"] = self
            .lines
            .iter()
            .map(|line| json!({"name": line.name, "value": line.value, "holds": line.holds}))
            .collect();
        facts
    }

    /// Text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        let mut text = String::from("\n");
        for line in &self.lines {
            let mark = if line.holds { "✓" } else { "✗" };
            text.push_str(&format!("{mark} {:width$}  {}\n", line.name, line.value));
        }
        text
    }
}
