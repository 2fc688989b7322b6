//! The agent's ends of the conversations with the guardian.

use super::wire::{
    APPLIED, Answer, Ended, Event, HOLD_KNOWN, HOLDING_KNOWN, JSON, Link, Outcome, Question,
    RELEASE_KNOWN, Role, SET, State, put_keys, put_set, read_keys, read_outcome,
};
use crate::bpf::Opener;
use crate::enforce::{Counters, Held, Key, KnownSet, Plan};
use sekisho_schema::{Containment, ContainmentSet, FlowKey, Proof, Scope};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for an answer about a cut: the kernel's commits take turns, and a whole ruleset may be before ours.
const CUT_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for a new ruleset.
const LOAD_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for anything else.
const PATIENCE: Duration = Duration::from_secs(5);
/// The guardian tells something each half second; after this it is taken for gone.
const SILENCE: Duration = Duration::from_millis(1500);

/// Why the guardian did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskGuardianError {
    /// It can't be reached, or does not answer.
    #[error("cannot reach the guardian at {path}; what the kernel holds, it keeps")]
    Gone {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused it.
    #[error("the guardian could not do it: {why}")]
    Refused {
        /// Why, in its words.
        why: String,
        /// Whether our tables are not there.
        absent: bool,
    },
    /// It said something that is no answer.
    #[error("the guardian's answer makes no sense; is it of another version?")]
    Senseless,
}

impl AskGuardianError {
    /// Whether the guardian can't be spoken with: another try needs another conversation.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// Whether it was refused because our tables are not there.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { absent: true, .. })
    }
}

/// Where the guardian is, and who calls.
#[derive(Clone, Debug)]
pub struct Guardian {
    socket: PathBuf,
    boot: String,
}

impl Guardian {
    /// A guardian behind a socket, called by this run of the agent.
    #[must_use]
    pub fn at(socket: PathBuf, boot: &str) -> Self {
        Self { socket, boot: boot.to_owned() }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Begins to give desired state; whoever did before is heard no more.
    ///
    /// # Errors
    /// [`AskGuardianError::Gone`].
    pub fn hand(&self) -> Result<Hand, AskGuardianError> {
        let talk = self.talk(Role::Hand)?;
        // One that an update left in service may know no alerts.
        let heeds_alerts =
            self.asker().and_then(|mut asker| asker.state()).is_ok_and(|state| state.heeds_alerts);
        Ok(Hand { talk, heeds_alerts })
    }

    /// Begins to ask.
    ///
    /// # Errors
    /// [`AskGuardianError::Gone`].
    pub fn asker(&self) -> Result<Asker, AskGuardianError> {
        Ok(Asker { talk: self.talk(Role::Ask)? })
    }

    /// Begins to ask what nobody may wait for longer than this.
    ///
    /// # Errors
    /// [`AskGuardianError::Gone`].
    pub fn hasty_asker(&self, patience: Duration) -> Result<Asker, AskGuardianError> {
        let link = self.call_within(Role::Ask, patience).map_err(|source| self.gone(source))?;
        Ok(Asker { talk: self.talk_over(link)? })
    }

    /// Begins to give destinations known beforehand.
    ///
    /// # Errors
    /// [`AskGuardianError::Gone`].
    pub fn known(&self) -> Result<KnownLink, AskGuardianError> {
        Ok(KnownLink { talk: self.talk(Role::Known)?, look: self.talk(Role::Ask)? })
    }

    fn gone(&self, source: io::Error) -> AskGuardianError {
        AskGuardianError::Gone { path: self.socket.clone(), source }
    }

    fn call(&self, role: Role) -> io::Result<Link> {
        self.call_within(role, PATIENCE)
    }

    fn call_within(&self, role: Role, patience: Duration) -> io::Result<Link> {
        let mut link = Link::new(UnixStream::connect(&self.socket)?);
        link.patience(Some(patience))?;
        link.send_json(&Question::Hello { role, boot: self.boot.clone() })?;
        Ok(link)
    }

    fn talk(&self, role: Role) -> Result<Talk, AskGuardianError> {
        let link = self.call(role).map_err(|source| self.gone(source))?;
        self.talk_over(link)
    }

    fn talk_over(&self, link: Link) -> Result<Talk, AskGuardianError> {
        let mut talk = Talk { link, guardian: self.clone() };
        match talk.hear()? {
            Answer::Done => Ok(talk),
            _ => Err(AskGuardianError::Senseless),
        }
    }
}

struct Talk {
    link: Link,
    guardian: Guardian,
}

impl Talk {
    fn ask(&mut self, question: &Question) -> Result<Answer, AskGuardianError> {
        self.link.send_json(question).map_err(|source| self.guardian.gone(source))?;
        self.hear()
    }

