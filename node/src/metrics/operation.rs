//! What client requests are counted as, by what was asked and how it ended.

use driftless_proto::client::{Request, Response};
use driftless_proto::error::Outcome;
use driftless_proto::observed::{Explained, ExplainedResponse, Observed, ObservedRequest};
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A client operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Read a key.
    Get,
    /// Write a value.
    Put,
    /// Write a tombstone.
    Delete,
    /// List keys.
    Scan,
    /// Topology and status.
    Other,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OutcomeLabel {
    /// As asked.
    Ok,
    /// Nothing happened.
    Refused,
    /// It may have happened.
    Unknown,
}

impl Operation {
    /// What a request is counted as.
    pub(crate) fn of(request: &Request) -> Operation {
        match request {
            Request::Observed(Observed { request, .. }) => match request {
                ObservedRequest::Get(_) => Operation::Get,
                ObservedRequest::Put(_) => Operation::Put,
                ObservedRequest::Delete(_) => Operation::Delete,
            },
            Request::Get(_) | Request::GetState(_) => Operation::Get,
            Request::Put(_) => Operation::Put,
            Request::Delete(_) => Operation::Delete,
            Request::Scan(_) => Operation::Scan,
            Request::Topology
            | Request::Status
            | Request::Hints
            | Request::Aae(_)
            | Request::Damaged
            | Request::Drain(_)
            | Request::Cluster(_)
            | Request::Figures
            | Request::Top(_)
            | Request::Restore(_)
            | Request::MergeState(_) => Operation::Other,
        }
    }

    /// As metrics and pages have it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Delete => "delete",
            Operation::Scan => "scan",
            Operation::Other => "other",
        }
    }
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl OutcomeLabel {
    /// What an answer is counted as, also one whose explanation is still around it.
    pub(crate) fn of(response: &Response) -> OutcomeLabel {
        match response {
            Response::Failed(failure)
            | Response::Explained(Explained { response: ExplainedResponse::Failed(failure), .. }) => {
                match failure.outcome() {
                    Outcome::Refused => OutcomeLabel::Refused,
                    Outcome::Unknown => OutcomeLabel::Unknown,
                }
            }
            _ => OutcomeLabel::Ok,
        }
    }

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeLabel::Ok => "ok",
            OutcomeLabel::Refused => "refused",
            OutcomeLabel::Unknown => "unknown",
        }
    }
}

impl EncodeLabelValue for OutcomeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}
