//! Orders on their way: kept until the host has answered or they are stale.

use super::{Store, StoreError, nanos};
use rusqlite::{OptionalExtension, Row, params};
use sekisho_schema::{ContainmentId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most orders that one host is handed at once.
const AT_ONCE: u64 = 32;

/// An order to be kept.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// Its name: `o-` and twelve hexadecimal digits of its digest.
    pub id: String,
    /// The host that it is for.
    pub host: String,
    /// The envelope's text.
    pub sealed: String,
    /// Who sealed it.
    pub sealed_by: String,
    /// When it goes stale.
    pub expires: Timestamp,
}

/// An order as it is handed to its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderHanded {
    /// Its name.
    pub id: String,
    /// The envelope's text.
    pub sealed: String,
}

/// What came of an order, as its host tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// Whether it was carried out.
    pub done: bool,
    /// One sentence.
    pub detail: String,
    /// The containment that it is about, where there is one.
    #[serde(default)]
    pub containment: Option<ContainmentId>,
}

/// How an order fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Carried out.
    Done,
    /// The host has it and did not answer yet.
    Handed,
    /// It went stale before the host answered.
    Lapsed,
    /// The host refused it.
    Refused,
    /// The host did not fetch it yet.
    Waiting,
}

/// An order as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderView {
    /// Its name.
    pub id: String,
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// The envelope's text.
    #[serde(skip)]
    pub sealed: String,
    /// Who sealed it.
    pub sealed_by: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it goes stale.
    pub expires: Timestamp,
    /// When the host fetched it.
    pub fetched_at: Option<Timestamp>,
    /// When the host answered.
    pub answered_at: Option<Timestamp>,
    /// How it fares.
    pub state: OrderState,
    /// What the host answered.
    pub detail: Option<String>,
    /// The containment that it is about.
    pub containment: Option<String>,
}

fn view(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<OrderView> {
    let time = |place| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(place)?.map(Timestamp::from_nanos))
    };
    let (fetched_at, answered_at) = (time(6)?, time(7)?);
    let (expires, done): (i64, Option<bool>) = (row.get(5)?, row.get(8)?);
    let state = match done {
        Some(true) => OrderState::Done,
        Some(false) => OrderState::Refused,
        None if expires <= nanos(now) => OrderState::Lapsed,
        None if fetched_at.is_some() => OrderState::Handed,
        None => OrderState::Waiting,
    };
    Ok(OrderView {
        id: row.get(0)?,
        agent: row.get(1)?,
        host: row.get(2)?,
        sealed_by: row.get(3)?,
        sent_at: Timestamp::from_nanos(row.get(4)?),
        expires: Timestamp::from_nanos(expires),
        fetched_at,
        answered_at,
        state,
        detail: row.get(9)?,
        containment: row.get(10)?,
        sealed: row.get(11)?,
    })
}

impl Store {
    /// Keeps an order for every agent of its host that may come in; gives their number.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn keep_order(&self, order: &NewOrder, now: Timestamp) -> Result<usize, StoreError> {
        self.on_disk("keep an order", |transaction| {
            transaction.execute(
                "INSERT INTO orders (id, agent, host, sealed, sealed_by, sent_at, expires)
                 SELECT ?1, agent, host, ?3, ?4, ?5, ?6 FROM hosts h WHERE host = ?2 AND NOT EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent)
                 ON CONFLICT (id, agent) DO UPDATE SET sealed = excluded.sealed",
                params![order.id, order.host, order.sealed, order.sealed_by, nanos(now), nanos(order.expires)],
            )
        })
    }

    /// Agents with the names of the orders that they did not answer yet.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn orders_open(
        &self,
        now: Timestamp,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
        self.reading("look for orders", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT agent, id FROM orders WHERE answered_at IS NULL AND expires > ?1",
            )?;
            let mut rows = statement.query([nanos(now)])?;
            let mut open: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                open.entry(row.get(0)?).or_default().insert(row.get(1)?);
            }
            Ok(open)
        })
    }

    /// Hands an agent the orders that it did not answer yet, oldest first.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn hand_orders(&self, agent: &str, now: Timestamp) -> Result<Vec<OrderHanded>, StoreError> {
        self.on_disk("hand out orders", |transaction| {
            let orders = transaction
                .prepare_cached("SELECT id, sealed FROM orders WHERE agent = ?1 AND answered_at IS NULL AND expires > ?2 ORDER BY sent_at, id LIMIT ?3")?
                .query_map(params![agent, nanos(now), super::whole(AT_ONCE)], |row| Ok(OrderHanded { id: row.get(0)?, sealed: row.get(1)? }))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for order in &orders {
                transaction
                    .prepare_cached("UPDATE orders SET fetched_at = ?3 WHERE id = ?1 AND agent = ?2 AND fetched_at IS NULL")?
                    .execute(params![order.id, agent, nanos(now)])?;
            }
            Ok(orders)
        })
    }

    /// Keeps what an agent answers to an order; `false` when it was given no such order. The first answer counts.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn answer_order(
        &self,
        agent: &str,
        id: &str,
        answer: &OrderAnswer,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.on_disk("keep the answer to an order", |transaction| {
            let known: Option<(String, bool)> = transaction
                .prepare_cached("SELECT host, answered_at IS NOT NULL FROM orders WHERE id = ?1 AND agent = ?2")?
                .query_row([id, agent], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((host, answered)) = known else { return Ok(false) };
            if answered {
                return Ok(true);
            }
            let detail: String = answer.detail.chars().take(1000).collect();
            transaction
                .prepare_cached("UPDATE orders SET answered_at = ?3, done = ?4, detail = ?5, containment = ?6 WHERE id = ?1 AND agent = ?2")?
                .execute(params![id, agent, nanos(now), answer.done, detail, answer.containment.as_ref().map(|id| id.0.as_str())])?;
            if !answer.done {
                let notice = super::NewNotice {
                    key: format!("order-refused:{agent}:{id}"),
                    kind: super::NoticeKind::OrderRefused,
                    agent: Some(agent),
                    group: None,
                    subject: id.to_owned(),
                    text: format!("{host} refused order {id}: {detail}"),
                };
                super::notices::keep(transaction, &notice, now)?;
            }
            Ok(true)
        })
    }

    /// The orders, newest first.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn orders(&self, limit: u64, now: Timestamp) -> Result<Vec<OrderView>, StoreError> {
        self.reading("list the orders", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, agent, host, sealed_by, sent_at, expires, fetched_at, answered_at, done, detail, containment, sealed FROM orders ORDER BY sent_at DESC, id LIMIT ?1",
                )?
                .query_map([super::whole(limit)], |row| view(row, now))?
                .collect()
        })
    }

    /// The level of a containment of a host that is known here; the highest, should several have the name.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn level_held(&self, host: &str, id: &ContainmentId) -> Result<Option<u8>, StoreError> {
        self.reading("look up a containment", |connection| {
            connection.query_row(
                "SELECT max(json_extract(c.json, '$.level')) FROM containments c JOIN hosts h ON h.agent = c.agent WHERE h.host = ?1 AND c.id = ?2 AND c.json IS NOT NULL",
                [host, id.0.as_str()],
                |row| row.get(0),
            )
        })
    }

    /// Whether a host of that name may come in.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn knows_host(&self, host: &str) -> Result<bool, StoreError> {
        self.reading("look up a host", |connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM hosts h WHERE host = ?1 AND NOT EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent))",
                [host],
                |row| row.get(0),
            )
        })
    }
}
