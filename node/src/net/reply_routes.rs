//! How the reply to a peer's request finds its way back, where that is not plain.
//!
//! A reply must leave on the connection that its request came on, since that leads to the shard that waits for it.
//! With one shard on either side there is only that one, and nothing is kept here. Otherwise an entry is kept for each
//! request that was handed over between shards, or that came on one of several connections to the same node.

use std::collections::HashMap;

use driftless_ring::NodeId;

use crate::peer::RequestId;

/// Where requests came from. Two generations, so that entries without a reply do not stay for ever.
#[derive(Default)]
pub(crate) struct ReplyRoutes {
    young: HashMap<(NodeId, RequestId), Origin>,
    old: HashMap<(NodeId, RequestId), Origin>,
}

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// The shard that received it.
    pub(crate) shard: u16,
    /// The connection of that shard.
    pub(crate) connection: u64,
}

impl ReplyRoutes {
    /// Remembers a request. Beyond the bound it is not: its reply may go astray, as on a lossy network.
    pub(crate) fn put(&mut self, from: NodeId, id: RequestId, origin: Origin) {
        if self.young.len() < GENERATION_MAX {
            self.young.insert((from, id), origin);
        }
    }

    /// Where something goes that is not the reply yet, if that was remembered.
    pub(crate) fn find(&self, to: NodeId, id: RequestId) -> Option<Origin> {
        self.young.get(&(to, id)).or_else(|| self.old.get(&(to, id))).copied()
    }

    /// Where the reply goes, if that was remembered.
    pub(crate) fn take(&mut self, to: NodeId, id: RequestId) -> Option<Origin> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        self.young.remove(&(to, id)).or_else(|| self.old.remove(&(to, id)))
    }

    /// Forgets what is older than the last call. To be called less often than requests take at most.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

const GENERATION_MAX: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_where_its_request_came_from_once() {
        let mut returns = ReplyRoutes::default();
        let origin = Origin { shard: 1, connection: 9 };
        returns.put(NodeId(1), RequestId(5), origin);
        assert_eq!(returns.take(NodeId(2), RequestId(5)), None);
        returns.age();
        assert_eq!(returns.find(NodeId(1), RequestId(5)), Some(origin), "what announces the reply goes the same way");
        assert_eq!(returns.take(NodeId(1), RequestId(5)), Some(origin));
        assert_eq!(returns.take(NodeId(1), RequestId(5)), None);
    }

    #[test]
    fn what_is_never_answered_is_forgotten() {
        let mut returns = ReplyRoutes::default();
        returns.put(NodeId(1), RequestId(5), Origin { shard: 1, connection: 9 });
        returns.age();
        returns.age();
        assert_eq!(returns.take(NodeId(1), RequestId(5)), None);
    }
}
