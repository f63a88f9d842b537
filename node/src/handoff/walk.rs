//! One walk through what is held for a target: what was found, what is under way, and what may go next.

use std::collections::{BTreeMap, VecDeque};

use driftless_antientropy::Digest;

use crate::peer::RequestId;
use crate::replica::record::RecordKey;
use crate::replica::{Hint, HintPage};
use crate::time::Instant;

use super::put_off::PutOff;

/// One walk through what is held for a target.
pub(super) struct Walk {
    /// When it began.
    pub(super) since: Instant,
    /// Bytes that may be under way, one state beyond that apart.
    window: usize,
    /// Found and not sent, in order.
    page: VecDeque<Hint>,
    /// States that are larger than the window, taken out of the others' way.
    oversized: VecDeque<Hint>,
    page_asked: bool,
    next: Next,
    under_way: BTreeMap<RequestId, Sent>,
    /// Of what fits into the window.
    bytes_under_way: usize,
    oversized_under_way: usize,
    /// Keys that were refused, and that were not answered in time, since the last that was taken.
    refused: usize,
    expired: usize,
    /// Something was not delivered that was not put off either.
    pub(super) failed: bool,
    given_up: bool,
}

/// Where the next page begins.
enum Next {
    Start,
    From(Vec<u8>),
    End,
}

/// A hint under way to its target.
pub(super) struct Sent {
    pub(super) record: RecordKey,
    pub(super) digest: Digest,
    pub(super) bytes: usize,
    pub(super) at: Instant,
    pub(super) deadline: Instant,
}

impl Walk {
    pub(super) fn new(now: Instant, window: usize) -> Walk {
        Walk {
            since: now,
            window,
            page: VecDeque::new(),
            oversized: VecDeque::new(),
            page_asked: false,
            next: Next::Start,
            under_way: BTreeMap::new(),
            bytes_under_way: 0,
            oversized_under_way: 0,
            refused: 0,
            expired: 0,
            failed: false,
            given_up: false,
        }
    }

    /// What was found; `next` is where to go on.
    pub(super) fn found(&mut self, page: HintPage) {
        self.page_asked = false;
        if !self.given_up {
            self.page.extend(page.hints);
            self.next = page.next.map_or(Next::End, Next::From);
        }
    }

    /// Takes what is to be left alone, and what is larger than the window, out of the way of what comes after it.
    pub(super) fn sort(&mut self, now: Instant, put_off: &PutOff) {
        while let Some(hint) = self.page.front() {
            if put_off.holds(now, &hint.record) {
                self.page.pop_front();
            } else if hint.siblings.value_bytes() > self.window && self.oversized.len() < OVERSIZED_WAITING {
                self.oversized.extend(self.page.pop_front());
            } else {
                break;
            }
        }
    }

    /// Whether something may go.
    pub(super) fn has_next(&self) -> bool {
        self.is_oversized_next() || self.page.front().is_some_and(|hint| self.has_room_for(hint))
    }

    /// What may go next.
    pub(super) fn next(&mut self) -> Option<Hint> {
        match self.is_oversized_next() {
            true => self.oversized.pop_front(),
            false if self.has_next() => self.page.pop_front(),
            false => None,
        }
    }

    /// Where the next page begins, unless it was asked for, or there is none, or what was found waits.
    pub(super) fn ask_page(&mut self) -> Option<Option<Vec<u8>>> {
        if self.page_asked || !self.page.is_empty() {
            return None;
        }
        let from = match &mut self.next {
            Next::Start => None,
            Next::From(from) => Some(std::mem::take(from)),
            Next::End => return None,
        };
        self.page_asked = true;
        Some(from)
    }

    /// Whether everything was found, sent and answered, or given up.
    pub(super) fn is_over(&self) -> bool {
        let is_found = !self.page_asked && matches!(self.next, Next::End);
        is_found && self.page.is_empty() && self.oversized.is_empty() && self.under_way.is_empty()
    }

    /// A hint is under way.
    pub(super) fn sent(&mut self, id: RequestId, sent: Sent) {
        let is_oversized = sent.bytes > self.window;
        self.bytes_under_way += if is_oversized { 0 } else { sent.bytes };
        self.oversized_under_way += usize::from(is_oversized);
        debug_assert!(self.oversized_under_way <= 1, "states beyond the window go one by one");
        let before = self.under_way.insert(id, sent);
        debug_assert!(before.is_none(), "a request has an id of its own");
    }

    /// What an answer is about, which is under way no more.
    pub(super) fn answered(&mut self, id: RequestId) -> Option<Sent> {
        let sent = self.under_way.remove(&id)?;
        self.landed(&sent);
        Some(sent)
    }

    /// What was not answered in time is under way no more.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<RecordKey> {
        let is_expired = |(id, sent): (&RequestId, &Sent)| (sent.deadline <= now).then_some(*id);
        let ids: Vec<_> = self.under_way.iter().filter_map(is_expired).collect();
        let expired: Vec<_> = ids.into_iter().filter_map(|id| self.answered(id)).collect();
        self.expired += expired.len();
        if self.expired >= EXPIRED_MAX {
            self.give_up();
        }
        expired.into_iter().map(|sent| sent.record).collect()
    }

    /// When something will be.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.under_way.values().map(|sent| sent.deadline).min()
    }

    /// The target takes keys.
    pub(super) fn was_taken(&mut self) {
        (self.refused, self.expired) = (0, 0);
    }

    /// It did not take one.
    pub(super) fn was_refused(&mut self) {
        self.refused += 1;
        if self.refused >= REFUSED_MAX {
            self.give_up();
        }
    }

    /// It takes nothing now, so there is no use in going on: sends nothing more, and waits for what is under way.
    fn give_up(&mut self) {
        (self.failed, self.given_up) = (true, true);
        self.page.clear();
        self.oversized.clear();
        self.next = Next::End;
    }

    fn landed(&mut self, sent: &Sent) {
        match sent.bytes > self.window {
            true => self.oversized_under_way -= 1,
            false => self.bytes_under_way -= sent.bytes,
        }
    }

    fn is_oversized_next(&self) -> bool {
        self.oversized_under_way == 0 && !self.oversized.is_empty()
    }

    fn has_room_for(&self, hint: &Hint) -> bool {
        let room =
            self.under_way.len() - self.oversized_under_way < KEYS_UNDER_WAY && self.bytes_under_way < self.window;
        room && hint.siblings.value_bytes() <= self.window
    }
}

/// Keys sent to one target and not answered yet.
pub(super) const KEYS_UNDER_WAY: usize = 64;

/// States larger than the window that wait for the one under way: with it and a page, all that a walk holds in memory. What
/// comes after one more of them waits as well.
const OVERSIZED_WAITING: usize = 1;

/// Keys refused in a row, after which it is the target that takes nothing, a full disk as a rule.
const REFUSED_MAX: usize = 8;

/// Keys not answered in a row, after which it is the target that says nothing.
const EXPIRED_MAX: usize = 3;
