//! What versions of the ring mean for requests under way: they begin again, at once or when this node has heard of the newer one.

use driftless_proto::Refusal;
use driftless_ring::NodeId;

use crate::peer::RequestId;
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Now;

use super::awaiting::Awaiting;
use super::machine::Machine;
use super::{Coordinator, Output};

impl Coordinator {
    /// Other versions of the ring count from now on, or count otherwise. What was begun before begins again: answers that it has had say
    /// nothing of the owners of today. What it has had stamped is recognised by its write id, and is not stamped again. Who has been
    /// answered goes on as it was: late answers only count for repair.
    pub(crate) fn handle_configurations(&mut self, shard: &Shard, now: Now) {
        self.top.handle_topology(now.instant, shard.node, &shard.topology);
        for id in self.open_ids() {
            let Some(open) = self.requests.get_mut(&id).filter(|open| open.is_waited_for) else { continue };
            if open.machine.is_decided() {
                open.machine.handle_news();
                self.advance(shard, now, id);
                continue;
            }
            // What a peer coordinates, it begins again itself.
            if let Machine::Forward(_) = open.machine {
                continue;
            }
            let (asker, deadline, mut origin) = (open.asker, open.deadline, open.origin.take());
            if let Some(origin) = &mut origin
                && open.machine.may_have_written()
                && !shard.planted.is(Bug::BegunAgainElsewhere)
            {
                origin.may_have_happened();
            }
            shard.metrics.replans.inc();
            self.close(shard, id);
            if let Some(mut origin) = origin {
                origin.begun_again += 1;
                self.begin(shard, now, asker, deadline, origin);
            }
        }
    }

    /// A replica knows more of the versions of the ring: the request waits until this node does.
    pub(super) fn await_news(&mut self, shard: &Shard, now: Now, from: NodeId, id: RequestId, refusal: Refusal) {
        let Some(open) = self.requests.get_mut(&id) else { return };
        if let Some(origin) = &mut open.origin
            && open.machine.may_have_written()
        {
            origin.may_have_happened();
        }
        open.attempts.clear();
        open.machine = Machine::Awaiting(Awaiting::new(refusal, open.deadline));
        if from != shard.node {
            self.outputs.push_back(Output::Behind(from));
        }
        self.advance(shard, now, id);
    }
}
