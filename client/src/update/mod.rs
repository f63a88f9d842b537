//! Updates: reading a key, changing it and writing it back, as one request.
//!
//! ```text
//! run      the rounds of an update, and what becomes of siblings
//! decide   what the user's closure is to a round: it gives a change at once or later, of bytes or of decoded values
//! ```

mod decide;
mod run;

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::WriteId;
use driftless_proto::client::Sibling;
use futures::future::BoxFuture;
use tracing::Instrument as _;

use crate::answer::Updated;
use crate::bucket::Bucket;
use crate::builder::request_options;
use crate::change::Change;
use crate::error::{TryUpdateError, UpdateError};
use crate::into_bytes::IntoBytes;
use crate::options::Profile;
use crate::retry::RetryPolicy;

pub(crate) use decide::{Decide, Encoded};
use decide::{Giving, Trying};
pub(crate) use run::Plan;

/// Reads a key, changes it and writes it back. Made by [`Bucket::update`]; awaited, it gives an [`Updated`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Update<F> {
    plan: Plan,
    change: F,
}

/// Reads a key, changes it and writes it back, if the change succeeds. Made by [`Bucket::try_update`]; awaited, it gives an
/// [`Updated`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TryUpdate<F> {
    plan: Plan,
    change: F,
}

impl Bucket {
    /// Reads a key, lets `change` decide what it shall hold, and writes that with the context of the read.
    ///
    /// What is promised: the write replaces exactly what `change` was shown. If another client writes at the same time,
    /// both results stay, as siblings, and the client that updates next is shown both. So once an update has succeeded, its
    /// change is in a live value of the key, or was seen by what replaced that. Two things are asked of `change`:
    ///
    /// - it must make one value of several, and
    /// - it must give the same when its own result is among them: adding an element to a set does, adding one to a
    ///   number does not (it may be called again, see below, and would add it twice). For such a change keep an element
    ///   per addition, or allow one round and merge when reading.
    ///
    /// Where nothing is found and too few of the key's own replicas could be asked to be certain, `change` is called with
    /// nothing all the same, and what it makes of that becomes a sibling of what the others may hold.
    ///
    /// An update is done when its write is acknowledged. If others wrote meanwhile and siblings are left, it tidies up:
    /// after a short random wait it looks again, and merges them with `change` unless somebody else has done so, at most
    /// [`rounds_max`](Update::rounds_max) rounds in all. It gives that up when others write without pause, when it fails or
    /// when the time is over, and succeeds all the same: [`Updated::siblings`](crate::Updated::siblings) tells how many values are left. With a
    /// [resolver](crate::Get::resolve) a reader sees them as one.
    ///
    /// A write that is refused because others have filled the key ([`Refusal::TooManySiblings`](crate::Refusal)) wrote
    /// nothing: the key is read again after a random wait, as long as the update's time lasts. Updates of one key through
    /// one client take turns, so that they do not make siblings of each other.
    ///
    /// A change that can fail, or has to wait for something, is for [`try_update`](Bucket::try_update).
    pub fn update<F, C>(&self, key: impl IntoBytes, change: F) -> Update<F>
    where
        F: FnMut(&[Sibling]) -> C,
        C: Into<Change>,
    {
        Update { plan: Plan::new(self, key.into_bytes()), change }
    }

