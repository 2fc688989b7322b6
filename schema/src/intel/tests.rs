//! Every format by made-up text of its own, and every reader by text that nobody should have written.

use super::*;
use crate::finding::{Grade, IndicatorClass};
use crate::time::{Span, Timestamp};
use base64::Engine as _;

/// Id, source, confidence, grade, class and labels.
type Told = (String, Option<String>, Option<u8>, Option<Grade>, IndicatorClass, String);

/// Keeps what it is given, as text.
#[derive(Default)]
struct Kept {
    values: Vec<String>,
    facts: Vec<Told>,
    until: Vec<Option<Timestamp>>,
}

impl Taker for Kept {
    fn take(
        &mut self,
        observable: &Observable<'_>,
        facts: &Facts<'_>,
    ) -> Result<(), ParseObservableError> {
        let text = match observable {
            Observable::Address(address) => address.to_string(),
            Observable::Certificate(hash) => format!("cert {}", crate::sealed::hex(hash.bytes())),
            Observable::Domain { name, exact: false } => name.to_string(),
            Observable::Domain { name, exact: true } => format!("={name}"),
            Observable::Endpoint(end) => end.to_string(),
            Observable::Ja3(hash) => format!("ja3 {}", crate::sealed::hex(hash)),
            Observable::Ja4(text) => format!("ja4 {text}"),
            Observable::Network(network) => network.to_string(),
            Observable::Url(url) if url.is_prefix() => format!("{}*", url.as_str()),
            Observable::Url(url) => url.as_str().to_owned(),
            Observable::UserAgent(text) => format!("ua {text}"),
        };
        self.values.push(text);
        let id = match facts.id {
            Id::Line(line) => line.to_string(),
            Id::Text(text) => text.to_owned(),
        };
        self.facts.push((
            id,
            facts.source.map(str::to_owned),
            facts.confidence,
            facts.grade,
            facts.class,
            facts.labels.to_owned(),
        ));
        self.until.push(facts.valid_until);
        Ok(())
    }
}

fn read_all(text: &str) -> (Kept, Report) {
    read_with(text, ReadOptions::default())
}

fn read_with(text: &str, options: ReadOptions) -> (Kept, Report) {
    let mut kept = Kept::default();
    let report = read(text.as_bytes(), options, &mut kept).unwrap();
    (kept, report)
}

/// What was left out, as `place: why`.
fn left(report: &Report) -> Vec<String> {
    report.left_out.iter().map(|left| format!("{}: {}", left.place, left.why)).collect()
}

const JA3: &str = "e7d705a3286e19ea42f587b344ee6865";
const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// Law: what takes the short way is read as it is with a blank before it, which takes the long one.
#[test]
fn the_short_way_reads_lines_as_the_long_way_does() {
    const PARTS: [&str; 34] = [
        "a",
        "Z",
        "0",
        "1",
        "9",
        "25",
        "255",
        "256",
        "00",
        ".",
        ".",
        ".",
        ".",
        "..",
        "-",
        "_",
        " ",
        "#",
        "co",
        "com",
        "jp",
        "=",
        "/",
        ":",
        "é",
        "\r",
        "www.",
        "c2.example",
        "203.0.113.",
        "10.0.0.",
        "127.0.0.1",
        "hxxp",
        "meow.",
        "[.]",
    ];
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut lines: Vec<String> =
        ["255.255.255.255", "1.2.3.4.5", "1.2.3", "1.2.3.04", "co.jp"].map(str::to_owned).into();
    lines.extend([62, 63, 64].map(|len| format!("{}.example", "x".repeat(len))));
    lines.extend([252, 253, 254].map(|len| "a.".repeat(len / 2) + &"b".repeat(1 + len % 2)));
    lines.extend(
        (0..60_000)
            .map(|_| (0..=random(8)).map(|_| PARTS[random(PARTS.len())]).collect::<String>()),
    );
    let quick = |line: &String| plain::quick(line).read.is_some();
    let short = lines.iter().filter(|line| quick(line)).count();
    assert!((1000..lines.len() - 1000).contains(&short), "{short}");
    for allow_private in [false, true] {
        let options =
            ReadOptions { format: Some(Format::Plain), allow_private, ..ReadOptions::default() };
        for part in lines.chunks(64) {
            let (mut bare, mut moved) = (String::new(), String::new());
            for line in part {
                bare.push_str(&format!("{line}\n"));
                moved.push_str(&format!(" {line}\n"));
            }
            let (kept, report) = read_with(&bare, options);
            let (other, expected) = read_with(&moved, options);
            assert_eq!((kept.values, kept.facts), (other.values, other.facts), "{bare}");
            assert_eq!((left(&report), &report.taken), (left(&expected), &expected.taken));
            assert_eq!((report.reasons, report.defanged), (expected.reasons, expected.defanged));
        }
    }
}

