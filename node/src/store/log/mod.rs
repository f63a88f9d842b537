//! The store on disk: a log of our own, with an index of all keys in memory.
//!
//! ```text
//!  shard 0 ── LogStore ─┐ apply: a frame at the end of the newest segment, then the index        append, frame, segment
//!  shard 1 ── LogStore ─┼──────▶ LogDatabase ── get, scan: the index says where, one read        read, index, table
//!  sync thread ─ LogSyncer ────▶ sync: one fdatasync for all that was applied before             append, watermark
//!  readers ────────────────────▶ read what is no longer in memory, for shards that do not wait   fetch
//!  keeper, filler ─────────────▶ footers, merging; spare segments: in small steps                keeper, filler, footer, manifest
//!  open ───────────────────────▶ which frames count, and what the index was                      open, recover
//! ```
//! - All shards share one log: their batches go to the disk in one sync. Appending is short, and no shard ever waits for a sync, nor for
//!   what is done in the background.
//! - The order of frames is the order in which the index has changed: copying what is live out of a segment that is to be used again
//!   appends it like anything else. So the last frame about a key is the truth, and a start needs no more than to read them in order.
//! - An applied batch has left the process (it survives `kill -9`), a synced one survives a power cut.
//! - Fail-stop: after the first I/O error or damage every call answers that same error. Shortage is not damage (`shortage`).
//! - A start tells damage from the torn tail of a power cut, and never drops what was synced (`recover`).
//!
//! What it follows: Rosenblum and Ousterhout, *The design and implementation of a log-structured file system* (1992), for segments and
//! their cleaning; Sheehy and Smith, *Bitcask* (2010), for the index in memory. `docs/decisions.md` says why it is our own.

#![allow(
    clippy::disallowed_methods,
    reason = "the disk is at the edge: it looks at free space by the clock, and draws salts"
)]

use std::cell::RefCell;
use std::fs;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use self::append::Log;
use self::fetch::{Extent, Fetches, Readers, Standing, What};
use self::filler::Filler;
use self::folder::SystemFolder;
use self::keeper::Keeper;
use self::open::{Opened, open_log};
use self::read::Look;
use self::space::Space;
use crate::planted::Planted;
use crate::replica::store::{ApplyError, Batch, BatchSeq, Listener, Store, StoreError, StoreFigures};

mod admission;
mod append;
mod descriptors;
mod fetch;
mod file_sync;
mod filler;
mod folder;
mod footer;
mod frame;
mod index;
mod keeper;
mod manifest;
mod open;
#[cfg(feature = "planted-bugs")]
pub(crate) mod probe;
mod read;
mod recover;
mod reserve_file;
mod resource_probe;
mod segment;
pub(crate) mod shortage;
mod space;
mod table;
mod watermark;
mod worker;

pub use self::file_sync::FileSync;
pub use self::index::Layout;
pub use self::resource_probe::ResourceProbe;

/// An open database: all the data of a node. Clones share it; it is closed when the last handle is gone.
#[derive(Clone)]
pub struct LogDatabase(Arc<Open>);

/// One shard's handle on a [`LogDatabase`]. Shards keep to keys of their own.
pub struct LogStore {
    open: Arc<Open>,
    shard: u16,
    applied: BatchSeq,
    fetches: RefCell<Fetches>,
}

/// Makes durable what all shards of a [`LogDatabase`] have applied.
#[derive(Clone)]
pub struct LogSyncer(Arc<Open>);

/// How a [`LogDatabase`] uses memory and disk.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Which keys are found by a token: of those only 24 bytes are kept in memory, of all others the whole key.
    pub layout: Layout,
    /// Length of a segment, until the log is so large that these would be too many; a batch that is longer is given one of its own.
    pub segment_bytes: u64,
    /// Room on the device that batches leave alone: below it they are refused, all but those that only remove, which
    /// may use half of it. See [`RESERVE_BYTES_DEFAULT`].
    pub reserve_bytes: u64,
    /// Where free space is asked for; `None` for the file system of the database, where a quarter of the reserve is kept in a file.
    pub space_probe: Option<ResourceProbe>,
    /// Where it is asked how many files can still be opened.
    pub descriptor_probe: ResourceProbe,
    /// How a file is made durable; a sync of the database is one call, and all it promises rests on it.
    pub file_sync: FileSync,
    /// A mistake to make, in tests of the rigs that look for mistakes.
    pub planted: Planted,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            layout: Layout::of_records(1),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            space_probe: None,
            descriptor_probe: ResourceProbe::of_descriptors(),
            file_sync: FileSync::of_system(),
            planted: Planted::default(),
        }
    }
}

