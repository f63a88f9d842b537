//! How an update gets from what was read to what shall be written: the closures of the four kinds of updates as one.

use std::convert::Infallible;
use std::future::{Future, ready};

use bytes::Bytes;
use driftless_proto::client::Sibling;

use crate::change::Change;
use crate::error::TryUpdateError;

/// Decides what a key shall hold.
pub(crate) trait Decide {
    /// What values are to the user: bytes, or what they are decoded to.
    type Value: Send;
    /// Why the user's closure failed.
    type Error: Send;

    /// What the key shall hold, which holds these siblings.
    fn decide(
        &mut self,
        key: &Bytes,
        siblings: &[Sibling],
    ) -> impl Future<Output = Result<Change<Encoded<Self::Value>>, TryUpdateError<Self::Error>>> + Send;
}

/// A value with the bytes to write for it.
pub(crate) struct Encoded<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

/// A closure that gives bytes at once.
pub(crate) struct Giving<F>(pub(crate) F);

/// A closure that gives bytes later, or fails.
pub(crate) struct Trying<F>(pub(crate) F);

impl<T> Change<T> {
    /// The same, with the bytes to write.
    pub(crate) fn encoded<E>(self, encode: impl FnOnce(&T) -> Result<Bytes, E>) -> Result<Change<Encoded<T>>, E> {
        Ok(match self {
            Change::Put(value) => Change::Put(Encoded { bytes: encode(&value)?, value }),
            Change::Delete => Change::Delete,
            Change::Keep => Change::Keep,
        })
    }
}

impl<F, C> Decide for Giving<F>
where
    F: FnMut(&[Sibling]) -> C,
    C: Into<Change>,
{
    type Value = Bytes;
    type Error = Infallible;

    fn decide(
        &mut self,
        _: &Bytes,
        siblings: &[Sibling],
    ) -> impl Future<Output = Result<Change<Encoded<Bytes>>, TryUpdateError<Infallible>>> + Send {
        let change: Change = (self.0)(siblings).into();
        ready(change.encoded(|bytes| Ok(bytes.clone())))
    }
}

impl<F, Fut, C, E> Decide for Trying<F>
where
    F: FnMut(Vec<Sibling>) -> Fut,
    Fut: Future<Output = Result<C, E>> + Send,
    C: Into<Change>,
    E: Send,
{
    type Value = Bytes;
    type Error = E;

    fn decide(
        &mut self,
        _: &Bytes,
        siblings: &[Sibling],
    ) -> impl Future<Output = Result<Change<Encoded<Bytes>>, TryUpdateError<E>>> + Send {
        let change = (self.0)(siblings.to_vec());
        async move {
            let change: Change = change.await.map_err(TryUpdateError::change)?.into();
            change.encoded(|bytes| Ok(bytes.clone()))
        }
    }
}
