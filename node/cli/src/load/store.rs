//! What is written for one record, and what its failure means for the lines after it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, GetError, Outcome, PutError, Refusal, RequestError};
use driftless_node::jsonl::Record;
use driftless_proto::error::Scope;
use driftless_proto::key::SIBLINGS_MAX;

use super::journal::Run;
use crate::exit::{Exit, Failure};
use crate::session::IntoFailure;

/// What has become of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// Values that its key has.
    pub(crate) siblings: usize,
    /// How it got there.
    pub(crate) how: How,
}

/// How a record got where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Its values were there, and were left alone.
    Unchanged,
    /// It was written.
    Written,
    /// It was written, and somebody who had seen it, or is later where the last writer wins, has replaced or deleted it.
    Covered,
}

/// Why a record was not stored.
#[derive(Debug)]
pub(crate) struct NotStored {
    /// In words.
    pub(crate) failure: Failure,
    /// Whose fault it is.
    pub(crate) fault: Fault,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The record's: trying it again would not help.
    Record,
    /// The cluster's: it may be better later.
    Cluster,
    /// The whole load's: every record would fail so.
    Load,
}

/// What a record asks for, in view of what its key holds.
#[derive(PartialEq, Eq, Debug)]
enum Plan {
    /// Nothing: it is there.
    Nothing,
    /// The values with these numbers become siblings of what is there.
    Add(Vec<usize>),
    /// All its values take the place of what is there.
    Replace,
}

impl Plan {
    /// A value that the record has twice is wanted twice; a value that is live is not written again.
    fn of(wanted: &[Bytes], live: &[&Bytes], replace: bool) -> Plan {
        let mut unmatched = live.to_vec();
        let mut missing = Vec::new();
        for (index, value) in wanted.iter().enumerate() {
            match unmatched.iter().position(|live| *live == value) {
                Some(found) => {
                    unmatched.swap_remove(found);
                }
                None => missing.push(index),
            }
        }
        match (replace, missing.is_empty(), unmatched.is_empty()) {
            (false, true, _) | (true, true, true) => Plan::Nothing,
            (false, false, _) => Plan::Add(missing),
            (true, ..) => Plan::Replace,
        }
    }
}

/// Reads through `bucket` what is there, and writes through `puts` what is missing; with `replace` in place of what is there.
pub(crate) async fn store(
    bucket: &Bucket,
    puts: &Bucket,
    (run, line): (Run, u64),
    record: &Record,
    replace: bool,
) -> Result<Stored, NotStored> {
    // If it is not certain that nothing is there, this value may be: put blindly it would be there twice when its owners are back.
    let read = bucket.get(&record.key).await?;
    let live: Vec<&Bytes> = read.values().collect();
    let (missing, context) = match Plan::of(&record.values, &live, replace) {
        Plan::Nothing => return Ok(Stored { siblings: live.len(), how: How::Unchanged }),
        Plan::Add(missing) => (missing, None),
        Plan::Replace => ((0..record.values.len()).collect(), read.context()),
    };
    if record.values.len() > SIBLINGS_MAX {
        return Err(too_many(record.values.len()));
    }
    let mut stored = Stored { siblings: live.len(), how: How::Written };
    for (nth, &index) in missing.iter().enumerate() {
        let value = &record.values[index];
        // The first value replaces what was read; the others are its siblings.
        let context = context.filter(|_| nth == 0);
        let id = run.write_id(line, index, value, context.map(driftless_client::Context::as_bytes));
        let done = puts.put(&record.key, value).context(context).write_id(id).await?;
        stored.siblings = done.siblings() as usize;
        if !done.is_live() {
            stored.how = How::Covered;
        }
    }
    Ok(stored)
}

/// Said before any of them is written: a part of them would be taken for all.
fn too_many(values: usize) -> NotStored {
    let message = format!("the line has {values} values, and a key holds {SIBLINGS_MAX} at most");
    NotStored { failure: Failure::new(Exit::Refused, message), fault: Fault::Record }
}

impl From<GetError> for NotStored {
    fn from(error: GetError) -> NotStored {
        let fault =
            if matches!(error, GetError::NotCertain { .. }) { Fault::Cluster } else { Fault::of(error.request()) };
        NotStored { failure: error.into_failure(), fault }
    }
}

impl From<PutError> for NotStored {
    fn from(error: PutError) -> NotStored {
        let fault = Fault::of(error.request());
        let may_be_there = error.request().filter(|request| request.outcome() == Outcome::Unknown);
        // The write id is this load's business: --resume writes under the same.
        let message = may_be_there.map(|request| format!("{}; it may be stored all the same", request.cause()));
        let failure = error.into_failure();
        let failure = match message {
            Some(message) => Failure::new(failure.exit(), message),
            None => failure,
        };
        NotStored { failure, fault }
    }
}

