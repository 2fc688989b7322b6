//! Learning at the centre. What enters: what hosts of a role learned, what people decided, sealed documents. What
//! leaves: the next baseline, a certificate, the dry-run report; and what is passed on to hosts. It holds no key: a
//! baseline or certificate counts only with the seal of an anchor, which hosts check again.

use crate::dir::{Dir, DirError};
use crate::policy::threshold;
use crate::store::{PageRuling, Store, StoreError, Word};
use sekisho_engine::certify::cluster::{Prevalence, is_of_the_host};
use sekisho_engine::certify::report::{DryRun, dry_run};
use sekisho_engine::certify::review::{self, Item, Signer};
use sekisho_engine::certify::threshold::{Terms, certify};
use sekisho_schema::baseline::{BASELINE_KIND, Learned, Pool, PoolError, RoleBaseline};
use sekisho_schema::calendar::Calendar;
use sekisho_schema::certificate::{Budgets, CERTIFICATE_KIND, Certificate};
use sekisho_schema::episode::{Channel, EpisodeKey};
use sekisho_schema::sealed::SealError;
use sekisho_schema::{Sealed, Timestamp};
use std::collections::BTreeSet;

/// Why a role can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    /// What hosts sent can't be pooled.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in force can't be read.
    #[error("the {kind} in force of role \"{role}\" cannot be read: {why}")]
    Unreadable {
        /// `baseline` or `certificate`.
        kind: &'static str,
        /// The role.
        role: String,
        /// What is wrong.
        why: String,
    },
}

/// Everything about a role that a person decides on.
#[derive(Debug)]
pub struct Role {
    /// What its hosts learned, each record by itself.
    pub records: Vec<Learned>,
    /// The same, put together.
    pub pool: Pool,
    /// The baseline in force; an empty one of version 0 where there is none.
    pub baseline: RoleBaseline,
    /// The certificate in force.
    pub certificate: Option<Certificate>,
    /// What people decided on the page, the last word on each item.
    pub rulings: Vec<PageRuling>,
}

/// The dry run of a role, and how far it is one.
#[derive(Debug)]
pub struct Rehearsed {
    /// The report.
    pub report: DryRun,
    /// The certificate that it was made with.
    pub certificate: Certificate,
    /// Whether that is one made now, because none is in force.
    pub provisional: bool,
}

impl Role {
    /// Reads a role from the store.
    ///
    /// # Errors
    /// [`LearningError`]; [`PoolError::Empty`] where no host of the role sent anything.
    pub fn read(store: &Store, role: &str, now: Timestamp) -> Result<Self, LearningError> {
        let records = store.learned(role)?;
        let pool = Pool::of(role, &records)?;
        let baseline = in_force(store, role, BASELINE_KIND, |text| {
            RoleBaseline::parse(text).map_err(|error| error.to_string())
        })?;
        let certificate = in_force(store, role, CERTIFICATE_KIND, |text| {
            Certificate::parse(text).map_err(|error| error.to_string())
        })?;
        let baseline = baseline.unwrap_or_else(|| RoleBaseline::empty(role, now));
        Ok(Self { records, pool, baseline, certificate, rulings: store.rulings(role)? })
    }

    /// What nobody has decided: neither in the baseline in force nor on the page.
    #[must_use]
    pub fn undecided(&self) -> Vec<Item> {
        review::list(&self.pool, &self.ruled())
    }

    /// Whether the baseline in force says what a ruling says.
    fn is_sealed(&self, ruling: &PageRuling) -> bool {
        match ruling.word {
            Word::Approve => self
                .baseline
                .entry
                .iter()
                .any(|entry| entry.signed_by.is_some() && entry.key() == ruling.key),
            Word::KeepHeld => self.baseline.refused.iter().any(|entry| entry.key() == ruling.key),
        }
    }

    /// How many rulings wait for the next baseline.
    #[must_use]
    pub fn unsealed(&self) -> usize {
        self.rulings.iter().filter(|ruling| !self.is_sealed(ruling)).count()
    }

    /// An item that may be decided, by its name: of the review list, or of what would have been acted on.
    #[must_use]
    pub fn item(&self, id: &str) -> Option<Item> {
        let keys: BTreeSet<&EpisodeKey> =
            self.pool.episodes.iter().map(|(_, episode)| &episode.key).collect();
        let key = keys.into_iter().find(|key| review::id_of(key) == id)?;
        self.item_of(key, &Prevalence::of(&self.pool))
    }

    /// The item of a key; `None` where it is of a host, of what is normal already, or of nobody.
    fn item_of(&self, key: &EpisodeKey, prevalence: &Prevalence) -> Option<Item> {
        let mut found: Option<Item> = None;
        for (_, episode) in self.pool.episodes.iter().filter(|(_, episode)| episode.key == *key) {
            if is_of_the_host(episode) || episode.score(Channel::Approved).is_some() {
                return None;
            }
            let common = (key.destination.clone(), key.service);
            let item = found.get_or_insert_with(|| Item {
                id: review::id_of(key),
                key: key.clone(),
                hosts: prevalence.names(&common),
                first_at: episode.first_at,
                last_at: episode.last_at,
                net: 0,
                up: 0,
                why: review::reasons(episode),
                sentence: String::new(),
            });
            item.first_at = item.first_at.min(episode.first_at);
            item.last_at = item.last_at.max(episode.last_at);
            item.net = item.net.max(episode.net);
            item.up = item.up.max(episode.up);
        }
        found
    }

