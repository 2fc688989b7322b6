use super::*;
use crate::baseline::write_sealed;
use sekisho_schema::Span;
use sekisho_schema::baseline::{BASELINE_KIND, RoleBaseline};
use sekisho_schema::certificate::{CERTIFICATE_KIND, CERTIFICATE_SCHEMA};
use sekisho_schema::sealed::{SigningKey, key_pair};

const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

/// A state directory, an anchor, and the documents of role web.
struct House {
    dir: tempfile::TempDir,
    documents: Documents,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state, trust) = (dir.path().join("state"), dir.path().join("trust"));
        fs::create_dir(&state).unwrap();
        fs::create_dir(&trust).unwrap();
        fs::write(trust.join("a.pub"), key_pair(&[1; 32]).1).unwrap();
        let documents = Documents::new(state, trust, "web".to_owned());
        Self { dir, documents }
    }

    fn certificate(&self, version: u64, role: &str, seed: u8) {
        let certificate = Certificate {
            schema: CERTIFICATE_SCHEMA.to_owned(),
            version,
            role: role.to_owned(),
            made_at: NOW,
            from: NOW,
            until: NOW,
            hosts: 1,
            host_weeks: 1.0,
            episodes: 0,
            clusters: 0,
            undecided: 0,
            confidence: 0.95,
            agent: "0.1.0".to_owned(),
            baseline: 0,
            grant: Vec::new(),
            tails: None,
        };
        self.seal(
            CERTIFICATE_FILE,
            CERTIFICATE_KIND,
            version,
            &certificate.to_text().unwrap(),
            seed,
        );
    }

    fn seal(&self, file: &str, kind: &str, version: u64, text: &str, seed: u8) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let path = self.dir.path().join("state").join(file);
        write_sealed(&path, (kind, version), text, &key, NOW.after(Span::from_hours(1))).unwrap();
    }

    fn look(&mut self, hours: i64) -> Vec<&'static str> {
        let news = self.documents.look(NOW.after(Span::from_hours(hours)));
        news.into_iter().map(|news| news.outcome).collect()
    }
}

#[test]
fn a_certificate_comes_into_force_once_and_what_does_not_hold_leaves_it_there() {
    let mut house = House::new();
    assert!(house.look(0).is_empty());
    house.certificate(3, "web", 1);
    assert_eq!(house.look(0), ["certificate-adopted"]);
    assert!(house.look(0).is_empty(), "nothing changed");
    for (version, role, seed) in [(2, "web", 1), (4, "web", 2), (4, "db", 1)] {
        house.certificate(version, role, seed);
        assert_eq!(house.look(0), ["certificate-refused"], "{version} {role} {seed}");
        assert_eq!(house.documents.status().certificate, Some(3));
    }
    let path = house.dir.path().join("state").join(CERTIFICATE_FILE);
    house.certificate(5, "web", 1);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("A", "B", 1)).unwrap();
    assert_eq!(house.look(0), ["certificate-refused"], "tampered with");
    assert!(
        house.documents.status().refused.as_ref().unwrap().contains("version 3 stays in force")
    );
    fs::write(&path, whole).unwrap();
    assert_eq!(house.look(0), ["certificate-adopted"]);
    assert_eq!(house.documents.status().refused, None);
}

#[test]
fn a_certificate_ends_with_its_seal_its_file_or_the_role_of_the_host() {
    let mut house = House::new();
    house.certificate(1, "web", 1);
    assert_eq!(house.look(0), ["certificate-adopted"]);
    assert_eq!(house.look(1), ["certificate-withdrawn"]);
    assert!(house.look(1).is_empty());
    house.documents.look_again();
    assert_eq!(house.look(1), ["certificate-refused"], "an expired one does not come back");
    house.certificate(2, "web", 1);
    assert_eq!(house.look(0), ["certificate-adopted"]);
    fs::remove_file(house.dir.path().join("state").join(CERTIFICATE_FILE)).unwrap();
    assert_eq!(house.look(0), ["certificate-withdrawn"]);
    house.certificate(2, "web", 1);
    assert_eq!(house.look(0), ["certificate-adopted"]);
    let news = house.documents.become_of("db".to_owned());
    assert_eq!(news.len(), 1);
    assert_eq!(house.look(0), ["certificate-refused"]);
}

#[test]
fn a_baseline_in_plain_text_is_not_believed() {
    let mut house = House::new();
    let text = RoleBaseline::empty("web", NOW).to_text().unwrap();
    fs::write(house.dir.path().join("state").join(BASELINE_FILE), &text).unwrap();
    assert_eq!(house.look(0), ["baseline-refused"]);
    house.seal(BASELINE_FILE, BASELINE_KIND, 0, &text, 1);
    assert_eq!(house.look(0), ["baseline-adopted"]);
    assert_eq!(house.documents.status().baseline, Some(0));
}
