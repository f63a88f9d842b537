//! What has arrived at a shard and was not given to its engine yet.
//!
//! A turn takes either what is small, as much as has room, or one input that carries a large value:
//!
//! ```text
//! small ─▶ turn ─▶ answers leave ─▶ one large ─▶ rest, as long as that took ─▶ one large ─▶ …
//!                                                 └── turns of what is small
//! ```
//! So the answers to small requests do not wait for the commit of what came with them, they find the shard free for half of the
//! time, however many large ones wait, and no number of them keeps a large one waiting for more than its rest and a turn. A
//! large one also waits until what those before it have brought is synced, but for some megabytes.
//!
//! Clients take turns by certificate, whatever each has waiting. What peers say goes first, since it ends what was begun, but a
//! client's input is among every [`PEERS_AHEAD`] + 1.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::ProtocolVersion;
use driftless_proto::client::Request;
use driftless_proto::frame::FRAME_SHARED_MAX;
use driftless_ring::NodeId;

use crate::coordinator::ClientTag;
use crate::peer::{Message, RequestId};
use crate::replica::store::BatchSeq;
use crate::time::Instant;

use super::inbound::Taken;

/// What the driver gives to the engine.
pub(crate) enum Input {
    Client {
        /// Whose certificate it is ([`super::accounts::Account::number`]).
        account: u64,
        tag: ClientTag,
        /// When this node had it.
        arrived: Instant,
        deadline: Instant,
        request: Request,
    },
    Peer {
        from: NodeId,
        message: Message,
        /// When this node had it.
        arrived: Instant,
        /// The room that it takes until the engine has it.
        taken: Option<Taken>,
    },
    PeerUp(NodeId, ProtocolVersion),
    PeerLost(NodeId),
    /// A request to a peer was not sent: more waits for it than may.
    Unsent {
        to: NodeId,
        id: RequestId,
    },
    /// Part of the detector's conversation.
    Datagram {
        from: NodeId,
        bytes: Bytes,
    },
}

impl Input {
    /// Whether nobody waits for it any more: the engine says so, without a look at anything.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        match self {
            Input::Client { deadline, .. } => *deadline <= now,
            Input::Peer { message, .. } => message.body.has_expired(now),
            _ => false,
        }
    }

    /// Bytes of the values that it carries.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Input::Client { request, .. } => request.value_bytes(),
            Input::Peer { message, .. } => message.body.value_bytes(),
            _ => 0,
        }
    }

    /// Whether it came on a stream of its own, for what it carries: so nothing rests on its order among others.
    pub(super) fn is_large(&self) -> bool {
        self.value_bytes() > FRAME_SHARED_MAX
    }
}

/// Two queues, each fair.
#[derive(Default)]
pub(crate) struct Inputs {
    small: Queue,
    large: Queue,
    /// Until when no large one is given.
    rests_until: Instant,
    /// A large one was due, and what is small had the turn.
    passed_over: bool,
    /// What cannot go on before something has been fetched from the disk.
    aside: VecDeque<Input>,
    /// What large ones have brought and no sync has covered yet: up to which batch, and how many bytes.
    unsynced: VecDeque<(BatchSeq, usize)>,
}

/// What peers and the shell say in order, and what clients ask: in order by certificate, and these in turn.
#[derive(Default)]
struct Queue {
    peers: VecDeque<Input>,
    /// Empty queues of some certificates stay, so that a turn allocates none.
    clients: BTreeMap<u64, VecDeque<Input>>,
    /// Certificates with something waiting, by whose turn is next.
    turns: VecDeque<u64>,
    /// Of the others, since a client had a turn.
    ahead: usize,
}

impl Queue {
    fn push(&mut self, input: Input) {
        let Input::Client { account, .. } = input else { return self.peers.push_back(input) };
        let waiting = self.clients.entry(account).or_default();
        if waiting.is_empty() {
            self.turns.push_back(account);
        }
        waiting.push_back(input);
    }

    /// Puts back what was taken.
    fn push_front(&mut self, input: Input) {
        let Input::Client { account, .. } = input else { return self.peers.push_front(input) };
        let waiting = self.clients.entry(account).or_default();
        if waiting.is_empty() {
            self.turns.push_front(account);
        }
        waiting.push_front(input);
    }

    fn pop(&mut self) -> Option<Input> {
        if self.ahead < PEERS_AHEAD || self.turns.is_empty() {
            self.ahead += 1;
            if let Some(input) = self.peers.pop_front() {
                return Some(input);
            }
        }
        self.ahead = 0;
        let account = self.turns.pop_front()?;
        let waiting = self.clients.get_mut(&account)?;
        let input = waiting.pop_front();
        if !waiting.is_empty() {
            self.turns.push_back(account);
        } else if self.clients.len() > IDLE_KEPT {
            self.clients.remove(&account);
        }
        input
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.turns.is_empty()
    }
}

impl Inputs {
    /// Adds what has arrived.
    pub(crate) fn extend(&mut self, arrived: impl Iterator<Item = Input>) {
        for input in arrived {
            if input.is_large() { self.large.push(input) } else { self.small.push(input) }
        }
    }

