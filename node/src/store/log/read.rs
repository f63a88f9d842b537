//! Reading: the index says where a record is, and one read of its segment gets it.

use std::io;
use std::ops::{Bound, ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::append::Log;
use super::fetch::Piece;
use super::folder::{Blocks, Resident};
use super::frame::{self, Record};
use super::index::{Place, Walk};
use super::segment::PAGE;
use super::shortage::wait_out;
use super::table::{Entry, Location};
use super::{io_error, segment};
use crate::replica::store::StoreError;

/// What can be said of a key without waiting for a disk.
pub(super) enum Look {
    Found(Option<Bytes>),
    /// Its record has to be fetched.
    Away(Piece),
    /// It was moved meanwhile, or is not what was written: reading it will tell.
    Unclear,
}

impl Piece {
    fn of(file: Arc<dyn Blocks>, location: Location) -> Piece {
        Piece { file, at: location.offset.into(), bytes: location.length.into() }
    }
}

impl Log {
    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        let place = self.index.place(key);
        let Some(location) = self.index.get(&place) else { return Ok(None) };
        match self.read(&place, location)? {
            Some((found, value)) if found == key => Ok(Some(value)),
            // One in 2^32 for two keys whose tokens are equal, of which there are one in 2^64; and nobody can search for them.
            Some(_) => Err(self.fail(StoreError::Corrupt("two keys have the same token and the same check".into()))),
            None => Ok(None),
        }
    }

    /// Looks for the value of a key without waiting for a disk.
    pub(super) fn look(&self, key: &[u8]) -> Look {
        if self.failure.get().is_some() {
            return Look::Unclear;
        }
        let place = self.index.place(key);
        let Some(location) = self.index.get(&place) else { return Look::Found(None) };
        let Some(file) = self.file(location.segment) else { return Look::Unclear };
        if location.length > LOOKED_AT_MAX {
            return if self.is_away(location) { Look::Away(Piece::of(file, location)) } else { Look::Unclear };
        }
        let mut bytes = vec![0; location.length as usize];
        match file.read_resident(&mut bytes, location.offset.into()) {
            Ok(Resident::Read) => {}
            Ok(Resident::No) => return Look::Away(Piece::of(file, location)),
            Ok(Resident::Unknown) | Err(_) => return Look::Unclear,
        }
        let bytes = Bytes::from(bytes);
        match frame::record(&bytes) {
            Some(Record { key: found, value: Some(value), whole: true, .. }) if found == key => {
                Look::Found(Some(bytes.slice_ref(value)))
            }
            _ => Look::Unclear,
        }
    }

    /// What of the first records of a range is not resident: of so many, or so many bytes, and the one behind them.
    pub(super) fn away(&self, range: &Range<&[u8]>, records: usize, bytes: usize) -> Vec<Piece> {
        let Some((first, last)) = self.positions(range) else { return Vec::new() };
        let (mut walk, mut found, mut away) = (Walk::new(first, last), Vec::new(), Vec::new());
        let (mut seen, mut length) = (0, 0);
        while seen <= records && length <= bytes && self.index.walk(&mut walk, CHUNK, &mut found).is_some() {
            for location in found.iter().map(|entry| entry.location) {
                if seen > records || length > bytes {
                    break;
                }
                (seen, length) = (seen + 1, length + location.length as usize);
                if self.is_away(location) {
                    away.push(location);
                }
            }
        }
        away.sort_unstable();
        let piece = |location: Location| Some(Piece::of(self.file(location.segment)?, location));
        away.into_iter().filter_map(piece).collect()
    }

    /// Whether the first or the last byte has to be fetched: what lies between two pages that are resident is, as a rule.
    fn is_away(&self, Location { segment, offset, length }: Location) -> bool {
        let Some(file) = self.file(segment) else { return false };
        let is_away = |at: u32| matches!(file.read_resident(&mut [0], at.into()), Ok(Resident::No));
        let last = offset + length.saturating_sub(1);
        is_away(offset) || (u64::from(last) / PAGE != u64::from(offset) / PAGE && is_away(last))
    }

    /// Visits keys in order.
    pub(super) fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.check()?;
        if range.start >= range.end {
            return Ok(());
        }
        let prefix = self.index.prefix();
        if range.start < prefix
            && self.scan_ordered(Bound::Included(range.start), range.end.min(prefix), visit)?.is_break()
        {
            return Ok(());
        }
        if let Some((first, last)) = self.positions(&range)
            && self.scan_tokens(Walk::new(first, last), &range, visit)?.is_break()
        {
            return Ok(());
        }
        if range.end > prefix {
            // None of the others begins with the prefix.
            let from = if range.start > prefix { Bound::Included(range.start) } else { Bound::Excluded(prefix) };
            let _ = self.scan_ordered(from, range.end, visit)?;
        }
        Ok(())
    }

    /// First and last position that keys of a range can have.
    fn positions(&self, range: &Range<&[u8]>) -> Option<((u8, u64), (u8, u64))> {
        let prefix = self.index.prefix();
        let first = match self.index.position(range.start) {
            Some(first) => first,
            None if range.start < prefix => (0, 0),
            None => return None,
        };
        let last = match self.index.position(range.end) {
            Some(last) => last,
            None if range.end > prefix => (u8::MAX, u64::MAX),
            None => return None,
        };
        Some((first, last))
    }

    fn scan_ordered(
        &self,
        from: Bound<&[u8]>,
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut last: Option<Bytes> = None;
        loop {
            let from = last.as_deref().map_or(from, Bound::Excluded);
            if let Bound::Included(start) | Bound::Excluded(start) = from
                && start >= end
            {
                return Ok(ControlFlow::Continue(()));
            }
            let Some((key, location)) = self.index.next_ordered(from, Bound::Excluded(end)) else {
                return Ok(ControlFlow::Continue(()));
            };
            if let Some((_, value)) = self.read(&Place::Ordered(&key), location)?
                && visit(&key, value).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            last = Some(key);
        }
    }

    fn scan_tokens(
        &self,
        mut walk: Walk,
        range: &Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut found = Vec::new();
        while let Some(table) = self.index.walk(&mut walk, CHUNK, &mut found) {
            for equal in found.chunk_by(|one, other| one.token == other.token) {
                let mut records = Vec::with_capacity(equal.len());
                for Entry { token, check, location, .. } in equal.iter().copied() {
                    records.extend(self.read(&Place::Token { table, token, check }, location)?);
                }
                records.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                for (key, value) in records {
                    if range.contains(&&key[..]) && visit(&key, value).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Key and value at a location that the index has given for a place; or where it is by now; or nothing if it is gone.
    fn read(&self, place: &Place<'_>, mut location: Location) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            let (read, bytes) = match self.file(location.segment) {
                Some(file) => {
                    let mut bytes = vec![0; location.length as usize];
                    let read = wait_out("read a segment", || file.read_at(&mut bytes, location.offset.into()));
                    (read, Bytes::from(bytes))
                }
                None => (Err(io::Error::other("the segment is gone")), Bytes::new()),
            };
            let record = frame::record(&bytes).filter(|record| read.is_ok() && self.belongs(record, place));
            if let Some(Record { key, value: Some(value), whole: true, .. }) = record {
                return Ok(Some((bytes.slice_ref(key), bytes.slice_ref(value))));
            }
            // It may have been copied, and its segment used again, since the index was asked.
            match self.index.get(place) {
                None => return Ok(None),
                Some(now) if now != location => {
                    location = now;
                    continue;
                }
                Some(_) => {}
            }
            if let Err(e) = &read {
                return Err(self.fail(io_error("read a segment", e)));
            }
            if let (Some(record), Place::Token { .. }) = (record, place) {
                // These say by themselves that they are damaged, and are healed from others.
                let value = record.value.unwrap_or_default();
                tracing::warn!(
                    segment = location.segment,
                    offset = location.offset,
                    "a record is not what was written"
                );
                return Ok(Some((bytes.slice_ref(record.key), bytes.slice_ref(value))));
            }
            let what = format!("the record at {} of {}", location.offset, segment::name(location.segment));
            return Err(self.fail(StoreError::Corrupt(super::corrupt_in_use(&self.place, &what))));
        }
    }

    /// Whether a record has the key of a place, as far as the place says.
    fn belongs(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        self.index.place(record.key) == *place
    }
}

/// Of longer records it is seen whether they are resident, and not kept what was read to see it.
const LOOKED_AT_MAX: u32 = 256 << 10;

/// Entries that a scan takes from the index at once.
const CHUNK: usize = 64;
