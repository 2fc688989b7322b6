use super::*;
use crate::baseline::write_sealed;
use sekisho_schema::Span;
use sekisho_schema::baseline::{Episode, LEARNED_SCHEMA};
use sekisho_schema::episode::EpisodeKey;
use sekisho_schema::sealed::{SigningKey, key_pair};
use std::collections::BTreeSet;

const START: Timestamp = Timestamp::from_nanos(1_779_667_200_000_000_000);

fn episode(n: usize, up: u64) -> Episode {
    Episode {
        key: EpisodeKey {
            workload: "unit:web.service".parse().unwrap(),
            destination: format!("n{n}.example").parse().unwrap(),
            service: "tcp/443".parse().unwrap(),
        },
        first_at: START,
        last_at: START.after(Span::from_hours(1)),
        contacts: 1,
        days: 1,
        hours: 1,
        up,
        down: 0,
        net: up,
        rhythm: 0.0,
        proven_at: None,
        gaps: Vec::new(),
        oddities: Vec::new(),
        users: 0,
        scores: Vec::new(),
        crossings: Vec::new(),
    }
}

fn learned(episodes: Vec<Episode>) -> Learned {
    Learned {
        schema: LEARNED_SCHEMA.into(),
        host: "web-1".into(),
        role: "web".into(),
        agent: "0.1.0".into(),
        from: START,
        until: START.after(Span::from_hours(168)),
        hours: 168,
        hours_of_week: vec![1; 168],
        workloads: Vec::new(),
        episodes,
    }
}

/// The collector, as far as parts go.
#[derive(Default)]
struct Held(BTreeMap<String, u64>);

impl Held {
    /// Takes parts until one is lost; whether the whole was taken.
    fn take(&mut self, learned: &Learned, cursor: &mut Cursor, most: usize) -> (usize, bool) {
        let mut parts = Parts::new(learned, cursor);
        let mut count = 0;
        while let Some((part, notes)) = parts.next() {
            if count == most {
                return (count, false);
            }
            count += 1;
            assert!(part.episodes.len() <= PART_EPISODES && part.gone.len() <= PART_GONE);
            if part.begins {
                self.0.clear();
            }
            for name in &part.gone {
                self.0.remove(name);
            }
            for episode in &part.episodes {
                self.0.insert(episode.name(), episode.up);
            }
            cursor.from = Some(learned.from);
            for (name, hash) in notes {
                match hash {
                    Some(hash) => cursor.sent.insert(name, hash),
                    None => cursor.sent.remove(&name),
                };
            }
            if let Some(whole) = part.whole {
                assert_eq!(whole.episodes, self.0.len() as u64);
                return (count, true);
            }
        }
        panic!("the last part has the whole");
    }

    fn is(&self, learned: &Learned) -> bool {
        let held: BTreeMap<String, u64> =
            learned.episodes.iter().map(|episode| (episode.name(), episode.up)).collect();
        self.0 == held
    }
}

#[test]
fn what_was_acknowledged_is_not_sent_again_and_what_is_gone_is_said() {
    let (mut held, mut cursor) = (Held::default(), Cursor::default());
    let first = learned((0..1000).map(|n| episode(n, 1)).collect());
    assert_eq!(held.take(&first, &mut cursor, usize::MAX), (4, true));
    assert!(held.is(&first));
    // Nothing changed: one part says so.
    assert_eq!(held.take(&first, &mut cursor, usize::MAX), (1, true));
    let mut second = first.clone();
    second.episodes.retain(|episode| episode.key.destination.to_string() != "n7.example");
    second.episodes[0].up = 2;
    second.episodes.push(episode(5000, 3));
    assert_eq!(held.take(&second, &mut cursor, usize::MAX), (1, true));
    assert!(held.is(&second));
}

#[test]
fn a_transfer_that_breaks_off_anywhere_goes_on_where_it_was_and_ends_right() {
    let first = learned((0..1000).map(|n| episode(n, 1)).collect());
    let second = learned((300..1400).map(|n| episode(n, n as u64 % 3)).collect());
    for most in 0..6 {
        let (mut held, mut cursor) = (Held::default(), Cursor::default());
        held.take(&first, &mut cursor, most);
        let kept = serde_json::to_vec(&cursor).unwrap();
        held.take(&second, &mut cursor, most);
        // A crash loses what the cursor learned since it was kept.
        for mut again in [cursor, serde_json::from_slice(&kept).unwrap()] {
            let mut held = Held(held.0.clone());
            // What the collector has and an old cursor knows nothing of is seen by the count.
            let known: BTreeSet<_> = again.sent.keys().cloned().collect();
            let strange = held.0.keys().any(|name| {
                !known.contains(name) && !second.episodes.iter().any(|e| e.name() == *name)
            });
            if strange {
                again = Cursor::default();
            }
            assert!(held.take(&second, &mut again, usize::MAX).1);
            assert!(held.is(&second), "{most}");
        }
    }
}

fn places(dir: &Path) -> Places {
    let places = Places {
        identity: dir.join("identity"),
        trust: dir.join("trust.d"),
        state: dir.join("state"),
    };
    fs::create_dir_all(&places.trust).unwrap();
    fs::create_dir_all(&places.state).unwrap();
    fs::write(places.trust.join("one.pub"), key_pair(&[1; 32]).1).unwrap();
    places
}

fn sealed(dir: &Path, role: &str, version: u64, seed: u8) -> Vec<u8> {
    let baseline = RoleBaseline { version, ..RoleBaseline::empty(role, START) };
    let path = dir.join("one.sealed");
    let until = clock::now().after(Span::from_hours(1));
    let text = baseline.to_text().unwrap();
    let key = SigningKey::from_bytes(&[seed; 32]);
    write_sealed(&path, (BASELINE_KIND, version), &text, &key, until).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn only_what_an_anchor_sealed_for_this_role_is_taken_and_nothing_half_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let offer = |role: &str, version, seed| {
        take(&places, &sealed(dir.path(), role, version, seed), Some("web")).ok()
    };
    assert_eq!(offer("web", 3, 1), Some((BASELINE_KIND, 3)));
    assert_eq!(offer("web", 4, 2), None);
    assert_eq!(offer("db", 4, 1), None);
    assert_eq!(offer("web", 2, 1), None);
    assert_eq!(version_of(&places.state.join(BASELINE_FILE)), 3);
    assert!(!places.state.join(INCOMING).exists());
    assert_eq!(offer("web", 5, 1), Some((BASELINE_KIND, 5)));
}

#[test]
fn a_role_may_have_any_letters_in_a_query() {
    assert_eq!(query_value("web & db/東"), "web%20%26%20db%2F%E6%9D%B1");
}
