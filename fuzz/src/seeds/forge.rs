//! Messages and packets, written from their definitions.

fn list8(body: &[u8]) -> Vec<u8> {
    [&[body.len() as u8], body].concat()
}

fn list16(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

/// A TLS record of the handshake.
pub(super) fn record(body: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &list16(body)].concat()
}

/// A handshake message.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[kind, a, b, c][..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &list16(body)].concat()
}

/// A client's hello with every extension that is read.
pub(super) fn client_hello(host: &str) -> Vec<u8> {
    let extensions = [
        extension(0x1A1A, &[]),
        extension(0, &list16(&[&[0][..], &list16(host.as_bytes())].concat())),
        extension(10, &list16(&[0x2A, 0x2A, 0, 29, 0, 23])),
        extension(11, &list8(&[0])),
        extension(13, &list16(&[4, 3, 8, 4])),
        extension(16, &list16(&[list8(b"h2"), list8(b"http/1.1")].concat())),
        extension(43, &list8(&[0x3A, 0x3A, 3, 4, 3, 3])),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[5; 32],
        &list8(&[6; 8]),
        &list16(&[0x0A, 0x0A, 0x13, 1, 0xC0, 0x2F]),
        &list8(&[0]),
        &list16(&extensions),
    ]
    .concat();
    message(1, &body)
}

pub(super) fn server_hello() -> Vec<u8> {
    let extensions = [extension(0xFF01, &[0]), extension(16, &list16(&list8(b"h2")))].concat();
    let body =
        [&[3, 3][..], &[8; 32], &list8(&[]), &[0xC0, 0x2F, 0], &list16(&extensions)].concat();
    message(2, &body)
}

fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    if body.len() < 128 {
        [&[tag, body.len() as u8], body].concat()
    } else {
        [&[tag, 0x82][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }
}

/// A certificate of which only what is read makes sense.
pub(super) fn certificate() -> Vec<u8> {
    let name = |text: &str| {
        let kind = [6, 3, 0x55, 4, 3];
        der(0x30, &der(0x31, &der(0x30, &[&kind[..], &der(0x0C, text.as_bytes())].concat())))
    };
    let algorithm = der(0x30, &[6, 3, 0x2B, 0x65, 0x70]);
    let times = [der(0x17, b"260101000000Z"), der(0x18, b"20360101000000Z")].concat();
    let key = der(0x30, &[algorithm.clone(), der(3, &[0; 33])].concat());
    let to_sign = [
        der(0xA0, &[2, 1, 2]),
        der(2, &[1, 2, 3]),
        algorithm.clone(),
        name("issuer, of \"all\""),
        der(0x30, &times),
        name("subject"),
        key,
    ]
    .concat();
    let whole = der(0x30, &[der(0x30, &to_sign), algorithm, der(3, &[0; 65])].concat());
    let [_, a, b, c] = (whole.len() as u32).to_be_bytes();
    let [_, d, e, f] = (whole.len() as u32 + 3).to_be_bytes();
    message(11, &[&[d, e, f, a, b, c][..], &whole].concat())
}

/// A key exchange offer in its packet (RFC 4253 §6, §7.1).
pub(super) fn ssh_offer() -> Vec<u8> {
    let mut body = vec![20];
    body.extend_from_slice(&[9; 16]);
    for list in [
        "curve25519-sha256,ext-info-c",
        "ssh-ed25519",
        "aes128-ctr",
        "aes128-gcm",
        "hmac-sha2-256",
        "hmac-sha1",
        "none",
        "none,zlib",
        "",
        "",
    ] {
        body.extend_from_slice(&(list.len() as u32).to_be_bytes());
        body.extend_from_slice(list.as_bytes());
    }
    body.extend_from_slice(&[0; 5]);
    let padding = 8;
    let mut packet = (body.len() as u32 + padding + 1).to_be_bytes().to_vec();
    packet.push(padding as u8);
    packet.extend_from_slice(&body);
    packet.extend_from_slice(&[0; 8]);
    packet
}

pub(super) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16 + 8).to_be_bytes();
    [&[0x9C, 0x40][..], &port.to_be_bytes(), &len, &[0, 0], payload].concat()
}

pub(super) fn tcp(port: u16, payload: &[u8]) -> Vec<u8> {
    [
        &[0x9C, 0x40][..],
        &port.to_be_bytes(),
        &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0],
        payload,
    ]
    .concat()
}

pub(super) fn ethernet(ip: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], ip].concat()
}

/// An IPv4 packet with flags and offset of choice.
pub(super) fn ipv4(protocol: u8, part: u16, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16 + 20).to_be_bytes();
    let head = [&[0x45, 0][..], &len, &[0, 7], &part.to_be_bytes(), &[64, protocol, 0, 0]].concat();
    [&head[..], &[10, 0, 0, 5, 203, 0, 113, 9], body].concat()
}

pub(super) fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let end = |last| [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let len = (body.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &len, &[next, 64], &end(1), &end(2), body].concat()
}

/// The pieces of an IPv4 packet, 24 bytes each.
pub(super) fn fragments(protocol: u8, body: &[u8]) -> Vec<Vec<u8>> {
    let last = body.chunks(24).count().saturating_sub(1);
    body.chunks(24)
        .enumerate()
        .map(|(nth, piece)| {
            let more = if nth == last { 0 } else { 0x2000 };
            ipv4(protocol, more | (nth as u16 * 3), piece)
        })
        .collect()
}
