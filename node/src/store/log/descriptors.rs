//! Budgets open files: each segment is one. Batches are refused while too few can be opened for the segments that those before them will
//! make necessary.

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
            format!("{left} more files can be opened, and {KEPT} are kept for the segments of the log (ulimit -n)")
        }))
    }
}

pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// For segments of batches that were let through before it was looked again, and of merging.
const KEPT: u64 = 64;

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
