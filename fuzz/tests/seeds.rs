//! Seeds are worth something only if they get past the first check of what reads them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use sekisho_engine::app::dns::DnsMessage;
use sekisho_engine::app::hello::{Certificate, ClientHello, SCRATCH_LEN, ServerHello};
use sekisho_engine::app::http_head::{HeadReading, RequestHead, ResponseHead};
use sekisho_engine::app::quic::{QuicSni, initial_sni};
use sekisho_engine::app::socks::{SocksReading, reply, request};
use sekisho_engine::app::ssh::{SshOffer, SshReading, banner};
use sekisho_engine::cases::CaseFile;
use sekisho_engine::detect::plugx::{PlugxConstants, PlugxDecoder, PlugxVerdict};
use sekisho_engine::learn::Episodes;
use sekisho_engine::wire::{Frame, LinkType, Packet, parse, read, tunnel};
use sekisho_fuzz::seeds::Seed;
use sekisho_schema::intel::{
    Facts, Format, Header, Observable, ParseObservableError, ReadOptions, Taker,
};
use sekisho_schema::pack::RulePack;
use sekisho_schema::sealed::SigningKey;
use sekisho_schema::{Policy, Sealed, TrustAnchors};
use std::sync::LazyLock;

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(sekisho_fuzz::seeds::seeds);

fn of(seeds: &[Seed], target: &str) -> Vec<Seed> {
    seeds.iter().filter(|seed| seed.target == target).cloned().collect()
}

#[test]
fn a_seed_of_episodes_is_restored_and_watches_a_destination_and_a_forged_count_is_refused() {
    let restored = |name: &str| {
        let seeds = of(&SEEDS, "episodes");
        let seed = seeds.iter().find(|seed| seed.name == name).unwrap();
        let mut episodes = Episodes::new(&sekisho_fuzz::tight_limits(), 0);
        episodes.restore(&sekisho_fuzz::saved(&seed.bytes)).map(|()| episodes.len())
    };
    assert!(restored("seed-whole").unwrap() > 0);
    assert!(restored("seed-count").is_err() && restored("seed-nothing").is_err());
    assert!(restored("seed-longer").is_err());
}

#[test]
fn seeds_of_heads_are_read_whole() {
    let seeds = &SEEDS;
    let mut scratch = vec![0; SCRATCH_LEN];
    for seed in of(seeds, "tls_hello") {
        let bytes = &seed.bytes;
        if seed.name.starts_with("seed-server") {
            let hello = ServerHello::parse_joined(bytes, &mut scratch).whole();
            assert_eq!(
                hello.and_then(|hello| hello.alpn().map(<[u8]>::to_vec)).as_deref(),
                Some(&b"h2"[..])
            );
            let found = Certificate::find(bytes, &mut scratch).whole();
            assert!(
                found.is_some_and(|found| found.subject().is_some() && found.validity().is_some())
            );
        } else if seed.name.starts_with("seed-client") {
            let hello = ClientHello::parse_joined(bytes, &mut scratch).whole();
            assert!(hello.and_then(|hello| hello.sni()).is_some(), "{}", seed.name);
        }
    }
    // A case may send something else to the port of DNS.
    let dns = of(seeds, "dns");
    let read = dns.iter().filter(|seed| {
        DnsMessage::parse(&seed.bytes).is_some() || DnsMessage::parse_tcp(&seed.bytes).is_some()
    });
    assert!(read.count() + 2 >= dns.len() && dns.len() >= 8);
    let aliases = of(seeds, "dns").into_iter().find(|seed| seed.name == "seed-aliases");
    assert_eq!(
        aliases.and_then(|seed| DnsMessage::parse(&seed.bytes).map(|it| it.answers().count())),
        Some(2)
    );
    for seed in of(seeds, "ssh") {
        let offer = match banner(&seed.bytes) {
            SshReading::Whole(_, end) => seed.bytes.get(end..).unwrap_or_default(),
            _ => &seed.bytes,
        };
        assert!(matches!(SshOffer::parse(offer, true), SshReading::Whole(..)), "{}", seed.name);
    }
    for seed in of(seeds, "socks") {
        let bytes = &seed.bytes;
        let readings = [request(bytes), reply(bytes, true), reply(bytes, false)];
        assert!(
            readings.iter().any(|it| matches!(it, SocksReading::Whole { .. })),
            "{}",
            seed.name
        );
    }
    let heads = of(seeds, "http_head");
    let requests = heads
        .iter()
        .filter(|seed| matches!(RequestHead::parse(&seed.bytes), HeadReading::Whole(_)));
    let responses = heads
        .iter()
        .filter(|seed| matches!(ResponseHead::parse(&seed.bytes), HeadReading::Whole(_)));
    assert!(requests.count() >= 5 && responses.count() >= 1);
}

