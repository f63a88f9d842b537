//! Walking through the keys of a bucket.
//!
//! Keys come in the order of their tokens, arc by arc, one page of an arc at a time. A position is a place on the
//! ring, not in a list of arcs, so a scan goes on where it was even if the ring is divided anew.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use driftless_proto::client::{self as wire, Cursor, Request, Response};
use driftless_proto::key::Key;
use driftless_ring::{ArcIndex, PartitionId, Token};
use futures::future::BoxFuture;
use futures::stream::Stream;
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::counts::Operation;
use crate::error::{Cause, ScanError};
use crate::into_bytes::IntoBytes;
use crate::options::{Profile, Settings};
use crate::router::{Route, Snapshot};
use crate::watched::watched;

/// Describes a walk through a bucket's keys. Made by [`Bucket::scan`](crate::Bucket::scan); [`keys`](Scan::keys)
/// begins it.
#[derive(Clone, Debug)]
#[must_use = "a scan does nothing until `.keys()`"]
pub struct Scan {
    bucket: Bucket,
    page: u32,
    position: Option<ScanPosition>,
    arc: Option<ArcIndex>,
    prefix: Bytes,
    profile: Profile,
}

/// A stream of keys. Keys that are written or deleted meanwhile may or may not appear; each key appears at most once.
///
/// After an error the stream can be polled on: it asks again for the page that failed.
#[must_use = "a stream does nothing until it is polled"]
pub struct Keys {
    walk: Arc<Walk>,
    ready: VecDeque<Key>,
    /// Where the next page begins; `None` behind the last one.
    next: Option<ScanPosition>,
    /// Keys of later tokens are not wanted.
    last: Token,
    /// The arc that is wanted, while it is not known how the ring is divided.
    unplaced: Option<Unplaced>,
    /// The key given last.
    given: Option<Key>,
    fetching: Option<BoxFuture<'static, Result<Page, ScanError>>>,
}

/// A walk through one arc that knows nothing of the ring yet.
struct Unplaced {
    arc: ArcIndex,
    position: Option<ScanPosition>,
}

/// A place between two keys of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanPosition(Cursor);

impl Bucket {
    /// Lists the keys of the bucket, in the order of their tokens.
    ///
    /// Only the keys' own replicas are asked, r of them for each page, and what stands in for a replica that was away is not
    /// listed. So while something that was written with a sloppy quorum has not been handed over yet, or a node that lost its
    /// disk is being filled again, **a key that was acknowledged may be missing**, without an error. To make a backup, look
    /// first and afterwards: all nodes answer [`status`](crate::Client::status), none holds [`hints`](crate::Client::hints),
    /// and [`aae`](crate::Client::aae) has no partition without a full round since the start. `driftless dump` does so.
    pub fn scan(&self) -> Scan {
        Scan {
            bucket: self.clone(),
            page: PAGE,
            position: None,
            arc: None,
            prefix: Bytes::new(),
            profile: Profile::new(),
        }
    }
}

impl ScanPosition {
    /// Before all keys of a token.
    fn at(token: Token) -> ScanPosition {
        ScanPosition(Cursor { token, key: None })
    }

    /// What comes behind it has this token or a later one.
    fn token(&self) -> Token {
        self.0.token
    }
}

struct Walk {
    bucket: Bucket,
    page: u32,
    prefix: Bytes,
    settings: Settings,
}

struct Page {
    keys: Vec<Key>,
    next: Option<ScanPosition>,
}

impl Scan {
    /// Most keys fetched at a time, 1,000 by default, at least 1. Nodes may answer with fewer: they walk only so far at once.
    pub fn page(mut self, keys: u32) -> Scan {
        self.page = keys.max(1);
        self
    }

    /// Replicas that must answer.
    pub fn r(mut self, r: u8) -> Scan {
        self.profile.r = Some(r);
        self
    }

    /// How each page is fetched.
    pub fn profile(mut self, profile: Profile) -> Scan {
        self.profile = profile;
        self
    }

    /// Asks this node and no other, given by its name or its `host:port`.
    pub fn via(mut self, node: impl AsRef<str>) -> Scan {
        self.profile.via = Some(Arc::from(node.as_ref()));
        self
    }

    /// Begins at a position of an earlier scan of the same bucket: see [`Keys::position`].
    pub fn from(mut self, position: ScanPosition) -> Scan {
        self.position = Some(position);
        self
    }

    /// Only the keys of this arc of the ring, as it is divided now; behind its last arc there are none.
    pub fn arc(mut self, arc: ArcIndex) -> Scan {
        self.arc = Some(arc);
        self
    }

    /// Only keys that begin with this. The node that is asked leaves the others out, so they are not carried; **it walks over
    /// them all the same**: keys are placed by their hash, so those of a prefix are not together, and this takes as long as a scan
    /// of the whole bucket.
    pub fn prefix(mut self, prefix: impl IntoBytes) -> Scan {
        self.prefix = prefix.into_bytes();
        self
    }

