//! Writing a value.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::WriteId;
use driftless_proto::client::{self as wire, Request, Response};
use driftless_proto::key::{Key, VALUE_BYTES_MAX};
use futures::future::BoxFuture;

use crate::answer::{Context, IntoContext, Stored};
use crate::bucket::Bucket;
use crate::builder::{await_by_send, request_options};
use crate::clock::Clock;
use crate::codec::EncodeError;
use crate::counts::Operation;
use crate::error::PutError;
use crate::into_bytes::IntoBytes;
use crate::options::{Profile, Settings};
use crate::retry::RetryPolicy;
use crate::told::{self, Answered};
use crate::watched::watched;
use crate::write::Write;

/// Writes a value. Made by [`Bucket::put`]; awaited, it gives a [`Stored`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Put {
    bucket: Bucket,
    key: Bytes,
    value: Result<Bytes, EncodeError>,
    context: Option<Context>,
    write_id: Option<WriteId>,
    explain: bool,
    profile: Profile,
}

impl Bucket {
    /// Writes a value. Without a [`context`](Put::context) it is *blind*: it overwrites nothing, and becomes a
    /// sibling of what is there. **Blind puts of one key pile up**: to write over what is there, give the context of a read, or
    /// use [`put_replacing`](Bucket::put_replacing); to write only if nothing is there, [`create`](Bucket::create).
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Put {
        self.put_encoded(key, Ok(value.into_bytes()))
    }

    pub(crate) fn put_encoded(&self, key: impl IntoBytes, value: Result<Bytes, EncodeError>) -> Put {
        Put {
            bucket: self.clone(),
            key: key.into_bytes(),
            value,
            context: None,
            write_id: None,
            explain: false,
            profile: Profile::new(),
        }
    }
}

impl Put {
    /// What was read and is to be replaced. `None` is a blind put.
    pub fn context(mut self, context: impl IntoContext) -> Put {
        self.context = context.into_context();
        self
    }

    /// Names the write. Writing the same value with the same context and id again, even from another process, makes
    /// no sibling. A random id is drawn otherwise.
    pub fn write_id(mut self, id: WriteId) -> Put {
        self.write_id = Some(id);
        self
    }

    /// Has the coordinator tell what each replica did: see [`Stored::explanation`]; of a failure,
    /// [`RequestError::explanation`](crate::RequestError::explanation). It is waited a little longer for replicas whose answers are not
    /// needed. A node of a release that cannot explain it refuses, before anything is done.
    pub fn explain(mut self) -> Put {
        self.explain = true;
        self
    }

    /// Writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`PutError`]; its [`outcome`](PutError::outcome) tells whether the value may have been stored.
    pub async fn send(self) -> Result<Stored, PutError> {
        let value = self.value?;
        let settings = self.profile.over(&self.bucket.settings);
        let write = Write { explain: self.explain, ..Write::new(self.context, self.write_id) };
        put(&self.bucket, self.key, value, write, &settings, Clock::start(settings.timeout)).await
    }
}

pub(crate) async fn put(
    bucket: &Bucket,
    key: Bytes,
    value: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Stored, PutError> {
    watched(Operation::Put, &bucket.name, settings.trace, pin!(write_value(bucket, key, value, write, settings, clock)))
        .await
}

async fn write_value(
    bucket: &Bucket,
    key: Bytes,
    value: Bytes,
    write: Write,
    settings: &Settings,
    clock: Clock,
) -> Result<Stored, PutError> {
    let key = Key::new(key)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(PutError::ValueTooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
    }
    let (id, route) = bucket.place(&key, clock).await?;
    let request = wire::Put {
        bucket: id,
        key,
        value,
        context: write.context.map(|context| context.0),
        w: settings.w,
        sloppy: settings.sloppy,
        write_id: write.write_id,
    };
    let request = told::observed(Request::Put(request), write.explain, settings.trace);
    let Answered { response, told } = bucket.inner.carry_out_and_tell(&request, route, settings, clock).await?;
    match response {
        Response::Stored(stored) => Ok(Stored::new(stored, told)),
        _ => Err(bucket.inner.misunderstood(&request).into()),
    }
}

request_options! {
    impl [] Put, profile;
}

await_by_send! {
    Put => Result<Stored, PutError>;
}