#[test]
fn sealed_seeds_of_quic_give_the_name_that_was_sealed_in_them() {
    let seeds = &SEEDS;
    for name in ["seed-v1", "seed-v2"] {
        let seed = of(seeds, "quic_initial").into_iter().find(|seed| seed.name == name);
        let bytes = seed.map(|seed| seed.bytes).unwrap_or_default();
        let read = initial_sni(bytes.get(1..).unwrap_or_default(), &mut [0; 2048]);
        assert!(matches!(read, QuicSni::Name(host) if host.as_str() == "seed.example"), "{name}");
    }
}

#[test]
fn seeds_of_packets_reach_tunnels_and_pieces() {
    let seeds = &SEEDS;
    let raw = |seed: &Seed| seed.bytes.get(3..).unwrap_or_default().to_vec();
    for name in ["ip-in-ip", "gre", "6in4", "mpls", "vxlan", "geneve"] {
        let seed = of(seeds, "wire").into_iter().find(|seed| seed.name == format!("seed-{name}"));
        let packet = seed.map(|seed| raw(&seed)).unwrap_or_default();
        let Ok(Packet::Whole(view)) = read(&packet, 0) else { panic!("{name} is no packet") };
        let inner = tunnel::inner(&view).and_then(Result::ok).unwrap();
        assert!(
            matches!(read(inner.ip, 0), Ok(Packet::Whole(view)) if view.dst_port == 53),
            "{name}"
        );
    }
    for seed in of(seeds, "wire") {
        let link = match seed.bytes.first() {
            Some(0) => LinkType::Ethernet,
            Some(1) => LinkType::RawIp,
            Some(2) => LinkType::LinuxSll,
            Some(3) => LinkType::LinuxSll2,
            _ => LinkType::Null,
        };
        let bytes = raw(&seed);
        let frame = Frame { at_ns: 0, link, wire_len: bytes.len() as u32, bytes: &bytes };
        assert!(parse(&frame).is_ok(), "{}", seed.name);
    }
}

#[test]
fn seeds_of_plugx_are_messages_under_a_published_cipher() {
    let decoder = PlugxDecoder::new(&PlugxConstants::default());
    let seeds = of(&SEEDS, "plugx_decode");
    let found = seeds.iter().filter(|seed| {
        let head = seed.bytes.get(2..).unwrap_or_default();
        matches!(decoder.examine(head), PlugxVerdict::Match(_))
    });
    assert!(found.count() >= 1);
}

struct Nowhere;

impl Taker for Nowhere {
    fn take(&mut self, _: &Observable<'_>, _: &Facts<'_>) -> Result<(), ParseObservableError> {
        Ok(())
    }
}

#[test]
fn seeds_of_documents_are_good_documents() {
    let seeds = &SEEDS;
    for seed in of(seeds, "indicator_import").iter().filter(|seed| seed.name.ends_with("-found")) {
        let text = seed.bytes.get(3..).unwrap_or_default();
        let options = ReadOptions { allow_private: true, ..ReadOptions::default() };
        let report = sekisho_schema::intel::read(text, options, &mut Nowhere).unwrap();
        let format = seed.name.trim_start_matches("seed-").trim_end_matches("-found");
        assert_eq!(Ok(report.format), format.parse::<Format>());
        assert!(report.total() >= 1, "{format}: {report:?}");
    }
    let head = of(seeds, "indicators_compiled").into_iter().find(|seed| seed.name == "seed-head");
    let head = head.and_then(|seed| Header::parse(seed.bytes.get(1..)?).ok());
    assert!(head.is_some_and(|head| head.is_signed() && head.file_len().is_some()));
    let text = |seed: &Seed| String::from_utf8(seed.bytes.clone()).unwrap();
    for seed in of(seeds, "rule_pack") {
        let read = RulePack::parse(&text(&seed));
        assert!(read.is_ok(), "{}: {read:?}", seed.name);
    }
    for seed in of(seeds, "policy") {
        assert!(Policy::parse(&text(&seed)).is_ok(), "{}", seed.name);
    }
    let anchors = TrustAnchors::new([SigningKey::from_bytes(&[7; 32]).verifying_key()], 1);
    let signed = of(seeds, "sealed").into_iter().find(|seed| seed.name == "seed-signed").unwrap();
    let signed = Sealed::parse(&text(&signed)).unwrap();
    assert_eq!(signed.reopen_policy(&anchors).err().map(|why| why.reason()), None);
    for seed in of(seeds, "cases") {
        let file = CaseFile::parse(&text(&seed)).unwrap();
        assert!(file.cases.iter().all(|case| case.frames().is_ok()), "{}", seed.name);
    }
}
