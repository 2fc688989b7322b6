//! Baselines and certificates under seal.

use super::{SealError, Sealed, TrustAnchors, Verified};
use crate::baseline::{BASELINE_KIND, RoleBaseline};
use crate::certificate::{CERTIFICATE_KIND, Certificate};
use crate::time::Timestamp;

impl Sealed {
    /// Opens a baseline: signatures, threshold, and a version that did not fall.
    ///
    /// A baseline that has expired still counts: to forget what is normal would cut it.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold; the baseline in force stays.
    pub fn open_baseline(
        &self,
        anchors: &TrustAnchors,
        in_force: u64,
    ) -> Result<Verified<RoleBaseline>, SealError> {
        let read = |text: &str| RoleBaseline::parse(text).map_err(|error| error.to_string());
        self.open_learning(BASELINE_KIND, anchors, in_force, read, |baseline| baseline.version)
    }

    /// Opens a certificate: signatures, threshold, expiry, and a version that did not fall.
    ///
    /// # Errors
    /// The [`SealError`] that says what does not hold; without a certificate nothing is cut.
    pub fn open_certificate(
        &self,
        anchors: &TrustAnchors,
        now: Timestamp,
        in_force: u64,
    ) -> Result<Verified<Certificate>, SealError> {
        self.check_signatures(CERTIFICATE_KIND, anchors)?;
        if self.expires <= now {
            return Err(SealError::Expired(self.expires));
        }
        let read = |text: &str| Certificate::parse(text).map_err(|error| error.to_string());
        self.open_learning(CERTIFICATE_KIND, anchors, in_force, read, |certificate| {
            certificate.version
        })
    }

    fn open_learning<T>(
        &self,
        kind: &str,
        anchors: &TrustAnchors,
        in_force: u64,
        read: impl Fn(&str) -> Result<T, String>,
        version_of: impl Fn(&T) -> u64,
    ) -> Result<Verified<T>, SealError> {
        self.check_signatures(kind, anchors)?;
        // The very version in force opens again: that is what a restart does.
        if self.version < in_force {
            return Err(SealError::RolledBack { found: self.version, in_force });
        }
        let unreadable = |why: String| SealError::Payload { kind: kind.to_owned(), why };
        let bytes = self.payload_bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let document = read(text).map_err(unreadable)?;
        let version = version_of(&document);
        if version != self.version {
            return Err(unreadable(format!(
                "it says version {version}, its envelope {}",
                self.version
            )));
        }
        Ok(Verified::sealed(document))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SigningKey;
    use super::*;
    use crate::time::Span;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    fn sealed(version: u64, key: &SigningKey, change: &str) -> Sealed {
        let baseline = RoleBaseline { version: 4, ..RoleBaseline::empty("web", NOW) };
        let text = baseline.to_text().unwrap() + change;
        Sealed::wrap(BASELINE_KIND, version, NOW.after(Span::from_hours(1)), text.as_bytes())
            .signed_by(key)
    }

    #[test]
    fn a_baseline_opens_for_its_anchors_and_never_falls_behind() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let anchors = TrustAnchors::new([key.verifying_key()], 1);
        let good = sealed(4, &key, "");
        assert_eq!(good.open_baseline(&anchors, 4).unwrap().role, "web");
        assert!(matches!(good.open_baseline(&anchors, 5), Err(SealError::RolledBack { .. })));
        let stranger = sealed(4, &SigningKey::from_bytes(&[2; 32]), "");
        assert!(matches!(stranger.open_baseline(&anchors, 0), Err(SealError::Threshold { .. })));
        let other = sealed(5, &key, "");
        assert!(matches!(other.open_baseline(&anchors, 0), Err(SealError::Payload { .. })));
        assert!(matches!(good.open_certificate(&anchors, NOW, 0), Err(SealError::Kind { .. })));
    }
}