    /// Begins the walk.
    pub fn keys(self) -> Keys {
        let settings = self.profile.over(&self.bucket.settings);
        let known = self.bucket.inner.known();
        let walk = Walk { bucket: self.bucket, page: self.page, prefix: self.prefix, settings };
        let mut keys = Keys {
            walk: Arc::new(walk),
            ready: VecDeque::new(),
            next: Some(self.position.clone().unwrap_or(ScanPosition::at(Token(0)))),
            last: Token(u64::MAX),
            unplaced: self.arc.map(|arc| Unplaced { arc, position: self.position }),
            given: None,
            fetching: None,
        };
        if let Some(snapshot) = known {
            keys.place(&snapshot);
        }
        keys
    }
}

impl Keys {
    /// Goes to the arc that is wanted, if one is.
    fn place(&mut self, snapshot: &Snapshot) {
        let Some(Unplaced { arc, position }) = self.unplaced.take() else { return };
        let partitions = snapshot.topology.ring().partitions();
        (self.next, self.last) = match arc.0 < partitions.get() {
            true => {
                let range = partitions.range(arc);
                (Some(position.unwrap_or(ScanPosition::at(range.first))), range.last)
            }
            false => (None, Token(0)),
        };
    }

    /// Where to go on, in another scan or another process: behind the last key that was given. `None` at the end.
    pub fn position(&self) -> Option<ScanPosition> {
        match &self.given {
            Some(key) if !self.ready.is_empty() => {
                let snapshot = self.walk.bucket.inner.known()?;
                let bucket = snapshot.topology.bucket_named(self.walk.bucket.name())?;
                let token = snapshot.topology.ring().token(bucket.id.0, key.as_bytes());
                Some(ScanPosition(Cursor { token, key: Some(key.clone()) }))
            }
            _ => self.next.clone(),
        }
    }
}

impl Stream for Keys {
    type Item = Result<Key, ScanError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(key) = this.ready.pop_front() {
                this.given = Some(key.clone());
                return Poll::Ready(Some(Ok(key)));
            }
            let Some(next) = &this.next else {
                return Poll::Ready(None);
            };
            let is_placed = this.unplaced.is_none();
            let fetching = this.fetching.get_or_insert_with(|| match is_placed {
                true => Box::pin(Arc::clone(&this.walk).page_at(next.clone())),
                false => Box::pin(Arc::clone(&this.walk).nothing_yet()),
            });
            let page = ready!(fetching.as_mut().poll(cx));
            this.fetching = None;
            match page {
                Ok(_) if !is_placed => {
                    if let Some(snapshot) = this.walk.bucket.inner.known() {
                        this.place(&snapshot);
                    }
                }
                Ok(page) => {
                    this.given = None;
                    this.ready = page.keys.into();
                    this.next = page.next.filter(|next| next.token() <= this.last);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Walk {
    /// An empty page, when the topology is known.
    async fn nothing_yet(self: Arc<Self>) -> Result<Page, ScanError> {
        self.bucket.inner.bucket(self.bucket.name(), Clock::start(self.settings.timeout)).await?;
        Ok(Page { keys: Vec::new(), next: None })
    }

    async fn page_at(self: Arc<Self>, position: ScanPosition) -> Result<Page, ScanError> {
        let clock = Clock::start(self.settings.timeout);
        let page = pin!(async {
            loop {
                match self.try_page_at(&position, clock).await {
                    // The arc of this position has another number now; the ring at hand is the new one.
                    Err(ScanError::Request(error)) if matches!(error.cause(), Cause::RingDivided) => {}
                    page => return page,
                }
            }
        });
        watched(Operation::Scan, self.bucket.name(), self.settings.trace, page).await
    }

    async fn try_page_at(&self, position: &ScanPosition, clock: Clock) -> Result<Page, ScanError> {
        let inner = &self.bucket.inner;
        let (snapshot, bucket) = inner.bucket(self.bucket.name(), clock).await?;
        let q = snapshot.topology.ring().partitions();
        let arc = q.arc_of(position.token());
        // The beginning of the arc goes without saying.
        let after = Some(position.0.clone()).filter(|_| *position != ScanPosition::at(q.range(arc).first));
        let route = Route::Arc { partition: PartitionId { n: bucket.n, arc }, q };
        let (limit, r, prefix) = (self.page, self.settings.r, self.prefix.clone());
        let ring_version = snapshot.ring_version();
        let request = Request::Scan(wire::Scan { bucket: bucket.id, arc, after, limit, r, prefix, ring_version });
        let page = match inner.carry_out(&request, route, &self.settings, clock).await? {
            Response::Page(page) => page,
            _ => return Err(inner.misunderstood(&request).into()),
        };
        let next = match page.next {
            // A cursor that does not move on would make the walk endless.
            Some(cursor) if cursor > position.0 => Some(ScanPosition(cursor)),
            Some(_) => return Err(inner.misunderstood(&request).into()),
            None => q.range(arc).last.0.checked_add(1).map(|first| ScanPosition::at(Token(first))),
        };
        Ok(Page { keys: page.keys, next })
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("ready", &self.ready.len()).field("next", &self.next).finish_non_exhaustive()
    }
}

/// Some tens of kilobytes: one frame on the shared stream. Nodes often answer with fewer.
const PAGE: u32 = 1_000;
