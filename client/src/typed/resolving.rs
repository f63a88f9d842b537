//! A typed bucket that merges siblings whenever it meets them.

use std::sync::Arc;

use super::TypedBucket;
use super::get::TypedGetResolved;
use super::update::{TypedTryUpdate, TypedUpdate};
use crate::change::Change;
use crate::into_bytes::IntoBytes;

/// Makes one value of two.
pub(super) type Merge<T> = dyn Fn(T, T) -> T + Send + Sync;

/// A bucket of which siblings are merged whenever they are read. Made by [`TypedBucket::resolving`]; cheap to clone.
///
/// ```no_run
/// # async fn example(client: driftless_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeSet;
///
/// use driftless_client::Json;
///
/// let tags = client.bucket("tags").typed::<BTreeSet<String>>(Json).resolving(|one, other| &one | &other);
/// let done = tags
///     .update("alice", |tags| {
///         let mut tags = tags.unwrap_or_default();
///         tags.insert("rust".to_owned());
///         tags
///     })
///     .await?;
/// println!("{:?}, {:?}", done.value(), tags.get("bob").await?.value);
/// # Ok(())
/// # }
/// ```
pub struct ResolvingBucket<T> {
    typed: TypedBucket<T>,
    merge: Arc<Merge<T>>,
}

impl<T: Send + 'static> ResolvingBucket<T> {
    pub(super) fn new(typed: TypedBucket<T>, merge: Arc<Merge<T>>) -> ResolvingBucket<T> {
        ResolvingBucket { typed, merge }
    }

    /// The bucket that shows siblings as they are, and writes.
    pub fn typed(&self) -> &TypedBucket<T> {
        &self.typed
    }

    /// Reads a key, and merges its siblings. They stay in the cluster until an [`update`](ResolvingBucket::update), or a put
    /// with the context of the read, replaces them.
    pub fn get(&self, key: impl IntoBytes) -> TypedGetResolved<T> {
        TypedGetResolved { get: self.typed.get(key), merge: Arc::clone(&self.merge) }
    }

    /// Reads a key, merges its siblings, lets `change` decide what it shall hold, and writes that, as [`Bucket::update`] does:
    /// `change` may be called again with a value that has its own result in it.
    ///
    /// [`Bucket::update`]: crate::Bucket::update
    pub fn update<F, C>(
        &self,
        key: impl IntoBytes,
        mut change: F,
    ) -> TypedUpdate<T, impl FnMut(Vec<T>) -> C + Send + 'static>
    where
        F: FnMut(Option<T>) -> C + Send + 'static,
        C: Into<Change<T>>,
    {
        let merge = Arc::clone(&self.merge);
        self.typed.update(key, move |values| change(merged(values, &*merge)))
    }

    /// The same with a change that can fail, and wait for something: see [`Bucket::try_update`](crate::Bucket::try_update).
    pub fn try_update<F, Fut, C, E>(
        &self,
        key: impl IntoBytes,
        mut change: F,
    ) -> TypedTryUpdate<T, impl FnMut(Vec<T>) -> Fut + Send + 'static>
    where
        F: FnMut(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<C, E>>,
        C: Into<Change<T>>,
    {
        let merge = Arc::clone(&self.merge);
        self.typed.try_update(key, move |values| change(merged(values, &*merge)))
    }
}

/// One value of all, if there is any.
fn merged<T>(values: Vec<T>, merge: &Merge<T>) -> Option<T> {
    values.into_iter().reduce(merge)
}

impl<T> Clone for ResolvingBucket<T> {
    fn clone(&self) -> ResolvingBucket<T> {
        ResolvingBucket { typed: self.typed.clone(), merge: Arc::clone(&self.merge) }
    }
}

impl<T> std::fmt::Debug for ResolvingBucket<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolvingBucket").field("typed", &self.typed).finish_non_exhaustive()
    }
}
