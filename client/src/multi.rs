//! Reading or writing many keys, each by a request of its own.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};

use crate::answer::{Read, Stored};
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::error::{GetError, PutError};
use crate::get::get;
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::put::put;
use crate::retry::RetryPolicy;
use crate::write::Write;

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
                let write = Write::new(None, None);
                let stored = put(bucket, key.clone(), value, write, settings, Clock::start(settings.timeout)).await;
                (key, stored)
            })
            .buffered(PIPELINE)
            .collect()
            .await
    }
}

request_options! {
    impl [] MultiGet, profile;
    impl [] MultiPut, profile;
}

await_by_send! {
    MultiGet => Vec<(Bytes, Result<Read, GetError>)>;
    MultiPut => Vec<(Bytes, Result<Stored, PutError>)>;
}

/// Requests of one multi-request under way at once: enough to fill writes, few enough to leave room for others.
const PIPELINE: usize = 256;
