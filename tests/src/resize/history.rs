//! What clients asked and were told, key by key.
//!
//! A key has one writer, which begins nothing before the last write has ended: so the writes of a key are numbered in the order
//! in which they took effect, and a state of the key is the number of the last of them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// Which key.
pub(super) type KeyNumber = usize;

/// Number of a write among those of its key, from 1.
pub(super) type Seq = u32;

/// Microseconds since the history began.
pub(super) type Micros = u64;

/// The histories of all keys.
#[derive(Debug)]
pub(super) struct History {
    began: Instant,
    keys: Vec<Mutex<KeyHistory>>,
}

/// What happened to one key since it was last judged.
#[derive(Clone, Default, Debug)]
pub(super) struct KeyHistory {
    /// Writes up to this number were judged and forgotten; the next one is the first of `writes`.
    pub(super) forgotten: Seq,
    /// Writes that two coordinators may have stamped: one stamp may outlive the write that replaced the other.
    pub(super) doubtful: BTreeSet<Seq>,
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
}

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Put,
    Delete,
}

/// How a write ended, with all its attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Pending,
    Acknowledged,
    /// No attempt succeeded in all the time it had; it may have happened all the same.
    Failed(Box<str>),
}

/// One write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Write {
    pub(super) kind: Kind,
    pub(super) client: usize,
    pub(super) invoked: Micros,
    pub(super) returned: Micros,
    pub(super) ending: Ending,
}

/// One read that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Read {
    pub(super) client: usize,
    /// Whether only primaries could count.
    pub(super) strict: bool,
    pub(super) invoked: Micros,
    pub(super) returned: Micros,
    /// The writes whose values it showed.
    pub(super) shown: Vec<Seq>,
}

impl History {
    /// Of so many keys.
    pub(super) fn new(keys: usize) -> History {
        History { began: Instant::now(), keys: (0..keys).map(|_| Mutex::default()).collect() }
    }

    /// Notes that a write begins, and numbers it.
    pub(super) fn begin(&self, key: KeyNumber, kind: Kind, client: usize) -> Seq {
        let invoked = self.now();
        let write = Write { kind, client, invoked, returned: Micros::MAX, ending: Ending::Pending };
        let mut history = self.key(key);
        history.writes.push(write);
        history.newest()
    }

    /// Notes how the last write of a key ended, and whether it was made more than once.
    pub(super) fn end(&self, key: KeyNumber, ending: Ending, again: bool) {
        let returned = self.now();
        let mut history = self.key(key);
        let newest = history.newest();
        // One that failed may still be under way somewhere.
        if again || ending != Ending::Acknowledged {
            history.doubtful.insert(newest);
        }
        let write = history.writes.last_mut().expect("a write ends after it began");
        (write.returned, write.ending) = (returned, ending);
    }

    /// Notes a read.
    pub(super) fn read(&self, key: KeyNumber, read: Read) {
        self.key(key).reads.push(read);
    }

    pub(super) fn now(&self) -> Micros {
        self.began.elapsed().as_micros() as Micros
    }

    pub(super) fn key(&self, key: KeyNumber) -> MutexGuard<'_, KeyHistory> {
        self.keys[key].lock().expect("nobody panics while writing history")
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl KeyHistory {
    /// The number of the last write that has begun.
    pub(super) fn newest(&self) -> Seq {
        self.forgotten + self.writes.len() as Seq
    }

    /// A write, if it is not forgotten.
    pub(super) fn write(&self, seq: Seq) -> Option<&Write> {
        self.writes.get(seq.checked_sub(self.forgotten + 1)? as usize)
    }

    /// The last write that was acknowledged.
    pub(super) fn last_acknowledged(&self) -> Option<Seq> {
        let place = self.writes.iter().rposition(|write| write.ending == Ending::Acknowledged)?;
        Some(self.forgotten + 1 + place as Seq)
    }

    /// Forgets what was judged: all reads, and all writes before the last one acknowledged.
    pub(super) fn forget(&mut self) {
        self.reads.clear();
        if let Some(last) = self.last_acknowledged() {
            self.writes.drain(..(last - self.forgotten - 1) as usize);
            self.forgotten = last - 1;
        }
    }

    /// All that happened, in order of beginning; of much the last part.
    pub(super) fn story(&self) -> String {
        let writes = (self.forgotten + 1..).zip(&self.writes).map(|(seq, write)| {
            let doubtful = if self.doubtful.contains(&seq) { ", made more than once" } else { "" };
            (write.invoked, format!("#{seq} {write}{doubtful}"))
        });
        let reads = self.reads.iter().map(|read| (read.invoked, read.to_string()));
        let mut lines: Vec<(Micros, String)> = writes.chain(reads).collect();
        lines.sort();
        let left_out = lines.len().saturating_sub(STORY_LINES_MAX);
        let note = if left_out > 0 { format!("    … {left_out} operations before\n") } else { String::new() };
        note + &lines[left_out..].iter().map(|(_, line)| format!("    {line}\n")).collect::<String>()
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by client {} at {}", self.kind, self.client, Seconds(self.invoked))?;
        match &self.ending {
            Ending::Pending => f.write_str(", has not ended"),
            Ending::Acknowledged => write!(f, ", acknowledged at {}", Seconds(self.returned)),
            Ending::Failed(why) => write!(f, ", given up at {}: {why}", Seconds(self.returned)),
        }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strict = if self.strict { "strict" } else { "sloppy" };
        let (from, to) = (Seconds(self.invoked), Seconds(self.returned));
        let shown: Vec<String> = self.shown.iter().map(|seq| format!("#{seq}")).collect();
        write!(f, "{strict} get by client {} from {from} to {to} showed [{}]", self.client, shown.join(" "))
    }
}

struct Seconds(Micros);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s", self.0 as f64 / 1e6)
    }
}

/// Enough to see what led to it.
const STORY_LINES_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_judged_is_forgotten_but_for_the_last_state() {
        let history = History::new(1);
        for seq in 1..=3 {
            assert_eq!(history.begin(0, Kind::Put, 5), seq);
            history.end(0, Ending::Acknowledged, seq == 2);
        }
        history.begin(0, Kind::Delete, 5);
        history.end(0, Ending::Failed("no".into()), false);
        history.read(0, Read { client: 1, strict: true, invoked: 0, returned: 1, shown: vec![3] });
        let mut key = history.key(0);
        key.forget();
        assert_eq!((key.forgotten, key.newest(), key.writes.len(), key.reads.len()), (2, 4, 2, 0));
        assert_eq!(key.doubtful, BTreeSet::from([2, 4]));
        assert_eq!(key.last_acknowledged(), Some(3));
        assert!(key.write(2).is_none() && key.write(3).is_some());
        drop(key);
        assert_eq!(history.begin(0, Kind::Put, 5), 5, "numbers go on");
    }
}
