use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::store::behaviour::{Subject, batch, contents, put, suite, value_of};
use crate::testkit::SmallDisk;

suite!(Disk);

/// The store on disk under the suite. Reopened without a sync.
struct Disk {
    // Before the folder, which is removed when it is dropped.
    open: Option<(DiskStore, DiskSyncer)>,
    platter: Arc<Platter>,
    folder: TempDir,
}

/// What a power cut would leave of the newest journal, as its syncs have it; and a gate before it.
#[derive(Default)]
struct Platter {
    durable: Mutex<Vec<u8>>,
    /// The next sync says that it is there, and waits to be let through.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Platter {
    /// What has been written when a sync begins is what it brings to the disk.
    fn sync(&self, mut journal: &File) -> io::Result<()> {
        let mut bytes = Vec::new();
        journal.seek(SeekFrom::Start(0))?;
        journal.read_to_end(&mut bytes)?;
        if let Some((arrived, go)) = lock(&self.gate).take() {
            arrived.send(()).expect("the test waits for it");
            go.recv().expect("the test lets it through");
        }
        bytes.truncate(used(&bytes));
        *lock(&self.durable) = bytes;
        Ok(())
    }
}

impl Disk {
    fn open(folder: TempDir, planted: Planted) -> Disk {
        let platter = Arc::new(Platter::default());
        let writes_to = Arc::clone(&platter);
        let file_sync = FileSync::new(move |journal| writes_to.sync(journal));
        let options = DiskOptions { file_sync, planted, ..options() };
        let database = DiskDatabase::open(folder.path(), options).expect("opens");
        // Whatever is there when it opens is durable.
        platter.sync(&File::open(newest_journal(folder.path())).expect("opens")).expect("is readable");
        Disk { open: Some((database.store(0), database.syncer())), platter, folder }
    }
}

impl Subject for Disk {
    type Store = DiskStore;

    fn create() -> Disk {
        Disk::open(tempfile::tempdir().expect("a temporary directory"), Planted::default())
    }

    fn store(&mut self) -> &mut DiskStore {
        &mut self.open.as_mut().expect("is open between reopenings").0
    }

    fn sync_during(&mut self, meanwhile: impl FnOnce(&mut DiskStore)) {
        let (store, syncer) = self.open.as_mut().expect("is open between reopenings");
        let ((arrived, arrival), (go, gone)) = (mpsc::channel(), mpsc::channel());
        *lock(&self.platter.gate) = Some((arrived, gone));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                syncer.sync().expect("syncs");
                // Nobody was at the gate if there was nothing to do.
                lock(&self.platter.gate).take();
            });
            if arrival.recv().is_ok() {
                meanwhile(store);
                go.send(()).expect("waits at the gate");
            }
        });
    }

    fn power_cut(self) -> Disk {
        let after = tempfile::tempdir().expect("a temporary directory");
        copy(self.folder.path(), after.path());
        let mut durable = lock(&self.platter.durable).clone();
        durable.resize(durable.len() + 4096, 0);
        fs::write(newest_journal(after.path()), durable).expect("written");
        Disk::open(after, Planted::default())
    }

    fn reopen(mut self) -> Disk {
        drop(self.open.take());
        Disk::open(self.folder, Planted::default())
    }
}

fn options() -> DiskOptions {
    DiskOptions {
        cache_bytes: 1 << 20,
        space_probe: Some(ResourceProbe::new(|| Ok(1 << 40))),
        ..DiskOptions::default()
    }
}

fn open(path: &Path) -> DiskDatabase {
    DiskDatabase::open(path, options()).expect("opens")
}

