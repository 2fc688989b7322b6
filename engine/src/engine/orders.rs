//! A person's word, through the same ledger; the automatic budget does not bind it, exemptions do. Opening is
//! guarded like cutting: what holds a whole host ends before its time by a sealed order or a broken glass alone.

use super::Engine;
use crate::contain::Cut;
use crate::judge::HOST;
use crate::judge::decide::withholding;
use sekisho_schema::event::{PolicyChange, Release};
use sekisho_schema::order::{Command, Order};
use sekisho_schema::{Body, ContainmentId, Measure, Reason, Scope, Span, Timestamp, Verified};
use std::net::IpAddr;

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
    /// Opening a host, or taking a link down, needs more than root on the host.
    #[error("cannot {what} without a sealed order or --break-glass")]
    Guarded {
        /// What was to be done, as a verb and its object.
        what: String,
    },
    /// The ledger is full.
    #[error("cannot contain {scope}: the greatest number of containments is held already")]
    Full {
        /// What was to be cut.
        scope: Scope,
    },
    /// The scope can't be held so.
    #[error(
        "cannot contain {scope}: it can't be {measure}; only a destination is less than cut, and only a workload is frozen"
    )]
    Measure {
        /// What was to be held.
        scope: Scope,
        /// How.
        measure: Measure,
    },
    /// The scope names nothing that an inside host could be.
    #[error("cannot contain {scope}: {why}")]
    NoSuchHost {
        /// What was to be cut.
        scope: Scope,
        /// Why it is none.
        why: &'static str,
    },
    /// A stronger hold is in force; less would be opening.
    #[error(
        "cannot contain {scope} less than it is: {held} cuts it more strongly; release that first"
    )]
    Stronger {
        /// What was to be held.
        scope: Scope,
        /// What holds it.
        held: ContainmentId,
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
    /// No such containment.
    #[error("no containment named {0} is held")]
    Unknown(ContainmentId),
}

