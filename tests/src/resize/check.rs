//! Judges the history of one key.
//!
//! A key has one writer, so what a read shows is a *state*: the number of the last write that it reflects. Of a strict read of a
//! key that is written with strict quorums that state must be
//!
//! ```text
//! newest write acknowledged before it began  ─┐
//! newest state that a strict read had shown   ├─ ≤  state  ≤  newest write begun before it ended
//!   which ended before this one began         ─┘
//! ```
//! A value says which write it is. That nothing is shown may be the state of any delete in that range; the oldest is taken, so
//! that nothing is called broken that could have been. Whatever is shown beside the state's own value was replaced, and may not
//! be there: unless two coordinators may have stamped it, since then what replaced it may have seen one stamp only
//! (*retries* in README).
//!
//! The last read of all is held against the same, whatever quorums the writes had: by then hints have been delivered.
//!
//! | promise | broken if |
//! |---|---|
//! | no acknowledged write is lost | the last read shows an older state, and the last write acknowledged was a put |
//! | deletes stay deleted | the same, and it was a delete |
//! | strict reads are never stale | an earlier read shows a state before a write that was acknowledged when it began |
//! | strict reads do not go back | … before a state that was shown when it began |
//! | what was replaced stays replaced | something is shown beside the state's value |
//! | no invention | something is shown that was not written by then |

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::history::{Ending, KeyHistory, Kind, Micros, Read, Seq};

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    pub(super) promise: Promise,
    pub(super) text: String,
}

/// What is promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Promise {
    NothingLost,
    DeletesStay,
    NeverStale,
    NeverBack,
    StaysReplaced,
    NoInvention,
}

impl Promise {
    /// In words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Promise::NothingLost => "no acknowledged write is lost",
            Promise::DeletesStay => "deletes stay deleted",
            Promise::NeverStale => "strict reads are never stale",
            Promise::NeverBack => "strict reads do not go back",
            Promise::StaysReplaced => "what was replaced stays replaced",
            Promise::NoInvention => "no invention",
        }
    }

    /// All of them.
    pub(super) const ALL: [Promise; 6] = [
        Promise::NothingLost,
        Promise::DeletesStay,
        Promise::NeverStale,
        Promise::NeverBack,
        Promise::StaysReplaced,
        Promise::NoInvention,
    ];
}

/// Everything that contradicts a promise. `last` is the read of the key when all had settled; `are_strict` says whether all its
/// writes were strict.
pub(super) fn judge(history: &KeyHistory, last: Option<&Read>, are_strict: bool) -> Vec<Broken> {
    let mut broken: Vec<Broken> = history.reads.iter().chain(last).flat_map(|read| inventions(history, read)).collect();
    let mut reads: Vec<&Read> = history.reads.iter().filter(|read| are_strict && read.strict).chain(last).collect();
    reads.sort_by_key(|read| read.invoked);
    // The states of reads that have begun, by when they ended: those that ended in time bind the next read.
    let mut under_way: BinaryHeap<Reverse<(Micros, Seq)>> = BinaryHeap::new();
    let (mut shown, mut due, mut place) = (0, 0, 0);
    for read in reads {
        while let Some(write) = history.writes.get(place).filter(|write| write.returned < read.invoked) {
            place += 1;
            if write.ending == Ending::Acknowledged {
                due = history.forgotten + place as Seq;
            }
        }
        while let Some(Reverse((returned, state))) = under_way.peek().copied()
            && returned < read.invoked
        {
            under_way.pop();
            shown = shown.max(state);
        }
        let is_last = last.is_some_and(|last| std::ptr::eq(last, read));
        let state = match state_of(history, read, due.max(shown)) {
            Ok(state) => state,
            Err(problem) => {
                broken.push(explain(history, read, is_last, due, shown, problem));
                due.max(shown)
            }
        };
        under_way.push(Reverse((read.returned, state)));
    }
    broken
}

/// Why a read shows no state that it may show.
enum Problem {
    /// It shows one before the oldest it may.
    Older,
    /// It shows the right one, and these beside it.
    Beside(Vec<Seq>),
}