/// Why a database could not be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogOpenError {
    /// Another process has it open.
    #[error("the database in {} is open in another process. Stop that one first", .0.display())]
    InUse(PathBuf),
    /// Another build has written it.
    #[error(
        "the database in {} has the format of an earlier build, which this one does not read. Nothing was changed in it. Start the \
         build that has written it; or let the other nodes fill this one again: one node at a time, and only while the others are well \
         (`driftless status`), move its data directory away, start it with an empty one (`--init`), and wait until `driftless status` \
         says that it is whole", .0.display()
    )]
    OtherFormat(PathBuf),
    /// It cannot be read, or is not what was written. Nothing that was synced has been dropped from it.
    #[error(
        "the database in {} cannot be opened: {error}. If the disk is sound, move the node's data directory away and \
         start it with an empty one (`--init`), only this node's and only while the others are well (`driftless status`): they hold \
         the data, and anti-entropy fills it again", path.display()
    )]
    Failed {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        error: StoreError,
    },
}

struct Open {
    log: Arc<Log>,
    readers: Readers,
    /// Keeper, filler and readers; they run until the last handle is gone.
    threads: Vec<JoinHandle<()>>,
    _lock: Option<File>,
}

impl LogDatabase {
    /// Opens a database, or makes one where there is none. The directory is the database's own.
    ///
    /// After it returns, all that can be read is durable. Takes time in proportion to the number of keys, and to what the last
    /// process had written since its last full segment.
    ///
    /// # Errors
    /// [`LogOpenError`]; in particular if anything is missing that had been synced.
    pub fn open(path: impl AsRef<Path>, options: LogOptions) -> Result<LogDatabase, LogOpenError> {
        let path = path.as_ref();
        let failed = |error| LogOpenError::Failed { path: path.into(), error };
        make_directory(path).map_err(|e| failed(io_error("make the database directory", &e)))?;
        if is_of_earlier_build(path).map_err(|e| failed(io_error("read the database directory", &e)))? {
            return Err(LogOpenError::OtherFormat(path.into()));
        }
        let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let file = file.map_err(|e| failed(io_error("open the lock of the database", &e)))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogOpenError::InUse(path.into())),
            Err(TryLockError::Error(e)) => return Err(failed(io_error("lock the database", &e))),
        }
        let space = match &options.space_probe {
            Some(probe) => Space::new(probe.clone(), options.reserve_bytes),
            None => Space::of_database(path, options.reserve_bytes),
        };
        let folder = SystemFolder::open(path.into(), options.file_sync.clone());
        let folder = Box::new(folder.map_err(|e| failed(io_error("open the database directory", &e)))?);
        let random = StdRng::from_os_rng();
        let place = path.display().to_string();
        let Opened { log, freed } = open_log(folder, place, space, random, &options).map_err(failed)?;
        let (keeper, filler) = (Keeper::new(Arc::clone(&log), freed), Filler::new(Arc::clone(&log)));
        let mut open = Open { log, readers: Readers::default(), threads: Vec::new(), _lock: Some(file) };
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = [spawn("keeper").spawn(|| worker::run(keeper)), spawn("filler").spawn(|| worker::run(filler))];
        for thread in threads {
            open.threads.push(thread.map_err(|e| failed(io_error("start a thread", &e)))?);
        }
        let readers = open.readers.start().map_err(|e| failed(io_error("start a thread", &e)))?;
        open.threads.extend(readers);
        Ok(LogDatabase(Arc::new(open)))
    }

    /// A shard's handle. Its batches are numbered from 1.
    pub fn store(&self, shard: u16) -> LogStore {
        LogStore { open: Arc::clone(&self.0), shard, applied: BatchSeq::default(), fetches: RefCell::default() }
    }

    /// A handle for the thread that syncs.
    pub fn syncer(&self) -> LogSyncer {
        LogSyncer(Arc::clone(&self.0))
    }
}

impl LogStore {
    /// The shard that this handle was made for.
    pub fn shard(&self) -> u16 {
        self.shard
    }
}

