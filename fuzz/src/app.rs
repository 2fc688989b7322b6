//! The first bytes of a conversation: names, hellos, heads, and what hides in them.

use crate::input::Input;
use crate::quic::{VERSION_1, VERSION_2, initial};
use sekisho_engine::app::dns::DnsMessage;
use sekisho_engine::app::hello::{Certificate, ClientHello, Reading, SCRATCH_LEN, ServerHello};
use sekisho_engine::app::http_head::{HeadReading, MAX_HEAD, RequestHead, ResponseHead};
use sekisho_engine::app::quic::{Opened, initial_sni, join};
use sekisho_engine::app::ssh::{SshOffer, SshReading, banner};
use sekisho_engine::app::{http, socks as socks_app, tls};
use sekisho_engine::detect::plugx::lznt1::decompress;
use sekisho_engine::detect::plugx::{PlugxConstants, PlugxDecoder, PlugxVerdict};
use std::sync::LazyLock;

/// A DNS message, as a datagram and behind a length.
pub fn dns(data: &[u8]) {
    for message in [DnsMessage::parse(data), DnsMessage::parse_tcp(data)].into_iter().flatten() {
        let _header = (message.id(), message.is_response(), message.is_truncated());
        let _codes = (message.opcode(), message.rcode());
        if let Some(question) = message.question() {
            assert!(question.name.as_str().len() <= 1024, "a name longer than any");
        }
        assert!(message.raw_question_name().count() <= 128, "more labels than a name has");
        let mut records = 0;
        for record in message.records() {
            records += 1;
            assert!(record.rdata.len() <= data.len(), "data from elsewhere");
            let _names = (record.owner(), record.target());
            assert!(record.strings().count() <= record.rdata.len(), "strings of nothing");
        }
        // A record is at least a root name, ten bytes of numbers and no data.
        assert!(records <= data.len() / 11, "{records} records of {} bytes", data.len());
        assert!(message.answers().count() <= records, "answers that are no records");
    }
}

/// The first bytes of a TLS client or server: hellos, certificates, fingerprints.
pub fn tls_hello(data: &[u8]) {
    let mut scratch = [0; SCRATCH_LEN];
    let in_place = ClientHello::parse(data);
    if let Reading::Whole(hello) = in_place {
        client(&hello);
        let joined = ClientHello::parse_joined(data, &mut scratch);
        assert_eq!(joined, Reading::Whole(hello), "the scratch changes the reading");
    }
    for hello in [
        ClientHello::parse_joined(data, &mut scratch).whole(),
        ClientHello::from_handshake(data).whole(),
    ]
    .into_iter()
    .flatten()
    {
        client(&hello);
    }
    if let Reading::Whole(hello) = ServerHello::parse_joined(data, &mut scratch) {
        let _facts = (hello.selected_version(), hello.alpn(), hello.ja3s(), hello.retry);
        assert!(hello.each_extension().count() <= data.len() / 4, "extensions of nothing");
    }
    if let Reading::Whole(certificate) = Certificate::find(data, &mut scratch) {
        assert!(certificate.der.len() <= data.len(), "a certificate from elsewhere");
        let _hashes = (certificate.sha256(), certificate.sha1(), certificate.md5());
        let _words = (certificate.subject(), certificate.issuer());
        let _numbers = (certificate.serial().map(<[u8]>::len), certificate.validity());
    }
    let _names = (tls::client_hello_sni(data), tls::client_hello_body_sni(data));
}

fn client(hello: &ClientHello<'_>) {
    let _facts = (hello.sni(), hello.alpn(), hello.supported_version(), hello.ja3());
    assert!(hello.ja4().as_str().is_ascii(), "a fingerprint of other signs");
    assert!(hello.each_alpn().count() <= hello.extensions.len(), "protocols of nothing");
    assert!(hello.each_extension().count() <= hello.extensions.len() / 4, "extensions of nothing");
    let mut text = String::new();
    assert!(
        hello.ja3_text(&mut text).is_ok() && hello.ja4_text(&mut text).is_ok(),
        "text that can't be written"
    );
}

