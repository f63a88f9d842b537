//! Removing a key.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::WriteId;
use driftless_proto::client::{self as wire, Request, Response};
use driftless_proto::key::Key;
use futures::future::BoxFuture;

use crate::answer::{Context, Deleted, IntoContext};
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::counts::Operation;
use crate::error::DeleteError;
use crate::into_bytes::IntoBytes;
use crate::options::{Profile, Settings};
use crate::retry::RetryPolicy;
use crate::told::{self, Answered};
use crate::watched::watched;
use crate::write::Write;

/// Removes a key. Made by [`Bucket::delete`]; awaited, it gives a [`Deleted`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Delete {
    bucket: Bucket,
    key: Bytes,
    context: Option<Context>,
    write_id: Option<WriteId>,
    explain: bool,
    profile: Profile,
}

impl Bucket {
    /// Removes a key. Without a [`context`](Delete::context) the node reads first, and removes what it saw.
    pub fn delete(&self, key: impl IntoBytes) -> Delete {
        Delete {
            bucket: self.clone(),
            key: key.into_bytes(),
            context: None,
            write_id: None,
            explain: false,
            profile: Profile::new(),
        }
    }
}

impl Delete {
    /// What was read and is to be removed. `None` has the node read first.
    pub fn context(mut self, context: impl IntoContext) -> Delete {
        self.context = context.into_context();
        self
    }

    /// Names the delete, as [`Put::write_id`](crate::Put::write_id) does. Repeated under its id it is the same delete: what was
    /// written since the first attempt took effect stays.
    pub fn write_id(mut self, id: WriteId) -> Delete {
        self.write_id = Some(id);
        self
    }

    /// Has the coordinator tell what each replica did: see [`Deleted::explanation`]; of a failure,
    /// [`RequestError::explanation`](crate::RequestError::explanation). It is waited a little longer for replicas whose answers are not
    /// needed. A node of a release that cannot explain it refuses, before anything is done.
    pub fn explain(mut self) -> Delete {
        self.explain = true;
        self
    }

    /// Removes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`DeleteError`]; its [`outcome`](DeleteError::outcome) tells whether the key may have been removed.
    pub async fn send(self) -> Result<Deleted, DeleteError> {
        let settings = self.profile.over(&self.bucket.settings);
        let write = Write { explain: self.explain, ..Write::new(self.context, self.write_id) };
        delete(&self.bucket, self.key, write, &settings, Clock::start(settings.timeout)).await
    }
}

pub(crate) async fn delete(
    bucket: &Bucket,
    key: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Deleted, DeleteError> {
    watched(Operation::Delete, &bucket.name, settings.trace, pin!(write_tombstone(bucket, key, write, settings, clock)))
        .await
}

async fn write_tombstone(
    bucket: &Bucket,
    key: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Deleted, DeleteError> {
    let key = Key::new(key)?;
    let (id, route) = bucket.place(&key, clock).await?;
    let request = wire::Delete {
        bucket: id,
        key,
        context: write.context.map(|context| context.0),
        r: settings.r,
        w: settings.w,
        sloppy: settings.sloppy,
        write_id: write.write_id,
    };
    let request = told::observed(Request::Delete(request), write.explain, settings.trace);
    let Answered { response, told } = bucket.inner.carry_out_and_tell(&request, route, settings, clock).await?;
    match response {
        Response::Deleted(deleted) => match deleted.basis.filter(|basis| !deleted.existed && !basis.is_enough()) {
            Some(basis) => {
                let (primaries, needed) = (basis.primaries, basis.needed);
                Err(DeleteError::NotCertain { primaries, needed, deleted: Deleted::new(&deleted, told) })
            }
            None => Ok(Deleted::new(&deleted, told)),
        },
        _ => Err(bucket.inner.misunderstood(&request).into()),
    }
}

request_options! {
    impl [] Delete, profile;
}

await_by_send! {
    Delete => Result<Deleted, DeleteError>;
}