impl Fault {
    fn of(request: Option<&RequestError>) -> Fault {
        match request {
            // Nothing was sent: the key or the value cannot be one.
            None => Fault::Record,
            Some(request) => request.refusal().map_or(Fault::Cluster, Fault::of_refusal),
        }
    }

    fn of_refusal(refusal: &Refusal) -> Fault {
        match refusal {
            Refusal::NotAllowed { .. } | Refusal::NoSuchBucket | Refusal::BadQuorum(_) => Fault::Load,
            refusal if refusal.scope() == Scope::Request => Fault::Record,
            _ => Fault::Cluster,
        }
    }
}

/// How long a load goes on while the cluster takes nothing.
#[derive(Default)]
pub(crate) struct Patience {
    failing_since: Option<Instant>,
}

impl Patience {
    /// Something was stored, or refused for its own sake: the cluster is there.
    pub(crate) fn heard(&mut self) {
        self.failing_since = None;
    }

    /// Something failed for the cluster's sake. Whether that is enough.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.failing_since.get_or_insert(now)) >= PATIENCE
    }
}

/// A node that is started again serves well within it; requests that time out, after 10 s unless told otherwise, have had two
/// more rounds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(wanted: &[&'static str], live: &[&'static str], replace: bool) -> Plan {
        let bytes = |values: &[&'static str]| values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
        let (wanted, live): (Vec<Bytes>, Vec<Bytes>) = (bytes(wanted), bytes(live));
        Plan::of(&wanted, &live.iter().collect::<Vec<_>>(), replace)
    }

    /// A dump that was loaded into the cluster it came from gave every key two equal values, three after the next.
    #[test]
    fn a_value_that_is_live_is_left_alone() {
        assert_eq!(plan(&["a"], &["a"], false), Plan::Nothing);
        assert_eq!(plan(&["a"], &["b", "a"], false), Plan::Nothing);
        assert_eq!(plan(&["a", "b"], &["b", "a"], false), Plan::Nothing, "in whatever order");
        assert_eq!(plan(&["a", "b"], &["b", "a"], true), Plan::Nothing);
        assert_eq!(plan(&["a", "b", "c"], &["b"], false), Plan::Add(vec![0, 2]));
        assert_eq!(plan(&["a"], &[], false), Plan::Add(vec![0]));
    }

    #[test]
    fn a_value_that_a_line_says_twice_is_wanted_twice() {
        assert_eq!(plan(&["a", "a"], &[], false), Plan::Add(vec![0, 1]));
        assert_eq!(plan(&["a", "a"], &["a"], false), Plan::Add(vec![1]));
        assert_eq!(plan(&["a", "a"], &["a", "a"], false), Plan::Nothing);
        assert_eq!(plan(&["a", "a"], &["a"], true), Plan::Replace);
    }

    #[test]
    fn what_else_is_there_is_replaced_only_if_that_is_asked_for() {
        assert_eq!(plan(&["a"], &["a", "b"], true), Plan::Replace);
        assert_eq!(plan(&["a"], &["a", "a"], true), Plan::Replace, "equal values are siblings too");
        assert_eq!(plan(&["a"], &[], true), Plan::Replace);
        assert_eq!(plan(&["a"], &["b"], false), Plan::Add(vec![0]));
    }

    #[test]
    fn a_failure_is_the_records_the_clusters_or_the_whole_loads() {
        assert_eq!(Fault::of(None), Fault::Record);
        assert_eq!(Fault::of_refusal(&Refusal::TooManySiblings { siblings: 65, bytes: 1 }), Fault::Record);
        assert_eq!(Fault::of_refusal(&Refusal::NotEnoughReplicas { needed: 2, available: 1 }), Fault::Cluster);
        assert_eq!(Fault::of_refusal(&Refusal::StorageFull), Fault::Cluster);
        assert_eq!(Fault::of_refusal(&Refusal::NoSuchBucket), Fault::Load);
    }

    #[test]
    fn patience_ends_when_nothing_is_taken_for_long_enough() {
        let mut patience = Patience::default();
        let start = Instant::now();
        assert!(!patience.is_over(start));
        assert!(!patience.is_over(start + PATIENCE / 2));
        patience.heard();
        assert!(!patience.is_over(start + PATIENCE), "something was stored meanwhile");
        assert!(patience.is_over(start + PATIENCE * 2));
    }
}