#[test]
fn a_list_with_a_last_line_without_end_is_read_to_its_end() {
    for (text, values) in [
        ("203.0.113.9", vec!["203.0.113.9"]),
        ("a.example\n203.0.113.9", vec!["a.example", "203.0.113.9"]),
        ("a.example\n\n\nb.example\n", vec!["a.example", "b.example"]),
    ] {
        assert_eq!(read_all(text).0.values, values, "{text:?}");
    }
    let (kept, _) = read_all("\n\na.example\n");
    assert_eq!(kept.facts[0].0, "3");
}

#[test]
fn a_plain_list_is_read_with_what_is_left_out_and_why() {
    let (kept, report) = read_all(
        "\u{feff}# feed\n203.0.113.9\r\nhxxp://c2[.]example/x\n\n192.168.1.5\n127.0.0.1\ncom\n0.0.0.0 ads.example\n=only.example # alone\nwhat?\n",
    );
    assert_eq!(report.format, Format::Plain);
    assert_eq!(kept.values, ["203.0.113.9", "c2.example/x", "ads.example", "=only.example"]);
    assert_eq!(kept.facts[0].0, "2");
    assert_eq!(report.defanged, 1);
    assert_eq!(
        left(&report),
        [
            "line 5: is an address of private or special use",
            "line 6: is an address that no packet leaves for",
            "line 7: stands for a whole top-level domain",
            "line 10: is no address, network, address:port, domain name, URL or fingerprint",
        ]
    );
    assert_eq!(report.reasons["private or special address"], 1);
    assert_eq!(report.taken[&Kind::Domain], 2);
}

