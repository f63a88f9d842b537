//! The stream that feeds the status page.
//!
//! ```text
//! first watcher ─▶ gathering: ask every peer ─▶ wait for them, not for long ─▶ publish ─▶ pause ─┐
//!                     ▲                                                                            │ somebody watches
//!                     └────────────────────────────────────────────────────────────────────────────┘
//! ```
//! However many watch, it is gathered once a second at most; while nobody does, not at all. There are few places, so that watchers leave most
//! connections to scrapers and probes.

#![allow(clippy::disallowed_methods, reason = "the admin server is a part of the shell, which spawns")]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use driftless_proto::figures::Figures;
use driftless_ring::NodeId;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Admin;
use super::page::not_to_be_kept;
use super::remote::{self, Visitor};
use super::serve::Pulse;
use super::sight::{self, Arcs, Shares, Sight};
use crate::configurations::Configurations;
use crate::net::node_context::NodeContext;

/// Who watches, and what they are shown.
pub(super) struct Watching {
    places: Arc<Semaphore>,
    shown: watch::Sender<Option<Arc<Shown>>>,
    gathering: AtomicBool,
}

/// What there is to be seen at one moment.
struct Shown {
    /// JSON of [`Sight`].
    sight: String,
    arcs: Arc<ShownArcs>,
}

/// The ring, made anew only when it has changed.
struct ShownArcs {
    /// Of what.
    configurations: Arc<Configurations>,
    /// JSON of [`Arcs`].
    text: String,
    shares: Shares,
}

impl Watching {
    pub(super) fn new() -> Watching {
        Watching {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            shown: watch::Sender::new(None),
            gathering: AtomicBool::new(false),
        }
    }
}

/// Serves the stream, if there is a place left.
pub(super) async fn events(
    State(admin): State<Arc<Admin>>,
    Extension(pulse): Extension<Arc<Pulse>>,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
) -> Response {
    if is_for_another_page(&headers) {
        return (StatusCode::FORBIDDEN, "this is for the status page of this node, and for no other page\n")
            .into_response();
    }
    let Ok(place) = admin.watching.places.clone().try_acquire_owned() else {
        let text = format!("{STREAMS_MAX} watch already, and more may not: close another status page of this node\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text).into_response();
    };
    let mut shown = admin.watching.shown.subscribe();
    shown.mark_changed();
    if !admin.watching.gathering.swap(true, Ordering::SeqCst) {
        tokio::spawn(gather(admin.clone()));
    }
    let watcher = Watcher {
        shown,
        arcs: None,
        waiting: VecDeque::from([Event::default().retry(RETRY)]),
        pulse,
        visitor: visitor.map(|Extension(visitor)| (admin.shared.clone(), visitor)),
        _place: place,
    };
    (not_to_be_kept(), Sse::new(watcher.stream())).into_response()
}

/// Whether a browser asks on behalf of a page that came from elsewhere. It could not read the answer, and would take a place.
fn is_for_another_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

/// One stream.
struct Watcher {
    shown: watch::Receiver<Option<Arc<Shown>>>,
    /// The ring that it was shown last.
    arcs: Option<Arc<ShownArcs>>,
    waiting: VecDeque<Event>,
    pulse: Arc<Pulse>,
    /// Of the listener for other machines.
    visitor: Option<(Arc<NodeContext>, Visitor)>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut watcher| async move { Some((Ok(watcher.next().await?), watcher)) })
    }

    /// `None` when it is over: a certificate may have been denied, or have expired, since the stream began.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.pulse.beat();
                return Some(event);
            }
            self.shown.changed().await.ok()?;
            if self.visitor.as_ref().is_some_and(|(shared, visitor)| remote::refusal(shared, visitor).is_some()) {
                return None;
            }
            let Some(shown) = self.shown.borrow_and_update().clone() else { continue };
            if self.arcs.as_ref().is_none_or(|arcs| !arcs.look_like(&shown.arcs)) {
                self.waiting.push_back(Event::default().event("ring").data(&shown.arcs.text));
            }
            self.arcs = Some(shown.arcs.clone());
            self.waiting.push_back(Event::default().event("cluster").data(&shown.sight));
        }
    }
}