/// The oldest state that a read can have shown, from this one on.
fn state_of(history: &KeyHistory, read: &Read, oldest: Seq) -> Result<Seq, Problem> {
    let is_doubtful = |seq: &Seq| history.doubtful.contains(seq);
    let newest = begun_by(history, read.returned);
    match read.shown.iter().max() {
        Some(&top) if top >= oldest => {
            let beside: Vec<Seq> = read.shown.iter().filter(|seq| **seq != top && !is_doubtful(seq)).copied().collect();
            if beside.is_empty() { Ok(top) } else { Err(Problem::Beside(beside)) }
        }
        // Nothing, or only what outlived its delete because it was stamped twice.
        _ => {
            let is_empty = |seq: &Seq| *seq == 0 || history.write(*seq).is_some_and(|write| write.kind == Kind::Delete);
            let deleted = (oldest..=newest).find(is_empty);
            let beside: Vec<Seq> = read.shown.iter().filter(|seq| !is_doubtful(seq)).copied().collect();
            match deleted {
                Some(state) if beside.is_empty() => Ok(state),
                _ => Err(Problem::Older),
            }
        }
    }
}

fn explain(history: &KeyHistory, read: &Read, is_last: bool, due: Seq, shown: Seq, problem: Problem) -> Broken {
    let list = |seqs: &[Seq]| seqs.iter().map(|seq| format!("#{seq}")).collect::<Vec<_>>().join(" ");
    let what = if is_last { "the last read".to_owned() } else { read.to_string() };
    let seen = if read.shown.is_empty() { "nothing".to_owned() } else { list(&read.shown) };
    let (promise, text) = match problem {
        Problem::Beside(beside) => {
            (Promise::StaysReplaced, format!("{what}: {} is there, which a later write had replaced", list(&beside)))
        }
        Problem::Older if shown > due => {
            (Promise::NeverBack, format!("{what}: shows {seen}, though #{shown} had been shown before it began"))
        }
        Problem::Older => {
            let is_delete = history.write(due).is_some_and(|write| write.kind == Kind::Delete);
            let promise = match (is_last, is_delete) {
                (true, false) => Promise::NothingLost,
                (true, true) => Promise::DeletesStay,
                (false, _) => Promise::NeverStale,
            };
            let due = if is_delete { format!("delete #{due}") } else { format!("put #{due}") };
            (promise, format!("{what}: shows {seen}, though {due} was acknowledged before it began"))
        }
    };
    Broken { promise, text }
}

fn inventions(history: &KeyHistory, read: &Read) -> Option<Broken> {
    let newest = begun_by(history, read.returned);
    let is_put = |seq: Seq| history.write(seq).is_none_or(|write| write.kind == Kind::Put);
    let invented = read.shown.iter().find(|seq| **seq == 0 || **seq > newest || !is_put(**seq))?;
    let text = format!("{read}: #{invented} was not written by then");
    Some(Broken { promise: Promise::NoInvention, text })
}

