//! Who listens: a counter of tagged frames on a device, a capture into a file, a sink for connections.

use super::raw::{MARK, TAG};
use super::{Arguments, leash, now_ns, ready};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

fn open(device: &str) -> pcap::Capture<pcap::Active> {
    let capture = pcap::Capture::from_device(device)
        .map(|capture| {
            capture
                .immediate_mode(true)
                .promisc(true)
                .snaplen(262_144)
                .buffer_size(64 << 20)
                .precision(pcap::Precision::Nano)
                .timeout(10)
        })
        .and_then(pcap::Capture::open);
    let capture = capture.unwrap_or_else(|error| panic!("cannot capture on {device}: {error}"));
    capture.setnonblock().expect("a capture that does not block")
}

/// `count --dev NAME`: counts frames by tag as they arrive; `count` tells, `clear` tells and forgets.
pub fn count(arguments: &Arguments) {
    let device = arguments.need("dev").to_owned();
    let mut capture = open(&device);
    if device != "lo" {
        capture.direction(pcap::Direction::In).expect("only what arrives");
    }
    let seen = Arc::new(Mutex::new(BTreeMap::<String, (u64, u64)>::new()));
    {
        let seen = Arc::clone(&seen);
        std::thread::spawn(move || {
            loop {
                match capture.next_packet() {
                    Ok(packet) => {
                        if let Some(tag) = tag_of(packet.data) {
                            let mut seen = seen.lock().unwrap();
                            let entry = seen.entry(tag).or_default();
                            *entry = (entry.0 + 1, now_ns());
                        }
                    }
                    Err(pcap::Error::NoMorePackets | pcap::Error::TimeoutExpired) => {
                        std::thread::sleep(std::time::Duration::from_micros(300))
                    }
                    Err(_) => return,
                }
            }
        });
    }
    leash(&ready(), |question| {
        let mut seen = seen.lock().unwrap();
        let told = json!({"tags": seen.iter().map(|(tag, (n, _))| (tag.clone(), *n)).collect::<BTreeMap<_, _>>(), "last": seen.iter().map(|(tag, (_, at))| (tag.clone(), *at)).collect::<BTreeMap<_, _>>()});
        if question == "clear" {
            seen.clear();
        }
        told
    });
}

fn tag_of(frame: &[u8]) -> Option<String> {
    let at = frame.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    frame.get(at..at + TAG).map(|tag| String::from_utf8_lossy(tag).into_owned())
}

/// `capture --dev NAME --out FILE`: a capture with nanoseconds; the answer to any question is given once all is on disk.
pub fn capture(arguments: &Arguments) {
    let mut capture = open(arguments.need("dev"));
    let mut file = capture.savefile(arguments.need("out")).expect("a file for the capture");
    let (frames, stop, done) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    {
        let (frames, stop, done) = (Arc::clone(&frames), Arc::clone(&stop), Arc::clone(&done));
        std::thread::spawn(move || {
            loop {
                match capture.next_packet() {
                    Ok(packet) => {
                        file.write(&packet);
                        frames.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) if stop.load(Ordering::Relaxed) => break,
                    Err(_) => std::thread::sleep(std::time::Duration::from_micros(300)),
                }
            }
            file.flush().expect("the capture goes to disk");
            let lost = capture.stats().map_or(0, |stats| stats.dropped);
            assert_eq!(lost, 0, "the capture lost frames");
            done.store(true, Ordering::Release);
        });
    }
    leash(&ready(), |_| {
        stop.store(true, Ordering::Relaxed);
        while !done.load(Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        json!({"frames": frames.load(Ordering::Relaxed)})
    });
}

/// `sink --port N`: accepts connections and reads them empty.
pub fn sink(arguments: &Arguments) {
    let listener =
        TcpListener::bind(("::", u16::try_from(arguments.number("port", 9999)).expect("a port")))
            .expect("the sink listens");
    let bytes = Arc::new(AtomicU64::new(0));
    {
        let bytes = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let bytes = Arc::clone(&bytes);
                std::thread::spawn(move || {
                    let mut buffer = [0_u8; 65536];
                    while let Ok(got @ 1..) = stream.read(&mut buffer) {
                        bytes.fetch_add(got as u64, Ordering::Relaxed);
                    }
                });
            }
        });
    }
    leash(&ready(), |_| json!({"bytes": bytes.load(Ordering::Relaxed)}));
}

/// `nft-loop`: answers `go N` with the nanoseconds that each of N forked `nft add element` took, in a table of its own.
pub fn nft_loop() {
    let nft = |words: &str| {
        let began = std::time::Instant::now();
        let output = std::process::Command::new("nft")
            .args(words.split_whitespace())
            .output()
            .expect("nft starts");
        assert!(
            output.status.success(),
            "nft {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    };
    leash(&ready(), |question| {
        let Some(times) = question.strip_prefix("go ").and_then(|n| n.parse::<u32>().ok()) else {
            return json!({"error": format!("unknown question {question}")});
        };
        nft("add table inet stand-in");
        nft("add set inet stand-in cut { type ipv4_addr ; flags timeout ; }");
        let took: Vec<u64> = (0..times)
            .map(|nth| {
                nft(&format!(
                    "add element inet stand-in cut {{ 198.19.{}.{} timeout 1h }}",
                    nth / 256,
                    nth % 256
                ))
            })
            .collect();
        nft("delete table inet stand-in");
        json!({"took_ns": took})
    });
}
