//! A bucket, and the requests one can make of it. Each request is a builder that is awaited.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::WriteId;
use driftless_proto::client::{self as wire, Request, Response, Sibling};
use driftless_proto::key::{Key, VALUE_BYTES_MAX};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tracing::Instrument as _;

use crate::answer::{Change, Context, Deleted, IntoBytes, IntoContext, Read, Resolved, Stored};
use crate::clock::Clock;
use crate::error::{DeleteError, GetError, PutError, RequestError};
use crate::inner::Inner;
use crate::options::{Profile, Settings};
use crate::pages::{Pages, Turned};
use crate::resolve::Resolve;
use crate::retry::RetryPolicy;
use crate::router::Route;
use crate::scan::Scan;
use crate::update::Update;

/// A bucket of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: Arc<str>,
    pub(crate) settings: Arc<Settings>,
}

/// Reads a key. Made by [`Bucket::get`]; awaited, it gives a [`Read`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Get {
    bucket: Bucket,
    key: Bytes,
    explain: bool,
    profile: Profile,
}

/// Reads a key and resolves its siblings. Made by [`Get::resolve`]; awaited, it gives a [`Resolved`].
#[must_use = "a request does nothing until it is awaited"]
pub struct GetResolved<R> {
    get: Get,
    resolver: R,
}

/// Writes a value. Made by [`Bucket::put`]; awaited, it gives a [`Stored`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Put {
    bucket: Bucket,
    key: Bytes,
    value: Bytes,
    context: Option<Context>,
    write_id: Option<WriteId>,
    profile: Profile,
}

/// Removes a key. Made by [`Bucket::delete`]; awaited, it gives a [`Deleted`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Delete {
    bucket: Bucket,
    key: Bytes,
    context: Option<Context>,
    write_id: Option<WriteId>,
    profile: Profile,
}

/// Reads many keys. Made by [`Bucket::multi_get`]; awaited, it gives a result for each key, in their order.
#[must_use = "a request does nothing until it is awaited"]
pub struct MultiGet {
    bucket: Bucket,
    keys: Vec<Bytes>,
    profile: Profile,
}

/// Writes many values. Made by [`Bucket::multi_put`]; awaited, it gives a result for each key, in their order.
#[must_use = "a request does nothing until it is awaited"]
pub struct MultiPut {
    bucket: Bucket,
    entries: Vec<(Bytes, Bytes)>,
    profile: Profile,
}

impl Bucket {
    pub(crate) fn new(inner: Arc<Inner>, name: Arc<str>, settings: Arc<Settings>) -> Bucket {
        Bucket { inner, name, settings }
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same bucket with other defaults for its requests.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_profile(&self, profile: &Profile) -> Bucket {
        let settings = Arc::new(profile.over(&self.settings));
        Bucket { inner: Arc::clone(&self.inner), name: Arc::clone(&self.name), settings }
    }

    /// Reads a key. That it does not exist is said only if as many of its own replicas as must answer say so: else it is an
    /// error, [`GetError::NotCertain`].
    pub fn get(&self, key: impl IntoBytes) -> Get {
        Get { bucket: self.clone(), key: key.into_bytes(), explain: false, profile: Profile::new() }
    }

    /// Writes a value. Without a [`context`](Put::context) it is *blind*: it overwrites nothing, and becomes a
    /// sibling of what is there.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Put {
        Put {
            bucket: self.clone(),
            key: key.into_bytes(),
            value: value.into_bytes(),
            context: None,
            write_id: None,
            profile: Profile::new(),
        }
    }

    /// Removes a key. Without a [`context`](Delete::context) the node reads first, and removes what it saw.
    pub fn delete(&self, key: impl IntoBytes) -> Delete {
        Delete { bucket: self.clone(), key: key.into_bytes(), context: None, write_id: None, profile: Profile::new() }
    }

