//! The roads of requests that carry a trace context, as spans of the target [`TARGET`].
//!
//! ```text
//! coordinator {trace, span, parent, node, from, operation}
//!  │   asked replica=n2 what=merge     applied     synced     heard replica=n2 said=acked     answered
//!  ├─ replica {…, node=n2, from=n1}     applied     synced     answered
//!  └─ replica {…, node=n3, from=n1}     …
//! ```
//! The machines carry the context and do nothing with it; what is recorded is what passes through the shell. A request without a context
//! costs one look at a number here. However many carry one, only so many are recorded a second and at a time: the others are carried out
//! all the same, and leave a gap in their trace.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftless_proto::observed::{Observed, Profile};
#[cfg(feature = "otel")]
use driftless_proto::trace::otel;
use driftless_proto::{TraceContext, client};
use driftless_ring::NodeId;
use tracing::Span;

use crate::metrics::{Metrics, Operation, OutcomeLabel};
use crate::peer::{Body, Message, ReplicaRequest, Reply, Request, RequestId, State, Traced, Want};
use crate::replica::store::BatchSeq;
use crate::time::Instant;

/// Of all that is recorded here.
pub const TARGET: &str = "driftless::trace";

/// What a node records, on all its shards.
pub(crate) struct Traces {
    node: String,
    per_second: u32,
    metrics: Arc<Metrics>,
    parts: Mutex<Parts>,
    /// How many there are.
    open: AtomicUsize,
}

#[derive(Default)]
struct Parts {
    open: HashMap<SpanId, Part>,
    /// Which of them is the answer to a peer's request.
    owed: HashMap<(NodeId, RequestId), SpanId>,
    /// For which of them a peer was asked, and when.
    asked: HashMap<(NodeId, RequestId), (SpanId, Instant)>,
    /// Which of them wait for a sync, by shards: only what is open.
    unsynced: BTreeSet<(u16, BatchSeq, SpanId)>,
    allowance: Allowance,
}

/// One part of a road: what this node does of a request.
struct Part {
    span: Span,
    since: Instant,
    /// When its answer is not to be expected any more.
    until: Instant,
    owed: Option<(NodeId, RequestId)>,
    asked: Vec<(NodeId, RequestId)>,
    /// The sync that it waits for.
    unsynced: Option<(u16, BatchSeq)>,
    /// It coordinates a write, and the own one has not been applied.
    is_to_write: bool,
}

/// Names a part.
pub(crate) type SpanId = u64;

/// What begins.
pub(crate) struct Begun<'a> {
    pub(crate) role: Role,
    pub(crate) operation: &'static str,
    /// Who asks.
    pub(crate) from: &'a str,
    /// What has caused it.
    pub(crate) parent: TraceContext,
    /// The request of a peer that it is to answer.
    pub(crate) owed: Option<(NodeId, RequestId)>,
    pub(crate) since: Instant,
    pub(crate) until: Instant,
    /// How long after `since` that can be at most: what a peer says is not bounded by itself.
    pub(crate) longest: Duration,
}

/// When a peer asks, and until when it says that it waits.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) now: Instant,
    pub(crate) deadline: Instant,
    /// How long anything is waited for here.
    pub(crate) longest: Duration,
}

/// What part of a road it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of a client's request, or of one that a node has passed on.
    Coordinator,
    /// Of what a coordinator asks.
    Replica,
}

