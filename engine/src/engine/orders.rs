//! A person's word, through the same ledger; the automatic budget does not bind it, exemptions do.

use super::Engine;
use crate::contain::Cut;
use crate::judge::decide::withholding;
use sekisho_schema::event::{PolicyChange, Release};
use sekisho_schema::order::{Command, Order};
use sekisho_schema::{Body, ContainmentId, Measure, Reason, Scope, Span, Timestamp, Verified};

const LEASES: std::ops::RangeInclusive<Span> = Span::from_secs(1)..=Span::from_hours(24 * 30);

/// Why an order was not carried out; what is contained stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// The host can't hold a cut.
    #[error("cannot contain {scope}: this host can't hold a cut: {why}")]
    CannotEnforce {
        /// What was to be cut.
        scope: Scope,
        /// Why not.
        why: String,
    },
    /// The scope is exempt.
    #[error("cannot contain {scope}: it is covered by the exemption \"{exemption}\"")]
    Exempt {
        /// What was to be cut.
        scope: Scope,
        /// The exemption's name.
        exemption: String,
    },
    /// The ledger is full.
    #[error("cannot contain {scope}: the greatest number of containments is held already")]
    Full {
        /// What was to be cut.
        scope: Scope,
    },
    /// The destination is inside.
    #[error("cannot contain {scope}: it is not outside the perimeter")]
    Inside {
        /// What was to be cut.
        scope: Scope,
    },
    /// The lease is too short or too long.
    #[error("cannot contain {scope} for {lease}: a lease lasts from 1s to 30d")]
    Lease {
        /// What was to be cut.
        scope: Scope,
        /// The lease asked for.
        lease: Span,
    },
    /// The mode withholds every cut.
    #[error("cannot contain {scope}: the mode is {mode}, which withholds every cut")]
    Mode {
        /// What was to be cut.
        scope: Scope,
        /// The mode in force.
        mode: sekisho_schema::Mode,
    },
    /// The scope is not available in this version.
    #[error("cannot contain {scope}: this version cuts dest:ADDR, host and management-only")]
    Unsupported {
        /// What was to be cut.
        scope: Scope,
    },
    /// No such containment.
    #[error("cannot release {0}: no containment of that name is held")]
    Unknown(ContainmentId),
}

impl Engine {
    /// Carries out a person's order and names the containment that it is about.
    ///
    /// A release lets the kernel go in every mode; a new cut is made in enforce only.
    ///
    /// # Errors
    /// [`OrderRefused`] with the reason; it is on record too.
    pub fn handle_order(
        &mut self,
        order: Verified<Order>,
        at: Timestamp,
    ) -> Result<ContainmentId, OrderRefused> {
        self.handle_timeout(at);
        let Order { what, by, reason } = order.into_inner();
        let answer = match what {
            Command::Contain { scope, lease, measure } => {
                self.order_cut(scope, lease, measure, &by, &reason, at)
            }
            Command::Confirm { containment } => Err(OrderRefused::Unknown(containment)),
            Command::Release { containment, break_glass } => {
                self.order_release(containment, break_glass, &by, &reason, at)
            }
        };
        if let Err(refused) = &answer {
            let change = PolicyChange {
                version: self.policy.version,
                outcome: "order-refused".to_owned(),
                why: Some(format!("order of {by}: {refused}")),
                in_force: self.policy.version,
            };
            self.record(at, Body::Policy(change));
        }
        answer
    }

    fn order_cut(
        &mut self,
        scope: Scope,
        lease: Span,
        measure: Measure,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<ContainmentId, OrderRefused> {
        self.check_cut(&scope, lease)?;
        let now = self.now;
        let same = self.ledger.same(&scope);
        let containment = match same {
            // A repeated order prolongs and never shortens.
            Some(id) => match self.ledger.prolong(&id, now.after(lease)) {
                Some(prolonged) => prolonged,
                None => return Ok(id),
            },
            None if !self.ledger.has_room() => return Err(OrderRefused::Full { scope }),
            None => {
                self.tally.contained += 1;
                self.ledger.begin(Cut {
                    scope,
                    since: now,
                    lease,
                    cause: reason.to_owned(),
                    finding: None,
                    by: Some(by.to_owned()),
                    measure,
                })
            }
        };
        let id = containment.id.clone();
        self.order_set(None, None);
        self.record(at, Body::Containment(Box::new(containment)));
        Ok(id)
    }

    fn check_cut(&self, scope: &Scope, lease: Span) -> Result<(), OrderRefused> {
        let scope = scope.clone();
        if matches!(
            scope,
            Scope::Cgroup(_) | Scope::Container(_) | Scope::Internal(_) | Scope::Link(_)
        ) {
            return Err(OrderRefused::Unsupported { scope });
        }
        if !LEASES.contains(&lease) {
            return Err(OrderRefused::Lease { scope, lease });
        }
        if let Some(exemption) = self.exemptions.forbidding(&scope) {
            return Err(OrderRefused::Exempt { exemption: exemption.to_owned(), scope });
        }
        if let Scope::Destination(address) = scope
            && (self.perimeter.is_inside(address) || address.is_multicast())
        {
            return Err(OrderRefused::Inside { scope });
        }
        let enforcement = self.enforcement.as_ref().copied().map_err(String::as_str);
        match (withholding(self.policy.mode, enforcement), enforcement) {
            (Some(Reason::CannotEnforce), Err(why)) => {
                Err(OrderRefused::CannotEnforce { scope, why: why.to_owned() })
            }
            (Some(_), _) => Err(OrderRefused::Mode { scope, mode: self.policy.mode }),
            (None, _) => Ok(()),
        }
    }

    fn order_release(
        &mut self,
        id: ContainmentId,
        break_glass: bool,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<ContainmentId, OrderRefused> {
        let Some(released) = self.ledger.release(&id) else {
            return Err(OrderRefused::Unknown(id));
        };
        self.leaks.forget(&id);
        let release = Release {
            containment: released.id,
            scope: released.scope,
            cause: if break_glass { "break-glass" } else { "order" }.to_owned(),
            by: Some(by.to_owned()),
            reason: Some(reason.to_owned()),
        };
        self.record(at, Body::Release(release));
        self.order_set(None, None);
        Ok(id)
    }
}
