//! What the detecting thread has to do with learning: hand over what it learned, go by what people signed.

use super::super::learning::{Beginning, Change, Keeper, Learnt, News};
use super::Judge;
use crate::clock;
use crate::control::{AuthorityStatus, Granted, InterfaceStatus, Locked, Window};
use sekisho_engine::certify::AuthorityState;
use sekisho_engine::learn::Unlocked;
use sekisho_engine::{HostFact, Input};
use sekisho_schema::episode::Channel;
use sekisho_schema::event::PolicyChange;
use sekisho_schema::ruling::Reduced;
use sekisho_schema::{Body, Grade, Record, Timestamp};

/// The way to the learning thread, and what it was told.
#[derive(Default)]
pub(in crate::daemon) struct Learning {
    keeper: Option<Keeper>,
    /// What governor and drift guard stood at when it was last handed over, and the findings then.
    kept: (Option<AuthorityState>, u64),
    /// The role that the thread was told of.
    role: String,
    /// What is being written down for it.
    keeping: Option<Learnt>,
}

/// Keys that are written down at a time: the packets wait for it, so it is well below a millisecond.
const KEYS: usize = 512;

impl Judge {
    /// Goes on from what was learned before, by what people signed since.
    pub(in crate::daemon) fn begin_learning(&mut self, beginning: Beginning, news: Vec<News>) {
        let now = clock::now();
        let Beginning { destinations, episodes, authority, networks, complaints } = beginning;
        if let Some(baseline) = destinations {
            self.engine.handle(Input::Baseline(Box::new(baseline), now));
        }
        if let Some(networks) = networks {
            self.engine.episodes_mut().know_networks(networks);
        }
        for complaint in complaints {
            self.gap("learning-lost", 1, format!("{}; {}", complaint.error, complaint.state));
        }
        if let Some(saved) = episodes
            && let Err(error) = self.engine.episodes_mut().restore(&saved)
        {
            tracing::error!(%error, "cannot go on with the episodes of before");
            self.gap("learning-lost", 1, error.to_string());
        }
        if let Some(state) = authority {
            self.engine.authority_mut().restore(state);
        }
        self.engine.ask_owners();
        for news in news {
            self.learn_of(news);
        }
    }

    /// What was learned goes to this thread from now on.
    pub(in crate::daemon) fn keep_by(&mut self, keeper: Keeper, role: String) {
        self.learning.keeper = Some(keeper);
        self.learning.role = role;
        self.learning.kept = (Some(self.engine.authority().state().clone()), self.board.findings);
    }

    /// Goes by a document that people signed, or by none any more; on record either way.
    pub(super) fn learn_of(&mut self, news: News) {
        let now = clock::now();
        let News { change, outcome, why } = news;
        match change {
            Change::Baseline(Some(baseline)) => {
                self.engine.authority_mut().announce(baseline.window.clone());
                self.engine.episodes_mut().approve(Some(&baseline.entry));
            }
            Change::Baseline(None) => {
                self.engine.authority_mut().announce(Vec::new());
                self.engine.episodes_mut().approve(None);
            }
            Change::Certificate(Some(certificate)) => {
                self.engine.adopt_certificate(*certificate, now);
            }
            Change::Certificate(None) => {
                self.engine.authority_mut().withdraw();
                self.engine.episodes_mut().calibrate(None);
                let unlocked = Unlocked::of(self.engine.authority());
                self.engine.episodes_mut().unlock(unlocked);
            }
            Change::Nothing => {}
        }
        self.drain();
        let version = self.engine.policy_version();
        let change = PolicyChange {
            version,
            outcome: outcome.to_owned(),
            why: Some(why),
            in_force: version,
        };
        self.write_down(Record { at: now, body: Body::Policy(change) });
        self.stale = true;
    }

    /// Free space on a volume of data fell.
    pub(super) fn space_fell(&mut self, bytes: u64) {
        self.input(Input::Fact(HostFact::SpaceFell(bytes), clock::now()));
    }

