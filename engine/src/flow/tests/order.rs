//! Packets of one connection in another order than they were sent: live captures have two sockets.

use super::tape::Tape;
use super::*;

#[test]
fn a_segment_before_its_syn_belongs_to_the_same_flow() {
    let hello = client_hello("c2.example", 0);
    let mut tape = Tape::new();
    tape.client(0, &hello[..50]);
    tape.syn();
    tape.syn_ack();
    tape.client(50, &hello[50..]);
    assert_eq!((tape.count("started"), tape.count("ended")), (1, 0));
    assert_eq!(tape.count("hello c2.example"), 1, "{:?}", tape.told);
    assert_eq!((tape.count("head"), tape.tracker.totals().flows), (1, 1));
}

#[test]
fn two_parts_of_a_hello_are_joined_whatever_comes_before_the_syn() {
    let hello = client_hello("c2.example", 1500);
    let cut = 1400;
    // SYN, first and second part, in every order.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut tape = Tape::new();
        for step in order {
            match step {
                0 => tape.syn(),
                1 => tape.client(0, &hello[..cut]),
                _ => tape.client(cut, &hello[cut..]),
            }
        }
        tape.syn_ack();
        assert_eq!(tape.count("hello c2.example"), 1, "{order:?}: {:?}", tape.told);
        assert_eq!(tape.count("started"), 1, "{order:?}");
    }
}

#[test]
fn an_answer_before_its_question_is_read_in_the_same_flow() {
    let (first, second) = (
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET /second HTTP/1.1\r\nHost: b.example\r\n\r\n",
    );
    // The server has the higher port, so that the guess is wrong until the SYN comes.
    let mut tape = Tape::new();
    tape.port = 50_000;
    tape.server(0, b"HTTP/1.1 200 OK\r\n\r\n");
    tape.client(0, first);
    tape.syn();
    tape.client(first.len(), second);
    assert_eq!(
        tape.only(&["started", "ended", "request", "response"]),
        [
            "started Egress Inbound",
            "response Local 200 +0",
            "request Remote GET / +0",
            "request Remote GET /second +0"
        ]
    );
}

#[test]
fn ends_that_were_guessed_the_wrong_way_round_are_turned_by_the_syn() {
    let mut lab = Lab::new(Limits::default());
    let hello = client_hello("c2.example", 0);
    // Between two strangers: the server's bytes first, from the higher port.
    lab.tcp(REMOTE, 50_000, OUTSIDE, 400, ACK, 5001, b"\x99answer");
    lab.tcp(OUTSIDE, 400, REMOTE, 50_000, ACK, 1001, &hello[..40]);
    lab.tcp(OUTSIDE, 400, REMOTE, 50_000, SYN, 1000, &[]);
    lab.tcp(OUTSIDE, 400, REMOTE, 50_000, ACK, 1041, &hello[40..]);
    lab.tick(Span::from_hours(2));
    assert_eq!(
        lab.told.iter().filter(|told| *told != "burst").collect::<Vec<_>>(),
        [
            "started Transit Outbound",
            "head Remote 7",
            "head Local 40",
            "volume 7",
            "ended",
            "started Transit Outbound seen",
            "hello c2.example",
            "name c2.example Sni",
            &format!("volume {}", hello.len()),
            "ended",
        ]
    );
    assert_eq!(lab.tracker.totals().live, 0);
}

#[test]
fn the_direction_is_corrected_by_the_late_syn() {
    let mut tape = Tape::new();
    tape.port = 50_000;
    tape.server(0, b"\x99");
    tape.syn();
    let mut directions = Vec::new();
    tape.tracker.handle_timeout(Timestamp::from_nanos(START * 2), &mut |o| {
        directions.push((o.flow.direction, o.flow.start_seen));
        Appetite::Enough
    });
    assert_eq!(directions.last(), Some(&(Direction::Outbound, true)));
}

#[test]
fn a_later_segment_before_the_syn_hides_no_earlier_one() {
    let hello = client_hello("c2.example", 0);
    let mut tape = Tape::new();
    tape.client(500, b"\x17\x03\x03 what follows");
    tape.syn();
    tape.client(0, &hello);
    assert_eq!(tape.count("started"), 1);
    assert_eq!(tape.count("hello c2.example"), 1, "{:?}", tape.told);
}

#[test]
fn client_bytes_before_the_answer_to_the_syn_are_not_read_twice() {
    let hello = client_hello("c2.example", 400);
    let mut tape = Tape::open();
    tape.client(0, &hello[..200]);
    tape.syn_ack();
    tape.client(200, &hello[200..]);
    assert_eq!((tape.count("hello c2.example"), tape.count("head")), (1, 1));
    assert_eq!(tape.tracker.totals().head_gaps, 0);
    // Nor does a copy of the SYN begin anything.
    tape.syn();
    assert_eq!(tape.count("started"), 1);
}

#[test]
fn a_syn_that_fits_nothing_or_comes_too_late_opens_another_flow() {
    for (seq, wait) in [(0x4000_0000, 0), (1000, 3_000_000_000_i64)] {
        let mut lab = Lab::new(Limits::default());
        lab.tcp(LOCAL, 40_000, REMOTE, 443, ACK, 1001, b"x");
        lab.wait(Span::from_nanos(wait));
        lab.tcp(LOCAL, 40_000, REMOTE, 443, SYN, seq, &[]);
        assert_eq!((lab.count("started"), lab.count("ended")), (2, 1), "{seq}");
    }
}
