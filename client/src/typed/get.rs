//! Reading values of a type.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::Key;
use futures::future::BoxFuture;

use super::resolving::Merge;
use crate::answer::{Conflict, Context, Read, Resolved};
use crate::builder::request_options;
use crate::codec::{Codec, DecodeError, decode};
use crate::error::GetError;
use crate::get::Get;
use crate::multi::MultiGet;
use crate::options::Profile;
use crate::retry::RetryPolicy;

/// Reads a key and decodes it. Made by [`TypedBucket::get`](crate::TypedBucket::get); awaited, it gives a [`TypedRead`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedGet<T> {
    pub(super) get: Get,
    pub(super) codec: Arc<dyn Codec<T>>,
}

/// Reads a key and makes one value of its siblings. Made by [`ResolvingBucket::get`](crate::ResolvingBucket::get); awaited, it
/// gives a [`Resolved`], whose value is `None` if the key has none.
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedGetResolved<T> {
    pub(super) get: TypedGet<T>,
    pub(super) merge: Arc<Merge<T>>,
}

/// Reads many keys and decodes them. Made by [`TypedBucket::multi_get`](crate::TypedBucket::multi_get); awaited, it gives a result
/// for each key, in their order.
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedMultiGet<T> {
    pub(super) get: MultiGet,
    pub(super) codec: Arc<dyn Codec<T>>,
}

/// What a get found, decoded.
#[derive(Clone, PartialEq, Debug)]
#[must_use = "a read may hold siblings, and the context that a write needs to replace them"]
pub struct TypedRead<T> {
    values: Vec<T>,
    read: Read,
}

impl<T> TypedGet<T> {
    /// Reads. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`GetError`]; [`GetError::Decode`] if a sibling is no value of this type.
    pub async fn send(self) -> Result<TypedRead<T>, GetError> {
        let key = Key::new(self.get.key().clone())?;
        Ok(TypedRead::new(&*self.codec, &key, self.get.send().await?)?)
    }
}

impl<T> TypedGetResolved<T> {
    /// Reads and merges. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`GetError`]; [`GetError::Decode`] if a sibling is no value of this type.
    pub async fn send(self) -> Result<Resolved<Option<T>>, GetError> {
        let TypedRead { values, read } = self.get.send().await?;
        let (siblings, context) = read.into_parts();
        let value = values.into_iter().reduce(|one, other| (self.merge)(one, other));
        Ok(Resolved { value, siblings: siblings.len(), context })
    }
}

impl<T> TypedMultiGet<T> {
    /// Reads all keys. The same as awaiting the request, without the box that costs.
    pub async fn send(self) -> Vec<(Bytes, Result<TypedRead<T>, GetError>)> {
        let codec = &*self.codec;
        let decoded = |key: &Bytes, read| Ok(TypedRead::new(codec, &Key::new(key.clone())?, read)?);
        let reads = self.get.send().await.into_iter();
        reads.map(|(key, read)| (key.clone(), read.and_then(|read| decoded(&key, read)))).collect()
    }
}

impl<T> TypedRead<T> {
    pub(super) fn new(codec: &dyn Codec<T>, key: &Key, read: Read) -> Result<TypedRead<T>, DecodeError> {
        Ok(TypedRead { values: decode(codec, key, read.siblings())?, read })
    }

    /// The values: none if the key does not exist, several if they were written concurrently.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The same, owned.
    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// The one value of the key, or `None` if it has none. Whoever goes on to write after this writes with the
    /// [`context`](TypedRead::context), also if nothing was found.
    ///
    /// # Errors
    /// [`Conflict`] if there are several, as [`Read::one`] says.
    pub fn one(&self) -> Result<Option<&T>, Conflict> {
        match &*self.values {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            several => Err(Conflict { siblings: several.len() }),
        }
    }

    /// Whether the key has any value.
    pub fn exists(&self) -> bool {
        !self.values.is_empty()
    }

    /// What this read saw; give it to the write that is to replace it. `None` if the key was never written.
    pub fn context(&self) -> Option<&Context> {
        self.read.context()
    }

    /// The read in bytes, with the times of the siblings and what it rests on.
    pub fn read(&self) -> &Read {
        &self.read
    }
}

request_options! {
    impl [T] TypedGet<T>, get.profile;
    impl [T] TypedMultiGet<T>, get.profile;
}

impl<T: Send + 'static> IntoFuture for TypedGet<T> {
    type Output = Result<TypedRead<T>, GetError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<T: Send + 'static> IntoFuture for TypedMultiGet<T> {
    type Output = Vec<(Bytes, Result<TypedRead<T>, GetError>)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<T: Send + 'static> IntoFuture for TypedGetResolved<T> {
    type Output = Result<Resolved<Option<T>>, GetError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
