//! One live connection to one shard of a node: many requests under way, written together, answered in any order.
//!
//! ```text
//! callers ── submit ──▶ out: encoded frames ──▶ write loop ── all that has queued, in one write ──▶ shared stream
//!            │                                                                                         node
//!            ▼                                                                                          │
//!         in flight: id → oneshot  ◀── complete ── read loop ◀── many frames per chunk ◀── shared stream┘
//!                                           ▲───── one frame each ◀── streams of their own (large answers)
//! ```
//! All three loops are one task on the I/O runtime. When it ends, for whatever reason, the connection is *closed*:
//! every request under way is told, and told apart by whether its frame had been handed to the transport. A
//! request whose frame had not been cannot have had an effect.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::ProtocolVersion;
use driftless_proto::client::{Request, ResponseFrame};
use driftless_proto::frame::{self, FRAME_MAX, FRAME_SHARED_MAX, FrameReader, LENGTH_BYTES};
use quinn::{ConnectionError, RecvStream, SendStream, TransportErrorCode, VarInt};
use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::counts::{Occasion, count};
use crate::error::{Cause, ConnectFailure};
use crate::greeted::Greeted;

/// A connection that has been established. It never comes back once it is closed; a [`Link`](crate::link::Link) makes
/// the next one.
pub(crate) struct Connection {
    quic: quinn::Connection,
    address: String,
    node: String,
    /// What the two sides go by.
    version: ProtocolVersion,
    queues: Mutex<Queues>,
    /// Something was queued.
    queued: Notify,
    /// Answers that came.
    heard: AtomicU64,
    /// It is suspect until so many answers have come.
    suspect_until: AtomicU64,
    /// Wakes attempts that wait for suspicion to arise.
    alarm: Notify,
    probing: AtomicBool,
    io: Handle,
}

/// Requests that wait to be written, and requests that wait for their answers.
struct Queues {
    /// Frames for the shared stream.
    out: Vec<u8>,
    /// Frames that want a stream of their own.
    large: Vec<Vec<u8>>,
    /// The writer has been woken and has not looked yet.
    awake: bool,
    in_flight: FxHashMap<u64, Waiter>,
    /// Bytes of the large ones among them.
    carrying: usize,
    next_id: u64,
    /// Frames of lower ids have been handed to the transport.
    taken: u64,
    closed: Option<ConnectFailure>,
}

struct Waiter {
    answer: oneshot::Sender<Answer>,
    /// Length of the frame, if it went on a stream of its own.
    large_bytes: Option<usize>,
}

type Answer = Result<ResponseFrame, Cause>;

