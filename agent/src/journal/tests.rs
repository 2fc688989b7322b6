use super::*;
use sekisho_schema::event::Gap;
use sekisho_schema::{Envelope, Record, Timestamp};
use std::fs;
use std::path::{Path, PathBuf};

fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        dir: dir.to_owned(),
        host: "web-1".into(),
        segment_bytes: 2000,
        cap_bytes: 6000,
    }
}

fn record(n: u64) -> Record {
    Record {
        at: Timestamp::from_nanos(n.cast_signed()),
        body: Body::Gap(Gap {
            cause: "capture-drop".into(),
            count: n,
            detail: "frames were dropped".into(),
        }),
    }
}

fn write(dir: &Path, boot: &str, count: u64) -> Journal {
    let mut journal = Journal::open(options(dir), boot).unwrap();
    for n in 1..=count {
        journal.append(record(n)).unwrap();
    }
    journal.sync().unwrap();
    journal
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    files
}

fn read_all(dir: &Path) -> Vec<Envelope> {
    let mut all = Vec::new();
    read_envelopes(dir, |envelope| {
        all.push(envelope);
        true
    })
    .unwrap();
    all
}

#[test]
fn what_was_written_reads_back_in_order_over_segments_and_boots() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "aaaaaaaaaaaaaaaa", 20);
    write(dir.path(), "bbbbbbbbbbbbbbbb", 5);
    let report = verify(dir.path()).unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
    assert!(report.segments > 3 && files(dir.path()).len() > 3, "{report:?}");
    assert_eq!((report.records, report.boots), (25, 2));
    let seqs: Vec<u64> = read_all(dir.path()).iter().map(|envelope| envelope.seq).collect();
    assert_eq!(seqs, (1..=20).chain(1..=5).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_off_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "aaaaaaaaaaaaaaaa", 4);
    let file = files(dir.path()).pop().unwrap();
    let length = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 17).unwrap();
    assert!(verify(dir.path()).unwrap().torn_tail);
    write(dir.path(), "bbbbbbbbbbbbbbbb", 2);
    let report = verify(dir.path()).unwrap();
    assert!(report.faults.is_empty() && !report.torn_tail, "{report:?}");
    assert_eq!(report.records, 5);
}

#[test]
fn a_segment_that_is_only_a_torn_header_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "aaaaaaaaaaaaaaaa", 1);
    fs::write(dir.path().join("0000000002-bbbbbbbbbbbbbbbb-1.log"), "sekisho-jour").unwrap();
    write(dir.path(), "cccccccccccccccc", 1);
    assert_eq!(verify(dir.path()).unwrap().faults, []);
}

#[test]
fn a_changed_a_removed_and_a_cut_out_line_are_each_told_with_their_place() {
    type Change = fn(&Path);
    let change: [(&str, Change); 3] = [
        ("changed", |file| {
            fs::write(
                file,
                fs::read_to_string(file).unwrap().replacen("\"count\":2", "\"count\":9", 1),
            )
            .unwrap()
        }),
        ("removed", |file| {
            fs::write(
                file,
                fs::read_to_string(file)
                    .unwrap()
                    .lines()
                    .enumerate()
                    .filter(|(n, _)| *n != 2)
                    .map(|(_, l)| format!("{l}\n"))
                    .collect::<String>(),
            )
            .unwrap()
        }),
        ("segment", |file| {
            fs::remove_file(
                file.parent().unwrap().join(files(file.parent().unwrap())[1].file_name().unwrap()),
            )
            .unwrap()
        }),
    ];
    for (what, change) in change {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "aaaaaaaaaaaaaaaa", 20);
        change(&files(dir.path())[0]);
        let report = verify(dir.path()).unwrap();
        assert_eq!(report.faults.len(), 1, "{what}: {report:?}");
    }
}

#[test]
fn the_spool_sends_each_record_once_earlier_boots_first_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "aaaaaaaaaaaaaaaa", 12);
    write(dir.path(), "bbbbbbbbbbbbbbbb", 3);
    let mut sent = Vec::new();
    for _ in 0..100 {
        let mut spool = Spool::open(dir.path().to_owned());
        let Some(batch) = spool.next_batch(5, 700).unwrap() else { break };
        assert!(batch.events.len() <= 5 && batch.events.len() == batch.chain.len());
        sent.extend(
            batch.events.iter().map(|json| {
                (batch.boot.clone(), serde_json::from_str::<Envelope>(json).unwrap().seq)
            }),
        );
        spool.acknowledge(&batch, batch.last_seq).unwrap();
    }
    let expected: Vec<_> = (1..=12)
        .map(|n| ("aaaaaaaaaaaaaaaa".to_owned(), n))
        .chain((1..=3).map(|n| ("bbbbbbbbbbbbbbbb".to_owned(), n)))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn a_spool_that_stays_open_sees_what_is_appended_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = write(dir.path(), "aaaaaaaaaaaaaaaa", 2);
    let mut spool = Spool::open(dir.path().to_owned());
    let batch = spool.next_batch(500, 1 << 19).unwrap().unwrap();
    spool.acknowledge(&batch, 1).unwrap();
    let again = spool.next_batch(500, 1 << 19).unwrap().unwrap();
    assert_eq!((again.events.len(), again.last_seq), (1, 2));
    spool.acknowledge(&again, 2).unwrap();
    assert_eq!(spool.next_batch(500, 1 << 19).unwrap(), None);
    journal.append(record(3)).unwrap();
    assert_eq!(spool.next_batch(500, 1 << 19).unwrap().unwrap().last_seq, 3);
}

#[test]
fn the_cap_takes_acknowledged_segments_first_and_counts_what_it_loses() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = write(dir.path(), "aaaaaaaaaaaaaaaa", 60);
    assert!(journal.bytes().unwrap() > 6000);
    let third = segment::segments(dir.path()).unwrap()[2].clone();
    let everything = Cursor { segment: u64::MAX, ..Cursor::default() };
    let unlimited = Cursor { segment: third.number, boot: third.boot, seq: third.first - 1 };
    let lost = journal.enforce_cap(&unlimited).unwrap();
    assert!(journal.bytes().unwrap() <= 6000);
    assert_eq!(lost, journal.lost()[1]);
    assert!(lost > 0, "the cap is below what is unacknowledged here");
    let survivors = read_all(dir.path());
    assert_eq!(survivors.first().unwrap().seq - third.first, lost);
    assert_eq!(verify(dir.path()).unwrap().faults, []);
    assert_eq!(journal.enforce_cap(&everything).unwrap(), 0);
}

#[test]
fn the_writer_makes_records_durable_and_reports_them() {
    let dir = tempfile::tempdir().unwrap();
    let (told, stored) = std::sync::mpsc::channel();
    let (handle, thread) = spawn(options(dir.path()), "aaaaaaaaaaaaaaaa", move |envelope| {
        told.send(envelope.seq).unwrap()
    })
    .unwrap();
    for n in 1..=10 {
        handle.record(record(n));
    }
    drop(handle);
    thread.join().unwrap();
    assert_eq!(stored.iter().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(read_all(dir.path()).len(), 10);
}
