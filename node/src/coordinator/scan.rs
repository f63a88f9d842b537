//! One page of a scan: r replicas list their keys, and what they say is merged.
//!
//! Each replica's page ends where its limit was reached, or where it has walked far enough for one turn, whatever it has
//! found by then. Beyond the shortest such page nothing is known of that replica, so the merged page ends there too.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use driftless_proto::client::{self, Cursor};
use driftless_proto::{Failure, Header, Refusal, Unknown};
use driftless_ring::NodeId;

use crate::peer::{self, ReplicaRequest, Reply};
use crate::planted::Planted;
use crate::time::{Instant, Now};

use super::course::Facts;
use super::plan::Plan;
use super::quorum::Slots;
use super::{Action, Answer};

/// The machine of one page.
pub(crate) struct Scan {
    plan: Plan,
    scan: peer::Scan,
    /// Keys that do not begin with it are left out of the answer.
    prefix: Bytes,
    slots: Slots,
    pages: Vec<peer::Page>,
    deadline: Instant,
    done: bool,
    actions: VecDeque<Action>,
}

impl Scan {
    /// Asks the first r replicas.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`] if r replicas cannot be reached.
    pub(crate) fn start(
        plan: Plan,
        scan: peer::Scan,
        prefix: Bytes,
        r: u8,
        deadline: Instant,
    ) -> Result<Scan, Failure> {
        let available = plan.reachable_readers().len() as u8;
        if available < r {
            return Err(Refusal::NotEnoughReplicas { needed: r, available }.into());
        }
        let slots = Slots::new(plan.readers.iter().copied(), r, Planted::default());
        let mut machine =
            Scan { plan, scan, prefix, slots, pages: Vec::new(), deadline, done: false, actions: VecDeque::new() };
        (0..r).for_each(|_| {
            machine.ask_next();
        });
        Ok(machine)
    }

    /// A replica has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match reply {
            Reply::Page(page) if self.slots.fill(from) => self.pages.push(page),
            Reply::Refused(_) | Reply::Lost => self.handle_lost(from),
            _ => {}
        }
        if self.slots.is_reached() && !self.done {
            let page = merge(&self.pages, self.scan.limit, &self.prefix);
            self.actions.push_back(Action::Answer(Ok(Answer::Page(page))));
            self.done = true;
        }
    }

    /// The connection to a replica is gone: another one is asked.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.plan.forget(node);
        if self.slots.fail(node).is_some() && !self.done {
            self.ask_next();
            if !self.slots.is_possible() {
                let refusal =
                    Refusal::NotEnoughReplicas { needed: self.slots.needed(), available: self.slots.filled() };
                self.actions.push_back(Action::Answer(Err(refusal.into())));
                self.done = true;
            }
        }
    }

    /// A replica takes longer than it usually does. Whether another was asked as well.
    pub(crate) fn handle_late(&mut self, node: NodeId) -> bool {
        !self.done && self.slots.waits_only_for(node).is_some() && self.ask_next()
    }

    /// A replica takes so long that it had better not be counted on; should it answer in time, that still counts.
    pub(crate) fn handle_overdue(&mut self, node: NodeId) {
        self.plan.forget(node);
        if !self.done {
            self.ask_next();
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.deadline && !self.done {
            let timeout = Unknown::Timeout { acks: self.slots.filled(), needed: self.slots.needed() };
            self.actions.push_back(Action::Answer(Err(timeout.into())));
            self.done = true;
        }
    }

    /// Who is at work for it, and how far that is.
    pub(super) fn facts(&self) -> Facts {
        self.slots.facts(&self.plan, &self.plan.readers)
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.done
    }

    /// When to call [`Scan::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.done).then_some(self.deadline)
    }

    fn ask_next(&mut self) -> bool {
        let Some(to) = self.plan.reachable_readers().into_iter().find(|node| !self.slots.is_at_work(*node)) else {
            return false;
        };
        self.slots.assign(to, to);
        self.actions.push_back(Action::Ask { to, request: ReplicaRequest::Scan(self.scan.clone()) });
        true
    }
}

