//! Legitimate traffic: a web server, customers, updates, backups.

use super::{Arguments, Dice, leash, ready, sha256};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The page a server gives for a path: the same on every run.
fn page(path: &str) -> Vec<u8> {
    let mut dice =
        Dice(path.bytes().fold(11, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))));
    let size = 2_000 + usize::try_from(dice.roll() % 18_000).expect("a small number");
    let mut body = format!("<!doctype html><title>{path}</title>").into_bytes();
    while body.len() < size {
        body.extend_from_slice(format!("<p>{:x}</p>", dice.roll()).as_bytes());
    }
    body
}

/// `http-serve --port N [--file PATH]`: pages by path, `/file` from a file, and takes what is posted.
pub fn serve(arguments: &Arguments) {
    let listener =
        TcpListener::bind(("::", u16::try_from(arguments.number("port", 80)).expect("a port")))
            .expect("the web server listens");
    let file = Arc::new(
        arguments.text("file").map(|path| std::fs::read(path).expect("the file to serve")),
    );
    let served = Arc::new(Mutex::new((0_u64, 0_u64)));
    {
        let served = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (file, served) = (Arc::clone(&file), Arc::clone(&served));
                std::thread::spawn(move || {
                    let _gone = serve_one(stream, file.as_deref(), &served);
                });
            }
        });
    }
    leash(&ready(), |_| {
        let (requests, posted) = *served.lock().unwrap();
        json!({"requests": requests, "posted_bytes": posted})
    });
}

fn serve_one(
    mut stream: TcpStream,
    file: Option<&[u8]>,
    served: &Mutex<(u64, u64)>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let Some((first, length)) = head(&mut reader)? else { return Ok(()) };
        let mut posted = vec![0_u8; length];
        reader.read_exact(&mut posted)?;
        {
            let mut served = served.lock().unwrap();
            served.0 += 1;
            served.1 += posted.len() as u64;
        }
        let path = first.split_whitespace().nth(1).unwrap_or("/").to_owned();
        let body = match (path.as_str(), file) {
            ("/file", Some(file)) => file.to_vec(),
            _ if first.starts_with("POST") => sha256(&posted).into_bytes(),
            _ => page(&path),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Type: text/html\r\nX-Content-SHA256: {}\r\nContent-Length: {}\r\n\r\n",
            sha256(&body),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat())?;
    }
}

/// First line and content length of a head; `None` at the end of the connection.
fn head(reader: &mut impl BufRead) -> std::io::Result<Option<(String, usize)>> {
    let (mut first, mut length) = (String::new(), 0);
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some((first, length)));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}

