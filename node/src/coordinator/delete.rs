//! A delete: a tombstone with the context of its client, or with what a read finds.
//!
//! ```text
//! with a context       Put of a tombstone
//! without one          Get ──▶ Put of a tombstone that has read what the Get found
//! ```
//! Get and Put are two requests, each with an id of its own: the read lives on for late answers, which count for repair, beside the
//! write.

use driftless_proto::client::{self, Basis, Request, Response};
use driftless_proto::{Context, Failure, Refusal, Siblings, Unknown, WriteId};

use crate::peer::RequestId;
use crate::planted::Bug;
use crate::replica::local::Write;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::course::Course;
use super::get::{Get, ReadOptions};
use super::machine::Machine;
use super::origin::Origin;
use super::plan::Plan;
use super::put::WriteOptions;
use super::{Coordinator, Output, Question};

/// A delete, and whose answers its read rests on, once it has read.
#[derive(Clone)]
pub(super) struct Deletion {
    pub(super) delete: client::Delete,
    pub(super) basis: Option<Basis>,
    /// What its read asked of whom, once it has read.
    pub(super) read: Option<Course>,
}

impl Coordinator {
    /// Begins a delete: with a context it is a write, without one it reads first.
    pub(super) fn start_delete(
        &mut self,
        shard: &Shard,
        now: Now,
        deadline: Instant,
        delete: client::Delete,
        origin: &Origin,
    ) -> Result<(Machine, Question), Failure> {
        let (forwarded, explain) = (origin.forwarded, origin.profile.explain);
        let plan = Plan::of_key(shard, &self.up, delete.bucket, &delete.key)?;
        let quorum = plan.quorum(delete.r, delete.w).map_err(Refusal::from)?;
        let context = self.open_context(now, delete.bucket, &delete.key, delete.context.as_ref())?;
        let sloppy = plan.sloppy(delete.sloppy);
        if let Some(owners) = self.whom_to_forward_to(&plan, sloppy, forwarded)? {
            return Ok(self.forward(shard, owners, Request::Delete(delete), deadline));
        }
        let machine = match context {
            Some(context) => {
                let write = tombstone(&delete, context);
                Machine::Put(self.start_put(
                    shard,
                    now,
                    plan,
                    WriteOptions { w: quorum.w(), sloppy, explain, deadline },
                    write,
                )?)
            }
            None => {
                self.check_clock(now)?;
                let options = ReadOptions {
                    r: quorum.r(),
                    // What it finds is written to w replicas, whether or not there is anything to remove.
                    held_by: 0,
                    durable: false,
                    ask_all: false,
                    // What it removes must not depend on who wants to know: only those that it would have asked are told of.
                    explain: false,
                    sloppy,
                    deadline,
                };
                plan.require(quorum.w(), sloppy)?;
                Machine::Get(Get::start(plan, delete.bucket, delete.key.clone(), options, &self.latency)?)
            }
        };
        Ok((machine, Question::Delete(Box::new(Deletion { delete, basis: None, read: None }))))
    }

    /// Second half of a delete without context: removes exactly what the first half has seen. If that was nothing live,
    /// no tombstone is written, but the replicas are made sure of it as they would be of one: what was seen on one of
    /// them may be a delete that never reached its quorum, or a copy that is held for another.
    pub(super) fn write_tombstone(&mut self, shard: &Shard, now: Now, id: RequestId, seen: Siblings, basis: Basis) {
        let Some(open) = self.requests.get_mut(&id) else { return };
        let (asker, deadline, question) = (open.asker, open.deadline, open.question.clone());
        let Question::Delete(mut deletion) = question else { return };
        let Some(origin) = open.origin.take() else { return };
        deletion.basis = Some(basis);
        // With every header that it has seen: it is kept only if it may be told.
        deletion.read = if origin.may_be_told(shard) { open.course(shard) } else { None };
        let explain = origin.profile.explain;
        let delete = &deletion.delete;
        if !matches!(&open.machine, Machine::Get(get) if get.poll_timeout().is_some()) {
            self.close(shard, id);
        }
        if !seen.has_values() && shard.planted.is(Bug::DeleteNoWriteBack) {
            let deleted = client::Deleted { existed: false, acks: 0, primaries: 0, siblings: 0, basis: Some(basis) };
            return self.outputs.push_back(Output::Reply { to: asker, response: Response::Deleted(deleted) });
        }
        let context = Context { vv: seen.vv().clone(), written_at: seen.written_at() };
        let started =
            Plan::of_key(shard, &self.up, delete.bucket, &delete.key).map_err(Failure::from).and_then(|plan| {
                let w = plan.quorum(None, delete.w).map_err(Refusal::from)?.w();
                let sloppy = plan.sloppy(delete.sloppy);
                match self.whom_to_forward_to(&plan, sloppy, false)? {
                    None => {
                        let found_nothing = (!seen.has_values()).then(|| Box::new(seen));
                        let write = Write { found_nothing, ..tombstone(delete, context) };
                        self.start_put(shard, now, plan, WriteOptions { w, sloppy, explain, deadline }, write)
                    }
                    // A primary that could not be counted on when the delete began is back: the next attempt is its.
                    Some(_) => Err(Refusal::NotCoordinator.into()),
                }
            });
        match started {
            _ if deadline <= now.instant => {
                let failure = Unknown::Timeout { acks: 0, needed: delete.w.unwrap_or(1) }.into();
                self.fail(shard, now, asker, &origin, deletion.read, failure);
            }
            Ok(put) => {
                self.open(shard, now, asker, Some(origin), Machine::Put(put), Question::Delete(deletion), deadline);
            }
            Err(failure) => {
                self.fail(shard, now, asker, &origin, deletion.read, failure);
            }
        }
    }
}

/// The write that a delete with this context is.
fn tombstone(delete: &client::Delete, context: Context) -> Write {
    let (bucket, key, write_id): (_, _, WriteId) = (delete.bucket, delete.key.clone(), delete.write_id);
    Write { bucket, key, value: None, write_id, context, found_nothing: None, hint_for: None, missed_by: Vec::new() }
}
