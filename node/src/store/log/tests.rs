use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::folder::Folder as _;
use super::platter::Platter;
use super::watermark::Watermark;
use super::worker::Worker as _;
use super::*;
use crate::store::behaviour::{Subject, batch, contents, put, suite, value_of};
use crate::testkit::SmallDisk;

/// The log under the suite, on a simulated disk; all keys have a token.
struct Tokens(Disk);

/// The same with keys that have none.
struct Ordered(Disk);

struct Disk {
    open: Option<(LogStore, LogSyncer)>,
    platter: Platter,
    layout: Layout,
    planted: Planted,
}

mod of_keys_with_tokens {
    use super::*;
    suite!(Tokens);
}

mod of_other_keys {
    use super::*;
    suite!(Ordered);
}

impl Disk {
    fn open(platter: Platter, layout: Layout, planted: Planted) -> Disk {
        let space = Space::new(ResourceProbe::new(|| Ok(1 << 40)), 0);
        let options = LogOptions { layout, planted: planted.clone(), segment_bytes: 1 << 20, ..options() };
        let random = StdRng::seed_from_u64(7);
        let folder = Box::new(platter.clone());
        let Opened { log, .. } = open_log(folder, "test".into(), space, random, &options).expect("opens");
        let database =
            LogDatabase(Arc::new(Open { log, readers: Readers::default(), threads: Vec::new(), _lock: None }));
        Disk { open: Some((database.store(0), database.syncer())), platter, layout, planted }
    }

    fn of(layout: Layout) -> Disk {
        Disk::open(Platter::default(), layout, Planted::default())
    }

    fn store(&mut self) -> &mut LogStore {
        &mut self.open.as_mut().expect("is open between reopenings").0
    }

    fn sync_during(&mut self, meanwhile: impl FnOnce(&mut LogStore)) {
        let (store, syncer) = self.open.as_mut().expect("is open between reopenings");
        let ((arrived, arrival), (go, gone)) = (mpsc::channel(), mpsc::channel());
        self.platter.set_gate(Some((arrived, gone)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                syncer.sync().expect("syncs");
                // Nobody was at the gate if there was nothing to do.
                self.platter.set_gate(None);
            });
            if arrival.recv().is_ok() {
                meanwhile(store);
                go.send(()).expect("waits at the gate");
            }
        });
    }

    fn power_cut(mut self) -> Disk {
        drop(self.open.take());
        self.platter.cut_power_cleanly();
        Disk::open(self.platter, self.layout, self.planted)
    }

    fn reopen(mut self) -> Disk {
        drop(self.open.take());
        Disk::open(self.platter, self.layout, self.planted)
    }
}

macro_rules! subject {
    ($name:ident, $layout:expr) => {
        impl Subject for $name {
            type Store = LogStore;

            fn create() -> Self {
                $name(Disk::of($layout))
            }

            fn store(&mut self) -> &mut LogStore {
                self.0.store()
            }

            fn sync_during(&mut self, meanwhile: impl FnOnce(&mut LogStore)) {
                self.0.sync_during(meanwhile);
            }

            fn power_cut(self) -> Self {
                $name(self.0.power_cut())
            }

            fn reopen(self) -> Self {
                $name(self.0.reopen())
            }
        }
    };
}

subject!(Tokens, Layout { prefix: b"", arc_bits: 8 });
subject!(Ordered, Layout { prefix: b"no key of the suite", arc_bits: 8 });

fn options() -> LogOptions {
    LogOptions {
        space_probe: Some(ResourceProbe::new(|| Ok(1 << 40))),
        segment_bytes: 1 << 20,
        ..LogOptions::default()
    }
}

fn open(path: &Path) -> LogDatabase {
    LogDatabase::open(path, options()).expect("opens")
}

