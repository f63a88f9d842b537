//! The log itself: batches are appended, entered into the index, and made durable.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rand::RngCore as _;
use rand::rngs::StdRng;

use super::admission::Admission;
use super::folder::{Blocks, Folder, Unmade};
use super::footer::{Change, Footer};
use super::frame::{self, Kind};
use super::index::{Index, Place};
use super::segment::{self, FRAMES_AT, PAGE, Used};
use super::shortage::Shortage as _;
use super::table::Location;
use super::watermark::{Mark, Watermark};
use super::worker::Bell;
use super::{io_error, manifest};
use crate::planted::{Bug, Planted};
use crate::replica::store::{ApplyError, Batch, StoreError};

/// An open log. Lock order: `watermark`, `head`, then the index and `files`.
pub(super) struct Log {
    pub(super) folder: Box<dyn Folder>,
    /// Said to people.
    pub(super) place: String,
    pub(super) index: Index,
    /// Open files of all segments, by their numbers.
    pub(super) files: RwLock<Vec<Option<Arc<dyn Blocks>>>>,
    pub(super) head: Mutex<Head>,
    /// The newest batch known to be synced.
    pub(super) synced: AtomicU64,
    pub(super) watermark: Mutex<Watermark>,
    /// The first failure. Set once; every call answers it.
    pub(super) failure: OnceLock<StoreError>,
    /// Bytes of an ordinary segment.
    pub(super) segment_bytes: u64,
    pub(super) planted: Planted,
    pub(super) keeper: Bell,
    pub(super) filler: Bell,
}

/// What appending needs. Held for as long as a frame is written and entered into the index: so the order of frames is the order in
/// which the index has changed, and the last frame about a key is the truth.
pub(super) struct Head {
    /// The segment that is appended to, and where.
    pub(super) current: u32,
    pub(super) end: u64,
    /// Number of the newest frame.
    pub(super) batch: u64,
    /// Ordinal of the newest segment.
    pub(super) ordinal: u64,
    /// Segments in use, by number.
    pub(super) uses: Vec<Option<Use>>,
    /// Segments that can be used next.
    pub(super) spares: VecDeque<Spare>,
    /// What was appended to since the last sync.
    pub(super) dirty: BTreeSet<u32>,
    /// Whether files were made since the last sync.
    pub(super) names_dirty: bool,
    /// Changes in the current segment.
    pub(super) footer: Footer,
    /// Full segments whose footers are still to be written.
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) admission: Admission,
    pub(super) random: StdRng,
}

/// A segment in use.
#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) ordinal: u64,
    pub(super) salt: u64,
    /// Of the file.
    pub(super) bytes: u64,
    /// Where its frames end, if it is not the current one.
    pub(super) end: u64,
    pub(super) last_batch: u64,
    /// Bytes of records that the index refers to.
    pub(super) live: u64,
    /// Bytes of removals: they must outlive what they remove.
    pub(super) removals: u64,
    /// Whether its footer is durable: only then it can be merged.
    pub(super) footed: bool,
}

/// A segment that can be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare {
    pub(super) segment: u32,
    pub(super) bytes: u64,
}

/// A full segment.
pub(super) struct Sealed {
    pub(super) segment: u32,
    pub(super) last_batch: u64,
    pub(super) footer: Footer,
}

/// A change that is in a frame, and not yet in the index.
pub(super) struct Spot<'k> {
    pub(super) place: Place<'k>,
    pub(super) removes: bool,
    /// Its record in the frame.
    pub(super) at: usize,
    pub(super) length: usize,
    /// If it is a copy, where the record was.
    pub(super) from: Option<Location>,
}

/// Who appends. The last spare segments are for whoever makes others free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// A batch that adds something.
    Batch,
    /// A batch that only removes.
    Removal,
    /// What is copied, so that a segment can be used again; and a start.
    Merging,
}

/// Why nothing was appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Something has run out, in words.
    Short(String),
    Failed(StoreError),
}

