//! Events in: each stored once, whatever the order and however often they come.

use super::{
    Doing, NewNotice, NoticeKind, Store, StoreError, held, nanos, natural, transact, whole,
};
use rusqlite::{OptionalExtension, Transaction, params};
use sekisho_schema::episode::Tier;
use sekisho_schema::event::{DrillReport, EVENT_SCHEMA, Preview, Release};
use sekisho_schema::ruling::Ruling;
use sekisho_schema::sealed::hex;
use sekisho_schema::{Action, Body, Containment, Finding, Receipt, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The most events that one request may carry.
const MAX_EVENTS: usize = 500;

/// Events of one boot of one agent, as they came.
#[derive(Debug)]
pub struct Batch {
    /// The boot they belong to.
    pub boot: String,
    /// The first sequence that the agent still holds, when it has lost what was before.
    pub oldest: Option<u64>,
    /// The events.
    pub events: Vec<Arrival>,
}

/// One event, as it came.
#[derive(Debug)]
pub struct Arrival {
    /// Its sequence within the boot.
    pub seq: u64,
    /// When it happened, as the agent said.
    pub at: Timestamp,
    /// Its type, also when this collector does not know it.
    pub kind: String,
    /// The line, byte for byte.
    pub json: String,
    /// The journal's hash of the line and all before it.
    pub chain: Option<String>,
    /// What it says; `None` for a type that this collector does not know: it is kept all the same.
    pub body: Option<Body>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// The highest sequence of the boot up to which nothing is missing.
    pub ack_through: u64,
    /// Events that are new.
    pub stored: u64,
    /// Events that were here already.
    pub duplicates: u64,
}

/// Why a batch is refused as a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// The hashes are not one per event.
    #[error("chain has {chain} hashes for {events} events")]
    Chain {
        /// Number of hashes.
        chain: usize,
        /// Number of events.
        events: usize,
    },
    /// An event lacks what every event has.
    #[error("event {place} of the batch: {why}")]
    Event {
        /// Its place in the batch, from 1.
        place: usize,
        /// What is wrong.
        why: String,
    },
    /// Not the JSON of a batch.
    #[error("not a batch of events: {0}")]
    Malformed(String),
    /// Too many events.
    #[error("{0} events in one batch; at most 500 are taken")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct RawBatch<'a> {
    boot: String,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    chain: Option<Vec<String>>,
    oldest: Option<u64>,
}

#[derive(Deserialize)]
struct Head {
    schema: String,
    seq: u64,
    at: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "host")]
    _host: String,
}

fn is_hex(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Batch {
    /// Reads a batch from a request's body.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is stored.
    pub fn parse(body: &[u8]) -> Result<Self, BatchError> {
        let raw: RawBatch<'_> = serde_json::from_slice(body)
            .map_err(|error| BatchError::Malformed(error.to_string()))?;
        if !is_hex(&raw.boot, 8..=64) {
            return Err(BatchError::Malformed("boot is not 8 to 64 hexadecimal digits".to_owned()));
        }
        if raw.events.len() > MAX_EVENTS {
            return Err(BatchError::TooMany(raw.events.len()));
        }
        let chain = match raw.chain {
            Some(chain) if chain.len() != raw.events.len() => {
                return Err(BatchError::Chain { chain: chain.len(), events: raw.events.len() });
            }
            Some(chain) => chain.into_iter().map(Some).collect(),
            None => vec![None; raw.events.len()],
        };
        let events = raw.events.iter().zip(chain).enumerate().map(|(place, (line, chain))| {
            Arrival::parse(line.get(), chain)
                .map_err(|why| BatchError::Event { place: place + 1, why })
        });
        Ok(Self {
            boot: raw.boot.to_ascii_lowercase(),
            oldest: raw.oldest,
            events: events.collect::<Result<_, _>>()?,
        })
    }
}

impl Arrival {
    fn parse(line: &str, chain: Option<String>) -> Result<Self, String> {
        let head: Head = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if head.schema != EVENT_SCHEMA {
            return Err(format!("schema is \"{}\", expected \"{EVENT_SCHEMA}\"", head.schema));
        }
        if head.seq == 0 || i64::try_from(head.seq).is_err() {
            return Err("seq counts from 1".to_owned());
        }
        if head.kind.is_empty() || head.kind.len() > 64 {
            return Err("type is empty or longer than 64 bytes".to_owned());
        }
        if chain.as_ref().is_some_and(|hash| !is_hex(hash, 64..=64)) {
            return Err("its chain hash is not 64 hexadecimal digits".to_owned());
        }
        let body = serde_json::from_str(line).ok();
        Ok(Self {
            seq: head.seq,
            at: head.at,
            kind: head.kind,
            json: line.to_owned(),
            chain: chain.map(|hash| hash.to_ascii_lowercase()),
            body,
        })
    }
}

/// The hash that the journal must show for a line after the hash before it.
pub(super) fn chained(previous: &str, line: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(32);
    for place in (0..previous.len()).step_by(2) {
        bytes.push(u8::from_str_radix(previous.get(place..place + 2)?, 16).ok()?);
    }
    Some(hex(&Sha256::new().chain_update(bytes).chain_update(line.as_bytes()).finalize()))
}

impl Store {
    /// Stores a batch; it is on the disk when this returns.
    ///
    /// # Errors
    /// When SQLite refuses; nothing of the batch is stored then.
    pub fn take_in(
        &self,
        agent: &str,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let mut writer = held(&self.writer);
        transact(&mut writer.ledger, "store a batch of events", |transaction| {
            let intake = Intake { transaction, agent, boot: &batch.boot, now };
            intake.batch(batch)
        })
    }

    /// Events stored for a boot up to which nothing is missing.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn acknowledged(&self, agent: &str, boot: &str) -> Result<u64, StoreError> {
        let connection = held(&self.reader);
        let ack: Option<i64> = connection
            .query_row(
                "SELECT ack FROM boots WHERE agent = ?1 AND boot = ?2",
                [agent, boot],
                |row| row.get(0),
            )
            .optional()
            .doing("read an acknowledgement")?;
        Ok(ack.map_or(0, natural))
    }
}