    /// The same with a change that can fail, and that can wait for something: `change` is given the siblings and returns a
    /// future. If that fails, nothing is written in this round, and the update fails with what it said; if it fails in a round
    /// that only tidies up, the update has succeeded before.
    ///
    /// ```no_run
    /// # async fn example(carts: driftless_client::Bucket) -> Result<(), Box<dyn std::error::Error>> {
    /// use driftless_client::Sibling;
    ///
    /// let done = carts
    ///     .try_update("visits", |siblings: Vec<Sibling>| async move {
    ///         let mut most = 0;
    ///         for sibling in siblings {
    ///             most = most.max(std::str::from_utf8(&sibling.value)?.parse::<u64>()?);
    ///         }
    ///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>((most + 1).to_string())
    ///     })
    ///     .await?;
    /// println!("{:?}", done.value());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `change` is asked again in every round, as that of [`update`](Bucket::update) is, and must bear it. Its future counts
    /// towards the update's time, and is dropped when that is over; while it runs, other updates of the key through this client
    /// wait.
    pub fn try_update<F, Fut, C, E>(&self, key: impl IntoBytes, change: F) -> TryUpdate<F>
    where
        F: FnMut(Vec<Sibling>) -> Fut,
        Fut: Future<Output = Result<C, E>>,
        C: Into<Change>,
    {
        TryUpdate { plan: Plan::new(self, key.into_bytes()), change }
    }
}

impl<F, C> Update<F>
where
    F: FnMut(&[Sibling]) -> C,
    C: Into<Change>,
{
    /// Reads, changes and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`UpdateError`]; its [`outcome`](UpdateError::outcome) tells whether anything may have been written. An update
    /// whose own change is known to be stored succeeds, whatever happens afterwards.
    pub async fn send(self) -> Result<Updated, UpdateError> {
        let span = tracing::debug_span!("update", bucket = %self.plan.bucket.name);
        self.plan.run(Giving(self.change)).instrument(span).await.map_err(TryUpdateError::infallible)
    }
}

impl<F, Fut, C, E> TryUpdate<F>
where
    F: FnMut(Vec<Sibling>) -> Fut,
    Fut: Future<Output = Result<C, E>> + Send,
    C: Into<Change>,
    E: Send,
{
    /// Reads, changes and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`TryUpdateError`]: what the change said, or why the update did not succeed.
    pub async fn send(self) -> Result<Updated, TryUpdateError<E>> {
        let span = tracing::debug_span!("update", bucket = %self.plan.bucket.name);
        self.plan.run(Trying(self.change)).instrument(span).await
    }
}

/// The options that all kinds of updates share.
macro_rules! update_options {
    ($(impl [$($generic:ident),+] $name:ty;)+) => {$(
        impl<$($generic),+> $name {
            /// In how many rounds the closure is called and its result written at most: 4 by default, at least 1. With one
            /// round nothing is tidied up. A round that is refused because the key is full wrote nothing and does not count.
            pub fn rounds_max(mut self, rounds: u32) -> Self {
                self.plan.rounds_max = rounds.max(1);
                self
            }

            /// Names the write of the change, so that an update whose outcome is unknown can be repeated without changing the
            /// key twice. Repeated under its id, it reads anew; if the first write took effect, no second one is made: it is
            /// recognised as the first, and the update succeeds, or it differs from it, and is refused with
            /// [`Refusal::WriteIdReused`](crate::Refusal::WriteIdReused). Of an id that was used for nothing else, that says
            /// that **the change has been made**.
            ///
            /// That holds for as long as a write is remembered: while its value is there, and for five minutes at the node that
            /// took it. A random id is drawn otherwise. What tidies up afterwards is always another write.
            pub fn write_id(mut self, id: WriteId) -> Self {
                self.plan.write_id = Some(id);
                self
            }
        }
    )+};
}

pub(crate) use update_options;

update_options! {
    impl [F] Update<F>;
    impl [F] TryUpdate<F>;
}

request_options! {
    impl [F] Update<F>, plan.profile;
    impl [F] TryUpdate<F>, plan.profile;
}

impl<F, C> IntoFuture for Update<F>
where
    F: FnMut(&[Sibling]) -> C + Send + 'static,
    C: Into<Change> + Send + 'static,
{
    type Output = Result<Updated, UpdateError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<F, Fut, C, E> IntoFuture for TryUpdate<F>
where
    F: FnMut(Vec<Sibling>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<C, E>> + Send + 'static,
    C: Into<Change> + Send + 'static,
    E: Send + 'static,
{
    type Output = Result<Updated, TryUpdateError<E>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
