//! Counters and gauges, and their Prometheus text (contract, section 6).

use sekisho_schema::{Body, Span};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Upper bounds of the time-to-contain histogram in seconds: the target is 1 ms, the limit 10 ms.
const CONTAIN_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];

/// Everything that is counted. Writers hold the lock for some arithmetic, never for input or output.
#[derive(Debug, Default)]
pub struct Metrics {
    values: Mutex<Values>,
}

/// The values behind [`Metrics`].
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Requested mode.
    pub requested: String,
    /// Effective mode.
    pub effective: String,
    /// Frames read.
    pub packets: u64,
    /// Bytes of these frames on the wire.
    pub bytes: u64,
    /// Frames that the kernel dropped.
    pub dropped: u64,
    /// Frames not parsed, by reason.
    pub unparsed: BTreeMap<String, u64>,
    /// Share of the offered frames that was read, by interface.
    pub coverage: BTreeMap<String, f64>,
    /// Ways past a cut, by kind.
    pub gaps: BTreeMap<String, u64>,
    /// Flows seen.
    pub flows: u64,
    /// Indicators by kind and source.
    pub indicators: BTreeMap<(String, String), u64>,
    /// Findings by detector and grade.
    pub findings: BTreeMap<(String, String), u64>,
    /// Active containments by level.
    pub containments: BTreeMap<u8, u64>,
    /// Times to contain, in nanoseconds: bucket counts, sum, count.
    pub time_to_contain: ([u64; CONTAIN_BUCKETS.len()], i64, u64),
    /// Bytes that left after the match.
    pub leaked_bytes: u64,
    /// Times that the kernel held something else than it should.
    pub drift: u64,
    /// What learning has come to, and what it may do.
    pub learning: Learning,
    /// Destinations known beforehand: held by the kernel, wanted, left out for the cap.
    pub known: [u64; 3],
    /// Packets that the kernel dropped for such a destination.
    pub known_dropped: u64,
    /// Ways by which frames come, by interface: 2, or 1 where everything comes by the block.
    pub paths: BTreeMap<String, u8>,
    /// Reloads of the rules by outcome.
    pub reloads: BTreeMap<String, u64>,
    /// Whether our tables are in the kernel.
    pub table_owned: bool,
    /// Whether new raw sockets are refused: that it can be done, that it is done, how often; `None` before the guardian told.
    pub raw_sockets: Option<(bool, bool, u64)>,
    /// Whether the exemptions proved open; `None` before anything was proven.
    pub exemptions_ok: Option<bool>,
    /// Records not acknowledged by the collector.
    pub spool_records: u64,
    /// Bytes of the journal.
    pub spool_bytes: u64,
    /// Records lost: first class, others.
    pub spool_lost: [u64; 2],
    /// Version of the policy in force.
    pub policy_version: u64,
    /// Policies refused, by reason.
    pub policy_refused: BTreeMap<String, u64>,
}

/// What learning has come to, and what it may do.
#[derive(Clone, Debug, Default)]
pub struct Learning {
    /// Weeks of this host that were watched.
    pub host_weeks: f64,
    /// Episodes that go on, that are over, that found no place.
    pub episodes: [u64; 3],
    /// Version of the signed baseline in force; 0 for none.
    pub baseline: u64,
    /// Version of the certificate in force; 0 for none.
    pub certificate: u64,
    /// Baselines and certificates refused since the start.
    pub refusals: u64,
    /// Whether a channel may act, and the host-weeks that are missing, by tier and channel.
    pub channels: BTreeMap<(&'static str, &'static str), (bool, f64)>,
    /// Automatic cuts left in seven days.
    pub cuts_left: u32,
    /// Cuts that became holds because none was left.
    pub cuts_refused: u64,
    /// Cuts that a dry run would have made within seven days.
    pub cuts_rehearsed: u32,
    /// Whether cutting was taken back.
    pub is_revoked: bool,
    /// Whether what was learned could be written down the last time.
    pub is_kept: bool,
}

impl Metrics {
    /// The values, to change or copy. Hold it shortly.
    pub fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a record tells.
    pub fn count(&self, body: &Body) {
        let mut values = self.values();
        match body {
            Body::Finding(finding) => {
                let grade = serde_json::to_value(finding.grade)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default();
                *values.findings.entry((finding.detector.clone(), grade)).or_default() += 1;
            }
            Body::Mode(change) => {
                values.requested = change.requested.to_string();
                values.effective = change.effective.to_string();
            }
            Body::Policy(change) => values.policy_version = change.in_force,
            _ => {}
        }
    }

    /// Takes a measured time to contain.
    pub fn observe_time_to_contain(&self, time: Span) {
        let mut values = self.values();
        let (buckets, sum, count) = &mut values.time_to_contain;
        for (bucket, bound) in buckets.iter_mut().zip(CONTAIN_BUCKETS) {
            *bucket += u64::from(time.as_secs_f64() <= bound);
        }
        *sum = sum.saturating_add(time.nanos());
        *count += 1;
    }