    /// Begins to hand over what was learned; at the very end all of it at once, waiting until there is room for it.
    pub(in crate::daemon) fn keep_learned(&mut self, is_last: bool) {
        let is_under_way = self.learning.keeping.is_some();
        if self.learning.keeper.is_none() || (is_under_way && !is_last) {
            return;
        }
        let (mut finished, mut lost) = self.engine.episodes_mut().take_finished();
        if let Some(before) = self.learning.keeping.take() {
            lost += before.lost;
            finished.splice(0..0, before.finished);
        }
        self.learning.keeping = Some(Learnt {
            at: clock::now(),
            destinations: self.engine.baseline(),
            episodes: self.engine.episodes().begin_saving(),
            finished,
            lost,
        });
        if !is_last {
            return;
        }
        self.keep_more(usize::MAX, true);
        if let Some(keeper) = &mut self.learning.keeper {
            keeper.keep_authority(self.engine.authority().state());
        }
    }

    /// Writes down more of what was learned, and hands it over once it is whole.
    fn keep_more(&mut self, most: usize, is_last: bool) {
        let Learning { keeper: Some(keeper), keeping, .. } = &mut self.learning else { return };
        let Some(mut learnt) = keeping.take() else { return };
        let mut is_whole = self.engine.episodes().save_some(&mut learnt.episodes, most);
        while is_last && !is_whole {
            is_whole = self.engine.episodes().save_some(&mut learnt.episodes, most);
        }
        if is_whole {
            keeper.keep(learnt, is_last);
        } else {
            *keeping = Some(learnt);
        }
    }

    /// The documents are to be looked at again.
    pub(super) fn look_at_documents(&self) {
        if let Some(keeper) = &self.learning.keeper {
            keeper.look();
        }
    }

    /// What is due about once a second.
    pub(super) fn tend_learning(&mut self, capture: &[InterfaceStatus], now: Timestamp) {
        self.keep_more(KEYS, false);
        let Some(keeper) = &self.learning.keeper else { return };
        if capture.iter().any(|interface| interface.state == "capturing") {
            keeper.watch(now);
        }
        let role = &self.engine.policy().duty.group;
        if *role != self.learning.role && keeper.become_of(role) {
            self.learning.role.clone_from(role);
        }
        // Only a finding spends anything.
        if self.learning.kept.1 == self.board.findings {
            return;
        }
        let state = self.engine.authority().state();
        if self.learning.kept.0.as_ref() == Some(state) {
            self.learning.kept.1 = self.board.findings;
        } else if keeper.keep_authority(state) {
            self.learning.kept = (Some(state.clone()), self.board.findings);
        }
    }

    /// What scores may do now, and what they may not yet.
    pub(super) fn authority_status(&self, now: Timestamp) -> AuthorityStatus {
        let authority = self.engine.authority();
        let mut status = AuthorityStatus::default();
        if authority.certificate().is_some() {
            for ((tier, channel), stands) in authority.standing() {
                match stands {
                    Ok(threshold) => status.granted.push(Granted { tier, channel, threshold }),
                    Err(why) => {
                        let missing_host_weeks = match &why {
                            Reduced::Locked { missing_host_weeks } => *missing_host_weeks,
                            _ => None,
                        };
                        let why = why.to_string();
                        status.locked.push(Locked { tier, channel, why, missing_host_weeks });
                    }
                }
            }
        }
        let policy = self.engine.policy();
        let asks = |channel: &Channel| {
            let rule = policy.rule_for(channel.detector(), Grade::Suspect);
            rule.is_some_and(|rule| rule.level > 0)
        };
        status.asked = Channel::ALL.into_iter().filter(asks).collect();
        let governor = authority.state().governor();
        status.cuts_of_a_week = governor.size();
        status.cuts_left = governor.left(now);
        status.cuts_refused = governor.refused();
        let rehearsed = authority.state().rehearsed();
        status.cuts_rehearsed = rehearsed.size().saturating_sub(rehearsed.left(now));
        status.cuts_rehearsed_refused = rehearsed.refused();
        status.revoked_at = authority.state().drift().revoked_at();
        let open =
            authority.windows().iter().filter(|window| window.from <= now && now < window.until);
        status.windows =
            open.map(|window| Window { name: window.name.clone(), until: window.until }).collect();
        status
    }
}
