//! Lists of packets as comma-separated values, one line a packet, each with the time since the line before it.

use super::series::{Key, Taken};
use crate::evaluate::fleet::{Burst, Connection};
use std::path::Path;

/// Silence of the client that sets contacts apart, in seconds.
const SILENCE: f64 = 1.0;
/// Longest frame of TCP over IPv4 and Ethernet without payload: 14 + 20 + 40.
const BARE: f64 = 74.0;

/// Reads a list; `None` for a table of something else.
pub(super) fn read(path: &Path) -> Option<Result<Taken, String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Some(Err(error.to_string())),
    };
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next()?.split(',').collect();
    let column = |name: &str| head.iter().position(|known| *known == name);
    let columns = [
        column("frame.len")?,
        column("src_ip")?,
        column("dst_ip")?,
        column("is_SYN")?,
        column("is_ACK")?,
        column("is_PSH")?,
        column("time_since_last")?,
    ];
    let label = column("c2_label");
    let mut list = List::default();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let number = |at: usize| cell(at).parse::<f64>().unwrap_or(0.0);
        let [length, from, to, syn, ack, push, since] = columns;
        list.at += number(since).max(0.0);
        let is_payload = number(push) > 0.0 || number(length) > BARE;
        let is_begin = number(syn) > 0.0 && number(ack) == 0.0;
        let is_hostile = label.is_some_and(|label| number(label) > 0.0);
        list.take((cell(from), cell(to)), number(length), (is_begin, is_payload, is_hostile));
    }
    Some(Ok(list.taken.sorted()))
}

#[derive(Default)]
struct List {
    taken: Taken,
    at: f64,
    last_up: f64,
    has_sent: bool,
}

impl List {
    fn take(&mut self, ends: (&str, &str), length: f64, what: (bool, bool, bool)) {
        let (is_begin, is_payload, is_hostile) = what;
        let at = self.at;
        self.taken.saw(at);
        let key = |client: &str, server: &str| Key {
            client: client.to_owned(),
            server: server.to_owned(),
            port: 0,
            transport: "tcp",
        };
        let (out, back) = (key(ends.0, ends.1), key(ends.1, ends.0));
        // Who is seen first is the client.
        let is_back =
            self.taken.series.contains_key(&back) && !self.taken.series.contains_key(&out);
        let series = self.taken.series.entry(if is_back { back } else { out }).or_default();
        series.is_hostile |= is_hostile;
        if is_back {
            if is_payload && let Some(burst) = series.bursts.last_mut() {
                burst.down += length;
            }
            return;
        }
        if is_begin || series.connections.is_empty() {
            series.connections.push(Connection { at, up: 0.0, down: 0.0, seconds: 0.0 });
        }
        if let Some(connection) = series.connections.last_mut() {
            connection.up += length;
            connection.seconds = at - connection.at;
        }
        if !is_payload {
            return;
        }
        if !self.has_sent || at - self.last_up >= SILENCE {
            series.bursts.push(Burst { at, up: 0.0, down: 0.0 });
        }
        (self.has_sent, self.last_up) = (true, at);
        if let Some(burst) = series.bursts.last_mut() {
            burst.up += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_payload_after_a_second_of_silence() {
        let mut list = List::default();
        for (since, up) in [(0.0, true), (0.1, false), (0.5, true), (9.4, true), (0.2, false)] {
            list.at += since;
            let ends = if up { ("0", "1") } else { ("1", "0") };
            list.take(ends, 200.0, (false, true, true));
        }
        let (key, series) = list.taken.series.iter().next().unwrap();
        let times: Vec<f64> = series.bursts.iter().map(|burst| burst.at).collect();
        assert_eq!((key.client.as_str(), times), ("0", vec![0.0, 10.0]));
        let of = |bytes: fn(&Burst) -> f64| series.bursts.iter().map(bytes).sum::<f64>();
        let (up, down) = (of(|burst| burst.up), of(|burst| burst.down));
        assert_eq!((up, down, series.is_hostile), (600.0, 400.0, true));
    }
}