/// An answer that is awaited. Dropped, it forgets the request; the node may still carry it out.
pub(crate) struct Pending {
    connection: Arc<Connection>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

/// Goes to the end of the queue of this runtime's thread. `yield_now` would wait until the thread looks for events, and no other could
/// take the task over.
async fn let_others_go_first() {
    let mut is_back = false;
    poll_fn(|cx| {
        if is_back {
            return Poll::Ready(());
        }
        is_back = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The task of a connection. However it ends, attempts that wait are told: it is dropped with the runtime it runs on.
struct Loops(Arc<Connection>);

/// `RequestFrame` without owning the request, which may have to be sent again.
#[derive(Serialize)]
struct RequestFrameRef<'a> {
    id: u64,
    ring_version: u64,
    deadline_ms: u32,
    request: &'a Request,
}

impl Connection {
    /// Takes over an established connection; its loops run on the current runtime.
    pub(crate) fn start(quic: quinn::Connection, address: String, node: String, greeted: Greeted) -> Arc<Connection> {
        let Greeted { version, send, recv, reader } = greeted;
        let connection = Arc::new(Connection {
            quic,
            address,
            node,
            version,
            queues: Mutex::new(Queues {
                out: Vec::new(),
                large: Vec::new(),
                awake: false,
                in_flight: FxHashMap::default(),
                carrying: 0,
                next_id: 1,
                taken: 1,
                closed: None,
            }),
            queued: Notify::new(),
            heard: AtomicU64::new(0),
            suspect_until: AtomicU64::new(0),
            alarm: Notify::new(),
            probing: AtomicBool::new(false),
            io: Handle::current(),
        });
        tracing::debug!(
            node = connection.node,
            address = connection.address,
            version = connection.version.0,
            "connected"
        );
        count(Occasion::ConnectionOpened);
        let loops = Loops(Arc::clone(&connection));
        tokio::spawn(loops.run(send, recv, reader));
        connection
    }

    /// Queues a request. Requests that are queued before the I/O runtime turns to this connection leave in one write.
    ///
    /// # Errors
    /// [`Cause::NotConnected`] or [`Cause::TooLong`]: nothing was sent.
    pub(crate) fn submit(
        self: &Arc<Self>,
        request: &Request,
        ring_version: u64,
        deadline_ms: u32,
    ) -> Result<Pending, Cause> {
        let said = self.in_its_version(request)?;
        let request = &*said;
        let (sender, answer) = oneshot::channel();
        let mut queues = self.lock();
        if let Some(failure) = &queues.closed {
            return Err(self.not_connected(failure.clone()));
        }
        let id = queues.next_id;
        queues.next_id += 1;
        let message = RequestFrameRef { id, ring_version, deadline_ms, request };
        let large = if request.value_bytes() <= ENCODE_UNDER_LOCK_MAX {
            let start = queues.out.len();
            frame::encode(&message, &mut queues.out).map_err(|error| Cause::TooLong(error.to_string()))?;
            let is_large = queues.out.len() - start > FRAME_SHARED_MAX + LENGTH_BYTES;
            is_large.then(|| queues.out.split_off(start))
        } else {
            // Copying a large value takes long enough for others to notice; they can go first.
            drop(queues);
            let mut own = Vec::with_capacity(request.value_bytes() + HEADERS_BYTES);
            frame::encode(&message, &mut own).map_err(|error| Cause::TooLong(error.to_string()))?;
            queues = self.lock();
            if let Some(failure) = &queues.closed {
                return Err(self.not_connected(failure.clone()));
            }
            if own.len() > FRAME_SHARED_MAX + LENGTH_BYTES {
                Some(own)
            } else {
                queues.out.extend_from_slice(&own);
                None
            }
        };
        let large_bytes = large.as_ref().map(Vec::len);
        queues.carrying += large_bytes.unwrap_or(0);
        queues.in_flight.insert(id, Waiter { answer: sender, large_bytes });
        queues.large.extend(large);
        // A request that queues behind others need not wake the writer again.
        let wakes = !queues.awake;
        queues.awake = true;
        drop(queues);
        if wakes {
            self.queued.notify_one();
        }
        Ok(Pending { connection: Arc::clone(self), id, answer })
    }

    /// What a node of an older release can read, which would end the connection otherwise. A write that is to be explained is refused where
    /// it cannot be: nothing has been written yet, and its client may ask without.
    fn in_its_version<'a>(&self, request: &'a Request) -> Result<Cow<'a, Request>, Cause> {
        let needed = request.spoken_from();
        if needed <= self.version {
            return Ok(Cow::Borrowed(request));
        }
        let (node, version) = (&self.node, self.version);
        let reason = match request {
            Request::Observed(observed) if !observed.profile.explain || request.is_read() => {
                return Ok(Cow::Owned(observed.clone().into_older()));
            }
            Request::Observed(_) => format!(
                "to explain a put or delete takes protocol version {needed}, and {node} speaks {version}: nothing was written; update {node}, or ask without an explanation"
            ),
            _ => format!("this request takes protocol version {needed}, and {node} speaks {version}: update {node}"),
        };
        Err(self.not_connected(ConnectFailure::Protocol { address: self.address.clone(), reason }))
    }

    /// Why the connection is closed, if it is.
    pub(crate) fn closed(&self) -> Option<ConnectFailure> {
        self.lock().closed.clone()
    }

    /// Closes it; requests under way fail.
    pub(crate) fn close(&self) {
        self.quic.close(CODE_DONE, b"client is done");
        self.end(ConnectFailure::ClientClosed);
    }

    /// Name of the node at the other end.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// How many answers have come.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Bytes of the large requests that are under way.
    pub(crate) fn carrying(&self) -> usize {
        self.lock().carrying
    }

    /// Nothing has been heard for longer than it should take, since there were `heard` answers. All requests under way
    /// are told, new ones go elsewhere first, and the node is asked for a sign of life until an answer comes.
    ///
    /// The transport may take seconds to find out, and cannot know that a node receives and does not answer.
    pub(crate) fn suspect(self: &Arc<Self>, heard: u64) {
        if self.suspect_until.fetch_max(heard + 1, Ordering::AcqRel) > heard || !self.is_suspect() {
            return;
        }
        tracing::debug!(node = self.node, address = self.address, "says nothing");
        self.alarm.notify_waiters();
        if !self.probing.swap(true, Ordering::AcqRel) {
            self.io.spawn(Arc::clone(self).probe());
        }
    }

    /// Whether nothing has been heard since [`suspect`](Connection::suspect).
    pub(crate) fn is_suspect(&self) -> bool {
        self.heard() < self.suspect_until.load(Ordering::Acquire)
    }

    /// Ends when suspicion arises from now on.
    pub(crate) fn suspicion(&self) -> Notified<'_> {
        self.alarm.notified()
    }

