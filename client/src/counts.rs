//! What the client counts, for whoever has installed a recorder of the crate `metrics`. Without the feature of that name, nothing.
//!
//! Names and labels are a promise: they stand in docs/develop.md, and a test compares. No label has more than a handful of values.

/// A request that is under way, as far as it is counted.
pub(crate) struct Counted {
    operation: Operation,
    #[cfg(feature = "metrics")]
    started: std::time::Instant,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Get,
    Put,
    Delete,
    Scan,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Ok,
    /// Nothing happened.
    Refused,
    /// It may have happened.
    Unknown,
    /// Nothing happened, for want of time.
    Deadline,
}

/// What is counted beside requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occasion {
    /// An attempt was begun.
    Attempt,
    /// It was begun beside one that was overdue.
    Hedge,
    /// It is made because another one had failed.
    Retry,
    ConnectionOpened,
    ConnectionLost,
    /// A node was asked for the topology, and gave it.
    TopologyFetched,
}

#[cfg(feature = "metrics")]
impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Delete => "delete",
            Operation::Scan => "scan",
        }
    }
}

impl Ended {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ended::Ok => "ok",
            Ended::Refused => "refused",
            Ended::Unknown => "unknown",
            Ended::Deadline => "deadline",
        }
    }
}

impl Counted {
    pub(crate) fn begin(operation: Operation) -> Counted {
        Counted {
            operation,
            #[cfg(feature = "metrics")]
            started: std::time::Instant::now(),
        }
    }

    pub(crate) fn ended(self, ended: Ended) {
        #[cfg(feature = "metrics")]
        on::request(self.operation, ended, self.started.elapsed());
        #[cfg(not(feature = "metrics"))]
        let _ = (self.operation, ended);
    }
}

/// Something happened once more.
pub(crate) fn count(occasion: Occasion) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(on::name(occasion)).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = occasion;
}

/// A read found so many values.
pub(crate) fn count_siblings(siblings: usize) {
    #[cfg(feature = "metrics")]
    ::metrics::histogram!(on::SIBLINGS).record(siblings as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = siblings;
}

/// Says what the names mean, to the recorder that is installed.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    on::describe();
}

#[cfg(feature = "metrics")]
mod on {
    use std::time::Duration;

    use ::metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

    use super::{Ended, Occasion, Operation};

    pub(super) const SIBLINGS: &str = "driftless_client_siblings_per_read";
    const REQUESTS: &str = "driftless_client_requests_total";
    const SECONDS: &str = "driftless_client_request_seconds";

    pub(super) fn request(operation: Operation, ended: Ended, took: Duration) {
        let operation = operation.name();
        counter!(REQUESTS, "operation" => operation, "outcome" => ended.name()).increment(1);
        histogram!(SECONDS, "operation" => operation).record(took);
    }

    pub(super) fn name(occasion: Occasion) -> &'static str {
        match occasion {
            Occasion::Attempt => "driftless_client_attempts_total",
            Occasion::Hedge => "driftless_client_hedges_total",
            Occasion::Retry => "driftless_client_retries_total",
            Occasion::ConnectionOpened => "driftless_client_connections_opened_total",
            Occasion::ConnectionLost => "driftless_client_connections_lost_total",
            Occasion::TopologyFetched => "driftless_client_topology_fetches_total",
        }
    }

    pub(super) fn describe() {
        describe_counter!(REQUESTS, Unit::Count, "requests that have ended");
        describe_histogram!(
            SECONDS,
            Unit::Seconds,
            "from a request's first moment to its end, with all attempts and waits"
        );
        describe_histogram!(SIBLINGS, Unit::Count, "values that a read found");
        let told = [
            (Occasion::Attempt, "attempts begun, each at one node"),
            (Occasion::Hedge, "attempts begun beside one that was slow or silent"),
            (Occasion::Retry, "attempts begun because another one had failed"),
            (Occasion::ConnectionOpened, "connections to nodes that were established"),
            (Occasion::ConnectionLost, "connections that ended, other than by this client's wish"),
            (Occasion::TopologyFetched, "times that a node gave the ring and the buckets"),
        ];
        for (occasion, meaning) in told {
            describe_counter!(name(occasion), Unit::Count, meaning);
        }
    }
}