#[test]
fn a_strict_reading_ends_at_the_first_fault_and_names_it() {
    let options = ReadOptions { strict: true, ..ReadOptions::default() };
    for (bytes, place) in [
        (&b"c2.example\nwhat?\nd2.example\n"[..], "2"),
        (b"c2.example\nd2\xff.example\n", "2"),
        (b"c2.example\n\n\nlast?", "4"),
    ] {
        match read(bytes, options, &mut Kept::default()) {
            Err(ReadIntelError::Value { place: at, .. }) => assert_eq!(at, place),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_csv_is_read_by_the_names_of_its_columns() {
    let (kept, report) = read_all(
        "type,value,family,source,confidence,valid_until,class\n\
         domain,c2.example,PlugX,\"Somebody, Ltd\",90,2027-01-01,\n\
         ip,203.0.113.9,,,,,sinkhole\n\
         sha256,aa,,,,,\nip,10.0.0.1,,,,,\n\"broken,\n",
    );
    assert_eq!(report.format, Format::Csv);
    assert_eq!(kept.values, ["c2.example", "203.0.113.9"]);
    let (_, source, confidence, _, class, labels) = &kept.facts[0];
    assert_eq!(source.as_deref(), Some("Somebody, Ltd"));
    assert_eq!((*confidence, *class, labels.as_str()), (Some(90), IndicatorClass::Threat, "PlugX"));
    assert_eq!(kept.until[0], "2027-01-01T00:00:00Z".parse().ok());
    assert_eq!(kept.facts[1].4, IndicatorClass::Sinkhole);
    assert_eq!(
        left(&report),
        [
            "line 4: sha256 is not looked for",
            "line 5: is an address of private or special use",
            "line 6: has a quotation mark that is not closed",
        ]
    );
    let (kept, _) = read_with(
        "1,203.0.113.9,x\nc2.example;y\n",
        ReadOptions { format: Some(Format::Csv), ..ReadOptions::default() },
    );
    assert_eq!(kept.values, ["203.0.113.9"]);
    let (kept, report) = read_all("indicator\nc2.example\n203.0.113.9\n");
    assert_eq!((kept.values.len(), report.format), (2, Format::Csv));
}

#[test]
fn the_csv_of_abuse_ch_is_read_by_its_comment_header() {
    let urlhaus = "################\n# abuse.ch URLhaus Database Dump (CSV)   #\n#\n# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter\n\"7\",\"2026-01-02 03:04:05\",\"http://203.0.113.9:8080/bin.sh\",\"online\",\"2026-01-03 00:00:00\",\"malware_download\",\"elf,mirai\",\"https://urlhaus.example/url/7/\",\"anon\"\n";
    let (kept, report) = read_with(
        urlhaus,
        ReadOptions { valid_for: Some(Span::from_hours(24)), ..ReadOptions::default() },
    );
    assert_eq!(
        (report.format, kept.values),
        (Format::Csv, vec!["203.0.113.9:8080/bin.sh".to_owned()])
    );
    assert_eq!((kept.facts[0].0.as_str(), kept.facts[0].5.as_str()), ("7", "elf,mirai"));
    assert_eq!(kept.until[0], "2026-01-04T00:00:00Z".parse().ok());
    let threatfox = "# ThreatFox IOCs: recent additions - CSV format\n# \"first_seen_utc\",\"ioc_id\",\"ioc_value\",\"ioc_type\",\"threat_type\",\"fk_malware\",\"malware_alias\",\"malware_printable\",\"last_seen_utc\",\"confidence_level\",\"reference\",\"tags\",\"anonymous\",\"reporter\"\n\"2026-01-02 03:04:05\", \"11\", \"203.0.113.9:443\", \"ip:port\", \"botnet_cc\", \"win.plugx\", \"Korplug\", \"PlugX\", \"\", \"75\", \"None\", \"x\", \"0\", \"somebody\"\n\"2026-01-02 03:04:05\", \"12\", \"c2.example\", \"domain\", \"botnet_cc\", \"win.plugx\", \"Korplug\", \"PlugX\", \"\", \"50\", \"None\", \"x\", \"0\", \"somebody\"\n\"2026-01-02 03:04:05\", \"13\", \"aa\", \"sha256_hash\", \"payload\", \"a\", \"\", \"b\", \"\", \"50\", \"\", \"\", \"0\", \"c\"\n";
    let (kept, report) = read_all(threatfox);
    assert_eq!(kept.values, ["203.0.113.9:443", "c2.example"]);
    assert_eq!((kept.facts[0].2, kept.facts[0].5.as_str()), (Some(75), "PlugX"));
    assert_eq!(left(&report), ["line 5: sha256_hash is not looked for"]);
    let feodo = "# Feodo Tracker Botnet C2 IP Blocklist (CSV)\n\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\"2026-01-02 03:04:05\",\"203.0.113.9\",\"447\",\"online\",\"2026-01-03\",\"Emotet\"\n";
    assert_eq!(read_all(feodo).0.values, ["203.0.113.9:447"]);
    let sslbl = format!("# Listingdate,SHA1,Listingreason\n2026-01-02 03:04:05,{SHA1},PlugX C&C\n");
    assert_eq!(read_all(&sslbl).0.values, [format!("cert {SHA1}")]);
    let ja3 = format!(
        "# ja3_md5,Firstseen,Lastseen,Listingreason\n{JA3},2026-01-02 03:04:05,2026-01-02 03:04:05,Tofsee\n"
    );
    assert_eq!(read_all(&ja3).0.values, [format!("ja3 {JA3}")]);
    let addresses = "# Firstseen,DstIP,DstPort\n2026-01-02 03:04:05,203.0.113.9,443\n";
    assert_eq!(read_all(addresses).0.values, ["203.0.113.9:443"]);
}

#[test]
fn a_stix_bundle_is_read_by_its_indicators_patterns() {
    let bundle = r#"{"type":"bundle","id":"bundle--1","objects":[
      {"type":"identity","id":"identity--1","name":"x"},
      {"type":"indicator","spec_version":"2.1","id":"indicator--a","name":"PlugX C2","pattern_type":"stix","confidence":80,"valid_from":"2026-01-01T00:00:00Z","valid_until":"2027-01-01T00:00:00Z","pattern":"[ipv4-addr:value = '203.0.113.9' OR domain-name:value = 'c2.example']"},
      {"type":"indicator","id":"indicator--b","labels":["sinkhole"],"indicator_types":["anomalous-activity"],"pattern_type":"stix","pattern":"[network-traffic:dst_ref.value = '203.0.113.10' AND network-traffic:dst_port = 8080]"},
      {"type":"indicator","id":"indicator--c","revoked":true,"pattern":"[domain-name:value = 'd2.example']"},
      {"type":"indicator","id":"indicator--d","pattern":"[file:hashes.'SHA-256' = 'aa']"},
      {"type":"indicator","id":"indicator--e","pattern_type":"yara","pattern":"rule x {}"},
      {"type":"indicator","id":"indicator--f","pattern":7},
      {"type":"indicator","id":"indicator--g","indicator_types":["benign"],"pattern":"[domain-name:value = 'e2.example']"},
      {"type":"indicator","id":"indicator--h","pattern":"[domain-name:value = 'f2.example'] FOLLOWEDBY [domain-name:value = 'g2.example']"}
    ]}"#;
    let (kept, report) = read_all(bundle);
    assert_eq!(report.format, Format::Stix);
    assert_eq!(kept.values, ["203.0.113.9", "c2.example", "203.0.113.10:8080"]);
    let first = (
        "indicator--a".to_owned(),
        None,
        Some(80),
        None,
        IndicatorClass::Threat,
        "PlugX C2".to_owned(),
    );
    assert_eq!(kept.facts[0], first);
    assert_eq!(kept.until[0], "2027-01-01T00:00:00Z".parse().ok());
    assert_eq!(
        (kept.facts[2].3, kept.facts[2].4),
        (Some(Grade::Suspect), IndicatorClass::Sinkhole)
    );
    let whys = left(&report);
    assert_eq!(whys.len(), 6, "{whys:?}");
    assert_eq!(whys[0], "indicator--c: is revoked");
    assert_eq!(whys[1], "indicator--d: file:hashes.'SHA-256' is not looked for");
    assert!(whys[3].starts_with("object 7: invalid type"), "{whys:?}");
    assert!(whys[5].contains("FOLLOWEDBY"), "{whys:?}");
    let now = "2027-01-01T00:00:01Z".parse().ok();
    let (kept, report) = read_with(bundle, ReadOptions { now, ..ReadOptions::default() });
    assert_eq!((kept.values.len(), report.reasons["expired"]), (1, 2));
}

#[test]
fn a_misp_event_is_read_by_its_attributes() {
    let event = format!(
        r#"{{"Event":{{"uuid":"e","info":"x","Attribute":[
        {{"uuid":"a1","type":"ip-dst","value":"203.0.113.9","to_ids":true,"timestamp":"1767225600","Tag":[{{"name":"misp-galaxy:malpedia=\"PlugX\""}}]}},
        {{"uuid":"a2","type":"ip-dst|port","value":"203.0.113.9|443","to_ids":"1"}},
        {{"uuid":"a3","type":"domain|ip","value":"c2.example|203.0.113.10","to_ids":1}},
        {{"uuid":"a4","type":"hostname","value":"h.c2.example","to_ids":true}},
        {{"uuid":"a5","type":"url","value":"http://c2.example/a","to_ids":true}},
        {{"uuid":"a6","type":"domain","value":"seen.example","to_ids":false}},
        {{"uuid":"a7","type":"domain","value":"gone.example","to_ids":true,"deleted":true}},
        {{"uuid":"a8","type":"sha256","value":"aa","to_ids":true}},
        {{"uuid":"a9","type":7,"value":"aa","to_ids":true}}],
        "Object":[{{"name":"x509","Attribute":[
        {{"uuid":"b1","type":"x509-fingerprint-sha1","value":"{SHA1}","to_ids":true}},
        {{"uuid":"b2","type":"ja3-fingerprint-md5","value":"{JA3}","to_ids":true}},
        {{"uuid":"b3","type":"user-agent","value":"Bad/1.0","to_ids":true}}]}}]}}}}"#
    );
    let (kept, report) = read_all(&event);
    assert_eq!(report.format, Format::Misp);
    assert_eq!(
        kept.values,
        [
            "203.0.113.9".to_owned(),
            "203.0.113.9:443".to_owned(),
            "c2.example".to_owned(),
            "203.0.113.10".to_owned(),
            "=h.c2.example".to_owned(),
            "c2.example/a".to_owned(),
            format!("cert {SHA1}"),
            format!("ja3 {JA3}"),
            "ua Bad/1.0".to_owned(),
        ]
    );
    assert_eq!((kept.facts[0].0.as_str(), kept.facts[0].5.as_str()), ("a1", "PlugX"));
    let whys = left(&report);
    assert_eq!(whys.len(), 4, "{whys:?}");
    assert_eq!(whys[0], "a6: is not meant for detection (to_ids)");
    assert_eq!(whys[1], "a7: is deleted");
    assert_eq!(whys[2], "a8: sha256 is not looked for");
    // The shapes of search results.
    let attribute = r#"{"uuid":"a","type":"domain","value":"c2.example","to_ids":true}"#;
    for text in [
        format!("{{\"response\":{{\"Attribute\":[{attribute}]}}}}"),
        format!("{{\"response\":[{{\"Event\":{{\"Attribute\":[{attribute}]}}}}]}}"),
        format!("[{{\"Event\":{{\"Attribute\":[{attribute}]}}}}]"),
    ] {
        assert_eq!(read_all(&text).0.values, ["c2.example"], "{text}");
    }
}

