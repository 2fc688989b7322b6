//! A door between namespaces: TCP on one side, a Unix socket on the other; no cable leaves the laboratory.

use super::{Arguments, leash};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

/// `forward --tcp-in ADDR:PORT --unix-out PATH` or `forward --unix-in PATH --tcp-out ADDR:PORT`.
pub fn run(arguments: &Arguments) {
    let hello = if let Some(tcp_in) = arguments.text("tcp-in") {
        let out = arguments.need("unix-out").to_owned();
        let listener = TcpListener::bind(tcp_in).expect("the door listens");
        let address = listener.local_addr().expect("a bound address");
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Ok(other) = UnixStream::connect(&out) {
                    join_tcp_unix(stream, other);
                }
            }
        });
        json!({"ready": true, "address": address.to_string()})
    } else {
        let out = arguments.need("tcp-out").to_owned();
        let listener = UnixListener::bind(arguments.need("unix-in")).expect("the door listens");
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Ok(other) = TcpStream::connect(&out) {
                    join_tcp_unix(other, stream);
                }
            }
        });
        super::ready()
    };
    leash(&hello, |_| super::ready());
}

fn join_tcp_unix(tcp: TcpStream, unix: UnixStream) {
    let (Ok(tcp_back), Ok(unix_back)) = (tcp.try_clone(), unix.try_clone()) else { return };
    std::thread::spawn(move || {
        pour(&tcp, &unix);
        let _gone = unix.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        pour(&unix_back, &tcp_back);
        let _gone = tcp_back.shutdown(Shutdown::Write);
    });
}

fn pour(mut from: impl Read, mut to: impl Write) {
    let _ended = std::io::copy(&mut from, &mut to);
}