impl OrderRefused {
    /// What helps, in one line for people.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::CannotEnforce { .. } => "run `sekisho doctor`: it says what this host lacks",
            Self::Exempt { .. } => {
                "the policy's exemptions, the collector and the agent are never cut: choose a narrower scope, or change the policy"
            }
            Self::Full { .. } => "release what is no longer needed: `sekisho status` lists it",
            Self::Guarded { .. } => {
                "have the operators seal the order at the collector, or add --break-glass: it is on record either way"
            }
            Self::Inside { .. } => {
                "an inside host is cut by internal:ADDR on its gateway, or by its own agent"
            }
            Self::Lease { .. } => {
                "choose a lease of 1s to 30d; it can be prolonged by the same order"
            }
            Self::Measure { .. } => {
                "throttle, quota and observe are for dest:ADDR, freeze is for cgroup:PATH and container:ID"
            }
            Self::Mode { .. } => "only a policy in mode enforce lets anybody cut",
            Self::NoSuchHost { .. } => {
                "internal: takes an address inside the perimeter, or a MAC such as 02:00:00:00:00:01"
            }
            Self::Stronger { .. } | Self::Unknown(_) => {
                "`sekisho status` shows what is held, and by which name"
            }
        }
    }
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
        let is_sealed = order.is_sealed();
        let Order { what, by, reason } = order.into_inner();
        let person = Person { by: &by, reason: &reason, at };
        let answer = match what {
            Command::Contain { scope, lease, measure, break_glass } => {
                let asked = Asked { scope, lease, measure };
                self.order_cut(asked, is_sealed || break_glass, &person)
            }
            Command::Confirm { containment } => self.order_confirm(containment, &person),
            Command::Release { containment, break_glass } => {
                self.order_release(containment, is_sealed, break_glass, &person)
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
        asked: Asked,
        is_guard_met: bool,
        person: &Person<'_>,
    ) -> Result<ContainmentId, OrderRefused> {
        self.check_cut(&asked, is_guard_met)?;
        let Asked { scope, lease, measure } = asked;
        let now = self.now;
        if let Some(stronger) = self.ledger.stronger(&scope, measure) {
            return Err(OrderRefused::Stronger { held: stronger.id.clone(), scope });
        }
        let containment = match self.ledger.same(&scope, measure) {
            // A repeated order prolongs and never shortens.
            Some(id) => match self.ledger.prolong(&id, now.after(lease)) {
                Some(prolonged) => prolonged,
                None => return Ok(id),
            },
            None if !self.ledger.has_room() => return Err(OrderRefused::Full { scope }),
            None => {
                self.tally.contained += 1;
                let trial = self.trial_of(&scope);
                let begun = self.ledger.begin(Cut {
                    scope,
                    since: now,
                    lease,
                    cause: person.reason.to_owned(),
                    finding: None,
                    by: Some(person.by.to_owned()),
                    measure,
                    trial,
                });
                self.actors.adopt(&begun);
                begun
            }
        };
        let id = containment.id.clone();
        self.announce(containment, None, None, person.at);
        Ok(id)
    }

    fn check_cut(&self, asked: &Asked, is_guard_met: bool) -> Result<(), OrderRefused> {
        let (scope, lease) = (asked.scope.clone(), asked.lease);
        if !scope.takes(asked.measure) {
            return Err(OrderRefused::Measure { scope, measure: asked.measure });
        }
        if !LEASES.contains(&lease) {
            return Err(OrderRefused::Lease { scope, lease });
        }
        if matches!(scope, Scope::Link(_)) && !is_guard_met {
            // Nobody can take it back over the network that it takes away.
            return Err(OrderRefused::Guarded { what: format!("take {scope} down") });
        }
        if let Some(exemption) = self.exemptions.forbidding(&scope) {
            return Err(OrderRefused::Exempt { exemption: exemption.to_owned(), scope });
        }
        if let Scope::Destination(address) = scope
            && (self.perimeter.is_inside(address) || address.is_multicast())
        {
            return Err(OrderRefused::Inside { scope });
        }
        if let Scope::Internal(host) = &scope
            && let Some(why) = self.no_inside_host(host)
        {
            return Err(OrderRefused::NoSuchHost { scope, why });
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

    /// Why a text names no inside host that this host could be the gateway of.
    fn no_inside_host(&self, host: &str) -> Option<&'static str> {
        match host.parse::<IpAddr>() {
            Ok(address) if self.own.contains(&address.to_canonical()) => {
                Some("that is this host: cut host instead")
            }
            Ok(address) if !self.perimeter.is_inside(address) || address.is_multicast() => {
                Some("that address is no host inside the perimeter")
            }
            Ok(address) if address.is_loopback() || address.is_unspecified() => {
                Some("that address is of no other host")
            }
            Ok(_) => None,
            Err(_) if is_mac(host) => None,
            Err(_) => Some("that is neither an address nor a MAC"),
        }
    }

    /// A trial shall hold for its lease. What is on no trial holds already.
    fn order_confirm(
        &mut self,
        id: ContainmentId,
        person: &Person<'_>,
    ) -> Result<ContainmentId, OrderRefused> {
        let Some(held) = self.ledger.held(&id) else { return Err(OrderRefused::Unknown(id)) };
        if held.trial_until.is_none() {
            return Ok(id);
        }
        let version = self.policy.version;
        let change = PolicyChange {
            version,
            outcome: "order-confirmed".to_owned(),
            why: Some(format!(
                "{id} holds for its lease by the word of {}: {}",
                person.by, person.reason
            )),
            in_force: version,
        };
        self.record(person.at, Body::Policy(change));
        self.confirm(&id, person.at);
        Ok(id)
    }

    fn order_release(
        &mut self,
        id: ContainmentId,
        is_sealed: bool,
        break_glass: bool,
        person: &Person<'_>,
    ) -> Result<ContainmentId, OrderRefused> {
        let Some(held) = self.ledger.held(&id) else { return Err(OrderRefused::Unknown(id)) };
        if held.level >= HOST && !is_sealed && !break_glass {
            let what = format!("release {id}, which holds {}", held.scope);
            return Err(OrderRefused::Guarded { what });
        }
        let Some(released) = self.ledger.release(&id) else {
            return Err(OrderRefused::Unknown(id));
        };
        self.forget(&id);
        let release = Release {
            containment: released.id,
            scope: released.scope,
            cause: if break_glass { "break-glass" } else { "order" }.to_owned(),
            by: Some(person.by.to_owned()),
            reason: Some(person.reason.to_owned()),
        };
        self.record(person.at, Body::Release(release));
        self.order_set(None, None);
        Ok(id)
    }
}

/// Who orders, why and when.
struct Person<'a> {
    by: &'a str,
    reason: &'a str,
    at: Timestamp,
}

/// What is to be cut.
struct Asked {
    scope: Scope,
    lease: Span,
    measure: Measure,
}

/// Whether a text is a hardware address as `ip link` writes it.
fn is_mac(text: &str) -> bool {
    let is_octet =
        |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(is_octet)
}
