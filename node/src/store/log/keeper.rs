//! What keeps a log in order behind everybody's back: footers, and merging.
//!
//! ```text
//! a full segment  ── all of it is synced ──▶ its footer is written
//!                 ── much of it is void ───▶ what is live is copied to the head, and a frame says that the segment is free
//!                 ── that frame is synced ─▶ it is a spare one
//! ```
//! All of that is done in small steps with pauses between them: a disk that is given much at once keeps everybody's syncs waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::append::{AppendError, Asker, Head, Log, Spare, Spot, Use, lock};
use super::footer::{Change, Footer};
use super::frame;
use super::io_error;
use super::recover::Unsynced;
use super::segment;
use super::shortage::{Shortage as _, wait_out};
use super::table::Location;
use super::worker::{Bell, Next, Worker};
use crate::planted::Bug;
use crate::replica::store::StoreError;

/// A segment out of use, to be used again when the frame that says so is synced.
pub(super) struct Freed {
    pub(super) segment: u32,
    pub(super) batch: u64,
}

/// Keeps one log in order.
pub(super) struct Keeper {
    log: Arc<Log>,
    freed: VecDeque<Freed>,
    merging: Option<Merging>,
    /// Segments that cannot be merged, because a record in them is damaged; and how much was live in them then.
    damaged: BTreeMap<u32, u64>,
    /// Segments whose footers are damaged: they are merged after the next start, which writes others.
    footless: BTreeSet<u32>,
    /// Segments for whose records there was no room.
    put_off: BTreeSet<u32>,
    /// Whether a sync was made for what was freed.
    idle: bool,
}

struct Merging {
    segment: u32,
    footer: Footer,
    /// Bytes of the footer's entries that were looked at.
    done: usize,
}

/// A record that may have to be copied.
struct Candidate {
    location: Location,
    bytes: Vec<u8>,
    removes: bool,
}

/// How full the log is.
#[derive(Clone, Copy, Default, Debug)]
struct Fill {
    used: u64,
    live: u64,
    removals: u64,
}

impl Keeper {
    /// With segments that are to be used again when that frame is synced.
    pub(super) fn new(log: Arc<Log>, freed: Vec<Freed>) -> Keeper {
        let freed = freed.into();
        Keeper {
            log,
            freed,
            merging: None,
            damaged: BTreeMap::new(),
            put_off: BTreeSet::new(),
            footless: BTreeSet::new(),
            idle: false,
        }
    }

    #[cfg(test)]
    pub(super) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    /// Writes the footer of the oldest full segment that is synced.
    fn write_footer(&mut self) -> Result<bool, StoreError> {
        let synced = self.log.synced.load(Ordering::Acquire);
        let mut head = self.log.head();
        let is_synced = head.sealed.front().is_some_and(|sealed| sealed.last_batch <= synced);
        let sealed = if is_synced { head.sealed.pop_front() } else { None };
        let Some(sealed) = sealed else { return Ok(false) };
        let Some((salt, end)) = head.use_mut(sealed.segment).map(|used| (used.salt, used.end)) else { return Ok(true) };
        drop(head);
        let file = self.log.file(sealed.segment);
        let Some(file) = file else { return Ok(true) };
        let written = sealed.footer.write(&*file, salt, end, &self.log.index).and_then(|()| file.sync());
        let watermark = lock(&self.log.watermark).file();
        let written = written.and_then(|()| watermark.sync());
        if let Err(e) = written {
            if e.shortage().is_none() {
                return Err(self.log.fail(io_error("write the footer of a segment", &e)));
            }
            // It is written when there is room again; until then the segment is not merged.
            self.log.head().sealed.push_back(sealed);
            return Ok(false);
        }
        if let Some(used) = self.log.head().use_mut(sealed.segment) {
            used.footed = true;
        }
        Ok(true)
    }

