//! What waits to be written to one connection.
//!
//! The driver encodes frames straight into one buffer; a writer task takes the whole buffer at once. Everything that
//! one turn of the driver says to a connection so becomes one write. Large frames wait in a queue of their own and
//! travel one at a time, each on its own stream. So does everything until there is a shared stream: a client whose first
//! request is a large one has opened none that we could have seen.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::frame::{self, FRAME_SHARED_MAX, FrameError};
use quinn::{Connection, SendStream};
use serde::Serialize;
use tokio::sync::Notify;

use super::signal::Signal;

/// Frames of one connection that QUIC has not taken yet.
#[derive(Default)]
pub(crate) struct Outbound {
    shared: RefCell<Vec<u8>>,
    large: RefCell<VecDeque<Bytes>>,
    /// In both, and in the hands of the writers.
    bytes: Cell<usize>,
    has_shared: Cell<bool>,
    finishing: Cell<bool>,
    wake_shared: Signal,
    wake_large: Signal,
    written: Notify,
}

impl Outbound {
    /// Adds a frame.
    pub(crate) fn push<M: Serialize>(&self, message: &M) -> Result<(), FrameError> {
        let mut shared = self.shared.borrow_mut();
        let start = shared.len();
        frame::encode(message, &mut shared)?;
        let length = shared.len() - start;
        self.bytes.set(self.bytes.get() + length);
        if length <= FRAME_SHARED_MAX && self.has_shared.get() {
            self.wake_shared.set();
        } else {
            let alone = shared.split_off(start);
            self.large.borrow_mut().push_back(alone.into());
            self.wake_large.set();
        }
        Ok(())
    }

    /// Bytes that QUIC has not taken yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Returns once fewer than `max` bytes are waiting.
    pub(crate) async fn below(&self, max: usize) {
        while self.bytes.get() >= max {
            let written = self.written.notified();
            if self.bytes.get() >= max {
                written.await;
            }
        }
    }

    /// Lets the writers end once everything is written.
    pub(crate) fn finish(&self) {
        self.finishing.set(true);
        self.wake_shared.set();
        self.wake_large.set();
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
                if stream.write_chunk(taken.into()).await.is_err() {
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

    /// The writer of large frames, one at a time. Ends with the connection, or when finished and acknowledged.
    pub(crate) async fn write_large(&self, connection: &Connection) {
        loop {
            let next = self.large.borrow_mut().pop_front();
            let Some(frame) = next else {
                if self.finishing.get() {
                    return;
                }
                self.wake_large.wait().await;
                continue;
            };
            let length = frame.len();
            let Ok(mut stream) = connection.open_uni().await else {
                return;
            };
            if stream.write_chunk(frame).await.is_err() || stream.finish().is_err() {
                return;
            }
            self.took(length);
            if self.finishing.get() {
                let _ = tokio::time::timeout(FLUSH_TIMEOUT, stream.stopped()).await;
            }
        }
    }

    fn took(&self, length: usize) {
        self.bytes.set(self.bytes.get() - length);
        self.written.notify_waiters();
    }
}

/// Capacity that an emptied buffer keeps at most.
const KEPT_MAX: usize = 256 * 1024;

/// How long a stopping node waits for the acknowledgement of its last answers.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
