//! Counting client requests: one counter per operation and outcome, looked up once.

use std::array;
use std::time::Duration;

use driftless_proto::client::{Request, Response};
use driftless_proto::error;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::{Metrics, Operation, OperationLabels, OutcomeLabel, RequestLabels};

/// Handles of [`Metrics::requests`] and [`Metrics::latency`]: a family's own lookup takes a lock and hashes labels.
pub(crate) struct RequestCounts {
    counters: [[Counter; OUTCOMES.len()]; OPERATIONS.len()],
    latency: [Histogram; OPERATIONS.len()],
}

impl RequestCounts {
    pub(crate) fn new(metrics: &Metrics) -> RequestCounts {
        let counter = |operation, outcome| metrics.requests.get_or_create_owned(&RequestLabels { operation, outcome });
        let latency = |operation| metrics.latency.get_or_create_owned(&OperationLabels { operation }).0;
        RequestCounts {
            counters: array::from_fn(|at| array::from_fn(|outcome| counter(OPERATIONS[at], OUTCOMES[outcome]))),
            latency: array::from_fn(|at| latency(OPERATIONS[at])),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, operation: Operation, outcome: OutcomeLabel, took: Duration) {
        self.counters[operation as usize][outcome as usize].inc();
        self.latency[operation as usize].observe(took.as_secs_f64());
    }
}

/// What a request is counted as.
pub(crate) fn operation(request: &Request) -> Operation {
    match request {
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
        | Request::Restore(_)
        | Request::MergeState(_) => Operation::Other,
    }
}

/// What an answer is counted as.
pub(crate) fn outcome(response: &Response) -> OutcomeLabel {
    match response {
        Response::Failed(failure) => match failure.outcome() {
            error::Outcome::Refused => OutcomeLabel::Refused,
            error::Outcome::Unknown => OutcomeLabel::Unknown,
        },
        _ => OutcomeLabel::Ok,
    }
}

/// In the order of their declaration, so that `as usize` is an index.
const OPERATIONS: [Operation; 5] =
    [Operation::Get, Operation::Put, Operation::Delete, Operation::Scan, Operation::Other];

/// In the order of their declaration, so that `as usize` is an index.
const OUTCOMES: [OutcomeLabel; 3] = [OutcomeLabel::Ok, OutcomeLabel::Refused, OutcomeLabel::Unknown];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_outcome_is_at_its_index() {
        for (at, operation) in OPERATIONS.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
        for (at, outcome) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }
}