    async fn probe(self: Arc<Self>) {
        loop {
            while self.is_suspect() && self.closed().is_none() {
                let next = Instant::now() + PROBE_EVERY;
                if let Ok(mut pending) = self.submit(&Request::Status, 0, PROBE_EVERY.as_millis() as u32) {
                    let _ = timeout_at(next, pending.answer()).await;
                }
            }
            self.probing.store(false, Ordering::Release);
            // Suspicion that arose since the loop looked has left the probing to this task.
            let more = self.is_suspect() && self.closed().is_none();
            if !more || self.probing.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    async fn write_loop(&self, mut send: SendStream) -> ConnectFailure {
        // A work-stealing runtime runs first what was woken last: this task before the others that a batch of answers has woken, each
        // of which may have a request to add.
        let steals = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
        let mut usual = 0;
        loop {
            let (chunk, large) = {
                let mut queues = self.lock();
                queues.awake = false;
                queues.taken = queues.next_id;
                let chunk = if queues.out.is_empty() {
                    Vec::new()
                } else {
                    std::mem::replace(&mut queues.out, Vec::with_capacity(usual))
                };
                (chunk, std::mem::take(&mut queues.large))
            };
            if chunk.is_empty() && large.is_empty() {
                self.queued.notified().await;
                if steals {
                    let_others_go_first().await;
                }
                continue;
            }
            for frame in large {
                tokio::spawn(send_large(self.quic.clone(), frame));
            }
            if !chunk.is_empty() {
                usual = chunk.len().min(FRAME_SHARED_MAX);
                if let Err(error) = send.write_chunk(Bytes::from(chunk)).await {
                    return self.failure_of_stream(&error);
                }
            }
        }
    }

    async fn read_loop(&self, mut recv: RecvStream, mut reader: FrameReader) -> ConnectFailure {
        let mut batch = Vec::new();
        loop {
            // Some may have come with the node's greeting.
            loop {
                match reader.next_frame().and_then(|body| body.map(|body| frame::decode(&body)).transpose()) {
                    Ok(Some(frame)) => batch.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        self.complete(&mut batch);
                        return self.misbehaved(&error.to_string());
                    }
                }
            }
            self.complete(&mut batch);
            match recv.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => reader.push(&chunk.bytes),
                Ok(None) => return self.misbehaved("it finished the shared stream"),
                Err(error) => return self.failure_of_stream(&error),
            }
        }
    }

    async fn large_loop(self: &Arc<Self>) -> ConnectFailure {
        loop {
            match self.quic.accept_uni().await {
                // Their number is bounded by the transport's limit on such streams.
                Ok(stream) => drop(tokio::spawn(Arc::clone(self).read_large(stream))),
                Err(error) => return self.failure_of(&error),
            }
        }
    }

    async fn read_large(self: Arc<Self>, mut stream: RecvStream) {
        let Ok(bytes) = stream.read_to_end(FRAME_MAX + LENGTH_BYTES).await else {
            // Reset by the node, or too long: its request gets no answer here, and times out.
            return;
        };
        let mut reader = FrameReader::new(FRAME_MAX);
        reader.push(&bytes);
        let frame = reader.next_frame().and_then(|body| {
            reader.finish()?;
            body.map(|body| frame::decode(&body)).transpose()
        });
        match frame {
            Ok(Some(frame)) => self.complete(&mut vec![frame]),
            Ok(None) => {}
            Err(error) => {
                // In this order: the loops take the end of the connection for the client's goodbye.
                self.end(self.misbehaved(&error.to_string()));
                self.quic.close(CODE_GARBAGE, b"not a frame of this protocol");
            }
        }
    }

