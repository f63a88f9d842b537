//! Mistakes that a test plants, to see that the rig which looks for mistakes would find them.
//!
//! Each stands at the place of the rule that it breaks, in one line that asks `Planted::is`. Only with the feature
//! `planted-bugs`, which the crate `tests` alone asks for, can that ever be true; without it a [`Planted`] holds nothing
//! and the compiler removes the lines.
//!
//! A hunt that finds nothing must know why: the mistake was never made, or nobody noticed. So each time that a mistake
//! changes what happens is counted as a *hit*, and a line asks `is` last, when everything else says that it would.

#[cfg(feature = "planted-bugs")]
use std::sync::Arc;
#[cfg(feature = "planted-bugs")]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::peer::{Purpose, Reply};

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
    /// A marker goes away when the record on the disk is what was delivered, though the turn has changed it.
    MarkerRemovedAsStored = "marker-removed-as-stored",
    /// A copy goes away when the one on the disk is what was delivered, though the turn has changed it.
    CopyRemovedAsStored = "copy-removed-as-stored",
    /// The removals of a batch that was refused are forgotten.
    RefusedRemovalForgotten = "refused-removal-forgotten",
    /// A marker delivers what the turn has made of the record, before its batch is applied.
    HintBeforeApplied = "hint-before-applied",
    /// A page of hints does not count what its markers refer to.
    PageIgnoresMarkers = "page-ignores-markers",
    /// Exchanges with a node wait for as long as there are hints for it.
    HintsFirstWithoutBound = "hints-first-without-bound",
    /// Who calls off an exchange does not tell the other side.
    ExchangeForgotten = "exchange-forgotten",
    /// A hint goes away when its target has refused it.
    RefusedHintRemoved = "refused-hint-removed",
    /// A start does not look for whom an earlier process has kept something.
    HintsForgottenAtStart = "hints-forgotten-at-start",
    /// The delivery of a hint is acknowledged as durable as the bucket asks.
    HandoffAckedAsBucketAsks = "handoff-acked-as-bucket-asks",
    /// The acknowledgement of a hint does not wait for the sync.
    HintAckedInMemory = "hint-acked-in-memory",
    /// A fallback stamps without looking at the hints it holds.
    StampWithoutHints = "stamp-without-hints",
    /// An actor stamps on after hints that know it are gone.
    ActorKeptWithHintsRemoved = "actor-kept-with-hints-removed",
    /// A retry is answered by its remembered id, though what it was stamped into is gone.
    RememberedIdWithoutCover = "remembered-id-without-cover",
    /// A retry at a fallback is answered, and not kept for the primary whose slot the answer fills.
    RetryNotKept = "retry-not-kept",
    /// A put under way is acknowledged though its actor was retired.
    RetiredAcknowledged = "retired-acknowledged",
    /// A put still in a batch is acknowledged though its actor was retired in that turn.
    RetiredInTurnAcknowledged = "retired-in-turn-acknowledged",
    /// A start goes on with the actors of the process that died.
    ActorKeptAfterCrash = "actor-kept-after-crash",
    /// A start goes on with the actors found on a disk that was rolled back.
    ActorKeptAfterRollback = "actor-kept-after-rollback",
    /// A start goes on with the actors found in a copied directory.
    ActorKeptInCopy = "actor-kept-in-copy",
    /// The log is not synced.
    SyncSkipped = "sync-skipped",
    /// The record of syncs is written before the sync.
    WatermarkAhead = "watermark-ahead",
    /// A start takes frames for whole whatever their hashes say.
    FrameUnchecked = "frame-unchecked",
    /// A start takes what an earlier use of a segment has left for a part of this one.
    SaltIgnored = "salt-ignored",
    /// A start serves what it finds, synced or not, without copying and syncing it.
    UnsyncedServed = "unsynced-served",
    /// A segment is used again before the copies of what was in it are synced.
    SegmentReusedEarly = "segment-reused-early",
    /// Merging drops a removal while older segments have what it removes.
    RemovalDroppedEarly = "removal-dropped-early",
    /// An acknowledgement does not wait for the sync.
    AckBeforeSync = "ack-before-sync",
    /// An acknowledgement of what changed nothing does not wait for the sync that the first one waits for.
    NoopAckBeforeSync = "noop-ack-before-sync",
    /// After a start, what the process before left unsynced counts as synced.
    FirstSyncNotAwaited = "first-sync-not-awaited",
    /// A write is answered when one slot less than w is filled.
    AckBeforeW = "ack-before-w",
    /// A quorum counts nodes: two fallbacks for one primary fill two slots.
    NodesCounted = "nodes-counted",
    /// A further answer to a read leaves out as many values as were shown, whichever they were.
    PagesByPosition = "pages-by-position",
    /// A page of a state says that it is the last though not all was shown: what is merged again covers values that it does not have.
    StateCutShort = "state-cut-short",
    /// The answer to a put carries a context also if there are siblings.
    ContextWithSiblings = "context-with-siblings",
    /// Reads do not see what the same batch has changed.
    NoReadThrough = "no-read-through",
    /// A write is passed on to the other replicas before its batch is applied.
    StampedBeforeApplied = "stamped-before-applied",
    /// A read shows what the turn has changed before its batch is applied.
    ReadBeforeApplied = "read-before-applied",
    /// What a read has seen of a refused batch is answered.
    RefusedBatchRead = "refused-batch-read",
    /// The cache of headers is not told of what was applied.
    StaleHeaders = "stale-headers",
    /// A batch that was refused is answered as if it had been applied, and its counters are used again.
    CounterReused = "counter-reused",
    /// The counters of a batch that was refused are not given back.
    CounterSkipped = "counter-skipped",
    /// The write ids of a batch that was refused are remembered as stamped.
    RefusedIdRemembered = "refused-id-remembered",
    /// A stamp ignores the time of what its writer had read.
    StampBeforeContext = "stamp-before-context",
    /// A delete replaces also what its client has not read.
    DeleteUnseen = "delete-unseen",
    /// What was stamped and cannot reach w is said to be refused.
    UnknownAsRefused = "unknown-as-refused",
    /// A request passed on whose answer is lost is said to be refused.
    LostForwardRefused = "lost-forward-refused",
    /// A replica that refuses a write fills its slot.
    RefusalFills = "refusal-fills",
    /// A strict read does not write back what too few replicas hold.
    NoWriteBack = "no-write-back",
    /// A strict read shows what is not durable yet.
    ReadNotDurable = "read-not-durable",
    /// A delete without a context takes for granted what a single replica knows.
    DeleteNoWriteBack = "delete-no-write-back",
    /// What a fallback holds for one primary counts for another as well.
    CopyFillsAnySlot = "copy-fills-any-slot",
    /// A sync is noted to cover what was applied while it ran: the next one has nothing to do.
    SyncNotedLate = "sync-noted-late",
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
    RestoredFromTooFew = "restored-from-too-few",
    /// A damaged record is restored from answers that are older than the damaged copy beside it, which may have held more.
    RestoredFromTooOld = "restored-from-too-old",
    /// What was asked for one damage of a record restores a later one as well.
    RestoringNotEnded = "restoring-not-ended",
    /// What a node has taken in beside a damaged record is dropped when that is restored.
    RestoreForgetsBeside = "restore-forgets-beside",
    /// A tree goes on with what it knew of a record that is damaged.
    TreeKeptWithDamage = "tree-kept-with-damage",
    /// A replica takes a write of a coordinator that goes by an older version of the ring.
    StaleWriteTaken = "stale-write-taken",
    /// A strict write needs a quorum of all owners together, not one in each version.
    OneQuorumOfAll = "one-quorum-of-all",
    /// A read that counts owners of an older version is answered by who has closed.
    ClosedAnswers = "closed-answers",
    /// A new owner is ready when it has compared with one old owner.
    OnePassIsEnough = "one-pass-is-enough",
    /// A store that was lost, and is filled, answers reads.
    LostStoreAnswers = "lost-store-answers",
    /// Others compare with a store that was lost.
    LostStoreFeeds = "lost-store-feeds",
    /// An arc is scanned by whatever version of the ring it was named: of doubled partitions it is another one.
    ScanByAnyVersion = "scan-by-any-version",
    /// Actors stamp on when partitions are doubled, and count the writes of others than before.
    ActorKeptWhenDoubled = "actor-kept-when-doubled",
    /// A member that is there is declared lost by force.
    LivingDeclaredLost = "living-declared-lost",
    /// A write that began by an older version is passed on by the newer one, though it may have been stamped.
    BegunAgainElsewhere = "begun-again-elsewhere",
}