    /// Makes a freed segment a spare one.
    fn recycle(&mut self) -> Result<bool, StoreError> {
        let synced = self.log.synced.load(Ordering::Acquire);
        let early = || self.log.planted.is(Bug::SegmentReusedEarly);
        let is_synced = self.freed.front().is_some_and(|freed| freed.batch <= synced || early());
        let freed = if is_synced { self.freed.pop_front() } else { None };
        let Some(Freed { segment, .. }) = freed else { return Ok(false) };
        let Some(file) = self.log.file(segment) else { return Ok(true) };
        self.damaged.remove(&segment);
        self.footless.remove(&segment);
        self.put_off.clear();
        self.log.filler.ring();
        let bytes = file.bytes().map_err(|e| self.log.fail(io_error("look at a segment", &e)))?;
        self.log.head().spares.push_back(Spare { segment, bytes });
        Ok(true)
    }

    /// Copies a piece of what is live in the segment that is being merged; answers how long to pause then.
    fn merge(&mut self) -> Result<Option<Duration>, StoreError> {
        if self.merging.is_none() && !self.begin_merging()? {
            return Ok(None);
        }
        let Some(merging) = &mut self.merging else { return Ok(Some(STEP_PAUSE)) };
        let segment = merging.segment;
        let Some(file) = self.log.file(segment) else {
            self.merging = None;
            return Ok(Some(STEP_PAUSE));
        };
        let (mut candidates, mut bytes, mut looked) = (Vec::new(), 0, 0);
        let mut done = merging.done;
        while bytes < COPY_BYTES
            && looked < COPY_LOOKS
            && let Some((change, next)) = merging.footer.change_at(done)
        {
            (looked, done) = (looked + 1, next);
            let location = Location { segment, offset: change.offset, length: change.length };
            if !self.log.may_be_needed(&change, location) {
                continue;
            }
            let mut record = vec![0; change.length as usize];
            let read = wait_out("read a segment", || file.read_at(&mut record, change.offset.into()));
            read.map_err(|e| self.log.fail(io_error("read a segment", &e)))?;
            bytes += record.len();
            candidates.push(Candidate { location, bytes: record, removes: change.removes });
        }
        let ended = looked == 0;
        let mut head = self.log.head();
        let ordinal = head.use_mut(segment).map(|used| used.ordinal);
        let is_oldest = head.in_use().map(|(_, used)| used.ordinal).min() == ordinal;
        let early = || self.log.planted.is(Bug::RemovalDroppedEarly);
        let is_needed = |candidate: &Candidate, now: Option<Location>| match now {
            Some(now) => !candidate.removes && now == candidate.location,
            // What a removal removes is not in a younger segment: only older ones could still have it.
            None => candidate.removes && !is_oldest && !early(),
        };
        match self.log.copy(&mut head, &candidates, is_needed) {
            Ok(()) => merging.done = done,
            Err(CopyError::Damaged) => {
                let live = head.use_mut(segment).map_or(0, |used| used.live);
                if self.damaged.insert(segment, live).is_none() {
                    tracing::error!(
                        segment = segment::name(segment),
                        "a record in a segment is damaged: the segment is kept as it is"
                    );
                }
                self.merging = None;
                return Ok(Some(STEP_PAUSE));
            }
            // Another may need less room.
            Err(CopyError::Append(AppendError::Short(short))) => {
                tracing::debug!(short, segment = segment::name(segment), "merging a segment is put off");
                self.put_off.insert(segment);
                self.merging = None;
                return Ok(Some(STEP_PAUSE));
            }
            Err(CopyError::Append(AppendError::Failed(error))) => return Err(error),
        }
        if ended {
            match self.log.free(&mut head, segment) {
                Ok(batch) => self.freed.push_back(Freed { segment, batch }),
                Err(AppendError::Short(_)) => return Ok(None),
                Err(AppendError::Failed(error)) => return Err(error),
            }
            self.merging = None;
        }
        let fill = Fill::of(&head);
        drop(head);
        self.idle = false;
        if self.freed.len() > FREED_MAX {
            self.log.sync()?;
        }
        Ok(Some(fill.pause(bytes)))
    }

