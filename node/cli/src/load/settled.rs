//! Which lines of a file are settled, though that happens out of order: what a resumed load tries again, and what it leaves alone.

use std::collections::BTreeSet;

/// How far a load came. Lines up to `lines` have been begun, and are settled unless they are among the open ones; none behind it
/// is known of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    /// Lines of the file that have been begun.
    pub(crate) lines: u64,
    /// Hash of them.
    pub(crate) digest: u64,
    /// How many of them are wrong, and were not loaded.
    pub(crate) failed: u64,
    /// Those of them that are neither loaded nor wrong.
    pub(crate) open: BTreeSet<u64>,
    /// Whether all that may have been stored is up to `lines`. Otherwise lines behind it may have been stored as well.
    pub(crate) is_exact: bool,
}

impl Mark {
    /// Whether a load that goes on from here passes over this line.
    pub(crate) fn is_settled(&self, line: u64) -> bool {
        line <= self.lines && !self.open.contains(&line)
    }
}

/// Keeps the mark of a load under way.
pub(crate) struct Settled {
    mark: Mark,
    open_max: usize,
    /// Settled since the mark was written down.
    news: u64,
    was_due: bool,
}

impl Settled {
    /// Goes on from a mark.
    pub(crate) fn after(mark: Mark) -> Settled {
        Settled::bounded(mark, OPEN_LINES_MAX)
    }

    fn bounded(mark: Mark, open_max: usize) -> Settled {
        Settled { mark: Mark { is_exact: true, ..mark }, open_max, news: 0, was_due: false }
    }

    /// A line is being worked on; the digest is that of the file up to its end. When too many are open the mark stays where it is
    /// for good, and a resumed load does again what comes behind it: no open line is ever forgotten.
    pub(crate) fn begin(&mut self, line: u64, digest: u64) {
        if line <= self.mark.lines {
            return;
        }
        if self.mark.open.len() >= self.open_max {
            self.mark.is_exact = false;
        }
        if self.mark.is_exact {
            (self.mark.lines, self.mark.digest) = (line, digest);
            self.mark.open.insert(line);
        }
    }

    /// It is loaded, or `is_wrong`, so that trying it again would not help. A line that failed otherwise stays open, and is tried
    /// again by `--resume`.
    pub(crate) fn settle(&mut self, line: u64, is_wrong: bool) {
        if self.mark.open.remove(&line) {
            self.mark.failed += u64::from(is_wrong);
        }
        self.news += 1;
    }

    /// Where the load is, for when it has ended.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Whether anything was settled here.
    pub(crate) fn has_news(&self) -> bool {
        self.was_due || self.news > 0
    }

    /// Where it is if it is time to write that down: with the first line that is settled, and now and then. It is not exact, since
    /// the load goes on.
    pub(crate) fn mark_due(&mut self) -> Option<Mark> {
        if self.news < if self.was_due { MARK_EVERY } else { 1 } {
            return None;
        }
        (self.news, self.was_due) = (0, true);
        Some(Mark { is_exact: false, ..self.mark.clone() })
    }
}

/// Writing the journal costs a few syncs, about as much as some puts.
const MARK_EVERY: u64 = 2_000;

/// Bounds the memory, and the journal, of a load in which much fails.
pub(super) const OPEN_LINES_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_settled_are_not_done_again_wherever_they_stand() {
        let mut settled = Settled::after(Mark::default());
        for line in 1..=4 {
            settled.begin(line, line * 10);
        }
        settled.settle(2, true);
        settled.settle(1, false);
        settled.settle(4, false);
        let mark = settled.mark().clone();
        assert_eq!((mark.lines, mark.digest, mark.failed, mark.is_exact), (4, 40, 1, true));
        assert_eq!((1..=5).filter(|&line| !mark.is_settled(line)).collect::<Vec<_>>(), [3, 5]);

        let mut resumed = Settled::after(mark);
        resumed.begin(3, 30);
        resumed.settle(3, false);
        resumed.begin(5, 50);
        let open = &resumed.mark().open;
        assert_eq!((resumed.mark().lines, open.iter().copied().collect::<Vec<_>>()), (5, vec![5]));
    }

    /// The mark went over lines that had been forgotten, and a resumed load never stored them.
    #[test]
    fn no_open_line_is_forgotten_however_many_there_are() {
        let mut settled = Settled::bounded(Mark::default(), 2);
        for line in 1..=4 {
            settled.begin(line, line * 10);
        }
        settled.settle(4, true);
        settled.settle(1, false);
        settled.begin(5, 50);
        settled.settle(5, false);
        let mark = settled.mark();
        assert_eq!((mark.lines, mark.digest, mark.failed, mark.is_exact), (2, 20, 0, false));
        assert_eq!((1..=5).filter(|&line| !mark.is_settled(line)).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn a_mark_is_due_with_the_first_settled_line_and_says_that_the_load_goes_on() {
        let mut settled = Settled::after(Mark::default());
        settled.begin(1, 10);
        assert_eq!((settled.mark_due(), settled.has_news()), (None, false));
        settled.settle(1, false);
        assert_eq!(settled.mark_due(), Some(Mark { lines: 1, digest: 10, is_exact: false, ..Mark::default() }));
        assert_eq!((settled.mark_due(), settled.has_news()), (None, true));
    }
}
