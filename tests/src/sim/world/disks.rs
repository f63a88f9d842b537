//! Syncs take time: what is durable when one is done is what had been applied when it began.

use driftless_node::replica::store::BatchSeq;
use rand::Rng;

use super::super::cluster::{self, Input};
use super::super::schedule::Event;
use super::super::trace::Line;
use super::{Phase, World};

impl World {
    pub(super) fn sync(&mut self, node: usize) {
        if self.nodes[node].syncing {
            self.nodes[node].sync_wanted = true;
            return;
        }
        self.nodes[node].syncing = true;
        let up_to = self.nodes[node].store.applied();
        let (low, high) = match self.phase {
            Phase::Active => self.profile.sync[node],
            _ => (200, 2_000),
        };
        let delay = self.disk_rng.random_range(low..=high);
        self.schedule.after(delay, Event::SyncDone { node, life: self.nodes[node].life, up_to });
    }

    pub(super) fn sync_done(&mut self, node: usize, up_to: BatchSeq) {
        self.note("synced", &[node as u64, up_to.0], || {
            Line::general(cluster::name_of(node), format!("has synced up to batch {}", up_to.0))
        });
        self.nodes[node].store.sync_up_to(up_to);
        self.nodes[node].syncing = false;
        if up_to == self.nodes[node].store.applied() {
            let removed = std::mem::take(&mut self.nodes[node].removed);
            self.judge_keys(&removed, "after a hint was removed");
        }
        self.give(node, Input::Synced(up_to));
        if std::mem::take(&mut self.nodes[node].sync_wanted) {
            self.sync(node);
        }
    }
}
