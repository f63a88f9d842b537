//! Why an update did not succeed.

use std::convert::Infallible;
use std::fmt;

use driftless_proto::{Outcome, Refusal, WriteId};

use super::{DeleteError, GetError, PutError, RequestError};

/// Why an update, or a [`put_replacing`](crate::Bucket::put_replacing), did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// Reading the key did not succeed.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Writing the new value did not succeed.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Removing the key did not succeed.
    #[error(transparent)]
    Delete(#[from] DeleteError),
}

/// Why an update whose change can fail did not succeed. `E` is what the change says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryUpdateError<E> {
    /// The change failed. This round has written nothing.
    Change {
        /// What it said.
        error: E,
        /// An earlier round whose outcome is unknown: it may have written.
        earlier: Option<UpdateError>,
    },
    /// Reading or writing did not succeed.
    Update(UpdateError),
}

impl UpdateError {
    /// Whether anything may have been written or removed, by this round or an earlier one. An update that knows its own
    /// change to be stored has succeeded, so none of its errors says that.
    pub fn outcome(&self) -> Outcome {
        // Also of a read: it may have been the second round's.
        self.request().map_or(Outcome::Refused, RequestError::outcome)
    }

    /// Why the request did not succeed, if its arguments were in order.
    pub fn request(&self) -> Option<&RequestError> {
        match self {
            UpdateError::Get(error) => error.request(),
            UpdateError::Put(error) => error.request(),
            UpdateError::Delete(error) => error.request(),
        }
    }

    /// The cluster's reason, if it refused the request.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.request().and_then(RequestError::refusal)
    }

    /// The id of the last write that may have taken effect, or else of the last write that was made.
    pub fn write_id(&self) -> Option<WriteId> {
        self.request().and_then(RequestError::write_id)
    }

    /// An earlier write of this update may have taken effect.
    pub(crate) fn after_unknown(self, id: WriteId) -> UpdateError {
        match self {
            UpdateError::Get(GetError::Request(error)) => GetError::Request(error.after_unknown(id)).into(),
            UpdateError::Put(PutError::Request(error)) => PutError::Request(error.after_unknown(id)).into(),
            UpdateError::Delete(DeleteError::Request(error)) => DeleteError::Request(error.after_unknown(id)).into(),
            in_the_arguments => in_the_arguments,
        }
    }
}

impl<E> TryUpdateError<E> {
    pub(crate) fn change(error: E) -> TryUpdateError<E> {
        TryUpdateError::Change { error, earlier: None }
    }

    /// Whether anything may have been written or removed, as [`UpdateError::outcome`] says it.
    pub fn outcome(&self) -> Outcome {
        self.update().map_or(Outcome::Refused, UpdateError::outcome)
    }

    /// The id of the last write that may have taken effect, or else of the last write that was made.
    pub fn write_id(&self) -> Option<WriteId> {
        self.update().and_then(UpdateError::write_id)
    }

    /// Why reading or writing did not succeed, in this round or an earlier one.
    pub fn update(&self) -> Option<&UpdateError> {
        match self {
            TryUpdateError::Change { earlier, .. } => earlier.as_ref(),
            TryUpdateError::Update(error) => Some(error),
        }
    }
}

impl TryUpdateError<Infallible> {
    pub(crate) fn infallible(self) -> UpdateError {
        match self {
            TryUpdateError::Change { error, .. } => match error {},
            TryUpdateError::Update(error) => error,
        }
    }
}

impl<E> From<UpdateError> for TryUpdateError<E> {
    fn from(error: UpdateError) -> TryUpdateError<E> {
        TryUpdateError::Update(error)
    }
}

impl<E> From<GetError> for TryUpdateError<E> {
    fn from(error: GetError) -> TryUpdateError<E> {
        TryUpdateError::Update(error.into())
    }
}

impl<E> From<PutError> for TryUpdateError<E> {
    fn from(error: PutError) -> TryUpdateError<E> {
        TryUpdateError::Update(error.into())
    }
}

impl<E: fmt::Display> fmt::Display for TryUpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryUpdateError::Change { error, earlier: None } => write!(f, "the change failed: {error}"),
            TryUpdateError::Change { error, earlier: Some(earlier) } => {
                write!(f, "the change failed: {error}; before that: {earlier}")
            }
            TryUpdateError::Update(error) => error.fmt(f),
        }
    }
}

/// What the change said is in the text and in the variant, whether it is an error or not: `String`s and boxed errors are none.
impl<E: fmt::Debug + fmt::Display> std::error::Error for TryUpdateError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.update().and_then(std::error::Error::source)
    }
}
