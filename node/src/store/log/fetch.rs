//! Fetching: what is no longer in memory is read by threads of their own while the shard does something else.
//!
//! ```text
//! shard ── prepare ── not resident ──▶ Readers: one of their threads reads it, into the page cache ──▶ the shard is told, and asks again
//!             └── resident: what was read is kept for the `get` that follows
//! ```
//! The page cache is the system's and may drop what was fetched before it is asked for. So what was fetched once is said to be
//! there whether it is or not, and what is asked for beyond [`KEPT_MAX`] is not fetched: then a shard waits for the disk, rather than for
//! ever, or with everybody's requests in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::append::lock;
use super::folder::Blocks;
use crate::replica::store::Listener;

/// Threads that read.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wanted: Condvar,
    /// Keys and ranges that were to be read.
    asked: AtomicU64,
}

#[derive(Default)]
struct Queue {
    keys: VecDeque<Wanted>,
    ranges: VecDeque<Wanted>,
    /// Keys read since something of a range was.
    keys_in_a_row: usize,
    closed: bool,
}

/// A piece to be read. However this ends, whoever waits for it is told.
struct Wanted {
    piece: Piece,
    fetch: Arc<Fetch>,
}

/// A part of a file.
pub(super) struct Piece {
    pub(super) file: Arc<dyn Blocks>,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// Pieces that were asked for together.
struct Fetch {
    /// What was asked for: of a range so many records, or bytes of them.
    extent: Extent,
    left: AtomicUsize,
    listener: Option<Listener>,
}

/// How much of a range, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// What one shard waits for, or has at hand.
#[derive(Default)]
pub(super) struct Fetches {
    listener: Option<Listener>,
    keys: BTreeMap<Vec<u8>, Arc<Fetch>>,
    /// By where they start.
    ranges: BTreeMap<Vec<u8>, Arc<Fetch>>,
    /// A key, and its value, which was read to see whether it is resident. Only this shard's batches could change it.
    at_hand: Option<(Vec<u8>, Option<Bytes>)>,
}

/// How a fetch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    UnderWay,
    /// And forgotten with this answer.
    Done,
    NotAsked,
}

/// What is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Key,
    Range(Extent),
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start(&self) -> io::Result<Vec<JoinHandle<()>>> {
        (0..THREADS).map(|_| self.start_one()).collect()
    }

    pub(super) fn start_one(&self) -> io::Result<JoinHandle<()>> {
        let readers = self.clone();
        thread::Builder::new().name("reader".to_owned()).spawn(move || readers.run())
    }

    /// How many keys and ranges were to be read so far.
    pub(super) fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Lets the threads end.
    pub(super) fn close(&self) {
        let mut queue = lock(&self.0.queue);
        queue.closed = true;
        self.0.wanted.notify_all();
    }

    fn run(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(wanted) = self.next() {
            wanted.piece.read(&mut buffer);
        }
    }

    fn next(&self) -> Option<Wanted> {
        let mut queue = lock(&self.0.queue);
        while !queue.closed {
            if let Some(next) = queue.pop() {
                return Some(next);
            }
            queue = self.0.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn add(&self, what: What, pieces: Vec<Piece>, fetch: &Arc<Fetch>) {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.0.queue);
        let line = match what {
            What::Key => &mut queue.keys,
            What::Range(_) => &mut queue.ranges,
        };
        let is_one = pieces.len() == 1;
        line.extend(pieces.into_iter().map(|piece| Wanted { piece, fetch: Arc::clone(fetch) }));
        drop(queue);
        if is_one { self.0.wanted.notify_one() } else { self.0.wanted.notify_all() }
    }
}

impl Queue {
    /// Keys first, since clients wait for them; but ranges, for which trees and scans wait, are not kept waiting for ever.
    fn pop(&mut self) -> Option<Wanted> {
        if (self.keys_in_a_row < KEYS_IN_A_ROW || self.ranges.is_empty())
            && let Some(wanted) = self.keys.pop_front()
        {
            self.keys_in_a_row += 1;
            return Some(wanted);
        }
        self.keys_in_a_row = 0;
        self.ranges.pop_front()
    }
}

