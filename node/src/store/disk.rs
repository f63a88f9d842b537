//! The store on disk: batches in fjall, an embedded log-structured merge tree; syncs by a handle of their own.
//!
//! ```text
//!  shard 0 ── DiskStore ─┐ apply: one record in fjall's journal, handed to the operating system
//!  shard 1 ── DiskStore ─┼──────▶ DiskDatabase ──▶ journals, tables, value logs
//!  sync thread ─ DiskSyncer ────▶ sync: one fdatasync for all that was applied before
//! ```
//! - All shards share one database with *one* keyspace: an idle keyspace would keep every journal from being removed.
//! - An applied batch has left the process (it survives `kill -9`), a synced one survives a power cut. fjall itself has
//!   no group commit, so batches are written unsynced and one thread syncs for all of them.
//! - Fail-stop: after the first I/O error, checksum error or panic inside fjall every call answers that same error.
//! - Shortage is not damage (`disk/shortage.rs`): room and files that can be opened are looked at before each batch, which is refused
//!   while they are short ([`DiskOptions::reserve_bytes`]), because fjall's worker fails for good when it meets that itself. Reading, and
//!   opening what is to be synced, is tried again.
//! - A start checks the journals itself before fjall does, which tells damage from the torn tail of a power cut, and
//!   never drops what was synced (`disk/journal.rs`).

#![allow(
    clippy::disallowed_methods,
    reason = "the disk is at the edge: it looks at free space by the clock, and waits for fjall"
)]

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::{Bound, ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, UserKey,
};

use self::descriptors::Descriptors;
use self::journal::{Audit, CutTail};
use self::shortage::{Shortage, wait_out};
use self::space::Space;
use self::watermark::{Mark, Watermark};
use crate::planted::{Bug, Planted};
use crate::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};

mod descriptors;
mod file_sync;
mod journal;
#[cfg(feature = "planted-bugs")]
pub(crate) mod probe;
mod reserve_file;
mod resource_probe;
mod shortage;
mod space;
mod watermark;

pub use self::file_sync::FileSync;
pub use self::resource_probe::ResourceProbe;

/// An open database: all the data of a node. Clones share it; it is closed when the last handle is gone.
#[derive(Clone)]
pub struct DiskDatabase(Arc<OpenDatabase>);

/// One shard's handle on a [`DiskDatabase`]. Shards keep to keys of their own.
pub struct DiskStore {
    shared: Arc<OpenDatabase>,
    shard: u16,
    applied: BatchSeq,
}

/// Makes durable what all shards of a [`DiskDatabase`] have applied.
#[derive(Clone)]
pub struct DiskSyncer(Arc<OpenDatabase>);