    /// The Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        self.values().clone().render()
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Values {
    fn render(&self) -> String {
        let mut page = Page(String::new());
        page.family("sekisho_build_info", "gauge", "Version of the agent.");
        page.sample("sekisho_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.family("sekisho_mode", "gauge", "Requested and effective mode.");
        page.sample(
            "sekisho_mode",
            &[("requested", &self.requested), ("effective", &self.effective)],
            1,
        );
        self.render_sight(&mut page);
        self.render_judgement(&mut page);
        self.render_learning(&mut page);
        self.render_cut(&mut page);
        self.render_spool(&mut page);
        page.0
    }

    fn render_sight(&self, page: &mut Page) {
        page.single("sekisho_capture_packets_total", "counter", "Frames read.", self.packets);
        page.single(
            "sekisho_capture_bytes_total",
            "counter",
            "Bytes of the frames read, on the wire.",
            self.bytes,
        );
        page.single(
            "sekisho_capture_dropped_total",
            "counter",
            "Frames that the kernel dropped before they were read.",
            self.dropped,
        );
        page.family("sekisho_unparsed_total", "counter", "Frames not parsed, by reason.");
        for (reason, count) in &self.unparsed {
            page.sample("sekisho_unparsed_total", &[("reason", reason)], count);
        }
        page.family(
            "sekisho_coverage_ratio",
            "gauge",
            "Share of the offered frames that was read.",
        );
        for (interface, ratio) in &self.coverage {
            page.sample("sekisho_coverage_ratio", &[("interface", interface)], ratio);
        }
        page.family(
            "sekisho_capture_paths",
            "gauge",
            "Ways by which frames come: 2, or 1 where what can decide waits with everything else.",
        );
        for (interface, paths) in &self.paths {
            page.sample("sekisho_capture_paths", &[("interface", interface)], paths);
        }
        page.single("sekisho_flows", "gauge", "Flows seen since the start.", self.flows);
    }

    fn render_judgement(&self, page: &mut Page) {
        page.family("sekisho_indicators", "gauge", "Indicators looked for.");
        for ((kind, source), count) in &self.indicators {
            page.sample("sekisho_indicators", &[("kind", kind), ("source", source)], count);
        }
        page.family("sekisho_rules_reloads_total", "counter", "Reloads of the rules.");
        for (outcome, count) in &self.reloads {
            page.sample("sekisho_rules_reloads_total", &[("outcome", outcome)], count);
        }
        page.family("sekisho_findings_total", "counter", "Findings.");
        for ((detector, grade), count) in &self.findings {
            page.sample(
                "sekisho_findings_total",
                &[("detector", detector), ("grade", grade)],
                count,
            );
        }
        page.single(
            "sekisho_policy_version",
            "gauge",
            "Version of the policy in force.",
            self.policy_version,
        );
        page.family("sekisho_policy_refused_total", "counter", "Policies refused.");
        for (reason, count) in &self.policy_refused {
            page.sample("sekisho_policy_refused_total", &[("reason", reason)], count);
        }
    }

    fn render_learning(&self, page: &mut Page) {
        let learning = &self.learning;
        let mut gauge =
            |name: &str, help: &str, value: f64| page.single(name, "gauge", help, value);
        gauge(
            "sekisho_learning_host_weeks",
            "Weeks of this host that were watched.",
            learning.host_weeks,
        );
        gauge(
            "sekisho_learning_kept",
            "Whether what was learned could be written down the last time.",
            f64::from(u8::from(learning.is_kept)),
        );
        gauge(
            "sekisho_baseline_version",
            "Version of the signed baseline in force; 0 for none.",
            learning.baseline as f64,
        );
        gauge(
            "sekisho_certificate_version",
            "Version of the certificate in force; 0 for none.",
            learning.certificate as f64,
        );
        gauge(
            "sekisho_certificate_revoked",
            "Whether cutting was taken back because it was falser than promised.",
            f64::from(u8::from(learning.is_revoked)),
        );
        gauge(
            "sekisho_automatic_cuts_left",
            "Cuts on behaviour that are left in seven days.",
            f64::from(learning.cuts_left),
        );
        gauge(
            "sekisho_automatic_cuts_rehearsed",
            "Cuts on behaviour that a dry run would have made within seven days.",
            f64::from(learning.cuts_rehearsed),
        );
        page.single(
            "sekisho_automatic_cuts_refused_total",
            "counter",
            "Cuts on behaviour that became holds because none was left.",
            learning.cuts_refused,
        );
        page.single(
            "sekisho_documents_refused_total",
            "counter",
            "Baselines and certificates refused.",
            learning.refusals,
        );
        page.family("sekisho_episodes", "gauge", "Episodes of learning.");
        for (state, count) in ["watched", "over", "lost"].iter().zip(learning.episodes) {
            page.sample("sekisho_episodes", &[("state", state)], count);
        }
        page.family("sekisho_channel_unlocked", "gauge", "Whether a channel may act with a tier.");
        for ((tier, channel), (is_unlocked, _)) in &learning.channels {
            let labels = [("tier", *tier), ("channel", *channel)];
            page.sample("sekisho_channel_unlocked", &labels, u8::from(*is_unlocked));
        }
        let name = "sekisho_channel_missing_host_weeks";
        page.family(
            name,
            "gauge",
            "Host-weeks that a channel lacks before it may act with a tier.",
        );
        for ((tier, channel), (_, missing)) in &learning.channels {
            page.sample(name, &[("tier", tier), ("channel", channel)], missing);
        }
    }

    fn render_cut(&self, page: &mut Page) {
        page.family(
            "sekisho_containments_active",
            "gauge",
            "Containments that the kernel shall hold.",
        );
        for level in [3_u8, 4, 5, 6] {
            page.sample(
                "sekisho_containments_active",
                &[("level", &level.to_string())],
                self.containments.get(&level).copied().unwrap_or(0),
            );
        }
        let name = "sekisho_time_to_contain_seconds";
        let (buckets, sum, count) = &self.time_to_contain;
        page.family(
            name,
            "histogram",
            "Kernel time stamp of the deciding frame to the kernel's acknowledgement.",
        );
        for (bucket, bound) in buckets.iter().zip(CONTAIN_BUCKETS) {
            page.sample(&format!("{name}_bucket"), &[("le", &bound.to_string())], bucket);
        }
        page.sample(&format!("{name}_bucket"), &[("le", "+Inf")], count);
        page.sample(&format!("{name}_sum"), &[], Span::from_nanos(*sum).as_secs_f64());
        page.sample(&format!("{name}_count"), &[], count);
        page.single(
            "sekisho_leaked_bytes_total",
            "counter",
            "Bytes of contained scopes that left after the match.",
            self.leaked_bytes,
        );
        page.single(
            "sekisho_containment_drift_total",
            "counter",
            "Times that the kernel held something else than it should.",
            self.drift,
        );
        page.family(
            "sekisho_known_destinations",
            "gauge",
            "Destinations known beforehand: held by the kernel, wanted by policy, left out for the cap.",
        );
        for (state, count) in ["held", "wanted", "over-cap"].iter().zip(self.known) {
            page.sample("sekisho_known_destinations", &[("state", state)], count);
        }
        page.single(
            "sekisho_known_dropped_total",
            "counter",
            "Packets that the kernel dropped for a destination known beforehand.",
            self.known_dropped,
        );
        page.single(
            "sekisho_table_owned",
            "gauge",
            "Whether our tables are in the kernel.",
            u8::from(self.table_owned),
        );
        if let Some((can, stands, refused)) = self.raw_sockets {
            let name = "sekisho_raw_socket_refusal";
            page.family(
                name,
                "gauge",
                "Whether new packet and AF_XDP sockets of what is contained can be, and are, refused.",
            );
            page.sample(name, &[("state", "able")], u8::from(can));
            page.sample(name, &[("state", "stands")], u8::from(stands));
            page.single(
                "sekisho_raw_sockets_refused_total",
                "counter",
                "Packet and AF_XDP sockets that the kernel refused, since the guardian began.",
                refused,
            );
        }
        page.family("sekisho_coverage_gaps", "gauge", "Ways past a cut on this host, by kind.");
        for (name, count) in &self.gaps {
            page.sample("sekisho_coverage_gaps", &[("name", name)], count);
        }
        if let Some(ok) = self.exemptions_ok {
            page.single(
                "sekisho_exemptions_ok",
                "gauge",
                "Whether the exemptions proved open.",
                u8::from(ok),
            );
        }
    }

    fn render_spool(&self, page: &mut Page) {
        page.single(
            "sekisho_spool_records",
            "gauge",
            "Records that the collector has not acknowledged.",
            self.spool_records,
        );
        page.single("sekisho_spool_bytes", "gauge", "Bytes of the journal.", self.spool_bytes);
        page.family("sekisho_spool_lost_total", "counter", "Records lost.");
        for (class, lost) in ["first", "other"].iter().zip(self.spool_lost) {
            page.sample("sekisho_spool_lost_total", &[("class", class)], lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_is_cumulative_and_ends_with_everything() {
        let metrics = Metrics::default();
        metrics.observe_time_to_contain(Span::from_nanos(300_000));
        metrics.observe_time_to_contain(Span::from_secs(60));
        let page = metrics.render();
        for line in [
            "sekisho_time_to_contain_seconds_bucket{le=\"0.00025\"} 0",
            "sekisho_time_to_contain_seconds_bucket{le=\"0.0005\"} 1",
            "sekisho_time_to_contain_seconds_bucket{le=\"10\"} 1",
            "sekisho_time_to_contain_seconds_bucket{le=\"+Inf\"} 2",
            "sekisho_time_to_contain_seconds_count 2",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let metrics = Metrics::default();
        metrics.values().unparsed.insert("a\"} 1\nx".to_owned(), 2);
        assert!(metrics.render().contains(r#"sekisho_unparsed_total{reason="a\"} 1\nx"} 2"#));
    }
}