/// How many more may begin: so many a second, and at once as many as in one.
#[derive(Default)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Traces {
    pub(crate) fn new(node: &str, per_second: u32, metrics: Arc<Metrics>) -> Traces {
        Traces { node: node.to_owned(), per_second, metrics, parts: Mutex::default(), open: AtomicUsize::new(0) }
    }

    /// A part begins. Its own context is what is to be passed on; `None` if it is not recorded.
    pub(crate) fn begin(&self, begun: &Begun<'_>) -> Option<TraceContext> {
        let parent = begun.parent;
        if !parent.is_kept() {
            return None;
        }
        let mut parts = self.lock();
        if parts.open.len() >= OPEN_MAX || !parts.allowance.has_one(self.per_second, begun.since) {
            self.metrics.traces_left_out.inc();
            return None;
        }
        let span = span(&self.node, begun);
        if span.is_disabled() {
            return None;
        }
        // What nobody looks at has cost nothing.
        parts.allowance.spend();
        #[cfg(feature = "otel")]
        let id = otel::adopt(&span, Some(parent)).map_or_else(draw, TraceContext::parent);
        #[cfg(not(feature = "otel"))]
        let id = draw();
        let own = parent.below(id);
        span.record("span", own.parent_text());
        self.metrics.traces.inc();
        if let Some(key) = begun.owed
            && let Some(before) = parts.owed.insert(key, id)
        {
            // The same request asks this replica once more: it has had its answer.
            parts.close(before);
        }
        let writes = begun.role == Role::Coordinator && matches!(begun.operation, "put" | "delete");
        let Begun { since, owed, .. } = *begun;
        let until = begun.until.min(since + begun.longest);
        let part = Part { span, since, until, owed, asked: Vec::new(), unsynced: None, is_to_write: writes };
        parts.open.insert(id, part);
        self.count(&parts);
        Some(own)
    }

    /// Begins to record what a peer asks, if it belongs to a trace. What a replica is asked and does not record leaves its envelope here,
    /// since it causes nothing at others.
    pub(crate) fn taken(&self, peer: (NodeId, &str), id: RequestId, request: &mut Request, asked: Asked) {
        let Some((role, operation, trace)) = of_peer(request) else { return };
        let Asked { now, deadline, longest } = asked;
        let owed = Some((peer.0, id));
        let begun = Begun { role, operation, from: peer.1, parent: *trace, owed, since: now, until: deadline, longest };
        match self.begin(&begun) {
            Some(own) => *trace = own,
            None => *request = std::mem::replace(request, Request::Ping).into_plain(),
        }
    }

    /// Whether anything is recorded now: asked before the lock, so that who is not traced costs a look at a number.
    fn has_any(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// For this part a peer is asked something. Whether that says that its own write has been applied: a coordinator's first merge does.
    pub(crate) fn asked(&self, part: SpanId, peer: (NodeId, &str), id: RequestId, what: &str, now: Instant) -> bool {
        if !self.has_any() {
            return false;
        }
        let mut parts = self.lock();
        let Some(open) = parts.open.get_mut(&part) else { return false };
        let has_written = what == MERGE && std::mem::take(&mut open.is_to_write);
        if has_written {
            open.applied(now);
        }
        tracing::info!(target: TARGET, parent: &open.span, replica = peer.1, what, "asked");
        open.asked.push((peer.0, id));
        parts.asked.insert((peer.0, id), (part, now));
        has_written
    }

    /// A peer has answered something.
    pub(crate) fn heard(&self, peer: (NodeId, &str), id: RequestId, reply: &Reply, now: Instant) {
        if !self.has_any() {
            return;
        }
        let mut parts = self.lock();
        let Some((part, since)) = parts.asked.remove(&(peer.0, id)) else { return };
        let Some(open) = parts.open.get(&part) else { return };
        let (said, after_us) = (said(reply), micros(now.since(since)));
        tracing::info!(target: TARGET, parent: &open.span, replica = peer.1, said, after_us, "heard");
    }

    /// What this part writes has been applied.
    pub(crate) fn applied(&self, part: SpanId, now: Instant) {
        if let Some(open) = self.lock().open.get(&part) {
            open.applied(now);
        }
    }

    /// What these parts have written is durable once that batch of a shard is.
    pub(crate) fn await_sync(&self, shard: u16, written: impl Iterator<Item = SpanId>, batch: BatchSeq) {
        let mut parts = self.lock();
        let Parts { open, unsynced, .. } = &mut *parts;
        for part in written {
            // What was answered without it need not wait for it.
            let Some(open) = open.get_mut(&part) else { continue };
            if let Some((shard, batch)) = open.unsynced.replace((shard, batch)) {
                unsynced.remove(&(shard, batch, part));
            }
            unsynced.insert((shard, batch, part));
        }
    }

    /// A sync of a shard covers everything up to this batch.
    pub(crate) fn synced(&self, shard: u16, up_to: BatchSeq, now: Instant) {
        if !self.has_any() {
            return;
        }
        let mut parts = self.lock();
        let Parts { open, unsynced, .. } = &mut *parts;
        let covered = unsynced.range((shard, BatchSeq(0), 0)..=(shard, up_to, SpanId::MAX));
        for waiting in covered.copied().collect::<Vec<_>>() {
            unsynced.remove(&waiting);
            if let Some(open) = open.get_mut(&waiting.2) {
                open.unsynced = None;
                tracing::info!(target: TARGET, parent: &open.span, after_us = micros(now.since(open.since)), "synced");
            }
        }
    }

    /// A client has its answer.
    pub(crate) fn answered(&self, part: SpanId, said: &str, now: Instant) {
        let mut parts = self.lock();
        parts.end(part, said, now);
        self.count(&parts);
    }

    /// A peer has its answer, if what it asked is recorded.
    pub(crate) fn replied(&self, peer: NodeId, id: RequestId, reply: &Reply, now: Instant) {
        if !self.has_any() || matches!(reply, Reply::Coming { .. }) {
            return;
        }
        let mut parts = self.lock();
        if let Some(part) = parts.owed.get(&(peer, id)).copied() {
            parts.end(part, said(reply), now);
            self.count(&parts);
        }
    }

    /// Forgets what will not be answered: what came too late is dropped without a word.
    pub(crate) fn sweep(&self, now: Instant) {
        if !self.has_any() {
            return;
        }
        let mut parts = self.lock();
        let over = |part: &Part| now.since(part.until) > OVERDUE_AFTER;
        let over: Vec<SpanId> = parts.open.iter().filter(|(_, part)| over(part)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|part| parts.end(part, "nothing", now));
        self.count(&parts);
    }

    fn count(&self, parts: &Parts) {
        self.open.store(parts.open.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        // What a panic could leave half done is what is shown of a request, not what becomes of it.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn applied(&self, now: Instant) {
        tracing::info!(target: TARGET, parent: &self.span, after_us = micros(now.since(self.since)), "applied");
    }
}

impl Parts {
    fn end(&mut self, part: SpanId, said: &str, now: Instant) {
        if let Some(open) = self.open.get(&part) {
            tracing::info!(target: TARGET, parent: &open.span, said, after_us = micros(now.since(open.since)), "answered");
            self.close(part);
        }
    }

    /// Its span ends when it is dropped.
    fn close(&mut self, part: SpanId) {
        let Some(Part { owed, asked, unsynced, .. }) = self.open.remove(&part) else { return };
        if let Some((shard, batch)) = unsynced {
            self.unsynced.remove(&(shard, batch, part));
        }
        if let Some(key) = owed
            && self.owed.get(&key) == Some(&part)
        {
            self.owed.remove(&key);
        }
        for key in asked {
            self.asked.remove(&key);
        }
    }
}

impl Allowance {
    fn has_one(&mut self, per_second: u32, now: Instant) -> bool {
        let most = f64::from(per_second);
        self.left = (self.left + now.since(self.at).as_secs_f64() * most).min(most);
        self.at = self.at.max(now);
        self.left >= 1.0
    }

    fn spend(&mut self) {
        self.left -= 1.0;
    }
}

fn span(node: &str, begun: &Begun<'_>) -> Span {
    let Begun { role, operation, from, parent, .. } = *begun;
    macro_rules! span {
        ($name:literal) => {
            tracing::info_span!(
                target: TARGET, parent: None, $name, trace = parent.trace_text(), span = tracing::field::Empty,
                parent = parent.parent_text(), node, from, operation, otel.kind = "server"
            )
        };
    }
    match role {
        Role::Coordinator => span!("coordinator"),
        Role::Replica => span!("replica"),
    }
}

/// What a client asks, if it belongs to a trace. A context that nobody keeps goes no further than here.
pub(crate) fn of_client(request: &mut client::Request) -> Option<(&'static str, &mut TraceContext)> {
    let operation = Operation::of(request).name();
    match request {
        client::Request::Observed(Observed { profile: Profile { trace, .. }, .. }) => {
            *trace = trace.filter(|trace| trace.is_kept());
            trace.as_mut().map(|trace| (operation, trace))
        }
        _ => None,
    }
}

/// What a peer asks, if it belongs to a trace.
pub(crate) fn of_peer(request: &mut Request) -> Option<(Role, &'static str, &mut TraceContext)> {
    match request {
        Request::Traced(Traced { trace, request }) => Some((Role::Replica, asked(request), trace)),
        Request::Forward(request) => of_client(request).map(|(operation, trace)| (Role::Coordinator, operation, trace)),
        Request::Replica(_) | Request::Ping | Request::Exchange(_) | Request::Membership(_) => None,
    }
}

/// The part that a message belongs to by which this replica takes something in: what is in an envelope still is recorded, see
/// [`Traces::taken`].
pub(crate) fn of_merge(message: &Message, now: Instant) -> Option<SpanId> {
    match &message.body {
        Body::Request { deadline, request: Request::Traced(Traced { trace, request: ReplicaRequest::Merge(_) }) } => {
            (*deadline > now).then(|| trace.parent())
        }
        _ => None,
    }
}

/// What is asked of a replica, in a word.
pub(crate) fn asked(request: &ReplicaRequest) -> &'static str {
    match request {
        ReplicaRequest::Merge(_) => MERGE,
        ReplicaRequest::Read(read) if read.want == Want::Header => "header",
        ReplicaRequest::Read(_) => "read",
        ReplicaRequest::Scan(_) => "scan",
    }
}