/// How a [`DiskDatabase`] uses memory and disk. What is marked *fixed* is taken from the first start.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Memory for blocks and values read from disk. A read that misses costs 50 µs and holds up its shard, so as much
    /// as can be spared: the hot part of the data should fit.
    pub cache_bytes: u64,
    /// How large the table in memory grows before it is written out; up to [`MEMTABLES_WAITING_MAX`] more may wait for
    /// that. Larger ones mean fewer and larger writes, more memory and longer starts.
    pub memtable_bytes: u64,
    /// Values from this length on are kept apart from their keys, so that compaction does not write them again and
    /// again; shorter ones are faster to scan where they are. *Fixed.*
    pub separate_values_from: u32,
    /// Journals are kept to this size in total by writing tables out sooner. More is a longer start.
    pub journal_bytes_max: u64,
    /// Room on the device that batches leave alone: below it they are refused, all but those that only remove, which
    /// may use half of it. See [`RESERVE_BYTES_DEFAULT`].
    pub reserve_bytes: u64,
    /// Where free space is asked for; `None` for the file system of the database, where a quarter of the reserve is kept in a file.
    pub space_probe: Option<ResourceProbe>,
    /// Where it is asked how many files can still be opened.
    pub descriptor_probe: ResourceProbe,
    /// How a journal is made durable; a sync of the database is one call, and all it promises rests on it.
    pub file_sync: FileSync,
    /// A mistake to make, in tests of the rigs that look for mistakes.
    pub planted: Planted,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            cache_bytes: 512 << 20,
            memtable_bytes: 64 << 20,
            separate_values_from: 512,
            journal_bytes_max: 512 << 20,
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
pub enum DiskOpenError {
    /// Another process has it open.
    #[error("the database in {} is open in another process. Stop that one first", .0.display())]
    InUse(PathBuf),
    /// A later release of the storage engine has written it.
    #[error(
        "the database in {} has another format than this release reads, or its file `version` is damaged. Start the \
         release that has written it", .0.display()
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

impl DiskDatabase {
    /// Opens a database, or makes one where there is none. The directory is the database's own.
    ///
    /// After it returns, all that can be read is durable.
    ///
    /// # Errors
    /// [`DiskOpenError`]; in particular if anything is missing that had been synced.
    pub fn open(path: impl AsRef<Path>, options: DiskOptions) -> Result<DiskDatabase, DiskOpenError> {
        let path = path.as_ref();
        let failed = |error| DiskOpenError::Failed { path: path.into(), error };
        let known = prepare(path).map_err(failed)?;
        let mut space = match &options.space_probe {
            Some(probe) => Space::new(probe.clone(), options.reserve_bytes),
            None => Space::of_database(path, options.reserve_bytes),
        };
        // Before fjall begins to write out what it finds in its journals.
        space.make_room().map_err(|e| failed(io_error("ask for free space", &e)))?;
        let (audit, cut) = match known {
            Some(mark) => {
                let audit = Audit::of(path).map_err(failed)?;
                let cut = audit.settle(path, mark).map_err(failed)?;
                (audit, cut)
            }
            None => (Audit::default(), None),
        };
        let opened = catch_unwind(AssertUnwindSafe(|| open_fjall(path, &options, known.is_some())));
        let (db, keyspace) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(fjall::Error::Locked)) => return Err(DiskOpenError::InUse(path.into())),
            Ok(Err(fjall::Error::InvalidVersion(_))) => return Err(DiskOpenError::OtherFormat(path.into())),
            Ok(Err(error)) => return Err(failed(store_error(error))),
            Err(panic) => return Err(failed(panicked(&*panic))),
        };
        check_complete(&keyspace, known.unwrap_or_default(), cut).map_err(failed)?;

        // All that the journals hold is durable now: fjall has synced them.
        let mark = Mark { seqno_end: audit.last.map_or(0, |last| last + 1), journal: audit.last_in };
        let watermark = Watermark::open(path, mark).map_err(|e| failed(io_error("write the record of syncs", &e)))?;
        // Its going need not be durable: only without `synced` does it count.
        let _ = fs::remove_file(path.join(CREATING));
        let newest = audit.newest.unwrap_or(0); // as fjall calls its first one
        let writer = Writer {
            space,
            descriptors: Descriptors::new(options.descriptor_probe.clone()),
            path: path.into(),
            journal: newest,
            seqno_end: 0,
        };
        Ok(DiskDatabase(Arc::new(OpenDatabase {
            path: path.into(),
            keyspace,
            db,
            failure: OnceLock::new(),
            memtable_bytes: options.memtable_bytes,
            file_sync: options.file_sync,
            planted: options.planted,
            writer: Mutex::new(writer),
            applied: AtomicU64::new(0),
            synced: Mutex::new(Synced { applied: 0, journal: newest, descriptor: None, watermark }),
        })))
    }

    /// A shard's handle. Its batches are numbered from 1.
    pub fn store(&self, shard: u16) -> DiskStore {
        DiskStore { shared: Arc::clone(&self.0), shard, applied: BatchSeq::default() }
    }

    /// A handle for the thread that syncs.
    pub fn syncer(&self) -> DiskSyncer {
        DiskSyncer(Arc::clone(&self.0))
    }

    /// Bytes on disk: journals, tables and values.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be trusted any more; stop serving.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.0.check()?;
        self.0.read(|| self.0.db.disk_space())
    }

    /// Tables in memory that wait to be written out: at [`MEMTABLES_WAITING_MAX`] batches are held up. A shard should
    /// refuse requests as overloaded before that.
    pub fn memtables_waiting(&self) -> usize {
        self.0.keyspace.sealed_memtable_count()
    }
}

