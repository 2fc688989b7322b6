//! The database is written here by hand, after the format's specification (MaxMind DB File Format Specification 2.0).

use super::*;
use std::io::Write as _;

/// A value of the data section.
enum Value {
    Long(u64),
    Map(Vec<(&'static str, Value)>),
    Number(u32),
    Short(u16),
    Text(&'static str),
}
use Value::{Long, Map, Number, Short, Text};

impl Value {
    /// Control byte: three bits of type, five of size; big-endian numbers.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Map(entries) => {
                out.push(7 << 5 | u8::try_from(entries.len()).unwrap());
                for (key, value) in entries {
                    Text(key).write(out);
                    value.write(out);
                }
            }
            Long(number) => {
                // Extended type 9: no type in the control byte, then the type less seven.
                out.extend([8, 2]);
                out.extend(number.to_be_bytes());
            }
            Short(number) => {
                out.push(5 << 5 | 2);
                out.extend(number.to_be_bytes());
            }
            Number(number) => {
                out.push(6 << 5 | 4);
                out.extend(number.to_be_bytes());
            }
            Text(text) => {
                // A size of 29 says that one more byte follows, to be added.
                match u8::try_from(text.len()).unwrap() {
                    short @ 0..29 => out.push(2 << 5 | short),
                    long => out.extend([2 << 5 | 29, long - 29]),
                }
                out.extend(text.bytes());
            }
        }
    }
}

/// A tree over 128 bits, records of 24 bits; IPv4 lies at ::/96.
fn database(records: &[(&str, Value)]) -> Vec<u8> {
    const EMPTY: usize = usize::MAX;
    let mut data = Vec::new();
    let mut nodes = vec![[EMPTY; 2]];
    let mut leaves = Vec::new();
    for (network, value) in records {
        let network: ipnet::IpNet = network.parse().unwrap();
        let (bits, length) = match network {
            ipnet::IpNet::V4(v4) => (u128::from(u32::from(v4.network())), 96 + v4.prefix_len()),
            ipnet::IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
        };
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                leaves.push((node, side, data.len()));
            } else {
                if nodes[node][side] == EMPTY {
                    nodes.push([EMPTY; 2]);
                    nodes[node][side] = nodes.len() - 1;
                }
                node = nodes[node][side];
            }
        }
        value.write(&mut data);
    }
    let count = nodes.len();
    for node in nodes.iter_mut().flatten().filter(|record| **record == EMPTY) {
        *node = count;
    }
    // A record past the nodes points into the data section, 16 bytes after the tree.
    for (node, side, offset) in leaves {
        nodes[node][side] = count + 16 + offset;
    }
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        file.extend(&u32::try_from(*record).unwrap().to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(&data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let metadata = Map(vec![
        ("binary_format_major_version", Short(2)),
        ("binary_format_minor_version", Short(0)),
        ("build_epoch", Long(1_780_000_000)),
        ("database_type", Text("Sekisho-Test")),
        ("description", Map(vec![("en", Text("test"))])),
        ("ip_version", Short(6)),
        ("node_count", Number(u32::try_from(count).unwrap())),
        ("record_size", Short(24)),
    ]);
    // "languages" is an empty array: extended type 11, that is 4 after the seven plain ones.
    let mut text = Vec::new();
    metadata.write(&mut text);
    text[0] += 1;
    Text("languages").write(&mut text);
    text.extend([0, 4]);
    file.extend(text);
    file
}

fn country(code: &'static str, asn: u32, organization: &'static str) -> Value {
    Map(vec![
        ("country", Map(vec![("iso_code", Text(code))])),
        ("autonomous_system_number", Number(asn)),
        ("autonomous_system_organization", Text(organization)),
    ])
}

#[test]
fn places_are_told_for_both_families_and_nothing_is_invented() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&database(&[
        ("203.0.113.0/24", country("JP", 64_500, "Example K.K.")),
        ("2001:db8::/32", country("NL", 64_501, "Voorbeeld B.V.")),
    ]))
    .unwrap();
    let places = Places::open(&[file.path().to_owned()]).unwrap();
    let place = |address: &str| places.place(address.parse().unwrap());
    let tokyo = Place {
        country: Some("JP".to_owned()),
        asn: Some(64_500),
        organization: Some("Example K.K.".to_owned()),
    };
    assert_eq!(place("203.0.113.9"), Some(tokyo.clone()));
    assert_eq!(place("::ffff:203.0.113.9"), Some(tokyo));
    assert_eq!(place("2001:db8::9").unwrap().country.as_deref(), Some("NL"));
    assert_eq!((place("198.51.100.1"), place("2001:db9::1")), (None, None));
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_leaves_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("places.mmdb");
    fs::write(&path, database(&[("203.0.113.0/24", country("JP", 1, "a"))])).unwrap();
    let mut places = Places::open(std::slice::from_ref(&path)).unwrap();
    assert_eq!(places.reload().unwrap(), 0);
    fs::write(&path, database(&[("203.0.113.0/24", country("FR", 1, "longer name"))])).unwrap();
    assert_eq!(places.reload().unwrap(), 1);
    fs::write(&path, b"no database").unwrap();
    assert!(matches!(places.reload(), Err(OpenPlacesError::Malformed { .. })));
    assert_eq!(
        places.place("203.0.113.9".parse().unwrap()).unwrap().country.as_deref(),
        Some("FR")
    );
}

#[test]
fn without_a_database_there_is_no_place() {
    assert_eq!(Places::default().place("203.0.113.9".parse().unwrap()), None);
    assert!(matches!(
        Places::open(&[PathBuf::from("/nowhere.mmdb")]),
        Err(OpenPlacesError::Read { .. })
    ));
}
