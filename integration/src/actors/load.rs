//! Loads: a sender at a steady rate, a crowd of connections, programs that take all the CPU there is.

use super::intruder::key;
use super::message::{Message, Setting};
use super::{Arguments, Dice, leash, now_ns, ready};
use serde_json::{Value, json};
use std::io::{Error, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Payload of one packet of a steady sender.
const CHUNK: usize = 1250;
/// More than this behind its time a sender does not catch up: a line has no memory.
const BEHIND: Duration = Duration::from_micros(200);

/// `pour --mbit N [--setting NAME] [--bytes N]`: answers `ADDR:PORT MS plain|plugx` by a connection that sends at a steady
/// rate for so long at most, with one PlugX header first if told so; tells what was taken by the kernel.
pub fn pour(arguments: &Arguments) {
    let rate = (arguments.number("mbit", 100), arguments.number("bytes", u64::MAX));
    let setting = Setting::named(arguments.text("setting").unwrap_or("T1"));
    let mut dice = Dice(arguments.number("seed", 3));
    leash(&ready(), |question| {
        let words: Vec<&str> = question.split_whitespace().collect();
        let [to, ms, kind] = words.as_slice() else {
            return json!({"error": format!("unknown question {question}")});
        };
        let to: SocketAddr = to.parse().expect("ADDR:PORT");
        let lasts = Duration::from_millis(ms.parse().expect("milliseconds"));
        let header =
            (*kind == "plugx").then(|| Message::empty(0).encipher(setting, key(&mut dice)));
        match pour_once(to, lasts, rate, header.as_deref()) {
            Ok(told) => told,
            Err(error) => json!({"error": error.to_string()}),
        }
    });
}

fn pour_once(
    to: SocketAddr,
    lasts: Duration,
    (mbit, most): (u64, u64),
    header: Option<&[u8]>,
) -> Result<Value, Error> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let gap = Duration::from_nanos(CHUNK as u64 * 8_000 / mbit.max(1));
    let chunk = [b'x'; CHUNK];
    let (began, mut sent, mut error) = (Instant::now(), 0_u64, None);
    let header_at_ns = now_ns();
    if let Some(header) = header {
        stream.write_all(header)?;
    }
    let mut due = Instant::now();
    while began.elapsed() < lasts && sent < most {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        match stream.write(&chunk) {
            Ok(taken) => sent += taken as u64,
            Err(failed) => {
                error = Some(failed.to_string());
                break;
            }
        }
        due = (due + gap).max(Instant::now().checked_sub(BEHIND).unwrap_or(due));
    }
    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(json!({"sent": sent, "took_ns": took, "header_at_ns": header_at_ns, "error": error}))
}

/// As many open files as the system gives.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: u64 = 262_144;
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.map_or(WANTED, |maximum| maximum.max(WANTED));
    let raised = Rlimit { current: Some(WANTED), maximum: Some(maximum) };
    if setrlimit(Resource::Nofile, raised).is_err() {
        // Beyond the hard limit only with a capability that not every root has.
        let raised = Rlimit { current: now.maximum, maximum: now.maximum };
        setrlimit(Resource::Nofile, raised).expect("as many open files as the hard limit");
    }
}

/// `hold --port N [--most N]`: accepts connections and keeps them, silent; the oldest go when there are more.
pub fn hold(arguments: &Arguments) {
    raise_files();
    let port = u16::try_from(arguments.number("port", 9997)).expect("a port");
    let most = usize::try_from(arguments.number("most", u64::MAX)).unwrap_or(usize::MAX);
    let listener = TcpListener::bind(("::", port)).expect("the holder listens");
    let held = Arc::new(AtomicU64::new(0));
    {
        let held = Arc::clone(&held);
        std::thread::spawn(move || {
            let mut streams = std::collections::VecDeque::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if streams.len() >= most {
                    streams.pop_front();
                }
                streams.push_back(stream);
                held.store(streams.len() as u64, Ordering::Relaxed);
            }
        });
    }
    leash(&ready(), |_| json!({"held": held.load(Ordering::Relaxed)}));
}