impl DiskStore {
    /// The shard that this handle was made for.
    pub fn shard(&self) -> u16 {
        self.shard
    }
}

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.shared.check()?;
        let value = self.shared.read(|| self.shared.keyspace.get(key))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.shared.check()?;
        if range.start >= range.end {
            return Ok(());
        }
        let end = UserKey::from(range.end);
        let mut rest = Bound::Included(UserKey::from(range.start));
        let mut found = None;
        // Only fjall's part is guarded: a panic of the visitor is the visitor's.
        while let Some((key, value)) = self.shared.read(|| {
            let items =
                found.get_or_insert_with(|| self.shared.keyspace.range((rest.clone(), Bound::Excluded(end.clone()))));
            let next = items.next().map(fjall::Guard::into_inner).transpose();
            if next.is_err() {
                // What is tried again begins after the last one that was read.
                found = None;
            }
            next
        })? {
            rest = Bound::Excluded(key.clone());
            if visit(&key, value.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn shortage(&self) -> Option<String> {
        lock(&self.shared.writer).shortage()
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        super::assert_keys_fit(&batch);
        self.shared.check()?;
        if !batch.changes.is_empty() {
            self.shared.apply(batch)?;
        }
        self.applied = BatchSeq(self.applied.0 + 1);
        Ok(self.applied)
    }
}

impl DiskSyncer {
    /// Makes durable everything that any shard had applied before the call. Free if that is nothing new.
    ///
    /// # Errors
    /// [`StoreError`]: nothing that was not synced before may be acknowledged, ever; stop. The kernel forgets failed
    /// pages, so trying again proves nothing.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
}

struct OpenDatabase {
    path: PathBuf,
    // Before the database: it is closed when the last handle on it goes.
    keyspace: Keyspace,
    db: fjall::Database,
    /// The first failure. Set once; every call answers it.
    failure: OnceLock<StoreError>,
    writer: Mutex<Writer>,
    memtable_bytes: u64,
    /// Batches applied by all shards. Counted after fjall has taken one.
    applied: AtomicU64,
    synced: Mutex<Synced>,
    file_sync: FileSync,
    planted: Planted,
}

/// What appending a batch needs; batches are appended one at a time anyway.
struct Writer {
    space: Space,
    descriptors: Descriptors,
    path: PathBuf,
    /// A journal that was the newest when it was last looked for.
    journal: u64,
    /// The newest batch has at least this sequence number less 1.
    seqno_end: u64,
}

struct Synced {
    /// [`OpenDatabase::applied`], as of the last sync.
    applied: u64,
    /// The newest journal, before any batch that the last sync did not cover.
    journal: u64,
    /// A descriptor of our own on the journal synced last, with its number.
    descriptor: Option<(u64, File)>,
    watermark: Watermark,
}

impl OpenDatabase {
    fn apply(&self, batch: Batch) -> Result<(), ApplyError> {
        self.hold_back()?;
        let bytes = batch.changes.iter().map(|(key, value)| bytes_of(key, value.as_deref())).sum();
        let only_removes = super::only_removes(&batch);
        let mut writer = lock(&self.writer);
        match writer.admit(bytes, only_removes) {
            Ok(Ok(())) => {}
            Ok(Err(short)) => return Err(ApplyError::Full(short)),
            Err(e) => return Err(self.fail(io_error("ask what room is left", &e)).into()),
        }
        let mut items = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), batch.changes.len())
            // Flushed from fjall's buffer to the operating system by each commit: `buffered` durability rests on it.
            .durability(Some(PersistMode::Buffer));
        // All changes of a batch get one sequence number, so fjall cannot tell which of two to a key is the later one.
        let mut changed = BTreeSet::new();
        for (key, value) in batch.changes.iter().rev() {
            if changed.insert(key) {
                match value {
                    Some(value) => items.insert(&self.keyspace, key.clone(), value.clone()),
                    None => items.remove(&self.keyspace, key.clone()),
                }
            }
        }
        // The batch will get this number or, if a flush takes one in between, a later one.
        let seqno = self.db.seqno();
        self.guarded(|| items.commit())?;
        writer.seqno_end = seqno + 1;
        self.applied.fetch_add(1, Ordering::Release);
        // Sealing a full table is our business. fjall would ask its worker to, once more with each batch; a worker
        // busy with a compaction finds its queue full of that, and then waits for ever for a place in it.
        if self.keyspace.tree.active_memtable().size() > self.memtable_bytes {
            self.guarded(|| self.keyspace.rotate_memtable())?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut synced = lock(&self.synced);
        self.check()?;
        if self.applied.load(Ordering::Acquire) == synced.applied {
            return Ok(());
        }
        let covered = wait_out("look for the newest journal", || {
            let mut writer = lock(&self.writer);
            writer.find_newest_journal()?;
            Ok((self.applied.load(Ordering::Acquire), writer.seqno_end, writer.journal))
        });
        let (applied, seqno_end, journal) =
            covered.map_err(|e: io::Error| self.fail(io_error("look for the newest journal", &e)))?;
        let done = synced.sync_journal(&self.path, journal, &self.file_sync);
        done.map_err(|e| self.fail(io_error("sync the journal", &e)))?;
        // The newest batch covered was appended after the last sync looked for the newest journal, or after the start.
        let mark = Mark { seqno_end, journal: Some(synced.journal) };
        if let Err(e) = synced.watermark.write(mark) {
            // The other slot holds an older mark, which is as true: only less of a damaged journal would be noticed by it.
            let Some(shortage) = e.shortage() else {
                return Err(self.fail(io_error("write the record of syncs", &e)));
            };
            tracing::debug!(shortage, "the record of syncs stays as it was");
        }
        // What was applied meanwhile may not be durable: the next sync has to see to it.
        let since = || self.applied.load(Ordering::Acquire) > applied;
        let noted_late = self.planted.is_where(Bug::SyncNotedLate, since);
        synced.applied = if noted_late { self.applied.load(Ordering::Acquire) } else { applied };
        synced.journal = journal;
        Ok(())
    }

    /// Waits while fjall is behind. It would do so itself, after the batch is written; but should its worker die then,
    /// it waits for ever, and tells nobody.
    fn hold_back(&self) -> Result<(), StoreError> {
        while self.is_behind() {
            // Writes nothing. It is how fjall tells that its worker has died.
            self.guarded(|| self.db.persist(PersistMode::Buffer))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.keyspace.sealed_memtable_count() >= MEMTABLES_WAITING_MAX
            || self.keyspace.tree.l0_run_count() >= RUNS_WAITING_MAX
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Reads something from fjall, which has changed nothing if it fails: so a shortage is waited out.
    fn read<T>(&self, mut work: impl FnMut() -> fjall::Result<T>) -> Result<T, StoreError> {
        let read = wait_out("read the database", || match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(read) => read.map(Ok),
            Err(panic) => Ok(Err(panicked(&*panic))),
        });
        match read {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panicked)) => Err(self.fail(panicked)),
            Err(error) => Err(self.fail(store_error(error))),
        }
    }

    /// Does something with fjall. If that fails, or panics over what it finds on disk, the store has failed.
    fn guarded<T>(&self, work: impl FnOnce() -> fjall::Result<T>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.fail(store_error(error))),
            Err(panic) => Err(self.fail(panicked(&*panic))),
        }
    }

    /// Answers the first failure.
    fn fail(&self, error: StoreError) -> StoreError {
        let first = self.failure.get_or_init(|| {
            let error = match error {
                StoreError::Corrupt(reason) => StoreError::Corrupt(corrupt_in_use(&self.path, &reason)),
                other => other,
            };
            tracing::error!(%error, "the store has failed");
            error
        });
        first.clone()
    }
}