    /// Hands out answers. Answers that nobody awaits any more are dropped.
    fn complete(&self, batch: &mut Vec<ResponseFrame>) {
        if batch.is_empty() {
            return;
        }
        self.heard.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let waiters: Vec<Option<Waiter>> = {
            let mut queues = self.lock();
            batch.iter().map(|frame| queues.take(frame.id)).collect()
        };
        for (frame, waiter) in batch.drain(..).zip(waiters) {
            if let Some(waiter) = waiter {
                // The receiver may just have been dropped.
                let _ = waiter.answer.send(Ok(frame));
            }
        }
    }

    /// Tells all requests under way that no answer will come. The first reason stands.
    fn end(&self, failure: ConnectFailure) {
        let (waiting, taken) = {
            let mut queues = self.lock();
            if queues.closed.is_none() {
                if !matches!(failure, ConnectFailure::ClientClosed | ConnectFailure::RuntimeGone) {
                    count(Occasion::ConnectionLost);
                }
                queues.closed = Some(failure.clone());
            }
            queues.out = Vec::new();
            queues.large = Vec::new();
            queues.carrying = 0;
            (std::mem::take(&mut queues.in_flight), queues.taken)
        };
        // Without a completed handshake on its side the node has not read anything.
        let refused_at_the_door = matches!(failure, ConnectFailure::Rejected { .. });
        let mut waiting: Vec<_> = waiting.into_iter().collect();
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for (id, waiter) in waiting {
            let unsent = refused_at_the_door || (id >= taken && waiter.large_bytes.is_none());
            let cause = if unsent {
                self.not_connected(failure.clone())
            } else {
                Cause::ConnectionLost { node: self.node.clone(), reason: failure.to_string() }
            };
            let _ = waiter.answer.send(Err(cause));
        }
    }

    fn not_connected(&self, failure: ConnectFailure) -> Cause {
        Cause::NotConnected { node: self.node.clone(), failure }
    }

    fn misbehaved(&self, what: &str) -> ConnectFailure {
        ConnectFailure::Ended { address: self.address.clone(), reason: format!("the node broke the protocol: {what}") }
    }

    fn failure_of(&self, error: &ConnectionError) -> ConnectFailure {
        failure_of(&self.address, error, true)
    }

