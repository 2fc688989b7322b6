//! Orders from the centre: sealed by operators, for one host, for a quarter of an hour, once.

use super::{BASE64, SealError, Sealed, Signature, Verified, VerifyingKey, key_id};
use crate::containment::ContainmentId;
use crate::order::{Command, Dispatch, Order};
use crate::time::{Span, Timestamp};
use base64::Engine as _;
use std::collections::{BTreeMap, BTreeSet};

/// The longest that an order may be fresh (control-plane.md, section 6).
pub const FRESH_FOR: Span = Span::from_secs(15 * 60);
/// From this level of the ladder on, an order needs two operators.
pub const HOST_LEVEL: u8 = 5;
/// Clocks of host and centre may differ by this much.
const SKEW: Span = Span::from_secs(120);
/// Kind of an order's envelope.
const KIND: &str = "order";

/// The people whose orders count, by their keys. One person may have several keys and counts once.
#[derive(Clone, Debug, Default)]
pub struct Operators {
    keys: BTreeMap<String, (String, VerifyingKey)>,
}

/// An order that may be believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    dispatch: Dispatch,
    signers: BTreeSet<String>,
}

impl Operators {
    /// Operators by name and key; a key that stands under two names counts for the first.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, VerifyingKey)>) -> Self {
        let mut operators = Self::default();
        for (name, key) in keys {
            operators.keys.entry(key_id(&key)).or_insert((name, key));
        }
        operators
    }

    /// Whether nobody can give an order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Command {
    /// How many operators must have sealed this, when what it releases is of a level.
    ///
    /// A cut of level 5 and above, and the end of one, take two; what is not known is taken for such.
    /// To confirm takes one: the cut is made already, and its trial lasts two minutes.
    #[must_use]
    pub fn operators_needed(&self, level_of: impl Fn(&ContainmentId) -> Option<u8>) -> usize {
        let level = match self {
            Self::Contain { scope, measure, .. } => scope.level_of(*measure),
            Self::Confirm { .. } => 0,
            Self::Release { containment, .. } => level_of(containment).unwrap_or(HOST_LEVEL),
        };
        if level >= HOST_LEVEL { 2 } else { 1 }
    }
}

impl Sealed {
    /// Puts an order into an envelope, without a signature yet.
    #[must_use]
    pub fn wrap_order(dispatch: &Dispatch, expires: Timestamp) -> Self {
        // A dispatch is plain data: it can always be written.
        let text = serde_json::to_string(dispatch).unwrap_or_default();
        Self::wrap(KIND, 1, expires, text.as_bytes())
    }

    /// The order inside, not yet to be believed.
    ///
    /// # Errors
    /// When it is no order.
    pub fn read_order(&self) -> Result<Dispatch, SealError> {
        if self.kind != KIND {
            return Err(SealError::Kind { found: self.kind.clone(), expected: KIND.to_owned() });
        }
        serde_json::from_slice(&self.payload_bytes()?)
            .map_err(|error| SealError::Payload { kind: KIND.to_owned(), why: error.to_string() })
    }

