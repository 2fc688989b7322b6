//! The intrusions that the whole system is shown (detection.md, section 4.4).

use super::fleet::{Attack, Oddities, Oddity};

/// An archive of 3 GB.
const ARCHIVE: f64 = 3e9;
const BARE_ADDRESS: Oddities = Oddities::of(&[Oddity::NoName, Oddity::NoServerName]);

/// The rows of the table.
pub(super) fn scenarios() -> Vec<Attack> {
    let beacon = Attack::beacon;
    vec![
        Attack::plugx("PlugX raw-443 30 s, 3 GB in night 2").with_upload(ARCHIVE),
        Attack {
            oddities: super::fleet::PLUGX_ODDITIES,
            ..beacon("PlugX 15 min 30 %, 3 GB in night 2", 900.0, 0.3)
        }
        .with_upload(ARCHIVE),
        beacon("clean TLS beacon 60 s, 3 GB in night 2", 60.0, 0.2).with_upload(ARCHIVE),
        Attack { total: ARCHIVE, ..beacon("3 GB at once, no beacon", 0.0, 0.0) },
        Attack {
            total: 30e6,
            piece: 5e6,
            destinations: 20,
            ..beacon("600 MB over 20 new destinations", 0.0, 0.0)
        },
        Attack { slow: 1e6, ..beacon("1 MB an hour over 300 s", 300.0, 0.2) },
        Attack { slow: 1e7, ..beacon("10 MB an hour over 300 s", 300.0, 0.2) },
        beacon("clean beacon 60 s 20 %", 60.0, 0.2),
        beacon("clean beacon 900 s 50 %", 900.0, 0.5),
        beacon("clean beacon 900 s 90 %", 900.0, 0.9),
        beacon("clean beacon 1 h 50 %", 3600.0, 0.5),
        beacon("clean beacon 6 h 20 %", 21_600.0, 0.2),
        Attack { works_days: true, ..beacon("working hours only, 300 s", 300.0, 0.2) },
        Attack { oddities: BARE_ADDRESS, ..beacon("bare address, 60 s 37 %", 60.0, 0.37) },
        Attack {
            oddities: Oddities::of(&[Oddity::SelfSigned]),
            is_new_process: true,
            ..beacon("self-signed, new program, 900 s 20 %", 900.0, 0.2)
        },
    ]
}