/// One exchange on an open connection; the body of the answer.
fn exchange(
    stream: &mut TcpStream,
    host: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let why = |error: std::io::Error| error.to_string();
    let head_text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lab/1\r\nAccept: */*\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head_text.as_bytes(), body].concat()).map_err(why)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(why)?);
    let (first, length) = head(&mut reader).map_err(why)?.ok_or("closed without an answer")?;
    if !first.contains(" 200 ") {
        return Err(first);
    }
    let mut answer = vec![0_u8; length];
    reader.read_exact(&mut answer).map_err(why)?;
    Ok(answer)
}

fn connect(to: SocketAddr, within: Duration) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&to, within).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(within))
        .and_then(|()| stream.set_write_timeout(Some(within)))
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Fetches `ADDR:PORT/PATH` over a connection of its own.
///
/// # Errors
/// What went wrong, in words.
pub fn fetch(from: &str, within: Duration) -> Result<Vec<u8>, String> {
    let (to, path) = from.split_once('/').ok_or("ADDR:PORT/PATH")?;
    let mut stream = connect(to.parse().map_err(|_| "ADDR:PORT/PATH")?, within)?;
    exchange(&mut stream, to, "GET", &format!("/{path}"), &[])
}

/// Asks a foreign web server once: status and body. Reads to the end, so no server can hold it longer than `within` per read.
///
/// # Errors
/// What went wrong, in words.
pub fn get(from: &str, within: Duration) -> Result<(u16, String), String> {
    let (to, path) = from.split_once('/').ok_or("ADDR:PORT/PATH")?;
    let mut stream = connect(to.parse().map_err(|_| "ADDR:PORT/PATH")?, within)?;
    let why = |error: std::io::Error| error.to_string();
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {to}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .map_err(why)?;
    let mut text = Vec::new();
    stream.take(64 << 20).read_to_end(&mut text).map_err(why)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or("no HTTP status")?;
    Ok((status, body.to_owned()))
}

#[derive(Clone, Debug, Default)]
struct Tally {
    done: u64,
    lost: u64,
    slowest_ms: u64,
    last_error: String,
}

/// Repeats `work` and counts how often it was lost, until the actor is let go.
fn repeat(
    every: Duration,
    streams: usize,
    work: impl Fn(u64) -> Result<(), String> + Send + Sync + 'static,
) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let work = Arc::new(work);
    for stream in 0..streams {
        let (tally, work) = (Arc::clone(&tally), Arc::clone(&work));
        std::thread::spawn(move || {
            for turn in 0_u64.. {
                let began = Instant::now();
                let outcome = work(turn * 16 + stream as u64);
                let mut tally = tally.lock().unwrap();
                tally.slowest_ms = tally
                    .slowest_ms
                    .max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                tally.done += 1;
                if let Err(error) = outcome {
                    tally.lost += 1;
                    tally.last_error = error;
                }
                drop(tally);
                std::thread::sleep(every);
            }
        });
    }
    leash(&ready(), |_| {
        let tally = tally.lock().unwrap();
        json!({"done": tally.done, "lost": tally.lost, "slowest_ms": tally.slowest_ms, "last_error": tally.last_error})
    });
}

/// `browse --to ADDR:PORT [--every-ms N] [--streams N]`: customers; one connection per visit, its content checked.
pub fn browse(arguments: &Arguments) {
    let to: SocketAddr = arguments.need("to").parse().expect("--to ADDR:PORT");
    let streams = usize::try_from(arguments.number("streams", 4)).expect("a small number");
    repeat(Duration::from_millis(arguments.number("every-ms", 20)), streams, move |turn| {
        let mut stream = connect(to, Duration::from_secs(4))?;
        // Two pages on one connection with a pause between: a cut in the middle must not lose it.
        for half in 0..2 {
            let path = format!("/page/{turn}/{half}");
            let body = exchange(&mut stream, "shop.example", "GET", &path, &[])?;
            if body != page(&path) {
                return Err(format!("{path} came back changed"));
            }
            std::thread::sleep(Duration::from_millis(15));
        }
        Ok(())
    });
}

/// `updates --to ADDR:PORT [--every-ms N]`: the server fetches from its mirror.
pub fn updates(arguments: &Arguments) {
    let to: SocketAddr = arguments.need("to").parse().expect("--to ADDR:PORT");
    repeat(Duration::from_millis(arguments.number("every-ms", 100)), 1, move |turn| {
        let path = format!("/debian/pool/{}", turn % 7);
        let mut stream = connect(to, Duration::from_secs(4))?;
        let body = exchange(&mut stream, "mirror.example", "GET", &path, &[])?;
        if body == page(&path) { Ok(()) } else { Err(format!("{path} came back changed")) }
    });
}

/// `backup --to ADDR:PORT [--every-ms N] [--bytes N]`: the server uploads, and compares what the other end says it got.
pub fn backup(arguments: &Arguments) {
    let to: SocketAddr = arguments.need("to").parse().expect("--to ADDR:PORT");
    let bytes = usize::try_from(arguments.number("bytes", 200_000)).expect("a size");
    repeat(Duration::from_millis(arguments.number("every-ms", 150)), 1, move |turn| {
        let body = super::customers_file(bytes + usize::try_from(turn % 100).unwrap_or(0));
        let mut stream = connect(to, Duration::from_secs(4))?;
        let answer = exchange(&mut stream, "backup.example", "POST", "/backup", &body)?;
        if answer == sha256(&body).into_bytes() {
            Ok(())
        } else {
            Err("the backup arrived changed".to_owned())
        }
    });
}