/// `crowd --prefix A.B --port N --addresses N`: answers `open N` by so many connections, spread over the addresses,
/// each having said something; `alive` tells how many are not ended yet.
pub fn crowd(arguments: &Arguments) {
    raise_files();
    let prefix = arguments.need("prefix").to_owned();
    let port = arguments.number("port", 9997);
    let addresses = arguments.number("addresses", 8).max(1);
    let mut streams: Vec<TcpStream> = Vec::new();
    leash(&ready(), |question| {
        if let Some(count) = question.strip_prefix("open ").and_then(|n| n.parse::<u64>().ok()) {
            streams.clear();
            for nth in 0..count {
                let to = format!("{prefix}.255.{}:{port}", 1 + nth % addresses);
                let to: SocketAddr = to.parse().expect("an address");
                let opened = TcpStream::connect_timeout(&to, Duration::from_secs(5));
                match opened.and_then(|mut stream| stream.write_all(b"hello").map(|()| stream)) {
                    Ok(stream) => streams.push(stream),
                    Err(error) => {
                        return json!({"open": streams.len(), "error": error.to_string()});
                    }
                }
            }
            return json!({"open": streams.len()});
        }
        let alive = streams.iter().filter(|stream| matches!(stream.take_error(), Ok(None)));
        json!({"alive": alive.filter(|stream| stream.peer_addr().is_ok()).count()})
    });
}

/// `hog [--threads N]`: takes a core for each thread until it is let go.
pub fn hog(arguments: &Arguments) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let turns = Arc::new(AtomicU64::new(0));
    for _ in 0..arguments.number("threads", cores) {
        let turns = Arc::clone(&turns);
        std::thread::spawn(move || {
            let mut dice = Dice(1);
            loop {
                for _ in 0..10_000 {
                    std::hint::black_box(dice.roll());
                }
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    leash(&ready(), |_| json!({"turns": turns.load(Ordering::Relaxed)}));
}

/// `forge --to ADDR:PORT|A.B --count N [--setting NAME] [--threads N]`: connections of its own that each send one PlugX
/// header: with a prefix to that many addresses of it, else all to the one address. It begins at `go`.
pub fn forge(arguments: &Arguments) {
    let to = arguments.need("to").to_owned();
    let count = arguments.number("count", 1000);
    let setting = Setting::named(arguments.text("setting").unwrap_or("T1"));
    let threads = arguments.number("threads", 16).max(1);
    let target = move |nth: u64| -> SocketAddr {
        let text = if to.contains(':') {
            to.clone()
        } else {
            format!("{to}.{}.{}:443", nth / 200, 1 + nth % 200)
        };
        text.parse().expect("ADDR:PORT")
    };
    let tally = Arc::new(Mutex::new((0_u64, 0_u64, 0_u64)));
    let go = Arc::new(AtomicBool::new(false));
    for thread in 0..threads {
        let (tally, go, target) = (Arc::clone(&tally), Arc::clone(&go), target.clone());
        std::thread::spawn(move || {
            while !go.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut dice = Dice(thread * 7919 + 11);
            for nth in (thread..count).step_by(usize::try_from(threads).unwrap_or(1)) {
                let outcome = forge_one(target(nth), setting, &mut dice);
                let mut tally = tally.lock().unwrap();
                tally.0 += 1;
                if outcome.is_ok() {
                    tally.1 += 1;
                } else {
                    tally.2 += 1;
                }
            }
        });
    }
    leash(&ready(), |question| {
        if question == "go" {
            go.store(true, Ordering::Release);
        }
        let (tried, sent, refused) = *tally.lock().unwrap();
        json!({"tried": tried, "sent": sent, "refused": refused})
    });
}

fn forge_one(to: SocketAddr, setting: Setting, dice: &mut Dice) -> Result<(), Error> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(250))?;
    stream.set_nodelay(true)?;
    stream.write_all(&Message::empty(0).encipher(setting, key(dice)))?;
    // Long enough for whoever listens to look at it before the end of the flow.
    std::thread::sleep(Duration::from_millis(5));
    Ok(())
}