struct Intake<'a> {
    transaction: &'a Transaction<'a>,
    agent: &'a str,
    boot: &'a str,
    now: Timestamp,
}

impl Intake<'_> {
    fn batch(&self, batch: &Batch) -> rusqlite::Result<Outcome> {
        let mut outcome = Outcome::default();
        for event in &batch.events {
            if self.event(event)? {
                outcome.stored += 1;
            } else {
                outcome.duplicates += 1;
            }
        }
        outcome.ack_through = self.acknowledge(batch.oldest)?;
        Ok(outcome)
    }

    /// Stores an event; `false` when it is here already.
    fn event(&self, event: &Arrival) -> rusqlite::Result<bool> {
        let seq = whole(event.seq);
        let fresh = self
            .transaction
            .prepare_cached("INSERT INTO events (agent, boot, seq, at, received_at, type, json, chain) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING")?
            .execute(params![self.agent, self.boot, seq, nanos(event.at), nanos(self.now), event.kind, event.json, event.chain])?;
        if fresh == 0 {
            let stored: String = self
                .transaction
                .prepare_cached(
                    "SELECT json FROM events WHERE agent = ?1 AND boot = ?2 AND seq = ?3",
                )?
                .query_row(params![self.agent, self.boot, seq], |row| row.get(0))?;
            if stored != event.json {
                self.fault(seq, "another event came under the same number")?;
            }
            return Ok(false);
        }
        self.check_link(seq)?;
        self.check_link(seq.saturating_add(1))?;
        match &event.body {
            Some(Body::Containment(containment)) => self.containment(containment)?,
            Some(Body::Finding(finding)) => self.finding(seq, event.at, finding)?,
            Some(Body::Receipt(receipt)) => self.receipt(event.at, receipt)?,
            Some(Body::Release(release)) => self.release(event.at, release)?,
            Some(Body::Drill(drill)) => self.drill(seq, event.at, drill)?,
            Some(Body::Gap(gap)) if gap.cause == "fuse" => {
                self.notice(
                    NoticeKind::Fuse,
                    &format!("{}:{seq}", self.boot),
                    &gap.cause,
                    &gap.detail,
                )?;
            }
            Some(Body::Preview(preview)) => self.preview(event.at, preview)?,
            Some(
                Body::Baseline(_)
                | Body::Coverage(_)
                | Body::Evidence(_)
                | Body::Gap(_)
                | Body::Mode(_)
                | Body::Policy(_)
                | Body::Summary(_),
            )
            | None => {}
        }
        Ok(true)
    }

    /// Says of the event `seq` whether it follows from the one before, when both are here.
    fn check_link(&self, seq: i64) -> rusqlite::Result<()> {
        let pair: Option<(String, String, String)> = self
            .transaction
            .prepare_cached(
                "SELECT earlier.chain, later.json, later.chain FROM events later JOIN events earlier ON earlier.agent = later.agent AND earlier.boot = later.boot AND earlier.seq = later.seq - 1
                 WHERE later.agent = ?1 AND later.boot = ?2 AND later.seq = ?3 AND later.chain IS NOT NULL AND earlier.chain IS NOT NULL",
            )?
            .query_row(params![self.agent, self.boot, seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((previous, line, chain)) = pair else { return Ok(()) };
        let holds = chained(&previous, &line).is_some_and(|expected| expected == chain);
        self.transaction
            .prepare_cached(
                "UPDATE events SET link = ?4 WHERE agent = ?1 AND boot = ?2 AND seq = ?3",
            )?
            .execute(params![self.agent, self.boot, seq, holds])?;
        if holds { Ok(()) } else { self.fault(seq, "the journal's chain is broken before it") }
    }

    fn fault(&self, seq: i64, what: &str) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("INSERT INTO faults (agent, boot, seq, what, at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")?
            .execute(params![self.agent, self.boot, seq, what, nanos(self.now)])
            .map(drop)
    }

    /// Moves the acknowledgement over what follows it without a gap.
    fn acknowledge(&self, oldest: Option<u64>) -> rusqlite::Result<u64> {
        let known: Option<i64> = self
            .transaction
            .prepare_cached("SELECT ack FROM boots WHERE agent = ?1 AND boot = ?2")?
            .query_row([self.agent, self.boot], |row| row.get(0))
            .optional()?;
        let mut ack = known.unwrap_or(0);
        ack = self.advance(ack)?;
        if let Some(floor) =
            oldest.map(|oldest| whole(oldest).saturating_sub(1)).filter(|floor| *floor > ack)
        {
            self.fault(floor, "the agent lost its records up to this one")?;
            ack = self.advance(floor)?;
        }
        self.transaction
            .prepare_cached("INSERT INTO boots (agent, boot, ack, first_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, boot) DO UPDATE SET ack = excluded.ack")?
            .execute(params![self.agent, self.boot, ack, nanos(self.now)])?;
        Ok(natural(ack))
    }

    fn advance(&self, mut ack: i64) -> rusqlite::Result<i64> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT seq FROM events WHERE agent = ?1 AND boot = ?2 AND seq > ?3 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![self.agent, self.boot, ack])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq != ack + 1 {
                break;
            }
            ack = seq;
        }
        Ok(ack)
    }

    fn finding(&self, seq: i64, at: Timestamp, finding: &Finding) -> rusqlite::Result<()> {
        let word = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        if finding.decision.action == Action::Contain && is_cut_of_behaviour(finding) {
            self.behaviour_cut(seq)?;
        }
        // A host whose clock runs ahead, or lies, must not stay on top of the list.
        let at = nanos(at.min(self.now));
        self.transaction
            .prepare_cached("INSERT INTO findings (agent, boot, seq, at, id, detector, grade, action, containment) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING")?
            .execute(params![
                self.agent,
                self.boot,
                seq,
                at,
                finding.id,
                finding.detector,
                word(serde_json::to_value(finding.grade)),
                word(serde_json::to_value(finding.decision.action)),
                finding.decision.containment.as_ref().map(|id| id.0.as_str()),
            ])
            .map(drop)
    }

    /// Counts a cut against what the role may have in a week.
    fn behaviour_cut(&self, seq: i64) -> rusqlite::Result<()> {
        let Some(role) = super::learning::role_of(self.transaction, self.agent)? else {
            return Ok(());
        };
        self.transaction
            .prepare_cached("INSERT INTO behaviour_cuts (agent, boot, seq, role, at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")?
            .execute(params![self.agent, self.boot, seq, role, nanos(self.now)])
            .map(drop)
    }

    fn receipt(&self, at: Timestamp, receipt: &Receipt) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT INTO receipts (agent, containment, generation, at, finding, applied, error, cut, exemptions, time_to_contain_ns, leaked_packets, leaked_bytes, open, coverage, target)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
                 ON CONFLICT (agent, containment, generation) DO UPDATE SET at = excluded.at, finding = excluded.finding, applied = excluded.applied, error = excluded.error, cut = excluded.cut,
                   exemptions = excluded.exemptions, time_to_contain_ns = excluded.time_to_contain_ns, leaked_packets = excluded.leaked_packets, leaked_bytes = excluded.leaked_bytes,
                   open = excluded.open, coverage = excluded.coverage, target = excluded.target
                 WHERE excluded.at >= receipts.at",
            )?
            .execute(params![
                self.agent,
                receipt.containment.0,
                whole(receipt.generation),
                nanos(at),
                receipt.finding,
                receipt.applied,
                receipt.error,
                receipt.proof.cut,
                receipt.proof.exemptions,
                receipt.time_to_contain_ns,
                whole(receipt.leaked_packets),
                whole(receipt.leaked_bytes),
                list(&receipt.open),
                list(&receipt.coverage),
                list(&receipt.target),
            ])?;
        if receipt.applied {
            return Ok(());
        }
        let why = receipt.error.as_deref().unwrap_or("the kernel refused");
        let text = format!("NOT CUT: {} is not held: {why}", receipt.scope);
        self.notice(NoticeKind::NotApplied, &receipt.containment.0, &receipt.containment.0, &text)
    }

    fn drill(&self, seq: i64, at: Timestamp, drill: &DrillReport) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("INSERT INTO drills (agent, boot, seq, at, name, passed, detail, by, time_to_detect_ns, time_to_contain_ns, leaked_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING")?
            .execute(params![
                self.agent,
                self.boot,
                seq,
                nanos(at.min(self.now)),
                drill.name,
                drill.passed,
                drill.detail,
                drill.by,
                drill.time_to_detect_ns,
                drill.time_to_contain_ns,
                whole(drill.leaked_bytes),
            ])?;
        if drill.passed {
            return Ok(());
        }
        let text = format!("the rehearsal {} did not hold: {}", drill.name, drill.detail);
        self.notice(NoticeKind::DrillFailed, &format!("{}:{seq}", self.boot), &drill.name, &text)
    }

    fn preview(&self, at: Timestamp, preview: &Preview) -> rusqlite::Result<()> {
        let Some(containment) = &preview.containment else { return Ok(()) };
        let json = serde_json::to_string(preview).unwrap_or_default();
        self.transaction
            .prepare_cached("INSERT INTO previews (agent, containment, at, json) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, containment) DO UPDATE SET at = excluded.at, json = excluded.json")?
            .execute(params![self.agent, containment.0, nanos(at), json])
            .map(drop)
    }

    /// Keeps that a person must be told, in the same transaction as the event that calls for it.
    fn notice(
        &self,
        kind: NoticeKind,
        incident: &str,
        subject: &str,
        text: &str,
    ) -> rusqlite::Result<()> {
        let notice = NewNotice {
            key: format!("{}:{}:{incident}", kind.word(), self.agent),
            kind,
            agent: Some(self.agent),
            group: None,
            subject: subject.to_owned(),
            text: text.to_owned(),
        };
        super::notices::keep(self.transaction, &notice, self.now).map(drop)
    }

    fn containment(&self, containment: &Containment) -> rusqlite::Result<()> {
        keep_containment(self.transaction, self.agent, containment, self.now)
    }

    fn release(&self, at: Timestamp, release: &Release) -> rusqlite::Result<()> {
        // The release may come before the containment it ends: it stays released.
        self.transaction
            .prepare_cached(
                "INSERT INTO containments (agent, id, released_at, release_cause, released_by, release_reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (agent, id) DO UPDATE SET released_at = excluded.released_at, release_cause = excluded.release_cause, released_by = excluded.released_by, release_reason = excluded.release_reason",
            )?
            .execute(params![self.agent, release.containment.0, nanos(at), release.cause, release.by, release.reason])?;
        let (id, scope) = (release.containment.0.as_str(), &release.scope);
        match release.cause.as_str() {
            "trial" => {
                let text = format!(
                    "{scope} was on trial and was let go, because nobody confirmed it: it is OPEN again"
                );
                self.notice(NoticeKind::TrialReleased, id, id, &text)
            }
            "escalated" => {
                let text = format!(
                    "what {scope} held back tried other ways; it is cut at a higher level now"
                );
                self.notice(NoticeKind::Escalated, id, id, &text)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a certificate let a finding cut, rather than hold or alert.
fn is_cut_of_behaviour(finding: &Finding) -> bool {
    let rulings = finding.evidence.iter().filter_map(Ruling::from_evidence);
    rulings.flatten().any(|ruling| ruling.tier >= Tier::CutDestination)
}

/// Keeps what is known of a containment; that it was released is never forgotten by this.
pub(super) fn keep_containment(
    transaction: &Transaction<'_>,
    agent: &str,
    containment: &Containment,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let json = serde_json::to_string(containment).unwrap_or_default();
    transaction
        .prepare_cached(
            "INSERT INTO containments (agent, id, json, since, until, first_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (agent, id) DO UPDATE SET json = excluded.json, since = excluded.since, until = excluded.until, first_at = coalesce(containments.first_at, excluded.first_at) WHERE containments.json IS NULL OR containments.json <> excluded.json",
        )?
        .execute(params![agent, containment.id.0, json, nanos(containment.since), nanos(containment.until), nanos(now)])
        .map(drop)
}

fn list(texts: &[String]) -> String {
    serde_json::to_string(texts).unwrap_or_else(|_| "[]".to_owned())
}