    /// Chooses the segment from which least has to be copied, if there is reason to.
    fn begin_merging(&mut self) -> Result<bool, StoreError> {
        let Some(Chosen { segment, salt, end }) = self.choose() else {
            // Those are looked at again next time.
            self.put_off.clear();
            return Ok(false);
        };
        let Some(file) = self.log.file(segment) else { return Ok(false) };
        let footer = wait_out("read a footer", || Footer::read(&*file, salt, end));
        let footer = footer.map_err(|e| self.log.fail(io_error("read a footer", &e)))?;
        match footer {
            Some((footer, _)) => self.merging = Some(Merging { segment, footer, done: 0 }),
            None => {
                tracing::error!(
                    segment = segment::name(segment),
                    "the footer of a segment is damaged: the segment is kept as it is"
                );
                self.footless.insert(segment);
            }
        }
        Ok(true)
    }

    fn choose(&self) -> Option<Chosen> {
        let mut head = self.log.head();
        let fill = Fill::of(&head);
        let short = head.admission.shortage(0).is_some();
        let oldest = head.in_use().map(|(_, used)| used.ordinal).min();
        let is_oldest = |used: &Use| Some(used.ordinal) == oldest;
        let held = |used: &Use| used.live + if is_oldest(used) { 0 } else { used.removals };
        let can = |segment: u32, used: &Use| {
            let set_apart = self.damaged.get(&segment) == Some(&used.live) || self.put_off.contains(&segment);
            let set_apart = set_apart || self.footless.contains(&segment);
            segment != head.current && used.footed && !set_apart
        };
        let chosen = |(segment, used): (u32, &Use)| Chosen { segment, salt: used.salt, end: used.end };
        let all = || head.in_use().filter(|(segment, used)| can(*segment, used));
        let emptiest = all().min_by_key(|(_, used)| held(used) * 1000 / used.extent());
        let emptiest = emptiest.filter(|(_, used)| held(used) * 100 < used.extent() * WORTHWHILE_PERCENT);
        if fill.is_worth_merging(short) && emptiest.is_some() {
            return emptiest.map(chosen);
        }
        // Removals can go only when everything older is gone.
        let has_many_removals = fill.removals * 100 > fill.used * REMOVALS_PERCENT;
        all().find(|(_, used)| has_many_removals && is_oldest(used)).map(chosen)
    }
}

/// A segment to merge.
struct Chosen {
    segment: u32,
    salt: u64,
    end: u64,
}

impl Worker for Keeper {
    fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn bell(log: &Log) -> &Bell {
        &log.keeper
    }

    fn step(&mut self) -> Result<Next, StoreError> {
        self.log.check()?;
        if self.write_footer()? || self.recycle()? {
            return Ok(Next::After(STEP_PAUSE));
        }
        if let Some(pause) = self.merge()? {
            return Ok(Next::After(pause));
        }
        if !self.freed.is_empty() && !std::mem::replace(&mut self.idle, true) {
            // Nobody else may ask for a sync, and what was freed waits for one.
            self.log.sync()?;
            return Ok(Next::After(STEP_PAUSE));
        }
        Ok(Next::WhenRung)
    }
}

enum CopyError {
    /// A record is not what was written.
    Damaged,
    Append(AppendError),
}

impl Log {
    /// Whether a record may have to be copied before its segment goes. Asked again when it is copied.
    fn may_be_needed(&self, change: &Change<'_>, location: Location) -> bool {
        match self.index.get(&change.place) {
            Some(now) => !change.removes && now == location,
            None => change.removes,
        }
    }

