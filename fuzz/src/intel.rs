//! Intelligence of others: lists and feeds in every format, and compiled sets.

use crate::input::Input;
use crate::tape::START;
use sekisho_engine::detect::indicator_set::IndicatorSet;
use sekisho_engine::rules::{LIST_DEFAULTS, RulesBuilder};
use sekisho_schema::intel::{
    Facts, Format, Header, Observable, ParseObservableError, ReadOptions, Reader, Taker, read,
};
use sekisho_schema::{Span, Timestamp, TrustAnchors};

/// Takes everything and keeps nothing.
struct Nowhere(u64);

impl Taker for Nowhere {
    fn take(&mut self, _: &Observable<'_>, _: &Facts<'_>) -> Result<(), ParseObservableError> {
        self.0 += 1;
        Ok(())
    }
}

/// A list or feed: byte of the format and the options, place of a cut, text.
pub fn indicator_import(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let cut = usize::from(input.short());
    let text = input.rest();
    let options = ReadOptions {
        format: Format::ALL.get(usize::from(how & 7)).copied(),
        now: (how & 8 != 0).then(|| Timestamp::from_nanos(START)),
        valid_for: (how & 16 != 0).then(|| Span::from_hours(48)),
        allow_private: how & 32 != 0,
        strict: how & 64 != 0,
        ..ReadOptions::default()
    };
    let mut whole = Nowhere(0);
    let report = read(text, options, &mut whole);
    if let Ok(report) = &report {
        assert_eq!(report.total(), whole.0, "the report tells what was taken");
        assert!(report.left_out.len() <= 100, "a report without end");
        assert!(report.left_out.iter().all(|left| left.text.len() <= 480), "a line without end");
    }
    let (first, second) = text.split_at(cut.min(text.len()));
    let mut pieces = Nowhere(0);
    let mut reader = Reader::new(options, &mut pieces);
    let split =
        reader.feed(first).and_then(|()| reader.feed(second)).and_then(|()| reader.finish());
    assert_eq!(split, report, "the same text in two pieces");
    let mut builder = RulesBuilder::new();
    let _kept = builder.read_list("fuzz", LIST_DEFAULTS, |taker| read(text, options, taker));
    look_up(&builder.build().indicators);
}

fn look_up(set: &IndicatorSet) {
    let at = Timestamp::from_nanos(START);
    for address in [[203, 0, 113, 9], [10, 0, 0, 1], [0, 0, 0, 0]] {
        if let Some(found) = set.by_address(address.into(), at) {
            let _described = set.describe(found);
        }
    }
    for name in ["evil.example", "a.b.evil.example", "com", ""] {
        if let Some(found) = set.by_name(name, at) {
            let _described = set.describe(found);
        }
    }
    let _agent = set.by_user_agent(b"Mozilla/5.0", at);
    let _targets = set.targets(at).take(1000).count();
    let _counts = (set.counts().total(), set.bytes(), set.duplicates(), set.expired(at));
    let _sources = set.tally();
}

/// A compiled set: its head, or (byte of which) its sections, each behind its length.
pub fn indicators_compiled(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 {
        let file = input.rest();
        let Ok(len) = Header::len_of(file) else { return };
        let Some(head) = file.get(..len) else { return };
        let Ok(header) = Header::parse(head) else { return };
        let _seal = (header.is_signed(), header.signers().count(), header.expires());
        let _held = header.check(&TrustAnchors::new([crate::documents::KEY.verifying_key()], 1));
        if let Some(places) = header.places() {
            assert!(places.iter().all(|(at, _)| *at >= len as u64), "a section within the head");
            assert!(header.file_len().is_some(), "sections that end and do not end");
        }
        return;
    }
    let sections: Vec<&[u8]> = input.pieces().take(IndicatorSet::PIECES + 1).collect();
    let mut builder = RulesBuilder::new();
    let section = |number: usize| sections.get(number).map(|bytes| bytes.to_vec()).ok_or(());
    let added = builder.add_compiled("fuzz", section);
    let set = builder.build().indicators;
    look_up(&set);
    if let Ok(Ok(total)) = added {
        assert!(set.counts().total() as u64 <= total, "more than was read");
        let written = set.sections();
        let mut again = RulesBuilder::new();
        let sections = written.unwrap_or_default();
        let section = |number: usize| sections.get(number).cloned().ok_or(());
        let read = again.add_compiled("fuzz", section);
        assert!(total == 0 || matches!(read, Ok(Ok(_))), "what is written can be read: {read:?}");
        if total != 0 {
            let counts = again.build().indicators.counts();
            assert_eq!(counts.total(), set.counts().total(), "what is written is what is there");
        }
    }
}