impl Piece {
    /// Reads it for what that leaves in the page cache. Whoever reads it next meets the same error, if there is one.
    fn read(&self, buffer: &mut [u8]) {
        let mut at = self.at;
        let end = self.at + self.bytes;
        while at < end {
            let length = (end - at).min(buffer.len() as u64);
            if self.file.read_at(&mut buffer[..length as usize], at).is_err() {
                return;
            }
            at += length;
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if self.fetch.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(listener) = &self.fetch.listener
        {
            listener();
        }
    }
}

impl Fetches {
    /// Whom to tell.
    pub(super) fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// How the fetch of a key, or of a range that starts there, stands.
    pub(super) fn standing(&mut self, what: What, start: &[u8]) -> Standing {
        let asked = self.of(what);
        let Some(fetch) = asked.get(start) else { return Standing::NotAsked };
        if fetch.left.load(Ordering::Acquire) > 0 {
            return Standing::UnderWay;
        }
        let is_enough = fetch.covers(what);
        asked.remove(start);
        if is_enough { Standing::Done } else { Standing::NotAsked }
    }

    /// Has a key or a range fetched, unless too much is being fetched already: whether it is.
    pub(super) fn begin(&mut self, readers: &Readers, what: What, start: &[u8], pieces: Vec<Piece>) -> bool {
        let extent = match what {
            What::Key => Extent { records: 1, bytes: 0 },
            What::Range(extent) => extent,
        };
        let (left, listener) = (AtomicUsize::new(pieces.len()), self.listener.clone());
        let fetch = Arc::new(Fetch { extent, left, listener });
        let asked = self.of(what);
        if asked.len() >= KEPT_MAX {
            // Some are never asked for again: whoever waited has gone.
            asked.retain(|_, fetch| fetch.left.load(Ordering::Acquire) > 0);
            if asked.len() >= KEPT_MAX {
                return false;
            }
        }
        asked.insert(start.to_vec(), Arc::clone(&fetch));
        readers.add(what, pieces, &fetch);
        true
    }

    /// Keeps what was read of a key.
    pub(super) fn keep(&mut self, key: &[u8], value: Option<Bytes>) {
        let mut kept = self.at_hand.take().map(|(key, _)| key).unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(key);
        self.at_hand = Some((kept, value));
    }

    /// What was kept of this key.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        self.at_hand.take_if(|(kept, _)| kept == key).map(|(_, value)| value)
    }

    /// A batch is applied.
    pub(super) fn forget(&mut self) {
        self.at_hand = None;
    }

    fn of(&mut self, what: What) -> &mut BTreeMap<Vec<u8>, Arc<Fetch>> {
        match what {
            What::Key => &mut self.keys,
            What::Range(_) => &mut self.ranges,
        }
    }
}

impl Fetch {
    fn covers(&self, what: What) -> bool {
        match what {
            What::Key => true,
            What::Range(Extent { records, bytes }) => self.extent.records >= records && self.extent.bytes >= bytes,
        }
    }
}

/// As many reads a disk of today serves side by side without being slower for each.
const THREADS: usize = 4;

const BUFFER_BYTES: usize = 256 << 10;

/// Keys of a shard, and ranges of it, that may be fetched at once.
const KEPT_MAX: usize = 256;

