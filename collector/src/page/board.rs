//! The board: every text of the page, ready and harmless.

use super::finding::{Row, plain, row};
use super::plot::{self, HOUR};
use super::text::{self, visible};
use super::watch::Around;
use crate::clock;
use crate::policy::InForce;
use crate::store::{ContainmentView, HostView, Liveness, Store, StoreError};
use sekisho_schema::event::Preview;
use sekisho_schema::policy::Exemption;
use sekisho_schema::{Measure, Policy, Scope, Timestamp};

/// Findings on the page; older ones are in the API.
const FINDINGS: u64 = 50;
/// Lines of one list of a containment; more are in the API.
const LINES: usize = 12;
/// Containments on the page; more are in the API.
const CUTS: u64 = 200;

/// A time for the page: text for people, milliseconds for the script.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Milliseconds since the epoch.
    pub millis: i64,
    /// UTC to the second.
    pub text: String,
}

/// A containment on the page.
#[derive(Debug)]
pub struct Cut {
    /// Its place on the page.
    pub anchor: usize,
    /// Host and scope.
    pub host: String,
    /// What is cut.
    pub scope: String,
    /// `5 · host`.
    pub level: String,
    /// The sentence that says why.
    pub cause: String,
    /// Who asked, when a person did.
    pub by: Option<String>,
    /// When it began.
    pub since: Moment,
    /// When the kernel lets go.
    pub until: Moment,
    /// Class and words on whether the cut is proven.
    pub cut: (&'static str, String),
    /// Class and words on the exemptions.
    pub exemptions: (&'static str, &'static str),
    /// From the deciding frame to the kernel's acknowledgement.
    pub time_to_contain: Option<String>,
    /// What left after the match.
    pub leaked: Option<String>,
    /// The commands that release it, each with who runs it where.
    pub release: Vec<(String, String)>,
    /// Whether the host is silent, so that this can't be checked.
    pub unheard: bool,
    /// Whether some of it leaves all the same: observed, throttled, or a quota.
    pub mild: bool,
    /// Class and words on its trial, when it began or is on one.
    pub trial: Option<(&'static str, &'static str)>,
    /// Whether what is counted down to is the end of the trial.
    pub is_trial_end: bool,
    /// What the scope was found to be.
    pub target: Vec<String>,
    /// What stays open all the same.
    pub open: Vec<String>,
    /// What it would have refused in the days before.
    pub preview: Option<PreviewCard>,
}

/// What a cut would have refused in the days before.
#[derive(Debug)]
pub struct PreviewCard {
    /// One sentence.
    pub sum: String,
    /// The services and peers, those with the most bytes first.
    pub lines: Vec<String>,
}

/// A host on the page.
#[derive(Debug)]
pub struct HostRow {
    /// Its name.
    pub host: String,
    /// Its group.
    pub group: String,
    /// The agent's id.
    pub agent: String,
    /// `reporting`, `silent`, `waiting` or `denied`.
    pub liveness: &'static str,
    /// The mode policy asks for.
    pub requested: String,
    /// The mode in effect.
    pub effective: String,
    /// Whether they differ.
    pub differs: bool,
    /// Why they differ.
    pub why: Option<String>,
    /// Version of its policy.
    pub policy: String,
    /// Whether it is another than the one in force here.
    pub policy_behind: bool,
    /// When it was heard last.
    pub last_seen: Option<Moment>,
    /// Records waiting there.
    pub spool: String,
    /// Paths that a cut does not close there.
    pub coverage: Option<String>,
    /// Faults of its journal.
    pub journal_faults: u64,
}

/// The policy on the page.
#[derive(Debug)]
pub struct PolicyCard {
    /// Its version.
    pub version: u64,
    /// The start of its digest.
    pub digest: String,
    /// Mode, or that it can't be read.
    pub mode: String,
    /// When it was pushed.
    pub pushed: Moment,
    /// When it expires.
    pub expires: Option<Moment>,
    /// Whether it has expired.
    pub expired: bool,
    /// Group, owner, deputy.
    pub duty: Option<(String, String, String)>,
    /// Lines of the decision table.
    pub decide: Vec<String>,
    /// Exemptions.
    pub exempt: Vec<String>,
    /// How many hosts run it.
    pub adopted: String,
}

/// Every text of the page.
#[derive(Debug)]
pub struct Board {
    /// The organisation.
    pub organisation: String,
    /// When this was written.
    pub now: Moment,
    /// Alarms, worst first.
    pub alarms: Vec<String>,
    /// The sentence when nothing is cut, without its end.
    pub quiet: String,
    /// Whether there is nothing to see to: no alarm, and a host reports that may cut.
    pub calm: bool,
    /// When any host was heard last; ends the quiet sentence.
    pub heard: Option<Moment>,
    /// What is said of hosts not heard yet.
    pub waiting: String,
    /// What is cut now.
    pub cuts: Vec<Cut>,
    /// Findings, newest first.
    pub findings: Vec<Row>,
    /// Hosts, silent ones first.
    pub hosts: Vec<HostRow>,
    /// The policy in force.
    pub policy: Option<PolicyCard>,
    /// Notices, fuses, rehearsals, orders.
    pub around: Around,
    /// The plot for wide screens: our own SVG.
    pub plot_wide: String,
    /// The plot for narrow screens: our own SVG.
    pub plot_narrow: String,
}

pub(super) fn moment(at: Timestamp) -> Moment {
    Moment { millis: at.nanos() / 1_000_000, text: format!("{} UTC", clock::to_the_second(at)) }
}

impl Board {
    /// Reads the board from the store.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn read(
        store: &Store,
        policy: Option<&InForce>,
        notifies: bool,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut around = Around::read(store, policy, notifies, now)?;
        let hosts = store.hosts(now)?;
        let cuts = store.containments(false, CUTS, now)?;
        let findings = store.findings(FINDINGS, None)?;
        let explained = explanations(store, &cuts)?;
        let (samples, times) =
            (store.samples(now.before(HOUR))?, store.finding_times(now.before(HOUR))?);
        let version = policy.map(|policy| policy.stored.version);
        let (quiet, waiting) = quiet(&hosts);
        let mut alarms = alarms(&hosts, &cuts, policy, now);
        alarms.append(&mut around.alarms);
        let calm = alarms.is_empty()
            && hosts.iter().any(|host| {
                host.liveness == Liveness::Reporting && host.effective.as_deref() == Some("enforce")
            });
        Ok(Self {
            organisation: store.meta("organisation")?.unwrap_or_default(),
            now: moment(now),
            alarms,
            quiet,
            calm,
            waiting,
            around,
            heard: hosts.iter().filter_map(|host| host.last_seen).max().map(moment),
            cuts: cuts
                .iter()
                .zip(explained)
                .enumerate()
                .map(|(anchor, (view, explained))| cut(anchor, view, explained))
                .collect(),
            findings: findings.iter().map(row).collect(),
            policy: policy.map(|policy| policy_card(policy, &hosts, now)),
            hosts: hosts.into_iter().map(|host| host_row(host, version)).collect(),
            plot_wide: plot::draw(960, &samples, &times, now),
            plot_narrow: plot::draw(400, &samples, &times, now),
        })
    }
}