    /// Copies records that the last start has found but that are not known to be synced.
    pub(super) fn secure(&self, head: &mut Head, found: &[Unsynced]) -> Result<(), StoreError> {
        let mut found = found.iter().copied().peekable();
        while found.peek().is_some() {
            let (mut copies, mut bytes) = (Vec::new(), 0);
            while bytes < COPY_BYTES
                && let Some(Unsynced { location, removes }) = found.next()
            {
                let Some(file) = self.file(location.segment) else { continue };
                let mut record = vec![0; location.length as usize];
                let read = wait_out("read a segment", || file.read_at(&mut record, location.offset.into()));
                read.map_err(|e| self.fail(io_error("read a segment", &e)))?;
                bytes += record.len();
                copies.push(Candidate { location, bytes: record, removes });
            }
            let kept = |candidate: &Candidate, now: Option<Location>| {
                now == (!candidate.removes).then_some(candidate.location)
            };
            self.copy(head, &copies, kept).map_err(|error| match error {
                CopyError::Damaged => StoreError::Corrupt("a record that was not synced is damaged".into()),
                CopyError::Append(AppendError::Short(short)) => {
                    StoreError::Io(format!("cannot secure what was not synced: {short}"))
                }
                CopyError::Append(AppendError::Failed(error)) => error,
            })?;
        }
        Ok(())
    }

    /// Copies those of some records that are needed, by where the key's record is now. Nothing changes meanwhile, so that a copy is
    /// never newer than what it is a copy of.
    fn copy(
        &self,
        head: &mut Head,
        candidates: &[Candidate],
        is_needed: impl Fn(&Candidate, Option<Location>) -> bool,
    ) -> Result<(), CopyError> {
        let mut frame = frame::begin(candidates.iter().map(|candidate| candidate.bytes.len()).sum());
        let mut spots = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Candidate { location, bytes, removes } = candidate;
            let record = frame::record(bytes).filter(|record| record.whole && record.length == bytes.len());
            let Some(record) = record else {
                return Err(CopyError::Damaged);
            };
            let place = self.index.place(record.key);
            if is_needed(candidate, self.index.get(&place)) {
                let at = frame.len();
                frame.extend(bytes);
                let from = (!removes).then_some(*location);
                spots.push(Spot { place, removes: *removes, at, length: bytes.len(), from });
            }
        }
        if spots.is_empty() {
            return Ok(());
        }
        self.append_records(head, frame, &spots, Asker::Merging).map_err(CopyError::Append)
    }
}

impl Fill {
    fn of(head: &Head) -> Fill {
        let sealed = head.in_use().filter(|(segment, _)| *segment != head.current);
        sealed.fold(Fill::default(), |fill, (_, used)| Fill {
            used: fill.used + used.extent(),
            live: fill.live + used.live,
            removals: fill.removals + used.removals,
        })
    }

    fn is_worth_merging(&self, short: bool) -> bool {
        let percent = if short { WORTHWHILE_PERCENT } else { FILL_PERCENT };
        self.live * 100 < self.used * percent
    }

    /// The emptier the log is, the shorter: merging must keep up with whoever writes.
    fn pause(&self, bytes: usize) -> Duration {
        let live = self.live * 100 / self.used.max(1);
        let leisure = live.saturating_sub(FILL_PERCENT / 2).min(FILL_PERCENT / 2) as u32;
        let full = COPY_PAUSE * (bytes as u32).div_ceil(1024) / (COPY_BYTES as u32 / 1024);
        (full * leisure / (FILL_PERCENT as u32 / 2)).max(STEP_PAUSE)
    }
}

/// Segments are merged when less of them is live.
const FILL_PERCENT: u64 = 60;

/// A segment of which more is live is not merged: copying it gains little.
const WORTHWHILE_PERCENT: u64 = 85;

/// The oldest segment is merged when more than this share of the log is removals.
const REMOVALS_PERCENT: u64 = 10;

/// How much is copied at once: as much as a few batches, so that no sync has to write much more.
const COPY_BYTES: usize = 64 << 10;

/// How many changes are looked at in one step.
const COPY_LOOKS: usize = 1024;

const COPY_PAUSE: Duration = Duration::from_millis(2);

const STEP_PAUSE: Duration = Duration::from_micros(100);

/// Freed segments that wait for a sync before one is made for them.
const FREED_MAX: usize = 2;
