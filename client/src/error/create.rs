//! Why a key was not created.

use driftless_proto::{Outcome, Refusal, WriteId};

use super::{GetError, PutError, RequestError};
use crate::answer::Read;

/// Why a [`create`](crate::Bucket::create) did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The key has a value, or several. Nothing was written.
    #[error("the key exists, with {} value(s); to replace what it holds, write with the context of a read", read.siblings().len())]
    Exists {
        /// What was found.
        read: Box<Read>,
    },
    /// It could not be found out whether the key exists. Nothing was written.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Writing did not succeed.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl CreateError {
    /// Whether the value may have been stored.
    pub fn outcome(&self) -> Outcome {
        match self {
            CreateError::Exists { .. } | CreateError::Get(_) => Outcome::Refused,
            CreateError::Put(error) => error.outcome(),
        }
    }

    /// The id of the write, if one was made. Created again under it, a key whose creation took effect
    /// [exists](CreateError::Exists).
    pub fn write_id(&self) -> Option<WriteId> {
        match self {
            CreateError::Exists { .. } | CreateError::Get(_) => None,
            CreateError::Put(error) => error.write_id(),
        }
    }

    /// Why the request did not succeed, if its arguments were in order and the key does not exist.
    pub fn request(&self) -> Option<&RequestError> {
        match self {
            CreateError::Exists { .. } => None,
            CreateError::Get(error) => error.request(),
            CreateError::Put(error) => error.request(),
        }
    }

    /// The cluster's reason, if it refused the request.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.request().and_then(RequestError::refusal)
    }
}
