//! Small talk: a service that says back what it hears, and a client that notices when it does not.

use super::{Arguments, leash, ready};
use serde_json::json;
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Longest wait for an answer: a cut answers never, the laboratory within a millisecond.
const PATIENCE: Duration = Duration::from_millis(900);
const WORDS: &[u8] = b"the same words come back, or somebody cut the line between";

/// `echo [--tcp PORT,…] [--udp PORT,…]`: says back what it hears.
pub fn echo(arguments: &Arguments) {
    let ports = |name: &str| -> Vec<u16> {
        let list = arguments.text(name).unwrap_or_default().split(',');
        list.filter(|port| !port.is_empty()).map(|port| port.parse().expect("a port")).collect()
    };
    for port in ports("tcp") {
        let listener = TcpListener::bind(("::", port)).expect("the echo listens");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut buffer = [0_u8; 4096];
                    while let Ok(got @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..got]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    for port in ports("udp") {
        let socket = UdpSocket::bind(("::", port)).expect("the echo listens");
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            while let Ok((got, from)) = socket.recv_from(&mut buffer) {
                // Who is cut off hears nothing; that is what is measured.
                let _cut = socket.send_to(&buffer[..got], from);
            }
        });
    }
    leash(&ready(), |_| ready());
}

/// `talk`: answers `tcp ADDR:PORT` and `udp ADDR:PORT` by one exchange of its own, `open ADDR:PORT` by a connection that
/// it keeps, `say N` by one more exchange on the Nth of those.
pub fn talk(_arguments: &Arguments) {
    let mut lines: Vec<TcpStream> = Vec::new();
    leash(&ready(), |question| {
        let (verb, rest) = question.split_once(' ').unwrap_or((question, ""));
        let address = || rest.parse::<SocketAddr>().expect("ADDR:PORT");
        let outcome = match verb {
            "tcp" => open(address()).and_then(|mut line| exchange(&mut line)),
            "udp" => datagram(address()),
            "open" => open(address()).and_then(|mut line| {
                exchange(&mut line)?;
                lines.push(line);
                Ok(())
            }),
            "say" => lines
                .get_mut(rest.parse::<usize>().expect("a number"))
                .ok_or_else(|| Error::from(ErrorKind::NotFound))
                .and_then(exchange),
            _ => Err(Error::other(format!("unknown question {question}"))),
        };
        match outcome {
            Ok(()) => json!({"ok": true}),
            Err(error) => json!({"ok": false, "error": error.to_string()}),
        }
    });
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let line = TcpStream::connect_timeout(&to, PATIENCE)?;
    line.set_nodelay(true)?;
    line.set_read_timeout(Some(PATIENCE))?;
    line.set_write_timeout(Some(PATIENCE))?;
    Ok(line)
}

fn exchange(line: &mut TcpStream) -> Result<()> {
    line.write_all(WORDS)?;
    let mut heard = vec![0_u8; WORDS.len()];
    line.read_exact(&mut heard)?;
    if heard == WORDS { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn datagram(to: SocketAddr) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(WORDS)?;
    let mut heard = [0_u8; 4096];
    let got = socket.recv(&mut heard)?;
    if heard.get(..got) == Some(WORDS) { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}
