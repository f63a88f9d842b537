//! Reading, writing or removing many keys, each by a request of its own.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::WriteId;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};

use crate::answer::{Context, Deleted, IntoContext, Read, Stored};
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::codec::EncodeError;
use crate::delete::delete;
use crate::error::{DeleteError, GetError, PutError};
use crate::get::get;
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::put::put;
use crate::retry::RetryPolicy;
use crate::write::Write;

/// Reads many keys. Made by [`Bucket::multi_get`]; awaited, it gives a result for each key, in their order.
///
/// `timeout` is how long each key may take, not all of them: 256 keys are under way at once, and the next begins with a time of its own
/// when one of them has ended. For a bound on the whole, put `tokio::time::timeout` around it.
#[must_use = "a request does nothing until it is awaited"]
pub struct MultiGet {
    bucket: Bucket,
    keys: Vec<Bytes>,
    pub(crate) profile: Profile,
}

/// Writes many values. Made by [`Bucket::multi_put`]; awaited, it gives a result for each key, in their order.
///
/// `timeout` is how long each key may take, not all of them: 256 keys are under way at once, and the next begins with a time of its own
/// when one of them has ended. For a bound on the whole, put `tokio::time::timeout` around it.
#[must_use = "a request does nothing until it is awaited"]
pub struct MultiPut {
    bucket: Bucket,
    entries: Vec<PutEntry>,
    profile: Profile,
}

/// Removes many keys. Made by [`Bucket::multi_delete`]; awaited, it gives a result for each key, in their order.
///
/// `timeout` is how long each key may take, not all of them: 256 keys are under way at once, and the next begins with a time of its own
/// when one of them has ended. For a bound on the whole, put `tokio::time::timeout` around it.
#[must_use = "a request does nothing until it is awaited"]
pub struct MultiDelete {
    bucket: Bucket,
    entries: Vec<DeleteEntry>,
    profile: Profile,
}

/// One of the values of a [`MultiPut`]. A pair of key and value is one that is blind.
#[derive(Clone, Debug)]
#[must_use = "an entry does nothing until it is given to `multi_put`"]
pub struct PutEntry {
    key: Bytes,
    value: Result<Bytes, EncodeError>,
    context: Option<Context>,
    write_id: Option<WriteId>,
}

/// One of the keys of a [`MultiDelete`]. A key alone is one of which the node reads what there is to remove.
#[derive(Clone, Debug)]
#[must_use = "an entry does nothing until it is given to `multi_delete`"]
pub struct DeleteEntry {
    key: Bytes,
    context: Option<Context>,
    write_id: Option<WriteId>,
}

impl Bucket {
    /// Reads many keys, as many at a time as is useful.
    pub fn multi_get<K: IntoBytes>(&self, keys: impl IntoIterator<Item = K>) -> MultiGet {
        let keys = keys.into_iter().map(IntoBytes::into_bytes).collect();
        MultiGet { bucket: self.clone(), keys, profile: Profile::new() }
    }

    /// Writes many values, as many at a time as is useful: pairs of key and value, which are blind and make siblings where
    /// something is, or [entries](PutEntry) with contexts and write ids.
    ///
    /// ```no_run
    /// # async fn example(carts: driftless_client::Bucket) -> Result<(), Box<dyn std::error::Error>> {
    /// use driftless_client::PutEntry;
    ///
    /// let mut entries = Vec::new();
    /// for (key, read) in carts.multi_get(["alice", "bob"]).await {
    ///     entries.push(PutEntry::new(key, "empty").context(read?.context()));
    /// }
    /// for (key, stored) in carts.multi_put(entries).await {
    ///     if let Err(error) = stored {
    ///         println!("{key:?}: {error}; again under {:?}", error.write_id());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Each is a request of its own and succeeds or fails by itself; nothing makes them happen together.
    pub fn multi_put<E: Into<PutEntry>>(&self, entries: impl IntoIterator<Item = E>) -> MultiPut {
        let entries = entries.into_iter().map(Into::into).collect();
        MultiPut { bucket: self.clone(), entries, profile: Profile::new() }
    }

