//! Reading what takes the place of a record that is damaged here, from the other owners.

use driftless_proto::{BucketId, Key};

use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::get::{Get, ReadOptions};
use super::machine::Machine;
use super::plan::Plan;
use super::{Asker, Coordinator, Open, Question};

impl Coordinator {
    /// Reads a key whose record is damaged here from the other owners: from as many as must have seen, one of them at
    /// least, whatever w of all have acknowledged; and no fewer than a read needs, for w may have been less before.
    pub(crate) fn restore(&mut self, shard: &Shard, now: Now, bucket: BucketId, key: Key, deadline: Instant) {
        let Ok(plan) = Plan::of_key(shard, &self.up, bucket, &key).map(Plan::of_others) else {
            return;
        };
        let quorum = plan.bucket.quorum;
        let missed = (quorum.n() - quorum.w()).max(quorum.r() - 1);
        let enough = if shard.planted.is(Bug::RestoredFromTooFew) { missed } else { missed + 1 };
        let options = ReadOptions {
            r: enough.min(quorum.n() - 1).max(1),
            held_by: 0,
            durable: false,
            ask_all: true,
            explain: false,
            sloppy: false,
            deadline,
        };
        // Too few can be reached: the replica asks again.
        if let Ok(get) = Get::start(plan, bucket, key.clone(), options, &self.latency) {
            self.open(shard, now, Asker::Replica, None, Machine::Get(get), Question::Restore { bucket, key }, deadline);
        }
    }

    /// The record has been restored. What other owners that were asked for it still answer was so by then: if the record is
    /// damaged once more, that would be too old to restore it from.
    pub(crate) fn end_restoring(&mut self, shard: &Shard, bucket: BucketId, key: &Key) {
        let is_it =
            |open: &Open| matches!(&open.question, Question::Restore { bucket: b, key: k } if (*b, k) == (bucket, key));
        let over: Vec<_> = self.requests.iter().filter(|(_, open)| is_it(open)).map(|(id, _)| *id).collect();
        if over.is_empty() || !shard.planted.is(Bug::RestoringNotEnded) {
            over.into_iter().for_each(|id| self.close(shard, id));
        }
    }
}
