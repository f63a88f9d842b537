//! What has arrived at a shard and was not given to its engine yet.
//!
//! A turn takes either what is small, as much as has room, or one input that carries a large value:
//!
//! ```text
//! small ─▶ turn ─▶ answers leave ─▶ one large ─▶ rest, as long as that took ─▶ one large ─▶ …
//!                                                 └── turns of what is small
//! ```
//! So the answers to small requests do not wait for the commit of what came with them, they find the shard free for half of the
//! time, however many large ones wait, and no number of them keeps a large one waiting for more than its rest and a turn.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::Request;
use driftless_proto::frame::FRAME_SHARED_MAX;
use driftless_ring::NodeId;

use crate::coordinator::ClientTag;
use crate::peer::{Message, RequestId};
use crate::time::Instant;

/// What the driver gives to the engine.
pub(crate) enum Input {
    Client {
        tag: ClientTag,
        deadline: Instant,
        request: Request,
    },
    Peer {
        from: NodeId,
        message: Message,
    },
    PeerUp(NodeId),
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
    /// Whether it came on a stream of its own, for what it carries: so nothing rests on its order among others.
    pub(super) fn is_large(&self) -> bool {
        let bytes = match self {
            Input::Client { request, .. } => request.value_bytes(),
            Input::Peer { message, .. } => message.body.value_bytes(),
            _ => 0,
        };
        bytes > FRAME_SHARED_MAX
    }
}

/// Two queues, each in order.
#[derive(Default)]
pub(crate) struct Inputs {
    small: VecDeque<Input>,
    large: VecDeque<Input>,
    /// Until when no large one is given.
    rests_until: Instant,
    /// A large one was due, and what is small had the turn.
    passed_over: bool,
}

impl Inputs {
    /// Adds what has arrived.
    pub(crate) fn extend(&mut self, arrived: impl Iterator<Item = Input>) {
        for input in arrived {
            if input.is_large() { self.large.push_back(input) } else { self.small.push_back(input) }
        }
    }

    /// The large input that has this turn for itself, if it is the turn of one.
    pub(crate) fn take_large(&mut self, now: Instant) -> Option<Input> {
        let is_due = !self.large.is_empty() && self.rests_until <= now;
        let has_turn = is_due && (self.small.is_empty() || self.passed_over);
        self.passed_over = is_due && !has_turn;
        if has_turn { self.large.pop_front() } else { None }
    }

    /// The next of the others.
    pub(crate) fn take_small(&mut self) -> Option<Input> {
        self.small.pop_front()
    }

    /// The turn of a large input has taken so long.
    pub(crate) fn rest(&mut self, ended: Instant, took: Duration) {
        self.rests_until = ended + took.min(REST_MAX);
    }

    /// When there is something for a turn.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if self.small.is_empty() {
            (!self.large.is_empty()).then_some(self.rests_until)
        } else {
            Some(Instant::default())
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }
}

/// The longest rest after something large: a disk that pauses for a second is no reason to pause for another.
const REST_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use driftless_proto::client::Put;
    use driftless_proto::{BucketId, Key, WriteId};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn small(number: u64) -> Input {
        Input::PeerUp(NodeId(number))
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
        Input::Client { tag, deadline: Instant::default(), request: Request::Put(put) }
    }

    fn numbers(inputs: impl IntoIterator<Item = Input>) -> Vec<u64> {
        let number = |input| match input {
            Input::PeerUp(node) => node.0,
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
}
