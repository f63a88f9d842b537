//! What will happen, in order of simulated time. Events of one instant happen in the order in which they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use driftless_node::peer::WireMessage;
use driftless_node::replica::store::BatchSeq;
use driftless_proto::client::{Request, Response};

use super::faults::Fault;

/// Microseconds since the world began.
pub type Micros = u64;

/// One thing that happens.
#[derive(Debug)]
pub enum Event {
    /// A message between nodes arrives.
    Peer {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// The connection it was sent on.
        connection: u64,
        /// The shard that asks; of a reply, the shard of the receiver that has asked.
        shard: u16,
        /// What it says.
        wire: WireMessage,
        /// The same, for the trace's hash.
        fingerprint: u64,
    },
    /// A datagram between the detectors of two nodes arrives, if it does.
    Datagram {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// The connection it was sent on.
        connection: u64,
        /// What it says.
        bytes: Bytes,
    },
    /// A client's request arrives at a node.
    Request {
        /// The node.
        to: usize,
        /// The client.
        client: usize,
        /// Names the attempt.
        attempt: u64,
        /// What remained of the client's patience when it sent this.
        remaining: Micros,
        /// What is asked.
        request: Request,
    },
    /// An answer arrives at a client.
    Response {
        /// The client.
        client: usize,
        /// The attempt it answers.
        attempt: u64,
        /// The answer.
        response: Response,
    },
    /// A shard works off what has arrived.
    Turn {
        /// The node.
        node: usize,
        /// In which life.
        life: u64,
        /// Which of its shards.
        shard: usize,
    },
    /// A shard's next deadline has come.
    Timer {
        /// The node.
        node: usize,
        /// In which life.
        life: u64,
        /// Of which of its shards.
        shard: usize,
    },
    /// A disk has finished a sync.
    SyncDone {
        /// The node.
        node: usize,
        /// In which life.
        life: u64,
        /// Newest batch that was applied when the sync began.
        up_to: BatchSeq,
        /// Which batch each shard has asked to be covered.
        covered: Vec<Option<BatchSeq>>,
    },
    /// One side notices that a connection is dead.
    ConnectionLost {
        /// Who notices.
        node: usize,
        /// The other side.
        peer: usize,
        /// Which connection.
        connection: u64,
    },
    /// Two nodes that can hear each other connect.
    Connect {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// The operator looks what is to be done.
    Operate,
    /// A process starts again.
    Restart {
        /// The node.
        node: usize,
    },
    /// A process that had just applied a batch dies.
    CrashSoon {
        /// The node.
        node: usize,
        /// In which life.
        life: u64,
    },
    /// The nemesis acts.
    Fault(Fault),
    /// A client begins its next operation.
    ClientNext {
        /// The client.
        client: usize,
    },
    /// Somebody begins to list the keys of a bucket.
    WalkNext {
        /// Who.
        walker: usize,
    },
    /// A page arrives, or has been waited for long enough.
    Page {
        /// Who waits for it.
        walker: usize,
        /// The attempt it answers.
        attempt: u64,
        /// The answer.
        response: Option<Response>,
    },
    /// Somebody looks what a key is, or brings back what one was.
    ArchiveNext {
        /// Who.
        archivist: usize,
    },
    /// What was known of a key arrives, or that it was merged; or it has been waited for long enough.
    Archived {
        /// Who waits for it.
        archivist: usize,
        /// The attempt it answers.
        attempt: u64,
        /// The answer.
        response: Option<Response>,
    },
    /// A client has waited long enough.
    ClientTimeout {
        /// The client.
        client: usize,
        /// For this attempt.
        attempt: u64,
    },
}

/// The queue of events.
#[derive(Debug, Default)]
pub struct Schedule {
    now: Micros,
    planned: u64,
    /// When, the number of its plan, and where it is kept: events are large, and a heap moves things about.
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
}

impl Schedule {
    /// The present.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Plans an event for this long from now.
    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Plans an event; never in the past.
    pub fn at(&mut self, at: Micros, event: Event) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or(self.events.len());
        if place == self.events.len() {
            self.events.push(None);
        }
        self.events[place] = Some(event);
        self.queue.push(Reverse((at.max(self.now), self.planned, place)));
    }

    /// The next event no later than `until`, and time moves on to it; without one, time moves on to `until`.
    pub fn next(&mut self, until: Micros) -> Option<Event> {
        let Reverse((at, _, place)) = *self.queue.peek()?;
        if at > until {
            self.now = until;
            return None;
        }
        self.queue.pop();
        self.free.push(place);
        self.now = at;
        self.events[place].take()
    }
}