/// The directory as the operating system sees it now: what `kill -9` would leave.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn names(path: &Path) -> Vec<String> {
    let listed = fs::read_dir(path).expect("listed");
    let mut names: Vec<_> =
        listed.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect();
    names.sort();
    names
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
fn an_applied_batch_survives_the_death_of_the_process() {
    let (folder, after) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let database = open(folder.path());
    let mut store = database.store(0);
    store.apply(batch([("a", Some("1")), ("b", Some("2"))])).expect("applies");
    let long = "long ".repeat(500_000);
    put(&mut store, "c", &long);
    copy(folder.path(), after.path());
    let store = open(after.path()).store(0);
    assert_eq!(value_of(&store, "b").as_deref(), Some("2"));
    assert_eq!(value_of(&store, "c"), Some(long));
}

#[test]
fn damage_never_gives_wrong_data_or_loses_what_was_synced() {
    let platter = Platter::default();
    let options = || LogOptions { segment_bytes: 128 << 10, ..options() };
    let open_it = |platter: &Platter, layout: Layout| {
        let space = Space::new(ResourceProbe::new(|| Ok(1 << 40)), 0);
        let options = LogOptions { layout, ..options() };
        open_log(Box::new(platter.clone()), "test".into(), space, StdRng::seed_from_u64(3), &options)
    };
    let ordered = Layout { prefix: b"none", arc_bits: 8 };
    let mut expected = BTreeMap::new();
    {
        let Opened { log, freed } = open_it(&platter, ordered).expect("opens");
        let mut keeper = Keeper::new(Arc::clone(&log), freed);
        // Some in segments with footers, some in the newest.
        for round in 0..40_usize {
            let (key, value) = (format!("key {:02}", round * 3 % 20), format!("{round} ").repeat(2_000));
            log.apply(&batch([(&key[..], Some(&value[..]))])).expect("applies");
            expected.insert(key, value);
            log.sync().expect("syncs");
            while round < 30 && keeper.step().expect("works") != worker::Next::WhenRung {}
        }
        log.sync().expect("syncs");
    }
    let names: Vec<_> = platter.names().expect("listed");
    let (mut refused, mut unharmed, mut answered) = (0, 0, 0);
    for name in names {
        let length = platter.bytes_of(&name).len();
        for at in (0..length).step_by((length / 300).max(1)) {
            let damaged = platter.copy();
            damaged.damage(&name, at);
            let what = format!("{name} at {at}");
            let log = match open_it(&damaged, ordered) {
                Ok(Opened { log, .. }) => log,
                Err(StoreError::Corrupt(_)) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let mut harmed = false;
            for (key, value) in &expected {
                match log.get(key.as_bytes()) {
                    Ok(Some(found)) => assert_eq!(found, value.as_bytes(), "{what}: wrong value of {key}"),
                    Ok(None) => panic!("{what}: {key} is lost, and nobody noticed"),
                    Err(error) => {
                        harmed = true;
                        assert_eq!(log.get(key.as_bytes()), Err(error), "{what}: fail-stop");
                    }
                }
            }
            if harmed { answered += 1 } else { unharmed += 1 }
        }
    }
    assert!(
        refused > 20 && answered > 20 && unharmed > 20,
        "{refused} refused, {answered} errors, {unharmed} unharmed"
    );
}

/// Records of keys with tokens say by themselves that they are damaged: the node goes on, and has them healed.
#[test]
fn a_damaged_record_is_given_as_it_is_and_its_segment_is_kept() {
    let platter = Platter::default();
    let mut disk = Disk::open(platter.clone(), Layout { prefix: b"", arc_bits: 8 }, Planted::default());
    put(disk.store(), "a", &"sound ".repeat(100));
    put(disk.store(), "b", "sound");
    disk.sync_during(|_| {});
    let log = Arc::clone(&disk.store().open.log);
    let place = log.index.place(b"a");
    let location = log.index.get(&place).expect("is there");
    platter.damage(&segment::name(location.segment), location.offset as usize + frame::RECORD_HEAD_BYTES + 20);
    let found = disk.store().get(b"a").expect("the store goes on").expect("is there");
    assert!(found.len() == 600 && found != "sound ".repeat(100).as_bytes());
    assert_eq!(value_of(disk.store(), "b").as_deref(), Some("sound"));
    put(disk.store(), "a", "healed");
    assert_eq!(value_of(disk.store(), "a").as_deref(), Some("healed"));
}

/// `stopped at once: storage is corrupt` named neither a place nor a remedy.
#[test]
fn damage_met_in_use_says_where_it_is_and_what_to_do() {
    let platter = Platter::default();
    let mut disk = Disk::open(platter.clone(), Layout { prefix: b"none", arc_bits: 8 }, Planted::default());
    put(disk.store(), "a", &"sound ".repeat(100));
    let log = Arc::clone(&disk.store().open.log);
    let location = log.index.get(&log.index.place(b"a")).expect("is there");
    platter.damage(&segment::name(location.segment), location.offset as usize + frame::RECORD_HEAD_BYTES + 20);
    let said = disk.store().get(b"a").expect_err("is damaged").to_string();
    assert!(said.contains("00000000.segment in the database in test"), "{said}");
    assert!(said.contains("start the node again") && said.contains("start it with an empty one"), "{said}");
    assert!(disk.store().apply(batch([("b", Some("1"))])).is_err(), "fail-stop");
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
    let mark = || {
        let folder = SystemFolder::open(folder.path().into(), FileSync::of_system()).expect("opens");
        Watermark::read(&folder).expect("readable").expect("there")
    };
    syncer.sync().expect("syncs");
    let synced = mark();
    assert!(synced.batch > 0);
    syncer.sync().expect("syncs");
    assert_eq!(mark(), synced, "nothing was new");
    put(&mut second, "1/a", "2");
    syncer.sync().expect("syncs");
    assert!(mark() > synced);
}

/// With small segments, so that the keeper merges what they are writing over.
#[test]
fn shards_apply_read_and_sync_at_once_while_segments_are_merged() {
    let folder = tempfile::tempdir().expect("a directory");
    let options = || LogOptions { segment_bytes: 64 << 10, ..options() };
    let text = |shard: u16, i: usize| format!("{shard}/{i} ").repeat(40);
    let recycled = {
        let database = LogDatabase::open(folder.path(), options()).expect("opens");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|shard| {
                    let mut store = database.store(shard);
                    scope.spawn(move || {
                        for i in 0..4_000 {
                            // A record with a token, and one without.
                            let record = Bytes::from(format!("\u{1}{shard}{:08}", i % 50));
                            let other = Bytes::from(format!("{shard}/{:02}", i % 50));
                            let value = Some(Bytes::from(text(shard, i)));
                            let changes = vec![(record.clone(), value.clone()), (other.clone(), value.clone())];
                            store.apply(Batch { changes }).expect("applies");
                            assert_eq!((store.get(&record), store.get(&other)), (Ok(value.clone()), Ok(value)));
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
            writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
            stop.store(true, Ordering::Relaxed);
            syncing.join().expect("no panic");
        });
        // What is merged and not needed is given back.
        until(|| (names(folder.path()).len() < 30).then_some(()));
        database.0.log.head().ordinal
    };
    assert!(recycled > 100, "{recycled}");
    let database = LogDatabase::open(folder.path(), options()).expect("opens");
    let store = database.store(0);
    let found = contents(&store);
    assert_eq!(found.len(), 300);
    for shard in 0..3 {
        for i in 0..50 {
            let last = Bytes::from(text(shard, 3_950 + i));
            assert_eq!(store.get(format!("\u{1}{shard}{i:08}").as_bytes()), Ok(Some(last.clone())));
            assert_eq!(store.get(format!("{shard}/{i:02}").as_bytes()), Ok(Some(last)));
        }
    }
}

#[test]
fn a_full_disk_refuses_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a directory");
    let free = Arc::new(AtomicU64::new(100 << 20));
    let probe = ResourceProbe::new({
        let free = Arc::clone(&free);
        move || Ok(free.load(Ordering::Relaxed))
    });
    let options =
        LogOptions { reserve_bytes: 10 << 20, space_probe: Some(probe), segment_bytes: 64 << 10, ..options() };
    let database = LogDatabase::open(folder.path(), options).expect("opens");
    let mut store = database.store(0);
    let seq = put(&mut store, "a", "1");
    free.store(9 << 20, Ordering::Relaxed);
    until(|| store.shortage());
    let refused = store.apply(batch([("a", None), ("b", Some("2"))]));
    assert!(matches!(refused, Err(ApplyError::Full(_))), "{refused:?}");
    assert_eq!(contents(&store), [("a".into(), "1".into())], "reads go on");
    assert_eq!(store.apply(batch([("a", None)])), Ok(BatchSeq(seq.0 + 1)), "and so do removals; no number is lost");
    free.store(100 << 20, Ordering::Relaxed);
    until(|| store.shortage().is_none().then_some(()));
    put(&mut store, "a", "1");
    free.store(4 << 20, Ordering::Relaxed);
    until(|| store.shortage());
    assert!(matches!(store.apply(batch([("a", None)])), Err(ApplyError::Full(_))));
    free.store(100 << 20, Ordering::Relaxed);
    until(|| store.shortage().is_none().then_some(()));
    put(&mut store, "b", "2");
    database.syncer().sync().expect("the store has not failed");
}

/// What the probes say are errors of the system, as it words them.
#[test]
fn a_shortage_of_any_kind_is_refused_as_a_full_disk_is_and_passes() {
    use rustix::io::Errno;
    type Answer = Arc<Mutex<Result<u64, Errno>>>;
    let folder = tempfile::tempdir().expect("a directory");
    let (space, files): (Answer, Answer) = (Arc::new(Mutex::new(Ok(1 << 40))), Arc::new(Mutex::new(Ok(1000))));
    let answer = |asked: &Answer| {
        let asked = Arc::clone(asked);
        move || Ok((*append::lock(&asked))?)
    };
    let options = LogOptions {
        space_probe: Some(ResourceProbe::new(answer(&space))),
        descriptor_probe: ResourceProbe::new(answer(&files)),
        ..options()
    };
    let database = LogDatabase::open(folder.path(), options).expect("opens");
    let mut store = database.store(0);
    put(&mut store, "a", "1");
    // Spare segments are room as well.
    until(|| (database.0.log.head().spares.len() >= 4).then_some(()));
    assert_eq!(store.shortage(), None);
    let cases = [
        (Ok(1 << 40), Err(Errno::MFILE), "EMFILE"),
        (Ok(1 << 40), Err(Errno::NFILE), "ENFILE"),
        (Ok(1 << 40), Ok(3), "3 more files can be opened"),
        (Err(Errno::NOMEM), Ok(1000), "ENOMEM"),
        (Err(Errno::DQUOT), Ok(1000), "EDQUOT"),
        (Ok(0), Ok(1000), "2 MiB of room are left"),
    ];
    for (says_space, says_files, expected) in cases {
        (*append::lock(&space), *append::lock(&files)) = (says_space, says_files);
        let said = until(|| store.shortage().filter(|said| said.contains(expected)));
        let refused = store.apply(batch([("b", Some("2"))]));
        assert_eq!(refused, Err(ApplyError::Full(said)));
        assert_eq!(contents(&store), [("a".into(), "1".into())], "reads go on");
        database.syncer().sync().expect("the store has not failed");
        (*append::lock(&space), *append::lock(&files)) = (Ok(1 << 40), Ok(1000));
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
    let options = || LogOptions { reserve_bytes: 16 << 20, space_probe: None, ..options() };
    let reserve = path.join("reserve");
    let value = "v".repeat(1 << 16);
    {
        let database = LogDatabase::open(&path, options()).expect("opens");
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
        let database = LogDatabase::open(&path, options()).expect("opens on a full disk");
        let mut store = database.store(0);
        assert_eq!(contents(&store).len(), 100);
        assert!(matches!(store.apply(batch([("a", Some("1"))])), Err(ApplyError::Full(_))));
        database.syncer().sync().expect("the store has not failed");
    }
    let database = LogDatabase::open(&path, options()).expect("opens on a full disk");
    let mut store = database.store(0);
    disk.relieve();
    until(|| store.shortage().is_none().then_some(()));
    put(&mut store, "a", "1");
    database.syncer().sync().expect("syncs");
    until(|| reserve.exists().then_some(()));
}

/// Writing the same data again and again on a disk that holds it a few times.
#[test]
fn a_disk_that_was_filled_by_overwriting_is_merged_free() {
    let folder = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 64 << 20) else { return };
    let options = LogOptions { reserve_bytes: 16 << 20, space_probe: None, ..options() };
    let database = LogDatabase::open(disk.path().join("store"), options).expect("opens");
    let (mut store, syncer) = (database.store(0), database.syncer());
    let value = |round: usize| Some(Bytes::from(format!("{round} ").repeat(8_000)));
    for round in 0..40 {
        for key in 0..100 {
            let changes = vec![(Bytes::from(format!("\u{1}x{key:08}")), value(round))];
            until(|| match store.apply(Batch { changes: changes.clone() }) {
                Ok(_) => Some(()),
                Err(ApplyError::Full(_)) => {
                    syncer.sync().expect("syncs");
                    None
                }
                Err(error) => panic!("{error}"),
            });
        }
        syncer.sync().expect("syncs");
    }
    for key in 0..100 {
        assert_eq!(store.get(format!("\u{1}x{key:08}").as_bytes()), Ok(value(39)));
    }
}

#[test]
fn after_the_first_failure_every_call_answers_the_same_error() {
    let folder = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(false));
    let file_sync = FileSync::new({
        let broken = Arc::clone(&broken);
        move |file| if broken.load(Ordering::Relaxed) { Err(io::Error::other("broken")) } else { file.sync_data() }
    });
    let database = LogDatabase::open(folder.path(), LogOptions { file_sync, ..options() }).expect("opens");
    let (mut store, mut other) = (database.store(0), database.store(1));
    put(&mut store, "a", "1");
    broken.store(true, Ordering::Relaxed);
    let error = database.syncer().sync().expect_err("cannot be synced");
    assert!(matches!(error, StoreError::Io(_)));
    broken.store(false, Ordering::Relaxed);
    assert_eq!(store.get(b"a"), Err(error.clone()));
    assert_eq!(store.scan(b"a"..b"z", &mut |_, _| ControlFlow::Continue(())), Err(error.clone()));
    assert_eq!(other.apply(batch([("a", Some("1"))])), Err(error.clone().into()));
    assert_eq!(database.syncer().sync(), Err(error));
    assert!(other.figures().is_some(), "for who looks into it");
}

#[test]
fn a_database_is_opened_once() {
    let folder = tempfile::tempdir().expect("a directory");
    let first = open(folder.path());
    let second = LogDatabase::open(folder.path(), options());
    assert_eq!(second.err(), Some(LogOpenError::InUse(folder.path().into())));
    drop(first);
    open(folder.path());
}

/// It was a tree of tables.
#[test]
fn a_database_of_an_earlier_build_is_refused_with_what_to_do_and_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("version"), "x").expect("written");
    fs::create_dir(folder.path().join("keyspaces")).expect("made");
    let refused = LogDatabase::open(folder.path(), options()).err().expect("is refused");
    assert_eq!(refused, LogOpenError::OtherFormat(folder.path().into()));
    assert!(refused.to_string().contains("one node at a time"), "{refused}");
    assert_eq!(names(folder.path()), ["keyspaces", "version"]);
}

