use super::{
    Alignment, CipherKind, HEADER_LEN, MAX_BODY_LEN, PlugxConstants, PlugxDecoder, PlugxMatch,
    PlugxVerdict, Proof,
};

const ALIGNMENTS: [Alignment; 2] = [Alignment::KeystreamFromKey, Alignment::KeystreamAfterKey];

#[test]
fn the_published_probes_match_on_their_own_with_the_right_cipher() {
    // V10 of the design paper: Metasploit's probe for key 0x12345678.
    for (id, probe) in [
        ("T1", 0x7856_3412_278a_2aea_c369_b774_7def_c1dd_u128),
        ("T1old", 0x7856_3412_e5b3_32e3_7c90_6613_ecae_c14c),
        ("T2-20130524", 0x7856_3412_2ad0_1e00_b1c4_9a31_e9c8_fb67),
    ] {
        let found = matched(&probe.to_be_bytes());
        assert_eq!(decoder().cipher_id(found.cipher), id);
        assert_eq!(found.alignment, Alignment::KeystreamFromKey);
        assert_eq!((found.command, found.flags, found.size, found.extra), (0, 0, 0, 0));
        assert_eq!(found.proof, Proof::Header);
    }
}

#[test]
fn an_unknown_variant_is_let_pass_without_a_crash() {
    // V8 of the design paper: VRT 28561, fixed XOR 0x27.
    let bytes = 0xD8D8_D8D8_2726_2727_2727_2727_0123_EE8D_u128.to_be_bytes();
    assert_eq!(decoder().examine(&bytes), PlugxVerdict::No);
}

#[test]
fn a_header_only_probe_matches_at_once_under_every_setting() {
    for_every_setting(|index, kind, alignment, key| {
        let found = matched(&header(kind, alignment, key, 0, 0, 0, 0));
        assert_eq!((found.cipher, found.alignment, found.proof), (index, alignment, Proof::Header));
    });
}

#[test]
fn a_compressed_body_matches_with_its_proof_under_every_setting() {
    let plain = b"H\0O\0S\0T\0 \0U\0S\0E\0R\0".repeat(20);
    for_every_setting(|index, kind, alignment, key| {
        let message = compressed(kind, alignment, key, 1, &plain);
        let found = matched(&message);
        assert_eq!((found.cipher, found.alignment, found.proof), (index, alignment, Proof::Lznt1));
        assert_eq!((found.command, usize::from(found.plain_size)), (1, plain.len()));
        let with_more = [&message[..], b"whatever comes next"].concat();
        assert_eq!(matched(&with_more).proof, Proof::Lznt1);
    });
}

#[test]
fn an_uncompressed_body_matches_by_its_sizes_under_every_setting() {
    let plain: Vec<u8> = (0..200_u8).rev().collect();
    for_every_setting(|index, kind, alignment, key| {
        for flags in [0x01_u8, 0x10] {
            let message = uncompressed(kind, alignment, key, flags, &plain);
            let found = matched(&message);
            assert_eq!((found.cipher, found.alignment), (index, alignment));
            assert_eq!((found.flags, found.proof), (u32::from(flags) << 24, Proof::Header));
            let with_noise = [&message[..], &[0x55; 40]].concat();
            assert_eq!(decoder().examine(&with_noise), PlugxVerdict::No);
        }
    });
}

#[test]
fn a_body_not_enciphered_matches_too() {
    let plain = b"left in clear on the wire".repeat(4);
    let packed = pack(&plain);
    let (kind, key) = (CipherKind::T1, 0xCAFE_F00D);
    for flags in [0x02_u8, 0x20] {
        let mut message = header(
            kind,
            ALIGNMENTS[0],
            key,
            u32::from(flags) << 24 | 2,
            packed.len() as u16,
            plain.len() as u16,
            0,
        );
        message.extend_from_slice(&packed);
        assert_eq!(matched(&message).proof, Proof::Lznt1);
    }
}

#[test]
fn two_messages_in_one_head_match_under_every_setting() {
    for_every_setting(|index, kind, alignment, key| {
        let keep_alive = header(kind, alignment, key, 2, 0, 0, 0);
        let second = header(kind, alignment, key ^ 0x0F0F_0F0F, 1, 0, 0, 0);
        let head = [&keep_alive[..], &second].concat();
        let found = matched(&head);
        assert_eq!((found.cipher, found.alignment, found.command), (index, alignment, 2));
        assert_eq!(decoder().examine(&head[..HEADER_LEN + 5]), PlugxVerdict::NeedMore);
        let with_body =
            [&keep_alive[..], &compressed(kind, alignment, !key, 1, &[9; 300])].concat();
        assert_eq!(matched(&with_body).command, 2);
    });
}