#[test]
fn a_zeek_intel_file_is_read_by_its_fields() {
    let text = format!(
        "#separator \\x09\n#fields\tindicator\tindicator_type\tmeta.source\tmeta.desc\n\
         203.0.113.9\tIntel::ADDR\tSomebody\tPlugX\n198.51.100.0/24\tIntel::SUBNET\tSomebody\t-\n\
         c2.example\tIntel::DOMAIN\tSomebody\t-\nc2.example/gate\tIntel::URL\tSomebody\t-\n\
         {SHA1}\tIntel::CERT_HASH\tSomebody\t-\nBad/1.0\tIntel::SOFTWARE\tSomebody\t-\n\
         {JA3}\tIntel::JA3\tSomebody\t-\naa\tIntel::FILE_HASH\tSomebody\t-\n"
    );
    let (kept, report) = read_all(&text);
    assert_eq!(report.format, Format::Zeek);
    assert_eq!(
        kept.values,
        [
            "203.0.113.9".to_owned(),
            "198.51.100.0/24".to_owned(),
            "=c2.example".to_owned(),
            "c2.example/gate".to_owned(),
            format!("cert {SHA1}"),
            "ua Bad/1.0".to_owned(),
            format!("ja3 {JA3}"),
        ]
    );
    assert_eq!((kept.facts[0].1.as_deref(), kept.facts[0].5.as_str()), (Some("Somebody"), "PlugX"));
    assert_eq!(left(&report), ["line 10: Intel::FILE_HASH is not looked for"]);
}