#[test]
fn an_interrupted_first_start_is_started_over_and_a_lost_record_of_syncs_is_not() {
    let folder = tempfile::tempdir().expect("a directory");
    put(&mut open(folder.path()).store(0), "a", "1");
    let aside = tempfile::tempdir().expect("a directory");
    fs::rename(folder.path().join("synced"), aside.path().join("synced")).expect("renamed");
    assert!(matches!(LogDatabase::open(folder.path(), options()), Err(LogOpenError::Failed { .. })));
    fs::rename(aside.path().join("synced"), folder.path().join("synced")).expect("renamed");
    assert_eq!(value_of(&open(folder.path()).store(0), "a").as_deref(), Some("1"));

    // As if the power had gone during the first start, at any of its steps.
    for left in [&[][..], &["synced"], &["synced", "00000000.segment"]] {
        let folder = tempfile::tempdir().expect("a directory");
        for file in left {
            fs::write(folder.path().join(file), vec![0; 1000]).expect("written");
        }
        put(&mut open(folder.path()).store(0), "a", "1");
        assert_eq!(value_of(&open(folder.path()).store(0), "a").as_deref(), Some("1"));
    }
}

/// A segment that somebody has linked is somebody's copy: it is not written over.
#[test]
fn a_linked_segment_is_not_used_again() {
    let (folder, copies) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let options = LogOptions { segment_bytes: 64 << 10, ..options() };
    put(&mut LogDatabase::open(folder.path(), options.clone()).expect("opens").store(0), "a", "1");
    for name in names(folder.path()).into_iter().filter(|name| name != LOCK && name != "reserve") {
        match name.ends_with(".segment") {
            true => fs::hard_link(folder.path().join(&name), copies.path().join(name)).expect("linked"),
            false => drop(fs::copy(folder.path().join(&name), copies.path().join(name)).expect("copied")),
        }
    }
    let database = LogDatabase::open(folder.path(), options.clone()).expect("opens");
    let (mut store, syncer) = (database.store(0), database.syncer());
    for round in 0..200 {
        put(&mut store, "a", &format!("{round} ").repeat(1000));
        syncer.sync().expect("syncs");
    }
    let first = copies.path().join(segment::name(0));
    until(|| (fs::metadata(&first).expect("is there").nlink() == 1).then_some(()));
    drop((store, syncer, database));
    let copy = LogDatabase::open(copies.path(), options).expect("opens");
    assert_eq!(value_of(&copy.store(0), "a").as_deref(), Some("1"));
}