    /// Reads a key, lets `change` decide what it shall hold, and writes that with the context of the read.
    ///
    /// What is promised: the write replaces exactly what `change` was shown. If another client writes at the same time,
    /// both results stay, as siblings, and the client that updates next is shown both. So once an update has succeeded, its
    /// change is in a live value of the key, or was seen by what replaced that. Two things are asked of `change`:
    ///
    /// - it must make one value of several, and
    /// - it must give the same when its own result is among them: adding an element to a set does, adding one to a
    ///   number does not (it may be called again, see below, and would add it twice). For such a change keep an element
    ///   per addition, or allow one round and merge when reading.
    ///
    /// Where nothing is found and too few of the key's own replicas could be asked to be certain, `change` is called with
    /// nothing all the same, and what it makes of that becomes a sibling of what the others may hold.
    ///
    /// An update is done when its write is acknowledged. If others wrote meanwhile and siblings are left, it tidies up:
    /// after a short random wait it looks again, and merges them with `change` unless somebody else has done so, at most
    /// [`rounds_max`](Update::rounds_max) rounds in all. It gives that up when others write without pause, when it fails or
    /// when the time is over, and succeeds all the same: [`Updated::siblings`](crate::Updated::siblings) tells how many values are left. With a
    /// [resolver](Get::resolve) a reader sees them as one.
    ///
    /// A write that is refused because others have filled the key ([`Refusal::TooManySiblings`](crate::Refusal)) wrote
    /// nothing: the key is read again after a random wait, as long as the call's time lasts. Updates of one key through
    /// one client take turns, so that they do not make siblings of each other.
    pub fn update<F, C>(&self, key: impl IntoBytes, change: F) -> Update<F>
    where
        F: FnMut(&[Sibling]) -> C,
        C: Into<Change>,
    {
        Update::new(self.clone(), key.into_bytes(), change)
    }

    /// Reads many keys, as many at a time as is useful.
    pub fn multi_get<K: IntoBytes>(&self, keys: impl IntoIterator<Item = K>) -> MultiGet {
        let keys = keys.into_iter().map(IntoBytes::into_bytes).collect();
        MultiGet { bucket: self.clone(), keys, profile: Profile::new() }
    }

    /// Writes many values blindly, as many at a time as is useful.
    pub fn multi_put<K: IntoBytes, V: IntoBytes>(&self, entries: impl IntoIterator<Item = (K, V)>) -> MultiPut {
        let entries = entries.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes())).collect();
        MultiPut { bucket: self.clone(), entries, profile: Profile::new() }
    }

    /// Lists the keys of the bucket, in the order of their tokens.
    ///
    /// Only the keys' own replicas are asked, r of them for each page, and what stands in for a replica that was away is not
    /// listed. So while something that was written with a sloppy quorum has not been handed over yet, or a node that lost its
    /// disk is being filled again, **a key that was acknowledged may be missing**, without an error. To make a backup, look
    /// first and afterwards: all nodes answer [`status`](crate::Client::status), none holds [`hints`](crate::Client::hints),
    /// and [`aae`](crate::Client::aae) has no partition without a full round since the start. `driftless dump` does so.
    pub fn scan(&self) -> Scan {
        Scan::new(self.clone())
    }
}

impl Get {
    /// Asks all replicas, and has the coordinator tell what each said: see [`Read::explanation`].
    pub fn explain(mut self) -> Get {
        self.explain = true;
        self
    }

    /// Makes one value of the siblings.
    pub fn resolve<R: Resolve>(self, resolver: R) -> GetResolved<R> {
        GetResolved { get: self, resolver }
    }

    /// Reads. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn send(self) -> Result<Read, GetError> {
        let span = tracing::debug_span!("get", bucket = %self.bucket.name, key = ?self.key);
        let settings = self.profile.over(&self.bucket.settings);
        get(&self.bucket, self.key, self.explain, &settings, Clock::start(settings.timeout)).instrument(span).await
    }
}

impl<R: Resolve> GetResolved<R> {
    /// Reads and resolves. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`GetError`]; [`GetError::Resolve`] if the resolver gave up.
    pub async fn send(self) -> Result<Resolved<R::Output>, GetError> {
        let read = self.get.send().await?;
        let value = self.resolver.resolve(read.siblings())?;
        let (siblings, context) = read.into_parts();
        Ok(Resolved { value, siblings: siblings.len(), context })
    }
}

impl Put {
    /// What was read and is to be replaced. `None` is a blind put.
    pub fn context(mut self, context: impl IntoContext) -> Put {
        self.context = context.into_context();
        self
    }

    /// Names the write. Writing the same value with the same context and id again, even from another process, makes
    /// no sibling. A random id is drawn otherwise.
    pub fn write_id(mut self, id: WriteId) -> Put {
        self.write_id = Some(id);
        self
    }

