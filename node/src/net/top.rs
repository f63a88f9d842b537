//! Which keys are hot, from all shards of the node to the client that asks.
//!
//! ```text
//! client ──▶ a shard ── Top(gathering) ──▶ every shard     each says what it has counted; the last one joins it all and answers
//! ```
//! It is the shards that count, each for itself and without a lock, so each has to be asked. Nothing is gathered while nobody asks.

use std::sync::{Arc, Mutex, PoisonError};

use driftless_proto::client::Response;
use driftless_proto::top::{self, Keys, Top, TopCommand};

use super::node_context::{NodeContext, ShardMessage};
use crate::engine::ClientTag;

/// One question under way.
pub(crate) struct Gathering {
    /// Who asks.
    pub(crate) to: ClientTag,
    /// What.
    pub(crate) command: TopCommand,
    told: Mutex<Vec<Top>>,
}

impl Gathering {
    /// A shard has said what it has counted: the answer, if it was the last of so many.
    pub(crate) fn take(&self, told: Top, shards: usize) -> Option<Response> {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(told);
        let most = usize::try_from(self.command.most).unwrap_or(top::KEYS_MAX).min(top::KEYS_MAX);
        (all.len() == shards).then(|| Response::Top(Box::new(top::joined(&all, Keys::Apart, most))))
    }
}

impl NodeContext {
    /// Asks all shards.
    pub(super) fn ask_for_top(&self, to: ClientTag, command: TopCommand) {
        let gathering = Arc::new(Gathering { to, command, told: Mutex::default() });
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Top(Arc::clone(&gathering)));
        }
    }
}
