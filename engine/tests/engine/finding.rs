//! The finding as the contract has it.

use crate::forge::{Bench, C2, LOCAL, PROBE, START, end, hello};
use sekisho_engine::Output;
use sekisho_schema::Envelope;

fn line(bench: &Bench, wanted: &str) -> String {
    bench
        .log
        .iter()
        .filter_map(|output| match output {
            Output::Record(record) => Some(
                serde_json::to_string(&Envelope::new(17, "web-1", (**record).clone())).unwrap(),
            ),
            Output::Approve(_) | Output::AskOwner(_) | Output::Contain(_) => None,
        })
        .find(|line| line.contains(&format!("\"type\":\"{wanted}\"")))
        .unwrap()
}

#[test]
fn a_finding_is_the_line_of_the_contract() {
    let mut bench = Bench::new("enforce", "", &[]);
    bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 443), &PROBE));
    assert_eq!(line(&bench, "finding"), GOLDEN.replace('\n', ""));
}

#[test]
fn a_sighting_says_who_says_so() {
    let mut bench = Bench::new("enforce", "", &["203.0.113.9:443"]);
    bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 443), b""));
    let finding = bench.findings()[0];
    assert_eq!(
        finding.explanation,
        "web-1 began to speak to 203.0.113.9:443: 203.0.113.9:443 is an indicator of a report with confidence 90 of 100."
    );
    assert_eq!(finding.rule.as_deref(), Some("local@3#i-0"));
    assert_eq!(finding.indicator.as_ref().unwrap().source, "a report");
}

#[test]
fn a_file_theft_under_an_unknown_start_is_named_by_its_command() {
    // A header and nothing else: command 0x3005, enciphered with T1 under the key 0x12345678.
    let mut theft = PROBE;
    theft[4] ^= 0x05;
    theft[5] ^= 0x30;
    let mut bench = Bench::new("dry-run", "", &[]);
    bench.feed(&hello(START, end(LOCAL, 41_822), end(C2, 443), &theft));
    let text = &bench.findings()[0].explanation;
    assert!(text.contains("command 0x3005 (read file data (file theft))"), "{text}");
}

const GOLDEN: &str = r#"{"schema":"sekisho.event/1","seq":17,"at":"2026-05-28T20:26:40.003000000Z","host":"web-1","type":"finding",
"id":"f-a3172ab19859","detector":"plugx.tcp","grade":"malicious","score":null,
"subject":{"kind":"flow","value":"tcp 10.77.1.2:41822 -> 203.0.113.9:443"},
"flow":{"transport":"tcp","local":"10.77.1.2:41822","remote":"203.0.113.9:443","community_id":"1:qlwGCwHbCAyQOKAZ8+LJ7eg4vUk=","direction":"outbound"},
"name":null,"process":null,"place":null,"indicator":null,
"explanation":"web-1 spoke PlugX to 203.0.113.9:443: the first 16 bytes decode with cipher T1 to command 0x0000 (probe), 0 body bytes announced and 0 present, which fits a message that is a header only; the chance of this in other traffic is below 5 in 10,000,000,000.",
"evidence":[{"kind":"payload","alignment":"from-key","cipher":"T1","command":"0x0000","command_name":"probe","extra":0,"flags":"0x00000000","head":"78563412278a2aeac369b7747defc1dd","plain_size":0,"present":0,"proof":"header","size":0,"toward":"remote"}],
"frame":4,"first_packet_at":"2026-05-28T20:26:40.000000000Z","matched_at":"2026-05-28T20:26:40.003000000Z",
"decision":{"action":"contain","scope":"host","level":5,"reason":"trial","lease":"24h","containment":"c-ef9da61aaf21"},
"rule":"plugx@2#plugx.tcp","policy":42}"#;
