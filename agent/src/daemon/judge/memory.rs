//! What the detecting thread remembers for people: the last frames, the flows of the last days.

use super::{Judge, Message};
use crate::chain::causes;
use crate::config::Config;
use crate::control::{Answer, PreviewRequest};
use crate::daemon::scribe::Frozen;
use crate::evidence::{Freeze, Recent, Selection, Store, tree};
use crate::preview::{Ask, Ledger, ReadTrafficError};
use sekisho_engine::wire::Frame;
use sekisho_schema::{Action, Body, ContainmentId, Finding, Scope, Span};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Findings within each second for which frames are frozen: each becomes a file of up to 4 MiB.
const FREEZES: u32 = 4;
/// Previews that go with cuts come at most this often, and once for each of the last cuts: they read days of files.
const PREVIEW_PAUSE: Duration = Duration::from_secs(10);
const PREVIEWED: usize = 64;
/// Places of the flow table that are looked at for a preview before frames have their turn again: 0.1–0.2 ms.
const PLACES: usize = 512;
/// Previews that may wait for the flows under way; more are refused.
const ASKED: usize = 8;
/// How far back the preview looks that goes with a cut.
const LOOK_BACK: Span = Span::from_hours(7 * 24);

/// The last frames and flows.
pub(super) struct Memory {
    recent: Option<Recent>,
    evidence: Option<Store>,
    flows: Option<Ledger>,
    /// Since when, and how often, frames were frozen.
    frozen: (Instant, u32),
    /// Findings for which no more frames were frozen, not yet told.
    unframed: u64,
    /// Cuts whose preview was asked for, and when the last one was.
    previewed: (VecDeque<ContainmentId>, Option<Instant>),
    /// Previews that wait for the flows under way, and the place in their table up to which the first has them.
    asked: VecDeque<(Ask, usize)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            recent: None,
            evidence: None,
            flows: None,
            frozen: (Instant::now(), 0),
            unframed: 0,
            previewed: (VecDeque::new(), None),
            asked: VecDeque::new(),
        }
    }
}

impl Memory {
    /// Keeps a frame; those that can decide stay longer.
    #[inline]
    pub(super) fn keep(&mut self, frame: &Frame<'_>, can_decide: bool) {
        if let Some(recent) = &mut self.recent {
            recent.push(frame, can_decide);
        }
    }
}

impl Judge {
    /// Remembers frames and flows from now on.
    pub(in crate::daemon) fn remember(&mut self, config: &Config) {
        match Ledger::spawn(config.traffic_dir()) {
            Ok(ledger) => {
                self.engine.remember_flows();
                self.memory.flows = Some(ledger);
            }
            Err(error) => {
                tracing::error!(%error, state = "no cut can be previewed", "no thread for flows");
            }
        }
        if config.evidence_ring == 0 {
            return;
        }
        let inbox = self.shared.inbox.clone();
        let tell = move |record| inbox.send(Message::Record(Box::new(record)));
        match Store::spawn(config.evidence_dir(), config.evidence_cap, tell) {
            Ok(store) => {
                self.memory.evidence = Some(store);
                self.memory.recent = Some(Recent::new(config.evidence_ring));
            }
            Err(error) => {
                tracing::error!(%error, state = "findings are told without frames", "no thread for evidence");
            }
        }
    }

    /// Freezes the frames about the remote end of a finding that cut, or would have.
    pub(super) fn freeze(&mut self, finding: &Finding) -> Option<Frozen> {
        let decided = matches!(finding.decision.action, Action::Contain | Action::Withhold);
        let (recent, store) = (self.memory.recent.as_ref()?, self.memory.evidence.as_ref()?);
        let flow = finding.flow.as_ref().filter(|_| decided)?;
        let now = Instant::now();
        if now.duration_since(self.memory.frozen.0) >= Duration::from_secs(1) {
            self.memory.frozen = (now, 0);
        }
        if self.memory.frozen.1 >= FREEZES {
            self.memory.unframed += 1;
            return None;
        }
        self.memory.frozen.1 += 1;
        let processes = finding.process.as_ref().map(|process| tree(process.pid));
        let freeze = Freeze {
            finding: finding.id.clone(),
            containment: finding.decision.containment.clone(),
            explanation: finding.explanation.clone(),
            matched_at: finding.matched_at,
            selection: Selection::default(),
            processes: processes.unwrap_or_default(),
        };
        let (remote, glance) = (flow.key().remote.ip(), recent.glance());
        Some(Frozen { store: store.clone(), freeze, remote, glance })
    }

