//! The disk below the data: whether it is one, and what a sync costs there, which bounds every put.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Whether the directory is in memory, where a sync costs nothing.
pub(crate) fn in_memory(dir: &Path) -> Result<bool> {
    let found = rustix::fs::statfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    Ok([TMPFS, RAMFS].contains(&found.f_type))
}

/// The median time of a 4 KiB write at the end of a file and its `fdatasync`.
pub(crate) fn sync_time(dir: &Path) -> Result<Duration> {
    let path = dir.join("sync-probe");
    let failed = || format!("cannot write to {}", path.display());
    let mut file = File::create(&path).with_context(failed)?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).with_context(failed)?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(&path).with_context(failed)?;
    times.sort_unstable();
    Ok(times[PROBES / 2])
}

/// Enough for a median, some seconds on the slowest disk.
const PROBES: usize = 101;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
const RAMFS: rustix::fs::FsWord = 0x8584_58f6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_known() {
        assert!(!in_memory(Path::new("/proc")).expect("is there"));
        if Path::new("/dev/shm").exists() {
            assert!(in_memory(Path::new("/dev/shm")).expect("is there"));
        }
        assert!(in_memory(Path::new("/not/there")).is_err());
    }

    #[test]
    fn a_sync_takes_time_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(sync_time(dir.path()).expect("can be measured") > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 0);
    }
}