fn explanations(
    store: &Store,
    cuts: &[ContainmentView],
) -> Result<Vec<Option<String>>, StoreError> {
    cuts.iter()
        .map(|view| {
            view.containment
                .finding
                .as_deref()
                .map_or(Ok(None), |finding| store.explanation(&view.agent, finding))
        })
        .collect()
}

fn several(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// The sentence when nothing is cut, without its end; and what is said of hosts not heard yet.
fn quiet(hosts: &[HostView]) -> (String, String) {
    let count = |wanted: Liveness| hosts.iter().filter(|host| host.liveness == wanted).count();
    let (reporting, silent, waiting) =
        (count(Liveness::Reporting), count(Liveness::Silent), count(Liveness::Waiting));
    let watching = hosts
        .iter()
        .filter(|host| {
            host.liveness == Liveness::Reporting && host.effective.as_deref() != Some("enforce")
        })
        .count();
    let waiting = if waiting > 0 {
        format!("{} enrolled and not heard yet.", several(waiting, "host is", "hosts are"))
    } else {
        String::new()
    };
    if reporting + silent == 0 {
        let why = if waiting.is_empty() {
            "Nothing is cut, and nobody is watched: no host is enrolled yet"
        } else {
            "Nothing is cut, and no host has been heard yet"
        };
        return (why.to_owned(), waiting);
    }
    let mut text = match silent {
        0 => format!("Nothing is cut. {} reporting", several(reporting, "host", "hosts")),
        _ => format!(
            "Nothing is known to be cut, but {silent} of {} silent",
            several(reporting + silent, "host is", "hosts are")
        ),
    };
    match watching {
        0 => {}
        1 if reporting == 1 => text.push_str(", in a mode that never cuts"),
        _ => text.push_str(&format!(", {watching} of them in a mode that never cuts")),
    }
    (text, waiting)
}

fn alarms(
    hosts: &[HostView],
    cuts: &[ContainmentView],
    policy: Option<&InForce>,
    now: Timestamp,
) -> Vec<String> {
    let mut alarms = Vec::new();
    for view in
        cuts.iter().filter(|view| view.receipt.as_ref().is_some_and(|receipt| !receipt.applied))
    {
        alarms.push(format!(
            "{}: the kernel did not take the cut {}",
            visible(&view.host),
            visible(&view.containment.id.0)
        ));
    }
    for host in hosts {
        let name = visible(&host.host);
        if host.liveness == Liveness::Silent {
            let since = host.last_seen.map_or_else(
                || "since it enrolled".to_owned(),
                |seen| format!("since {} UTC", clock::to_the_second(seen)),
            );
            alarms
                .push(format!("{name} is silent {since}: an agent that falls silent is an alarm"));
        }
        if host.liveness == Liveness::Reporting && host.requested != host.effective {
            alarms.push(format!("{name} is not in the mode that was asked for"));
        }
        if host.journal_faults > 0 {
            alarms.push(format!(
                "{name}: the journal has {}",
                several(
                    usize::try_from(host.journal_faults).unwrap_or(usize::MAX),
                    "fault",
                    "faults"
                )
            ));
        }
    }
    if policy
        .and_then(|policy| policy.policy.as_ref())
        .and_then(|policy| policy.expires)
        .is_some_and(|expires| expires <= now)
    {
        alarms.push("the policy in force has expired; hosts keep it, frozen".to_owned());
    }
    alarms
}

fn cut(anchor: usize, view: &ContainmentView, explained: Option<String>) -> Cut {
    let containment = &view.containment;
    let receipt = view.receipt.as_ref();
    let mild = !matches!(containment.measure, Measure::Cut | Measure::Freeze);
    let held = if mild { "measure" } else { "cut" };
    Cut {
        anchor,
        host: visible(&view.host),
        scope: text::held(&containment.scope, containment.measure),
        level: format!(
            "level {} · {}",
            containment.level,
            match containment.scope {
                Scope::Internal(_) => "inside host",
                Scope::Container(_) => "container",
                _ => text::level(containment.level),
            }
        ),
        cause: visible(explained.as_deref().unwrap_or(&containment.cause)),
        by: containment.by.as_deref().map(visible),
        since: moment(containment.since),
        until: moment(containment.held_until()),
        trial: match (containment.trial_until, view.confirmed_at) {
            (Some(_), None) => {
                Some(("unsure", "on trial: the kernel lets go unless it is confirmed"))
            }
            (Some(_), Some(_)) => {
                Some(("unsure", "on trial: confirmed here, the host was not heard since"))
            }
            (None, Some(_)) => Some(("good", "trial confirmed by this collector")),
            (None, None) => None,
        },
        mild,
        is_trial_end: containment.trial_until.is_some(),
        target: receipt.map_or_else(Vec::new, |receipt| shown(&receipt.target)),
        open: receipt.map_or_else(Vec::new, |receipt| {
            let mut open = shown(&receipt.open);
            open.extend(
                receipt
                    .coverage
                    .iter()
                    .take(LINES)
                    .map(|path| format!("{}: a path that this host cannot cut", visible(path))),
            );
            open
        }),
        preview: view.preview.as_ref().map(preview),
        cut: match receipt {
            None => ("unsure", "no receipt yet".to_owned()),
            Some(receipt) if !receipt.applied => (
                "bad",
                format!(
                    "NOT CUT: {}",
                    visible(receipt.error.as_deref().unwrap_or("the kernel refused"))
                ),
            ),
            Some(receipt) => match receipt.cut.as_deref() {
                Some("proven") => ("good", format!("{held} proven")),
                Some(_) => ("bad", format!("{held} unproven")),
                None => ("unsure", format!("{held} held by the kernel, not probed")),
            },
        },
        exemptions: match receipt.and_then(|receipt| receipt.exemptions.as_deref()) {
            Some("ok") => ("good", "exemptions ok"),
            Some(_) => ("bad", "exemptions broken"),
            None => ("unsure", "exemptions not probed"),
        },
        time_to_contain: receipt
            .and_then(|receipt| receipt.time_to_contain_ns)
            .map(text::short_time),
        leaked: receipt.filter(|receipt| receipt.leaked_packets > 0).map(|receipt| {
            format!(
                "{} in {}",
                text::bytes(receipt.leaked_bytes as f64),
                several(
                    usize::try_from(receipt.leaked_packets).unwrap_or(usize::MAX),
                    "packet",
                    "packets"
                )
            )
        }),
        release: text::release_commands(&view.host, containment),
        unheard: view.liveness != Liveness::Reporting,
    }
}

fn shown(texts: &[String]) -> Vec<String> {
    texts.iter().take(LINES).map(|text| visible(text)).collect()
}

fn preview(preview: &Preview) -> PreviewCard {
    let size = |bytes: u64| text::bytes(bytes as f64);
    let incomplete =
        if preview.complete { "" } else { "; not every flow of that time is on record" };
    PreviewCard {
        sum: format!(
            "In the {} h before it would have refused {} flows with {} out, and let {} flows with {} go on{incomplete}.",
            preview.hours,
            preview.refused_flows,
            size(preview.refused_bytes_out),
            preview.kept_flows,
            size(preview.kept_bytes_out),
        ),
        lines: preview
            .lines
            .iter()
            .take(LINES)
            .map(|line| {
                let port = line.port.map_or_else(String::new, |port| format!("/{port}"));
                let remote =
                    line.remote.as_deref().map_or_else(String::new, |remote| format!(" {remote}"));
                let name =
                    line.name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
                visible(&format!(
                    "{}{remote} {}{port}{name}: {} flows, {} out, {} in",
                    line.what,
                    line.transport,
                    line.flows,
                    size(line.bytes_out),
                    size(line.bytes_in)
                ))
            })
            .collect(),
    }
}

fn host_row(host: HostView, in_force: Option<u64>) -> HostRow {
    let mode =
        |mode: Option<&String>| mode.map_or_else(|| "unknown".to_owned(), |mode| visible(mode));
    HostRow {
        host: visible(&host.host),
        group: visible(&host.group),
        liveness: match host.liveness {
            Liveness::Denied => "denied",
            Liveness::Reporting => "reporting",
            Liveness::Silent => "silent",
            Liveness::Waiting => "waiting",
        },
        requested: mode(host.requested.as_ref()),
        effective: mode(host.effective.as_ref()),
        differs: host.requested != host.effective,
        why: host.why.as_deref().map(visible),
        policy: host.policy_version.map_or_else(
            || "unknown".to_owned(),
            |version| if version == 0 { "none pushed".to_owned() } else { format!("v{version}") },
        ),
        policy_behind: host.policy_version.is_some()
            && in_force.is_some()
            && host.policy_version != in_force,
        last_seen: host.last_seen.map(moment),
        spool: host.spool.map_or_else(|| "unknown".to_owned(), |spool| spool.to_string()),
        coverage: (!host.coverage.is_empty()).then(|| visible(&host.coverage.join(", "))),
        journal_faults: host.journal_faults,
        agent: host.agent,
    }
}

fn policy_card(in_force: &InForce, hosts: &[HostView], now: Timestamp) -> PolicyCard {
    let version = in_force.stored.version;
    let policy = in_force.policy.as_ref();
    let expires = policy.and_then(|policy| policy.expires);
    let counted: Vec<&HostView> =
        hosts.iter().filter(|host| host.liveness != Liveness::Denied).collect();
    let adopted = counted.iter().filter(|host| host.policy_version == Some(version)).count();
    PolicyCard {
        version,
        digest: in_force.stored.digest.chars().take(12).collect(),
        mode: policy
            .map_or_else(|| "can't be read here".to_owned(), |policy| policy.mode.to_string()),
        pushed: moment(in_force.stored.pushed_at),
        expires: expires.map(moment),
        expired: expires.is_some_and(|expires| expires <= now),
        duty: policy.map(|policy| {
            (visible(&policy.duty.group), visible(&policy.duty.owner), visible(&policy.duty.deputy))
        }),
        decide: policy.map_or_else(Vec::new, decide_lines),
        exempt: policy
            .map_or_else(Vec::new, |policy| policy.exempt.iter().map(exemption).collect()),
        adopted: format!("{adopted} of {}", several(counted.len(), "host runs it", "hosts run it")),
    }
}

fn decide_lines(policy: &Policy) -> Vec<String> {
    let line = |rule: &sekisho_schema::policy::DecideRule| {
        let grade =
            serde_json::to_value(rule.grade).map_or_else(|_| String::new(), |grade| plain(&grade));
        let what = if rule.level == 0 {
            "record".to_owned()
        } else {
            let how = match rule.measure() {
                Some(measure) if !measure.is_cut() => measure.to_string(),
                _ => format!("cut {}", text::level(rule.level)),
            };
            format!("{how} for {}", rule.lease)
        };
        visible(&format!("{} {grade} or worse → {what}", rule.detector))
    };
    policy.decide.iter().map(line).collect()
}

fn exemption(exemption: &Exemption) -> String {
    let text = match exemption {
        Exemption::Peer { name, to, transport, port } => {
            let transport = transport.map_or_else(String::new, |transport| format!(" {transport}"));
            let port = port.map_or_else(String::new, |port| format!("/{port}"));
            format!("{name}: to {to}{transport}{port}")
        }
        Exemption::Service { name, transport, port, from } => {
            format!("{name}: service {transport}/{port} for {from}")
        }
    };
    visible(&text)
}