/// What the gate is for: the mistake is made where nothing but the second sync can tell.
#[test]
#[cfg(feature = "planted-bugs")]
fn a_sync_that_is_noted_late_is_noticed_at_the_gate() {
    let planted = Planted::bug(crate::planted::Bug::SyncNotedLate);
    let mut disk = Disk::open(Platter::default(), Layout { prefix: b"", arc_bits: 8 }, planted.clone());
    put(disk.store(), "a", "1");
    disk.sync_during(|store| {
        put(store, "b", "1");
    });
    assert_eq!(planted.hits(), 1);
    disk.sync_during(|_| panic!("the second sync has nothing to do"));
    disk.planted = Planted::default();
    assert_eq!(contents(disk.power_cut().store()), [("a".into(), "1".into())], "what the second sync covers is lost");
}

/// A key that many coordinators have filled is one value to the store, longer than a segment.
#[test]
fn the_largest_state_of_a_key_is_kept_and_found_again_after_a_restart() {
    let mut disk = Disk::of(Layout { prefix: b"", arc_bits: 8 });
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

/// A store of a hundred keys whose values are no longer in memory, with a thread that reads; and who is told.
fn evicted() -> (Disk, std::thread::JoinHandle<()>, mpsc::Receiver<()>) {
    let mut disk = Disk::of(Layout { prefix: b"k", arc_bits: 8 });
    for number in 0..100 {
        put(disk.store(), &evicted_key(number), &format!("value {number} ").repeat(200));
    }
    disk.open.as_ref().expect("open").1.sync().expect("syncs");
    disk.platter.evict();
    let (told, tells) = mpsc::channel();
    disk.store().on_fetched(Arc::new(move || told.send(()).expect("the test listens")));
    let thread = disk.store().open.readers.start_one().expect("starts");
    (disk, thread, tells)
}

fn evicted_key(number: u64) -> String {
    format!("k1{:08}", number * 7_919 % 100_000)
}

fn end(mut disk: Disk, thread: std::thread::JoinHandle<()>) {
    disk.store().open.readers.close();
    thread.join().expect("it ends");
}

#[test]
fn a_value_that_is_not_in_memory_is_fetched_by_another_thread() {
    let (mut disk, thread, tells) = evicted();
    let key = evicted_key(3);
    assert!(disk.store().prepare(b"k1never was there"));
    assert!(!disk.store().prepare(key.as_bytes()));
    tells.recv().expect("told");
    assert!(disk.store().prepare(key.as_bytes()));
    assert_eq!(value_of(disk.store(), &key), Some("value 3 ".repeat(200)));
    disk.platter.evict();
    assert!(!disk.store().prepare(key.as_bytes()), "once more");
    tells.recv().expect("told");
    disk.platter.evict();
    assert!(disk.store().prepare(key.as_bytes()), "was fetched once, and nobody waits for ever");
    assert_eq!(value_of(disk.store(), &key), Some("value 3 ".repeat(200)));
    end(disk, thread);
}

#[test]
fn a_value_that_was_looked_at_is_not_answered_after_it_has_changed() {
    let (mut disk, thread, _tells) = evicted();
    let [one, other] = [1, 2].map(evicted_key);
    put(disk.store(), &one, "new");
    put(disk.store(), &other, "other");
    assert!(disk.store().prepare(one.as_bytes()));
    assert_eq!(value_of(disk.store(), &other).as_deref(), Some("other"));
    assert!(disk.store().prepare(one.as_bytes()));
    put(disk.store(), &one, "newer");
    assert_eq!(value_of(disk.store(), &one).as_deref(), Some("newer"));
    assert!(disk.store().prepare(one.as_bytes()));
    disk.store().apply(batch([(&one[..], None)])).expect("applies");
    assert_eq!(value_of(disk.store(), &one), None);
    end(disk, thread);
}

#[test]
fn the_first_records_of_a_range_are_fetched_together() {
    let (mut disk, thread, tells) = evicted();
    let range = || &b"k1"[..]..&b"k2"[..];
    assert!(!disk.store().prepare_range(range(), 10, 1 << 20));
    tells.recv().expect("told once for all of them");
    assert!(disk.store().prepare_range(range(), 10, 1 << 20), "it is said once that it was fetched");
    assert!(disk.store().prepare_range(range(), 10, 1 << 20), "and seen again");
    assert!(!disk.store().prepare_range(range(), 100, 1 << 20), "others were not");
    tells.recv().expect("told");
    assert!(disk.store().prepare_range(range(), 100, 1 << 20));
    let mut keys: Vec<_> = (0..100).map(evicted_key).collect();
    keys.sort();
    assert!(keys.iter().all(|key| disk.store().prepare(key.as_bytes())));
    assert!(disk.store().prepare_range(&b"a"[..]..&b"b"[..], 10, 1 << 20), "there is nothing");
    end(disk, thread);
}

#[test]
fn a_store_that_has_failed_says_so_and_fetches_nothing() {
    let (mut disk, thread, _tells) = evicted();
    let key = evicted_key(5);
    disk.platter.fail_next_sync();
    put(disk.store(), "k1later", "x");
    assert!(disk.store().prepare(b"k1later"), "it was read, and is kept");
    disk.open.as_ref().expect("open").1.sync().expect_err("the disk has failed");
    assert!(disk.store().get(b"k1later").is_err());
    assert!(disk.store().prepare(key.as_bytes()));
    assert!(disk.store().get(key.as_bytes()).is_err());
    end(disk, thread);
}

#[test]
fn the_page_of_the_disk_says_how_long_segments_are() {
    let code = [
        ("SEGMENT_BYTES_DEFAULT", SEGMENT_BYTES_DEFAULT),
        ("SEGMENT_BYTES_MIN", SEGMENT_BYTES_MIN),
        ("RESERVE_BYTES_DEFAULT", RESERVE_BYTES_DEFAULT),
    ];
    let page = include_str!("../../../../docs/disk-format.md");
    driftless_testkit::pages::assert_constants(page, "node/src/store/log/mod.rs", &code);
}
