//! Reading frames from a connection: many small ones on the shared stream, large ones on a stream each.

use std::rc::Rc;

use bytes::Bytes;
use driftless_proto::frame::{FRAME_MAX, FRAME_SHARED_MAX, FrameError, FrameReader, LENGTH_BYTES};
use quinn::{Connection, ReadExactError, RecvStream};
use tokio::sync::Semaphore;

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

/// Gives the frame of every unidirectional stream to `take`, until the connection ends or one is refused.
pub(crate) async fn large_frames(
    connection: &Connection,
    limits: &NetLimits,
    budget: &Rc<Semaphore>,
    take: Rc<dyn Fn(Bytes) -> Result<(), CloseReason>>,
) -> Result<(), CloseReason> {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            // Those that are done first: what they hold is freed, and garbage is noticed, before more is let in.
            biased;
            Some(read) = readers.join_next() => {
                if let Ok(read) = read {
                    read?;
                }
            }
            stream = connection.accept_uni() => {
                let Ok(stream) = stream else { return Ok(()) };
                let (budget, take, timeout) = (budget.clone(), take.clone(), limits.arrival_timeout);
                readers.spawn_local(async move {
                    match tokio::time::timeout(timeout, large_frame(stream, &budget)).await {
                        Ok(Ok(Some(body))) => take(body),
                        Ok(Ok(None)) => Ok(()),
                        Ok(Err(reason)) => Err(reason),
                        Err(_) => Err(CloseReason::new(CloseCode::Malformed, "a large frame did not arrive in time")),
                    }
                });
            }
        }
    }
}

/// The one frame of a stream; `None` if the stream was reset or the connection ended.
async fn large_frame(mut stream: RecvStream, budget: &Semaphore) -> Result<Option<Bytes>, CloseReason> {
    let mut length = [0; LENGTH_BYTES];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Truncated.into()),
        Err(ReadExactError::ReadError(_)) => return Ok(None),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(FrameError::TooLong(length, FRAME_MAX).into());
    }
    let units = u32::try_from(length.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
    // The budget is never closed; if it were, reading without it would still be right.
    let _held = budget.acquire_many(units).await.ok();
    let mut body = Vec::with_capacity(length);
    loop {
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) if body.len() + chunk.bytes.len() > length => {
                let text = "a stream goes on after its one frame";
                return Err(CloseReason::new(CloseCode::Malformed, text));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk.bytes),
            Ok(None) if body.len() < length => return Err(FrameError::Truncated.into()),
            Ok(None) => return Ok(Some(body.into())),
            Err(_) => return Ok(None),
        }
    }
}

/// A budget for large frames of this many bytes.
pub(crate) fn large_budget(bytes: usize) -> Rc<Semaphore> {
    Rc::new(Semaphore::new((bytes.max(FRAME_MAX) / BUDGET_UNIT + 1).min(Semaphore::MAX_PERMITS)))
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