/// The directory as the operating system sees it now: what `kill -9` would leave. Of the zeros that a journal is filled
/// up with a few are enough.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("listed") {
        let (from, to) = (entry.as_ref().expect("listed").path(), to.join(entry.expect("listed").file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            let bytes = fs::read(&from).expect("read");
            let used = if is_journal(&from) { bytes.len().min(used(&bytes) + 4096) } else { bytes.len() };
            fs::write(&to, &bytes[..used]).expect("written");
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

fn newest_journal(folder: &Path) -> PathBuf {
    let journals = files(folder).into_iter().filter(|path| is_journal(path));
    journals.max_by_key(|path| number_of(path)).expect("has a journal")
}

/// Without the zeros at the end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

fn journal_end(journal: &Path) -> usize {
    used(&fs::read(journal).expect("read"))
}

#[test]
fn an_applied_batch_survives_the_death_of_the_process() {
    let (folder, after) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut store = open(folder.path()).store(0);
    store.apply(batch([("a", Some("1")), ("b", Some("2"))])).expect("applies");
    let long = "long ".repeat(50_000);
    put(&mut store, "c", &long);
    copy(folder.path(), after.path());
    let store = open(after.path()).store(0);
    assert_eq!(value_of(&store, "b").as_deref(), Some("2"));
    assert_eq!(value_of(&store, "c"), Some(long));
}

#[test]
fn a_torn_tail_loses_what_was_not_synced_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a directory");
    let database = open(folder.path());
    let mut store = database.store(0);
    put(&mut store, "synced", &"1".repeat(3000));
    put(&mut store, "synced too", "2");
    database.syncer().sync().expect("syncs");
    let synced = journal_end(&folder.path().join("0.jnl"));
    put(&mut store, "unsynced", &"3".repeat(3000));
    put(&mut store, "unsynced too", "4");
    let written = journal_end(&folder.path().join("0.jnl"));

    // Any 512 bytes of what was not synced may be missing, whatever of the rest has reached the disk.
    for hole in (synced..written).step_by(512) {
        let after = tempfile::tempdir().expect("a directory");
        copy(folder.path(), after.path());
        let journal = after.path().join("0.jnl");
        let mut bytes = fs::read(&journal).expect("read");
        bytes[hole..written.min(hole + 512)].fill(0);
        fs::write(&journal, bytes).expect("written");
        for _ in 0..2 {
            let mut store = open(after.path()).store(0);
            assert_eq!(value_of(&store, "synced too").as_deref(), Some("2"), "hole at {hole}");
            assert_eq!(value_of(&store, "unsynced too"), None, "a record after a hole was taken");
            put(&mut store, "next", "5");
        }
        assert_eq!(contents(&open(after.path()).store(0)).iter().filter(|(key, _)| key == "next").count(), 1);
        assert!(!files(after.path()).iter().any(|path| path.extension().is_some_and(|e| e == "cut")), "tidied up");
    }
}

#[test]
fn damage_never_gives_wrong_data_or_loses_what_was_synced() {
    let (folder, original) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut expected = BTreeMap::new();
    {
        let database = open(folder.path());
        let mut store = database.store(0);
        let mut write = |round: usize| {
            for i in 0..20 - 7 * round {
                let (key, value) = (format!("key {:02}", i * 3 % 20), format!("{round}/{i} ").repeat(i * 20));
                put(&mut store, &key, &value);
                expected.insert(key, value);
            }
        };
        // Some in tables and value logs, some in the journal; records of several rounds.
        write(0);
        database.0.keyspace.rotate_memtable_and_wait().expect("flushed");
        write(1);
        database.0.keyspace.rotate_memtable_and_wait().expect("flushed");
        write(2);
        database.syncer().sync().expect("syncs");
        copy(folder.path(), original.path());
    }
    let original = original.path();
    let (mut refused, mut unharmed, mut answered) = (0, 0, 0);
    for file in files(original) {
        let name = file.strip_prefix(original).expect("is below it").to_owned();
        let used = journal_end(&file).max(1);
        let steps = if is_journal(&name) { 100 } else { 12 };
        let flips = (0..used).step_by(used.div_ceil(steps)).map(|at| (at, false));
        let cuts = [0, 1, used / 3, used / 2, used - 1].into_iter().map(|at| (at, true));
        for (at, cut) in flips.chain(cuts) {
            let damaged = tempfile::tempdir().expect("a directory");
            copy(original, damaged.path());
            let path = damaged.path().join(&name);
            let mut bytes = fs::read(&path).expect("read");
            if cut {
                bytes.truncate(at);
            } else if at < bytes.len() {
                bytes[at] ^= 1 << (at % 8);
            }
            fs::write(&path, bytes).expect("written");
            let what = format!("{} {} {at}", name.display(), if cut { "cut at" } else { "flipped at" });

            let database = match DiskDatabase::open(damaged.path(), options()) {
                Ok(database) => database,
                Err(DiskOpenError::Failed { .. } | DiskOpenError::OtherFormat(_)) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let store = database.store(0);
            let mut harmed = false;
            for (key, value) in &expected {
                match store.get(key.as_bytes()) {
                    Ok(Some(found)) => assert_eq!(found, value.as_bytes(), "{what}: wrong value of {key}"),
                    Ok(None) => panic!("{what}: {key} is lost, and nobody noticed"),
                    Err(error) => {
                        harmed = true;
                        assert_eq!(store.get(b"any"), Err(error), "{what}: fail-stop");
                    }
                }
            }
            if harmed { answered += 1 } else { unharmed += 1 }
        }
    }
    assert!(refused > 100 && answered > 0 && unharmed > 0, "{refused} refused, {answered} errors, {unharmed} unharmed");
}

/// `stopped at once: storage is corrupt: Storage(ChecksumMismatch …)` named neither a place nor a remedy.
#[test]
fn damage_met_in_use_says_where_it_is_and_what_to_do() {
    let original = tempfile::tempdir().expect("a directory");
    {
        let folder = tempfile::tempdir().expect("a directory");
        let database = open(folder.path());
        let mut store = database.store(0);
        (0..20).for_each(|i| {
            put(&mut store, &format!("key {i}"), &format!("{i} ").repeat(2_000));
        });
        database.0.keyspace.rotate_memtable_and_wait().expect("flushed");
        database.syncer().sync().expect("syncs");
        copy(folder.path(), original.path());
    }
    let mut met = 0;
    for file in files(original.path()).into_iter().filter(|file| !is_journal(file)) {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(original.path(), damaged.path());
        let path = damaged.path().join(file.strip_prefix(original.path()).expect("is below it"));
        let mut bytes = fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        let Some(byte) = bytes.get_mut(middle) else { continue };
        *byte ^= 1;
        fs::write(&path, bytes).expect("written");
        let Ok(database) = DiskDatabase::open(damaged.path(), options()) else { continue };
        let store = database.store(0);
        let Some(error) = (0..20).find_map(|i| store.get(format!("key {i}").as_bytes()).err()) else { continue };
        let said = error.to_string();
        assert!(said.contains(&damaged.path().display().to_string()), "{said}");
        assert!(said.contains("start the node again") && said.contains("start it with an empty one"), "{said}");
        met += 1;
    }
    assert!(met > 0, "a value or a block of a table was damaged");
}

#[test]
fn a_syncer_covers_all_shards_and_their_numbers_are_their_own() {
    let folder = tempfile::tempdir().expect("a directory");
    let database = open(folder.path());
    let (mut first, mut second) = (database.store(0), database.store(1));
    assert_eq!(put(&mut first, "0/a", "1"), BatchSeq(1));
    assert_eq!(put(&mut first, "0/b", "1"), BatchSeq(2));
    assert_eq!(put(&mut second, "1/a", "1"), BatchSeq(1));
    let syncer = database.syncer();
    syncer.sync().expect("syncs");
    let mark = |folder: &Path| Watermark::read(folder).expect("readable").expect("there");
    let synced = mark(folder.path());
    assert!(synced.seqno_end > 0);
    syncer.sync().expect("syncs");
    assert_eq!(mark(folder.path()), synced, "nothing was new");
    put(&mut second, "1/a", "2");
    syncer.sync().expect("syncs");
    assert!(mark(folder.path()) > synced);
}

#[test]
fn shards_apply_and_sync_at_once() {
    let folder = tempfile::tempdir().expect("a directory");
    {
        let database = open(folder.path());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|shard| {
                    let mut store = database.store(shard);
                    scope.spawn(move || {
                        for i in 0..500 {
                            put(&mut store, &format!("{shard}/{i}"), "1");
                        }
                    })
                })
                .collect();
            let (syncer, stop) = (database.syncer(), &stop);
            let syncing = scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    syncer.sync().expect("syncs");
                }
            });
            for writer in writers {
                writer.join().expect("no panic");
            }
            stop.store(true, Ordering::Relaxed);
            syncing.join().expect("no panic");
        });
    }
    assert_eq!(contents(&open(folder.path()).store(0)).len(), 1500);
}

