//! What an element does beside being there: counts, throttles, or stops at a number of bytes.
//!
//! The kernel runs these expressions at each look that finds the element, and the look fails when the last of
//! them says so: an element with a limit is found only by packets above it.

use super::elements::Count;
use crate::netlink::{Writer, attribute, attributes, big_endian, text_of};
use sekisho_schema::Measure;

/// `NFTA_SET_ELEM_EXPR` and `NFTA_SET_ELEM_EXPRESSIONS` (linux/netfilter/nf_tables.h; so are the next): one, or a list.
const ELEMENT_EXPRESSION: u16 = 7;
const ELEMENT_EXPRESSIONS: u16 = 11;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFT_LIMIT_PKT_BYTES`, `NFT_LIMIT_F_INV`, `NFT_QUOTA_F_INV`: bytes; what is above.
const BYTES: u32 = 1;
const OVER: u32 = 1;
/// Bytes that pass at once beyond the rate, at least: a whole Ethernet frame.
const LEAST_BURST: u64 = 1_600;

/// What an element of a measure does and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Packets that met it.
    pub(crate) met: Count,
    /// Bytes that its quota has used up.
    pub(crate) used: u64,
}

/// Writes the expressions of an element; none for a cut, which is a mere element.
pub(super) fn write(writer: &mut Writer, measure: Measure, tally: Tally) {
    if matches!(measure, Measure::Cut | Measure::Freeze) {
        return;
    }
    let list = writer.nest(ELEMENT_EXPRESSIONS);
    // The count comes first: the next expression may end the run.
    one(writer, "counter", |writer| {
        // NFTA_COUNTER_BYTES, _PACKETS
        writer.attribute(1, &tally.met.bytes.to_be_bytes());
        writer.attribute(2, &tally.met.packets.to_be_bytes());
    });
    match measure {
        Measure::Cut | Measure::Freeze | Measure::Observe => {}
        Measure::Quota { bytes } => one(writer, "quota", |writer| {
            // NFTA_QUOTA_BYTES, _FLAGS, _CONSUMED
            writer.attribute(1, &bytes.to_be_bytes());
            writer.attribute(2, &OVER.to_be_bytes());
            // The kernel refuses more than the whole.
            writer.attribute(4, &tally.used.min(bytes).to_be_bytes());
        }),
        Measure::Throttle { bytes_per_second } => one(writer, "limit", |writer| {
            let burst = (bytes_per_second / 10).max(LEAST_BURST);
            // NFTA_LIMIT_RATE, _UNIT (seconds), _BURST, _TYPE, _FLAGS
            writer.attribute(1, &bytes_per_second.max(1).to_be_bytes());
            writer.attribute(2, &1_u64.to_be_bytes());
            writer.attribute(3, &u32::try_from(burst).unwrap_or(u32::MAX).to_be_bytes());
            writer.attribute(4, &BYTES.to_be_bytes());
            writer.attribute(5, &OVER.to_be_bytes());
        }),
    }
    writer.end_nest(&list);
}

/// Writes one expression of a list: its name and its data.
pub(super) fn one(writer: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    let item = writer.nest(LIST_ELEMENT);
    // NFTA_EXPR_NAME, _DATA
    writer.text(1, name);
    let nest = writer.nest(2);
    data(writer);
    writer.end_nest(&nest);
    writer.end_nest(&item);
}

/// The names and data of a list of expressions.
pub(super) fn each(list: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    attributes(list).filter_map(|(_, item)| named(item))
}

fn named(item: &[u8]) -> Option<(String, &[u8])> {
    Some((text_of(attribute(item, 1)?), attribute(item, 2).unwrap_or_default()))
}

/// Reads how an element of the kernel's is held, and what it has done.
pub(super) fn read(element: &[u8]) -> (Option<Measure>, Tally) {
    let mut tally = Tally::default();
    let mut measure = None;
    let single = attribute(element, ELEMENT_EXPRESSION).and_then(named);
    let several = attribute(element, ELEMENT_EXPRESSIONS).unwrap_or_default();
    for (name, data) in single.into_iter().chain(each(several)) {
        let number = |kind| attribute(data, kind).map_or(0, big_endian);
        match name.as_str() {
            "counter" => {
                tally.met = Count { packets: number(2), bytes: number(1) };
                measure = measure.or(Some(Measure::Observe));
            }
            "limit" => measure = Some(Measure::Throttle { bytes_per_second: number(1) }),
            "quota" => {
                tally.used = number(4);
                measure = Some(Measure::Quota { bytes: number(1) });
            }
            _ => {}
        }
    }
    (measure, tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_reads_back_as_the_measure_it_was_written_for() {
        let tally = Tally { met: Count { packets: 3, bytes: 1_800 }, used: 0 };
        for (measure, used) in [
            (Measure::Observe, 0),
            (Measure::Quota { bytes: 1_000_000 }, 1_800),
            (Measure::Throttle { bytes_per_second: 64_000 }, 0),
        ] {
            let mut writer = Writer::default();
            let tally = Tally { used, ..tally };
            write(&mut writer, measure, tally);
            assert_eq!(read(writer.as_bytes()), (Some(measure), tally));
        }
        let mut writer = Writer::default();
        write(&mut writer, Measure::Cut, tally);
        assert_eq!(read(writer.as_bytes()), (None, Tally::default()));
    }
}
