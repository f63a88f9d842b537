//! How requests begin: what cannot be done is refused, and the others get their machine.

use driftless_proto::client::{self, Request};
use driftless_proto::{BucketId, Context, ContextError, ContextToken, Failure, Key, Quorum, Refusal};
use driftless_ring::PartitionId;
use rand::Rng;

use crate::peer;
use crate::planted::Bug;
use crate::plausible;
use crate::replica::local::Write;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::forward::{Forward, Owners};
use super::get::{Get, ReadOptions};
use super::origin::Origin;
use super::plan::{self, Plan};
use super::put::{Put, WriteOptions};
use super::salvage::Salvage;
use super::scan::Scan;
use super::spread::Spread;
use super::{Coordinator, Machine, Question};

impl Coordinator {
    pub(super) fn start(
        &mut self,
        shard: &Shard,
        now: Now,
        deadline: Instant,
        origin: &Origin,
    ) -> Result<(Machine, Question), Failure> {
        let (request, forwarded, explain) = (origin.request.clone(), origin.forwarded, origin.profile.explain);
        let (up, topology) = (&self.up, &shard.topology);
        if let Some((needed, available)) = shard.configurations.in_want_of_company() {
            return Err(Refusal::NotEnoughReplicas { needed, available }.into());
        }
        match request {
            Request::Get(get) => {
                let plan = Plan::of_key(shard, up, get.bucket, &get.key)?;
                let r = plan.quorum(get.r, None).map_err(Refusal::from)?.r();
                let machine = self.start_get(shard, deadline, plan, &get, r)?;
                let client::Get { bucket, key, shown, .. } = get;
                let question = Question::Get { bucket, key, shown };
                Ok((Machine::Get(machine), question))
            }
            Request::Put(put) => {
                plan::check_value(&put, shard.limits.value_bytes_max)?;
                let plan = Plan::of_key(shard, up, put.bucket, &put.key)?;
                let w = plan.quorum(None, put.w).map_err(Refusal::from)?.w();
                let context = self.open_context(now, put.bucket, &put.key, put.context.as_ref())?;
                let sloppy = plan.sloppy(put.sloppy);
                if let Some(owners) = self.whom_to_forward_to(&plan, sloppy, forwarded)? {
                    return Ok(self.forward(shard, owners, Request::Put(put), deadline));
                }
                let question = Question::Put { bucket: put.bucket, key: put.key.clone(), write_id: put.write_id };
                let client::Put { bucket, key, value, write_id, .. } = put;
                let context = context.unwrap_or_default();
                let write = Write {
                    bucket,
                    key,
                    value: Some(value),
                    write_id,
                    context,
                    found_nothing: None,
                    hint_for: None,
                    missed_by: Vec::new(),
                };
                Ok((
                    Machine::Put(self.start_put(
                        shard,
                        now,
                        plan,
                        WriteOptions { w, sloppy, explain, deadline },
                        write,
                    )?),
                    question,
                ))
            }
            Request::Delete(delete) => self.start_delete(shard, now, deadline, delete, origin),
            Request::Scan(scan) => {
                let (theirs, ours) = (scan.ring_version, topology.ring().version().0);
                if theirs != ours && !shard.planted.is(Bug::ScanByAnyVersion) {
                    return Err(Refusal::StaleRing { theirs, ours }.into());
                }
                let bucket = topology.bucket(scan.bucket).ok_or(Refusal::NoSuchBucket)?;
                if scan.arc.0 >= topology.ring().partitions().get() {
                    return Err(Refusal::BadRequest(format!("the ring has no arc {}", scan.arc.0)).into());
                }
                let partition = PartitionId { n: bucket.quorum.n(), arc: scan.arc };
                if topology.ring().partitions().is_doubled() && !shard.is_mine(partition) {
                    // The shell went by the arcs of another version when it gave the request to this shard.
                    return Err(Refusal::Overloaded { retry_after_ms: shard.limits.retry_after_ms() }.into());
                }
                let plan = Plan::of_partition(shard, up, bucket, partition);
                let r = plan.quorum(scan.r, None).map_err(Refusal::from)?.r();
                let limit = scan.limit.clamp(1, shard.limits.scan_limit_max);
                let prefix = scan.prefix;
                let (after, counted_for) = (scan.after, plan.counted_for);
                let scan = peer::Scan { bucket: scan.bucket, arc: scan.arc, after, limit, counted_for };
                Ok((Machine::Scan(Scan::start(plan, scan, prefix, r, deadline)?), Question::Other))
            }
            Request::Restore(restore) if !restore.accept_loss => {
                let text = "what only the damaged record held would be lost: say that this is accepted";
                Err(Refusal::BadRequest(text.to_owned()).into())
            }
            Request::Restore(restore) => {
                let plan = Plan::of_key(shard, up, restore.bucket, &restore.key)?;
                let salvage = Salvage::start(now, &plan, restore.bucket, restore.key, deadline);
                Ok((Machine::Salvage(salvage), Question::Other))
            }
            Request::GetState(get) => {
                let plan = Plan::of_key(shard, up, get.bucket, &get.key)?;
                let r = plan.quorum(get.r, None).map_err(Refusal::from)?.r();
                let client::GetState { bucket, key, shown, .. } = get;
                let question = Question::State { bucket, key: key.clone(), shown };
                let get =
                    client::Get { bucket, key, r: Some(r), sloppy: Some(false), explain: false, shown: Vec::new() };
                let machine = self.start_get(shard, deadline, plan, &get, r)?;
                Ok((Machine::Get(machine), question))
            }
            Request::MergeState(merge) => {
                let plan = Plan::of_key(shard, up, merge.bucket, &merge.key)?;
                let w = plan.quorum(None, merge.w).map_err(Refusal::from)?.w();
                Ok((Machine::Spread(Spread::start(&plan, merge, w, deadline)?), Question::Other))
            }
            Request::Topology
            | Request::Status
            | Request::Hints
            | Request::Aae(_)
            | Request::Damaged
            | Request::Drain(_)
            | Request::Figures
            | Request::Observed(_)
            | Request::Top(_)
            | Request::Cluster(_) => Err(Refusal::BadRequest("the shell answers this request".to_owned()).into()),
        }
    }

