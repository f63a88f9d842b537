//! The machines that a request may have, and what all of them are told.

use driftless_ring::NodeId;

use crate::peer::Reply;
use crate::time::{Instant, Now};

use super::Action;
use super::awaiting::Awaiting;
use super::forward::Forward;
use super::get::Get;
use super::put::Put;
use super::salvage::Salvage;
use super::scan::Scan;
use super::spread::Spread;

/// The machine of one request.
pub(super) enum Machine {
    Put(Put),
    Get(Get),
    Scan(Scan),
    Forward(Forward),
    Salvage(Salvage),
    Spread(Spread),
    Awaiting(Awaiting),
}

impl Machine {
    pub(super) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match self {
            Machine::Put(put) => put.handle_reply(from, reply),
            Machine::Get(get) => get.handle_reply(from, reply),
            Machine::Scan(scan) => scan.handle_reply(from, reply),
            Machine::Forward(forward) => forward.handle_reply(from, reply),
            Machine::Salvage(salvage) => salvage.handle_reply(from, reply),
            Machine::Spread(spread) => spread.handle_reply(from, reply),
            Machine::Awaiting(_) => {}
        }
    }

    /// The connection to a node is gone.
    pub(super) fn handle_lost(&mut self, node: NodeId) {
        match self {
            Machine::Put(put) => put.handle_lost(node),
            Machine::Get(get) => get.handle_lost(node),
            Machine::Scan(scan) => scan.handle_lost(node),
            Machine::Forward(forward) => forward.handle_lost(node),
            Machine::Salvage(salvage) => salvage.handle_lost(node),
            Machine::Spread(spread) => spread.handle_lost(node),
            Machine::Awaiting(_) => {}
        }
    }

    pub(super) fn handle_late(&mut self, node: NodeId) -> bool {
        match self {
            Machine::Put(put) => put.handle_late(node),
            Machine::Get(get) => get.handle_late(node),
            Machine::Scan(scan) => scan.handle_late(node),
            Machine::Forward(_) | Machine::Salvage(_) | Machine::Spread(_) | Machine::Awaiting(_) => false,
        }
    }

    pub(super) fn handle_overdue(&mut self, node: NodeId) {
        match self {
            Machine::Put(put) => put.handle_overdue(node),
            Machine::Get(get) => get.handle_overdue(node),
            Machine::Scan(scan) => scan.handle_overdue(node),
            Machine::Spread(spread) => spread.handle_lost(node),
            // It may be stamped there: only the end of the connection or of the time tells.
            Machine::Forward(_) | Machine::Salvage(_) | Machine::Awaiting(_) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        match self {
            Machine::Put(put) => put.handle_timeout(now),
            Machine::Get(get) => get.handle_timeout(now),
            Machine::Scan(scan) => scan.handle_timeout(now),
            Machine::Forward(forward) => forward.handle_timeout(now),
            Machine::Salvage(salvage) => salvage.handle_timeout(now),
            Machine::Spread(spread) => spread.handle_timeout(now),
            Machine::Awaiting(awaiting) => awaiting.handle_timeout(now),
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        match self {
            Machine::Put(put) => put.is_waited_for(),
            Machine::Get(get) => get.is_waited_for(),
            Machine::Scan(scan) => scan.is_waited_for(),
            Machine::Forward(forward) => forward.is_waited_for(),
            Machine::Salvage(salvage) => salvage.is_waited_for(),
            Machine::Spread(spread) => spread.is_waited_for(),
            Machine::Awaiting(awaiting) => awaiting.is_waited_for(),
        }
    }

    /// Whether the answer stands, and only its explanation keeps it back.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self, Machine::Put(put) if put.is_explaining())
    }

    /// Others are to be asked than were: what is decided is said now.
    pub(super) fn handle_news(&mut self) {
        if let Machine::Put(put) = self {
            put.handle_news();
        }
    }

    /// Whether something may have been written by it, here or elsewhere. What was only passed on, whoever has it begins again.
    pub(super) fn may_have_written(&self) -> bool {
        matches!(self, Machine::Put(_) | Machine::Salvage(_) | Machine::Spread(_))
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        match self {
            Machine::Put(put) => put.poll_action(),
            Machine::Get(get) => get.poll_action(),
            Machine::Scan(scan) => scan.poll_action(),
            Machine::Forward(forward) => forward.poll_action(),
            Machine::Salvage(salvage) => salvage.poll_action(),
            Machine::Spread(spread) => spread.poll_action(),
            Machine::Awaiting(awaiting) => awaiting.poll_action(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Machine::Put(put) => put.poll_timeout(),
            Machine::Get(get) => get.poll_timeout(),
            Machine::Scan(scan) => scan.poll_timeout(),
            Machine::Forward(forward) => forward.poll_timeout(),
            Machine::Salvage(salvage) => salvage.poll_timeout(),
            Machine::Spread(spread) => spread.poll_timeout(),
            Machine::Awaiting(awaiting) => awaiting.poll_timeout(),
        }
    }
}