#[test]
fn a_split_message_asks_for_more_until_it_is_whole() {
    let plain = b"C:\\staging\\customers.csv".repeat(8);
    for_every_setting(|_, kind, alignment, key| {
        let message = compressed(kind, alignment, key, 0x3005, &plain);
        for len in 1..message.len() {
            assert_eq!(decoder().examine(&message[..len]), PlugxVerdict::NeedMore, "{len}");
        }
        assert_eq!(matched(&message).command, 0x3005);
    });
}

#[test]
fn the_longest_theft_message_matches() {
    let plain: Vec<u8> = (0..MAX_BODY_LEN).map(|at| ((at * 31) >> 3) as u8).collect();
    let message = uncompressed(CipherKind::T1, ALIGNMENTS[0], 0x1357_9BDF, 0x01, &plain);
    assert_eq!(message.len(), 61_456);
    assert_eq!(usize::from(matched(&message).size), MAX_BODY_LEN);
}

#[test]
fn a_header_that_contradicts_itself_does_not_match() {
    let (kind, alignment, key) = (CipherKind::T1, ALIGNMENTS[0], 0xA1B2_C3D4);
    for (why, message) in [
        ("an empty body with a status", header(kind, alignment, key, 0, 0, 0, 1)),
        ("a command not in the table", header(kind, alignment, key, 0x8888, 0, 0, 0)),
        ("a flag not in the set", header(kind, alignment, key, 0x0400_0000, 0, 0, 0)),
        ("a flag below the top byte", header(kind, alignment, key, 0x0001_0000, 0, 0, 0)),
        ("a body longer than its plain form allows", header(kind, alignment, key, 1, 900, 3, 0)),
    ] {
        assert_eq!(decoder().examine(&message), PlugxVerdict::No, "{why}");
    }
}

#[test]
fn openings_of_known_protocols_are_passed_over() {
    for opening in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"POST /update HTTP/1.1",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3],
        &[0x15, 3, 3, 0, 2, 2, 40],
        b"SSH-2.0-OpenSSH",
        b"220 mail.example ESMTP",
    ] {
        assert_eq!(decoder().examine(opening), PlugxVerdict::No);
    }
}

#[test]
fn a_key_that_looks_like_the_opening_of_a_protocol_hides_nothing() {
    let plain = b"C:\\staging\\customers.csv".repeat(8);
    for opening in [*b"GET ", *b"SSH-", *b"220 ", [0x16, 3, 1, 2], [0x17, 3, 3, 0], [0x14, 3, 3, 0]]
    {
        let own = u32::from_le_bytes(opening);
        for_every_setting(|_, kind, alignment, _| {
            assert_eq!(matched(&compressed(kind, alignment, own, 0x3005, &plain)).command, 0x3005);
        });
    }
}

/// Law: a forged size field is not enough. Every payload here states its own length correctly
/// under some setting, which a test of the size alone would take for a match.
#[test]
fn random_payloads_with_forged_sizes_never_match() {
    let decoder = decoder();
    let mut random = XorShift(0x0DDB_1A5E);
    let mut asked_for_more = 0;
    for round in 0..300_000_usize {
        let len = HEADER_LEN + (random.next() % 200) as usize * (round % 3);
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(len);
        let kind = decoder.ciphers[round % decoder.ciphers.len()].kind;
        let skip = if round % 2 == 0 { 8 } else { 4 };
        let key = u32::from_le_bytes(*bytes.first_chunk().unwrap());
        let mut stream = [0; 12];
        kind.keystream(key).apply(&mut stream);
        let size = (len - HEADER_LEN) as u16;
        for (at, byte) in size.to_le_bytes().into_iter().enumerate() {
            bytes[8 + at] = byte ^ stream[skip + at];
        }
        match decoder.examine(&bytes) {
            PlugxVerdict::Match(found) => panic!("{found:?} in {bytes:02x?}"),
            PlugxVerdict::NeedMore => asked_for_more += 1,
            PlugxVerdict::No => {}
        }
    }
    assert!(asked_for_more < 30, "the head must rarely be held for more: {asked_for_more}");
}

#[test]
fn mutated_messages_are_examined_without_a_panic() {
    let decoder = decoder();
    let mut random = XorShift(0x00C0_FFEE);
    let seed = compressed(CipherKind::T1, ALIGNMENTS[0], 77, 0x3005, &b"mutate me ".repeat(30));
    for _ in 0..20_000 {
        let mut bytes = seed.clone();
        let at = HEADER_LEN + (random.next() as usize) % (bytes.len() - HEADER_LEN);
        bytes[at] = random.next() as u8;
        bytes.truncate(1 + (random.next() as usize) % bytes.len());
        let _ = decoder.examine(&bytes);
    }
}

