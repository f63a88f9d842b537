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
/// One key is for [`get`](Bucket::get), [`put`](Bucket::put), [`delete`](Bucket::delete) and [`update`](Bucket::update), many
/// are for [`multi_get`](Bucket::multi_get) and [`multi_put`](Bucket::multi_put), and [`scan`](Bucket::scan) lists them all.
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