#[test]
fn a_full_disk_refuses_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a directory");
    let free = Arc::new(AtomicU64::new(100 << 20));
    let probe = ResourceProbe::new({
        let free = Arc::clone(&free);
        move || Ok(free.load(Ordering::Relaxed))
    });
    let options = DiskOptions { reserve_bytes: 10 << 20, space_probe: Some(probe), ..options() };
    let database = DiskDatabase::open(folder.path(), options).expect("opens");
    let mut store = database.store(0);
    let seq = put(&mut store, "a", "1");
    let wait = || std::thread::sleep(Duration::from_millis(110)); // for the next look
    free.store(9 << 20, Ordering::Relaxed);
    wait();
    let written = journal_end(&folder.path().join("0.jnl"));
    let refused = store.apply(batch([("a", None), ("b", Some("2"))]));
    assert!(matches!(refused, Err(ApplyError::Full(_))), "{refused:?}");
    assert_eq!(journal_end(&folder.path().join("0.jnl")), written);
    assert_eq!(contents(&store), [("a".into(), "1".into())], "reads go on");
    assert_eq!(store.apply(batch([("a", None)])), Ok(BatchSeq(seq.0 + 1)), "and so do removals; no number is lost");
    free.store(4 << 20, Ordering::Relaxed);
    wait();
    assert!(matches!(store.apply(batch([("a", None)])), Err(ApplyError::Full(_))));
    free.store(100 << 20, Ordering::Relaxed);
    wait();
    put(&mut store, "b", "2");
    database.syncer().sync().expect("the store has not failed");
}