    /// Whether another input may be put aside. If not, the shard waits for the disk, and whoever sends waits for the shard.
    pub(crate) fn has_room_aside(&self) -> bool {
        self.aside.len() < ASIDE_MAX
    }

    /// Puts an input aside until something has been fetched.
    pub(crate) fn put_aside(&mut self, input: Input) {
        self.aside.push_back(input);
    }

    /// Something has been fetched: what was put aside is looked at again, before what came later.
    pub(crate) fn fetched(&mut self) {
        while let Some(input) = self.aside.pop_back() {
            if input.is_large() { self.large.push_front(input) } else { self.small.push_front(input) }
        }
    }

    /// The large input that has this turn for itself, if it is the turn of one.
    pub(crate) fn take_large(&mut self, now: Instant) -> Option<Input> {
        let is_due = !self.large.is_empty() && self.rests_until <= now && !self.waits_for_sync();
        let has_turn = is_due && (self.small.is_empty() || self.passed_over);
        self.passed_over = is_due && !has_turn;
        if has_turn { self.large.pop() } else { None }
    }

    /// The next of the others.
    pub(crate) fn take_small(&mut self) -> Option<Input> {
        self.small.pop()
    }

    /// The turn of a large input has taken so long.
    pub(crate) fn rest(&mut self, ended: Instant, took: Duration) {
        self.rests_until = ended + took.min(REST_MAX);
    }

    /// What a large input has brought will be synced with this batch.
    pub(crate) fn brought(&mut self, batch: BatchSeq, bytes: usize) {
        self.unsynced.push_back((batch, bytes));
    }

    /// A sync covers everything up to this batch.
    pub(crate) fn synced(&mut self, batch: BatchSeq) {
        while self.unsynced.front().is_some_and(|(brought_in, _)| *brought_in <= batch) {
            self.unsynced.pop_front();
        }
    }

    fn waits_for_sync(&self) -> bool {
        self.unsynced.iter().map(|(_, bytes)| bytes).sum::<usize>() >= UNSYNCED_MAX
    }

    /// When there is something for a turn; if all that waits is for a sync, that wakes the driver.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if self.small.is_empty() {
            (!self.large.is_empty() && !self.waits_for_sync()).then_some(self.rests_until)
        } else {
            Some(Instant::default())
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.aside.is_empty()
    }
}

/// Inputs that may wait for the disk beside the others: some for each read that it serves at once. They are looked at again whenever
/// one of them has been fetched.
const ASIDE_MAX: usize = 256;

/// Certificates whose queue stays when it is empty.
const IDLE_KEPT: usize = 16;

/// A put at its coordinator is answered by n - 1 peers, and one here is a merge at n - 1 others.
const PEERS_AHEAD: usize = 8;

/// Bytes of large values that may wait for the disk before the next one has its turn: every small write behind them waits for the
/// same sync, for as long as the disk takes to write them down.
const UNSYNCED_MAX: usize = 8 << 20;