    /// Opens an order: kind, host, freshness, signatures of as many operators as its level needs.
    ///
    /// `level_of` tells the level of a containment that is held. Whether the order was seen before is the caller's
    /// to know.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold; nothing is to be carried out.
    pub fn open_order(
        &self,
        operators: &Operators,
        host: &str,
        now: Timestamp,
        level_of: impl Fn(&ContainmentId) -> Option<u8>,
    ) -> Result<Opened, SealError> {
        if self.signatures.is_empty() {
            return Err(SealError::Unsigned);
        }
        let dispatch = self.read_order()?;
        let signers = self.operators_of(operators)?;
        let needed = dispatch.order.what.operators_needed(level_of);
        if signers.len() < needed {
            return Err(SealError::Threshold {
                good: signers.len(),
                threshold: needed,
                signers: self.signatures.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        }
        if dispatch.host != host {
            return Err(SealError::OtherHost { found: dispatch.host });
        }
        if self.expires <= now {
            return Err(SealError::Expired(self.expires));
        }
        if self.expires > now.after(FRESH_FOR).after(SKEW) {
            return Err(SealError::TooLongFresh(self.expires));
        }
        Ok(Opened { dispatch, signers })
    }

    /// The names of the operators whose signatures fit.
    ///
    /// # Errors
    /// When the signature of one of them does not.
    pub fn operators_of(&self, operators: &Operators) -> Result<BTreeSet<String>, SealError> {
        let bytes = self.signed_bytes();
        let mut names = BTreeSet::new();
        for (id, text) in &self.signatures {
            let Some((name, key)) = operators.keys.get(id) else { continue };
            let signature =
                BASE64.decode(text).ok().and_then(|raw| Signature::from_slice(&raw).ok());
            match signature {
                Some(signature) if key.verify_strict(&bytes, &signature).is_ok() => {
                    names.insert(name.clone());
                }
                _ => return Err(SealError::Tampered(id.clone())),
            }
        }
        Ok(names)
    }
}

impl Opened {
    /// What was sealed.
    #[must_use]
    pub const fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// The order, in the name of those who sealed it, whatever name it carried.
    #[must_use]
    pub fn into_order(self) -> Verified<Order> {
        let by = self.signers.into_iter().collect::<Vec<_>>().join(" and ");
        Verified::sealed(Order { by, ..self.dispatch.order })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SigningKey, TrustAnchors};
    use super::*;
    use crate::containment::{Measure, Scope};

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn operators() -> Operators {
        let public = |seed| key(seed).verifying_key();
        Operators::new([
            ("aiko".to_owned(), public(1)),
            ("aiko".to_owned(), public(2)),
            ("ben".to_owned(), public(3)),
        ])
    }

    fn contain(scope: &str) -> Command {
        Command::Contain {
            scope: scope.parse::<Scope>().unwrap(),
            lease: Span::from_hours(1),
            measure: Measure::Cut,
            break_glass: false,
        }
    }

    fn release(id: &str) -> Command {
        Command::Release { containment: ContainmentId(id.to_owned()), break_glass: false }
    }

    fn sealed(what: Command, expires: Timestamp, seeds: &[u8]) -> Sealed {
        let order = Order { what, by: "somebody".to_owned(), reason: "test".to_owned() };
        let dispatch =
            Dispatch { host: "web-1".to_owned(), order, nonce: "00".to_owned(), at: NOW };
        let sealed = Sealed::wrap_order(&dispatch, expires);
        seeds.iter().fold(sealed, |sealed, seed| sealed.signed_by(&key(*seed)))
    }

    fn level_of(id: &ContainmentId) -> Option<u8> {
        match id.0.as_str() {
            "c-dest" => Some(3),
            "c-host" => Some(5),
            _ => None,
        }
    }

    fn open(sealed: &Sealed) -> Result<String, &'static str> {
        sealed
            .open_order(&operators(), "web-1", NOW, level_of)
            .map(|opened| opened.into_order().into_inner().by)
            .map_err(|error| error.reason())
    }

    #[test]
    fn a_cut_of_a_host_and_its_end_need_two_operators_and_one_persons_two_keys_are_one() {
        let soon = NOW.after(Span::from_secs(60));
        for (what, alone, with_own, with_other) in [
            (contain("dest:203.0.113.9"), Ok("aiko"), Ok("aiko"), Ok("aiko and ben")),
            (contain("host"), Err("threshold"), Err("threshold"), Ok("aiko and ben")),
            (contain("management-only"), Err("threshold"), Err("threshold"), Ok("aiko and ben")),
            (contain("link:eth0"), Err("threshold"), Err("threshold"), Ok("aiko and ben")),
            (release("c-dest"), Ok("aiko"), Ok("aiko"), Ok("aiko and ben")),
            (release("c-host"), Err("threshold"), Err("threshold"), Ok("aiko and ben")),
            (release("c-none"), Err("threshold"), Err("threshold"), Ok("aiko and ben")),
        ] {
            for (seeds, expected) in [(&[1][..], alone), (&[1, 2], with_own), (&[1, 3], with_other)]
            {
                let opened = open(&sealed(what.clone(), soon, seeds));
                assert_eq!(opened.as_deref(), expected.as_ref().copied(), "{what:?} {seeds:?}");
            }
        }
        // A stranger's signature beside one that counts neither helps nor harms.
        assert_eq!(open(&sealed(contain("host"), soon, &[1, 9])), Err("threshold"));
        assert_eq!(open(&sealed(contain("dest:203.0.113.9"), soon, &[1, 9])).unwrap(), "aiko");
    }

    #[test]
    fn an_order_that_is_changed_old_for_another_host_or_of_another_kind_is_refused() {
        let soon = NOW.after(Span::from_secs(60));
        let good = sealed(contain("dest:203.0.113.9"), soon, &[1]);
        assert!(open(&good).is_ok());
        let mut changed = good.clone();
        changed.payload = sealed(contain("dest:203.0.113.10"), soon, &[1]).payload;
        assert_eq!(open(&changed), Err("tampered"));
        let longer = Sealed { expires: soon.after(Span::from_secs(1)), ..good.clone() };
        assert_eq!(open(&longer), Err("tampered"));
        assert_eq!(open(&Sealed { kind: "policy".into(), ..good.clone() }), Err("malformed"));
        assert_eq!(open(&sealed(contain("dest:203.0.113.9"), soon, &[])), Err("unsigned"));
        assert_eq!(open(&sealed(contain("dest:203.0.113.9"), NOW, &[1])), Err("expired"));
        let year = NOW.after(Span::from_hours(1));
        assert_eq!(open(&sealed(contain("dest:203.0.113.9"), year, &[1])), Err("expired"));
        let elsewhere = good.open_order(&operators(), "web-2", NOW, level_of).unwrap_err();
        assert_eq!(elsewhere.reason(), "other-host");
        // Who may seal policies may not order, and the other way round.
        assert!(good.check_signatures("policy", &TrustAnchors::new([], 1)).is_err());
        assert_eq!(
            good.open_order(&Operators::default(), "web-1", NOW, level_of).unwrap_err().reason(),
            "threshold"
        );
    }
}
