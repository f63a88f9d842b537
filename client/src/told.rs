//! What is told of a request beside its answer, if it was made with `explain`.

use driftless_proto::TraceContext;
use driftless_proto::client::{Request, Response};
use driftless_proto::observed::{Explanation, Profile};
use serde::{Deserialize, Serialize};

use crate::watched;

/// An attempt that was not the one that gave the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tried {
    /// Name of the node, or its address.
    pub node: String,
    /// Why another attempt was made.
    pub why: String,
}

/// What is told beside an answer.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) explanation: Option<Box<Explanation>>,
    pub(crate) tried: Vec<Tried>,
}

/// An answer, and what is told beside it.
pub(crate) struct Answered {
    pub(crate) response: Response,
    pub(crate) told: Told,
}

/// The request, in an envelope if it is to be explained, or has a place in a trace.
pub(crate) fn observed(request: Request, explain: bool, trace: Option<TraceContext>) -> Request {
    request.observed(Profile { explain, trace: watched::trace(trace) })
}

/// Whether a request is to be explained.
pub(crate) fn is_explained(request: &Request) -> bool {
    matches!(request, Request::Observed(observed) if observed.profile.explain)
}
