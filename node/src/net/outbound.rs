//! What waits to be written to one connection.
//!
//! ```text
//! frame up to 64 KiB ──▶ one buffer ─────────────▶ the shared stream     all that one turn of the driver says is one write
//!       up to 4 MiB  ──▶ large ──┬──┬──┬──┬──────▶ a stream each         several at once
//!       beyond       ──▶ huge ───┴─────────────── ▶ a stream each         one at a time, beside the large ones
//! ```
//! The driver encodes; writer tasks take. Large frames share the values that they carry with the machine that holds the
//! message, so that waiting costs no copy. QUIC sends streams in turn, a packet each, and none of them can fill the
//! connection's window ([`STREAM_WINDOW`](super::shard)): so a huge frame slows the others down to their share, and holds up
//! none.
//!
//! Everything waits with the large frames until there is a shared stream: a client whose first request is a large one has opened
//! none that we could have seen.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::frame::{self, FRAME_SHARED_MAX, FrameError, SHARED_FROM};
use driftless_proto::key::VALUE_BYTES_MAX;
use quinn::{Connection, SendStream, WriteError};
use serde::Serialize;
use tokio::sync::Notify;

use super::accounts::Account;
use super::clock::Clock;
use super::signal::Signal;
use crate::time::Instant;

/// Frames of one connection that QUIC has not taken yet.
pub(crate) struct Outbound {
    shared: RefCell<Vec<u8>>,
    large: Lane,
    huge: Lane,
    /// In all of them, and in the hands of the writers.
    bytes: Cell<usize>,
    /// In whose account they are counted; peers have none.
    account: Option<Arc<Account>>,
    /// From how many on the other side is not read from; peers always are.
    max: usize,
    /// Bytes that QUIC has taken, ever.
    taken: Cell<u64>,
    has_shared: Cell<bool>,
    finishing: Cell<bool>,
    wake_shared: Signal,
    written: Notify,
}

/// Frames that travel on streams of their own.
#[derive(Default)]
struct Lane {
    frames: RefCell<VecDeque<Frame>>,
    /// In the queue, and in the hands of the writers.
    bytes: Cell<usize>,
    wake: Notify,
}

struct Frame {
    pieces: Vec<Bytes>,
    length: usize,
    /// When nobody waits for it any more.
    until: Option<Instant>,
}

/// What is to be known of a message beside itself.
pub(crate) struct FrameLoad {
    /// The values that it carries, in their order, if they are what makes it large.
    pub(crate) values: Vec<Bytes>,
    /// The longest frame that the other side takes.
    pub(crate) frame_max: usize,
    /// When nobody waits for it any more.
    pub(crate) until: Option<Instant>,
}

impl FrameLoad {
    /// Bytes of the values together.
    pub(crate) fn bytes(&self) -> usize {
        self.values.iter().map(Bytes::len).sum()
    }
}

/// Why a frame was not added.
#[derive(Debug)]
pub(crate) enum NotPushed {
    /// More of its lane waits than may.
    Full,
    /// It cannot be a frame.
    Frame(FrameError),
}

impl From<FrameError> for NotPushed {
    fn from(error: FrameError) -> NotPushed {
        NotPushed::Frame(error)
    }
}

impl Outbound {
    /// To a client with this account, that is not read from while `max` bytes wait for it.
    pub(crate) fn to_client(account: Arc<Account>, max: usize) -> Outbound {
        Outbound::new(Some(account), max)
    }

    /// To a peer, that is always read from: two peers that each waited for the other to read would wait for ever.
    pub(crate) fn to_peer() -> Outbound {
        Outbound::new(None, usize::MAX)
    }

    fn new(account: Option<Arc<Account>>, max: usize) -> Outbound {
        Outbound {
            shared: RefCell::default(),
            large: Lane::default(),
            huge: Lane::default(),
            bytes: Cell::new(0),
            account,
            max,
            taken: Cell::new(0),
            has_shared: Cell::new(false),
            finishing: Cell::new(false),
            wake_shared: Signal::default(),
            written: Notify::new(),
        }
    }

    /// Adds a frame to a client.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; nothing was added.
    pub(crate) fn push<M: Serialize>(&self, message: &M, load: &FrameLoad) -> Result<(), FrameError> {
        match self.push_within(message, load, usize::MAX) {
            Ok(()) | Err(NotPushed::Full) => Ok(()),
            Err(NotPushed::Frame(error)) => Err(error),
        }
    }

