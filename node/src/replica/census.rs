//! How many keys there are: counted from the store after a start, a few at a time, then kept in step with every batch.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use driftless_proto::{Header, Topology};
use driftless_ring::PartitionId;

use crate::metrics::Metrics;
use crate::time::Instant;

use super::record::{self, RecordKey};
use super::store::{Store, StoreError};
use super::turn::Change;

/// What is still to be counted: partitions in order, the first one from a cursor on.
pub(super) struct Census {
    uncounted: VecDeque<PartitionId>,
    /// The first key of the first uncounted partition that was not counted yet.
    cursor: Vec<u8>,
    next_step: Instant,
}

impl Census {
    /// Nothing is counted yet.
    pub(super) fn new(owned: impl Iterator<Item = PartitionId>, now: Instant, metrics: &Metrics) -> Census {
        let mut uncounted: Vec<_> = owned.collect();
        uncounted.sort_unstable();
        metrics.partitions_uncounted.inc_by(uncounted.len() as i64);
        Census { uncounted: uncounted.into(), cursor: Vec::new(), next_step: now }
    }

    /// Counts some more keys, if it is time for that.
    pub(super) fn step<S: Store>(
        &mut self,
        now: Instant,
        store: &S,
        topology: &Topology,
        metrics: &Metrics,
    ) -> Result<(), StoreError> {
        if now < self.next_step {
            return Ok(());
        }
        self.next_step = now + STEP_INTERVAL;
        let mut budget = STEP_KEYS;
        while budget > 0
            && let Some(&partition) = self.uncounted.front()
        {
            let mut range = record::arc_range(partition, topology.ring().partitions());
            if self.cursor > range.start {
                range.start.clone_from(&self.cursor);
            }
            let mut corrupt = None;
            let (mut keys, mut bytes) = (0, 0);
            store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
                if budget == 0 {
                    self.cursor = key.to_vec();
                    return ControlFlow::Break(());
                }
                budget -= 1;
                match record::decode_header(&value) {
                    Ok(header) => {
                        let (k, b) = weigh(&header);
                        keys += k;
                        bytes += b;
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        corrupt = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = corrupt {
                return Err(error);
            }
            metrics.keys.inc_by(keys);
            metrics.value_bytes.inc_by(bytes);
            if budget > 0 {
                self.uncounted.pop_front();
                self.cursor.clear();
                metrics.partitions_uncounted.dec();
            }
        }
        Ok(())
    }

    /// A batch has changed a key. What was not counted yet will be seen later as it is then.
    pub(super) fn count(&self, record: &RecordKey, change: &Change, topology: &Topology, metrics: &Metrics) {
        let (n, token) = record.position();
        let partition = topology.ring().partition(n, token);
        let counted = match self.uncounted.front() {
            None => true,
            Some(first) if *first == partition => record.as_bytes() < self.cursor.as_slice(),
            Some(_) => self.uncounted.binary_search(&partition).is_err(),
        };
        if counted {
            let (before, after) = (weigh(&change.stored), weigh(&change.header));
            metrics.keys.inc_by(after.0 - before.0);
            metrics.value_bytes.inc_by(after.1 - before.1);
        }
    }

    /// When to go on.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.uncounted.is_empty()).then_some(self.next_step)
    }
}

/// One key if it has a value, and the bytes of its values.
fn weigh(header: &Header) -> (i64, i64) {
    (header.has_values().into(), header.value_bytes() as i64)
}

/// Keys per step: under a millisecond of the shard's time.
const STEP_KEYS: usize = 500;

/// Pause between steps: a million keys take four seconds and a fifth of a core.
const STEP_INTERVAL: Duration = Duration::from_millis(2);
