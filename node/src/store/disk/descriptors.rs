//! Budgets open files: fjall's worker stops for good when it cannot open one, and does not say why. So it caches no more of them than
//! the limit of the process allows, and batches are refused while too few are left for what it must still open for those before.

use std::fmt;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

/// Asks how many more files this process may open: the system, or whatever a test says.
#[derive(Clone)]
pub struct DescriptorProbe(Arc<dyn Fn() -> io::Result<u64> + Send + Sync>);

impl DescriptorProbe {
    /// The limit of the process less what it has open.
    pub fn of_process() -> DescriptorProbe {
        DescriptorProbe::new(|| {
            let Some(limit) = limit() else { return Ok(u64::MAX) };
            match fs::read_dir("/dev/fd") {
                // The directory itself is one of those.
                Ok(open) => Ok(limit.saturating_sub(open.count() as u64)),
                // Not every container has it, and then nothing is known.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(u64::MAX),
                Err(e) => Err(e),
            }
        })
    }

    /// Any other source.
    pub fn new(left: impl Fn() -> io::Result<u64> + Send + Sync + 'static) -> DescriptorProbe {
        DescriptorProbe(Arc::new(left))
    }
}

impl fmt::Debug for DescriptorProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DescriptorProbe")
    }
}

/// The view of open files that batches are measured against.
#[derive(Debug)]
pub(super) struct Descriptors {
    probe: DescriptorProbe,
    left: u64,
    looked: Option<Instant>,
}

impl Descriptors {
    pub(super) fn new(probe: DescriptorProbe) -> Descriptors {
        Descriptors { probe, left: 0, looked: None }
    }

    /// Says in words why a batch had better not be written now. One that only removes may use half of what is kept.
    pub(super) fn shortage(&mut self, only_removes: bool) -> io::Result<Option<String>> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.left = (self.probe.0)()?;
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

fn limit() -> Option<u64> {
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
        let left = (DescriptorProbe::of_process().0)().expect("answers");
        assert!(left > 0 && limit().is_none_or(|limit| left < limit), "{left}");
    }
}
