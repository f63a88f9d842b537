//! What becomes of hints, as batches and messages show it: for the coverage, and to know when to judge.

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless_node::peer::{Body, Message, Purpose, Request};
use driftless_node::replica::record::{self, HintKey};
use driftless_node::replica::store::Batch;
use driftless_ring::NodeId;

use super::coverage::Coverage;
use super::history::Slot;

/// The hints that are on their way, and the markers among them.
#[derive(Debug, Default)]
pub struct HintWatch {
    markers: BTreeSet<(usize, Bytes)>,
    under_way: BTreeSet<(usize, NodeId, Slot)>,
}

impl HintWatch {
    /// A message is about to travel.
    pub fn sent(&mut self, from: usize, to: NodeId, message: &Message) {
        if let Body::Request { request: Request::Merge(merge), .. } = &message.body
            && merge.purpose == Purpose::Handoff
        {
            self.under_way.insert((from, to, (merge.bucket, merge.key.clone())));
        }
    }

    /// A batch was applied. Answers the keys whose hints it has removed.
    pub fn applied(&mut self, node: usize, batch: &Batch, coverage: &mut Coverage) -> BTreeSet<Slot> {
        let mut removed = BTreeSet::new();
        for (key, value) in batch.changes.iter().filter(|(key, _)| record::is_hint(key)) {
            let hint = HintKey::from_stored(key).expect("a store holds what its node wrote");
            let slot = hint.record().bucket_and_key().expect("a store holds what its node wrote");
            let was_under_way = self.under_way.remove(&(node, hint.target(), slot.clone()));
            match value {
                None => {
                    let was_marker = self.markers.remove(&(node, key.clone()));
                    coverage.add("owed markers delivered", u64::from(was_marker));
                    removed.insert(slot);
                }
                Some(value) => {
                    coverage.add("hints changed while under way", u64::from(was_under_way));
                    if record::is_marker(value) {
                        self.markers.insert((node, key.clone()));
                    }
                }
            }
        }
        removed
    }
}