    /// Adds a frame, unless more of its lane waits than may. Lanes are counted apart, since none of them waits for another to be
    /// written: a flood of large values that a peer is slow to take in would else keep every small message from it. In the
    /// shared one a quarter of `max` may wait; one huge frame always may.
    ///
    /// # Errors
    /// [`NotPushed`]; nothing was added.
    pub(crate) fn push_within<M: Serialize>(&self, message: &M, load: &FrameLoad, max: usize) -> Result<(), NotPushed> {
        if load.bytes() >= SHARED_FROM {
            let pieces = frame::encode_in_pieces(message, &load.values, load.frame_max)?;
            let length = pieces.iter().map(Bytes::len).sum();
            if length > FRAME_SHARED_MAX || !self.has_shared.get() {
                return self.push_alone(Frame { pieces, length, until: load.until }, max);
            }
            let mut shared = self.shared.borrow_mut();
            if shared.len() >= max / 4 {
                return Err(NotPushed::Full);
            }
            pieces.iter().for_each(|piece| shared.extend_from_slice(piece));
            self.added(length);
            self.wake_shared.set();
            return Ok(());
        }
        let mut shared = self.shared.borrow_mut();
        let start = shared.len();
        frame::encode(message, &mut shared)?;
        let length = shared.len() - start;
        if length > FRAME_SHARED_MAX || !self.has_shared.get() {
            let pieces = vec![shared.split_off(start).into()];
            return self.push_alone(Frame { pieces, length, until: load.until }, max);
        }
        if start >= max / 4 {
            shared.truncate(start);
            return Err(NotPushed::Full);
        }
        self.added(length);
        self.wake_shared.set();
        Ok(())
    }

    /// By how long it is, whatever makes it so.
    fn push_alone(&self, frame: Frame, max: usize) -> Result<(), NotPushed> {
        let is_huge = frame.length > HUGE_FROM;
        let lane = if is_huge { &self.huge } else { &self.large };
        let waiting = lane.bytes.get();
        if if is_huge { waiting > 0 && waiting.saturating_add(frame.length) > max } else { waiting >= max } {
            return Err(NotPushed::Full);
        }
        self.added(frame.length);
        lane.bytes.set(lane.bytes.get() + frame.length);
        lane.frames.borrow_mut().push_back(frame);
        lane.wake.notify_one();
        Ok(())
    }

    /// Bytes that QUIC has not taken yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Bytes that QUIC has taken, ever: how to tell whether the other side reads at all.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Whether more may be asked for by the other side: fewer bytes wait than may, in its account as well. Some of each connection's
    /// may always wait.
    pub(crate) fn is_open(&self) -> bool {
        let bytes = self.bytes.get();
        let has_account = || bytes < ALWAYS || self.account.as_ref().is_none_or(|account| account.bytes.room() > 0);
        bytes < self.max && has_account()
    }

    /// Returns once a request may be taken in: it is open, and the account admits one.
    pub(crate) async fn admits(&self) {
        let Some(account) = &self.account else { return };
        loop {
            account.admits().await;
            if self.is_open() {
                return;
            }
            let written = self.written.notified();
            if !self.is_open() {
                written.await;
            }
        }
    }

    /// Lets the writers end once everything is written.
    pub(crate) fn finish(&self) {
        self.finishing.set(true);
        self.wake_shared.set();
        for lane in [&self.large, &self.huge] {
            // A writer that is not waiting now will look before it waits.
            lane.wake.notify_waiters();
        }
    }

    /// The writer of the shared stream. Ends with the connection, or when finished and acknowledged.
    pub(crate) async fn write_shared(&self, mut stream: SendStream) {
        self.has_shared.set(true);
        // Grows to what a turn usually leaves, so that encoding seldom has to reallocate.
        let mut usual = 0;
        loop {
            self.wake_shared.wait().await;
            let taken = std::mem::replace(&mut *self.shared.borrow_mut(), Vec::with_capacity(usual));
            usual = taken.len().clamp(usual / 2, KEPT_MAX);
            let length = taken.len();
            if length > 0 {
                let mut pieces = [taken.into()];
                if self.write(&mut stream, &mut pieces).await.is_err() {
                    return;
                }
                self.took(length);
            }
            if self.finishing.get() && self.shared.borrow().is_empty() {
                if stream.finish().is_ok() {
                    // A client that does not acknowledge in time has no claim on the rest.
                    let _ = tokio::time::timeout(FLUSH_TIMEOUT, stream.stopped()).await;
                }
                return;
            }
        }
    }

    /// The writers of frames on streams of their own. They end with the connection, or when finished and acknowledged.
    pub(crate) async fn write_alone(&self, connection: &Connection, clock: &Clock) {
        tokio::join!(
            biased;
            self.write_lane(&self.large, connection, clock),
            self.write_lane(&self.large, connection, clock),
            self.write_lane(&self.large, connection, clock),
            self.write_lane(&self.large, connection, clock),
            self.write_lane(&self.huge, connection, clock),
        );
    }