    fn done(&mut self, question: &Question) -> Result<(), AskGuardianError> {
        match self.ask(question)? {
            Answer::Done => Ok(()),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    fn hear(&mut self) -> Result<Answer, AskGuardianError> {
        match self.link.receive() {
            Ok(Some((JSON, body))) => Self::understand(body),
            Ok(Some(_)) => Err(AskGuardianError::Senseless),
            Ok(None) => Err(self.guardian.gone(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.guardian.gone(source)),
        }
    }

    fn understand(body: &[u8]) -> Result<Answer, AskGuardianError> {
        match serde_json::from_slice(body) {
            Ok(Answer::Failed { why, absent }) => Err(AskGuardianError::Refused { why, absent }),
            Ok(answer) => Ok(answer),
            Err(_) => Err(AskGuardianError::Senseless),
        }
    }
}

/// Gives desired state.
pub struct Hand {
    talk: Talk,
    heeds_alerts: bool,
}

impl Hand {
    /// Has the ruleset of a plan loaded; what is held stays held.
    ///
    /// # Errors
    /// [`AskGuardianError`]; the ruleset before stays.
    pub fn plan(&mut self, plan: &Plan) -> Result<(), AskGuardianError> {
        self.patience(LOAD_PATIENCE)?;
        let done = self.talk.done(&Question::Plan { plan: Box::new(plan.clone()) });
        self.patience(CUT_PATIENCE)?;
        done
    }

    /// Has the kernel hold exactly this set.
    ///
    /// # Errors
    /// [`AskGuardianError`]; what was held before is held.
    pub fn apply(&mut self, set: &ContainmentSet) -> Result<Outcome, AskGuardianError> {
        let gone = |talk: &Talk, source| talk.guardian.gone(source);
        self.talk
            .link
            .send(SET, |out| put_set(out, set))
            .map_err(|source| gone(&self.talk, source))?;
        match self.talk.link.receive() {
            Ok(Some((APPLIED, body))) => read_outcome(body).ok_or(AskGuardianError::Senseless),
            Ok(Some((JSON, body))) => match Talk::understand(body)? {
                Answer::Applied { outcome } => Ok(outcome),
                _ => Err(AskGuardianError::Senseless),
            },
            Ok(Some(_)) => Err(AskGuardianError::Senseless),
            Ok(None) => Err(gone(&self.talk, io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(gone(&self.talk, source)),
        }
    }

    /// Has the hand wake and stand ready for a fraction of a millisecond; nothing is answered, and nothing is lost when it
    /// does not hear.
    pub fn alert(&mut self) {
        if self.heeds_alerts {
            self.talk.link.alert();
        }
    }

    /// Has our tables removed, and all that they hold.
    ///
    /// # Errors
    /// [`AskGuardianError`]; they stay.
    pub fn remove(&mut self) -> Result<(), AskGuardianError> {
        self.talk.done(&Question::Remove)
    }

    /// The kernel's packet log of a group, bound and ready to be read.
    ///
    /// # Errors
    /// [`AskGuardianError`] when the kernel has none, or another program has the group.
    pub fn packet_log(&mut self, group: u16) -> Result<OwnedFd, AskGuardianError> {
        let talk = &mut self.talk;
        talk.link
            .send_json(&Question::PacketLog { group })
            .map_err(|source| talk.guardian.gone(source))?;
        match talk.link.receive_descriptor() {
            Ok((Answer::Done, Some(descriptor))) => Ok(descriptor),
            Ok((Answer::Failed { why, absent }, _)) => {
                Err(AskGuardianError::Refused { why, absent })
            }
            Ok(_) => Err(AskGuardianError::Senseless),
            Err(source) => Err(talk.guardian.gone(source)),
        }
    }

    fn patience(&self, wait: Duration) -> Result<(), AskGuardianError> {
        self.talk.link.patience(Some(wait)).map_err(|source| self.talk.guardian.gone(source))
    }
}

/// Asks.
pub struct Asker {
    talk: Talk,
}

impl Asker {
    /// What the kernel holds, by containment; nothing where our tables are not there.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn held(&mut self) -> Result<Vec<Held>, AskGuardianError> {
        match self.talk.ask(&Question::Held) {
            Ok(Answer::Held { held }) => Ok(held),
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Ok(_) => Err(AskGuardianError::Senseless),
            Err(error) => Err(error),
        }
    }

    /// What was dropped and passed.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn counters(&mut self) -> Result<Counters, AskGuardianError> {
        match self.talk.ask(&Question::Counters)? {
            Answer::Counters { counters } => Ok(counters),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// What differs between the kernel and what it should hold, in words; `true` when rules do.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn verify(&mut self) -> Result<(Vec<String>, bool), AskGuardianError> {
        match self.talk.ask(&Question::Verify)? {
            Answer::Drift { what, rules } => Ok((what, rules)),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// Tries whether a cut holds.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn prove(&mut self, containment: &Containment) -> Result<Proof, AskGuardianError> {
        match self.talk.ask(&Question::Prove { containment: Box::new(containment.clone()) })? {
            Answer::Proof { proof } => Ok(proof),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// Ends what goes on in scopes that are held.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn end(&mut self, scopes: Vec<Scope>) -> Result<Ended, AskGuardianError> {
        match self.talk.ask(&Question::End { scopes })? {
            Answer::Ended { ended } => Ok(ended),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// What passes a cut here and now, by name; our own packet sockets left out. `uplinks` counts where no plan is loaded.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn look(&mut self, uplinks: Vec<String>) -> Result<Vec<String>, AskGuardianError> {
        match self.talk.ask(&Question::Look { uplinks })? {
            Answer::Passing { gaps } => Ok(gaps),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// Who opened the connection of a flow, or sent its datagrams, as far as the kernel remembers.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn opener(&mut self, flow: &FlowKey) -> Result<Option<Opener>, AskGuardianError> {
        let FlowKey { transport, local, remote } = *flow;
        match self.talk.ask(&Question::Opener { transport: transport.number(), local, remote })? {
            Answer::Opener { opener } => Ok(opener),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// Has the packet sockets of this process spared while the host is contained: they are how an agent sees.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn spare(&mut self) -> Result<(), AskGuardianError> {
        match self.talk.ask(&Question::Spare)? {
            Answer::Done => Ok(()),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// How the guardian fares.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn state(&mut self) -> Result<State, AskGuardianError> {
        match self.talk.ask(&Question::State)? {
            Answer::State { state } => Ok(state),
            _ => Err(AskGuardianError::Senseless),
        }
    }
}

/// Gives destinations known beforehand, in batches that no cut waits for.
pub struct KnownLink {
    talk: Talk,
    look: Talk,
}

impl KnownLink {
    /// Has the kernel hold keys for a while; `renew` where some may be held already with another end.
    ///
    /// # Errors
    /// [`AskGuardianError`]; nothing of the batch was written.
    pub fn hold(
        &mut self,
        keys: &[Key],
        lease: Duration,
        renew: bool,
    ) -> Result<(), AskGuardianError> {
        batch(&mut self.talk, HOLD_KNOWN, keys, lease, renew).and_then(done)
    }

    /// Has the kernel let go of keys, held or not.
    ///
    /// # Errors
    /// [`AskGuardianError`]; nothing of the batch was written.
    pub fn release(&mut self, keys: &[Key]) -> Result<(), AskGuardianError> {
        batch(&mut self.talk, RELEASE_KNOWN, keys, Duration::ZERO, false).and_then(done)
    }

    /// Whether the kernel holds every one of these keys.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn is_holding(&mut self, keys: &[Key]) -> Result<bool, AskGuardianError> {
        match batch(&mut self.look, HOLDING_KNOWN, keys, Duration::ZERO, false)? {
            Answer::Holding { holding } => Ok(holding),
            _ => Err(AskGuardianError::Senseless),
        }
    }

    /// Everything that the kernel's sets of known destinations hold.
    ///
    /// # Errors
    /// [`AskGuardianError`]; [`AskGuardianError::is_absent`] without our tables.
    pub fn read(&mut self) -> Result<KnownSet, AskGuardianError> {
        let talk = &mut self.look;
        talk.link.send_json(&Question::ReadKnown).map_err(|source| talk.guardian.gone(source))?;
        match talk.link.receive() {
            Ok(Some((HOLD_KNOWN, body))) => {
                let (keys, _, _) = read_keys(body).ok_or(AskGuardianError::Senseless)?;
                Ok(KnownSet::from_keys(keys))
            }
            Ok(Some((JSON, body))) => Talk::understand(body).and(Err(AskGuardianError::Senseless)),
            Ok(Some(_)) => Err(AskGuardianError::Senseless),
            Ok(None) => Err(talk.guardian.gone(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(talk.guardian.gone(source)),
        }
    }

    /// Packets dropped for such a destination.
    ///
    /// # Errors
    /// [`AskGuardianError`].
    pub fn dropped(&mut self) -> Result<u64, AskGuardianError> {
        match self.look.ask(&Question::Counters)? {
            Answer::Counters { counters } => Ok(counters.known.packets),
            _ => Err(AskGuardianError::Senseless),
        }
    }
}

fn batch(
    talk: &mut Talk,
    kind: u8,
    keys: &[Key],
    lease: Duration,
    renew: bool,
) -> Result<Answer, AskGuardianError> {
    talk.link
        .send(kind, |out| put_keys(out, keys, lease, renew))
        .map_err(|source| talk.guardian.gone(source))?;
    talk.hear()
}

fn done(answer: Answer) -> Result<(), AskGuardianError> {
    match answer {
        Answer::Done => Ok(()),
        _ => Err(AskGuardianError::Senseless),
    }
}

/// Hears what happens on the guardian's side, until it is gone or `hear` has heard enough.
///
/// # Errors
/// [`AskGuardianError::Gone`].
pub fn listen(
    guardian: &Guardian,
    mut hear: impl FnMut(Event) -> bool,
) -> Result<(), AskGuardianError> {
    let gone = |source| guardian.gone(source);
    let mut link = guardian.call(Role::Listen).map_err(gone)?;
    link.patience(Some(SILENCE)).map_err(gone)?;
    loop {
        let event = match link.receive().map_err(gone)? {
            Some((JSON, body)) => {
                serde_json::from_slice(body).map_err(|_| AskGuardianError::Senseless)?
            }
            Some(_) => return Err(AskGuardianError::Senseless),
            None => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
        };
        if !hear(event) {
            return Ok(());
        }
    }
}