#[test]
fn every_default_command_has_a_name_and_theft_is_called_theft() {
    for (low, high) in PlugxConstants::default().commands {
        for command in low..=high {
            assert_ne!(PlugxDecoder::command_name(command), "unknown command", "{command:#06x}");
        }
    }
    assert_eq!(PlugxDecoder::command_name(0x3005), "read file data (file theft)");
}

#[test]
fn there_are_seventeen_default_settings_with_distinct_names() {
    let mut ids: Vec<_> = PlugxConstants::default().ciphers.into_iter().map(|c| c.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 17);
}

#[test]
fn more_ciphers_than_are_tried_are_refused_with_their_number() {
    let mut constants = PlugxConstants::default();
    let once = constants.ciphers.clone();
    (0..3).for_each(|_| constants.ciphers.extend(once.clone()));
    let told = serde_json::from_str::<PlugxConstants>(&serde_json::to_string(&constants).unwrap())
        .unwrap_err()
        .to_string();
    assert!(told.starts_with("68 ciphers, and at most 64 are tried"), "{told}");
    constants.ciphers.truncate(64);
    let text = serde_json::to_string(&constants).unwrap();
    assert_eq!(serde_json::from_str::<PlugxConstants>(&text).unwrap(), constants);
}

#[test]
fn a_stated_length_proves_a_header_before_its_body_came_and_refuses_another() {
    let plain = b"C:\\staging\\customers.csv".repeat(8);
    for_every_setting(|_, kind, alignment, key| {
        let message = compressed(kind, alignment, key, 0x3005, &plain);
        let (len, decoder) = (message.len(), decoder());
        for known in [HEADER_LEN, HEADER_LEN + 9] {
            let head = &message[..known];
            assert!(matches!(decoder.examine_of(head, Some(len)), PlugxVerdict::Match(_)));
            assert_eq!(decoder.examine_of(head, Some(len - 1)), PlugxVerdict::No);
            assert_eq!(decoder.examine_of(head, Some(len + 20)), PlugxVerdict::NeedMore);
        }
        let mut spoiled = message.clone();
        spoiled[HEADER_LEN + 1] ^= 0x70;
        assert_eq!(decoder.examine_of(&spoiled, Some(len)), PlugxVerdict::No);
    });
}

fn decoder() -> PlugxDecoder {
    PlugxDecoder::new(&PlugxConstants::default())
}

fn matched(head: &[u8]) -> PlugxMatch {
    match decoder().examine(head) {
        PlugxVerdict::Match(found) => found,
        other => panic!("{other:?} for {head:02x?}"),
    }
}

fn for_every_setting(mut check: impl FnMut(usize, CipherKind, Alignment, u32)) {
    let mut random = XorShift(0xBADC_0DE5);
    for (index, setting) in PlugxConstants::default().ciphers.into_iter().enumerate() {
        for alignment in ALIGNMENTS {
            check(index, setting.kind, alignment, random.next() as u32);
        }
    }
}

fn header(
    kind: CipherKind,
    alignment: Alignment,
    key: u32,
    word: u32,
    size: u16,
    plain_size: u16,
    extra: u32,
) -> Vec<u8> {
    let mut fields = [
        &word.to_le_bytes()[..],
        &size.to_le_bytes(),
        &plain_size.to_le_bytes(),
        &extra.to_le_bytes(),
    ]
    .concat();
    let mut stream = kind.keystream(key);
    if alignment == Alignment::KeystreamFromKey {
        stream.apply(&mut [0; 4]);
    }
    stream.apply(&mut fields);
    [&key.to_le_bytes()[..], &fields].concat()
}

fn compressed(
    kind: CipherKind,
    alignment: Alignment,
    key: u32,
    word: u32,
    plain: &[u8],
) -> Vec<u8> {
    let mut body = pack(plain);
    let mut message = header(kind, alignment, key, word, body.len() as u16, plain.len() as u16, 0);
    kind.keystream(key).apply(&mut body);
    message.extend_from_slice(&body);
    message
}

fn uncompressed(
    kind: CipherKind,
    alignment: Alignment,
    key: u32,
    flags: u8,
    plain: &[u8],
) -> Vec<u8> {
    let len = plain.len() as u16;
    let mut message = header(kind, alignment, key, u32::from(flags) << 24 | 0x3005, len, len, 0);
    let mut body = plain.to_vec();
    kind.keystream(key).apply(&mut body);
    message.extend_from_slice(&body);
    message
}

/// An LZNT1 compressor that only writes literals.
fn pack(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // 3640 literals and their flag bytes are the most that fits a chunk's length field.
    for chunk in plain.chunks(3640) {
        let data: Vec<u8> = chunk.chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
        out.extend_from_slice(&(0xB000 | (data.len() as u16 - 1)).to_le_bytes());
        out.extend_from_slice(&data);
    }
    out
}

/// Deterministic bytes (Marsaglia's xorshift64).
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
