//! A bucket: where requests go, and how they are carried out unless they say otherwise. Each kind of request has a file of
//! its own, with the method of [`Bucket`] that makes it.

use std::sync::Arc;

use driftless_proto::BucketId;
use driftless_proto::key::Key;

use crate::clock::Clock;
use crate::error::RequestError;
use crate::inner::Inner;
use crate::options::{Profile, Settings};
use crate::router::Route;

/// A bucket of a cluster. Cheap to clone.
///
/// One key is for [`get`](Bucket::get) and [`delete`](Bucket::delete), and for five ways to write:
///
/// | | what the key held before |
/// |---|---|
/// | [`update`](Bucket::update), [`try_update`](Bucket::try_update) | is shown to a closure, and replaced by what it makes of it |
/// | [`put`](Bucket::put) with the [`context`](crate::Put::context) of a read | is replaced as far as it was read |
/// | [`create`](Bucket::create) | is left alone, and is an error |
/// | [`put_replacing`](Bucket::put_replacing) | is replaced, and nobody has looked at it |
/// | [`put`](Bucket::put), blind | stays, as a sibling |
///
/// Many are for [`multi_get`](Bucket::multi_get), [`multi_put`](Bucket::multi_put) and [`multi_delete`](Bucket::multi_delete), and
/// [`scan`](Bucket::scan) lists them all. [`typed`](Bucket::typed) is the same bucket for values of one type.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: Arc<str>,
    pub(crate) settings: Arc<Settings>,
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

    /// Its id, and the way to the owners of a key.
    pub(crate) async fn place(&self, key: &Key, clock: Clock) -> Result<(BucketId, Route), RequestError> {
        let (snapshot, bucket) = self.inner.bucket(&self.name, clock).await?;
        let token = snapshot.topology.ring().token(bucket.id.0, key.as_bytes());
        Ok((bucket.id, Route::Token { n: bucket.n, token }))
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}
