//! Damaged records: not served, not counted, and restored from the other replicas.
//!
//! A record whose bytes are not what was written has forgotten something that its node has acknowledged. From then on
//! this replica fills no slot for the key, neither of a read nor of a write: it refuses, and others fill it. The
//! partition's actor is retired, and the key is read from n − w + 1 of the other owners, of which one must have seen
//! whatever a quorum of w has acknowledged. Their merge takes the record's place; until then the damaged bytes stay where
//! they are, so that a restart finds them again.
//!
//! This is for single records. A store that cannot read its own files stops the process.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_proto::Refusal;

use crate::peer::Merge;
use crate::time::Instant;

use super::record::RecordKey;
use super::store::{Store, StoreError};
use super::{Located, Output, Replica, Trouble};

/// The damaged records of a shard.
#[derive(Debug, Default)]
pub(super) struct Damage {
    records: BTreeSet<RecordKey>,
    /// When to ask the others again.
    due: Option<Instant>,
}

impl Damage {
    /// When to ask the others again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.records.is_empty()).then(|| self.due.unwrap_or_default())
    }

    /// A batch with this record has been applied.
    pub(super) fn mended(&mut self, record: &RecordKey) -> bool {
        !self.records.is_empty() && self.records.remove(record)
    }
}

impl<S: Store> Replica<S> {
    /// Deals with what a store has reported: one damaged record is set apart, everything else stops the process.
    pub(super) fn fail(&mut self, error: StoreError) {
        match error {
            StoreError::Damaged { record, reason } => self.set_apart(RecordKey::from_stored(record.to_vec()), &reason),
            StoreError::Io(_) | StoreError::Corrupt(_) => self.outputs.push_back(Output::Halt(error.to_string())),
        }
    }

    /// Refuses what needs a record that is damaged.
    pub(super) fn check_sound(&self, record: &RecordKey) -> Result<(), Refusal> {
        if self.damage.records.is_empty() || !self.damage.records.contains(record) {
            return Ok(());
        }
        Err(Refusal::Damaged)
    }

    /// Asks the others again for what they have not restored yet.
    pub(super) fn ask_for_mending(&mut self, now: Instant) {
        if self.damage.records.is_empty() || self.damage.due.is_some_and(|due| due > now) {
            return;
        }
        if self.damage.due.replace(now + MEND_INTERVAL).is_some() {
            let keys: Vec<_> = self.damage.records.iter().filter_map(|record| record.bucket_and_key().ok()).collect();
            self.outputs.extend(keys.into_iter().map(|(bucket, key)| Output::Damaged { bucket, key }));
        }
    }

    /// What the others hold takes the place of a damaged record.
    pub(super) fn mend(&mut self, located: Located<'_>, merge: Merge) -> Result<(), Trouble> {
        if self.check_sound(&located.record).is_err() {
            // What the tree knows of it, if that can still be read.
            let before = self.header(&located.record).unwrap_or_default();
            self.turn.put(located.record, merge.bucket, &merge.key, before, merge.siblings);
            self.metrics.records_mended.inc();
        }
        Ok(())
    }

    fn set_apart(&mut self, record: RecordKey, reason: &str) {
        let Ok((bucket, key)) = record.bucket_and_key() else {
            return self.outputs.push_back(Output::Halt(format!("storage is corrupt: {reason}")));
        };
        if self.damage.records.insert(record.clone()) {
            let (n, token) = record.position();
            let partition = self.topology.ring().partition(n, token);
            tracing::error!(%key, %partition, reason, "a record is damaged: this replica does not answer for the key \
                until it has been restored from the others. Check the disk");
            self.metrics.records_damaged.inc();
            self.actors.retire(partition);
            self.outputs.push_back(Output::Damaged { bucket, key });
        }
    }
}

/// How often the others are asked, while too few of them answer.
const MEND_INTERVAL: Duration = Duration::from_secs(5);
