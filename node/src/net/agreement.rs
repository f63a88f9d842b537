//! The way of the machine that agrees on members to the network, to the disk, and to whoever gives it orders.
//!
//! One shard runs it for all. Letters arrive there whatever connection they came on; what cannot be sent by that shard goes to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::Response;
use driftless_proto::membership::{ClusterAnswer, ClusterCommand};
use driftless_proto::{Failure, ProtocolVersion, Refusal, Unknown};
use driftless_ring::NodeId;

use super::keeper::{AgreementKeeper, NotKept};
use super::node_context::ShardMessage;
use super::peers::Links;
use super::shard_context::ShardContext;
use crate::configurations::Configurations;
use crate::engine::ClientTag;
use crate::membership::{Apart, Letter, Membership, Output, Progress};
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
    unwritten: Option<Unwritten>,
}

/// What the shell has to do for the machine.
#[derive(PartialEq, Debug)]
pub(crate) enum Effect {
    /// Send to another node, if there is a connection.
    Send { to: NodeId, letter: Message },
    /// Tell every shard.
    Configurations(Arc<Configurations>),
    /// Show these, and no others.
    Apart(Vec<Apart>),
    /// Answer a client.
    Reply { to: ClientTag, response: Response },
}

/// What waits for room on the disk. What the machine wants done after it would say that it is written; so all of that waits as well, and
/// the machine hears nothing but who comes and goes. To the others this node is one that is slow.
struct Unwritten {
    name: String,
    bytes: Option<Vec<u8>>,
    /// What has run out; empty before it is tried.
    why: String,
    retry_at: Instant,
    /// Who is connected by now, of those with whom that has changed.
    connected: BTreeMap<NodeId, Option<ProtocolVersion>>,
}

impl Agreement {
    pub(crate) fn new(machine: Membership, keeper: Option<Arc<dyn AgreementKeeper>>) -> Agreement {
        Agreement { machine, keeper, orders: BTreeMap::new(), ordered: 0, letters: 0, progress: None, unwritten: None }
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: NodeId, speaks: ProtocolVersion) {
        self.tell_connected(now, peer, Some(speaks));
    }

    pub(crate) fn disconnected(&mut self, now: Instant, peer: NodeId) {
        self.tell_connected(now, peer, None);
    }

    fn tell_connected(&mut self, now: Instant, peer: NodeId, speaks: Option<ProtocolVersion>) {
        match (&mut self.unwritten, speaks) {
            (Some(unwritten), _) => {
                unwritten.connected.insert(peer, speaks);
            }
            (None, Some(speaks)) => self.machine.handle_connected(now, peer, speaks),
            (None, None) => self.machine.handle_disconnected(now, peer),
        }
    }

    pub(crate) fn behind(&mut self, now: Instant, peer: NodeId) {
        if self.unwritten.is_none() {
            self.machine.handle_behind(now, peer);
        }
    }

    /// A letter, unless it is late by so much that nobody counts on it any more.
    pub(crate) fn letter(&mut self, now: Instant, from: NodeId, deadline: Instant, letter: Letter) {
        if deadline > now && self.unwritten.is_none() {
            self.machine.handle_letter(now, from, letter);
        }
    }

    /// What is to be answered at once, if it cannot be taken.
    pub(crate) fn order(
        &mut self,
        now: Instant,
        from: ClientTag,
        deadline: Instant,
        command: ClusterCommand,
    ) -> Option<Response> {
        if self.unwritten.is_some() {
            return Some(Response::Failed(Failure::Refused(Refusal::StorageFull)));
        }
        self.ordered += 1;
        self.orders.insert(self.ordered, (from, deadline));
        self.machine.handle_command(now, self.ordered, command);
        None
    }

