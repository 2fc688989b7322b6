//! Request and response heads, the first and the later ones, and the tunnels that they open.

use super::{Reader, Stage, Step};
use crate::app::http::{HttpHost, request_host};
use crate::app::http_head::{
    Cuts, HeadReading, RequestHead, ResponseHead, may_be_request, may_be_response,
};
use crate::flow::entry::{Entry, by, flag};
use crate::flow::observation::{Appetite, NameSource, Observation, ObservationKind, Toward};
use crate::flow::teller::Teller;

impl Reader {
    pub(super) fn request<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &mut Entry,
        toward: Toward,
        unit: &[u8],
        last: bool,
    ) -> Option<Step> {
        if !self.may_end(unit) && !last {
            return Some(Step::More);
        }
        match RequestHead::cuts(unit) {
            HeadReading::Incomplete => {
                // A name is worth having before the rest of its head comes, if that ever comes; it
                // is looked for less often the longer the head grows.
                if (last || self.wake_name(unit.len()))
                    && let HttpHost::Host(name, _) = request_host(unit)
                {
                    entry.put(flag::HTTP, true);
                    teller.tell_server(entry, &name, NameSource::Host);
                }
                Some(if last { Step::Done } else { Step::More })
            }
            HeadReading::Other => Some(Step::Done),
            HeadReading::Whole(cuts) => {
                entry.put(flag::HTTP, true);
                let Some(head) = RequestHead::cut(unit, cuts) else { return Some(Step::Done) };
                let appetite = teller.tell(entry, ObservationKind::Request { toward, head: &head });
                if let Some(name) = head.host() {
                    teller.tell_server(entry, &name, NameSource::Host);
                }
                entry.put(by(flag::CONNECT, toward), head.is_connect());
                if head.is_connect() {
                    return Some(Step::Anew(cuts.body()));
                }
                if appetite == Appetite::More {
                    self.stage = Stage::RequestBody(cuts);
                    return Some(Step::More);
                }
                self.behind(unit, cuts, head.body_len(), Stage::Request)
            }
        }
    }

    pub(super) fn request_again<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &Entry,
        toward: Toward,
        unit: &[u8],
        cuts: Cuts,
    ) -> Option<Step> {
        let Some(head) = RequestHead::cut(unit, cuts) else { return Some(Step::Done) };
        match teller.tell(entry, ObservationKind::Request { toward, head: &head }) {
            Appetite::More => Some(Step::More),
            Appetite::Enough => self.behind(unit, cuts, head.body_len(), Stage::Request),
        }
    }

    pub(super) fn response<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &mut Entry,
        toward: Toward,
        unit: &[u8],
    ) -> Option<Step> {
        if !self.may_end(unit) {
            return Some(Step::More);
        }
        match ResponseHead::cuts(unit) {
            HeadReading::Incomplete => Some(Step::More),
            HeadReading::Other => Some(Step::Done),
            HeadReading::Whole(cuts) => {
                entry.put(flag::HTTP, true);
                let Some(head) = ResponseHead::cut(unit, cuts) else { return Some(Step::Done) };
                let appetite =
                    teller.tell(entry, ObservationKind::Response { toward, head: &head });
                let asked = by(flag::CONNECT, toward.opposite());
                if entry.has(asked) && head.status >= 200 {
                    entry.put(asked, false);
                    if head.status < 300 {
                        return Some(Step::Anew(cuts.body()));
                    }
                }
                if appetite == Appetite::More {
                    self.stage = Stage::ResponseBody(cuts);
                    return Some(Step::More);
                }
                self.behind(unit, cuts, head.body_len(), Stage::Response)
            }
        }
    }

    pub(super) fn response_again<O: FnMut(&Observation<'_>) -> Appetite>(
        &mut self,
        teller: &mut Teller<'_, O>,
        entry: &Entry,
        toward: Toward,
        unit: &[u8],
        cuts: Cuts,
    ) -> Option<Step> {
        let Some(head) = ResponseHead::cut(unit, cuts) else { return Some(Step::Done) };
        match teller.tell(entry, ObservationKind::Response { toward, head: &head }) {
            Appetite::More => Some(Step::More),
            Appetite::Enough => self.behind(unit, cuts, head.body_len(), Stage::Response),
        }
    }

    /// Whether a head may have come to its end since it was looked at last: what is not new need not
    /// be searched again, however small the segments are.
    fn may_end(&mut self, unit: &[u8]) -> bool {
        let first = self.seen <= self.unit;
        let new = self.seen.saturating_sub(self.unit);
        self.seen = self.unit + unit.len();
        if first || unit.len() >= super::FACT_WITHIN {
            return true;
        }
        // An empty line ends a head, and the first line decides whether it is one.
        let was_first_line = !unit.get(..new).unwrap_or_default().contains(&b'\n');
        (new..unit.len()).any(|at| {
            unit.get(at) == Some(&b'\n')
                && (was_first_line
                    || matches!(unit.get(..at), Some([.., b'\n'] | [.., b'\n', b'\r'])))
        })
    }

    /// Whether a name is to be looked for in a head of this length.
    fn wake_name(&mut self, len: usize) -> bool {
        let due = self.named_at == 0 || len >= 2 * self.named_at;
        if due {
            self.named_at = len.max(1);
        }
        due
    }

    /// Goes on behind a body that is all there, if another head follows at once.
    fn behind(
        &mut self,
        unit: &[u8],
        cuts: Cuts,
        body_len: Option<usize>,
        stage: Stage,
    ) -> Option<Step> {
        let end = cuts.body().saturating_add(body_len.unwrap_or(usize::MAX));
        match unit.get(end..) {
            Some(next) if !next.is_empty() && (may_be_request(next) || may_be_response(next)) => {
                self.named_at = 0;
                self.next_unit(end, stage);
                None
            }
            _ => Some(Step::Done),
        }
    }
}
