//! Writing over what a key holds, without looking at it.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::WriteId;
use futures::future::BoxFuture;
use tracing::Instrument as _;

use crate::answer::Stored;
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::codec::EncodeError;
use crate::error::{GetError, PutError, UpdateError};
use crate::get::read;
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::put::put;
use crate::retry::RetryPolicy;
use crate::write::Write;

/// Writes a value over what is there. Made by [`Bucket::put_replacing`]; awaited, it gives a [`Stored`].
#[must_use = "a request does nothing until it is awaited"]
pub struct PutReplacing {
    bucket: Bucket,
    key: Bytes,
    value: Result<Bytes, EncodeError>,
    write_id: Option<WriteId>,
    profile: Profile,
}

impl Bucket {
    /// Writes a value over what the key holds: it reads for the context alone, and writes with that. So it leaves no siblings
    /// behind where a blind [`put`](Bucket::put) makes one each time. Right for values that do not build on what was there:
    /// the state of a session, a measurement, a cache.
    ///
    /// **What it replaces, nobody has looked at.** If two clients had written at the same time, both values are gone. Where a
    /// value builds on what was read, that is a lost update: use [`update`](Bucket::update), or a put with the
    /// [`context`](crate::Put::context) of the read that it builds on.
    ///
    /// What it has not seen it does not replace: what others write meanwhile, and what replicas hold that were not asked, stays
    /// as a sibling, which [`Stored::siblings`](crate::Stored::siblings) tells if the coordinator knows of it.
    pub fn put_replacing(&self, key: impl IntoBytes, value: impl IntoBytes) -> PutReplacing {
        self.put_replacing_encoded(key, Ok(value.into_bytes()))
    }

    pub(crate) fn put_replacing_encoded(&self, key: impl IntoBytes, value: Result<Bytes, EncodeError>) -> PutReplacing {
        PutReplacing { bucket: self.clone(), key: key.into_bytes(), value, write_id: None, profile: Profile::new() }
    }
}

impl PutReplacing {
    /// Names the write. Repeated under its id after an unknown outcome, it reads again: if the first write took effect, the
    /// second is recognised as that, or refused with [`Refusal::WriteIdReused`](crate::Refusal::WriteIdReused): the value has
    /// been stored either way.
    pub fn write_id(mut self, id: WriteId) -> PutReplacing {
        self.write_id = Some(id);
        self
    }

    /// Reads, and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`UpdateError`]; its [`outcome`](UpdateError::outcome) tells whether the value may have been stored.
    pub async fn send(self) -> Result<Stored, UpdateError> {
        let span = tracing::debug_span!("put_replacing", bucket = %self.bucket.name);
        self.run().instrument(span).await
    }

    async fn run(self) -> Result<Stored, UpdateError> {
        let PutReplacing { bucket, key, value, write_id, profile } = self;
        let value = value.map_err(PutError::from)?;
        let settings = profile.over(&bucket.settings);
        let clock = Clock::start(settings.timeout);
        bucket.inner.check(settings.attempt_timeout, clock).map_err(GetError::from)?;
        // Two that read the same would make siblings of each other.
        let _turn = bucket.inner.turns.take(&bucket.name, &key, clock.patience()).await;
        let read = read(&bucket, key.clone(), false, &settings, clock).await?;
        let write = Write::new(read.context().cloned(), write_id);
        Ok(put(&bucket, key, value, write, &settings, clock).await?)
    }
}

request_options! {
    impl [] PutReplacing, profile;
}

await_by_send! {
    PutReplacing => Result<Stored, UpdateError>;
}
