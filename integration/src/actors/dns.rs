//! A tiny resolver and its client: A records of a fixed table, RFC 1035 and no more.

use super::{Arguments, leash, ready};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `dns-serve --table NAME=ADDR,…`.
pub fn serve(arguments: &Arguments) {
    let table: Vec<(String, Ipv4Addr)> = arguments
        .need("table")
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, address)| (name.to_owned(), address.parse().expect("an IPv4 address")))
        .collect();
    let socket = UdpSocket::bind("0.0.0.0:53").expect("the resolver listens");
    let asked = Arc::new(AtomicU64::new(0));
    {
        let asked = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 512];
            while let Ok((size, from)) = socket.recv_from(&mut buffer) {
                asked.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&buffer[..size], &table) {
                    let _gone = socket.send_to(&answer, from);
                }
            }
        });
    }
    leash(&ready(), |_| json!({"asked": asked.load(Ordering::Relaxed)}));
}

fn answer(query: &[u8], table: &[(String, Ipv4Addr)]) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let wanted = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let found = table.iter().find(|(name, _)| *name == labels.join(".")).filter(|_| wanted == 1);
    let mut out = query[0..2].to_vec();
    out.extend_from_slice(if found.is_some() {
        &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
    } else {
        &[0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]
    });
    out.extend_from_slice(question);
    if let Some((_, address)) = found {
        out.extend_from_slice(&[0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 1, 0x2C, 0, 4]);
        out.extend_from_slice(&address.octets());
    }
    Some(out)
}

/// Asks a resolver for the IPv4 address of a name.
#[must_use]
pub fn ask(resolver: &str, name: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut query = vec![0x4A, 0x42, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).ok()?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send_to(&query, (resolver, 53)).ok()?;
    let mut buffer = [0_u8; 512];
    let size = socket.recv(&mut buffer).ok()?;
    let octets: [u8; 4] = buffer.get(size.checked_sub(4)?..size)?.try_into().ok()?;
    (buffer[3] & 15 == 0).then(|| IpAddr::from(octets))
}