impl Store for LogStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.fetches.borrow_mut().take(key) {
            Some(value) => self.open.log.check().map(|()| value),
            None => self.open.log.get(key),
        }
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.open.log.scan(range, visit)
    }

    fn prepare(&self, key: &[u8]) -> bool {
        let mut fetches = self.fetches.borrow_mut();
        match fetches.standing(What::Key, key) {
            Standing::UnderWay => return false,
            Standing::Done => return true,
            Standing::NotAsked => {}
        }
        match self.open.log.look(key) {
            Look::Found(value) => fetches.keep(key, value),
            Look::Unclear => {}
            Look::Away(piece) => return !fetches.begin(&self.open.readers, What::Key, key, vec![piece]),
        }
        true
    }

    fn prepare_range(&self, range: Range<&[u8]>, records: usize, bytes: usize) -> bool {
        let (mut fetches, what) = (self.fetches.borrow_mut(), What::Range(Extent { records, bytes }));
        match fetches.standing(what, range.start) {
            Standing::UnderWay => return false,
            Standing::Done => return true,
            Standing::NotAsked => {}
        }
        let away = self.open.log.away(&range, records, bytes);
        away.is_empty() || !fetches.begin(&self.open.readers, what, range.start, away)
    }

    fn on_fetched(&mut self, listener: Listener) {
        self.fetches.get_mut().listen(listener);
    }

    fn shortage(&self) -> Option<String> {
        self.open.log.shortage()
    }

    fn figures(&self) -> Option<StoreFigures> {
        let log = &self.open.log;
        let (keys, index_bytes) = log.index.size();
        let head = log.head();
        let spare: u64 = head.spares.iter().map(|spare| spare.bytes).sum();
        let (used, live_bytes) =
            head.in_use().fold((0, 0), |(bytes, live), (_, used)| (bytes + used.bytes, live + used.live));
        Some(StoreFigures {
            disk_bytes: used + spare,
            live_bytes,
            keys,
            index_bytes,
            fetches: self.open.readers.asked(),
        })
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        super::assert_keys_fit(&batch);
        self.fetches.get_mut().forget();
        self.open.log.apply(&batch)?;
        self.applied = BatchSeq(self.applied.0 + 1);
        Ok(self.applied)
    }
}

impl LogSyncer {
    /// Makes durable everything that any shard had applied before the call. Free if that is nothing new.
    ///
    /// # Errors
    /// [`StoreError`]: nothing that was not synced before may be acknowledged, ever; stop. The kernel forgets failed
    /// pages, so trying again proves nothing.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.0.log.sync()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.keeper.ring_for_the_last_time();
        self.log.filler.ring_for_the_last_time();
        self.readers.close();
        for thread in self.threads.drain(..) {
            // What a panic of one of them means for the others, they have said themselves.
            let _ = thread.join();
        }
    }
}

impl Log {
    fn shortage(&self) -> Option<String> {
        let mut head = self.head();
        let spare = head.spare_bytes();
        head.admission.shortage(spare)
    }
}

/// Makes a directory durably, if it is not there.
fn make_directory(path: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Whether a store of another kind is there: earlier builds kept a tree of tables.
fn is_of_earlier_build(path: &Path) -> io::Result<bool> {
    for name in ["version", "keyspaces", "0.jnl"] {
        if path.join(name).try_exists()? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn io_error(what: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        // A file is shorter than it was, or says something impossible.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            StoreError::Corrupt(format!("cannot {what}: {error}"))
        }
        _ => StoreError::Io(format!("cannot {what}: {error}")),
    }
}

/// What is wrong with a database that was in use, and what to do.
fn corrupt_in_use(place: &str, what: &str) -> String {
    format!(
        "{what} in the database in {place} is not what was written. Check the disk. If it is sound, start the node again: the \
         damage may have been in memory. If it stops again, move the node's data directory away and start it with an empty one \
         (`--init`), only this node's and only while the others are well (`driftless status`): they hold the data, and anti-entropy \
         fills it again"
    )
}

/// The default of [`LogOptions::segment_bytes`]. What is live in a segment is copied before it is used again, so a smaller one is
/// sooner free; a larger one means fewer files.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;

/// Room for two manifests and a batch.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The default of [`LogOptions::reserve_bytes`]: room for removals, and for the segments that merging may have to make before it can
/// free others. More is lost to the data.
pub const RESERVE_BYTES_DEFAULT: u64 = 256 << 20;

const LOCK: &str = "lock";

#[cfg(test)]
mod campaign;
#[cfg(test)]
mod platter;
#[cfg(test)]
mod tests;
