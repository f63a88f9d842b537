//! Refuses writes while there is still room, so that "disk full" is an answer and not an accident.
//!
//! A log that meets a full device refuses as well, but then nothing is left to merge into, nor to remove with. So room is looked up before each batch, from a figure that is at most a tenth of a second or a few megabytes old. A quarter of what is
//! kept in reserve is in a file ([`ReserveFile`]), since others who write to the same device know nothing of the reserve.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::reserve_file::ReserveFile;
use super::resource_probe::ResourceProbe;

/// The view of free space that batches are measured against.
#[derive(Debug)]
pub(super) struct Space {
    probe: ResourceProbe,
    reserve: u64,
    file: Option<ReserveFile>,
    /// Free at the last look.
    free: u64,
    looked: Option<Instant>,
    written_since: u64,
    /// Less was left than the reserve, and not a quarter more since. What merging removes and writes anew goes up and down.
    is_short: bool,
}

impl Space {
    pub(super) fn new(probe: ResourceProbe, reserve: u64) -> Space {
        Space { probe, reserve, file: None, free: 0, looked: None, written_since: 0, is_short: false }
    }

    /// The file system of a database, with a part of the reserve in a file there.
    pub(super) fn of_database(path: &Path, reserve: u64) -> Space {
        let file = (reserve > 0).then(|| ReserveFile::of(path, reserve / 4));
        Space { file, ..Space::new(ResourceProbe::of_file_system(path), reserve) }
    }

    /// Counts a batch of so many bytes as written; or says in words why there is no room for it. A batch that only
    /// removes may use half of the reserve: its removals take room before merging gives some back. `spare` bytes more are there already
    /// in files of our own.
    pub(super) fn take(&mut self, bytes: u64, only_removes: bool, spare: u64) -> io::Result<Result<(), String>> {
        let stale = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if stale || self.written_since + bytes > LOOK_BYTES {
            self.look()?;
        }
        let held = self.file.as_ref().map_or(0, ReserveFile::held);
        let free = self.free.saturating_add(held).saturating_add(spare);
        let enough = self.reserve.saturating_add(self.reserve / 4);
        let left = free.saturating_sub(self.written_since);
        self.is_short = left < if self.is_short { enough } else { self.reserve };
        let kept = if only_removes { self.reserve / 2 } else { self.reserve };
        if left.saturating_sub(bytes) < kept || self.is_short && !only_removes {
            let mib = |bytes: u64| bytes >> 20;
            return Ok(Err(format!(
                "{} MiB of room are left to it, it refuses writes below {} MiB (`store.free_space_reserve`), and takes them again from \
                 {} MiB on",
                mib(left),
                mib(self.reserve),
                mib(enough)
            )));
        }
        self.written_since += bytes;
        Ok(Ok(()))
    }

    /// As before a log opens: it begins a segment, for which a reserve that is not whole may be needed.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        self.free = self.probe.left()?;
        if let Some(file) = &mut self.file
            && file.held() > 0
            && self.free < self.reserve
        {
            file.release()?;
        }
        self.look()
    }

    /// Sees what is free, and gives up or makes the file by it.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.free = self.probe.left()?;
        if let Some(file) = &mut self.file {
            if file.held() > 0 && self.free < file.bytes() {
                file.release()?;
                self.free = self.probe.left()?;
            } else if file.held() == 0 && self.free >= self.reserve.saturating_mul(2) {
                file.make();
                self.free = self.probe.left()?;
            }
        }
        self.looked = Some(Instant::now());
        self.written_since = 0;
        Ok(())
    }
}

/// How old the figure may be. Others write to the same device; a tenth of a second is about a hundred megabytes of a
/// fast one, well within the reserve, and `statvfs` costs a microsecond.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How much we write before we look again.
const LOOK_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_was_written_since_the_last_look_counts() {
        let looks = Arc::new(AtomicU64::new(0));
        let probe = ResourceProbe::new({
            let looks = Arc::clone(&looks);
            move || {
                looks.fetch_add(1, Ordering::Relaxed);
                Ok(100)
            }
        });
        let mut space = Space::new(probe, 60);
        space.looked = Some(Instant::now() + Duration::from_secs(3600)); // the first look, and no other by age
        space.free = 100;
        assert_eq!(space.take(40, false, 0).expect("works"), Ok(()));
        assert!(space.take(1, false, 0).expect("works").is_err());
        assert_eq!(space.take(30, true, 0).expect("works"), Ok(()), "removals may use half of the reserve");
        assert!(space.take(1, true, 0).expect("works").is_err());
        assert_eq!(looks.load(Ordering::Relaxed), 0);
        assert!(space.take(LOOK_BYTES, false, 0).expect("works").is_err());
        assert_eq!(looks.load(Ordering::Relaxed), 1, "much was to be written: looked again");
        assert_eq!(space.take(40, false, 0).expect("works"), Ok(()));
    }

    /// A node whose spare segments came and went was short for a second in every twenty, and told it each time.
    #[test]
    fn room_that_goes_up_and_down_around_the_reserve_is_short_until_a_quarter_more_is_there() {
        let free = Arc::new(AtomicU64::new(0));
        let probe = ResourceProbe::new({
            let free = Arc::clone(&free);
            move || Ok(free.load(Ordering::Relaxed))
        });
        let mut space = Space::new(probe, 80);
        let mut admits = |left: u64, only_removes| {
            free.store(left, Ordering::Relaxed);
            space.look().expect("answers");
            space.take(0, only_removes, 0).expect("answers").is_ok()
        };
        for (left, expected) in [(80, true), (79, false), (99, false), (80, false), (100, true), (80, true)] {
            assert_eq!(admits(left, false), expected, "{left}");
        }
        assert!(!admits(79, false) && admits(79, true) && admits(40, true) && !admits(39, true));
        // One batch that is too large for what is left is no shortage for others.
        assert!(admits(100, false) && space.take(21, false, 0).expect("answers").is_err());
        assert!(space.take(20, false, 0).expect("answers").is_ok());
    }

    #[test]
    fn a_store_that_opens_while_room_is_short_is_given_all_of_it() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let free = Arc::new(AtomicU64::new(2 << 20));
        let probe = || {
            let free = Arc::clone(&free);
            ResourceProbe::new(move || Ok(free.load(Ordering::Relaxed)))
        };
        let space = || Space { probe: probe(), ..Space::of_database(folder.path(), 1 << 20) };
        let file = folder.path().join("reserve");
        space().make_room().expect("answers");
        if !file.exists() {
            return; // A file system that sets no blocks aside.
        }
        free.store((1 << 20) - 1, Ordering::Relaxed);
        space().look().expect("answers");
        assert!(file.exists(), "more is free than the file holds");
        space().make_room().expect("answers");
        assert!(!file.exists());
    }

    #[test]
    fn the_file_system_answers() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert!(ResourceProbe::of_file_system(folder.path()).left().expect("answers") > 0);
    }
}