    /// Writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`PutError`]; its [`outcome`](PutError::outcome) tells whether the value may have been stored.
    pub async fn send(self) -> Result<Stored, PutError> {
        let span = tracing::debug_span!("put", bucket = %self.bucket.name, key = ?self.key, bytes = self.value.len());
        let settings = self.profile.over(&self.bucket.settings);
        let write_id = self.write_id.unwrap_or_else(draw_write_id);
        let write = Write { context: self.context, write_id };
        put(&self.bucket, self.key, self.value, write, &settings, Clock::start(settings.timeout)).instrument(span).await
    }
}

impl Delete {
    /// What was read and is to be removed. `None` has the node read first.
    pub fn context(mut self, context: impl IntoContext) -> Delete {
        self.context = context.into_context();
        self
    }

    /// Names the delete, as [`Put::write_id`] does. Repeated under its id it is the same delete: what was written since
    /// the first attempt took effect stays.
    pub fn write_id(mut self, id: WriteId) -> Delete {
        self.write_id = Some(id);
        self
    }

    /// Removes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`DeleteError`]; its [`outcome`](DeleteError::outcome) tells whether the key may have been removed.
    pub async fn send(self) -> Result<Deleted, DeleteError> {
        let span = tracing::debug_span!("delete", bucket = %self.bucket.name, key = ?self.key);
        let settings = self.profile.over(&self.bucket.settings);
        let write_id = self.write_id.unwrap_or_else(draw_write_id);
        let write = Write { context: self.context, write_id };
        delete(&self.bucket, self.key, write, &settings, Clock::start(settings.timeout)).instrument(span).await
    }
}

impl MultiGet {
    /// Reads all keys. The same as awaiting the request, without the box that costs.
    pub async fn send(self) -> Vec<(Bytes, Result<Read, GetError>)> {
        let settings = self.profile.over(&self.bucket.settings);
        let (bucket, settings) = (&self.bucket, &settings);
        stream::iter(self.keys)
            .map(|key| async move {
                let read = get(bucket, key.clone(), false, settings, Clock::start(settings.timeout)).await;
                (key, read)
            })
            .buffered(PIPELINE)
            .collect()
            .await
    }
}

impl MultiPut {
    /// Writes all values. The same as awaiting the request, without the box that costs.
    pub async fn send(self) -> Vec<(Bytes, Result<Stored, PutError>)> {
        let settings = self.profile.over(&self.bucket.settings);
        let (bucket, settings) = (&self.bucket, &settings);
        stream::iter(self.entries)
            .map(|(key, value)| async move {
                let write = Write { context: None, write_id: draw_write_id() };
                let stored = put(bucket, key.clone(), value, write, settings, Clock::start(settings.timeout)).await;
                (key, stored)
            })
            .buffered(PIPELINE)
            .collect()
            .await
    }
}

/// What names a write and what it replaces.
pub(crate) struct Write {
    pub(crate) context: Option<Context>,
    pub(crate) write_id: WriteId,
}

pub(crate) async fn get(
    bucket: &Bucket,
    key: Bytes,
    explain: bool,
    settings: &Settings,
    clock: Clock,
) -> Result<Read, GetError> {
    let read = read(bucket, key, explain, settings, clock).await?;
    if read.is_certain() { Ok(read) } else { Err(GetError::NotCertain { read: Box::new(read) }) }
}

/// The same, also if it found nothing and that is not certain.
pub(crate) async fn read(
    bucket: &Bucket,
    key: Bytes,
    explain: bool,
    settings: &Settings,
    clock: Clock,
) -> Result<Read, GetError> {
    let key = Key::new(key)?;
    let (id, route) = bucket.place(&key, clock).await?;
    let mut pages = Pages::default();
    loop {
        let (key, shown) = (key.clone(), pages.shown());
        let request =
            Request::Get(wire::Get { bucket: id, key, r: settings.r, sloppy: settings.sloppy, explain, shown });
        let turned = match bucket.inner.call(&request, route, settings, clock).await? {
            Response::Read(read) => pages.turn(read),
            _ => Turned::Misread,
        };
        match turned {
            Turned::Whole(read) => return Ok(Read::new(*read)),
            Turned::More => {}
            Turned::Misread => return Err(bucket.inner.misunderstood(&request).into()),
        }
    }
}