/// The longest rest after something large: a disk that pauses for a second is no reason to pause for another.
const REST_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use driftless_proto::client::Put;
    use driftless_proto::{BucketId, Key, ProtocolVersions, WriteId};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn small(number: u64) -> Input {
        Input::PeerUp(NodeId(number), ProtocolVersions::OURS.highest())
    }

    fn large(number: u64) -> Input {
        let put = Put {
            bucket: BucketId(0),
            key: Key::new("k").expect("valid"),
            value: Bytes::from(vec![0; FRAME_SHARED_MAX + 1]),
            context: None,
            w: None,
            sloppy: None,
            write_id: WriteId(1),
        };
        let tag = ClientTag { connection: 0, request: number };
        Input::Client {
            account: 1,
            tag,
            arrived: Instant::default(),
            deadline: Instant::default(),
            request: Request::Put(put),
        }
    }

    fn asked_by(account: u64, number: u64) -> Input {
        let tag = ClientTag { connection: 0, request: number };
        Input::Client {
            account,
            tag,
            arrived: Instant::default(),
            deadline: Instant::default(),
            request: Request::Status,
        }
    }

    fn numbers(inputs: impl IntoIterator<Item = Input>) -> Vec<u64> {
        let number = |input| match input {
            Input::PeerUp(node, _) => node.0,
            Input::Client { tag, .. } => tag.request,
            _ => unreachable!("no other is given here"),
        };
        inputs.into_iter().map(number).collect()
    }

    /// What a turn with room for all is given.
    fn turn(inputs: &mut Inputs, now: Instant) -> Vec<u64> {
        match inputs.take_large(now) {
            Some(input) => numbers([input]),
            None => numbers(std::iter::from_fn(|| inputs.take_small())),
        }
    }

    #[test]
    fn what_is_small_leaves_before_what_is_large_and_each_kind_keeps_its_order() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend([large(1), small(2), large(3), small(4)].into_iter());
        assert_eq!(turn(&mut inputs, now), [2, 4]);
        assert_eq!(turn(&mut inputs, now), [1]);
        assert_eq!(turn(&mut inputs, now), [3]);
        assert!(inputs.is_empty() && inputs.due_at().is_none());
    }

    #[test]
    fn what_is_small_keeps_nothing_large_waiting_however_much_comes() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend([large(1)].into_iter());
        let mut turns = 0;
        loop {
            inputs.extend((0..2_000).map(|_| small(0)));
            if turn(&mut inputs, now) == [1] {
                break;
            }
            turns += 1;
            assert!(turns < 2, "it was passed over once");
        }
    }

    #[test]
    fn after_a_large_one_the_shard_rests_from_them_as_long_as_it_took() {
        let mut inputs = Inputs::default();
        inputs.extend([large(1), large(2), large(3)].into_iter());
        let began = Instant::default() + MS;
        assert_eq!(turn(&mut inputs, began), [1]);
        inputs.rest(began + MS * 20, MS * 20);
        assert!(turn(&mut inputs, began + MS * 39).is_empty());
        inputs.extend([small(9)].into_iter());
        assert_eq!(turn(&mut inputs, began + MS * 39), [9], "what is small is not held up");
        assert_eq!(inputs.due_at(), Some(began + MS * 40), "and the shard wakes by itself");
        assert_eq!(turn(&mut inputs, began + MS * 40), [2]);
        inputs.rest(began + MS * 2_000, MS * 1_960);
        assert_eq!(inputs.due_at(), Some(began + MS * 2_000 + REST_MAX));
    }

    #[test]
    fn certificates_take_turns_however_much_each_has_waiting() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend((0..1_000).map(|number| asked_by(1, number)));
        inputs.extend([asked_by(2, 5_000), asked_by(2, 5_001), asked_by(3, 6_000)].into_iter());
        let given = turn(&mut inputs, now);
        assert_eq!(given[..6], [0, 5_000, 6_000, 1, 5_001, 2]);
        assert_eq!(given.len(), 1_003);
        inputs.extend([asked_by(2, 1), asked_by(2, 2)].into_iter());
        assert_eq!(turn(&mut inputs, now), [1, 2], "nothing is left of those that came before");
    }

    #[test]
    fn peers_go_first_and_keep_no_client_waiting() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend([asked_by(1, 1_000), asked_by(1, 1_001)].into_iter());
        inputs.extend((0..20).map(small));
        let given = turn(&mut inputs, now);
        assert_eq!(given[..9], [0, 1, 2, 3, 4, 5, 6, 7, 1_000]);
        assert_eq!(given.len(), 22);
        let peers: Vec<u64> = given.into_iter().filter(|number| *number < 1_000).collect();
        assert_eq!(peers, (0..20).collect::<Vec<_>>(), "in their order");
    }

    #[test]
    fn what_is_large_takes_turns_as_well() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend((0..10).map(large));
        let Input::Client { tag, arrived, deadline, request, .. } = large(100) else {
            unreachable!("it is a client's")
        };
        inputs.extend([Input::Client { account: 2, tag, arrived, deadline, request }].into_iter());
        assert_eq!(turn(&mut inputs, now), [0]);
        assert_eq!(turn(&mut inputs, now), [100]);
    }

    #[test]
    fn what_was_put_aside_holds_nobody_up_and_comes_back_in_its_order_when_something_was_fetched() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend([asked_by(1, 1), asked_by(1, 2), small(3), small(4), large(5)].into_iter());
        while let Some(input) = inputs.take_small() {
            inputs.put_aside(input);
        }
        let first = inputs.take_large(now).expect("nothing else waits");
        inputs.put_aside(first);
        assert!(!inputs.is_empty() && inputs.due_at().is_none(), "there is something, and nothing to do");
        inputs.extend([asked_by(1, 10), small(11)].into_iter());
        assert_eq!(turn(&mut inputs, now), [11, 10]);
        inputs.extend([small(12), asked_by(1, 13)].into_iter());
        inputs.fetched();
        assert_eq!(turn(&mut inputs, now), [3, 4, 12, 1, 2, 13]);
        assert_eq!(turn(&mut inputs, now), [5]);
        assert!(inputs.is_empty());
    }

    #[test]
    fn a_large_one_waits_until_what_came_before_it_is_on_the_disk() {
        let (mut inputs, now) = (Inputs::default(), Instant::default());
        inputs.extend((0..3).map(large));
        assert_eq!(turn(&mut inputs, now), [0]);
        inputs.brought(BatchSeq(5), UNSYNCED_MAX - 1);
        assert_eq!(turn(&mut inputs, now), [1], "some may wait");
        inputs.brought(BatchSeq(6), UNSYNCED_MAX);
        assert!(turn(&mut inputs, now).is_empty() && inputs.due_at().is_none());
        inputs.extend([small(9)].into_iter());
        assert_eq!(turn(&mut inputs, now), [9], "what is small is not held up");
        inputs.synced(BatchSeq(5));
        assert!(turn(&mut inputs, now).is_empty());
        inputs.synced(BatchSeq(6));
        assert_eq!(turn(&mut inputs, now), [2]);
    }
}
