//! Counting client requests: one counter per operation and outcome, looked up once.

use std::array;
use std::time::Duration;

use driftless_proto::figures::Answered;
use prometheus_client::metrics::counter::Counter;

use crate::metrics::{LatencySeconds, Metrics, Operation, OperationLabels, OutcomeLabel, RequestLabels};

/// Handles of [`Metrics::requests`] and [`Metrics::latency`]: a family's own lookup takes a lock and hashes labels.
pub(crate) struct RequestCounts {
    counters: [[Counter; OUTCOMES.len()]; OPERATIONS.len()],
    latency: [LatencySeconds; OPERATIONS.len()],
}

impl RequestCounts {
    pub(crate) fn new(metrics: &Metrics) -> RequestCounts {
        let counter = |operation, outcome| metrics.requests.get_or_create_owned(&RequestLabels { operation, outcome });
        let latency = |operation| metrics.latency.get_or_create_owned(&OperationLabels { operation });
        RequestCounts {
            counters: array::from_fn(|at| array::from_fn(|outcome| counter(OPERATIONS[at], OUTCOMES[outcome]))),
            latency: array::from_fn(|at| latency(OPERATIONS[at])),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, operation: Operation, outcome: OutcomeLabel, took: Duration) {
        self.counters[operation as usize][outcome as usize].inc();
        self.latency[operation as usize].observe(took);
    }
}

/// All of it as it stands, for people.
pub(crate) fn answered(metrics: &Metrics) -> Vec<Answered> {
    let count = |operation, outcome| metrics.requests.get_or_create(&RequestLabels { operation, outcome }).get();
    OPERATIONS
        .into_iter()
        .map(|operation| {
            let took = metrics.latency.get_or_create(&OperationLabels { operation }).took();
            let len = took.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
            Answered {
                operation: operation.name().to_owned(),
                ok: count(operation, OutcomeLabel::Ok),
                refused: count(operation, OutcomeLabel::Refused),
                unknown: count(operation, OutcomeLabel::Unknown),
                took: took[..len].to_vec(),
            }
        })
        .collect()
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
    fn what_was_answered_is_told_by_operation_without_the_empty_end() {
        let metrics = Metrics::default();
        let counts = RequestCounts::new(&metrics);
        counts.answered(Operation::Put, OutcomeLabel::Ok, Duration::from_micros(120));
        counts.answered(Operation::Put, OutcomeLabel::Unknown, Duration::from_micros(40));
        let all = answered(&metrics);
        assert_eq!(
            all.iter().map(|one| &one.operation[..]).collect::<Vec<_>>(),
            ["get", "put", "delete", "scan", "other"]
        );
        assert_eq!((all[1].ok, all[1].refused, all[1].unknown, &all[1].took[..]), (1, 0, 1, &[1, 0, 1][..]));
        assert!(all[0].took.is_empty());
    }

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