/// Gathers until nobody watches any more.
async fn gather(admin: Arc<Admin>) {
    let (shared, watching) = (&admin.shared, &admin.watching);
    let mut arcs: Option<Arc<ShownArcs>> = None;
    while watching.shown.receiver_count() > 0 {
        let begun = Instant::now();
        let said = ask_all(shared, begun + ANSWER_MAX).await;
        let configurations = shared.configurations();
        let same = arcs.take().filter(|arcs| Arc::ptr_eq(&arcs.configurations, &configurations));
        let current = same.unwrap_or_else(|| Arc::new(ShownArcs::of(configurations.clone())));
        let sight = text_of(shared, &configurations, &current.shares, &said);
        watching.shown.send_replace(Some(Arc::new(Shown { sight, arcs: current.clone() })));
        arcs = Some(current);
        sleep_until(begun + INTERVAL).await;
    }
    // Whoever comes next is shown nothing of long ago. Nothing is awaited from the last look at the watchers to here, and there is one thread.
    watching.shown.send_replace(None);
    shared.heard.forget();
    watching.gathering.store(false, Ordering::SeqCst);
}

/// What all members say of themselves, as far as they do so in time.
async fn ask_all(shared: &NodeContext, until: Instant) -> BTreeMap<NodeId, Arc<Figures>> {
    let asked = shared.clock.instant();
    shared.ask_for_figures();
    let members = shared.configurations().members();
    let others: Vec<NodeId> = members.iter().map(|member| member.id).filter(|id| *id != shared.node).collect();
    // Who is not connected cannot answer, and is not waited for.
    let is_waited_for = |id: &NodeId| shared.counts_on(*id) && shared.heard.since(*id, asked).is_none();
    while others.iter().any(is_waited_for) {
        if timeout_at(until, shared.heard.news.notified()).await.is_err() {
            break;
        }
    }
    // One answer that is late is no silence.
    let lately = crate::time::Instant(asked.0.saturating_sub(SILENCE_MAX.as_micros() as u64));
    let answers = others.iter().filter_map(|id| Some((*id, shared.heard.since(*id, lately)?)));
    let answers = answers.filter(|(id, _)| shared.counts_on(*id) || shared.heard.since(*id, asked).is_some());
    answers.chain([(shared.node, Arc::new(shared.figures()))]).collect()
}

fn text_of(
    shared: &NodeContext,
    configurations: &Configurations,
    shares: &Shares,
    said: &BTreeMap<NodeId, Arc<Figures>>,
) -> String {
    let wall = (shared.environment.wall)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    let members = sight::members(configurations);
    let sight = Sight::of((&shared.cluster, &shared.name, at_ms), configurations, shares, &members, said);
    serde_json::to_string(&sight).expect("has neither maps with odd keys nor anything else that JSON cannot say")
}

impl ShownArcs {
    fn of(configurations: Arc<Configurations>) -> ShownArcs {
        let text = serde_json::to_string(&Arcs::of(&configurations)).expect("has only numbers, names and lists");
        ShownArcs { text, shares: Shares::of(&configurations), configurations }
    }

    /// Whether whoever was shown the other has seen this one.
    fn look_like(&self, other: &ShownArcs) -> bool {
        std::ptr::eq(self, other) || self.text == other.text
    }
}

/// Streams at once, of the connections that there may be: some people, each with a page or two.
const STREAMS_MAX: usize = 8;

/// How often it is gathered. A person sees no more.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long peers have for their answers, of each such interval.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// A member that has said nothing for so long does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// After which time a browser whose stream has broken asks again.
const RETRY: Duration = Duration::from_secs(2);