impl Bug {
    /// Bugs that the simulator does not notice, since another rule sees to what they break, or since its worlds hardly ever
    /// get to where they matter. Each makes the test of its rule fail: see `assert_noticed`.
    pub const HELD_BY_TESTS: &[Bug] = &[
        Bug::CopyRemovedAsStored,
        Bug::RefusedRemovalForgotten,
        Bug::HintBeforeApplied,
        Bug::PageIgnoresMarkers,
        Bug::HintsFirstWithoutBound,
        Bug::ExchangeForgotten,
        Bug::RetryNotKept,
        Bug::RestoredFromTooOld,
        Bug::RestoringNotEnded,
        Bug::TreeKeptWithDamage,
        Bug::SyncSkipped,
        Bug::WatermarkAhead,
        Bug::FrameUnchecked,
        Bug::SaltIgnored,
        Bug::UnsyncedServed,
        Bug::SegmentReusedEarly,
        Bug::RemovalDroppedEarly,
        Bug::StaleWriteTaken,
        Bug::OneQuorumOfAll,
        Bug::ClosedAnswers,
        Bug::OnePassIsEnough,
        Bug::LostStoreFeeds,
        Bug::ScanByAnyVersion,
    ];

    /// Bugs that the simulator must find.
    pub fn hunted() -> Vec<Bug> {
        Bug::ALL.iter().copied().filter(|bug| !Bug::HELD_BY_TESTS.contains(bug)).collect()
    }

