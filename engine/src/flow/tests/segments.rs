//! One stream, cut and ordered in every way: what is told is what was sent.

use super::tape::Tape;
use super::*;

const REQUEST: &[u8] =
    b"POST /update?wd=b0b9d49c HTTP/1.1\r\nHost: c2.example\r\nContent-Length: 0\r\n\r\n";

fn all_is_read(tape: &Tape, stream: &[u8], how: &str) {
    let (what, name) = if stream == REQUEST {
        ("request Remote POST /update?wd=b0b9d49c +0", "name c2.example Host")
    } else {
        ("hello c2.example", "name c2.example Sni")
    };
    assert_eq!(tape.count(what), 1, "{how}: {:?}", tape.told);
    assert_eq!(tape.count(name), 1, "{how}: {:?}", tape.told);
    for (_, head) in &tape.heads {
        assert!(stream.starts_with(head), "{how}: {head:?}");
    }
    assert_eq!(tape.tracker.totals().head_gaps, 0, "{how}");
}

#[test]
fn a_hello_or_a_head_in_two_segments_is_read_wherever_it_is_cut() {
    for stream in [&client_hello("c2.example", 30)[..], REQUEST] {
        for cut in 1..stream.len() {
            for swapped in [false, true] {
                let mut tape = Tape::open();
                let (first, second) = stream.split_at(cut);
                if swapped {
                    tape.client(cut, second);
                }
                tape.client(0, first);
                if !swapped {
                    tape.client(cut, second);
                }
                all_is_read(&tape, stream, &format!("cut at {cut}, swapped {swapped}"));
            }
        }
    }
}

#[test]
fn a_message_header_in_two_segments_is_told_whole_to_who_wants_more() {
    let header: Vec<u8> = (0x81..0x91).collect();
    for cut in 1..16 {
        for swapped in [false, true] {
            let mut tape = Tape::open();
            tape.head_appetite = Appetite::More;
            let pieces = [(0, &header[..cut]), (cut, &header[cut..])];
            let order = if swapped { [1, 0] } else { [0, 1] };
            for at in order {
                tape.client(pieces[at].0, pieces[at].1);
            }
            assert_eq!(tape.heads.last().unwrap().1, header, "cut at {cut}");
        }
    }
}

#[test]
fn five_segments_are_read_in_every_order() {
    let hello = client_hello("c2.example", 300);
    for stream in [&hello[..], REQUEST] {
        let cuts: Vec<usize> = (0..=5).map(|n| n * stream.len() / 5).collect();
        let mut order = [0, 1, 2, 3, 4];
        permutations(&mut order, 0, &mut |order| {
            let mut tape = Tape::open();
            for &n in order {
                tape.client(cuts[n], &stream[cuts[n]..cuts[n + 1]]);
            }
            all_is_read(&tape, stream, &format!("{order:?}"));
        });
    }
}

fn permutations(order: &mut [usize; 5], from: usize, each: &mut impl FnMut(&[usize; 5])) {
    if from == order.len() {
        return each(order);
    }
    for other in from..order.len() {
        order.swap(from, other);
        permutations(order, from + 1, each);
        order.swap(from, other);
    }
}

#[test]
fn single_bytes_make_up_a_hello_in_both_directions() {
    for stream in [&client_hello("c2.example", 500)[..], REQUEST] {
        let mut tape = Tape::open();
        for (at, byte) in stream.iter().enumerate() {
            tape.client(at, &[*byte]);
            tape.client(at, &[*byte]);
        }
        all_is_read(&tape, stream, "bytes");
        // A server of ours is spoken to.
        let mut tape = Tape::new();
        tape.segment(Toward::Local, SYN, 5000, 0, &[]);
        for (at, byte) in stream.iter().enumerate() {
            tape.server(at, &[*byte]);
        }
        assert_eq!(tape.count("started Egress Inbound seen"), 1);
        assert_eq!(tape.count("hello") + tape.count("request Local"), 1, "{:?}", tape.told);
    }
}