/// QUIC: datagrams as they are; frames that are sealed first; or bytes that a flow has kept.
pub fn quic_initial(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let mut scratch = [0; SCRATCH_LEN];
    match how & 3 {
        0 | 1 => {
            let datagram = input.rest();
            let _name = initial_sni(datagram, &mut [0; 2048]);
            let mut opened = Opened::new();
            let _is = opened.open(datagram, &[]);
            let _joined = join(&[], opened.as_bytes(), &mut scratch).hello();
        }
        2 => {
            let version = if how & 4 == 0 { VERSION_1 } else { VERSION_2 };
            let mut kept = Vec::new();
            for (number, frames) in input.pieces().take(6).enumerate() {
                let frames = frames.get(..frames.len().min(1200)).unwrap_or_default();
                let datagram = initial(version, [7; 8], number as u8, frames);
                let mut opened = Opened::new();
                assert!(opened.open(&datagram, &kept), "a good Initial is not opened");
                let joined = join(&kept, opened.as_bytes(), &mut scratch);
                let _name = joined.sni();
                if let Reading::Whole(hello) = joined.hello() {
                    client(&hello);
                }
                kept.extend_from_slice(opened.as_bytes());
            }
        }
        _ => {
            let half = usize::from(input.short());
            let kept = input.take(half);
            let joined = join(kept, input.rest(), &mut scratch);
            let _name = joined.sni();
            if let Reading::Whole(hello) = joined.hello() {
                client(&hello);
            }
        }
    }
}

/// Heads of HTTP requests and responses.
pub fn http_head(data: &[u8]) {
    let _host = http::request_host(data);
    match RequestHead::parse(data) {
        HeadReading::Whole(head) => {
            let _facts =
                (head.host(), head.is_connect(), head.body_len(), head.field("user-agent"));
            assert!(head.each_field().count() <= MAX_HEAD / 2, "fields of nothing");
        }
        HeadReading::Incomplete => assert!(data.len() <= MAX_HEAD, "waiting without end"),
        HeadReading::Other => {}
    }
    match ResponseHead::parse(data) {
        HeadReading::Whole(head) => {
            let _facts = (head.body_len(), head.field("server"));
            assert!(head.each_field().count() <= MAX_HEAD / 2, "fields of nothing");
        }
        HeadReading::Incomplete => assert!(data.len() <= MAX_HEAD, "waiting without end"),
        HeadReading::Other => {}
    }
}

/// Identification and offer of SSH.
pub fn ssh(data: &[u8]) {
    let mut offer = data;
    match banner(data) {
        SshReading::Whole(line, end) => {
            assert!(line.len() < end && end <= data.len(), "a line longer than itself");
            offer = data.get(end..).unwrap_or_default();
        }
        SshReading::Incomplete => assert!(data.len() < 256, "waiting without end"),
        SshReading::Other => {}
    }
    for bytes in [offer, data] {
        for by_client in [true, false] {
            match SshOffer::parse(bytes, by_client) {
                SshReading::Whole(offer, end) => {
                    assert!(end <= bytes.len(), "an offer longer than its bytes");
                    let _fingerprint = offer.hassh();
                }
                SshReading::Incomplete => assert!(bytes.len() < 16 << 10, "waiting without end"),
                SshReading::Other => {}
            }
        }
    }
}

/// Both sides of a SOCKS negotiation.
pub fn socks(data: &[u8]) {
    use socks_app::SocksReading;
    for reading in
        [socks_app::request(data), socks_app::reply(data, true), socks_app::reply(data, false)]
    {
        match reading {
            SocksReading::Whole { end, .. } => {
                assert!(end <= data.len(), "an end beyond the bytes")
            }
            SocksReading::Incomplete => assert!(data.len() < 2048, "waiting without end"),
            SocksReading::Other => {}
        }
    }
}

static DECODER: LazyLock<PlugxDecoder> =
    LazyLock::new(|| PlugxDecoder::new(&PlugxConstants::default()));

/// A PlugX message alone, and behind a carrier that states its length.
pub fn plugx_decode(data: &[u8]) {
    let mut input = Input::new(data);
    let stated = usize::from(input.short());
    let head = input.rest();
    for verdict in [
        DECODER.examine(head),
        DECODER.examine_of(head, None),
        DECODER.examine_of(head, Some(stated)),
    ] {
        if let PlugxVerdict::Match(found) = verdict {
            assert_ne!(DECODER.cipher_id(found.cipher), "unknown", "a cipher that is none");
            assert!(
                !PlugxDecoder::command_name(found.command).is_empty(),
                "a command without words"
            );
        }
    }
}

/// A compressed stream, and the length that its output may have.
pub fn lznt1(data: &[u8]) {
    let mut input = Input::new(data);
    let most = usize::from(input.short());
    let mut out = Vec::new();
    let done = decompress(input.rest(), &mut out, most);
    assert!(out.len() <= most, "{} bytes, {most} allowed: {done:?}", out.len());
}