    /// The bug with this name.
    pub fn of_name(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// The mistake that an engine makes, if a test wants it to make one. Clones count their hits together.
#[derive(Clone, Default, Debug)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    plant: Option<Plant>,
}

#[cfg(feature = "planted-bugs")]
#[derive(Clone, Debug)]
struct Plant {
    bug: Bug,
    hits: Arc<AtomicU64>,
}

#[cfg(feature = "planted-bugs")]
impl Planted {
    /// Makes this mistake.
    pub fn bug(bug: Bug) -> Planted {
        Planted { plant: Some(Plant { bug, hits: Arc::default() }) }
    }

    /// Which mistake is made.
    pub fn planted(&self) -> Option<Bug> {
        self.plant.as_ref().map(|plant| plant.bug)
    }

    /// How often it has changed what happened.
    pub fn hits(&self) -> u64 {
        self.plant.as_ref().map_or(0, |plant| plant.hits.load(Ordering::Relaxed))
    }

    /// Whether to make this mistake, here and now. A yes is a hit: to be asked last, when it makes a difference.
    pub fn is(&self, bug: Bug) -> bool {
        let is_it = self.may_be(bug);
        if is_it {
            self.hit();
        }
        is_it
    }

    /// The same where it takes some work to know whether it makes a difference.
    pub(crate) fn is_where(&self, bug: Bug, makes_a_difference: impl FnOnce() -> bool) -> bool {
        self.may_be(bug) && makes_a_difference() && self.is(bug)
    }

    /// Whether this mistake is made, where only what comes of it tells whether that was a hit.
    pub(crate) fn may_be(&self, bug: Bug) -> bool {
        self.planted() == Some(bug)
    }

    /// It has changed what happened.
    pub(crate) fn hit(&self) {
        if let Some(plant) = &self.plant {
            plant.hits.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(feature = "planted-bugs"))]
impl Planted {
    /// Never.
    pub(crate) const fn is(&self, _: Bug) -> bool {
        false
    }

    /// Never.
    pub(crate) fn is_where(&self, _: Bug, _: impl FnOnce() -> bool) -> bool {
        false
    }

    /// Never.
    pub(crate) const fn may_be(&self, _: Bug) -> bool {
        false
    }

    /// Never called.
    pub(crate) const fn hit(&self) {}
}

impl Planted {
    /// Whether the assertions at acknowledgements are left out, since a mistake is made: it is the checkers that are to find it.
    pub(crate) fn is_asserted_away(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.plant.is_some();
        #[cfg(not(feature = "planted-bugs"))]
        false
    }

    /// Whether what is sent for this purpose replaces what is held; a hit if that knows more.
    pub(crate) fn replaces(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Write => self.may_be(Bug::MergeReplaces),
            Purpose::ReadRepair => self.may_be(Bug::RepairReplaces),
            Purpose::Handoff => self.may_be(Bug::HandoffOverwrites),
            Purpose::AntiEntropy | Purpose::Transfer => self.may_be(Bug::ExchangeReplaces),
        }
    }

    /// Whether this answer leaves before what it promises is durable.
    pub(crate) fn is_rash(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Acked => self.is(Bug::AckBeforeSync),
            Reply::State(_) => self.is(Bug::ReadNotDurable),
            _ => false,
        }
    }
}

/// The test of a rule that a mistake breaks must fail with it.
#[cfg(all(test, feature = "planted-bugs"))]
pub(crate) fn assert_noticed(bug: Bug, test_of_the_rule: impl FnOnce(Planted)) {
    assert!(Bug::HELD_BY_TESTS.contains(&bug), "the simulator notices {}", bug.name());
    let planted = Planted::bug(bug);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test_of_the_rule(planted.clone())));
    assert!(planted.hits() > 0, "the test does not get to where {} makes a difference", bug.name());
    assert!(outcome.is_err(), "nobody notices {}", bug.name());
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
    #[cfg(feature = "planted-bugs")]
    fn a_mistake_that_was_made_is_counted_whoever_made_it() {
        let planted = Planted::bug(Bug::AckBeforeW);
        let other = planted.clone();
        assert!(!planted.is(Bug::AckBeforeSync) && planted.may_be(Bug::AckBeforeW));
        assert_eq!(planted.hits(), 0);
        assert!(planted.is(Bug::AckBeforeW) && other.is(Bug::AckBeforeW));
        assert_eq!((planted.hits(), other.hits()), (2, 2));
    }

    #[test]
    fn every_bug_is_found_by_its_name() {
        assert!(Bug::ALL.iter().all(|bug| Bug::of_name(bug.name()) == Some(*bug)));
    }
}
