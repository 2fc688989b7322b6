//! Free space on volumes of data: a sudden fall may be an archive that somebody makes before it leaves.

use sekisho_schema::{Span, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// How far back a fall is measured.
const WITHIN: Span = Span::from_hours(1);
/// Volumes that are looked at, at most.
const MOST: usize = 32;
/// Bytes below which a fall says nothing; the engine judges what is above.
const LEAST: u64 = 100_000_000;
/// File systems that lie on disks.
const ON_DISK: [&str; 8] = ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "xfs", "zfs"];

/// The volumes and what was free on them within the hour.
pub(super) struct Space {
    volumes: Vec<PathBuf>,
    free: BTreeMap<PathBuf, Watched>,
}

#[derive(Default)]
struct Watched {
    free: VecDeque<(Timestamp, u64)>,
    /// The fall that was told last within the hour.
    told: u64,
}

impl Watched {
    /// Takes in what is free; the fall within the hour when it is to be told: once, and again when it has doubled.
    fn take(&mut self, at: Timestamp, free: u64) -> Option<u64> {
        let since = at.before(WITHIN);
        self.free.retain(|(then, _)| *then >= since && *then <= at);
        self.free.push_back((at, free));
        let most = self.free.iter().map(|(_, free)| *free).max().unwrap_or(free);
        let fell = most - free;
        if fell < LEAST {
            self.told = 0;
            return None;
        }
        (fell / 2 >= self.told).then(|| {
            self.told = fell;
            fell
        })
    }
}

impl Space {
    /// Watches these directories' volumes; without any, every file system on a disk.
    pub(super) fn new(named: Option<Vec<PathBuf>>) -> Self {
        let mut volumes = named.unwrap_or_else(|| {
            mounted(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
        });
        volumes.truncate(MOST);
        Self { volumes, free: BTreeMap::new() }
    }

    /// Looks at every volume; the largest fall that is to be told.
    pub(super) fn look(&mut self, at: Timestamp) -> Option<(PathBuf, u64)> {
        let mut falls = Vec::new();
        for volume in &self.volumes {
            let Some(free) = free_on(volume) else { continue };
            let fell = self.free.entry(volume.clone()).or_default().take(at, free);
            falls.extend(fell.map(|fell| (volume.clone(), fell)));
        }
        falls.into_iter().max_by_key(|(_, fell)| *fell)
    }
}

fn free_on(volume: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(volume).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Where file systems on disks are mounted, each device once (proc_pid_mountinfo(5)).
fn mounted(text: &str) -> Vec<PathBuf> {
    let mut devices = Vec::new();
    let mut places = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (device, place) = (fields.nth(2), fields.nth(1));
        let kind = fields.skip_while(|field| *field != "-").nth(1);
        let (Some(device), Some(place), Some(kind)) = (device, place, kind) else { continue };
        if ON_DISK.contains(&kind) && !devices.contains(&device) {
            devices.push(device);
            places.push(PathBuf::from(place.replace("\\040", " ")));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

    #[test]
    fn a_fall_within_the_hour_is_told_once_and_again_when_it_has_doubled() {
        let mut watched = Watched::default();
        let mut at =
            |minute: i64, free: u64| watched.take(NOW.after(Span::from_secs(60 * minute)), free);
        assert_eq!(at(0, 5_000_000_000), None);
        assert_eq!(at(1, 4_950_000_000), None, "less than a tenth of a gigabyte");
        assert_eq!(at(2, 4_500_000_000), Some(500_000_000));
        assert_eq!(at(3, 4_400_000_000), None);
        assert_eq!(at(4, 4_000_000_000), Some(1_000_000_000));
        assert_eq!(at(70, 4_000_000_000), None, "what fell is more than an hour ago");
        assert_eq!(at(71, 3_800_000_000), Some(200_000_000));
    }

    #[test]
    fn file_systems_on_disks_are_found_each_device_once() {
        let text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    23 22 0:5 / /proc rw - proc proc rw\n\
                    24 22 8:1 /srv /mnt rw - ext4 /dev/sda1 rw\n\
                    25 22 8:17 / /data\\040base rw shared:3 master:1 - xfs /dev/sdb1 rw\n\
                    torn line\n";
        assert_eq!(mounted(text), [PathBuf::from("/"), PathBuf::from("/data base")]);
    }

    #[test]
    fn a_volume_that_is_there_has_some_space_told_and_one_that_is_not_has_none() {
        assert!(free_on(Path::new("/")).is_some());
        assert!(free_on(Path::new("/no/such/volume")).is_none());
    }
}
