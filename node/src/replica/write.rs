//! A write: the node's own coordinator has a new write stamped, and held for the slot that its answer fills.

use driftless_proto::{ActorId, Conflict, Context, Siblings, VersionVector};
use driftless_ring::PartitionId;

use crate::peer::{Reply, RequestId};
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Now;

use super::hints::Capacity;
use super::local::{Made, Stamped, Write};
use super::located::Located;
use super::record::RecordError;
use super::stamp;
use super::store::Store;
use super::turn::{Waiting, Waits};
use super::{Output, Replica, RequestError};

impl<S: Store> Replica<S> {
    pub(super) fn write(&mut self, shard: &Shard, now: Now, id: RequestId, write: Write) -> Result<(), RequestError> {
        let mut located = Located::new(shard, write.bucket, &write.key)?;
        let capacity = self.capacity(shard, &mut located, write.hint_for)?;
        let mut known = self.merged_header(shard, &located)?;
        if known.merged.is_some() && shard.planted.is(Bug::StampWithoutHints) {
            known.merged = None;
        }
        let fingerprint = self.write_ids.fingerprint(&located.record, &write);
        if let Some(dot) = self.write_ids.recognise(now.instant, known.header(), &fingerprint)?
            && !shard.planted.is(Bug::RetryDuplicates)
        {
            shard.metrics.retries_recognised.inc();
            if !known.header().covers(dot) && !shard.planted.is(Bug::RememberedIdWithoutCover) {
                self.reply(shard.node, id, Reply::Lost);
                return Ok(());
            }
            let siblings = self.merged_state(shard, &located, &known)?;
            let made = Made::Stamped(Stamped { dot, again: true, siblings: siblings.clone() });
            #[cfg(feature = "planted-bugs")]
            if self.forgets_to_hold(shard, &located.record, capacity, &siblings)? {
                return self.wait_for_write(shard, id, &located, &write, capacity, made);
            }
            self.hold(shard, &located, &write, capacity, siblings)?;
            return self.wait_for_write(shard, id, &located, &write, capacity, made);
        }
        stamp::check_actors(known.header(), &write.context)?;
        self.witness(shard, located.partition, &write.context.vv);
        let header = known.header();
        if !stamp::is_due(located.bucket, header, &write) {
            let covered = stamp::covered(header, &write);
            self.hold(shard, &located, &write, capacity, covered.siblings.clone())?;
            return self.wait_for_write(shard, id, &located, &write, capacity, Made::Covered(covered));
        }
        let Located { bucket, partition, .. } = located;
        let nothing = Context::default();
        let is_ahead = write.context.written_at > now.wall.max(header.written_at());
        let read = if is_ahead && shard.planted.is(Bug::StampBeforeContext) { &nothing } else { &write.context };
        let written_at = stamp::written_at(now.wall, header, read);
        shard.metrics.stamps_ahead.inc_by(stamp::is_ahead(written_at, now.wall, shard.limits.clock_off_max).into());
        stamp::check_room(header, &write, &shard.limits)?;

        let mut siblings = if header.survivors(&write.context.vv).next().is_none() {
            Siblings::from_parts(header.vv().clone(), Vec::new()).expect("no live write needs cover")
        } else {
            self.merged_state(shard, &located, &known)?
        };
        self.turn.actors_before.entry(partition).or_insert_with(|| self.actors.get(partition));
        let mut dot = self.actors.next_dot(partition);
        while siblings.covers(dot) || write.context.vv.covers(dot) {
            // The client or peer that made that up may have named an actor before it was drawn here.
            self.distrust(shard, partition, dot.actor);
            dot = self.actors.next_dot(partition);
        }
        let counter_read = write.context.vv.counter(dot.actor) + 1;
        if counter_read != dot.counter && shard.planted.is(Bug::DotFromContext) {
            dot.counter = counter_read;
        }
        let replaces = || siblings.live().iter().any(|(dot, _)| write.context.vv.covers(*dot));
        let unseen = || write.value.is_none() && header.live().iter().any(|(dot, _)| !write.context.vv.covers(*dot));
        let unseen = shard.planted.is_where(Bug::DeleteUnseen, unseen).then(|| header.vv().clone());
        let stands = shard.planted.is_where(Bug::FalseSiblings, replaces);
        let mut replaced = if stands { &nothing.vv } else { unseen.as_ref().unwrap_or(&write.context.vv) };
        let mut held;
        if bucket.conflict == Conflict::Lww && written_at <= header.written_at() {
            // At the end of time no stamp is later than what is held, and the dots would decide against one in two.
            held = siblings.vv().clone();
            held.join(replaced);
            replaced = &held;
        }
        siblings.event(replaced, dot, stamp::version(&write, written_at));
        self.apply_conflict_policy(shard, bucket, &mut siblings);
        self.turn.write_ids += 1;
        self.write_ids.remember(now.instant, &fingerprint, dot);
        match capacity {
            Capacity::Owner { .. } => {
                self.turn.put(located.record.clone(), write.bucket, &write.key, known.own, siblings.clone());
            }
            Capacity::Fallback { target } => {
                self.keep_copy(shard, target, &located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.add_missed(shard, &located, &write, capacity, &siblings)?;
        let made = Made::Stamped(Stamped { dot, again: false, siblings });
        if shard.planted.is(Bug::StampedBeforeApplied) {
            self.outputs.push_back(Output::Made { id, made: made.clone() });
        }
        self.wait_for_write(shard, id, &located, &write, capacity, made)
    }

    /// Nothing new was stamped: makes sure that what is answered is held here for the slot that the answer fills. A
    /// fallback may have it for another primary, an owner as a copy that an older ring has left.
    pub(super) fn hold(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        write: &Write,
        capacity: Capacity,
        siblings: Siblings,
    ) -> Result<(), RecordError> {
        if siblings.is_empty() {
            return Ok(());
        }
        match capacity {
            Capacity::Owner { .. } => drop(self.take_in(shard, located, &write.key, siblings.clone())?),
            Capacity::Fallback { target } => {
                self.keep_copy(shard, target, located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.add_missed(shard, located, write, capacity, &siblings)
    }

    pub(super) fn wait_for_write(
        &mut self,
        shard: &Shard,
        id: RequestId,
        located: &Located<'_>,
        write: &Write,
        capacity: Capacity,
        made: Made,
    ) -> Result<(), RequestError> {
        let (place, durability) = (capacity.place(located), located.bucket.durability);
        let waits = Waits::Write { made, write_id: write.write_id, place, durability };
        self.turn.wait(Waiting { to: shard.node, id, waits });
        Ok(())
    }

    /// Others know this much of a partition. If it includes writes by our own actor that it never stamped, the store
    /// has forgotten something: retire the actor before it names two writes alike.
    pub(crate) fn witness(&mut self, shard: &Shard, partition: PartitionId, vv: &VersionVector) {
        if let Some(actor) = self.actors.contradicted_by(partition, vv) {
            self.distrust(shard, partition, actor);
        }
    }

    pub(super) fn distrust(&mut self, shard: &Shard, partition: PartitionId, actor: ActorId) {
        tracing::error!(%actor, %partition, "others know writes of our own actor that this store never stamped: \
            was the data directory rolled back or copied? The actor is retired");
        shard.metrics.actor_alarms.inc();
        self.actors.retire(partition);
        self.outputs.push_back(Output::Retired(actor));
    }
}
