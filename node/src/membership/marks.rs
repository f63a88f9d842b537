//! How far each store has come, as far as this node knows; its own marks are written down before anybody is told.

use std::collections::BTreeMap;

use driftless_proto::membership::StoreId;
use driftless_ring::NodeId;
use serde::{Deserialize, Serialize};

use super::{Progress, files};
use crate::configurations::{Marks, Ready};

/// The own marks, and those of the others.
pub(super) struct Everybody {
    me: NodeId,
    own: Marks,
    /// Of this node too, if it had another store before.
    told: BTreeMap<NodeId, Marks>,
    /// Something was told since they were written down last.
    is_dirty: bool,
}

/// What is written down.
#[derive(Serialize, Deserialize)]
struct MarksFile {
    own: Marks,
    told: Vec<(NodeId, Marks)>,
    settled: u64,
}

impl Everybody {
    /// From what was written down, and up to which version nothing counts any more. Marks of another store are not this one's.
    ///
    /// # Errors
    /// In words, if that is damaged.
    pub(super) fn new(me: NodeId, store: StoreId, file: Option<&[u8]>) -> Result<(Everybody, u64), String> {
        let own = Marks { store: Some(store), ..Marks::default() };
        let mut everybody = Everybody { me, own, told: BTreeMap::new(), is_dirty: false };
        let Some(bytes) = file else { return Ok((everybody, 0)) };
        let MarksFile { own, told, settled } = files::decode(files::MARKS, bytes)?;
        everybody.told = told.into_iter().collect();
        if own.store == Some(store) {
            everybody.own = own;
        } else {
            everybody.told.entry(me).or_insert(own);
        }
        Ok((everybody, settled))
    }

    /// The shards have come so far. Whether that is news.
    pub(super) fn raise(&mut self, progress: &Progress) -> bool {
        let Marks { store, ready, closed, left } = self.own;
        let raised = Marks {
            store,
            ready: ready.and(Ready::of(progress.ready)),
            closed: closed.max(progress.closed),
            left: left.max(progress.left),
        };
        let is_news = raised != self.own;
        self.own = raised;
        is_news
    }

    /// Somebody says how far a member has come, of which `named` is the store. Whether that is news.
    pub(super) fn take_in(&mut self, node: NodeId, told: Marks, named: Option<StoreId>) -> bool {
        if node == self.me && told.store == self.own.store {
            return false;
        }
        let is_news = self.told.entry(node).or_default().take_in(told, named);
        self.is_dirty |= is_news;
        is_news
    }

    /// Forgets the marks of those who are members of no version that counts.
    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.told.retain(|node, _| is_member(*node));
    }

    /// Everybody's, where `named` is the own store by the records: marks of a store that they do not name do not hide those of the one
    /// that they do.
    pub(super) fn of_all(&self, named: Option<StoreId>) -> BTreeMap<NodeId, Marks> {
        let mut all = self.told.clone();
        let counts = named.is_none() || named == self.own.store;
        let before = all.get(&self.me).copied().unwrap_or_default();
        let mut mine = if counts || before.store.is_none() { self.own } else { before };
        mine.closed = before.closed.max(self.own.closed);
        all.insert(self.me, mine);
        all
    }

    /// What is told to others: the own ones first.
    pub(super) fn to_tell(&self) -> Vec<(NodeId, Marks)> {
        [(self.me, self.own)].into_iter().chain(self.told.iter().map(|(node, marks)| (*node, *marks))).collect()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// What is to be written down.
    pub(super) fn written(&mut self, settled: u64) -> Vec<u8> {
        self.is_dirty = false;
        let told = self.told.iter().map(|(node, marks)| (*node, *marks)).collect();
        files::encode(&MarksFile { own: self.own, told, settled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_marks_is_as_the_page_of_the_disk_shows_it() {
        let (mut everybody, _) = Everybody::new(NodeId(7), StoreId(6), None).expect("there is no file");
        everybody.raise(&Progress { ready: 2, closed: 2, left: 1, ..Progress::default() });
        driftless_testkit::pages::assert_bytes(
            include_str!("../../../docs/disk-format.md"),
            "marks",
            &everybody.written(1),
        );
    }
}