impl Log {
    /// Appends a batch, and makes it visible.
    pub(super) fn apply(&self, batch: &Batch) -> Result<(), ApplyError> {
        self.check()?;
        let bytes = batch.changes.iter().map(|(key, value)| frame::record_bytes(key, value.as_deref())).sum();
        let (mut frame, mut spots) = (frame::begin(bytes), Vec::with_capacity(batch.changes.len()));
        let mut changed = BTreeSet::new();
        for (key, value) in batch.changes.iter().rev() {
            // Of several changes to a key the last one counts.
            if batch.changes.len() > 1 && !changed.insert(key) {
                continue;
            }
            let place = self.index.place(key);
            // What is not there needs no removal, and one that once was has its removal in the log.
            if value.is_none() && self.index.get(&place).is_none() {
                continue;
            }
            let at = frame.len();
            frame::push_record(&mut frame, key, value.as_deref());
            spots.push(Spot { place, removes: value.is_none(), at, length: frame.len() - at, from: None });
        }
        if spots.is_empty() {
            return Ok(());
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(ApplyError::Full(format!(
                "a batch has {} bytes, and at most {FRAME_BYTES_MAX} can be written",
                frame.len()
            )));
        }
        let mut head = self.head();
        let spares = head.spare_bytes();
        let asker = if crate::store::only_removes(batch) { Asker::Removal } else { Asker::Batch };
        match head.admission.admit(frame.len() as u64, asker == Asker::Removal, spares) {
            Ok(Ok(())) => {}
            Ok(Err(short)) => return Err(ApplyError::Full(short)),
            Err(e) => return Err(self.fail(io_error("ask what room is left", &e)).into()),
        }
        self.append_records(&mut head, frame, &spots, asker).map_err(|error| match error {
            AppendError::Short(short) => {
                head.admission.has_met(&short);
                ApplyError::Full(short)
            }
            AppendError::Failed(error) => error.into(),
        })
    }

