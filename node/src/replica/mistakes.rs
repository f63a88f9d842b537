//! The planted bugs that take more than a line.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::{ActorId, Siblings};
use driftless_ring::{ArcIndex, PartitionId};

use crate::planted::{Bug, Planted};
use crate::time::Now;

use super::Replica;
use super::record::{self, RecordKey};
use super::stamp::Actor;
use super::store::Store;

impl Planted {
    /// Whether a start goes on with the actors it finds on the disk.
    pub(super) fn keeps_actors(self) -> bool {
        use Bug::{ActorKeptAfterCrash, ActorKeptAfterRollback, ActorKeptInCopy};
        [ActorKeptAfterCrash, ActorKeptAfterRollback, ActorKeptInCopy].into_iter().any(|bug| self.is(bug))
    }
}

/// The actors that an earlier process has left on the disk.
pub(super) fn actors_found<S: Store>(store: &S) -> BTreeMap<PartitionId, Actor> {
    let mut found = BTreeMap::new();
    let read = store.scan(&[0, b'a']..&[0, b'b'], &mut |key, value| {
        if let ([_, _, n, arc @ ..], Some(&[_, ref actor @ ..])) = (key, value.first_chunk::<17>())
            && let (Ok(arc), Some((id, counter))) = (arc.try_into(), actor.split_first_chunk())
        {
            let partition = PartitionId { n: *n, arc: ArcIndex(u32::from_be_bytes(arc)) };
            let counter = counter.try_into().map_or(0, u64::from_be_bytes);
            found.insert(partition, Actor { id: ActorId(u64::from_be_bytes(*id)), counter });
        }
        ControlFlow::Continue(())
    });
    read.expect("a store that was opened just now can be read");
    found
}

impl<S: Store> Replica<S> {
    /// Forgets keys that were deleted a while ago.
    pub(super) fn reap_tombstones(&mut self, now: Now) {
        let mut old = Vec::new();
        let read = self.store.scan(&[1]..&[2], &mut |key, value| {
            let entry = record::decode_entry(key, &value).expect("a store holds what its node wrote");
            let age = Duration::from_millis(now.wall.millis().saturating_sub(entry.header.written_at().millis()));
            if !entry.header.has_values() && !entry.header.is_empty() && age > GRACE {
                old.push(entry);
            }
            ControlFlow::Continue(())
        });
        if read.is_ok() {
            for entry in old {
                let record = RecordKey::new(entry.n, entry.token, entry.bucket, &entry.key);
                if !self.turn.changes.contains_key(&record) {
                    self.turn.put(record, entry.bucket, &entry.key, Arc::new(entry.header), Siblings::new());
                }
            }
        }
    }
}

const GRACE: Duration = Duration::from_millis(20);
