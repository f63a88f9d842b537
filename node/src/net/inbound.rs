//! Reading frames from a connection: many small ones on the shared stream, large ones on a stream each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::frame::{FRAME_MAX, FRAME_SHARED_MAX, FrameError, FrameReader, LENGTH_BYTES};
use futures::FutureExt;
use quinn::{Connection, ReadExactError, RecvStream, VarInt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::limits::NetLimits;
use super::outbound::Outbound;
use super::refusal::{CloseCode, CloseReason};

/// Frames of one connection's shared stream.
pub(crate) struct SharedStream {
    stream: RecvStream,
    reader: FrameReader,
    chunks: [Bytes; CHUNKS],
}

impl SharedStream {
    pub(crate) fn new(stream: RecvStream) -> SharedStream {
        let chunks = std::array::from_fn(|_| Bytes::new());
        SharedStream { stream, reader: FrameReader::new(FRAME_SHARED_MAX), chunks }
    }

    /// The first frame; `None` if the stream or the connection ended before it.
    pub(crate) async fn first(&mut self) -> Result<Option<Bytes>, CloseReason> {
        loop {
            if let Some(body) = self.reader.next_frame()? {
                return Ok(Some(body));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Gives every frame to `take`, until the stream or the connection ends. Stops reading while more than
    /// `outbound_max` bytes of answers wait.
    pub(crate) async fn run(
        &mut self,
        outbound: &Outbound,
        outbound_max: usize,
        take: &dyn Fn(Bytes) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        loop {
            while let Some(body) = self.reader.next_frame()? {
                take(body)?;
            }
            if outbound.bytes() >= outbound_max {
                outbound.below(outbound_max).await;
            }
            if !self.fill().await? {
                return Ok(());
            }
        }
    }

    /// Takes in what has arrived; false at the end of the stream or the connection.
    async fn fill(&mut self) -> Result<bool, CloseReason> {
        match self.stream.read_chunks(&mut self.chunks).await {
            Ok(Some(count)) => {
                for chunk in &mut self.chunks[..count] {
                    self.reader.push(chunk);
                    *chunk = Bytes::new();
                }
                Ok(true)
            }
            Ok(None) => self.reader.finish().map(|()| false).map_err(CloseReason::from),
            Err(_) => Ok(false),
        }
    }
}

/// What a conversation takes in on streams of their own.
pub(crate) struct LargeFrames {
    /// The longest frame.
    pub(crate) max: usize,
    /// What becomes of a frame that does not arrive in time.
    pub(crate) when_late: WhenLate,
    /// Bytes of answers that may wait before no more are taken in.
    pub(crate) outbound_max: usize,
    /// Whose room they take.
    pub(crate) room: Room,
}

/// Whose room a large frame takes until it has arrived.
#[derive(Clone)]
pub(crate) enum Room {
    /// Peers have theirs, which no client can take.
    Peer,
    /// Clients with one certificate share a part of that of all clients.
    Client(Rc<Semaphore>),
}

/// What becomes of a large frame that does not arrive in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenLate {
    /// Its sender is turned away.
    TurnedAway,
    /// It is given up, as if it had been lost on the way; all else goes on.
    GivenUp,
}

/// What all conversations of a shard may hold of frames that have not arrived whole.
pub(crate) struct LargeBudget {
    /// Of peers' frames up to [`FRAME_MAX`], in units.
    peers: Semaphore,
    /// Of clients'.
    clients: Semaphore,
    /// What clients with one certificate may take of that, and those that have a connection now.
    share: usize,
    shares: RefCell<HashMap<String, Weak<Semaphore>>>,
    /// Longer ones take turns: they have no part in the budget, or one of them would have all others wait until it is here.
    huge: Semaphore,
    /// Whose turn it is to take in what has arrived: one frame's, until all other tasks of the shard have had theirs.
    step: Semaphore,
}

impl LargeBudget {
    /// So many bytes, and one frame beyond [`FRAME_MAX`].
    pub(crate) fn new(bytes: usize) -> LargeBudget {
        let units = |bytes: usize| (bytes.max(FRAME_MAX) / BUDGET_UNIT + 1).min(Semaphore::MAX_PERMITS);
        LargeBudget {
            peers: Semaphore::new(units(bytes / 2)),
            clients: Semaphore::new(units(bytes / 2)),
            share: units(bytes / 8),
            shares: RefCell::default(),
            huge: Semaphore::new(1),
            step: Semaphore::new(1),
        }
    }

    /// The part that clients with this certificate have in the room of all clients.
    pub(crate) fn share_of(&self, who: &str) -> Rc<Semaphore> {
        let mut shares = self.shares.borrow_mut();
        if let Some(share) = shares.get(who).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Rc::new(Semaphore::new(self.share));
        shares.insert(who.to_owned(), Rc::downgrade(&share));
        share
    }

    /// Waits for room for a frame: first in the sender's own part, so that those that have room in theirs do not wait behind it.
    async fn take<'a>(&'a self, length: usize, room: &'a Room) -> [Option<SemaphorePermit<'a>>; 2] {
        // They are never closed; if they were, reading without them would still be right.
        let units = u32::try_from(length.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
        match room {
            Room::Peer if length > FRAME_MAX => [self.huge.acquire().await.ok(), None],
            Room::Peer => [self.peers.acquire_many(units).await.ok(), None],
            Room::Client(share) => {
                let share = share.acquire_many(units).await.ok();
                [share, self.clients.acquire_many(units).await.ok()]
            }
        }
    }
}

/// Gives the frame of every unidirectional stream to `take`, until the connection ends or one is refused. Takes in no more
/// streams while as many bytes of answers wait as may.
pub(crate) async fn large_frames(
    connection: &Connection,
    outbound: &Outbound,
    frames: LargeFrames,
    limits: &NetLimits,
    budget: &Rc<LargeBudget>,
    take: Rc<dyn Fn(Bytes) -> Result<(), CloseReason>>,
) -> Result<(), CloseReason> {
    let mut readers = tokio::task::JoinSet::new();
    let LargeFrames { max, when_late, outbound_max, room } = frames;
    let next_stream = || async {
        outbound.below(outbound_max).await;
        connection.accept_uni().await
    };
    loop {
        tokio::select! {
            // Frames that are done first: what they hold is freed, and garbage is noticed, before more is let in.
            biased;
            Some(read) = readers.join_next() => {
                if let Ok(read) = read {
                    read?;
                }
            }
            stream = next_stream() => {
                let Ok(mut stream) = stream else { return Ok(()) };
                let (budget, room, take, patience) = (budget.clone(), room.clone(), take.clone(), limits.arrival_timeout);
                readers.spawn_local(async move {
                    match large_frame(&mut stream, max, &budget, &room, patience).await {
                        Ok(Some(body)) => take(body),
                        Ok(None) => Ok(()),
                        Err(Bad::Closes(reason)) => Err(reason),
                        Err(Bad::Late) if when_late == WhenLate::GivenUp => {
                            // The sender learns that nobody reads on.
                            let _ = stream.stop(VarInt::from_u32(CloseCode::Malformed as u32));
                            Ok(())
                        }
                        Err(Bad::Late) => {
                            Err(CloseReason::new(CloseCode::Malformed, "a large frame did not arrive in time"))
                        }
                    }
                });
            }
        }
    }
}

/// Why a large frame was not read.
enum Bad {
    Closes(CloseReason),
    Late,
}

impl<E: Into<CloseReason>> From<E> for Bad {
    fn from(reason: E) -> Bad {
        Bad::Closes(reason.into())
    }
}

/// The one frame of a stream; `None` if the stream was reset or the connection ended. What it holds grows with what has
/// arrived, not with what was announced, and the time that it may take grows with its length; the time that it waits for
/// room is not its sender's fault.
async fn large_frame(
    stream: &mut RecvStream,
    max: usize,
    budget: &LargeBudget,
    room: &Room,
    patience: Duration,
) -> Result<Option<Bytes>, Bad> {
    let mut length = [0; LENGTH_BYTES];
    match timeout(patience, stream.read_exact(&mut length)).await {
        Ok(Ok(())) => {}
        Ok(Err(ReadExactError::FinishedEarly(_))) => return Err(FrameError::Truncated.into()),
        Ok(Err(ReadExactError::ReadError(_))) => return Ok(None),
        Err(_) => return Err(Bad::Late),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > max {
        return Err(FrameError::TooLong(length, max).into());
    }
    let _held = budget.take(length, room).await;
    let carried = Duration::from_micros(length as u64 / ARRIVES_PER_MICROSECOND);
    match timeout(patience + carried, large_body(stream, length, budget)).await {
        Ok(body) => Ok(body?),
        Err(_) => Err(Bad::Late),
    }
}

async fn large_body(
    stream: &mut RecvStream,
    length: usize,
    budget: &LargeBudget,
) -> Result<Option<Bytes>, CloseReason> {
    let mut body = Vec::new();
    loop {
        let mut next = stream.read_chunk(usize::MAX, true).await;
        let _step = budget.step.acquire().await;
        let full = body.len() + STEP_BYTES;
        loop {
            match next {
                Ok(Some(chunk)) => take_chunk(&mut body, &chunk.bytes, length)?,
                Ok(None) if body.len() < length => return Err(FrameError::Truncated.into()),
                Ok(None) => return Ok(Some(body.into())),
                Err(_) => return Ok(None),
            }
            if body.len() >= full {
                break;
            }
            match stream.read_chunk(usize::MAX, true).now_or_never() {
                Some(read) => next = read,
                None => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

fn take_chunk(body: &mut Vec<u8>, chunk: &Bytes, length: usize) -> Result<(), CloseReason> {
    if body.len() + chunk.len() > length {
        return Err(CloseReason::new(CloseCode::Malformed, "a stream goes on after its one frame"));
    }
    if body.capacity() - body.len() < chunk.len() {
        // The budget has been charged for all of a frame of usual size; growing would copy it twice.
        let first = if length <= FRAME_MAX { length } else { BODY_FIRST };
        let wanted = (body.len() + chunk.len()).max(2 * body.capacity()).max(first).min(length);
        body.reserve_exact(wanted - body.len());
    }
    body.extend_from_slice(chunk);
    Ok(())
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> CloseReason {
        CloseReason::new(CloseCode::Malformed, error.to_string())
    }
}

/// Chunks taken from QUIC under one lock: a chunk is at most a packet.
const CHUNKS: usize = 32;

/// Permits of the budget count kibibytes.
const BUDGET_UNIT: usize = 1024;

/// What is reserved at first for a frame beyond [`FRAME_MAX`].
const BODY_FIRST: usize = 256 << 10;

/// Bytes of a large frame that are taken in at once: some tens of microseconds.
const STEP_BYTES: usize = 128 << 10;

/// Bytes: a megabyte a second, below which a frame is given up. A tenth of what senders reckon with.
const ARRIVES_PER_MICROSECOND: u64 = 1;