    /// Tells of findings that stand without frames.
    pub(super) fn tell_unframed(&mut self) {
        let count = std::mem::take(&mut self.memory.unframed);
        if count > 0 {
            let detail = format!(
                "{count} findings stand without frames: frames are kept for {FREEZES} in each second"
            );
            self.gap("evidence", count, detail);
        }
    }

    /// Hands flows that ended to their thread; while those under way are gathered they wait for the end of that.
    pub(super) fn pass_flows_on(&mut self) {
        if let Some(ledger) = self.memory.flows.as_mut().filter(|_| self.memory.asked.is_empty()) {
            let (flows, lost) = self.engine.take_ended();
            ledger.add(flows, lost);
        }
    }

    /// Has a preview made, from the flows under way, too; a caller gets the refusal when too many wait.
    fn ask(&mut self, ask: Ask) {
        if self.memory.asked.len() >= ASKED {
            (ask.tell)(Err(ReadTrafficError::Busy));
            return;
        }
        // What ended before is the ledger's; what ends from now on may have been gathered already.
        self.pass_flows_on();
        self.memory.asked.push_back((ask, 0));
    }

    /// Gathers some more flows for the preview that is asked for; `true` when there is more to do.
    ///
    /// To look at each of a million flows at once would keep a cut waiting.
    pub(in crate::daemon) fn gather(&mut self) -> bool {
        let Memory { asked, flows: Some(ledger), .. } = &mut self.memory else { return false };
        let Some((ask, place)) = asked.front_mut() else { return false };
        let (flows, next) = self.engine.live_flows(*place, PLACES);
        ask.live.push(flows);
        if let Some(next) = next {
            *place = next;
            return true;
        }
        let Some((mut ask, _)) = asked.pop_front() else { return false };
        let (ended, lost) = self.engine.take_ended();
        ask.ended = ended.iter().map(|flow| (flow.key, flow.first_at)).collect();
        ledger.add(ended, lost);
        if let Err(ask) = ledger.ask(ask) {
            (ask.tell)(Err(ReadTrafficError::Busy));
        }
        !asked.is_empty()
    }

    /// Previews the cut of a finding that the mode withheld, or that is on trial: a person has to confirm it.
    pub(super) fn preview_for(&mut self, scope: Scope, containment: ContainmentId) {
        let (seen, last) = &mut self.memory.previewed;
        let now = Instant::now();
        let too_soon = last.is_some_and(|last| now.duration_since(last) < PREVIEW_PAUSE);
        if too_soon || seen.contains(&containment) {
            return;
        }
        *last = Some(now);
        seen.push_back(containment.clone());
        if seen.len() > PREVIEWED {
            seen.pop_front();
        }
        let plan = self.plan(self.engine.policy());
        if self.memory.flows.is_none() {
            return;
        }
        let inbox = self.shared.inbox.clone();
        let ask = Ask {
            scope,
            plan,
            since: LOOK_BACK,
            containment: Some(containment),
            live: Vec::new(),
            ended: Vec::new(),
            tell: Box::new(move |preview| match preview {
                Ok(preview) => inbox.tell(Body::Preview(Box::new(preview))),
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "cannot preview a cut");
                }
            }),
        };
        self.ask(ask);
    }

    /// Previews a cut for a person.
    pub(super) fn preview(&mut self, request: PreviewRequest) {
        let PreviewRequest { scope, since, policy, answer } = request;
        let plan = self.plan(policy.as_deref().unwrap_or(self.engine.policy()));
        let refused = |error: String| Answer::Refused {
            error,
            state: "nothing was cut; detection goes on".to_owned(),
            help: "look at the agent's log; `traffic` in its state directory holds the flows"
                .to_owned(),
        };
        if self.memory.flows.is_none() {
            let _ = answer.send(refused("flows are not recorded".to_owned()));
            return;
        }
        let ask = Ask {
            scope,
            plan,
            since,
            containment: None,
            live: Vec::new(),
            ended: Vec::new(),
            tell: Box::new(move |preview| {
                // A caller that went away needs no answer.
                let _ = answer.send(match preview {
                    Ok(preview) => Answer::Preview(Box::new(preview)),
                    Err(error) => refused(causes(&error)),
                });
            }),
        };
        self.ask(ask);
    }
}