impl Synced {
    /// Makes durable what has been appended to the newest journal. The ones before it are: fjall syncs a journal before
    /// it begins the next.
    ///
    /// Through a descriptor of our own, because fjall would hold its journal all the while and batches would wait.
    fn sync_journal(&mut self, path: &Path, newest: u64, sync: &FileSync) -> io::Result<()> {
        self.descriptor.take_if(|(number, _)| *number != newest); // closed before another is opened
        let file = match self.descriptor.take() {
            Some((_, file)) => file,
            None => wait_out("open the journal", || File::open(path.join(journal::file_name(newest))))?,
        };
        // What a failed sync leaves is unknown, whatever it says.
        sync.sync(&file)?;
        self.descriptor = Some((newest, file));
        Ok(())
    }
}

impl Writer {
    /// Counts a batch of so many bytes as written; or says in words what is too short for it.
    fn admit(&mut self, bytes: u64, only_removes: bool) -> io::Result<Result<(), String>> {
        let admitted = self.descriptors.shortage(only_removes).and_then(|short| match short {
            Some(short) => Ok(Err(short)),
            None => self.space.take(bytes, only_removes),
        });
        admitted.or_else(|e| match e.shortage() {
            Some(shortage) => Ok(Err(shortage.into())),
            None => Err(e),
        })
    }

