//! Fetching: what is no longer in memory is read by threads of their own, so that no shard waits for a disk.
//!
//! ```text
//! shard ── is it resident? ── no ──▶ Readers: one of their threads reads it, into the page cache ──▶ the shard is told, and asks again
//!                └── yes: what was read is kept for the `get` that follows
//! ```
//! The page cache is the system's and may drop what was fetched before it is asked for. So what was fetched once is said to be
//! resident whether it is or not: in want of memory a shard waits for the disk rather than for ever.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

#[derive(Default)]
struct Queue {
    /// What somebody waits for.
    awaited: VecDeque<(Piece, Arc<Fetch>)>,
    /// What will be looked at next behind everybody's back.
    ahead: VecDeque<(Piece, Arc<Fetch>)>,
    closed: bool,
}

/// A part of a file.
pub(super) struct Piece {
    pub(super) file: Arc<dyn Blocks>,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// Pieces that were asked for together.
struct Fetch {
    left: AtomicUsize,
    listener: Option<Listener>,
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

/// Whether somebody waits, or it is read ahead of its use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Key,
    Range,
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

    /// Lets the threads end.
    pub(super) fn close(&self) {
        let mut queue = lock(&self.0.queue);
        queue.closed = true;
        self.0.wanted.notify_all();
    }

    fn run(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some((piece, fetch)) = self.next() {
            piece.read(&mut buffer);
            fetch.has_one_less();
        }
    }

    fn next(&self) -> Option<(Piece, Arc<Fetch>)> {
        let mut queue = lock(&self.0.queue);
        while !queue.closed {
            if let Some(next) = queue.awaited.pop_front().or_else(|| queue.ahead.pop_front()) {
                return Some(next);
            }
            queue = self.0.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn add(&self, what: What, pieces: Vec<Piece>, fetch: &Arc<Fetch>) {
        let mut queue = lock(&self.0.queue);
        let line = match what {
            What::Key => &mut queue.awaited,
            What::Range => &mut queue.ahead,
        };
        line.extend(pieces.into_iter().map(|piece| (piece, Arc::clone(fetch))));
        drop(queue);
        self.0.wanted.notify_all();
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

impl Fetch {
    fn has_one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(listener) = &self.listener
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
        match asked.get(start) {
            None => Standing::NotAsked,
            Some(fetch) if fetch.left.load(Ordering::Acquire) > 0 => Standing::UnderWay,
            Some(_) => {
                asked.remove(start);
                Standing::Done
            }
        }
    }

    /// Has a key or a range fetched.
    pub(super) fn begin(&mut self, readers: &Readers, what: What, start: &[u8], pieces: Vec<Piece>) {
        let fetch = Arc::new(Fetch { left: AtomicUsize::new(pieces.len()), listener: self.listener.clone() });
        let asked = self.of(what);
        if asked.len() >= KEPT_MAX {
            // Some are never asked for again: whoever waited has gone.
            asked.retain(|_, fetch| fetch.left.load(Ordering::Acquire) > 0);
        }
        asked.insert(start.to_vec(), Arc::clone(&fetch));
        readers.add(what, pieces, &fetch);
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
            What::Range => &mut self.ranges,
        }
    }
}

/// As many reads a disk of today serves side by side without being slower for each.
const THREADS: usize = 4;

const BUFFER_BYTES: usize = 256 << 10;

/// Fetches of a shard that are kept in mind.
const KEPT_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A file that has to be fetched.
    struct Cold {
        reads: mpsc::Sender<(u64, usize)>,
    }

    impl Blocks for Cold {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
            self.reads.send((at, buffer.len())).map_err(io::Error::other)
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
        fetches.begin(&readers, What::Range, b"a", vec![piece(0, 10), piece(100, 10)]);
        fetches.begin(&readers, What::Key, b"a", vec![piece(7, BUFFER_BYTES as u64 + 5)]);
        assert_eq!(fetches.standing(What::Key, b"a"), Standing::UnderWay);
        assert_eq!(fetches.standing(What::Key, b"b"), Standing::NotAsked);

        let thread = readers.start_one().expect("starts");
        tells.recv().expect("the key");
        tells.recv().expect("the range");
        let expected = [(7, BUFFER_BYTES), (7 + BUFFER_BYTES as u64, 5), (0, 10), (100, 10)];
        assert_eq!(reads.try_iter().collect::<Vec<_>>(), expected);
        for what in [What::Key, What::Range] {
            assert_eq!(fetches.standing(what, b"a"), Standing::Done);
            assert_eq!(fetches.standing(what, b"a"), Standing::NotAsked, "said once");
        }
        readers.close();
        thread.join().expect("it ends");
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
