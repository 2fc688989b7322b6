//! Texts: the cases of the rules, and documents in every format.

use sekisho_schema::intel::Format;

/// The cases of every rule.
pub(super) const CASES: [&str; 34] = [
    include_str!("../../../rules/cases/behaviour.allowance.toml"),
    include_str!("../../../rules/cases/behaviour.beacon.toml"),
    include_str!("../../../rules/cases/behaviour.dns-information.toml"),
    include_str!("../../../rules/cases/behaviour.fanout.toml"),
    include_str!("../../../rules/cases/behaviour.host-budget.toml"),
    include_str!("../../../rules/cases/behaviour.icmp.toml"),
    include_str!("../../../rules/cases/behaviour.persistence.toml"),
    include_str!("../../../rules/cases/behaviour.staging.toml"),
    include_str!("../../../rules/cases/behaviour.volume.toml"),
    include_str!("../../../rules/cases/c2.9002.toml"),
    include_str!("../../../rules/cases/c2.cobaltstrike.toml"),
    include_str!("../../../rules/cases/c2.derusbi.toml"),
    include_str!("../../../rules/cases/c2.dnscat2.toml"),
    include_str!("../../../rules/cases/c2.gh0st.toml"),
    include_str!("../../../rules/cases/c2.havoc.toml"),
    include_str!("../../../rules/cases/c2.iodine.toml"),
    include_str!("../../../rules/cases/c2.meterpreter.toml"),
    include_str!("../../../rules/cases/c2.mythic.toml"),
    include_str!("../../../rules/cases/c2.poisonivy.toml"),
    include_str!("../../../rules/cases/c2.ptunnel.toml"),
    include_str!("../../../rules/cases/c2.shadowpad.toml"),
    include_str!("../../../rules/cases/c2.sliver.toml"),
    include_str!("../../../rules/cases/c2.winnti.toml"),
    include_str!("../../../rules/cases/c2.zxshell.toml"),
    include_str!("../../../rules/cases/plugx.cookie.toml"),
    include_str!("../../../rules/cases/plugx.deaddrop.toml"),
    include_str!("../../../rules/cases/plugx.dns.toml"),
    include_str!("../../../rules/cases/plugx.http.toml"),
    include_str!("../../../rules/cases/plugx.p2p.toml"),
    include_str!("../../../rules/cases/plugx.rawip.toml"),
    include_str!("../../../rules/cases/plugx.tcp.toml"),
    include_str!("../../../rules/cases/plugx.udp.toml"),
    include_str!("../../../rules/cases/protocol.encrypted.toml"),
    include_str!("../../../rules/cases/protocol.mismatch.toml"),
];

pub(super) const ENFORCE: &str = include_str!("../../../rules/policies/enforce.toml");
pub(super) const LEARN: &str = include_str!("../../../rules/policies/learn.toml");

/// A list or feed of each format.
pub(super) const INTEL: [(Format, &str); 7] = [
    (
        Format::Plain,
        "# a list\n203.0.113.9\n198[.]51.100[.]0/24\nhxxp://evil.example/a?b=1\n=exact.example\n*.wild.example\n[2001:db8::1]:443\ne7d705a3286e19ea42f587b344ee6865\nt13d1516h2_8daaf6152771_e5627efa2ab1\n",
    ),
    (
        Format::Csv,
        "\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\"2026-01-01 00:00:00\",\"203.0.113.9\",\"443\",\"online\",\"2026-01-02\",\"Plug\"\"X\"\n# end\n",
    ),
    (Format::Dataset, "ZXZpbC5leGFtcGxl\nYmFkLmV4YW1wbGU=\n"),
    (
        Format::Misp,
        r#"{"response":[{"Event":{"id":"7","info":"x","Attribute":[{"uuid":"u","type":"ip-dst|port","value":"203.0.113.9|443","to_ids":true,"timestamp":"1767225600"},{"type":"domain","value":"evil.example","to_ids":true}],"Object":[{"Attribute":[{"type":"url","value":"http://evil.example/a","to_ids":true}]}]}}]}"#,
    ),
    (
        Format::Stix,
        r#"{"type":"bundle","id":"bundle--1","objects":[{"type":"indicator","id":"indicator--1","pattern":"[ipv4-addr:value = '203.0.113.9'] OR [domain-name:value IN ('a.example', 'b.example') OR url:value = 'http://s.example/a' OR file:name = 'x\\y']","pattern_type":"stix","valid_from":"2026-01-01T00:00:00Z","valid_until":"2027-01-01T00:00:00.5Z","confidence":80,"labels":["x"]}]}"#,
    ),
    (
        Format::Suricata,
        "alert dns any any -> any 53 (msg:\"a\\; b\"; dns.query; content:\"evil.example\"; nocase; endswith; sid:7; rev:1;)\n#alert tls $HOME_NET any -> [203.0.113.9,!198.51.100.1] 443 (tls.sni; content:\"x|2e|example\"; startswith; sid:8;)\nalert http any any -> any any (http.host; content:\"h.example\"; http.uri; content:\"/a\"; \\\nsid:9;)\n",
    ),
    (
        Format::Zeek,
        "#fields\tindicator\tindicator_type\tmeta.source\tmeta.desc\n203.0.113.9\tIntel::ADDR\tx\ty\nevil.example\tIntel::DOMAIN\tx\t-\n198.51.100.0/24\tIntel::SUBNET\tx\ty\n",
    ),
];

/// A pack with indicators and a detector with settings of its own.
pub(super) const PACK: &str = r#"schema = "sekisho.rules/1"
name = "seed"
version = 1

[[indicator]]
id = "a"
kind = "domain"
value = "evil.example"
source = "seed"
confidence = 90
grade = "malicious"
valid-until = "2027-01-01T00:00:00Z"

[[detector]]
id = "plugx.tcp"
source = "seed"
grade = "malicious"
"#;

/// A case with every word that a script knows.
pub(super) const CASE: &str = r#"schema = "sekisho.cases/1"
detector = "plugx.tcp"

[[case]]
name = "all"
expect = []
packets = '''
tcp 10.0.0.5:41000 > 203.0.113.9:443 # comment
> hex 0102 03 split 1 split 2 after 5us
< "text\r\n\x41" fill:30 repeat 3 after 2h
udp [2001:db8::1]:5 > [2001:db8::2]:53
> dns? TXT a.example
< dns! TXT a.example "words" 60
< dns! MX a.example "m.example"
icmp 10.0.0.5 > 203.0.113.9
> echo? 1 2 hex ff
< echo! 1 2 "x"
ip 89 10.0.0.5 > 203.0.113.9 midstream
> fill:9 after 18446744073709551615h
> "x"
'''
"#;
