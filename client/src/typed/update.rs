//! Updating values of a type.

use std::convert::Infallible;
use std::future::{Future, IntoFuture, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::Sibling;
use driftless_proto::{Key, WriteId};
use futures::future::BoxFuture;
use tracing::Instrument as _;

use super::TypedBucket;
use crate::answer::Updated;
use crate::builder::request_options;
use crate::change::Change;
use crate::codec::{Codec, decode, encode};
use crate::error::{GetError, PutError, TryUpdateError, UpdateError};
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::retry::RetryPolicy;
use crate::update::{Decide, Encoded, Plan, update_options};

/// Reads a key, changes it and writes it back. Made by [`TypedBucket::update`]; awaited, it gives an [`Updated`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedUpdate<T, F> {
    plan: Plan,
    codec: Arc<dyn Codec<T>>,
    change: F,
}

/// Reads a key, changes it and writes it back, if the change succeeds. Made by [`TypedBucket::try_update`]; awaited, it gives an
/// [`Updated`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedTryUpdate<T, F> {
    plan: Plan,
    codec: Arc<dyn Codec<T>>,
    change: F,
}

impl<T: 'static> TypedBucket<T> {
    /// Reads a key, lets `change` decide what it shall hold, and writes that, as [`Bucket::update`](crate::Bucket::update) does:
    /// `change` is given all siblings, makes one value of them, and may be called again with its own result among them. It
    /// returns a `T`, an `Option<T>`, where `None` removes the key, or a [`Change`].
    pub fn update<F, C>(&self, key: impl IntoBytes, change: F) -> TypedUpdate<T, F>
    where
        F: FnMut(Vec<T>) -> C,
        C: Into<Change<T>>,
    {
        TypedUpdate { plan: self.plan(key), codec: Arc::clone(&self.codec), change }
    }

    /// The same with a change that can fail, and wait for something: see [`Bucket::try_update`](crate::Bucket::try_update).
    pub fn try_update<F, Fut, C, E>(&self, key: impl IntoBytes, change: F) -> TypedTryUpdate<T, F>
    where
        F: FnMut(Vec<T>) -> Fut,
        Fut: Future<Output = Result<C, E>>,
        C: Into<Change<T>>,
    {
        TypedTryUpdate { plan: self.plan(key), codec: Arc::clone(&self.codec), change }
    }

    fn plan(&self, key: impl IntoBytes) -> Plan {
        Plan::new(self.bucket(), key.into_bytes())
    }
}

impl<T, F, C> TypedUpdate<T, F>
where
    T: Send,
    F: FnMut(Vec<T>) -> C,
    C: Into<Change<T>>,
{
    /// Reads, changes and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`UpdateError`], as of an update of bytes; its reason may be a sibling that is no value of this type
    /// ([`GetError::Decode`]), or a value that cannot be encoded ([`PutError::Encode`]).
    pub async fn send(self) -> Result<Updated<T>, UpdateError> {
        let span = tracing::debug_span!("update", bucket = %self.plan.bucket.name());
        let decide = TypedGiving { codec: self.codec, change: self.change };
        self.plan.run(decide).instrument(span).await.map_err(TryUpdateError::infallible)
    }
}

impl<T, F, Fut, C, E> TypedTryUpdate<T, F>
where
    T: Send,
    F: FnMut(Vec<T>) -> Fut,
    Fut: Future<Output = Result<C, E>> + Send,
    C: Into<Change<T>>,
    E: Send,
{
    /// Reads, changes and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`TryUpdateError`]: what the change said, or why the update did not succeed.
    pub async fn send(self) -> Result<Updated<T>, TryUpdateError<E>> {
        let span = tracing::debug_span!("update", bucket = %self.plan.bucket.name());
        self.plan.run(TypedTrying { codec: self.codec, change: self.change }).instrument(span).await
    }
}

/// A closure that gives a value at once.
struct TypedGiving<T, F> {
    codec: Arc<dyn Codec<T>>,
    change: F,
}

/// A closure that gives a value later, or fails.
struct TypedTrying<T, F> {
    codec: Arc<dyn Codec<T>>,
    change: F,
}

impl<T, F, C> Decide for TypedGiving<T, F>
where
    T: Send,
    F: FnMut(Vec<T>) -> C,
    C: Into<Change<T>>,
{
    type Value = T;
    type Error = Infallible;

    fn decide(
        &mut self,
        key: &Bytes,
        siblings: &[Sibling],
    ) -> impl Future<Output = Result<Change<Encoded<T>>, TryUpdateError<Infallible>>> + Send {
        let change = decoded(&*self.codec, key, siblings).map(|values| (self.change)(values).into());
        ready(change.and_then(|change| to_write(&*self.codec, change)))
    }
}

impl<T, F, Fut, C, E> Decide for TypedTrying<T, F>
where
    T: Send,
    F: FnMut(Vec<T>) -> Fut,
    Fut: Future<Output = Result<C, E>> + Send,
    C: Into<Change<T>>,
    E: Send,
{
    type Value = T;
    type Error = E;

    fn decide(
        &mut self,
        key: &Bytes,
        siblings: &[Sibling],
    ) -> impl Future<Output = Result<Change<Encoded<T>>, TryUpdateError<E>>> + Send {
        let change = decoded(&*self.codec, key, siblings).map(|values| (self.change)(values));
        let codec = &*self.codec;
        async move {
            let change = change?.await.map_err(TryUpdateError::change)?;
            to_write(codec, change.into())
        }
    }
}

fn decoded<T, E>(codec: &dyn Codec<T>, key: &Bytes, siblings: &[Sibling]) -> Result<Vec<T>, TryUpdateError<E>> {
    let key = Key::new(key.clone()).map_err(GetError::from)?;
    Ok(decode(codec, &key, siblings).map_err(GetError::from)?)
}

fn to_write<T, E>(codec: &dyn Codec<T>, change: Change<T>) -> Result<Change<Encoded<T>>, TryUpdateError<E>> {
    Ok(change.encoded(|value| encode(codec, value)).map_err(PutError::from)?)
}

update_options! {
    impl [T, F] TypedUpdate<T, F>;
    impl [T, F] TypedTryUpdate<T, F>;
}

request_options! {
    impl [T, F] TypedUpdate<T, F>, plan.profile;
    impl [T, F] TypedTryUpdate<T, F>, plan.profile;
}

impl<T, F, C> IntoFuture for TypedUpdate<T, F>
where
    T: Send + 'static,
    F: FnMut(Vec<T>) -> C + Send + 'static,
    C: Into<Change<T>> + Send + 'static,
{
    type Output = Result<Updated<T>, UpdateError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<T, F, Fut, C, E> IntoFuture for TypedTryUpdate<T, F>
where
    T: Send + 'static,
    F: FnMut(Vec<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<C, E>> + Send + 'static,
    C: Into<Change<T>> + Send + 'static,
    E: Send + 'static,
{
    type Output = Result<Updated<T>, TryUpdateError<E>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