/// What an answer says, in a word.
fn said(reply: &Reply) -> &'static str {
    match reply {
        Reply::Acked => "acked",
        Reply::State(State::Full(_)) => "state",
        Reply::State(State::Header(_)) => "header",
        Reply::Coming { .. } => "coming",
        Reply::Page(_) => "page",
        Reply::Forwarded(response) => OutcomeLabel::of(response).name(),
        Reply::Refused(_) => "refused",
        Reply::Lost => "lost",
        Reply::Pong | Reply::Exchanged(_) => "other",
    }
}

fn draw() -> SpanId {
    rand::random::<u64>().max(1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a merge is called.
const MERGE: &str = "merge";

/// Parts at a time: some megabytes of memory, and more than are answered late on a node that works.
const OPEN_MAX: usize = 4_096;

/// Beyond a request's deadline; machines answer at the deadline itself.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io;

    use driftless_proto::{BucketId, Key, Siblings};

    use super::*;
    use crate::peer::{Merge, Purpose};

    /// In microseconds.
    const SECOND: u64 = 1_000_000;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic under it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn lines(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().expect("no panic under it"));
            String::from_utf8(bytes).expect("is text").lines().map(str::to_owned).collect()
        }

        /// The messages, without what they stand in.
        fn said(&self) -> Vec<String> {
            let message = |line: &String| line.rsplit("driftless::trace: ").next().unwrap_or_default().to_owned();
            self.lines().iter().map(|line| message(line).split(' ').next().unwrap_or_default().to_owned()).collect()
        }
    }

    fn logging(log: &Log) -> tracing::subscriber::DefaultGuard {
        let log = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
        driftless_testkit::looking::look(lines.finish())
    }

    fn traces(per_second: u32) -> Traces {
        Traces::new("n1", per_second, Arc::new(Metrics::default()))
    }

    fn begun(role: Role, operation: &'static str, owed: Option<(NodeId, RequestId)>, since: u64) -> Begun<'static> {
        let parent = KEPT;
        let (since, until) = (Instant(since), Instant(since + SECOND));
        Begun { role, operation, from: "web", parent, owed, since, until, longest: Duration::from_secs(30) }
    }

    #[test]
    fn a_put_is_recorded_from_its_arrival_to_its_answer() {
        let (log, traces) = (Log::default(), traces(10));
        let _logging = logging(&log);
        let own = traces.begin(&begun(Role::Coordinator, "put", None, SECOND)).expect("is recorded");
        assert_eq!(own.trace_id, [7; 16]);
        assert_ne!(own.parent_id, [9; 8], "what it causes is caused by this part");
        let (part, peer, id) = (own.parent(), (NodeId(2), "n2"), RequestId(4));
        assert!(traces.asked(part, peer, id, MERGE, Instant(SECOND + 2_000)), "its own write has been applied");
        assert!(!traces.asked(part, (NodeId(3), "n3"), id, MERGE, Instant(SECOND + 2_000)));
        traces.await_sync(0, [part].into_iter(), BatchSeq(5));
        traces.synced(1, BatchSeq(9), Instant(SECOND + 3_000));
        traces.synced(0, BatchSeq(4), Instant(SECOND + 3_000));
        assert_eq!(
            log.said(),
            ["applied", "asked", "asked"],
            "neither another shard's sync nor an earlier one covers it"
        );
        traces.synced(0, BatchSeq(5), Instant(SECOND + 4_000));
        traces.heard(peer, id, &Reply::Acked, Instant(SECOND + 5_000));
        traces.answered(part, "ok", Instant(SECOND + 6_000));
        let lines = log.lines();
        let says = |line: usize, part: &str| assert!(lines[line].contains(part), "{part} in {lines:#?}");
        says(0, "after_us=4000");
        says(1, "said=\"acked\"");
        says(1, "after_us=3000");
        says(2, "said=\"ok\"");
        says(2, "trace=\"07070707070707070707070707070707\"");
        says(2, "parent=\"0909090909090909\"");
        assert_eq!((lines.len(), traces.has_any()), (3, false));
        traces.heard((NodeId(3), "n3"), id, &Reply::Acked, Instant(SECOND + 9_000));
        assert!(log.lines().is_empty(), "who answers later is not waited for");
        let parts = traces.lock();
        assert!(parts.asked.is_empty() && parts.owed.is_empty());
    }

    #[test]
    fn what_a_peer_asks_ends_with_the_answer_to_it_or_after_a_while() {
        let (log, traces) = (Log::default(), traces(10));
        let _logging = logging(&log);
        let owed = Some((NodeId(2), RequestId(4)));
        traces.begin(&begun(Role::Replica, "read", owed, SECOND)).expect("is recorded");
        traces.replied(NodeId(2), RequestId(4), &Reply::Coming { bytes: 1 << 20 }, Instant(SECOND));
        traces.replied(NodeId(3), RequestId(4), &Reply::Acked, Instant(SECOND));
        assert!(log.said().is_empty() && traces.has_any(), "it has not been answered");
        traces.replied(NodeId(2), RequestId(4), &Reply::Acked, Instant(SECOND));
        assert_eq!((log.said(), traces.has_any()), (vec!["answered".to_owned()], false));
        traces.begin(&begun(Role::Replica, "read", owed, SECOND)).expect("is recorded");
        traces.sweep(Instant(7 * SECOND));
        assert!(traces.has_any(), "it may be answered yet");
        traces.sweep(Instant(8 * SECOND));
        assert!(!traces.has_any() && traces.lock().owed.is_empty());
    }

    #[test]
    fn only_so_many_are_recorded_and_the_others_are_counted() {
        let (log, traces) = (Log::default(), traces(2));
        let _logging = logging(&log);
        let begin = |since| traces.begin(&begun(Role::Coordinator, "get", None, since)).is_some();
        assert_eq!([1, 1, 1, 2].map(|at| begin(at * 10 * SECOND)), [true, true, false, true]);
        assert_eq!((traces.metrics.traces.get(), traces.metrics.traces_left_out.get()), (3, 1));
        let unkept = |parent| Begun { parent, ..begun(Role::Coordinator, "get", None, 30 * SECOND) };
        let parent = TraceContext { trace_id: [7; 16], parent_id: [9; 8], sampled: false };
        assert!(traces.begin(&unkept(parent)).is_none(), "its client does not keep it");
        let none = TraceContext { trace_id: [0; 16], sampled: true, ..parent };
        assert!(traces.begin(&unkept(none)).is_none(), "it belongs to no trace");
        assert_eq!(traces.metrics.traces_left_out.get(), 1);
    }

    #[test]
    fn nothing_is_recorded_that_nobody_looks_at_and_none_of_it_is_left_out() {
        let _nobody = driftless_testkit::looking::look(tracing::subscriber::NoSubscriber::default());
        let traces = traces(2);
        for _ in 0..9 {
            assert!(traces.begin(&begun(Role::Coordinator, "get", None, SECOND)).is_none());
        }
        assert_eq!((traces.has_any(), traces.metrics.traces_left_out.get()), (false, 0));
    }

    const KEPT: TraceContext = TraceContext { trace_id: [7; 16], parent_id: [9; 8], sampled: true };

    /// A merge as it is asked for below this context, and the part that it waits in for a sync at its replica, if any.
    fn taken(traces: &Traces, trace: TraceContext, id: u64) -> Option<SpanId> {
        let merge = Merge {
            bucket: BucketId(1),
            key: Key::new("k").expect("is one"),
            siblings: Siblings::default(),
            hint_for: None,
            purpose: Purpose::Write,
        };
        let mut request = Request::Traced(Traced { trace, request: ReplicaRequest::Merge(merge) });
        let (now, deadline, longest) = (Instant(SECOND), Instant(1 << 50), Duration::from_secs(30));
        traces.taken((NodeId(2), "n2"), RequestId(id), &mut request, Asked { now, deadline, longest });
        let body = Body::Request { deadline, request };
        let part = of_merge(&Message { id: RequestId(id), ring_version: 1, body }, now);
        traces.await_sync(0, part.into_iter(), BatchSeq(id));
        part
    }

    #[test]
    fn of_what_is_not_recorded_no_replica_keeps_anything() {
        let (log, none, some) = (Log::default(), traces(0), traces(10));
        let _logging = logging(&log);
        let unsampled = TraceContext { sampled: false, ..KEPT };
        let nowhere = TraceContext { trace_id: [0; 16], ..KEPT };
        assert_eq!([unsampled, nowhere].map(|trace| taken(&some, trace, 4)), [None, None]);
        assert_eq!(taken(&none, KEPT, 4), None, "it records nothing");
        assert!(taken(&some, KEPT, 4).is_some());
        none.await_sync(0, [5].into_iter(), BatchSeq(4));
        assert_eq!([&none, &some].map(|traces| traces.lock().unsynced.len()), [0, 1]);
    }

    #[test]
    fn what_ends_before_its_sync_leaves_nothing() {
        let (log, traces) = (Log::default(), traces(10));
        let _logging = logging(&log);
        for id in [4, 8, 12] {
            taken(&traces, KEPT, id).expect("is recorded");
        }
        assert_eq!(traces.lock().unsynced.len(), 3);
        traces.replied(NodeId(2), RequestId(4), &Reply::Acked, Instant(SECOND));
        assert_eq!(traces.lock().unsynced.len(), 2);
        traces.synced(0, BatchSeq(8), Instant(SECOND));
        assert_eq!(traces.lock().unsynced.len(), 1);
        // However long its peer says that it waits.
        traces.sweep(Instant(37 * SECOND));
        assert!(!traces.has_any() && traces.lock().unsynced.is_empty());
    }

    #[test]
    fn what_a_client_does_not_keep_goes_no_further_than_the_first_node() {
        let key = Key::new("k").expect("is one");
        let get = client::Get { bucket: BucketId(1), key, r: None, sloppy: None, explain: false, shown: Vec::new() };
        let ask = |trace| client::Request::Get(get.clone()).observed(Profile { explain: false, trace: Some(trace) });
        let mut kept = ask(KEPT);
        assert_eq!(of_client(&mut kept), Some(("get", &mut KEPT.clone())));
        for trace in [TraceContext { sampled: false, ..KEPT }, TraceContext { parent_id: [0; 8], ..KEPT }] {
            let mut request = ask(trace);
            assert_eq!(of_client(&mut request), None);
            assert_eq!(request.into_plain().0, Profile::default());
        }
    }
}