    async fn write_lane(&self, lane: &Lane, connection: &Connection, clock: &Clock) {
        loop {
            let next = lane.frames.borrow_mut().pop_front();
            let Some(Frame { mut pieces, length, until }) = next else {
                if self.finishing.get() {
                    return;
                }
                lane.wake.notified().await;
                continue;
            };
            let is_late = until.is_some_and(|until| until <= clock.instant());
            if !is_late {
                let Ok(mut stream) = connection.open_uni().await else { return };
                match self.write(&mut stream, &mut pieces).await {
                    Ok(()) if stream.finish().is_ok() => {}
                    // The other side does not want this one; the connection lives on.
                    Ok(()) | Err(WriteError::Stopped(_)) => {}
                    Err(_) => return,
                }
                if self.finishing.get() {
                    let _ = tokio::time::timeout(FLUSH_TIMEOUT, stream.stopped()).await;
                }
            }
            lane.bytes.set(lane.bytes.get() - length);
            self.took(length);
        }
    }

    /// Writes it all, and notes each part that QUIC takes.
    async fn write(&self, stream: &mut SendStream, pieces: &mut [Bytes]) -> Result<(), WriteError> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let written = stream.write_chunks(rest).await?;
            self.taken.set(self.taken.get() + written.bytes as u64);
            rest = &mut rest[written.chunks..];
        }
        Ok(())
    }

    fn added(&self, length: usize) {
        self.bytes.set(self.bytes.get() + length);
        if let Some(account) = &self.account {
            account.bytes.add(length);
        }
    }

    fn took(&self, length: usize) {
        self.bytes.set(self.bytes.get() - length);
        if let Some(account) = &self.account {
            account.bytes.give_back(length);
        }
        self.written.notify_waiters();
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.bytes.give_back(self.bytes.get());
        }
    }
}

/// What is longer than the largest value with what comes around it is several siblings of one key, and may be very many.
const HUGE_FROM: usize = VALUE_BYTES_MAX + (64 << 10);

/// Bytes of answers that may wait for a connection however full its account is: it may be full with the answers of others, and the
/// connection that reads has to go on.
const ALWAYS: usize = 64 << 10;

/// Capacity that an emptied buffer keeps at most.
const KEPT_MAX: usize = 256 * 1024;

/// How long a stopping node waits for the acknowledgement of its last answers.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 << 20;

    fn values(lengths: &[usize]) -> Vec<Bytes> {
        lengths.iter().map(|length| Bytes::from(vec![7; *length])).collect()
    }

    fn push(outbound: &Outbound, lengths: &[usize]) -> Result<(), NotPushed> {
        let values = values(lengths);
        let load = FrameLoad { values: values.clone(), frame_max: usize::MAX, until: None };
        outbound.push_within(&values, &load, MAX)
    }

    /// A frame that is long without a value that makes it so, as a page is.
    fn push_page(outbound: &Outbound) -> Result<(), NotPushed> {
        let load = FrameLoad { values: Vec::new(), frame_max: usize::MAX, until: None };
        outbound.push_within(&vec![7_u8; FRAME_SHARED_MAX + 1], &load, MAX)
    }

    fn until_full(mut push: impl FnMut() -> Result<(), NotPushed>) -> usize {
        (0..MAX).take_while(|_| push().is_ok()).count()
    }

    fn to_peer() -> Outbound {
        let outbound = Outbound::to_peer();
        outbound.has_shared.set(true);
        outbound
    }

    /// A flood of 4 MiB values once made every small message to a peer unsent, and puts of others fail for lack of replicas.
    #[test]
    fn no_lane_keeps_another_from_being_sent() {
        let outbound = to_peer();
        assert_eq!(until_full(|| push(&outbound, &[4 << 20])), 2);
        assert!(push_page(&outbound).is_err(), "it goes with the large ones");
        assert!(push(&outbound, &[4 << 20, 6 << 20]).is_ok(), "one huge one always may");
        assert!(push(&outbound, &[4 << 20, 6 << 20]).is_err());
        let small = until_full(|| push(&outbound, &[1000]));
        assert!((MAX / 4 / 1100..=MAX / 4 / 1000 + 1).contains(&small), "{small}");
    }

    #[test]
    fn what_is_long_without_a_large_value_has_a_bound_too() {
        let outbound = to_peer();
        assert!(until_full(|| push_page(&outbound)) <= MAX / FRAME_SHARED_MAX + 1);
        let outbound = to_peer();
        let just_below = until_full(|| push(&outbound, &[FRAME_SHARED_MAX - 10]));
        assert!(just_below <= MAX / FRAME_SHARED_MAX + 1, "{just_below}");
        let outbound = Outbound::to_peer();
        assert!(until_full(|| push(&outbound, &[1000])) <= MAX / 1000, "before there is a shared stream");
    }
}