pub(crate) async fn put(
    bucket: &Bucket,
    key: Bytes,
    value: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Stored, PutError> {
    let key = Key::new(key)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(PutError::ValueTooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
    }
    let (id, route) = bucket.place(&key, clock).await?;
    let request = Request::Put(wire::Put {
        bucket: id,
        key,
        value,
        context: write.context.map(|context| context.0),
        w: settings.w,
        sloppy: settings.sloppy,
        write_id: write.write_id,
    });
    match bucket.inner.call(&request, route, settings, clock).await? {
        Response::Stored(stored) => Ok(Stored::new(stored)),
        _ => Err(bucket.inner.misunderstood(&request).into()),
    }
}

pub(crate) async fn delete(
    bucket: &Bucket,
    key: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Deleted, DeleteError> {
    let key = Key::new(key)?;
    let (id, route) = bucket.place(&key, clock).await?;
    let request = Request::Delete(wire::Delete {
        bucket: id,
        key,
        context: write.context.map(|context| context.0),
        r: settings.r,
        w: settings.w,
        sloppy: settings.sloppy,
        write_id: write.write_id,
    });
    match bucket.inner.call(&request, route, settings, clock).await? {
        Response::Deleted(deleted) => match deleted.basis.filter(|basis| !deleted.existed && !basis.is_enough()) {
            Some(basis) => {
                let (primaries, needed) = (basis.primaries, basis.needed);
                Err(DeleteError::NotCertain { primaries, needed, deleted: Deleted::new(&deleted) })
            }
            None => Ok(Deleted::new(&deleted)),
        },
        _ => Err(bucket.inner.misunderstood(&request).into()),
    }
}

impl Bucket {
    async fn place(&self, key: &Key, clock: Clock) -> Result<(driftless_proto::BucketId, Route), RequestError> {
        let (snapshot, bucket) = self.inner.bucket(&self.name, clock).await?;
        let token = snapshot.topology.ring().token(bucket.id.0, key.as_bytes());
        Ok((bucket.id, Route::Token { n: bucket.n, token }))
    }
}

pub(crate) fn draw_write_id() -> WriteId {
    WriteId(rand::random())
}

/// The options that all requests share.
macro_rules! request_options {
    ($(impl [$($generic:ident)?] $name:ty, $field:ident $(. $inner:ident)?;)+) => {$(
        impl$(<$generic>)? $name {
            /// Replicas that must answer a read.
            pub fn r(mut self, r: u8) -> Self {
                self.$field$(.$inner)?.r = Some(r);
                self
            }

            /// Replicas that must acknowledge a write.
            pub fn w(mut self, w: u8) -> Self {
                self.$field$(.$inner)?.w = Some(w);
                self
            }

            /// Whether fallbacks count when primaries are down.
            pub fn sloppy(mut self, sloppy: bool) -> Self {
                self.$field$(.$inner)?.sloppy = Some(sloppy);
                self
            }

            /// How long one attempt may take.
            pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
                self.$field$(.$inner)?.attempt_timeout = Some(timeout);
                self
            }

            /// How long the call may take with all its attempts and waits.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.$field$(.$inner)?.timeout = Some(timeout);
                self
            }

            /// When to try again.
            pub fn retry(mut self, policy: impl RetryPolicy) -> Self {
                self.$field$(.$inner)?.retry = Some(Arc::new(policy));
                self
            }

            /// Sends the request to this node and no other, given by its name or its `host:port`.
            pub fn via(mut self, node: impl AsRef<str>) -> Self {
                self.$field$(.$inner)?.via = Some(Arc::from(node.as_ref()));
                self
            }

            /// Takes all that this profile decides.
            pub fn profile(mut self, profile: Profile) -> Self {
                self.$field$(.$inner)? = profile;
                self
            }
        }
    )+};
}

pub(crate) use request_options;

request_options! {
    impl [] Get, profile;
    impl [] Put, profile;
    impl [] Delete, profile;
    impl [] MultiGet, profile;
    impl [] MultiPut, profile;
    impl [R] GetResolved<R>, get.profile;
}

macro_rules! await_by_send {
    ($($name:ident => $output:ty;)+) => {$(
        impl IntoFuture for $name {
            type Output = $output;
            type IntoFuture = BoxFuture<'static, $output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    )+};
}

await_by_send! {
    Get => Result<Read, GetError>;
    Put => Result<Stored, PutError>;
    Delete => Result<Deleted, DeleteError>;
    MultiGet => Vec<(Bytes, Result<Read, GetError>)>;
    MultiPut => Vec<(Bytes, Result<Stored, PutError>)>;
}

impl<R> IntoFuture for GetResolved<R>
where
    R: Resolve + Send + 'static,
    R::Output: Send + 'static,
{
    type Output = Result<Resolved<R::Output>, GetError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Requests of one multi-request under way at once: enough to fill writes, few enough to leave room for others.
const PIPELINE: usize = 256;