/// What the probes say are errors of the system, as it words them.
#[test]
fn a_shortage_of_any_kind_is_refused_as_a_full_disk_is_and_passes() {
    use rustix::io::Errno;
    let folder = tempfile::tempdir().expect("a directory");
    let (space, files) = (Arc::new(Mutex::new(Ok(1 << 40))), Arc::new(Mutex::new(Ok(1000))));
    let answer = |asked: &Arc<Mutex<Result<u64, Errno>>>| {
        let asked = Arc::clone(asked);
        move || Ok((*lock(&asked))?)
    };
    let options = DiskOptions {
        space_probe: Some(ResourceProbe::new(answer(&space))),
        descriptor_probe: ResourceProbe::new(answer(&files)),
        ..options()
    };
    let database = DiskDatabase::open(folder.path(), options).expect("opens");
    let mut store = database.store(0);
    put(&mut store, "a", "1");
    assert_eq!(store.shortage(), None);
    let cases = [
        (Ok(1 << 40), Err(Errno::MFILE), "EMFILE"),
        (Ok(1 << 40), Err(Errno::NFILE), "ENFILE"),
        (Ok(1 << 40), Ok(3), "3 more files can be opened"),
        (Err(Errno::NOMEM), Ok(1000), "ENOMEM"),
        (Err(Errno::DQUOT), Ok(1000), "EDQUOT"),
        (Ok(0), Ok(1000), "0 MiB are free"),
    ];
    for (says_space, says_files, expected) in cases {
        (*lock(&space), *lock(&files)) = (says_space, says_files);
        let said = until(|| store.shortage().filter(|said| said.contains(expected)));
        let refused = store.apply(batch([("b", Some("2"))]));
        assert_eq!(refused, Err(ApplyError::Full(said)));
        assert_eq!(contents(&store), [("a".into(), "1".into())], "reads go on");
        database.syncer().sync().expect("the store has not failed");
        (*lock(&space), *lock(&files)) = (Ok(1 << 40), Ok(1000));
        until(|| store.shortage().is_none().then_some(()));
        put(&mut store, "a", "1");
    }
}