    /// Removes many keys, as many at a time as is useful: keys, or [entries](DeleteEntry) with contexts and write ids. Each is a
    /// request of its own and succeeds or fails by itself.
    pub fn multi_delete<E: Into<DeleteEntry>>(&self, entries: impl IntoIterator<Item = E>) -> MultiDelete {
        let entries = entries.into_iter().map(Into::into).collect();
        MultiDelete { bucket: self.clone(), entries, profile: Profile::new() }
    }
}

impl PutEntry {
    /// A blind write.
    pub fn new(key: impl IntoBytes, value: impl IntoBytes) -> PutEntry {
        PutEntry::encoded(key, Ok(value.into_bytes()))
    }

    pub(crate) fn encoded(key: impl IntoBytes, value: Result<Bytes, EncodeError>) -> PutEntry {
        PutEntry { key: key.into_bytes(), value, context: None, write_id: None }
    }

    /// What was read and is to be replaced, as [`Put::context`](crate::Put::context) takes it.
    pub fn context(mut self, context: impl IntoContext) -> PutEntry {
        self.context = context.into_context();
        self
    }

    /// Names the write, as [`Put::write_id`](crate::Put::write_id) does. An id names a write of one key: the same one may be
    /// used for all.
    pub fn write_id(mut self, id: WriteId) -> PutEntry {
        self.write_id = Some(id);
        self
    }
}

impl<K: IntoBytes, V: IntoBytes> From<(K, V)> for PutEntry {
    fn from((key, value): (K, V)) -> PutEntry {
        PutEntry::new(key, value)
    }
}

impl DeleteEntry {
    /// A delete of what the node finds.
    pub fn new(key: impl IntoBytes) -> DeleteEntry {
        DeleteEntry { key: key.into_bytes(), context: None, write_id: None }
    }

    /// What was read and is to be removed, as [`Delete::context`](crate::Delete::context) takes it.
    pub fn context(mut self, context: impl IntoContext) -> DeleteEntry {
        self.context = context.into_context();
        self
    }

    /// Names the delete, as [`Delete::write_id`](crate::Delete::write_id) does.
    pub fn write_id(mut self, id: WriteId) -> DeleteEntry {
        self.write_id = Some(id);
        self
    }
}

impl<K: IntoBytes> From<K> for DeleteEntry {
    fn from(key: K) -> DeleteEntry {
        DeleteEntry::new(key)
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
            .map(|PutEntry { key, value, context, write_id }| async move {
                let write = Write::new(context, write_id);
                let stored = match value {
                    Ok(value) => put(bucket, key.clone(), value, write, settings, Clock::start(settings.timeout)).await,
                    Err(error) => Err(error.into()),
                };
                (key, stored)
            })
            .buffered(PIPELINE)
            .collect()
            .await
    }
}

impl MultiDelete {
    /// Removes all keys. The same as awaiting the request, without the box that costs.
    pub async fn send(self) -> Vec<(Bytes, Result<Deleted, DeleteError>)> {
        let settings = self.profile.over(&self.bucket.settings);
        let (bucket, settings) = (&self.bucket, &settings);
        stream::iter(self.entries)
            .map(|DeleteEntry { key, context, write_id }| async move {
                let write = Write::new(context, write_id);
                let deleted = delete(bucket, key.clone(), write, settings, Clock::start(settings.timeout)).await;
                (key, deleted)
            })
            .buffered(PIPELINE)
            .collect()
            .await
    }
}

request_options! {
    impl [] MultiGet, profile;
    impl [] MultiPut, profile;
    impl [] MultiDelete, profile;
}

await_by_send! {
    MultiGet => Vec<(Bytes, Result<Read, GetError>)>;
    MultiPut => Vec<(Bytes, Result<Stored, PutError>)>;
    MultiDelete => Vec<(Bytes, Result<Deleted, DeleteError>)>;
}

/// Requests of one multi-request under way at once: enough to fill writes, few enough to leave room for others.
const PIPELINE: usize = 256;
