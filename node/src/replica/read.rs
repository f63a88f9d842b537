//! Reading: what a replica holds of a key, through the turn's batch.

use std::sync::Arc;

use driftless_proto::{BucketId, Conflict, Durability, Header, Key, Siblings};
use driftless_ring::NodeId;

use crate::peer::{Read, Reply, RequestId, State, Want};
use crate::planted::Bug;
use crate::shard::Shard;

use super::located::Located;
use super::record::{self, HintKey, RecordError, RecordKey};
use super::store::Store;
use super::turn::{StoredHint, Waiting, Waits};
use super::{Replica, RequestError};

/// What is held of a key, without values as far as that is enough.
pub(super) struct MergedHeader {
    /// The own record.
    pub(super) own: Arc<Header>,
    /// The merge of everything, where there are copies for others too.
    pub(super) merged: Option<(Header, Siblings)>,
}

impl MergedHeader {
    pub(super) fn header(&self) -> &Header {
        self.merged.as_ref().map_or(&*self.own, |(header, _)| header)
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn read(&mut self, shard: &Shard, from: NodeId, id: RequestId, read: Read) -> Result<(), RequestError> {
        shard.check_counted(read.counted_for)?;
        let located = self.locate(shard, read.bucket, &read.key)?;
        let mut known = self.merged_header(shard, &located)?;
        if read.durable && located.is_mine {
            // A strict read counts slots, and what fills an owner's is its record.
            known.merged = None;
        }
        let state = match read.want {
            Want::Full => State::Full(self.merged_state(shard, &located, &known)?),
            Want::Header => State::Header(known.header().clone()),
        };
        let reply = Reply::State(state);
        let durability = if read.durable { located.bucket.durability } else { Durability::Buffered };
        if self.turn.has_changes() && !shard.planted.is(Bug::ReadBeforeApplied) {
            self.turn.wait(Waiting { to: from, id, waits: Waits::Read { reply, durability, again: read } });
        } else {
            self.reply_once(shard, durability, from, id, reply);
        }
        Ok(())
    }

    /// Whether what is wanted of a key's record can be had without waiting for a disk. If not, it is being fetched.
    pub(crate) fn prepare(&self, shard: &Shard, bucket: BucketId, key: &Key, want: Want) -> bool {
        // What is no key of this shard is refused without a look.
        let Ok(located) = Located::new(shard, bucket, key) else { return true };
        let record = located.record.as_bytes();
        (want == Want::Header && self.headers.contains(record)) || self.store.prepare(record)
    }

    /// Where a key is, unless its record is damaged.
    pub(super) fn locate<'a>(
        &self,
        shard: &'a Shard,
        bucket: BucketId,
        key: &Key,
    ) -> Result<Located<'a>, RequestError> {
        let located = Located::new(shard, bucket, key)?;
        self.check_sound(&located.record)?;
        Ok(located)
    }

    /// What is held of a key, without values: from this turn's batch, the cache, or the store.
    pub(super) fn header(&mut self, shard: &Shard, record: &RecordKey) -> Result<Arc<Header>, RecordError> {
        if let Some(change) = self.turn.changes.get(record)
            && !shard.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.header.clone());
        }
        if let Some(header) = self.headers.get(record.as_bytes()) {
            shard.metrics.header_hits.inc();
            return Ok(header);
        }
        shard.metrics.header_misses.inc();
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(shard, record) {
            return Ok(Arc::new(state.header()));
        }
        match shard.planted.forgive(self.store.get(record.as_bytes()))? {
            None => Ok(Arc::default()),
            Some(value) => {
                let header = Arc::new(shard.planted.forgive(record::read_header(record, &value))?);
                self.headers.insert(record.to_bytes(), header.clone());
                Ok(header)
            }
        }
    }

    /// What is held of a key: from this turn's batch, or the store.
    pub(super) fn siblings(&self, shard: &Shard, record: &RecordKey) -> Result<Siblings, RecordError> {
        if let Some(change) = self.turn.changes.get(record)
            && !shard.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.siblings.clone());
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(shard, record) {
            return Ok(state);
        }
        let stored = shard.planted.forgive(self.store.get(record.as_bytes()))?;
        stored.map_or_else(|| Ok(Siblings::new()), |value| shard.planted.forgive(record::read_state(record, value)))
    }

    /// What is held of a key: the own record, and the copies for others. At an owner there are none unless an older
    /// ring has left some.
    pub(super) fn merged_header(&mut self, shard: &Shard, located: &Located<'_>) -> Result<MergedHeader, RecordError> {
        let own = self.own_header(shard, located)?;
        if located.is_mine && !self.hints.may_stray() {
            return Ok(MergedHeader { own, merged: None });
        }
        let mut merged: Option<Siblings> = None;
        for target in self.holders(shard, &located.record) {
            if let (Some(StoredHint::Copy { siblings, .. }), _) =
                self.stored_hint(shard, &HintKey::new(target, &located.record))?
            {
                match &mut merged {
                    Some(merged) => merged.merge(&siblings),
                    None => merged = Some(siblings),
                }
            }
        }
        let Some(mut merged) = merged else { return Ok(MergedHeader { own, merged: None }) };
        if !own.is_empty() {
            merged.merge(&self.siblings(shard, &located.record)?);
        }
        if located.bucket.conflict == Conflict::Lww {
            merged.keep_last();
        }
        Ok(MergedHeader { own, merged: Some((merged.header(), merged)) })
    }

    /// The same with values.
    pub(super) fn merged_state(
        &self,
        shard: &Shard,
        located: &Located<'_>,
        known: &MergedHeader,
    ) -> Result<Siblings, RecordError> {
        match &known.merged {
            Some((_, siblings)) => Ok(siblings.clone()),
            None if !known.own.is_empty() => self.siblings(shard, &located.record),
            None => Ok(Siblings::new()),
        }
    }

    /// What the own record says. A node that owns the key no more reads it as long as it is there: a stamp that did not would hide
    /// dots of its own actor from everybody.
    fn own_header(&mut self, shard: &Shard, located: &Located<'_>) -> Result<Arc<Header>, RecordError> {
        if !located.is_mine && self.check_sound(&located.record).is_err() {
            return Ok(Arc::default());
        }
        self.header(shard, &located.record)
    }
}