    /// Appends records as one frame, and enters them into the index.
    pub(super) fn append_records(
        &self,
        head: &mut Head,
        frame: Vec<u8>,
        spots: &[Spot<'_>],
        asker: Asker,
    ) -> Result<(), AppendError> {
        let entries = spots.iter().map(|spot| Footer::bytes_of(&spot.place)).sum();
        let base = self.append_or_roll(head, Kind::Records, frame, spots.len() as u32, entries, asker)?;
        let segment = head.current;
        for spot in spots {
            // A segment is shorter than 4 GiB, see `FRAME_BYTES_MAX`.
            let location = Location { segment, offset: (base + spot.at as u64) as u32, length: spot.length as u32 };
            let (offset, length) = (location.offset, location.length);
            head.footer.push(&Change { place: spot.place, removes: spot.removes, offset, length });
            let before = if spot.removes {
                self.index.remove(&spot.place)
            } else if let Some(from) = spot.from {
                self.index.switch(&spot.place, from, location).then_some(from)
            } else {
                self.index.set(&spot.place, location)
            };
            head.account(location, spot.removes, before);
        }
        Ok(())
    }

    /// Appends a frame to the current segment, or to the next if it has no room for it; answers where. Nothing was appended if
    /// something is short.
    fn append_or_roll(
        &self,
        head: &mut Head,
        kind: Kind,
        frame: Vec<u8>,
        count: u32,
        entries: u64,
        asker: Asker,
    ) -> Result<u64, AppendError> {
        if !head.has_room(&frame, entries) {
            let length = frame.len().next_multiple_of(frame::ALIGN) as u64;
            self.roll(head, length + Footer::default().bytes_with(entries), asker)?;
        }
        self.append(head, kind, frame, count)
    }

    fn append(&self, head: &mut Head, kind: Kind, mut frame: Vec<u8>, count: u32) -> Result<u64, AppendError> {
        let Some(current) = head.current_use() else {
            return Err(AppendError::Failed(StoreError::Io("no segment is in use".into())));
        };
        let salt = current.salt;
        let synced = self.synced.load(Ordering::Acquire);
        frame::finish(&mut frame, kind, count, salt, head.batch + 1, synced);
        let Some(file) = self.file(head.current) else {
            return Err(AppendError::Failed(StoreError::Io("the current segment is not open".into())));
        };
        if let Err(e) = file.write_at(&frame, head.end) {
            // What was written of it is no frame, and the next one is written over it.
            return Err(match e.shortage() {
                Some(short) => AppendError::Short(short.into()),
                None => AppendError::Failed(self.fail(io_error("write to a segment", &e))),
            });
        }
        let at = head.end;
        head.batch += 1;
        head.end += frame.len() as u64;
        head.dirty.insert(head.current);
        Ok(at)
    }

    /// Begins the next segment, with room for a frame of so many bytes and its footer. Nothing has changed if something is short.
    pub(super) fn roll(&self, head: &mut Head, needed: u64, asker: Asker) -> Result<(), AppendError> {
        let mut manifest = manifest::frame(head, None);
        let overhead = FRAMES_AT + manifest.len() as u64 + 2 * PAGE;
        let failed = |e: &io::Error| match e.shortage() {
            Some(short) => AppendError::Short(short.into()),
            None => AppendError::Failed(self.fail(io_error("begin a segment", e))),
        };
        let spare = self.next_segment(head, needed + overhead, asker).map_err(|e| failed(&e))?;
        let Spare { segment, bytes } = spare;
        // Also if it comes to nothing: no two heads may say the same one.
        head.ordinal += 1;
        let used = Used { bytes, salt: head.random.next_u64(), ordinal: head.ordinal, first_batch: head.batch + 1 };
        frame::finish(
            &mut manifest,
            Kind::Manifest,
            0,
            used.salt,
            used.first_batch,
            self.synced.load(Ordering::Acquire),
        );
        let begun = match self.file(segment) {
            Some(file) => segment::begin(&*file, used).and_then(|()| file.write_at(&manifest, FRAMES_AT)),
            None => Err(io::Error::other("a segment is not open")),
        };
        if let Err(e) = begun {
            head.spares.push_front(spare);
            return Err(failed(&e));
        }
        let (end, batch, current) = (head.end, head.batch, head.current);
        if let Some(full) = head.use_mut(current) {
            (full.end, full.last_batch) = (end, batch);
            let footer = std::mem::take(&mut head.footer);
            head.sealed.push_back(Sealed { segment: current, last_batch: batch, footer });
        }
        let Used { salt, ordinal, first_batch, .. } = used;
        let begun =
            Use { ordinal, salt, bytes, end: FRAMES_AT, last_batch: batch, live: 0, removals: 0, footed: false };
        head.begin_use(segment, begun);
        (head.current, head.batch) = (segment, first_batch);
        head.end = FRAMES_AT + manifest.len() as u64;
        head.dirty.insert(segment);
        self.keeper.ring();
        self.filler.ring();
        Ok(())
    }

    /// Says in the log once more which segments are in use, after something has changed that no frame says.
    pub(super) fn restate(&self, head: &mut Head) -> Result<(), AppendError> {
        let manifest = manifest::frame(head, Some(head.current));
        if head.has_room(&manifest, 0) {
            self.append(head, Kind::Manifest, manifest, 0).map(drop)
        } else {
            // The next segment begins with one.
            self.roll(head, 0, Asker::Merging)
        }
    }

    /// Says in the log that a segment is used no more; answers the frame that does.
    pub(super) fn free(&self, head: &mut Head, segment: u32) -> Result<u64, AppendError> {
        let Some(ordinal) = head.use_mut(segment).map(|used| used.ordinal) else { return Ok(head.batch) };
        self.append_or_roll(head, Kind::Freed, manifest::freed(ordinal), 0, 0, Asker::Merging)?;
        head.uses[segment as usize] = None;
        Ok(head.batch)
    }

    /// How long the next segment is, unless its first batch is longer: longer ones in a larger log, that they do not become too many to
    /// be kept open.
    pub(super) fn usual_bytes(&self, head: &Head) -> u64 {
        let used: u64 = head.in_use().map(|(_, used)| used.bytes).sum();
        let share = (used / SEGMENTS_USUAL).checked_ilog2().map_or(0, |bits| 1 << bits);
        share.clamp(self.segment_bytes, SEGMENT_BYTES_MAX.max(self.segment_bytes))
    }

    /// A spare segment with room for so much, or a new one.
    fn next_segment(&self, head: &mut Head, needed: u64, asker: Asker) -> io::Result<Spare> {
        let wanted = needed.next_multiple_of(PAGE).max(self.usual_bytes(head));
        let kept = match asker {
            Asker::Batch => SPARES_KEPT,
            Asker::Removal => SPARES_KEPT - 1,
            Asker::Merging => 0,
        };
        if head.spares.len() <= kept {
            // Another takes the place of the one that is used. Where none can be made the last ones are not for everybody.
            let made = self.create(wanted);
            if kept > 0 || made.is_ok() {
                head.spares.push_back(made?);
            }
            head.names_dirty = true;
        }
        if let Some(spare) = self.take_spare(head, wanted)? {
            return Ok(spare);
        }
        head.names_dirty = true;
        self.create(wanted).or_else(|e| match (e.shortage(), asker) {
            // When room is short, one that holds little more than the frame.
            (Some(_), Asker::Removal | Asker::Merging) => match self.take_spare(head, needed)? {
                Some(spare) => Ok(spare),
                None => self.create(needed.next_multiple_of(SHORT_SEGMENT_BYTES)),
            },
            _ => Err(e),
        })
    }

    /// A spare segment of that length. One that somebody has linked is somebody's copy, and left to them.
    fn take_spare(&self, head: &mut Head, wanted: u64) -> io::Result<Option<Spare>> {
        while let Some(at) = head.spares.iter().position(|spare| spare.bytes >= wanted)
            && let Some(spare) = head.spares.remove(at)
        {
            match self.file(spare.segment) {
                Some(file) if file.links()? == 1 => return Ok(Some(spare)),
                _ => self.give_up(spare.segment)?,
            }
        }
        Ok(None)
    }

    /// Takes away the name of a file that is not used.
    pub(super) fn give_up(&self, segment: u32) -> io::Result<()> {
        match self.folder.remove(&segment::name(segment)) {
            // Somebody has taken it away already.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => self.open_file(segment, None),
        }
        Ok(())
    }

    /// A new file for a segment, whose blocks are not written yet. Its name is not durable yet.
    pub(super) fn create(&self, bytes: u64) -> io::Result<Spare> {
        let segment = self.take_number();
        match self.folder.create(&segment::name(segment), bytes) {
            Ok(file) => {
                self.open_file(segment, Some(file));
                Ok(Spare { segment, bytes })
            }
            Err(e) => {
                // Whatever is left of it is taken away by the next start at the latest.
                let _ = self.folder.remove(&segment::name(segment));
                self.open_file(segment, None);
                Err(e)
            }
        }
    }

    /// Makes durable all that was applied before the call.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let mut watermark = lock(&self.watermark);
        self.check()?;
        let mut head = self.head();
        let batch = head.batch;
        if batch == self.synced.load(Ordering::Acquire) {
            return Ok(());
        }
        // What is synced is not written again: the next frame begins on another page.
        head.end = head.end.next_multiple_of(PAGE);
        let dirty = std::mem::take(&mut head.dirty);
        let names = std::mem::take(&mut head.names_dirty);
        drop(head);
        if self.planted.is(Bug::WatermarkAhead) {
            let _ = watermark.write(Mark { batch, secret: self.index.secret() });
        }
        for segment in dirty {
            if self.planted.is(Bug::SyncSkipped) {
                continue;
            }
            let synced = self.file(segment).map_or(Ok(()), |file| file.sync());
            synced.map_err(|e| self.fail(io_error("sync a segment", &e)))?;
        }
        if names {
            self.folder.sync().map_err(|e| self.fail(io_error("sync the folder of the log", &e)))?;
        }
        // What was applied meanwhile may not be durable: the next sync has to see to it.
        let newest = || self.head().batch;
        let noted_late = self.planted.is_where(Bug::SyncNotedLate, || newest() > batch);
        let batch = if noted_late { newest() } else { batch };
        self.synced.store(batch, Ordering::Release);
        if let Err(e) = watermark.write(Mark { batch, secret: self.index.secret() }) {
            // The other slot holds an older mark, which is as true.
            let Some(shortage) = e.shortage() else {
                return Err(self.fail(io_error("write the record of syncs", &e)));
            };
            tracing::debug!(shortage, "the record of syncs stays as it was");
        }
        drop(watermark);
        if !lock(&self.head).sealed.is_empty() {
            self.keeper.ring();
        }
        Ok(())
    }