    /// What ended a stream is what ended the connection, if that has ended; else the node stopped the stream alone.
    fn failure_of_stream(&self, error: &dyn std::fmt::Display) -> ConnectFailure {
        match self.quic.close_reason() {
            Some(reason) => self.failure_of(&reason),
            None => self.misbehaved(&error.to_string()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing that is done under the lock leaves it half done when it panics.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loops {
    async fn run(self, send: SendStream, recv: RecvStream, reader: FrameReader) {
        let connection = &self.0;
        let failure = tokio::select! {
            biased;
            failure = connection.read_loop(recv, reader) => failure,
            failure = connection.write_loop(send) => failure,
            failure = connection.large_loop() => failure,
        };
        tracing::debug!(node = connection.node, address = connection.address, %failure, "connection ended");
        connection.quic.close(CODE_DONE, b"client is done");
        connection.end(failure);
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.0.end(ConnectFailure::RuntimeGone);
    }
}

impl Queues {
    /// Ends a request that was under way.
    fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.in_flight.remove(&id)?;
        self.carrying -= waiter.large_bytes.unwrap_or(0);
        Some(waiter)
    }
}

impl Pending {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits for the answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        (&mut self.answer).await.unwrap_or_else(|_| {
            Err(Cause::ConnectionLost {
                node: self.connection.node.clone(),
                reason: "the client's I/O runtime has stopped".into(),
            })
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Answered requests have left the table and the channel; all others are forgotten here.
        if !self.answer.is_terminated() {
            self.connection.lock().take(self.id);
        }
    }
}

/// What the end of a connection means: before it was usable, or after.
pub(crate) fn failure_of(address: &str, error: &ConnectionError, established: bool) -> ConnectFailure {
    let address = address.to_owned();
    let alert = match error {
        ConnectionError::ConnectionClosed(close) => tls_alert(u64::from(close.error_code)).map(|alert| (alert, true)),
        ConnectionError::TransportError(error) => tls_alert(u64::from(error.code)).map(|alert| (alert, false)),
        _ => None,
    };
    match (alert, error) {
        (Some((NO_APPLICATION_PROTOCOL, _)), _) | (_, ConnectionError::VersionMismatch) => {
            let reason =
                "it has not said which it speaks; use a release of the client that fits the cluster's".to_owned();
            ConnectFailure::Protocol { address, reason }
        }
        (_, ConnectionError::ApplicationClosed(close)) if close.error_code == CODE_NO_COMMON_VERSION => {
            ConnectFailure::Protocol { address, reason: String::from_utf8_lossy(&close.reason).into_owned() }
        }
        (Some((alert, true)), ConnectionError::ConnectionClosed(close)) => {
            let reason = String::from_utf8_lossy(&close.reason);
            ConnectFailure::Rejected { address, reason: format!("{} {reason}", alert_name(alert)).trim().to_owned() }
        }
        (Some((_, false)), ConnectionError::TransportError(error)) => {
            ConnectFailure::Untrusted { address, reason: error.reason.clone() }
        }
        (_, ConnectionError::ConnectionClosed(close)) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            ConnectFailure::Full { address }
        }
        (_, ConnectionError::LocallyClosed) => ConnectFailure::ClientClosed,
        _ if established => ConnectFailure::Ended { address, reason: error.to_string() },
        _ => ConnectFailure::Unreachable { address, reason: error.to_string() },
    }
}

/// TLS alerts travel as QUIC errors 0x100 to 0x1ff (RFC 9001, section 4.8).
fn tls_alert(code: u64) -> Option<u8> {
    (0x100..0x200).contains(&code).then_some(code as u8)
}

/// The alerts (RFC 8446, section 6) that a certificate can cause.
fn alert_name(alert: u8) -> String {
    match alert {
        42 => "bad certificate".into(),
        43 => "unsupported certificate".into(),
        44 => "certificate revoked".into(),
        45 => "certificate expired".into(),
        46 => "certificate unknown".into(),
        48 => "unknown CA".into(),
        49 => "access denied".into(),
        51 => "decrypt error".into(),
        116 => "certificate required".into(),
        other => format!("TLS alert {other}"),
    }
}

async fn send_large(quic: quinn::Connection, frame: Vec<u8>) {
    // If any of this fails, so does the connection, or the request gets no answer; both are noticed elsewhere.
    if let Ok(mut stream) = quic.open_uni().await
        && stream.write_chunk(Bytes::from(frame)).await.is_ok()
        && stream.finish().is_ok()
    {
        // Dropped before it has been acknowledged, a finished stream is still delivered.
        drop(stream);
    }
}

/// How soon a node that is back has its requests again; four questions a second are no load.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// About ten microseconds of copying.
const ENCODE_UNDER_LOCK_MAX: usize = 32 * 1024;

/// Room for what a frame holds besides the value: a key and a context of usual size. More only costs a reallocation.
const HEADERS_BYTES: usize = 2 * 1024;

const CODE_DONE: VarInt = VarInt::from_u32(0);
const CODE_GARBAGE: VarInt = VarInt::from_u32(1);

/// A node's, to whom it shares no protocol version with.
const CODE_NO_COMMON_VERSION: VarInt = VarInt::from_u32(2);

const NO_APPLICATION_PROTOCOL: u8 = 120;

#[cfg(test)]
mod tests {
    use driftless_proto::client::{Get, RequestFrame};
    use driftless_proto::{BucketId, Key};

    use super::*;

    #[test]
    fn a_borrowed_frame_is_written_as_an_owned_one() {
        let request = Request::Get(Get {
            bucket: BucketId(3),
            key: Key::new("k").expect("valid"),
            r: Some(2),
            sloppy: None,
            explain: true,
            shown: Vec::new(),
        });
        let (mut borrowed, mut owned) = (Vec::new(), Vec::new());
        let frame = RequestFrameRef { id: 300, ring_version: 7, deadline_ms: 2_000, request: &request };
        frame::encode(&frame, &mut borrowed).expect("short");
        let frame = RequestFrame { id: 300, ring_version: 7, deadline_ms: 2_000, request: request.clone() };
        frame::encode(&frame, &mut owned).expect("short");
        assert_eq!(borrowed, owned);
    }
}