#[test]
fn suricata_rules_are_read_whole_or_left_out_by_their_number() {
    let rules = format!(
        r#"# a rule set
alert dns $HOME_NET any -> any any (msg:"a"; dns.query; dotprefix; content:".c2.example"; nocase; endswith; metadata:malware_family PlugX, confidence High; sid:1; rev:1;)
alert dns $HOME_NET any -> any any (msg:"b"; dns.query; content:"d2.example"; nocase; bsize:10; sid:2;)
alert tls $HOME_NET any -> $EXTERNAL_NET any (msg:"c"; flow:established,to_server; tls.sni; content:"e2.example"; startswith; endswith; sid:3;)
alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"d"; http.host; content:"f2.example"; bsize:10; http.uri; content:"/gate.php"; bsize:9; sid:4;)
alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"e"; http.user_agent; content:"Bad|2f|1.0"; startswith; endswith; sid:5;)
alert tls any any -> any any (msg:"f"; ja3.hash; content:"{JA3}"; sid:6;)
alert tls any any -> any any (msg:"g"; tls.cert_fingerprint; content:"da:39:a3:ee:5e:6b:4b:0d:32:55:bf:ef:95:60:18:90:af:d8:07:09"; sid:7;)
alert ip $HOME_NET any -> [203.0.113.9,198.51.100.0/24] any (msg:"h; x"; reference:url,x; threshold: type limit, track by_src, seconds 60, count 1; sid:8;)
alert tcp $HOME_NET any -> 203.0.113.10 [443,8443] (msg:"i"; sid:9;)
alert dns any any -> any any (msg:"j"; dns_query; content:"g2.example"; isdataat:!1,relative; sid:10;)
alert http any any -> any any (msg:"k"; content:"h2.example"; http_host; depth:10; isdataat:!1,relative; sid:11;)
alert dns $HOME_NET any -> any any (msg:"part"; dns.query; content:"evil"; sid:100;)
alert tls any any -> any any (msg:"regex"; tls.sni; content:".example"; endswith; pcre:"/^[a-z]{{9}}\./"; sid:101;)
alert tcp $HOME_NET any -> $EXTERNAL_NET any (msg:"raw"; content:"|00 01|"; sid:102;)
alert ip ![203.0.113.9] any -> $HOME_NET any (msg:"not"; sid:103;)
alert tcp $HOME_NET any -> 203.0.113.9 1024: (msg:"range"; sid:104;)
alert dns any any -> any any (msg:"neg"; dns.query; content:!"x.example"; endswith; sid:105;)
alert tls $HOME_NET any -> 203.0.113.9 443 (msg:"both"; tls.sni; content:"x.example"; startswith; endswith; sid:106;)
alert http any any -> any any (msg:"bits"; flowbits:isset,x; http.host; content:"x.example"; bsize:9; sid:107;)
pass dns any any -> any any (msg:"pass"; dns.query; content:"x.example"; bsize:9; sid:108;)
alert tcp any any -> any any (msg:"nothing"; sid:109;)
# alert dns any any -> any any (msg:"off"; dns.query; content:"off.example"; bsize:11; sid:110;)
alert broken
"#
    );
    let (kept, report) = read_all(&rules);
    assert_eq!(report.format, Format::Suricata);
    assert_eq!(
        kept.values,
        [
            "c2.example".to_owned(),
            "=d2.example".to_owned(),
            "=e2.example".to_owned(),
            "f2.example/gate.php".to_owned(),
            "ua Bad/1.0".to_owned(),
            format!("ja3 {JA3}"),
            format!("cert {SHA1}"),
            "203.0.113.9".to_owned(),
            "198.51.100.0/24".to_owned(),
            "203.0.113.10:443".to_owned(),
            "203.0.113.10:8443".to_owned(),
            "g2.example".to_owned(),
            "=h2.example".to_owned(),
        ]
    );
    let first = &kept.facts[0];
    assert_eq!((first.0.as_str(), first.2, first.5.as_str()), ("1", Some(85), "PlugX"));
    assert_eq!(
        left(&report),
        [
            "sid 100: a part of a name",
            "sid 101: pcre",
            "sid 102: a content anywhere in the payload",
            "sid 103: it negates an address or port",
            "sid 104: it names a range of ports",
            "sid 105: a negated content",
            "sid 106: it joins an address with content",
            "sid 107: flowbits",
            "sid 108: it lets pass; use the policy's allow-list",
            "sid 109: it names no address and no content",
            "line 24: is no rule",
        ]
    );
}