/// Joins what the replicas know of each key, up to where all of them have spoken, and shows those of the prefix. A page ends where
/// it would without: it is the walk that is bounded.
fn merge(pages: &[peer::Page], limit: u32, prefix: &[u8]) -> client::Page {
    let end = pages.iter().filter_map(|page| page.next.as_ref()).min();
    let mut merged = BTreeMap::<&Cursor, Header>::new();
    for (cursor, header) in pages.iter().flat_map(|page| &page.entries) {
        if end.is_none_or(|end| cursor <= end) {
            merged.entry(cursor).and_modify(|known| known.merge(header)).or_insert_with(|| header.clone());
        }
    }
    let mut next = end.cloned();
    let limit = limit.max(1) as usize;
    if let Some((last, _)) = merged.iter().nth(limit - 1).filter(|_| merged.len() > limit) {
        next = Some((*last).clone());
    }
    let keys =
        merged.iter().take(limit).filter(|(_, header)| header.has_values()).filter_map(|(at, _)| at.key.as_ref());
    client::Page { keys: keys.filter(|key| key.as_bytes().starts_with(prefix)).cloned().collect(), next }
}

#[cfg(test)]
mod tests {
    use driftless_proto::{ActorId, Dot, Hlc, Key, Outline, Siblings, VersionVector, WriteId};
    use driftless_ring::Token;

    use super::*;

    fn header(len: Option<u32>, context: &VersionVector, counter: u64) -> Header {
        let mut header: Header = Siblings::new();
        let outline = Outline { write_id: WriteId(0), written_at: Hlc(0), len, value_hash: 0 };
        header.event(context, Dot::new(ActorId(1), counter), outline);
        header
    }

    fn entry(token: u64, header: Header) -> (Cursor, Header) {
        (behind(token), header)
    }

    fn behind(token: u64) -> Cursor {
        Cursor { token: Token(token), key: Some(Key::new(format!("k{token}")).expect("valid")) }
    }

    fn before(token: u64) -> Cursor {
        Cursor { token: Token(token), key: None }
    }

    fn page(tokens: &[u64], next: Option<Cursor>) -> peer::Page {
        let value = || header(Some(1), &VersionVector::new(), 1);
        peer::Page { entries: tokens.iter().map(|token| entry(*token, value())).collect(), next }
    }

    fn names(page: &client::Page) -> Vec<String> {
        page.keys.iter().map(Key::to_string).collect()
    }

    #[test]
    fn a_page_ends_where_the_shortest_incomplete_one_does() {
        let merged = merge(&[page(&[1, 3, 5], Some(behind(5))), page(&[1, 2, 9], None)], 10, b"");
        assert_eq!(names(&merged), ["k1", "k2", "k3", "k5"]);
        assert_eq!(merged.next, Some(behind(5)));
    }

    #[test]
    fn nothing_is_shown_that_some_replica_has_not_walked_to() {
        let merged = merge(&[page(&[1, 3], Some(before(4))), page(&[2, 4], None)], 10, b"");
        assert_eq!(names(&merged), ["k1", "k2", "k3"], "a tombstone of k4 may be just ahead");
        assert_eq!(merged.next, Some(before(4)));
        let merged = merge(&[page(&[], Some(before(2))), page(&[2, 4], Some(behind(4)))], 10, b"");
        assert_eq!((merged.keys.len(), merged.next), (0, Some(before(2))), "empty, and not the end");
        let merged = merge(&[page(&[], Some(before(9))), page(&[2, 4], None)], 10, b"");
        assert_eq!(names(&merged), ["k2", "k4"]);
        assert_eq!(merged.next, Some(before(9)), "one of them has not walked to the end");
    }

    #[test]
    fn the_last_page_has_no_next() {
        assert_eq!(merge(&[page(&[1], None), page(&[2], None)], 10, b"").next, None);
    }

    #[test]
    fn a_page_keeps_to_its_limit_and_says_where_to_go_on() {
        let merged = merge(&[page(&[1, 3], None), page(&[2, 4], None)], 3, b"");
        assert_eq!(names(&merged), ["k1", "k2", "k3"]);
        assert_eq!(merged.next, Some(behind(3)));
    }

    #[test]
    fn a_key_deleted_on_one_replica_is_not_listed() {
        let old = header(Some(1), &VersionVector::new(), 1);
        let deleted = header(None, old.vv(), 2);
        let pages = [old, deleted].map(|header| peer::Page { entries: vec![entry(1, header)], next: None });
        assert_eq!(merge(&pages, 10, b"").keys, []);
    }

    #[test]
    fn a_page_of_a_prefix_ends_where_it_would_without() {
        let pages = [page(&[1, 12, 3], Some(behind(12)))];
        let merged = merge(&pages, 10, b"k1");
        assert_eq!(names(&merged), ["k1", "k12"]);
        assert_eq!(merged.next, Some(behind(12)));
        let none = merge(&pages, 2, b"another");
        assert_eq!((none.keys.len(), none.next), (0, Some(behind(3))), "empty, and not the end");
    }
}
