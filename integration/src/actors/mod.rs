//! The people and programs of the laboratory: legitimate traffic, the intruder, and who listens.
//!
//! In come arguments and, line by line on standard input, questions; out comes one JSON line per
//! answer. An actor ends when its standard input closes. It must not know the engine.

pub mod bare;
pub mod cipher;
pub mod dns;
pub mod forged;
pub mod forward;
pub mod http;
pub mod implant;
pub mod intruder;
pub mod listen;
pub mod load;
pub mod lznt1;
pub mod message;
pub mod raw;
pub mod talk;

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of an actor: `--name value` pairs and what is left.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    named: HashMap<String, String>,
    /// Arguments without a name.
    pub free: Vec<String>,
}

impl Arguments {
    /// Reads them.
    #[must_use]
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some(name) => {
                    let value =
                        arguments.next().unwrap_or_else(|| panic!("--{name} needs a value"));
                    parsed.named.insert(name.to_owned(), value);
                }
                None => parsed.free.push(argument),
            }
        }
        parsed
    }

    /// The text of an argument, when given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// The text of an argument that must be given.
    #[must_use]
    pub fn need(&self, name: &str) -> &str {
        self.text(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    /// A number, or `default`.
    #[must_use]
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("--{name} {text} is not a number"))
        })
    }
}

/// Says `hello`, then answers each line of standard input until it closes.
pub fn leash(hello: &Value, mut answer: impl FnMut(&str) -> Value) {
    say(hello);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        say(&answer(line.trim()));
    }
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    // The other end may have gone: then nobody is left to hear it.
    let _gone = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// The hello of an actor that has nothing else to say.
#[must_use]
pub fn ready() -> Value {
    json!({"ready": true})
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A small generator of numbers that look random and are the same on every run (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A table of customers as text, `bytes` long: what the story's intruder is after.
#[must_use]
pub fn customers_file(bytes: usize) -> Vec<u8> {
    let mut dice = Dice(0x4A_5442);
    let mut text = b"id,name,passport,email,journey\n".to_vec();
    let mut id = 0_u64;
    while text.len() < bytes {
        id += 1;
        let roll = dice.roll();
        text.extend_from_slice(
            format!(
                "{id},Customer {:05},TK{:07},c{:x}@customers.example,{}\n",
                roll % 100_000,
                roll >> 40,
                roll & 0xFFFF_FFFF,
                roll % 977
            )
            .as_bytes(),
        );
    }
    text.truncate(bytes);
    text
}
