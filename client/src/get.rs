//! Reading a key, as it is or with its siblings resolved.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::{self as wire, Request, Response};
use driftless_proto::key::Key;
use futures::future::BoxFuture;

use crate::answer::{Read, Resolved};
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::counts::{Operation, count_siblings};
use crate::error::GetError;
use crate::into_bytes::IntoBytes;
use crate::options::{Profile, Settings};
use crate::pages::{Pages, Turned};
use crate::resolve::Resolve;
use crate::retry::RetryPolicy;
use crate::told::{self, Answered};
use crate::watched::watched;

/// Reads a key. Made by [`Bucket::get`]; awaited, it gives a [`Read`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Get {
    bucket: Bucket,
    key: Bytes,
    explain: bool,
    pub(crate) profile: Profile,
}

/// Reads a key and resolves its siblings. Made by [`Get::resolve`]; awaited, it gives a [`Resolved`].
#[must_use = "a request does nothing until it is awaited"]
pub struct GetResolved<R> {
    get: Get,
    resolver: R,
}

impl Bucket {
    /// Reads a key. That it does not exist is said only if as many of its own replicas as must answer say so: else it is an
    /// error, [`GetError::NotCertain`].
    pub fn get(&self, key: impl IntoBytes) -> Get {
        Get { bucket: self.clone(), key: key.into_bytes(), explain: false, profile: Profile::new() }
    }
}

impl Get {
    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

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
        let settings = self.profile.over(&self.bucket.settings);
        get(&self.bucket, self.key, self.explain, &settings, Clock::start(settings.timeout)).await
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
    let read =
        watched(Operation::Get, &bucket.name, settings.trace, pin!(read_pages(bucket, key, explain, settings, clock)))
            .await?;
    count_siblings(read.siblings().len());
    Ok(read)
}

async fn read_pages(
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
        let get = wire::Get { bucket: id, key, r: settings.r, sloppy: settings.sloppy, explain: false, shown };
        let request = told::observed(Request::Get(get), explain, settings.trace);
        let Answered { response, told } = bucket.inner.carry_out_and_tell(&request, route, settings, clock).await?;
        let turned = match response {
            Response::Read(read) => pages.turn(read),
            _ => Turned::Misread,
        };
        match turned {
            Turned::Whole(read) => return Ok(Read::new(*read, told)),
            Turned::More => {}
            Turned::Misread => return Err(bucket.inner.misunderstood(&request).into()),
        }
    }
}

request_options! {
    impl [] Get, profile;
    impl [R] GetResolved<R>, get.profile;
}

await_by_send! {
    Get => Result<Read, GetError>;
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
