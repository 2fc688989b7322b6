//! The collector's page and API, through the door that the demo uses.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory fails loudly"
)]

use sekisho_integration::{Collector, Network, PolicyText, wait_for};
use std::time::Duration;

#[test]
fn the_page_and_the_api_of_a_collector_in_the_laboratory_are_reachable_from_this_machine() {
    let network = Network::build();
    let mut collector = Collector::init(&network);
    collector.start();
    let (status, page) = collector.get("/").unwrap();
    assert!(status == 200 && page.contains("<html"), "{status} {page}");
    assert!(
        !page.contains("src=\"http") && !page.contains("href=\"http"),
        "no asset from elsewhere"
    );
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json", "/api/v1/events"] {
        assert_eq!(collector.get(path).map(|(status, _)| status), Ok(200), "{path}");
    }
    assert!(collector.events().is_empty());
    let sealed = collector.seal(&PolicyText::new(3, "dry-run"));
    let pushed = collector.push(&sealed);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    wait_for("the pushed policy", Duration::from_secs(3), || {
        (collector.api("/api/v1/policy")?["policy"]["version"] == 3).then_some(())
    });
    collector.kill9();
    assert!(collector.get("/").is_err(), "a collector that is gone answers nothing");
    collector.start();
    assert_eq!(collector.api("/api/v1/policy").unwrap()["policy"]["version"], 3);
}
