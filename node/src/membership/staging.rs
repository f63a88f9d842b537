//! What operators have put together and not decided on yet: one value for the whole cluster, of which the newest wins.

use driftless_proto::membership::Change;
use driftless_proto::{AccessChange, Denial};
use driftless_ring::NodeId;

use super::letter::StagedChanges;

/// What is staged.
#[derive(Default)]
pub(super) struct Staging {
    present: Option<StagedChanges>,
    /// The highest serial that was heard of: the next one is above it, also when what had it counts no more.
    serial: u64,
}

impl Staging {
    pub(super) fn present(&self) -> Option<&StagedChanges> {
        self.present.as_ref()
    }

    /// The changes to a version; none if others are staged, or nothing.
    pub(super) fn changes(&self, version: u64) -> &[Change] {
        self.present.as_ref().filter(|staged| staged.base == version).map_or(&[], |staged| &staged.changes)
    }

    /// Somebody says what is staged. Whether that is news.
    pub(super) fn take_in(&mut self, told: StagedChanges, version: u64) -> bool {
        self.serial = self.serial.max(told.serial);
        let rank = |staged: &StagedChanges| (staged.serial, staged.by);
        let is_newer = self.present.as_ref().is_none_or(|present| rank(present) < rank(&told));
        let is_news = told.base >= version && told.changes.len() <= CHANGES_MAX && is_newer;
        if is_news {
            self.present = Some(told);
        }
        is_news
    }

    /// An operator stages all this at this node, in place of what was staged.
    pub(super) fn replace(&mut self, version: u64, by: NodeId, changes: Vec<Change>) {
        self.serial = self.serial.saturating_add(1);
        self.present = Some(StagedChanges { base: version, serial: self.serial, by, changes });
    }

    /// There is a newer version: what would change an older one counts no more.
    pub(super) fn advance(&mut self, version: u64) {
        if self.present.as_ref().is_some_and(|present| present.base < version) {
            self.present = None;
        }
    }
}

/// The changes with one more, which takes the place of an earlier one about the same member or bucket.
pub(super) fn with(changes: &[Change], change: Change) -> Vec<Change> {
    let others = changes.iter().filter(|other| subject(other) != subject(&change)).cloned();
    others.chain([change.clone()]).collect()
}

/// What a change is about.
fn subject(change: &Change) -> (&'static str, &str) {
    match change {
        Change::Join { name, .. }
        | Change::Leave { name, .. }
        | Change::Replace { name, .. }
        | Change::Set { name, .. } => ("member", name),
        Change::CreateBucket(bucket) | Change::SetBucket(bucket) => ("bucket", bucket.name.as_str()),
        Change::DropBucket { name } => ("bucket", name),
        Change::DoublePartitions => ("partitions", ""),
        Change::SetAccess(change) => match change {
            AccessChange::Default(_) => ("default role", ""),
            AccessChange::Grant { name, .. } | AccessChange::Revoke { name } => ("grant", name),
            AccessChange::Deny(denial) | AccessChange::Allow(denial) => match denial {
                Denial::Client(name) => ("denied client", name),
                Denial::Node(name) => ("denied node", name),
                Denial::Serial(serial) => ("denied serial", serial.as_str()),
            },
        },
    }
}

/// Most changes that are staged at once: more than anybody reads in one plan.
pub(super) const CHANGES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(name: &str, lost: bool) -> Change {
        Change::Leave { name: name.to_owned(), lost }
    }

    fn staged(base: u64, serial: u64, by: u64) -> StagedChanges {
        StagedChanges { base, serial, by: NodeId(by), changes: vec![leave("n1", false)] }
    }

    #[test]
    fn the_newest_wins_in_whatever_order_it_is_heard() {
        let (old, new) = (staged(3, 4, 1), staged(3, 4, 2));
        for told in [[&old, &new], [&new, &old]] {
            let mut staging = Staging::default();
            for staged in told {
                staging.take_in(staged.clone(), 3);
            }
            assert_eq!(staging.present(), Some(&new));
        }
    }

    #[test]
    fn what_would_change_an_older_version_is_dropped_and_its_serial_remembered() {
        let mut staging = Staging::default();
        assert!(!staging.take_in(staged(2, 9, 1), 3));
        assert_eq!(staging.present(), None);
        staging.replace(3, NodeId(1), vec![]);
        assert_eq!(staging.present().unwrap().serial, 10);
        staging.advance(4);
        assert_eq!(staging.present(), None);
    }

    #[test]
    fn a_later_change_about_the_same_member_takes_the_place_of_the_earlier() {
        let two = with(&[leave("n1", false), leave("n2", false)], leave("n1", true));
        assert_eq!(two, [leave("n2", false), leave("n1", true)]);
    }
}
