//! The way of the machine that agrees on members to the network, to the disk, and to whoever gives it orders.
//!
//! One shard runs it for all. Letters arrive there whatever connection they came on; what cannot be sent by that shard goes to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::Response;
use driftless_proto::membership::{ClusterAnswer, ClusterCommand};
use driftless_proto::{Failure, Refusal, Unknown};
use driftless_ring::NodeId;

use super::keeper::AgreementKeeper;
use super::node_context::ShardMessage;
use super::peers::Links;
use super::shard_context::ShardContext;
use crate::engine::ClientTag;
use crate::membership::{Letter, Membership, Output, Progress};
use crate::peer::{Body, Message, Request, RequestId};
use crate::time::Instant;

/// The machine, and who waits for it.
pub(crate) struct Agreement {
    machine: Membership,
    keeper: Option<Arc<dyn AgreementKeeper>>,
    /// Who has given which order, and until when they wait.
    orders: BTreeMap<u64, (ClientTag, Instant)>,
    ordered: u64,
    letters: u64,
    /// How far the shards had come when the machine was told last.
    progress: Option<Progress>,
}

impl Agreement {
    pub(crate) fn new(machine: Membership, keeper: Option<Arc<dyn AgreementKeeper>>) -> Agreement {
        Agreement { machine, keeper, orders: BTreeMap::new(), ordered: 0, letters: 0, progress: None }
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: NodeId) {
        self.machine.handle_connected(now, peer);
    }

    pub(crate) fn disconnected(&mut self, now: Instant, peer: NodeId) {
        self.machine.handle_disconnected(now, peer);
    }

    pub(crate) fn behind(&mut self, now: Instant, peer: NodeId) {
        self.machine.handle_behind(now, peer);
    }

    /// A letter, unless it is late by so much that nobody counts on it any more.
    pub(crate) fn letter(&mut self, now: Instant, from: NodeId, deadline: Instant, letter: Letter) {
        if deadline > now {
            self.machine.handle_letter(now, from, letter);
        }
    }

    pub(crate) fn order(&mut self, now: Instant, from: ClientTag, deadline: Instant, command: ClusterCommand) {
        self.ordered += 1;
        self.orders.insert(self.ordered, (from, deadline));
        self.machine.handle_command(now, self.ordered, command);
    }

    /// To be called in every turn, after the inputs: tells the machine the time, and how far the shards have come if that is news.
    /// What is to be answered to those who have waited for too long.
    pub(crate) fn look(&mut self, now: Instant, progress: Option<Progress>) -> Vec<(ClientTag, Response)> {
        if let Some(progress) = progress.filter(|progress| self.progress != Some(*progress)) {
            self.progress = Some(progress);
            self.machine.handle_progress(now, progress);
        }
        if self.machine.poll_timeout() <= now {
            self.machine.handle_timeout(now);
        }
        let late: Vec<u64> =
            self.orders.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(order, _)| *order).collect();
        let late = late.into_iter().filter_map(|order| self.orders.remove(&order));
        late.map(|(tag, _)| (tag, Response::Failed(Failure::Unknown(unknown())))).collect()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.machine.poll_output()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let orders = self.orders.values().map(|(_, deadline)| *deadline);
        orders.fold(self.machine.poll_timeout(), Instant::min)
    }

    /// Writes a file, or removes it; durable afterwards.
    pub(crate) fn write(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), String> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.write(name, bytes))
    }

    /// Whom an answer is for; nobody if they have stopped waiting.
    pub(crate) fn answer(&mut self, tag: u64, answer: Result<ClusterAnswer, Refusal>) -> Option<(ClientTag, Response)> {
        let (to, _) = self.orders.remove(&tag)?;
        let response = match answer {
            Ok(answer) => Response::Cluster(answer),
            Err(refusal) => Response::Failed(Failure::Refused(refusal)),
        };
        Some((to, response))
    }

    /// A letter as it goes out.
    pub(crate) fn seal(&mut self, now: Instant, ring_version: u64, letter: Letter) -> Message {
        // Nobody answers to it, so its number says nothing.
        self.letters += 1;
        let request = Request::Membership(Box::new(letter));
        let body = Body::Request { deadline: now + LETTER_TIMEOUT, request };
        Message { id: RequestId(self.letters), ring_version, body }
    }

    /// Sends from this shard, or from the first after it that has a connection.
    pub(crate) fn send(context: &ShardContext, links: &Links, now: Instant, to: NodeId, message: Message) {
        let next = context.shard + 1;
        if links.has(to) {
            links.send(context, now, to, message);
        } else if usize::from(next) < context.shared.shards.len() {
            context.shared.tell(next, ShardMessage::SendLetter { to, message });
        }
    }
}

fn unknown() -> Unknown {
    Unknown::Interrupted(
        "the nodes that decide have not answered in time, and may still do it: run it again, it is the same change"
            .to_owned(),
    )
}

/// How long a letter may be on its way: its writer has written another by then.
const LETTER_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    use driftless_proto::membership::StoreId;
    use driftless_ring::Member;
    use driftless_testkit::TopologyBuilder;

    use crate::membership::{Candidate, MembershipConfig};

    fn agreement() -> Agreement {
        let candidate = Candidate { member: Member::new("a", "a.test:1"), store: StoreId(1) };
        let founding = TopologyBuilder::of(["a", "b", "c"]).shared();
        let config = MembershipConfig { candidate, founding, files: Vec::new(), seed: [1; 32] };
        Agreement::new(Membership::new(config, Instant(0)).expect("nothing was written before"), None)
    }

    #[test]
    fn who_gives_an_order_is_answered_once_and_at_the_latest_when_they_stop_waiting() {
        let mut agreement = agreement();
        let tag = |request| ClientTag { connection: 7, request };
        let deadline = Instant(1_000_000);
        agreement.order(Instant(0), tag(1), deadline, ClusterCommand::State);
        agreement.order(Instant(0), tag(2), deadline, ClusterCommand::State);
        let answered = agreement.answer(1, Err(Refusal::Stopping)).expect("somebody waits");
        assert_eq!(answered, (tag(1), Response::Failed(Failure::Refused(Refusal::Stopping))));
        assert_eq!(agreement.answer(1, Err(Refusal::Stopping)), None, "once");
        assert!(agreement.poll_timeout() <= deadline);
        assert_eq!(agreement.look(Instant(999_999), None), []);
        let late = agreement.look(deadline, None);
        assert!(matches!(&late[..], [(to, Response::Failed(Failure::Unknown(_)))] if *to == tag(2)), "{late:?}");
        assert_eq!(agreement.answer(2, Err(Refusal::Stopping)), None, "the answer comes too late");
    }
}
