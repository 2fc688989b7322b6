//! What the kernel of a host holds.

use super::node::Node;
use serde_json::Value;

/// The ruleset of a namespace as text, counters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset(pub String);

impl Ruleset {
    /// Reads it.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self(node.run("nft -s list ruleset"))
    }

    /// Whether a table of ours is there.
    #[must_use]
    pub fn has_our_tables(&self) -> bool {
        self.0.contains("sekisho")
    }
}

/// Every set element of our tables that carries a time-out: what is cut right now, as the kernel lists it.
#[must_use]
pub fn timed_elements(node: &Node) -> Vec<Value> {
    let listed: Value =
        serde_json::from_str(&node.run("nft -j list ruleset")).expect("nft prints JSON");
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    objects
        .iter()
        .filter_map(|object| object.get("set"))
        .filter(|set| set["table"].as_str().is_some_and(|table| table.starts_with("sekisho")))
        .filter_map(|set| set["elem"].as_array())
        .flatten()
        .filter(|element| element["elem"]["expires"].is_number())
        .cloned()
        .collect()
}