/// Somebody else has taken the last block of the device.
#[test]
fn a_store_on_a_full_disk_opens_is_read_and_takes_writes_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 96 << 20) else { return };
    let path = disk.path().join("store");
    let options = || DiskOptions { reserve_bytes: 16 << 20, space_probe: None, memtable_bytes: 1 << 20, ..options() };
    let reserve = path.join("reserve");
    let value = "v".repeat(1 << 16);
    {
        let database = DiskDatabase::open(&path, options()).expect("opens");
        let mut store = database.store(0);
        for i in 0..100 {
            put(&mut store, &format!("{i:03}"), &value);
        }
        database.syncer().sync().expect("syncs");
        assert_eq!(fs::metadata(&reserve).expect("is kept").len(), 4 << 20);
        disk.fill(0);
        until(|| store.shortage());
        assert!(!reserve.exists(), "given up for what the store must still write");
        assert!(matches!(store.apply(batch([("a", Some("1"))])), Err(ApplyError::Full(_))));
        assert_eq!(contents(&store).len(), 100);
    }
    disk.relieve();
    disk.fill(0);
    for _ in 0..2 {
        let database = DiskDatabase::open(&path, options()).expect("opens on a full disk");
        let mut store = database.store(0);
        assert_eq!(contents(&store).len(), 100);
        assert!(matches!(store.apply(batch([("a", Some("1"))])), Err(ApplyError::Full(_))));
        database.syncer().sync().expect("the store has not failed");
    }
    let database = DiskDatabase::open(&path, options()).expect("opens on a full disk");
    let mut store = database.store(0);
    disk.relieve();
    until(|| store.shortage().is_none().then_some(()));
    put(&mut store, "a", "1");
    database.syncer().sync().expect("syncs");
    assert!(reserve.exists(), "kept again");
}

/// Asks until there is an answer. What is asked looks at the clock, and answers within a second or two.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not happen");
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn after_the_first_failure_every_call_answers_the_same_error() {
    let folder = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(false));
    let probe = ResourceProbe::new({
        let broken = Arc::clone(&broken);
        move || {
            if broken.load(Ordering::Relaxed) { Err(io::Error::other("broken")) } else { Ok(1 << 40) }
        }
    });
    let database =
        DiskDatabase::open(folder.path(), DiskOptions { space_probe: Some(probe), ..options() }).expect("opens");
    let (mut store, mut other) = (database.store(0), database.store(1));
    put(&mut store, "a", "1");
    broken.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(110));
    let Err(ApplyError::Failed(error)) = store.apply(batch([("b", Some("1"))])) else { panic!("should fail") };
    assert!(matches!(error, StoreError::Io(_)));
    broken.store(false, Ordering::Relaxed);
    assert_eq!(store.get(b"a"), Err(error.clone()));
    assert_eq!(store.scan(b"a"..b"z", &mut |_, _| ControlFlow::Continue(())), Err(error.clone()));
    assert_eq!(other.apply(batch([("a", Some("1"))])), Err(error.clone().into()));
    assert_eq!(database.syncer().sync(), Err(error.clone()));
    assert_eq!(database.disk_bytes(), Err(error));
}

#[test]
fn a_database_is_opened_once() {
    let folder = tempfile::tempdir().expect("a directory");
    let first = open(folder.path());
    let second = DiskDatabase::open(folder.path(), options());
    assert_eq!(second.err(), Some(DiskOpenError::InUse(folder.path().into())));
    drop(first);
    open(folder.path());
}

#[test]
fn an_interrupted_first_start_is_started_over_and_a_lost_record_of_syncs_is_not() {
    let folder = tempfile::tempdir().expect("a directory");
    put(&mut open(folder.path()).store(0), "a", "1");
    let before = files(folder.path());

    fs::rename(folder.path().join("synced"), folder.path().join("elsewhere")).expect("renamed");
    assert!(matches!(DiskDatabase::open(folder.path(), options()), Err(DiskOpenError::Failed { .. })));
    fs::rename(folder.path().join("elsewhere"), folder.path().join("synced")).expect("renamed");
    assert_eq!(files(folder.path()), before, "nothing was touched");
    assert_eq!(value_of(&open(folder.path()).store(0), "a").as_deref(), Some("1"));

    // As if the power had gone during the first start, at any of its steps.
    for left in [&["synced"][..], &["synced", "version"], &["synced", "version", "0.jnl"]] {
        let folder = tempfile::tempdir().expect("a directory");
        drop(open(folder.path()));
        for file in left {
            fs::remove_file(folder.path().join(file)).expect("removed");
        }
        File::create(folder.path().join(CREATING)).expect("created");
        put(&mut open(folder.path()).store(0), "a", "1");
        assert_eq!(value_of(&open(folder.path()).store(0), "a").as_deref(), Some("1"));
    }
}

