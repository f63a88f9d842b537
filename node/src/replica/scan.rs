//! Pages of a scan, one step a turn.
//!
//! A scan asks for the keys of one bucket, and records of all buckets with the same n lie between each other: an empty bucket
//! beside a large one has whole arcs to walk through. So a page ends where the walk has visited enough, and says how far
//! that is, whether or not it has found anything; the coordinator goes on from there. Requests wait in a line, and a turn
//! makes one step of the first, after everything else.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use driftless_proto::client::Cursor;
use driftless_proto::{BucketId, Header, Refusal};
use driftless_ring::{NodeId, PartitionId, Token};

use crate::peer::{Page, Reply, RequestId, Scan};
use crate::shard::Shard;

use super::record::{self, Entry, Malformed, RecordKey};
use super::store::Store;
use super::{Replica, RequestError};

impl<S: Store> Replica<S> {
    /// Takes a request for a page; it is answered when its turn comes.
    pub(super) fn line_up(
        &mut self,
        shard: &Shard,
        from: NodeId,
        id: RequestId,
        scan: Scan,
    ) -> Result<(), RequestError> {
        if self.scans.len() >= SCANS_WAITING_MAX {
            shard.metrics.overloaded.inc();
            return Err(Refusal::Overloaded { retry_after_ms: shard.limits.retry_after_ms() }.into());
        }
        self.scans.push_back((from, id, scan));
        Ok(())
    }

    /// Whether a page could be made now.
    pub(crate) fn has_scans(&self) -> bool {
        !self.scans.is_empty() && !self.scans_wait
    }

    /// Something has been fetched: perhaps what the first scan waits for.
    pub(crate) fn handle_fetched(&mut self) {
        self.scans_wait = false;
    }

    /// Answers the scan that has waited for longest. A scan reads what has been applied, so it need not wait for a batch.
    pub(crate) fn scan_on(&mut self, shard: &Shard) {
        if self.scans_wait {
            return;
        }
        let Some((from, id, scan)) = self.scans.pop_front() else { return };
        let range = match self.range(shard, &scan) {
            Ok(range) => range,
            Err(error) => return self.conclude(shard, from, id, Err(error)),
        };
        let bounds = shard.limits.turn;
        if !self.store.prepare_range(&range.start[..]..&range.end[..], bounds.step_records, bounds.step_bytes) {
            self.scans_wait = true;
            return self.scans.push_front((from, id, scan));
        }
        let outcome = self.page(shard, &scan, &range).map(|page| self.reply(from, id, Reply::Page(page)));
        self.conclude(shard, from, id, outcome);
    }

    /// Where a page's records are.
    fn range(&self, shard: &Shard, scan: &Scan) -> Result<Range<Vec<u8>>, RequestError> {
        let bucket = shard.topology.bucket(scan.bucket).ok_or(Refusal::NoSuchBucket)?;
        let partition = PartitionId { n: bucket.quorum.n(), arc: scan.arc };
        shard.assert_mine(partition)?;
        if !shard.owns(partition) {
            return Err(shard.not_owner().into());
        }
        shard.check_counted(Some(scan.counted_for))?;
        let mut range = record::arc_range(partition, shard.ring().partitions());
        if let Some(after) = &scan.after {
            range.start = range.start.max(match &after.key {
                Some(key) => RecordKey::new(partition.n, after.token, scan.bucket, key).successor(),
                None => RecordKey::first_of(partition.n, after.token, scan.bucket),
            });
        }
        Ok(range)
    }

    fn page(&self, shard: &Shard, scan: &Scan, range: &Range<Vec<u8>>) -> Result<Page, RequestError> {
        let limit = scan.limit.clamp(1, shard.limits.scan_limit_max) as usize;
        let bounds = shard.limits.turn;
        let (mut entries, mut next, mut corrupt) = (Vec::new(), None, None);
        let (mut visited, mut bytes) = (0, 0);
        self.store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
            (visited, bytes) = (visited + 1, bytes + key.len() + value.len());
            let (at, entry) = match visit(scan.bucket, key, &value) {
                Ok(visited) => visited,
                Err(error) => {
                    corrupt = Some(error.in_record(key));
                    return ControlFlow::Break(());
                }
            };
            entries.extend(entry);
            let enough = visited >= bounds.step_records || bytes >= bounds.step_bytes;
            if enough || entries.len() == limit {
                next = at;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        corrupt.map_or(Ok(Page { entries, next }), |error| Err(error.into()))
    }
}

/// A record of the bucket: where it is, and what is known of its key.
type Found = (Cursor, Header);

/// How far a walk through a bucket has come with this record, `None` behind the last token of all; and the record, if it is
/// one of the bucket. Those of others are not looked into.
fn visit(bucket: BucketId, key: &[u8], value: &[u8]) -> Result<(Option<Cursor>, Option<Found>), Malformed> {
    let (token, of) = record::token_and_bucket(key)?;
    Ok(match of.cmp(&bucket) {
        Ordering::Less => (Some(Cursor { token, key: None }), None),
        Ordering::Equal => {
            let Entry { key, header, .. } = record::decode_entry(key, value)?;
            let at = Cursor { token, key: Some(key) };
            (Some(at.clone()), Some((at, header)))
        }
        Ordering::Greater => (token.0.checked_add(1).map(|next| Cursor { token: Token(next), key: None }), None),
    })
}

/// Pages that may wait: some tenths of a second for the last of them.
const SCANS_WAITING_MAX: usize = 256;
