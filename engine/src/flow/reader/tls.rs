//! Hellos and certificates at the beginning of a stream.

use super::{FACT_WITHIN, Reader, Stage, Step};
use crate::app::hello::{Certificate, ClientHello, Reading, SCRATCH_LEN, ServerHello};
use crate::app::tls::{Sni, client_hello_sni};
use crate::flow::entry::Entry;
use crate::flow::observation::{Appetite, NameSource, Observation, ObservationKind};
use crate::flow::teller::Teller;

/// Bytes that must be new before a name is looked for again in a hello that is not all there.
const NAME_STEP: usize = 256;
/// Version number of TLS 1.3, from which on certificates are enciphered (RFC 8446 §4.2.1).
const TLS_1_3: u16 = 0x0304;
/// Header of a record (RFC 8446 §5.1).
const RECORD_HEAD: usize = 5;

impl Reader {
    pub(super) fn client_hello<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &mut Entry,
        unit: &[u8],
        last: bool,
    ) -> Option<Step> {
        let step = match ClientHello::parse(unit) {
            Reading::Whole(hello) => told(teller, entry, &hello),
            Reading::Incomplete => Step::More,
            Reading::Other => joined_client_hello(teller, entry, unit),
        };
        if step == Step::More {
            // A name is worth having before the rest of its hello comes, if that ever comes.
            if let Sni::Name(name) = client_hello_sni(unit) {
                teller.tell_server(entry, &name, NameSource::Sni);
            }
            self.wake = self.unit + record_end(unit).min(unit.len() + NAME_STEP);
        }
        Some(if last { Step::Done } else { step })
    }

    pub(super) fn server_hello<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &Entry,
        unit: &[u8],
    ) -> Option<Step> {
        let version = match ServerHello::parse(unit) {
            Reading::Whole(hello) => Some(told_server(teller, entry, &hello)),
            Reading::Incomplete => None,
            Reading::Other => {
                let mut scratch = [0; SCRATCH_LEN];
                match ServerHello::parse_joined(unit, &mut scratch) {
                    Reading::Whole(hello) => Some(told_server(teller, entry, &hello)),
                    Reading::Incomplete => None,
                    Reading::Other => return Some(Step::Done),
                }
            }
        };
        match version {
            None => Some(Step::More),
            Some(version) if version >= TLS_1_3 => Some(Step::Done),
            Some(_) => {
                self.stage = Stage::Certificate;
                None
            }
        }
    }
}

/// Where the record ends that the bytes begin with, if that is behind them.
fn record_end(unit: &[u8]) -> usize {
    match unit.get(3..RECORD_HEAD) {
        Some(&[high, low]) => {
            let end = RECORD_HEAD + usize::from(u16::from_be_bytes([high, low]));
            if end > unit.len() { end.min(FACT_WITHIN) } else { unit.len() + 1 }
        }
        _ => unit.len() + 1,
    }
}

fn told<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    hello: &ClientHello<'_>,
) -> Step {
    teller.tell(entry, ObservationKind::Hello(hello));
    if let Some(name) = hello.sni() {
        teller.tell_server(entry, &name, NameSource::Sni);
    }
    Step::Done
}

/// The slow case: the hello goes over several records.
#[cold]
fn joined_client_hello<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &mut Entry,
    unit: &[u8],
) -> Step {
    let mut scratch = [0; SCRATCH_LEN];
    match ClientHello::parse_joined(unit, &mut scratch) {
        Reading::Whole(hello) => told(teller, entry, &hello),
        Reading::Incomplete => Step::More,
        Reading::Other => Step::Done,
    }
}

fn told_server<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    hello: &ServerHello<'_>,
) -> u16 {
    teller.tell(entry, ObservationKind::ServerHello(hello));
    hello.selected_version()
}

/// Tells the server's own certificate once it is all there.
pub(super) fn certificate<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    unit: &[u8],
) -> Option<Step> {
    Some(match Certificate::find(unit, &mut []) {
        Reading::Whole(certificate) => {
            teller.tell(entry, ObservationKind::Certificate(&certificate));
            Step::Done
        }
        Reading::Incomplete => Step::More,
        Reading::Other => joined_certificate(teller, entry, unit),
    })
}

/// The slow case: the certificate goes over several records.
#[cold]
fn joined_certificate<O: FnMut(&Observation<'_>) -> Appetite>(
    teller: &mut Teller<'_, O>,
    entry: &Entry,
    unit: &[u8],
) -> Step {
    let mut scratch = [0; SCRATCH_LEN];
    match Certificate::find(unit, &mut scratch) {
        Reading::Whole(certificate) => {
            teller.tell(entry, ObservationKind::Certificate(&certificate));
            Step::Done
        }
        Reading::Incomplete => Step::More,
        Reading::Other => Step::Done,
    }
}
