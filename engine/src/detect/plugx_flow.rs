//! `plugx.tcp`: the PlugX decoder on the first bytes of both directions of every TCP flow.

use super::plugx::{PlugxConstants, PlugxDecoder, PlugxVerdict};
use super::signal::{Signal, SignalKind, Warrant};
use crate::flow::{Appetite, Observation, Route, Toward};
use sekisho_schema::Transport;

/// Stable identifier of the detector.
pub(crate) const PLUGX_TCP: &str = "plugx.tcp";

/// Looks for PlugX in the heads of TCP flows: any port, any route, whoever spoke first, since an
/// infected server also listens.
#[derive(Debug)]
pub(super) struct PlugxFlow {
    decoder: PlugxDecoder,
    warrant: Warrant,
}

impl PlugxFlow {
    pub(super) fn new(constants: &PlugxConstants, warrant: Warrant) -> Self {
        Self { decoder: PlugxDecoder::new(constants), warrant }
    }

    pub(super) fn observe_head(
        &self,
        o: &Observation<'_>,
        toward: Toward,
        bytes: &[u8],
        emit: &mut Vec<Signal>,
    ) -> Appetite {
        if o.flow.key.transport != Transport::Tcp {
            return Appetite::Enough;
        }
        match self.decoder.examine(bytes) {
            PlugxVerdict::NeedMore => Appetite::More,
            PlugxVerdict::No => Appetite::Enough,
            PlugxVerdict::Match(matched) => {
                let header = bytes.first_chunk::<16>().copied().unwrap_or_default();
                let kind = SignalKind::Plugx {
                    matched,
                    cipher: self.decoder.cipher_id(matched.cipher).to_owned(),
                    toward,
                    header,
                    present: bytes.len().saturating_sub(header.len()).min(matched.size.into()),
                };
                let signal = self.warrant.signal(o.at, o.frame, &o.flow, kind);
                // Between two hosts of the inside there is no outside destination to cut.
                let target = signal.target.filter(|_| o.flow.route != Route::Inside);
                emit.push(Signal { target, ..signal });
                Appetite::Enough
            }
        }
    }
}
