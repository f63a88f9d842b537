//! Mistakes that a test plants, to see that the rig which looks for mistakes would find them.
//!
//! Each stands at the place of the rule that it breaks, in one line that asks `Planted::is`. Only with the feature
//! `planted-bugs`, which the crate `tests` alone asks for, can that ever be true; without it a [`Planted`] holds nothing
//! and the compiler removes the lines.

use crate::peer::{Purpose, Reply};
use crate::replica::store::{ApplyError, StoreError};

/// Declares the bugs once: their names for people, and what each does.
macro_rules! bugs {
    ($($(#[doc = $about:literal])+ $bug:ident = $name:literal,)+) => {
        /// A mistake. Each has lost, revived or doubled data in some system, or in a prototype of this one.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[doc = $about])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug),+];

            /// Its name on command lines and in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// A dot counts on from what the client has read, not from what the actor has stamped.
    DotFromContext = "dot-from-context",
    /// Of concurrent writes only the latest by the clock is kept, in every bucket.
    LastWriteWins = "last-write-wins",
    /// A write does not replace what its writer had read.
    FalseSiblings = "false-siblings",
    /// A retry is stamped like a new write.
    RetryDuplicates = "retry-duplicates",
    /// A request is passed on to two nodes.
    DuplicatedForward = "duplicated-forward",
    /// Tombstones are removed by age.
    TimerReaping = "timer-reaping",
    /// What another coordinator sends replaces what is held.
    MergeReplaces = "merge-replaces",
    /// What a read repair brings replaces what is held.
    RepairReplaces = "repair-replaces",
    /// What an exchange brings replaces what is held.
    ExchangeReplaces = "exchange-replaces",
    /// A tree is not told when a key that it knows changes.
    TreeDrift = "tree-drift",
    /// What the delivery of a hint brings replaces what is held.
    HandoffOverwrites = "handoff-overwrites",
    /// A hint goes away when it is sent.
    HintDroppedOnSend = "hint-dropped-on-send",
    /// A hint goes away when it was delivered, though it has changed meanwhile.
    HintRemovedThoughChanged = "hint-removed-though-changed",
    /// The acknowledgement of a hint does not wait for the sync.
    HintAckedInMemory = "hint-acked-in-memory",
    /// A fallback stamps without looking at the hints it holds.
    StampWithoutHints = "stamp-without-hints",
    /// An actor stamps on after hints that know it are gone.
    ActorKeptWithHintsRemoved = "actor-kept-with-hints-removed",
    /// A retry is answered by its remembered id, though what it was stamped into is gone.
    RememberedIdWithoutCover = "remembered-id-without-cover",
    /// A start goes on with the actors of the process that died.
    ActorKeptAfterCrash = "actor-kept-after-crash",
    /// A start goes on with the actors found on a disk that was rolled back.
    ActorKeptAfterRollback = "actor-kept-after-rollback",
    /// A start goes on with the actors found in a copied directory.
    ActorKeptInCopy = "actor-kept-in-copy",
    /// An acknowledgement does not wait for the sync.
    AckBeforeSync = "ack-before-sync",
    /// An acknowledgement of what changed nothing does not wait for the sync that the first one waits for.
    NoopAckBeforeSync = "noop-ack-before-sync",
    /// After a start, what the process before left unsynced counts as synced.
    FirstSyncNotAwaited = "first-sync-not-awaited",
    /// A write is answered when one slot less than w is filled.
    AckBeforeW = "ack-before-w",
    /// A quorum counts nodes: two stand-ins for one primary fill two slots.
    NodesCounted = "nodes-counted",
    /// A further answer to a read leaves out as many values as were shown, whichever they were.
    PagesByPosition = "pages-by-position",
    /// The answer to a put carries a context also if there are siblings.
    ContextWithSiblings = "context-with-siblings",
    /// Reads do not see what the same batch has changed.
    NoReadThrough = "no-read-through",
    /// A batch that was refused is answered as if it had been applied, and its counters are used again.
    CounterReused = "counter-reused",
    /// The counters of a batch that was refused are not given back.
    CounterSkipped = "counter-skipped",
    /// The write ids of a batch that was refused are remembered as stamped.
    RefusedIdRemembered = "refused-id-remembered",
    /// A stamp ignores the time of what its writer had read.
    StampBeforeContext = "stamp-before-context",
    /// A strict read does not write back what too few replicas hold.
    NoWriteBack = "no-write-back",
    /// A strict read shows what is not durable yet.
    ReadNotDurable = "read-not-durable",
    /// A delete without a context takes for granted what a single replica knows.
    DeleteNoWriteBack = "delete-no-write-back",
    /// What a fallback holds for one primary counts for another as well.
    CopyFillsAnySlot = "copy-fills-any-slot",
    /// What a failed sync was for is acknowledged all the same.
    SyncErrorIgnored = "sync-error-ignored",
    /// A failed sync is tried again, and the next success believed.
    SyncRetried = "sync-retried",
    /// A batch that failed is taken for refused: nothing of it can be on the disk.
    ApplyErrorRefused = "apply-error-refused",
    /// What cannot be read is taken for nothing.
    ReadErrorIgnored = "read-error-ignored",
    /// A damaged record is taken for none.
    DamagedAsAbsent = "damaged-as-absent",
    /// A damaged record is served as far as it can be understood.
    DamagedServed = "damaged-served",
    /// A damaged hint is delivered as far as it can be understood.
    DamagedHintServed = "damaged-hint-served",
    /// A damaged record counts itself among those that it is restored from.
    MendedFromTooFew = "mended-from-too-few",
}

impl Bug {
    /// The bug with this name.
    pub fn of_name(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// The mistake that an engine makes, if a test wants it to make one.
#[derive(Clone, Copy, Default, Debug)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// Makes this mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn bug(bug: Bug) -> Planted {
        Planted { bug: Some(bug) }
    }

    /// Whether to make this mistake.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether the assertions at acknowledgements are left out, since a mistake is made: it is the checkers that are to find it.
    pub(crate) fn is_asserted_away(self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.bug.is_some();
        #[cfg(not(feature = "planted-bugs"))]
        false
    }

    /// Whether what is sent for this purpose replaces what is held.
    pub(crate) fn replaces(self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Write => self.is(Bug::MergeReplaces),
            Purpose::ReadRepair => self.is(Bug::RepairReplaces),
            Purpose::Handoff => self.is(Bug::HandoffOverwrites),
            Purpose::AntiEntropy => self.is(Bug::ExchangeReplaces),
            Purpose::Mend | Purpose::Restore => false,
        }
    }

    /// Whether this answer leaves before what it promises is durable.
    pub(crate) fn is_rash(self, reply: &Reply) -> bool {
        match reply {
            Reply::Acked => self.is(Bug::AckBeforeSync),
            Reply::State(_) => self.is(Bug::ReadNotDurable),
            _ => false,
        }
    }

    /// What was read; or nothing, where that is what an error is taken for.
    pub(crate) fn forgive<T: Default>(self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        match read {
            Err(StoreError::Io(_)) if self.is(Bug::ReadErrorIgnored) => Ok(T::default()),
            Err(StoreError::Damaged { .. }) if self.is(Bug::DamagedAsAbsent) => Ok(T::default()),
            read => read,
        }
    }

    /// What became of a batch; a refusal, where that is what an error is taken for.
    pub(crate) fn soften<T>(self, applied: Result<T, ApplyError>) -> Result<T, ApplyError> {
        match applied {
            Err(ApplyError::Failed(error)) if self.is(Bug::ApplyErrorRefused) => {
                Err(ApplyError::Full(error.to_string()))
            }
            applied => applied,
        }
    }

    /// Never.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) const fn is(self, _: Bug) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_a_test_asks_for_it() {
        assert!(Bug::ALL.iter().all(|bug| !Planted::default().is(*bug)));
    }

    #[test]
    #[cfg(not(feature = "planted-bugs"))]
    fn without_the_feature_nothing_is_left_of_it() {
        assert_eq!(std::mem::size_of::<Planted>(), 0);
    }

    #[test]
    fn every_bug_is_found_by_its_name() {
        assert!(Bug::ALL.iter().all(|bug| Bug::of_name(bug.name()) == Some(*bug)));
    }
}