#[test]
fn a_rule_may_go_over_several_lines() {
    let text = "alert dns any any -> any any (msg:\"a\"; \\\n  dns.query; content:\"c2.example\"; \\\n bsize:10; sid:1;)\n";
    assert_eq!(read_all(text).0.values, ["=c2.example"]);
}

#[test]
fn datasets_are_read_as_strings_addresses_and_hashes() {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (kept, report) =
        read_all(&format!("{}\n{},10\n", encode("c2.example"), encode("d2.example")));
    assert_eq!(
        (report.format, kept.values),
        (Format::Dataset, vec!["c2.example".into(), "d2.example".into()])
    );
    let options = ReadOptions { format: Some(Format::Dataset), ..ReadOptions::default() };
    let (kept, report) = read_with("203.0.113.9\n2001:db8::1,5\n!!\n", options);
    assert_eq!((kept.values.len(), left(&report).len()), (2, 1));
    let (_, report) = read_with(&format!("{JA3}\n"), options);
    assert_eq!(report.reasons["hash of unknown kind"], 1);
    let (kept, _) =
        read_with(&format!("{JA3}\n"), ReadOptions { kind: Some(Kind::Ja3), ..options });
    assert_eq!(kept.values, [format!("ja3 {JA3}")]);
    let agent = ReadOptions { kind: Some(Kind::UserAgent), ..options };
    assert_eq!(read_with(&encode("Bad Agent/1.0"), agent).0.values, ["ua Bad Agent/1.0"]);
}

