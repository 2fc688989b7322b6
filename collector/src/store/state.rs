//! States: what an agent says of itself every ten seconds.

use super::intake::keep_containment;
use super::{Store, StoreError, nanos, whole};
use rusqlite::params;
use sekisho_schema::event::ModeChange;
use sekisho_schema::{Containment, Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The most containments that one state may tell of.
pub const MAX_CONTAINMENTS: usize = 2000;
/// How long samples for the plot are kept.
const SAMPLES_FOR: Span = Span::from_hours(2);
/// Samples of one host are this far apart at least.
const SAMPLE_EVERY: i64 = 5_000_000_000;

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The boot of the agent.
    pub boot: String,
    /// The host's name, as the agent knows it.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// The mode asked for and in effect.
    pub mode: ModeChange,
    /// Version of the policy in force there; 0 for none of ours.
    pub policy_version: u64,
    /// What is cut there now, whole.
    #[serde(default)]
    pub containments: Vec<Containment>,
    /// Bytes of payload that left for the outside since the agent started.
    pub bytes_out: u64,
    /// Records waiting to be sent.
    pub spool: u64,
    /// Paths that a cut does not close there.
    #[serde(default)]
    pub coverage: Vec<String>,
    /// When it was said, by the agent's clock.
    pub at: Timestamp,
}

impl Store {
    /// Takes a state in; `false` when the agent was never enrolled here.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn take_state(
        &self,
        agent: &str,
        state: &Heartbeat,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.in_passing("store a state", |transaction| {
            let coverage = serde_json::to_string(&state.coverage).unwrap_or_else(|_| "[]".to_owned());
            let known = transaction
                .prepare_cached(
                    "UPDATE hosts SET last_seen = ?2, boot = ?3, version = ?4, requested = ?5, effective = ?6, why = ?7, policy_version = ?8, bytes_out = ?9, spool = ?10, coverage = ?11 WHERE agent = ?1",
                )?
                .execute(params![
                    agent,
                    nanos(now),
                    state.boot,
                    state.version,
                    state.mode.requested.to_string(),
                    state.mode.effective.to_string(),
                    state.mode.why,
                    whole(state.policy_version),
                    whole(state.bytes_out),
                    whole(state.spool),
                    coverage,
                ])?;
            if known == 0 {
                return Ok(false);
            }
            for containment in state.containments.iter().take(MAX_CONTAINMENTS) {
                keep_containment(transaction, agent, containment, now)?;
            }
            mark_absent(transaction, agent, state, now)?;
            let slot = nanos(now).div_euclid(SAMPLE_EVERY) * SAMPLE_EVERY;
            transaction
                .prepare_cached("INSERT INTO samples (agent, at, boot, bytes_out) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (agent, at) DO UPDATE SET boot = excluded.boot, bytes_out = excluded.bytes_out")?
                .execute(params![agent, slot, state.boot, whole(state.bytes_out)])?;
            transaction.prepare_cached("DELETE FROM samples WHERE at < ?1")?.execute([nanos(now.before(SAMPLES_FOR))])?;
            Ok(true)
        })
    }
}

/// The state is the whole truth about what is cut: what it does not name is not cut any more.
fn mark_absent(
    transaction: &rusqlite::Transaction<'_>,
    agent: &str,
    state: &Heartbeat,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let present = serde_json::to_string(
        &state.containments.iter().map(|containment| containment.id.0.as_str()).collect::<Vec<_>>(),
    )
    .unwrap_or_else(|_| "[]".to_owned());
    // A containment that began after the state was written is not denied by it.
    transaction
        .prepare_cached("UPDATE containments SET absent_at = ?3 WHERE agent = ?1 AND absent_at IS NULL AND released_at IS NULL AND since <= ?4 AND id NOT IN (SELECT value FROM json_each(?2))")?
        .execute(params![agent, present, nanos(now), nanos(state.at)])?;
    transaction
        .prepare_cached("UPDATE containments SET absent_at = NULL WHERE agent = ?1 AND absent_at IS NOT NULL AND id IN (SELECT value FROM json_each(?2))")?
        .execute(params![agent, present])
        .map(drop)
}
