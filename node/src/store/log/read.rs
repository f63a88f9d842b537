//! Reading: the index says where a record is, and one read of its segment gets it.

use std::io;
use std::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;

use super::append::Log;
use super::frame::{self, Record};
use super::index::{Place, Walk};
use super::shortage::wait_out;
use super::table::{Entry, Location};
use super::{io_error, segment};
use crate::replica::store::StoreError;

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

/// Entries that a scan takes from the index at once.
const CHUNK: usize = 64;