/// How many keys are read before something of a range is.
const KEYS_IN_A_ROW: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::folder::Resident;
    use super::*;

    const RANGE: What = What::Range(Extent { records: 10, bytes: 100 });

    /// A file that has to be fetched.
    struct Cold {
        reads: mpsc::Sender<(u64, usize)>,
    }

    impl Blocks for Cold {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
            self.reads.send((at, buffer.len())).map_err(io::Error::other)
        }

        fn read_resident(&self, _: &mut [u8], _: u64) -> io::Result<Resident> {
            unreachable!("only fetched")
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("only read")
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!("only read")
        }

        fn bytes(&self) -> io::Result<u64> {
            unreachable!("only read")
        }

        fn links(&self) -> io::Result<u64> {
            unreachable!("only read")
        }

        fn cut(&self, _: u64) -> io::Result<()> {
            unreachable!("only read")
        }
    }

    #[test]
    fn what_is_awaited_goes_before_what_is_read_ahead_and_whoever_asked_is_told_once_it_is_there() {
        let (sender, reads) = mpsc::channel();
        let (told, tells) = mpsc::channel();
        let file: Arc<dyn Blocks> = Arc::new(Cold { reads: sender });
        let piece = |at, bytes| Piece { file: Arc::clone(&file), at, bytes };
        let (readers, mut fetches) = (Readers::default(), Fetches::default());
        fetches.listen(Arc::new(move || told.send(()).expect("the test listens")));
        assert!(fetches.begin(&readers, RANGE, b"a", vec![piece(0, 10), piece(100, 10)]));
        assert!(fetches.begin(&readers, What::Key, b"a", vec![piece(7, BUFFER_BYTES as u64 + 5)]));
        assert_eq!(fetches.standing(What::Key, b"a"), Standing::UnderWay);
        assert_eq!(fetches.standing(What::Key, b"b"), Standing::NotAsked);
        assert_eq!(readers.asked(), 2, "a range and a key");

        let thread = readers.start_one().expect("starts");
        tells.recv().expect("the key");
        tells.recv().expect("the range");
        let expected = [(7, BUFFER_BYTES), (7 + BUFFER_BYTES as u64, 5), (0, 10), (100, 10)];
        assert_eq!(reads.try_iter().collect::<Vec<_>>(), expected);
        for what in [What::Key, RANGE] {
            assert_eq!(fetches.standing(what, b"a"), Standing::Done);
            assert_eq!(fetches.standing(what, b"a"), Standing::NotAsked, "said once");
        }
        readers.close();
        thread.join().expect("it ends");
    }

    #[test]
    fn ranges_are_not_kept_waiting_by_keys_for_ever() {
        let (sender, _reads) = mpsc::channel();
        let file: Arc<dyn Blocks> = Arc::new(Cold { reads: sender });
        let piece = |at| Piece { file: Arc::clone(&file), at, bytes: 1 };
        let (readers, mut fetches) = (Readers::default(), Fetches::default());
        assert!(fetches.begin(&readers, RANGE, b"a", vec![piece(1_000), piece(1_001)]));
        for key in 0..20_u64 {
            assert!(fetches.begin(&readers, What::Key, &key.to_be_bytes(), vec![piece(key)]));
        }
        let order: Vec<u64> = (0..10).map(|_| readers.next().expect("something is wanted").piece.at).collect();
        assert_eq!(order, [0, 1, 2, 3, 1_000, 4, 5, 6, 7, 1_001]);
    }

    #[test]
    fn no_more_is_fetched_at_once_than_may_be_and_a_range_counts_for_as_much_as_was_asked_for() {
        let (sender, _reads) = mpsc::channel();
        let file: Arc<dyn Blocks> = Arc::new(Cold { reads: sender });
        let piece = |at| Piece { file: Arc::clone(&file), at, bytes: 1 };
        let (readers, mut fetches) = (Readers::default(), Fetches::default());
        for key in 0..KEPT_MAX as u64 {
            assert!(fetches.begin(&readers, What::Key, &key.to_be_bytes(), vec![piece(key)]));
        }
        assert!(!fetches.begin(&readers, What::Key, b"one more", vec![piece(7)]));
        drop(readers.next());
        assert!(fetches.begin(&readers, What::Key, b"one more", vec![piece(7)]), "one has been read since");

        fetches.begin(&readers, RANGE, b"a", vec![]);
        let more = What::Range(Extent { records: 11, bytes: 100 });
        assert_eq!(fetches.standing(more, b"a"), Standing::NotAsked);
        fetches.begin(&readers, RANGE, b"a", vec![]);
        let less = What::Range(Extent { records: 10, bytes: 99 });
        assert_eq!(fetches.standing(less, b"a"), Standing::Done);
    }

    #[test]
    fn what_is_kept_is_of_one_key_and_forgotten_with_the_next_batch() {
        let mut fetches = Fetches::default();
        fetches.keep(b"a", Some(Bytes::from_static(b"1")));
        assert_eq!(fetches.take(b"b"), None);
        assert_eq!(fetches.take(b"a"), Some(Some(Bytes::from_static(b"1"))));
        assert_eq!(fetches.take(b"a"), None);
        fetches.keep(b"a", None);
        fetches.forget();
        assert_eq!(fetches.take(b"a"), None);
    }
}
