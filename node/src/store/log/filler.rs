//! Makes spare segments, and gives back those that are one too many.
//!
//! Writing to blocks that were never written costs a sync more than writing to others: so a segment is written once before it is used, in
//! pieces, with pauses that leave the disk to others; and files go in the same way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::append::{Log, SPARES_KEPT, Spare};
use super::folder::Blocks;
use super::io_error;
use super::shortage::Shortage as _;
use super::worker::{Bell, Next, Worker};
use crate::replica::store::StoreError;

/// Fills and empties one log's stock of segments.
pub(super) struct Filler {
    log: Arc<Log>,
    filling: Option<Filling>,
    shrinking: Option<Shrinking>,
    /// When the next is begun, after there was no room for one.
    again: Option<Instant>,
}

/// A spare segment whose blocks are being written for the first time.
struct Filling {
    spare: Spare,
    file: Arc<dyn Blocks>,
    filled: u64,
}

/// A file that is given back to the file system.
struct Shrinking {
    segment: u32,
    file: Arc<dyn Blocks>,
    left: u64,
}

impl Filler {
    pub(super) fn new(log: Arc<Log>) -> Filler {
        Filler { log, filling: None, shrinking: None, again: None }
    }

    /// Writes the next piece of a new segment.
    fn fill(&mut self) -> Result<bool, StoreError> {
        let Some(filling) = &mut self.filling else { return self.begin_filling() };
        let piece = FILL_BYTES.min(filling.spare.bytes - filling.filled);
        let written =
            filling.file.write_at(&vec![0; piece as usize], filling.filled).and_then(|()| filling.file.sync());
        filling.filled += piece;
        match written {
            Ok(()) if filling.filled < filling.spare.bytes => {}
            Ok(()) => {
                let spare = filling.spare;
                self.filling = None;
                self.log.head().spares.push_back(spare);
            }
            Err(e) if e.shortage().is_some() => {
                let segment = filling.spare.segment;
                self.filling = None;
                self.again = Some(Instant::now() + RETRY_INTERVAL);
                self.log.give_up(segment).map_err(|e| self.log.fail(io_error("remove a segment", &e)))?;
            }
            Err(e) => return Err(self.log.fail(io_error("fill a segment", &e))),
        }
        Ok(true)
    }

    fn begin_filling(&mut self) -> Result<bool, StoreError> {
        if self.again.take_if(|again| *again <= Instant::now()).is_none() && self.again.is_some() {
            return Ok(false);
        }
        let bytes = {
            let mut head = self.log.head();
            let bytes = self.log.usual_bytes(&head);
            let ready = head.spares.iter().filter(|spare| spare.bytes >= bytes).count();
            let has_room = ready < READY && matches!(head.admission.admit(bytes, false, 0), Ok(Ok(())));
            if !has_room {
                return Ok(false);
            }
            bytes
        };
        match self.log.create(bytes) {
            Ok(spare) => {
                self.log.head().names_dirty = true;
                self.filling = self.log.file(spare.segment).map(|file| Filling { spare, file, filled: 0 });
                Ok(true)
            }
            Err(e) if e.shortage().is_some() => {
                self.again = Some(Instant::now() + RETRY_INTERVAL);
                Ok(false)
            }
            Err(e) => Err(self.log.fail(io_error("make a segment", &e))),
        }
    }

    /// Gives a file back, a piece at a time.
    fn shrink(&mut self) -> Result<bool, StoreError> {
        if self.shrinking.is_none() {
            self.shrinking = self.superfluous()?;
        }
        let Some(shrinking) = &mut self.shrinking else { return Ok(false) };
        let segment = shrinking.segment;
        shrinking.left = shrinking.left.saturating_sub(FILL_BYTES);
        let done = match shrinking.left {
            0 => self.log.give_up(segment),
            left => shrinking.file.cut(left),
        };
        match done {
            Ok(()) => {}
            // Some file systems need room to give room. It is tried again.
            Err(e) if e.shortage().is_some() => return Ok(false),
            Err(e) => return Err(self.log.fail(io_error("give a segment back", &e))),
        }
        self.shrinking.take_if(|shrinking| shrinking.left == 0);
        Ok(true)
    }

    /// A spare segment that is one too many, or not of the usual length.
    fn superfluous(&self) -> Result<Option<Shrinking>, StoreError> {
        let mut head = self.log.head();
        let most = READY + head.in_use().count() / 4;
        let usual = self.log.usual_bytes(&head);
        let odd = |spare: &Spare| !(usual..=2 * usual).contains(&spare.bytes);
        let at = match head.spares.len() {
            // Even a short one is better than none.
            few if few <= READY => None,
            many => head.spares.iter().position(odd).or((many > most).then(|| many - 1)),
        };
        let Some(Spare { segment, bytes }) = at.and_then(|at| head.spares.remove(at)) else { return Ok(None) };
        drop(head);
        let Some(file) = self.log.file(segment) else { return Ok(None) };
        let links = file.links().map_err(|e| self.log.fail(io_error("look at a segment", &e)))?;
        // What somebody has linked is theirs, and whole: only our name for it goes.
        let left = if links > 1 { 0 } else { bytes };
        Ok(Some(Shrinking { segment, file, left }))
    }
}

impl Worker for Filler {
    fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn bell(log: &Log) -> &Bell {
        &log.filler
    }

    fn step(&mut self) -> Result<Next, StoreError> {
        self.log.check()?;
        let fills_first = self.shrinking.is_none();
        let done = if fills_first { self.fill()? || self.shrink()? } else { self.shrink()? | self.fill()? };
        Ok(if done { Next::After(FILL_PAUSE) } else { Next::WhenRung })
    }
}

/// Segments that are ready to be used next.
const READY: usize = SPARES_KEPT + 2;

/// How much of a segment is written, or given back, at once.
const FILL_BYTES: u64 = 1 << 20;

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

const FILL_PAUSE: Duration = Duration::from_millis(8);
