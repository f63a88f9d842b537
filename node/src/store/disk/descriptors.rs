//! Budgets open files: fjall's worker stops for good when it cannot open one, and does not say why. So it caches no more of them than
//! the limit of the process allows, and batches are refused while too few are left for what it must still open for those before.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::resource_probe::ResourceProbe;

/// The view of open files that batches are measured against.
#[derive(Debug)]
pub(super) struct Descriptors {
    probe: ResourceProbe,
    left: u64,
    looked: Option<Instant>,
}

impl Descriptors {
    pub(super) fn new(probe: ResourceProbe) -> Descriptors {
        Descriptors { probe, left: 0, looked: None }
    }

    /// Says in words why a batch had better not be written now. One that only removes may use half of what is kept.
    pub(super) fn shortage(&mut self, only_removes: bool) -> io::Result<Option<String>> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.left = self.probe.left()?;
            self.looked = Some(Instant::now());
        }
        let kept = if only_removes { KEPT / 2 } else { KEPT };
        let left = self.left;
        Ok((left < kept).then(|| {
            format!("{left} more files can be opened, and {KEPT} are kept for the storage engine (ulimit -n)")
        }))
    }
}

/// How many files of its tables fjall may keep open.
pub(super) fn cached_files() -> usize {
    let limit = limit().unwrap_or(u64::MAX);
    let share = (limit.saturating_sub(KEPT) / 2).clamp(CACHED_MIN, CACHED_MAX);
    usize::try_from(share).unwrap_or(usize::MAX)
}

pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What a flush and a compaction open at once: the tables and values that they read, those that they write, and a journal. Tables that
/// wait to be merged are 28 at most, and as many may lie below them.
const KEPT: u64 = 64;

/// Each table and each file of values is one. With fewer they are opened again and again.
const CACHED_MIN: u64 = 32;

/// As many as fjall itself would.
const CACHED_MAX: u64 = 900;

/// Counting some hundred files takes a tenth of a millisecond, and nothing in this process opens many within a second.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_how_many_files_can_still_be_opened() {
        let left = ResourceProbe::of_descriptors().left().expect("answers");
        assert!(left > 0 && limit().is_none_or(|limit| left < limit), "{left}");
    }
}
