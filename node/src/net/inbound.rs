//! Reading frames from a connection: many small ones on the shared stream, large ones on a stream each.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::frame::{FRAME_MAX, FRAME_SHARED_MAX, FrameError, FrameReader, LENGTH_BYTES};
use futures::FutureExt;
use quinn::{Connection, ReadExactError, RecvStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::accounts::Account;
use super::budget::Held;
use super::outbound::Outbound;
use super::refusal::{CloseCode, CloseReason};
use super::shard_context::ShardContext;

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

    /// Gives every frame to `take`, until the stream or the connection ends. Waits with each until `outbound` admits it, and reads
    /// no more meanwhile.
    pub(crate) async fn run(&mut self, outbound: &Outbound, take: &Take) -> Result<(), CloseReason> {
        loop {
            while let Some(body) = self.reader.next_frame()? {
                outbound.admits().await;
                take(body, None)?;
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
    /// Whose room they take.
    pub(crate) room: Room,
}

/// Whose room a large frame takes.
#[derive(Clone)]
pub(crate) enum Room {
    /// Peers have theirs, which no client can take: for all of a frame, from its announcement on. A frame that is late is given up,
    /// as if it had been lost on the way.
    Peer,
    /// That of the client's account, for what has arrived. A client that announces a frame and does not send it is turned away.
    Client(Arc<Account>),
}

/// The room that a frame takes, until this is dropped.
pub(crate) enum Taken {
    /// Of a client's account.
    Client(Held),
    /// Of the room of peers.
    Peer {
        /// Missing only if the semaphore were closed.
        _permit: Option<OwnedSemaphorePermit>,
    },
}

/// What peers' frames may hold of a shard, and whose turn it is.
pub(crate) struct LargeBudget {
    /// Of peers' frames up to [`FRAME_MAX`], in units.
    peers: Arc<Semaphore>,
    /// Longer ones take turns: they have no part in the budget, or one of them would have all others wait until it is here.
    huge: Arc<Semaphore>,
    /// Whose turn it is to take in what has arrived: one frame's, until all other tasks of the shard have had theirs.
    step: Semaphore,
}

impl LargeBudget {
    /// So many bytes, and one frame beyond [`FRAME_MAX`].
    pub(crate) fn new(bytes: usize) -> LargeBudget {
        let units = (bytes / BUDGET_UNIT + 1).min(Semaphore::MAX_PERMITS);
        LargeBudget {
            peers: Arc::new(Semaphore::new(units)),
            huge: Arc::new(Semaphore::new(1)),
            step: Semaphore::new(1),
        }
    }

    /// Room for a frame of this length, or for its beginning.
    async fn take(&self, length: usize, room: &Room) -> Taken {
        // The semaphores are never closed; if they were, reading without them would still be right.
        let units = u32::try_from(length.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
        match room {
            Room::Peer if length > FRAME_MAX => Taken::Peer { _permit: self.huge.clone().acquire_owned().await.ok() },
            Room::Peer => Taken::Peer { _permit: self.peers.clone().acquire_many_owned(units).await.ok() },
            Room::Client(account) => Taken::Client(account.bytes.charge(0)),
        }
    }
}

/// What is done with a frame: its body, and the room that it takes if it came on a stream of its own.
pub(crate) type Take = dyn Fn(Bytes, Option<Taken>) -> Result<(), CloseReason>;

/// What is done when there is no room for the rest of a frame, with what there is of it.
pub(crate) type NoRoom = dyn Fn(&[u8]);

/// Gives the frame of every unidirectional stream to `take`, until the connection ends or one is refused. Takes in no more
/// streams of a client than `outbound` admits.
pub(crate) async fn large_frames(
    outbound: &Outbound,
    connection: &Connection,
    frames: LargeFrames,
    context: &ShardContext,
    take: Rc<Take>,
    no_room: Rc<NoRoom>,
) -> Result<(), CloseReason> {
    let mut readers = tokio::task::JoinSet::new();
    let LargeFrames { max, room } = frames;
    let next_stream = || async {
        outbound.admits().await;
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
                let (budget, room) = (context.large.clone(), room.clone());
                let patience = context.shared.net.arrival_timeout;
                let (take, no_room) = (take.clone(), no_room.clone());
                readers.spawn_local(async move {
                    let given_up = match large_frame(&mut stream, max, &budget, &room, patience).await {
                        Ok(Some((body, taken))) => return take(body, Some(taken)),
                        Ok(None) => return Ok(()),
                        Err(Bad::Closes(reason)) => return Err(reason),
                        Err(Bad::Late) if matches!(room, Room::Client(_)) => {
                            return Err(CloseReason::new(CloseCode::Malformed, "a large frame did not arrive in time"));
                        }
                        Err(Bad::Late) => Vec::new(),
                        Err(Bad::NoRoom(begun)) => begun,
                    };
                    // The sender learns that nobody reads on.
                    let _ = stream.stop(VarInt::from_u32(CloseCode::Malformed as u32));
                    if !given_up.is_empty() {
                        no_room(&given_up);
                    }
                    Ok(())
                });
            }
        }
    }
}

/// Why a large frame was not read.
enum Bad {
    Closes(CloseReason),
    Late,
    /// Its account had no room for more than this.
    NoRoom(Vec<u8>),
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
) -> Result<Option<(Bytes, Taken)>, Bad> {
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
    let mut taken = budget.take(length, room).await;
    let carried = Duration::from_micros(length as u64 / ARRIVES_PER_MICROSECOND);
    match timeout(patience + carried, large_body(stream, length, budget, &mut taken)).await {
        Ok(body) => Ok(body?.map(|body| (body, taken))),
        Err(_) => Err(Bad::Late),
    }
}

async fn large_body(
    stream: &mut RecvStream,
    length: usize,
    budget: &LargeBudget,
    taken: &mut Taken,
) -> Result<Option<Bytes>, Bad> {
    let mut body = Vec::new();
    loop {
        let mut next = stream.read_chunk(usize::MAX, true).await;
        let full = (body.len() + STEP_BYTES).min(length);
        if !reserve(&mut body, full, length, taken).await {
            if let Ok(Some(chunk)) = next {
                body.extend_from_slice(&chunk.bytes);
            }
            return Err(Bad::NoRoom(body));
        }
        let _step = budget.step.acquire().await;
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

/// Makes room for what a step takes in, first in the account. Whether there was some before long: two frames that each wait for
/// what the other holds end so.
async fn reserve(body: &mut Vec<u8>, least: usize, length: usize, taken: &mut Taken) -> bool {
    // The room of peers has been taken for all of a frame of usual size; growing would copy it twice.
    let first = match taken {
        Taken::Peer { .. } if length <= FRAME_MAX => length,
        _ => BODY_FIRST,
    };
    let wanted = match body.capacity() {
        enough if enough >= least => enough,
        less => least.max(2 * less).max(first).min(length),
    };
    if let Taken::Client(held) = taken
        && timeout(ROOM_PATIENCE, held.grow_to(charged(wanted))).await.is_err()
    {
        return false;
    }
    body.reserve_exact(wanted - body.len());
    true
}

/// What a body of so many bytes counts: half as much again, since the allocator holds on to what such bodies grew out of, and to what
/// they leave behind, for some seconds.
fn charged(bytes: usize) -> usize {
    bytes + bytes / 2
}

fn take_chunk(body: &mut Vec<u8>, chunk: &Bytes, length: usize) -> Result<(), CloseReason> {
    if body.len() + chunk.len() > length {
        return Err(CloseReason::new(CloseCode::Malformed, "a stream goes on after its one frame"));
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

/// How long a large frame waits for room in its account.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);

/// Bytes: a megabyte a second, below which a frame is given up. A tenth of what senders reckon with.
const ARRIVES_PER_MICROSECOND: u64 = 1;