    /// What is too short now for any batch that adds something.
    fn shortage(&mut self) -> Option<String> {
        // What else there is to say, the next batch will.
        self.admit(0, false).ok()?.err()
    }

    /// fjall does not say which journal it writes to; a later one has a larger number.
    fn find_newest_journal(&mut self) -> io::Result<()> {
        while self.path.join(journal::file_name(self.journal + 1)).try_exists()? {
            self.journal += 1;
        }
        Ok(())
    }
}

/// Looks at what is in a database directory: what is known to be synced in it; `None` if it is new.
///
/// ```text
/// creating   a first start is under way: nothing was stored yet
/// synced     a first start was completed, and data may be there
/// ```
fn prepare(path: &Path) -> Result<Option<Mark>, StoreError> {
    let failed = |e: io::Error| io_error("read the database directory", &e);
    fs::create_dir_all(path).map_err(failed)?;
    let exists = |name: &str| path.join(name).try_exists().map_err(failed);
    let missing = |name: &str| StoreError::Corrupt(format!("the file {name:?} of the database is missing"));
    if let Some(mark) = Watermark::read(path).map_err(failed)? {
        return if exists("version")? { Ok(Some(mark)) } else { Err(missing("version")) };
    }
    if exists(CREATING)? {
        clear_interrupted(path).map_err(failed)?;
    } else if exists("version")? || exists("keyspaces")? {
        return Err(missing("synced"));
    }
    File::create(path.join(CREATING)).and_then(|file| file.sync_all()).map_err(failed)?;
    sync_directory(path).map_err(failed)?;
    Ok(None)
}