    /// To be called in every turn, after the inputs: tells the machine the time, and how far the shards have come if that is news.
    /// What is to be answered to those who have waited for too long.
    pub(crate) fn look(&mut self, now: Instant, progress: Option<Progress>) -> Vec<(ClientTag, Response)> {
        if self.unwritten.is_none() {
            if let Some(progress) = progress.filter(|progress| self.progress != Some(*progress)) {
                self.progress = Some(progress);
                self.machine.handle_progress(now, progress);
            }
            if self.machine.poll_timeout() <= now {
                self.machine.handle_timeout(now);
            }
        }
        let late: Vec<u64> =
            self.orders.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(order, _)| *order).collect();
        let late = late.into_iter().filter_map(|order| self.orders.remove(&order));
        late.map(|(tag, _)| (tag, Response::Failed(Failure::Unknown(unknown())))).collect()
    }

    /// What is to be done next; nothing while something waits to be written.
    ///
    /// # Errors
    /// In words, if what must outlive the process cannot be written, and that will not pass: the node must not go on.
    pub(crate) fn poll_effect(&mut self, now: Instant, ring_version: u64) -> Result<Option<Effect>, String> {
        match self.unwritten.take() {
            Some(unwritten) if unwritten.retry_at > now => {
                self.unwritten = Some(unwritten);
                return Ok(None);
            }
            Some(unwritten) => self.write(now, unwritten)?,
            None => {}
        }
        while self.unwritten.is_none() {
            let Some(output) = self.machine.poll_output() else { break };
            match output {
                Output::Write { name, bytes } => {
                    let (why, connected) = (String::new(), BTreeMap::new());
                    self.write(now, Unwritten { name, bytes, why, retry_at: now, connected })?;
                }
                Output::Send { to, letter } => {
                    let letter = self.seal(now, ring_version, letter);
                    return Ok(Some(Effect::Send { to, letter }));
                }
                Output::Configurations(configurations) => return Ok(Some(Effect::Configurations(configurations))),
                Output::Apart(apart) => return Ok(Some(Effect::Apart(apart))),
                Output::Answer { tag, answer } => {
                    if let Some((to, response)) = self.answer(tag, answer) {
                        return Ok(Some(Effect::Reply { to, response }));
                    }
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let orders = self.orders.values().map(|(_, deadline)| *deadline);
        let own = self.unwritten.as_ref().map_or_else(|| self.machine.poll_timeout(), |unwritten| unwritten.retry_at);
        orders.fold(own, Instant::min)
    }

    /// Writes a file, or removes it: now, or once there is room.
    fn write(&mut self, now: Instant, mut unwritten: Unwritten) -> Result<(), String> {
        let Unwritten { name, bytes, .. } = &unwritten;
        match self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.write(name, bytes.as_deref())) {
            Ok(()) => {
                if !unwritten.why.is_empty() {
                    tracing::info!(name, "what the cluster agrees on is written down");
                }
                let connected = unwritten.connected.into_iter();
                connected.for_each(|(peer, speaks)| self.tell_connected(now, peer, speaks));
                Ok(())
            }
            Err(NotKept::Short(why)) => {
                if unwritten.why != why {
                    tracing::error!(name, why, "what the cluster agrees on waits to be written down");
                }
                (unwritten.why, unwritten.retry_at) = (why, now + RETRY_INTERVAL);
                self.unwritten = Some(unwritten);
                Ok(())
            }
            Err(NotKept::Failed(why)) => {
                Err(format!("what the cluster agrees on cannot be written down ({name}): {why}"))
            }
        }
    }

    /// Whom an answer is for; nobody if they have stopped waiting.
    fn answer(&mut self, tag: u64, answer: Result<ClusterAnswer, Failure>) -> Option<(ClientTag, Response)> {
        let (to, _) = self.orders.remove(&tag)?;
        Some((to, answer.map_or_else(Response::Failed, Response::Cluster)))
    }

    /// A letter as it goes out.
    fn seal(&mut self, now: Instant, ring_version: u64, letter: Letter) -> Message {
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

/// How long after a file could not be written it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Planted;

    use std::sync::Mutex;

    use driftless_proto::ProtocolVersions;
    use driftless_proto::membership::StoreId;
    use driftless_ring::Member;
    use driftless_testkit::TopologyBuilder;

    use crate::membership::{Candidate, MembershipConfig};
    use crate::net::keeper::MemoryKeeper;

    fn agreement() -> Agreement {
        founded(&["a", "b", "c"], None)
    }

    fn founded(names: &[&str], keeper: Option<Arc<dyn AgreementKeeper>>) -> Agreement {
        let candidate = Candidate { member: Member::new("a", "a.test:1"), store: StoreId(1) };
        let founding = TopologyBuilder::of(names.iter().copied()).shared();
        let config =
            MembershipConfig { candidate, founding, files: Vec::new(), seed: [1; 32], planted: Planted::default() };
        Agreement::new(Membership::new(config, Instant(0)).expect("nothing was written before"), keeper)
    }

    /// A disk that is full at first, or has failed.
    #[derive(Debug)]
    struct Full(Mutex<Result<u32, ()>>, MemoryKeeper);

    impl AgreementKeeper for Full {
        fn files(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
            self.1.files()
        }

        fn write(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), NotKept> {
            match &mut *self.0.lock().expect("nobody panics") {
                Ok(0) => self.1.write(name, bytes),
                Ok(left) => {
                    *left -= 1;
                    Err(NotKept::Short("no room".to_owned()))
                }
                Err(()) => Err(NotKept::Failed("no disk".to_owned())),
            }
        }
    }

    /// One that decides alone, so that it has something to write down before long.
    fn alone(disk: Result<u32, ()>) -> (Agreement, Arc<Full>) {
        let full = Arc::new(Full(Mutex::new(disk), MemoryKeeper::default()));
        (founded(&["a"], Some(full.clone())), full)
    }

    /// Turns, until something waits to be written or has failed to be.
    fn run_into_it(agreement: &mut Agreement) -> (Instant, Result<(), String>) {
        let mut now = Instant(0);
        for _ in 0..100 {
            agreement.look(now, None);
            match agreement.poll_effect(now, 1) {
                Err(failed) => return (now, Err(failed)),
                Ok(_) if agreement.unwritten.is_some() => return (now, Ok(())),
                Ok(Some(_)) => {}
                Ok(None) => now = agreement.poll_timeout(),
            }
        }
        panic!("nothing is to be written down")
    }

    #[test]
    fn a_full_disk_is_waited_for_and_nothing_is_said_or_heard_meanwhile() {
        let (mut agreement, full) = alone(Ok(2));
        let tag = ClientTag { connection: 7, request: 2 };
        let (mut now, result) = run_into_it(&mut agreement);
        assert_eq!((result, full.files()), (Ok(()), Ok(vec![])));
        assert_eq!(agreement.poll_effect(now, 1), Ok(None));
        let refused = agreement.order(now, tag, now + RETRY_INTERVAL, ClusterCommand::State);
        assert_eq!(refused, Some(Response::Failed(Failure::Refused(Refusal::StorageFull))));
        agreement.connected(now, NodeId::of_name("b"), ProtocolVersions::OURS.highest());
        assert_eq!(agreement.poll_timeout(), now + RETRY_INTERVAL);

        now = now + RETRY_INTERVAL;
        assert_eq!(agreement.poll_effect(now, 1), Ok(None), "it is still full");
        now = now + RETRY_INTERVAL;
        let mut heard = Vec::new();
        while let Some(effect) = agreement.poll_effect(now, 1).expect("there is room") {
            heard.extend(match effect {
                Effect::Send { to, .. } => Some(to),
                _ => None,
            });
        }
        assert!(agreement.unwritten.is_none());
        assert!(heard.contains(&NodeId::of_name("b")), "that it is connected was not forgotten: {heard:?}");
        assert!(full.files().is_ok_and(|files| !files.is_empty()));
        assert_eq!(agreement.order(now, tag, now + RETRY_INTERVAL, ClusterCommand::State), None);
    }

    #[test]
    fn a_disk_that_has_failed_ends_the_node() {
        let (mut agreement, _) = alone(Err(()));
        let (_, failed) = run_into_it(&mut agreement);
        assert!(failed.as_ref().is_err_and(|why| why.contains("no disk")), "{failed:?}");
    }

    #[test]
    fn who_gives_an_order_is_answered_once_and_at_the_latest_when_they_stop_waiting() {
        let mut agreement = agreement();
        let tag = |request| ClientTag { connection: 7, request };
        let deadline = Instant(1_000_000);
        agreement.order(Instant(0), tag(1), deadline, ClusterCommand::State);
        agreement.order(Instant(0), tag(2), deadline, ClusterCommand::State);
        let stopping = || Err(Failure::Refused(Refusal::Stopping));
        let answered = agreement.answer(1, stopping()).expect("somebody waits");
        assert_eq!(answered, (tag(1), Response::Failed(Failure::Refused(Refusal::Stopping))));
        assert_eq!(agreement.answer(1, stopping()), None, "once");
        assert!(agreement.poll_timeout() <= deadline);
        assert_eq!(agreement.look(Instant(999_999), None), []);
        let late = agreement.look(deadline, None);
        assert!(matches!(&late[..], [(to, Response::Failed(Failure::Unknown(_)))] if *to == tag(2)), "{late:?}");
        assert_eq!(agreement.answer(2, stopping()), None, "the answer comes too late");
    }
}