#[test]
fn bytes_sent_again_with_other_content_lose_against_the_first_and_are_flagged() {
    let hello = client_hello("first.example", 100);
    let other = client_hello("other.example", 100);
    assert_eq!(hello.len(), other.len());
    let name = hello.windows(5).position(|bytes| bytes == b"first").unwrap();
    for ahead in [false, true] {
        let mut tape = Tape::open();
        if ahead {
            // The end comes first, then all of it with another name.
            tape.client(name - 4, &hello[name - 4..]);
            tape.client(0, &other);
        } else {
            tape.client(0, &hello[..name + 5]);
            tape.client(name - 4, &other[name - 4..name + 5]);
            tape.client(name + 5, &hello[name + 5..]);
        }
        assert_eq!(
            tape.only(&["name", "hello"]),
            ["hello first.example", "name first.example Sni"]
        );
        assert!(tape.overlap, "ahead {ahead}");
        assert_eq!(tape.tracker.totals().head_overlaps, 1);
    }
    let mut honest = Tape::open();
    honest.client(20, &hello[20..]);
    honest.client(10, &hello[10..40]);
    honest.client(0, &hello);
    assert!(!honest.overlap);
    assert_eq!(honest.count("hello first.example"), 1);
}

#[test]
fn a_fifth_hole_gives_up_what_is_before_the_longest_piece() {
    let mut tape = Tape::open();
    let stream: Vec<u8> = (0..200).map(|n| 128 + n / 2).collect();
    for from in [10, 30, 80, 110] {
        tape.client(from, &stream[from..from + if from == 30 { 20 } else { 5 }]);
    }
    assert!(tape.heads.is_empty());
    tape.client(130, &stream[130..140]);
    assert_eq!(tape.pieces, [&stream[10..15], &stream[30..50]], "at once, and the longest");
    assert_eq!(tape.tracker.totals().head_gaps, 1);
    // The direction is given up: what comes now is only counted.
    tape.client(0, &stream[..10]);
    assert!(tape.heads.is_empty());
}

#[test]
fn what_the_capture_lost_is_given_up_when_the_stream_runs_ahead() {
    let mut tape = Tape::open();
    let hello = client_hello("c2.example", 0);
    tape.client(1000, &[&b"\x99the first that came"[..], &[0x99; 980]].concat());
    for n in 1..70 {
        tape.client(1000 * (n + 1), &[0x99; 1000]);
    }
    assert!(tape.heads.is_empty());
    let lengths: Vec<_> = tape.pieces.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1000, 60_456], "at once, and all that was kept");
    assert!(tape.pieces.iter().all(|piece| piece.starts_with(b"\x99the first")));
    assert_eq!(tape.tracker.totals().head_gaps, 1);
    // A hello behind the gap is not lost when nothing came before.
    let mut tape = Tape::open();
    tape.client(1 << 20, &hello);
    assert_eq!(tape.count("name c2.example Sni"), 1);
}

#[test]
fn what_the_other_end_confirmed_is_not_waited_for() {
    let mut tape = Tape::open();
    tape.syn_ack();
    tape.client(100, b"\x99behind");
    assert_eq!(tape.pieces, [b"\x99behind"], "it may be all that the capture has got");
    tape.segment(Toward::Local, ACK, tape.first[1], tape.first[0], &[]);
    assert_eq!(tape.tracker.totals().head_gaps, 0, "nothing behind the hole is confirmed");
    for _ in 0..2 {
        tape.segment(Toward::Local, ACK, tape.first[1], tape.first[0] + 107, &[]);
    }
    assert_eq!(tape.tracker.totals().head_gaps, 1);
    // It was not lost but late.
    tape.client(0, &[0x98; 100]);
    let whole = [&[0x98; 100][..], b"\x99behind"].concat();
    assert_eq!((tape.heads, tape.pieces.len()), (vec![(Toward::Remote, whole)], 1));
}

#[test]
fn a_hole_that_is_there_at_the_end_is_counted() {
    let mut tape = Tape::open();
    tape.client(100, b"\x99behind");
    tape.tracker.handle_timeout(Timestamp::from_nanos(START * 2), &mut |_| Appetite::Enough);
    assert_eq!((tape.tracker.totals().head_gaps, tape.pieces.len()), (1, 1));
}

#[test]
fn sequence_numbers_may_wrap_within_a_head() {
    for first in [u32::MAX - 3, u32::MAX, 0, 0x7FFF_FFFE, 0x8000_0000] {
        for stream in [&client_hello("c2.example", 30)[..], REQUEST] {
            let mut tape = Tape::new();
            tape.first[0] = first;
            tape.syn();
            tape.client(40, &stream[40..]);
            tape.client(0, &stream[..20]);
            tape.client(20, &stream[20..40]);
            all_is_read(&tape, stream, &format!("first {first}"));
        }
    }
}