#[test]
fn data_larger_than_the_tables_in_memory_is_all_there() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = || DiskOptions { memtable_bytes: 1 << 20, journal_bytes_max: 64 << 20, ..options() };
    let value = |i: usize| Bytes::from(vec![i as u8; [100, 3000][i % 2]]);
    let key = |i: usize| Bytes::from(format!("{:016x}", (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let count = 20_000;
    {
        let database = DiskDatabase::open(folder.path(), options()).expect("opens");
        let (mut store, syncer) = (database.store(0), database.syncer());
        for i in 0..count {
            store.apply(Batch { changes: vec![(key(i % 15_000), Some(value(i)))] }).expect("applies");
            if i % 100 == 0 {
                syncer.sync().expect("syncs");
            }
        }
    }
    let database = DiskDatabase::open(folder.path(), options()).expect("opens");
    let store = database.store(0);
    let mut found = 0;
    store
        .scan(b"0"..b"g", &mut |_, _| {
            found += 1;
            ControlFlow::Continue(())
        })
        .expect("works");
    assert_eq!(found, 15_000);
    for i in (5_000..count).step_by(97) {
        assert_eq!(store.get(&key(i % 15_000)), Ok(Some(value(i))));
    }
}

/// The syncer has a descriptor of its own, and fjall begins a new journal whenever it likes: a sync of the one before
/// would promise what no disk has.
#[test]
fn a_sync_is_of_the_journal_that_holds_the_newest_batch() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let options = DiskOptions { memtable_bytes: 8 << 20, ..options() };
    let db = DiskDatabase::open(folder.path(), options).expect("opens");
    let (mut store, syncer) = (db.store(0), db.syncer());
    let value = "7".repeat(1 << 20);
    let mut journals = BTreeSet::new();
    for i in 0..150_u32 {
        put(&mut store, &format!("key-{i:04}"), &value);
        // A worker of fjall may begin the next one at any time: the batch is in this one or, synced by fjall, before it.
        let newest = newest_journal(folder.path());
        let inode = |file: &File| file.metadata().expect("has metadata").ino();
        let (number, file) = (number_of(&newest).expect("is a number"), File::open(&newest).expect("opens"));
        syncer.sync().expect("synced");
        let synced = lock(&db.0.synced);
        let (synced_number, synced_file) = synced.descriptor.as_ref().expect("was opened");
        let same = *synced_number == number && inode(synced_file) == inode(&file);
        assert!(same || *synced_number > number, "after batch {i}: {synced_number} was synced, not {number}");
        journals.insert(*synced_number);
    }
    assert!(journals.len() > 1, "no second journal was begun: {journals:?}");
}

/// What the gate is for: the mistake is made where nothing but the second sync can tell.
#[test]
#[cfg(feature = "planted-bugs")]
fn a_sync_that_is_noted_late_is_noticed_at_the_gate() {
    let planted = Planted::bug(Bug::SyncNotedLate);
    let mut disk = Disk::open(tempfile::tempdir().expect("a temporary directory"), planted.clone());
    put(disk.store(), "a", "1");
    disk.sync_during(|store| {
        put(store, "b", "1");
    });
    assert_eq!(planted.hits(), 1);
    disk.sync_during(|_| panic!("the second sync has nothing to do"));
    assert_eq!(contents(disk.power_cut().store()), [("a".into(), "1".into())], "what the second sync covers is lost");
}

fn number_of(journal: &Path) -> Option<u64> {
    journal.file_stem()?.to_str()?.parse().ok()
}

/// A key that many coordinators have filled is one value to the store, several times as large as its table in memory.
#[test]
fn the_largest_state_of_a_key_is_kept_and_found_again_after_a_restart() {
    let mut disk = Disk::create();
    let state = Bytes::from(vec![b'x'; driftless_proto::key::STATE_BYTES_MAX]);
    let changes = vec![
        (Bytes::from_static(b"large"), Some(state.clone())),
        (Bytes::from_static(b"small"), Some(Bytes::from_static(b"y"))),
    ];
    disk.store().apply(Batch { changes }).expect("applies");
    let mut disk = disk.reopen();
    assert!(disk.store().get(b"large").expect("reads") == Some(state));
    assert_eq!(disk.store().get(b"small").expect("reads"), Some(Bytes::from_static(b"y")));
}