    pub(super) fn file(&self, segment: u32) -> Option<Arc<dyn Blocks>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(segment as usize)?.clone()
    }

    pub(super) fn open_file(&self, segment: u32, file: Option<Arc<dyn Blocks>>) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let at = segment as usize;
        if files.len() <= at {
            files.resize(at + 1, None);
        }
        files[at] = file;
    }

    /// A number that no segment has, taken.
    fn take_number(&self) -> u32 {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let at = files.iter().position(Option::is_none).unwrap_or(files.len());
        if at == files.len() {
            files.push(None);
        }
        files[at] = Some(Arc::new(Unmade));
        at as u32
    }

    pub(super) fn head(&self) -> MutexGuard<'_, Head> {
        lock(&self.head)
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Answers the first failure.
    pub(super) fn fail(&self, error: StoreError) -> StoreError {
        let first = self.failure.get_or_init(|| {
            tracing::error!(%error, "the store has failed");
            error
        });
        first.clone()
    }
}

impl Use {
    /// How much of the file the frames take, and what they left because it was not enough for the next. A segment that was hardly begun
    /// takes its whole file: copying what is in it gives that back.
    pub(super) fn extent(&self) -> u64 {
        if self.end < self.bytes / 2 { self.bytes } else { self.end }
    }
}