#[test]
fn keep_alive_and_window_probes_change_nothing() {
    let hello = client_hello("c2.example", 0);
    let mut tape = Tape::open();
    tape.segment(Toward::Remote, ACK, tape.first[0] - 1, 1, &[0]);
    tape.client(0, &hello[..30]);
    tape.segment(Toward::Remote, ACK, tape.first[0] + 29, 1, &[0]);
    // A window probe carries the next byte, which comes again with the rest.
    tape.client(30, &hello[30..31]);
    tape.client(30, &hello[30..]);
    all_is_read(&tape, &hello, "probes");
    // In the middle of a connection a probe is not taken for its first byte.
    let mut tape = Tape::new();
    tape.segment(Toward::Remote, ACK, 999, 1, &[0]);
    tape.segment(Toward::Remote, ACK, 1000, 1, &hello);
    all_is_read(&tape, &hello, "mid-stream");
}

#[test]
fn payload_in_the_syn_begins_the_head() {
    let hello = client_hello("c2.example", 0);
    for taken in [hello.len(), 50, 0] {
        let mut tape = Tape::new();
        let (seq, server) = (tape.first[0] - 1, tape.first[1]);
        tape.segment(Toward::Remote, SYN, seq, 0, &hello[..50]);
        tape.segment(Toward::Local, SYN | ACK, server - 1, seq + 1 + taken.min(50) as u32, &[]);
        tape.client(taken.min(50), &hello[taken.min(50)..]);
        assert_eq!(tape.count("hello c2.example"), 1, "{taken}: {:?}", tape.told);
    }
}

#[test]
fn a_stream_joined_in_its_middle_is_read_from_there() {
    let hello = client_hello("c2.example", 0);
    let mut tape = Tape::new();
    tape.client(7000, &hello[..100.min(hello.len() - 1)]);
    tape.client(7000 + 100.min(hello.len() - 1), &hello[100.min(hello.len() - 1)..]);
    tape.server(9000, b"HTTP/1.1 404 Not Found\r\n\r\n");
    assert_eq!(tape.count("started Egress Outbound"), 1);
    assert_eq!(tape.count("started Egress Outbound seen"), 0);
    assert_eq!(tape.count("hello c2.example"), 1);
    assert_eq!(tape.count("response Local 404"), 1);
}

/// Law: however a stream is cut, ordered within a window and sent again, what is told of its head is
/// its beginning.
#[test]
fn any_segmentation_tells_the_beginning_of_the_stream() {
    let mut random = Random(77);
    for round in 0..4000 {
        let mut tape = Tape::open();
        tape.head_appetite = Appetite::More;
        let len = 1 + random.below(3000) as usize;
        let stream: Vec<u8> = match round % 3 {
            0 => (0..len).map(|_| 0x80 | random.next() as u8).collect(),
            1 => client_hello("c2.example", len),
            _ => {
                let padding = "x".repeat(len);
                let head = format!("GET / HTTP/1.1\r\nA: {padding}\r\nHost: c2.example\r\n\r\n");
                head.into_bytes()
            }
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let most = if round % 2 == 0 { 20 } else { 1460 };
            let until = (at + 1 + random.below(most) as usize).min(stream.len());
            let from = at.saturating_sub(random.below(3) as usize * 5);
            pieces.push((from, until));
            at = until;
        }
        // Four neighbours out of order leave at most three holes.
        for window in pieces.chunks_mut(4) {
            for n in 0..window.len() {
                window.swap(n, random.below(window.len() as u64) as usize);
            }
        }
        for (from, until) in pieces {
            tape.client(from, &stream[from..until]);
            if random.below(5) == 0 {
                tape.client(from, &stream[from..until]);
            }
        }
        let mut before = 0;
        for (_, head) in &tape.heads {
            assert!(stream.starts_with(head), "round {round}");
            assert!(head.len() > before, "round {round}: told again without news");
            before = head.len();
        }
        assert_eq!(before, stream.len(), "round {round}");
        assert_eq!(tape.count("name c2.example"), usize::from(round % 3 != 0), "round {round}");
        assert_eq!(tape.count("hello") + tape.count("request"), usize::from(round % 3 != 0));
        let totals = tape.tracker.totals();
        assert_eq!((totals.head_gaps, totals.head_overlaps), (0, 0));
    }
}
