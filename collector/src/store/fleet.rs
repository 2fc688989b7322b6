//! The governor of the fleet: how many cuts of behaviour a role may have in seven days, and how many it had.

use super::{NewNotice, NoticeKind, Store, StoreError, nanos, natural};
use rusqlite::params;
use sekisho_schema::certificate::{CERTIFICATE_KIND, Certificate};
use sekisho_schema::episode::Tier;
use sekisho_schema::{Sealed, Span, Timestamp};
use std::collections::BTreeMap;

/// A cut counts for so long (detection.md, section 3: a bucket for a week).
const WEEK: Span = Span::from_hours(168);
/// The most cuts of a role in a week, whatever its promise.
const MOST: u32 = 4096;

/// What a role has spent of its cuts of behaviour.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FleetSpent {
    /// The role.
    pub role: String,
    /// How many a week may have: the promise of its certificate for each host, rounded up.
    pub of: u32,
    /// Hosts that had one within seven days; each counts once, so that one that lies can't spend what the others have.
    pub taken: u32,
    /// How many are left.
    pub left: u32,
    /// When the next of them comes back; `None` when none is out.
    pub back_at: Option<Timestamp>,
}

impl Store {
    /// What each role with a certificate in force has spent.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn fleet(&self, now: Timestamp) -> Result<BTreeMap<String, FleetSpent>, StoreError> {
        let rows = self.reading("count the cuts of the roles", |connection| {
            connection
                .prepare_cached(
                    "SELECT c.role, c.sealed, (SELECT count(*) FROM roles r WHERE r.role = c.role),
                       (SELECT count(DISTINCT b.agent) FROM behaviour_cuts b WHERE b.role = c.role AND b.at > ?2 AND b.at <= ?3),
                       (SELECT min(b.at) FROM behaviour_cuts b WHERE b.role = c.role AND b.at > ?2 AND b.at <= ?3)
                     FROM certified c WHERE c.kind = ?1 AND c.version = (SELECT max(version) FROM certified WHERE role = c.role AND kind = c.kind)",
                )?
                .query_map(params![CERTIFICATE_KIND, nanos(now.before(WEEK)), nanos(now)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?
                .collect::<rusqlite::Result<Vec<(String, String, i64, u32, Option<i64>)>>>()
        })?;
        let fleets = rows.into_iter().map(|(role, sealed, hosts, taken, first)| {
            let of = allowed(&sealed, natural(hosts));
            let back_at = first.map(|at| Timestamp::from_nanos(at).after(WEEK));
            let left = of.saturating_sub(taken);
            (role.clone(), FleetSpent { role, of, taken, left, back_at })
        });
        Ok(fleets.collect())
    }

    /// Tells whoever is on duty of roles that have nothing left, once for each time.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn tell_spent(
        &self,
        fleets: &BTreeMap<String, FleetSpent>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for spent in fleets.values().filter(|spent| spent.left == 0 && spent.taken > 0) {
            let Some(back_at) = spent.back_at else { continue };
            let notice = NewNotice {
                key: format!("{}:{}:{back_at}", NoticeKind::Governor.word(), spent.role),
                kind: NoticeKind::Governor,
                agent: None,
                group: Some(&spent.role),
                subject: spent.role.clone(),
                text: format!(
                    "the {} automatic cuts of behaviour that the hosts of role {} may have in a week are spent: what would be cut is held until {} UTC, and nothing is opened",
                    spent.of,
                    spent.role,
                    crate::clock::to_the_second(back_at)
                ),
            };
            self.notice(&notice, now)?;
        }
        Ok(())
    }
}

/// How many cuts a week may have: as the certificate promises for each host, rounded up.
fn allowed(sealed: &str, hosts: u64) -> u32 {
    let certificate = Sealed::parse(sealed)
        .ok()
        .and_then(|sealed| sealed.payload_bytes().ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| Certificate::parse(&text).ok());
    let promise = certificate.map_or(0.0, |certificate| {
        certificate.promise(Tier::CutDestination) + certificate.promise(Tier::IsolateHost)
    });
    let cuts = (promise.max(0.0) * hosts.max(1) as f64).ceil();
    (cuts as u32).min(MOST)
}