impl Head {
    pub(super) fn use_mut(&mut self, segment: u32) -> Option<&mut Use> {
        self.uses.get_mut(segment as usize)?.as_mut()
    }

    pub(super) fn current_use(&self) -> Option<&Use> {
        self.uses.get(self.current as usize)?.as_ref()
    }

    pub(super) fn begin_use(&mut self, segment: u32, begun: Use) {
        let at = segment as usize;
        if self.uses.len() <= at {
            self.uses.resize(at + 1, None);
        }
        self.uses[at] = Some(begun);
    }

    /// Bytes of spare segments that batches may use.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.spares.iter().skip(SPARES_KEPT).map(|spare| spare.bytes).sum()
    }

    /// Whether a frame with so many bytes of entries fits into the current segment, with a footer behind it.
    fn has_room(&self, frame: &[u8], entries: u64) -> bool {
        let needed = (frame.len() + frame::ALIGN) as u64 + PAGE + self.footer.bytes_with(entries);
        self.current_use().is_some_and(|current| self.end + needed <= current.bytes)
    }

    /// Segments in use, with their numbers.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (u32, &Use)> {
        self.uses.iter().enumerate().filter_map(|(segment, used)| Some((segment as u32, used.as_ref()?)))
    }

    /// A record was written there, and what was there before is void.
    pub(super) fn account(&mut self, location: Location, removes: bool, before: Option<Location>) {
        if let Some(used) = self.use_mut(location.segment) {
            let length = u64::from(location.length);
            if removes { used.removals += length } else { used.live += length }
        }
        if let Some(before) = before
            && let Some(used) = self.use_mut(before.segment)
        {
            used.live = used.live.saturating_sub(before.length.into());
        }
    }
}

/// Nothing panics while one of these is held and half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locations have 32 bits, and the largest frame is in a segment of its own.
const FRAME_BYTES_MAX: usize = 1 << 31;

/// About so many segments a log has, at least until they are as long as they become.
const SEGMENTS_USUAL: u64 = 128;

/// A longer segment takes long to be merged, and to be read by a start.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// A shorter segment than usual has a multiple of so many bytes.
const SHORT_SEGMENT_BYTES: u64 = 256 << 10;

/// Spare segments that batches leave to merging when room is short.
pub(super) const SPARES_KEPT: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_disk_says_how_long_segments_are() {
        let code = [
            ("FRAME_BYTES_MAX", FRAME_BYTES_MAX as u64),
            ("SEGMENTS_USUAL", SEGMENTS_USUAL),
            ("SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX),
            ("SPARES_KEPT", SPARES_KEPT as u64),
        ];
        driftless_testkit::pages::assert_constants(
            include_str!("../../../../docs/disk-format.md"),
            "node/src/store/log/append.rs",
            &code,
        );
    }
}