    /// The baseline in force with the page's rulings in it, of the same version.
    fn ruled(&self) -> RoleBaseline {
        let mut baseline = self.baseline.clone();
        let prevalence = Prevalence::of(&self.pool);
        for ruling in self.rulings.iter().filter(|ruling| !self.is_sealed(ruling)) {
            // What its hosts do no more is nothing to decide any more.
            let Some(item) = self.item_of(&ruling.key, &prevalence) else { continue };
            let signer = Signer { by: &ruling.by, at: ruling.at, reason: &ruling.reason };
            baseline = match ruling.word {
                Word::Approve => review::approve(&baseline, &[item], &signer),
                Word::KeepHeld => review::refuse(&baseline, &[item], &signer),
            };
        }
        RoleBaseline { version: self.baseline.version, ..baseline }
    }

    /// The next baseline: the one in force, what people decided on the page, and what nobody needs to sign.
    #[must_use]
    pub fn draft(&self, now: Timestamp) -> RoleBaseline {
        review::draft(&self.pool, &self.ruled(), now)
    }

    /// The next certificate, against a baseline.
    #[must_use]
    pub fn certify(
        &self,
        baseline: &RoleBaseline,
        budgets: &Budgets,
        confidence: f64,
        now: Timestamp,
    ) -> Certificate {
        let agents: BTreeSet<&str> =
            self.records.iter().map(|record| record.agent.as_str()).collect();
        let terms = Terms {
            budgets,
            confidence,
            version: self.certificate.as_ref().map_or(0, |before| before.version) + 1,
            at: now,
            agent: &agents.into_iter().collect::<Vec<_>>().join(", "),
        };
        certify(&self.pool, baseline, &terms)
    }

    /// The dry run under the certificate in force, else under one that is made now.
    ///
    /// What is locked only because items are undecided is shown as if they were decided: people shall see what
    /// their word would unlock.
    #[must_use]
    pub fn rehearse(&self, calendar: &Calendar, now: Timestamp) -> Rehearsed {
        let ruled = self.ruled();
        let provisional = self.certificate.is_none();
        let mut certificate = self.certificate.clone().unwrap_or_else(|| {
            self.certify(
                &ruled,
                &Budgets::default(),
                sekisho_engine::certify::threshold::CONFIDENCE,
                now,
            )
        });
        certificate.undecided = 0;
        let report = dry_run(&self.pool, &ruled, &certificate, calendar);
        Rehearsed { report, certificate, provisional }
    }
}

fn in_force<T>(
    store: &Store,
    role: &str,
    kind: &'static str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, LearningError> {
    let Some(stored) = store.certified(role, kind)? else { return Ok(None) };
    let text = Sealed::parse(&stored.sealed)
        .and_then(|sealed| sealed.payload_bytes())
        .map_err(|error| error.to_string())
        .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
    text.and_then(|text| read(&text)).map(Some).map_err(|why| LearningError::Unreadable {
        kind,
        role: role.to_owned(),
        why,
    })
}

/// Why a sealed document is not passed on.
#[derive(Debug, thiserror::Error)]
pub enum PushLearningError {
    /// The trust anchors can't be read.
    #[error(transparent)]
    Anchors(#[from] DirError),
    /// Something else is sealed.
    #[error("it is a sealed {0}, not a baseline or a certificate")]
    Kind(String),
    /// Nobody is trusted to seal yet.
    #[error("no trust anchor is known, so no seal can be believed")]
    NoAnchors,
    /// The seal does not hold.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A document that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `baseline` or `certificate`.
    pub kind: &'static str,
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
}

/// Checks a sealed baseline or certificate and stores it as the one in force of its role; running servers notice by
/// themselves.
///
/// # Errors
/// Why it is refused; what was in force stays.
pub fn push(
    dir: &Dir,
    store: &Store,
    text: &str,
    now: Timestamp,
) -> Result<Pushed, PushLearningError> {
    let sealed = Sealed::parse(text)?;
    let anchors = dir.anchors(threshold(store)?)?;
    if anchors.is_empty() {
        return Err(PushLearningError::NoAnchors);
    }
    let (kind, role) = match sealed.kind.as_str() {
        BASELINE_KIND => (BASELINE_KIND, sealed.open_baseline(&anchors, 0)?.into_inner().role),
        CERTIFICATE_KIND => {
            (CERTIFICATE_KIND, sealed.open_certificate(&anchors, now, 0)?.into_inner().role)
        }
        other => return Err(PushLearningError::Kind(other.to_owned())),
    };
    if store.keep_certified(&role, &sealed, now)? {
        return Ok(Pushed { kind, role, version: sealed.version });
    }
    let in_force = store.certified(&role, kind)?.map_or(0, |stored| stored.version);
    Err(SealError::RolledBack { found: sealed.version, in_force }.into())
}
