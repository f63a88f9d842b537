//! What the machines want done: messages between them, and out.

use driftless_ring::NodeId;

use crate::coordinator::{self, Asker};
use crate::handoff;
use crate::liveness::reachability;
use crate::peer::{Body, Lane, Message, Reply, Request, RequestId, State};
use crate::reconciler;
use crate::replica;
use crate::replica::store::Store;
use crate::time::Now;

use super::tasks::Task;
use super::{Engine, Output, view};

impl<S: Store> Engine<S> {
    /// Moves messages between the machines, and out, until all are quiet.
    pub(super) fn route(&mut self, now: Now) {
        while Task::ALL.into_iter().any(|task| self.take_output(now, task)) {}
    }

    /// Whether there was one.
    fn take_output(&mut self, now: Now, task: Task) -> bool {
        match task {
            Task::Reachability => {
                self.reachability.poll_output().map(|output| self.take_from_reachability(now, output))
            }
            Task::Requests => self.coordinator.poll_output().map(|output| self.take_from_coordinator(now, output)),
            Task::Replica => self.replica.poll_output().map(|output| self.take_from_replica(now, output)),
            Task::AntiEntropy => self.reconciler.poll_output().map(|output| self.take_from_reconciler(output)),
            Task::Handoff => self.handoff.poll_output().map(|output| self.take_from_handoff(output)),
        }
        .is_some()
    }

    fn take_from_reachability(&mut self, now: Now, output: reachability::Output) {
        match output {
            reachability::Output::Up(peer) => {
                self.coordinator.handle_peer_up(peer);
                self.replica.handle_peer_up();
                self.reconciler.handle_peer_up(now, peer);
                self.handoff.handle_up(now.instant, peer);
            }
            reachability::Output::Unresponsive(peer) => {
                self.shard.metrics.peers_unresponsive.inc();
                self.coordinator.handle_peer_unresponsive(&self.shard, now, peer);
                self.handoff.handle_unresponsive(now.instant, peer);
            }
            reachability::Output::Lost(peer) => {
                self.coordinator.handle_peer_lost(&self.shard, now, peer);
                self.handoff.handle_lost(now.instant, peer);
                let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_peer_lost(&view, peer);
            }
            reachability::Output::Ping(peer) => {
                self.shard.metrics.pings.inc();
                let deadline = now.instant + reachability::PING_TIMEOUT;
                let id = self.pings.draw();
                self.send(peer, id, Body::Request { deadline, request: Request::Ping });
            }
        }
    }

    fn take_from_coordinator(&mut self, now: Now, output: coordinator::Output) {
        match output {
            coordinator::Output::Own { id, request } => self.replica.handle_local(&self.shard, now, id, request),
            coordinator::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            coordinator::Output::Behind(peer) => self.outputs.push_back(Output::Behind(peer)),
            coordinator::Output::Overdue(peer) => self.reachability.handle_overdue(now.instant, peer),
            coordinator::Output::Reply { to: Asker::Client(to), response } => {
                if let Some((kind, since)) = self.arrivals.remove(&to) {
                    self.pressure.record(now.instant, kind, now.instant.since(since));
                }
                self.outputs.push_back(Output::Reply { to, response });
            }
            coordinator::Output::Reply { to: Asker::Peer(to, id), response } => {
                self.send(to, id, Body::Reply(Reply::Forwarded(response)));
            }
            coordinator::Output::Reply { to: Asker::Replica, .. } => {}
        }
    }

    pub(super) fn take_from_replica(&mut self, now: Now, output: replica::Output) {
        match output {
            replica::Output::Reply { to, id, reply } if to == self.shard.node => self.take_reply(now, to, id, reply),
            replica::Output::Reply { to, id, reply } => {
                if let Reply::State(State::Full(siblings)) = &reply
                    && siblings.value_bytes() > COMING_FROM
                {
                    let bytes = siblings.value_bytes() as u64;
                    self.send(to, id, Body::Reply(Reply::Coming { bytes }));
                }
                self.send(to, id, Body::Reply(reply));
            }
            replica::Output::Made { id, made } => self.coordinator.handle_made(&self.shard, now, id, made),
            replica::Output::Sync(up_to) => self.outputs.push_back(Output::Sync(up_to)),
            replica::Output::Retired(actor) => self.coordinator.handle_retired(&self.shard, now, actor),
            replica::Output::Damaged { bucket, key, patience } => {
                self.coordinator.restore(&self.shard, now, bucket, key, now.instant + patience);
            }
            replica::Output::EndRestoring { bucket, key } => self.coordinator.end_restoring(&self.shard, bucket, &key),
            replica::Output::NewHint(target) => self.handoff.handle_new_hint(&self.shard, now.instant, target),
            replica::Output::Halt(reason) => self.outputs.push_back(Output::Halt(reason)),
        }
    }

    fn take_from_reconciler(&mut self, output: reconciler::Output) {
        match output {
            reconciler::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            // While something changes hands, what is said of it rests on what no power cut can take.
            reconciler::Output::Reply { to, id, reply } if self.shard.configurations.is_moving() => {
                self.replica.reply_durably(&self.shard, to, id, reply);
            }
            reconciler::Output::Reply { to, id, reply } => self.send(to, id, Body::Reply(reply)),
            reconciler::Output::Failed(error) => self.replica.fail(&self.shard, error),
        }
    }

    fn take_from_handoff(&mut self, output: handoff::Output) {
        self.hints_changed = true;
        match output {
            handoff::Output::Look { target, from } => {
                // A walk that was given up may have asked before: its page would be another one's.
                self.looks.retain(|(asked, _)| *asked != target);
                self.looks.push_back((target, from));
            }
            handoff::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            handoff::Output::Delivered { target, record, digest } => {
                self.replica.hint_delivered(&self.shard, target, &record, digest);
            }
            handoff::Output::Readdress { target, record } => self.replica.readdress_hint(&self.shard, target, &record),
        }
    }

    pub(super) fn take_reply(&mut self, now: Now, from: NodeId, id: RequestId, reply: Reply) {
        match id.lane() {
            Lane::Coordinator => self.coordinator.handle_reply(&self.shard, now, from, id, reply),
            Lane::Handoff => self.handoff.handle_reply(&self.shard, now.instant, from, id, reply),
            Lane::AntiEntropy => {
                let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_reply(&view, from, id, reply);
            }
            Lane::Reachability => {}
        }
    }

    pub(super) fn send(&mut self, to: NodeId, id: RequestId, body: Body) {
        debug_assert_ne!(to, self.shard.node, "a node asks its own replica without a message");
        let message = Message { id, ring_version: self.shard.ring().version().0, body };
        self.outputs.push_back(Output::Send { to, message });
    }
}

/// States that are announced before they are sent: smaller ones are there as soon as a word about them.
const COMING_FROM: usize = 1 << 20;