/// fjall stumbles over what an interrupted first start has left, so that is taken away, by name.
fn clear_interrupted(path: &Path) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    gone(fs::remove_file(path.join("version")))?;
    gone(fs::remove_file(path.join("0.jnl")))?;
    gone(fs::remove_dir_all(path.join("keyspaces")))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn open_fjall(path: &Path, options: &DiskOptions, exists: bool) -> fjall::Result<(fjall::Database, Keyspace)> {
    let db = fjall::Database::builder(path)
        .cache_size(options.cache_bytes)
        .worker_threads(WORKERS)
        .max_cached_files(Some(descriptors::cached_files()))
        .max_journaling_size(options.journal_bytes_max)
        // Values are the users' and often compressed already; compressing on the put's path costs more than it saves.
        .journal_compression(CompressionType::None)
        .open()?;
    if exists && !db.keyspace_exists(KEYSPACE) {
        return Err(fjall::Error::Unrecoverable);
    }
    let values = KvSeparationOptions::default()
        .separation_threshold(options.separate_values_from)
        .compression(CompressionType::None);
    let keyspace = db.keyspace(KEYSPACE, || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(u64::MAX) // see `OpenDatabase::apply`
            .data_block_compression_policy(CompressionPolicy::disabled())
            .with_kv_separation(Some(values))
    })?;
    Ok((db, keyspace))
}

/// The last check, with the tables open: if the journals had no record left and a tail was cut off, the tables must
/// have what was synced.
fn check_complete(keyspace: &Keyspace, synced: Mark, cut: Option<CutTail>) -> Result<(), StoreError> {
    let Some(cut) = cut else { return Ok(()) };
    let seqno_end = keyspace.tree.get_highest_seqno().map_or(0, |seqno| seqno + 1);
    if seqno_end < synced.seqno_end {
        let aside = cut.path().display();
        return Err(StoreError::Corrupt(format!("records that were synced are lost; they may be in {aside}")));
    }
    cut.discard();
    Ok(())
}

/// What an item costs in the journal.
fn bytes_of(key: &[u8], value: Option<&[u8]>) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len)) as u64 + JOURNAL_ITEM_BYTES
}

fn store_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => io_error("use the database", &e),
        fjall::Error::Poisoned => {
            StoreError::Io("the storage engine has stopped after a failure in the background".into())
        }
        fjall::Error::KeyspaceDeleted | fjall::Error::Locked => StoreError::Io(format!("{error:?}")),
        _ => StoreError::Corrupt(format!("{error:?}")),
    }
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

/// What is wrong with a database that was in use, and what to do. The storage engine tells no file; all of them are in one place.
fn corrupt_in_use(path: &Path, reason: &str) -> String {
    format!(
        "a file of the database in {} is not what was written ({reason}). Check the disk. If it is sound, start the node again: the \
         damage may have been in memory. If it stops again, move the node's data directory away and start it with an empty one \
         (`--init`), only this node's and only while the others are well (`driftless status`): they hold the data, and anti-entropy \
         fills it again",
        path.display()
    )
}

/// fjall checks some of what it reads by assertions.
fn panicked(panic: &(dyn Any + Send)) -> StoreError {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    StoreError::Corrupt(format!("the storage engine panicked: {}", said.unwrap_or("without a word")))
}

/// A panic while one of these is held is one of fjall's, and then the store has failed; no other leaves them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The default of [`DiskOptions::reserve_bytes`]: room for what fjall must still write after the last batch that was
/// let through. That is, as a rule, two tables in memory of 64 MiB, the next journal, and the first steps of a
/// compaction; writing them out then frees their journals. Less risks a failure in the background, after which the
/// node stops; more is lost to the data.
pub const RESERVE_BYTES_DEFAULT: u64 = 256 << 20;

/// Tables in memory that may wait to be written out before batches are held up. fjall itself sleeps for 100 ms at 4.
pub const MEMTABLES_WAITING_MAX: usize = 3;

/// Runs of new tables that may wait for compaction. fjall slows down at 20 and stops at 30.
const RUNS_WAITING_MAX: usize = 28;

/// One thread flushes and compacts: on small machines a second one takes the processor from the shards (measured).
const WORKERS: usize = 1;

/// Marks a first start that has not been completed.
const CREATING: &str = "creating";

/// The only keyspace.
const KEYSPACE: &str = "data";

/// Head of an item in the journal.
const JOURNAL_ITEM_BYTES: u64 = 21;

#[cfg(test)]
mod tests;