/// Law: a text means the same however it is cut into pieces.
#[test]
fn a_text_means_the_same_in_any_pieces() {
    let csv: String = (0..9000).map(|n| format!("domain,n{n}.example,\"a,\"\"b\"\n")).collect();
    for text in [
        (0..9000).map(|n| format!("n{n}.example # x\r\n")).collect::<String>(),
        format!("type,value,family\n{csv}last.example"),
    ] {
        let (whole, report) = read_all(&text);
        for size in [1, 7, 4096, 65_537] {
            let mut kept = Kept::default();
            let mut reader = Reader::new(ReadOptions::default(), &mut kept);
            for piece in text.as_bytes().chunks(size) {
                reader.feed(piece).unwrap();
            }
            assert_eq!(reader.finish().unwrap(), report);
            assert_eq!((kept.values, kept.facts), (whole.values.clone(), whole.facts.clone()));
        }
    }
}

/// Law: whatever bytes come, a report or an error comes out, in time and memory bounded by them.
#[test]
fn hostile_texts_end_in_a_report_or_an_error() {
    let mut texts: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 1 << 20],
        vec![0xFF; 100_000],
        vec![b'a'; 10 << 20],
        b"\xEF\xBB\xBF".to_vec(),
        "[".repeat(200_000).into_bytes(),
        "{\"a\":".repeat(100_000).into_bytes(),
        format!("{{\"objects\":{}", "[".repeat(100_000)).into_bytes(),
        format!("{{\"objects\":[{}]}}", "{\"x\":".repeat(5000)).into_bytes(),
        format!("{{\"Event\":{}", "{\"Event\":".repeat(5000)).into_bytes(),
        b"{\"objects\":[1,\"x\",null,[[]],{\"type\":\"indicator\"}]}".to_vec(),
        b"{\"Attribute\":[1,{\"value\":7}]}".to_vec(),
        b"{\"type\":\"bundle\"}".to_vec(),
        format!("value,type\n{}\n", "\"".repeat(99_999)).into_bytes(),
        format!("value,type\n{}\n", ",".repeat(99_999)).into_bytes(),
        format!("#fields{}\n{}\n", "\tindicator".repeat(9999), "\tx".repeat(9999)).into_bytes(),
        format!("alert ip any any -> any any ({})\n", ";".repeat(99_999)).into_bytes(),
        format!("alert ip any any -> any any ({})\n", "x:\"".repeat(9999)).into_bytes(),
        format!("alert ip {}1.2.3.4 any -> any any (sid:1;)\n", "[".repeat(9999)).into_bytes(),
        format!("alert ip [{}] any -> any any (sid:1;)\n", "8.8.8.8,".repeat(9999)).into_bytes(),
        "alert ip any any -> any any (\\\n".repeat(99_999).into_bytes(),
        b"alert tls any any -> any any (msg:\"a\"; tls.sni; content:\"|zz|\"; sid:1;)\n".to_vec(),
    ];
    let seeds: Vec<Vec<u8>> =
        texts.iter().map(|text| text.iter().copied().take(300).collect()).collect();
    let mut state = 3_u64;
    for seed in seeds.into_iter().cycle().take(3000) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut text = seed;
        if !text.is_empty() {
            let at = state as usize % text.len();
            text[at] = (state >> 32) as u8;
        }
        texts.push(text);
    }
    for (nth, text) in texts.iter().enumerate() {
        let formats: &[Option<Format>] = if nth < 22 {
            &[
                None,
                Some(Format::Csv),
                Some(Format::Dataset),
                Some(Format::Misp),
                Some(Format::Plain),
                Some(Format::Stix),
                Some(Format::Suricata),
                Some(Format::Zeek),
            ]
        } else {
            &[None]
        };
        for format in formats {
            let options = ReadOptions { format: *format, ..ReadOptions::default() };
            if let Ok(report) = read(text, options, &mut Kept::default()) {
                assert!(report.left_out.len() <= 100);
                assert!(report.left_out.iter().all(|left| left.text.len() <= 480));
            }
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_the_next_is_read() {
    let text = format!("c2.example\n{}\nd2.example\n", "a".repeat(1 << 20));
    let mut kept = Kept::default();
    let options = ReadOptions { format: Some(Format::Plain), ..ReadOptions::default() };
    let mut reader = Reader::new(options, &mut kept);
    for piece in text.as_bytes().chunks(10_000) {
        reader.feed(piece).unwrap();
    }
    let report = reader.finish().unwrap();
    assert_eq!(kept.values, ["c2.example", "d2.example"]);
    assert_eq!(
        (kept.facts[1].0.as_str(), left(&report)),
        ("3", vec!["line 2: is too long".to_owned()])
    );
}