    fn start_get(
        &mut self,
        shard: &Shard,
        deadline: Instant,
        plan: Plan,
        get: &client::Get,
        r: u8,
    ) -> Result<Get, Failure> {
        let strict = !plan.sloppy(get.sloppy);
        let quorum = plan.bucket.quorum;
        let options = ReadOptions {
            r,
            held_by: if strict && !shard.planted.is(Bug::NoWriteBack) { held_by(quorum, &plan) } else { 0 },
            durable: strict,
            ask_all: get.explain || self.rng.random_range(0..100) < plan.bucket.read_all,
            explain: get.explain,
            sloppy: !strict,
            deadline,
        };
        Get::start(plan, get.bucket, get.key.clone(), options, &self.latency)
    }

    /// Begins a write that this node stamps.
    pub(super) fn start_put(
        &self,
        shard: &Shard,
        now: Now,
        plan: Plan,
        options: WriteOptions,
        write: Write,
    ) -> Result<Put, Failure> {
        self.check_clock(now)?;
        let is_mine = plan.is_mine();
        let w = if shard.planted.is(Bug::AckBeforeW) { options.w - 1 } else { options.w };
        let put = Put::start(plan, WriteOptions { w, ..options }, write, shard.planted.clone())?;
        if !is_mine {
            shard.metrics.fallback_coordinated.inc();
        }
        Ok(put)
    }

    /// Whether this node's clock is good enough to stamp with. What others have stamped plays no part in it.
    pub(super) fn check_clock(&self, now: Now) -> Result<(), Refusal> {
        match self.clock_bounds.and_then(|bounds| bounds.ahead_ms(now)) {
            Some(ahead_ms) => Err(Refusal::ClockOff { ahead_ms }),
            None => Ok(()),
        }
    }

    /// The nodes that may coordinate a write; `None` if this node is to: it stores the key, or no primary can be counted on and
    /// fallbacks may stand in.
    pub(super) fn whom_to_forward_to(
        &self,
        plan: &Plan,
        sloppy: bool,
        forwarded: bool,
    ) -> Result<Option<Owners>, Failure> {
        if plan.is_mine() {
            return Ok(None);
        }
        if forwarded {
            return Err(Refusal::NotCoordinator.into());
        }
        let mut primaries = plan.reachable();
        self.latency.fastest_first(&mut primaries);
        match primaries.split_first() {
            Some((first, others)) => Ok(Some(Owners { first: *first, others: others.to_vec() })),
            None if sloppy && plan.may_stand_in() => Ok(None),
            None => Err(Refusal::NotEnoughReplicas { needed: 1, available: 0 }.into()),
        }
    }

    pub(super) fn forward(
        &self,
        shard: &Shard,
        owners: Owners,
        request: Request,
        deadline: Instant,
    ) -> (Machine, Question) {
        shard.metrics.forwards.inc();
        (Machine::Forward(Forward::start(owners, request, deadline, shard.planted.clone())), Question::Other)
    }

    /// What a writer has read. A token is only as good as the nodes that have the key it is sealed with: a stamp on top of what no
    /// honest node has shown would be refused by the other replicas.
    pub(super) fn open_context(
        &self,
        now: Now,
        bucket: BucketId,
        key: &Key,
        token: Option<&ContextToken>,
    ) -> Result<Option<Context>, Refusal> {
        let Some(token) = token else { return Ok(None) };
        let context = self.keys.open(bucket, key, token)?;
        if context.written_at > plausible::latest_stamp(now.wall) || context.vv.len() > plausible::ACTORS_MAX {
            return Err(ContextError::Implausible.into());
        }
        Ok(Some(context))
    }
}

/// How many must hold what a strict read answers. While members change a pass takes from so many owners that one of them has what w have
/// acknowledged: so what is shown must be held by w as well.
fn held_by(quorum: Quorum, plan: &Plan) -> u8 {
    let overlap = quorum.n() - quorum.r() + 1;
    if plan.groups.is_empty() { overlap } else { overlap.max(quorum.w()) }
}
