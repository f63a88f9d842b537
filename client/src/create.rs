//! Writing a key that does not exist yet, as far as can be known.

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
use crate::error::{CreateError, GetError, PutError};
use crate::get::get;
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::put::put;
use crate::retry::RetryPolicy;
use crate::write::Write;

/// Writes a value if there is none. Made by [`Bucket::create`]; awaited, it gives a [`Stored`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Create {
    bucket: Bucket,
    key: Bytes,
    value: Result<Bytes, EncodeError>,
    write_id: Option<WriteId>,
    profile: Profile,
}

impl Bucket {
    /// Writes a value if the key has none **as far as r replicas know**: it reads, and writes only if nothing was found and
    /// that is certain. A key that has a value is [`CreateError::Exists`], and is left as it is.
    ///
    /// **This is no lock and no compare-and-set; the store has none.** What is and is not promised:
    ///
    /// - Of creates one after the other, the later one finds the key, if quorums meet: `sloppy(false)` with r + w > n. With
    ///   sloppy quorums it may miss what nodes hold that stand in for others.
    /// - Of creates at the same time **several may succeed**, also with strict quorums. All their values are kept, as siblings;
    ///   nothing is overwritten. [`Stored::siblings`](crate::Stored::siblings) often tells, and need not: each may have been
    ///   told that it is alone.
    /// - A key that was deleted does not exist, and can be created.
    ///
    /// So it is good for keys that are drawn at random or belong to one writer, and to find mistakes; who must be the only one
    /// to have a name, a number or a lock needs another store.
    pub fn create(&self, key: impl IntoBytes, value: impl IntoBytes) -> Create {
        self.create_encoded(key, Ok(value.into_bytes()))
    }

    pub(crate) fn create_encoded(&self, key: impl IntoBytes, value: Result<Bytes, EncodeError>) -> Create {
        Create { bucket: self.clone(), key: key.into_bytes(), value, write_id: None, profile: Profile::new() }
    }
}

impl Create {
    /// Names the write, as [`Put::write_id`](crate::Put::write_id) does. Created again under its id after an unknown outcome,
    /// a key whose creation took effect [exists](CreateError::Exists).
    pub fn write_id(mut self, id: WriteId) -> Create {
        self.write_id = Some(id);
        self
    }

    /// Reads, and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`CreateError`]; its [`outcome`](CreateError::outcome) tells whether the value may have been stored.
    pub async fn send(self) -> Result<Stored, CreateError> {
        let span = tracing::debug_span!("create", bucket = %self.bucket.name);
        self.run().instrument(span).await
    }

    async fn run(self) -> Result<Stored, CreateError> {
        let Create { bucket, key, value, write_id, profile } = self;
        let value = value.map_err(PutError::from)?;
        let settings = profile.over(&bucket.settings);
        let clock = Clock::start(settings.timeout);
        bucket.inner.check(settings.attempt_timeout, clock).map_err(GetError::from)?;
        // Of creates and updates through this client, each sees what the one before has written.
        let _turn = bucket.inner.turns.take(&bucket.name, &key, clock.patience()).await;
        let read = get(&bucket, key.clone(), false, &settings, clock).await?;
        if read.exists() {
            return Err(CreateError::Exists { read: Box::new(read) });
        }
        let write = Write::new(read.context().cloned(), write_id);
        Ok(put(&bucket, key, value, write, &settings, clock).await?)
    }
}

request_options! {
    impl [] Create, profile;
}

await_by_send! {
    Create => Result<Stored, CreateError>;
}