/// The newest write that had begun by this time.
fn begun_by(history: &KeyHistory, time: Micros) -> Seq {
    history.forgotten + history.writes.partition_point(|write| write.invoked <= time) as Seq
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::history::Write;
    use super::*;

    /// Writes in turn, each from `10 n` to `10 n + 5`, for n from 1.
    fn history(writes: &[Kind]) -> KeyHistory {
        let write = |(place, kind): (u64, &Kind)| Write {
            kind: *kind,
            client: 0,
            invoked: place * 10,
            returned: place * 10 + 5,
            ending: Ending::Acknowledged,
        };
        KeyHistory { writes: (1..).zip(writes).map(write).collect(), ..KeyHistory::default() }
    }

    fn read(invoked: Micros, returned: Micros, shown: &[Seq]) -> Read {
        Read { client: 1, strict: true, invoked, returned, shown: shown.to_vec() }
    }

    fn promises(history: &KeyHistory, last: &[Seq]) -> Vec<Promise> {
        let last = read(1_000, 1_001, last);
        judge(history, Some(&last), true).into_iter().map(|broken| broken.promise).collect()
    }

    const PUTS: [Kind; 3] = [Kind::Put; 3];

    #[test]
    fn what_should_be_is_not_broken() {
        let mut history = history(&[Kind::Put, Kind::Put, Kind::Delete, Kind::Put]);
        history.reads = vec![
            read(1, 2, &[]),
            read(11, 12, &[]),  // while the first put is under way: both are right
            read(11, 12, &[1]), // at the same time as the one before
            read(16, 17, &[1]),
            read(19, 22, &[2]),
            read(31, 33, &[2]),
            read(36, 38, &[]),
            read(41, 44, &[]),
            read(42, 44, &[4]),
        ];
        assert_eq!(promises(&history, &[4]), []);
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = history(&PUTS);
        assert_eq!(promises(&history, &[3]), []);
        assert_eq!(promises(&history, &[2]), [Promise::NothingLost], "the one before is there");
        assert_eq!(promises(&history, &[]), [Promise::NothingLost], "nothing is there");
    }

    #[test]
    fn a_lost_write_is_found_where_quorums_were_sloppy() {
        let mut history = history(&PUTS);
        history.reads = vec![read(36, 37, &[1])];
        let lost = |last: &[Seq]| judge(&history, Some(&read(1_000, 1_001, last)), false);
        assert_eq!(lost(&[3]), [], "a read on the way may be stale");
        assert_eq!(lost(&[2])[0].promise, Promise::NothingLost);
    }

    #[test]
    fn a_delete_that_is_undone_is_found() {
        let history = history(&[Kind::Put, Kind::Put, Kind::Delete]);
        assert_eq!(promises(&history, &[]), []);
        assert_eq!(promises(&history, &[2]), [Promise::DeletesStay]);
        assert_eq!(promises(&history, &[1]), [Promise::DeletesStay]);
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut of_put = history(&PUTS);
        of_put.reads = vec![read(26, 29, &[1])];
        assert_eq!(promises(&of_put, &[3]), [Promise::NeverStale], "#2 was acknowledged at 25");
        of_put.reads = vec![read(25, 29, &[1])];
        assert_eq!(promises(&of_put, &[3]), [], "not before it began");
        of_put.reads = vec![read(26, 29, &[])];
        assert_eq!(promises(&of_put, &[3]), [Promise::NeverStale], "nothing is older still");
        let mut of_delete = history(&[Kind::Put, Kind::Delete, Kind::Put]);
        of_delete.reads = vec![read(26, 29, &[1])];
        assert_eq!(promises(&of_delete, &[3]), [Promise::NeverStale]);
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        let mut history = history(&PUTS);
        // Put 2 is under way from 20 to 25: one client has seen it, another one later has not.
        history.reads = vec![read(20, 21, &[2]), read(22, 23, &[1])];
        assert_eq!(promises(&history, &[3]), [Promise::NeverBack]);
        history.reads = vec![read(20, 23, &[2]), read(22, 24, &[1])];
        assert_eq!(promises(&history, &[3]), [], "they were under way at the same time");
    }

    #[test]
    fn going_back_behind_a_delete_is_found() {
        let mut history = history(&[Kind::Put, Kind::Delete]);
        history.reads = vec![read(20, 21, &[]), read(22, 23, &[1])];
        assert_eq!(promises(&history, &[]), [Promise::NeverBack]);
    }

    #[test]
    fn what_was_replaced_and_is_there_is_found_unless_it_was_stamped_twice() {
        let mut history = history(&PUTS);
        assert_eq!(promises(&history, &[3, 1]), [Promise::StaysReplaced]);
        history.doubtful = BTreeSet::from([1]);
        assert_eq!(promises(&history, &[3, 1]), []);
        assert_eq!(promises(&history, &[1]), [Promise::NothingLost], "what replaced it must be there all the same");
    }

    #[test]
    fn a_delete_may_leave_what_was_stamped_twice_and_nothing_else() {
        let mut history = history(&[Kind::Put, Kind::Put, Kind::Delete]);
        history.doubtful = BTreeSet::from([2]);
        assert_eq!(promises(&history, &[2]), []);
        assert_eq!(promises(&history, &[1]), [Promise::DeletesStay]);
        assert_eq!(promises(&history, &[1, 2]), [Promise::DeletesStay]);
    }

    #[test]
    fn a_write_that_was_given_up_may_have_happened_or_not() {
        let mut history = history(&PUTS);
        history.writes[2].ending = Ending::Failed("no answer".into());
        history.doubtful = BTreeSet::from([3]);
        assert_eq!(promises(&history, &[2]), []);
        assert_eq!(promises(&history, &[3]), []);
        assert_eq!(promises(&history, &[1]), [Promise::NothingLost]);
    }

    #[test]
    fn what_nobody_has_written_is_found() {
        let mut history = history(&[Kind::Put, Kind::Delete, Kind::Put]);
        history.reads = vec![read(16, 19, &[3])];
        assert!(promises(&history, &[3]).contains(&Promise::NoInvention), "it was written later");
        history.reads.clear();
        assert!(promises(&history, &[2]).contains(&Promise::NoInvention), "a delete has no value");
        assert!(promises(&history, &[9]).contains(&Promise::NoInvention));
    }

    #[test]
    fn what_was_forgotten_does_not_come_back() {
        let mut history = history(&PUTS);
        history.forget();
        assert_eq!(promises(&history, &[3]), []);
        assert_eq!(promises(&history, &[2]), [Promise::NothingLost]);
        assert_eq!(promises(&history, &[3, 1]), [Promise::StaysReplaced]);
    }
}
