//! A start: which frames count, and what the index was.
//!
//! ```text
//! 1  the newest segment that begins with a whole manifest says which others are in use
//! 2  each of these has its footer, or all its frames; else the newest was never synced, and the one before it is tried
//! 3  the frames of the newest count up to the first that is not whole: a torn tail, unless it is known to have been synced
//! 4  what is not known to be synced is copied to a new segment and synced, before anything is served
//! ```
//! A frame is known to be synced by the watermark, by a later frame that says so, or by a footer behind it. After a sync that failed the
//! page cache may show frames that are on no disk (Rebello and others, *Can applications recover from fsync failures?*, 2020): hence
//! the fourth step.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::folder::{Blocks, Folder};
use super::footer::{Change, Footer};
use super::frame::{self, Kind};
use super::index::{Index, Layout};
use super::manifest::{self, Listed};
use super::segment::{self, FRAMES_AT, Used};
use super::table::Location;
use super::watermark::{self, Mark, Watermark};
use super::{SEGMENT_BYTES_MIN, io_error};
use crate::planted::{Bug, Planted};
use crate::replica::store::StoreError;

/// What was found.
pub(super) struct Found {
    pub(super) index: Index,
    pub(super) files: BTreeMap<u32, Arc<dyn Blocks>>,
    /// Segments in use, by their ordinals: the last one is the newest.
    pub(super) segments: Vec<Loaded>,
    /// The newest frame that counts.
    pub(super) batch: u64,
    /// The highest ordinal seen.
    pub(super) ordinal: u64,
    /// The newest frame that is known to be synced.
    pub(super) synced: u64,
    /// Never used, each with its length.
    pub(super) spares: Vec<(u32, u64)>,
    /// Used once, and known not to be in use by what was synced.
    pub(super) free: Vec<(u32, u64)>,
    /// Used once, and not in use if what was not synced is true.
    pub(super) doubtful: Vec<u32>,
    /// Records that are not known to be synced.
    pub(super) unsynced: Vec<Unsynced>,
    pub(super) mark: Mark,
}

/// A record that is not known to be synced.
#[derive(Clone, Copy)]
pub(super) struct Unsynced {
    pub(super) location: Location,
    pub(super) removes: bool,
}

/// A segment in use.
pub(super) struct Loaded {
    pub(super) segment: u32,
    pub(super) used: Used,
    pub(super) end: u64,
    pub(super) last_batch: u64,
    /// If it has none yet, what is to be in it.
    pub(super) footer: Option<Footer>,
    /// Where its frames that are known to be synced end, and the last of them; `None` if there are none with records.
    pub(super) kept: Option<(u64, u64)>,
    pub(super) live: u64,
    pub(super) removals: u64,
}

struct Segment {
    file: Arc<dyn Blocks>,
    used: Used,
}

/// A whole frame.
#[derive(Clone, Copy, Debug)]
struct At {
    offset: u64,
    head: frame::Head,
}

struct Scanner<'f> {
    planted: &'f Planted,
    segments: BTreeMap<u32, Segment>,
    by_ordinal: BTreeMap<u64, u32>,
    scanned: BTreeMap<u32, Vec<At>>,
    synced: u64,
    /// Why the newest segment was not taken for the base.
    doubt: Option<String>,
}

/// The newest segment, its frames that count, and the others in use.
struct Base {
    ordinal: u64,
    chain: Vec<At>,
    listed: Vec<Listed>,
    /// Those of which the footer is there.
    footed: BTreeSet<u64>,
}

/// Looks at a folder; `None` if there never was a log in it.
pub(super) fn find(
    folder: &dyn Folder,
    layout: Layout,
    new_secret: u64,
    planted: &Planted,
) -> Result<Option<Found>, StoreError> {
    let failed = |e: io::Error| io_error("read the log", &e);
    let names = folder.names().map_err(failed)?;
    let marked = names.iter().any(|name| name == watermark::FILE);
    let mut files = BTreeMap::new();
    let (mut segments, mut spares, mut garbage) = (BTreeMap::new(), Vec::new(), Vec::new());
    for number in names.iter().filter_map(|name| segment::of_name(name)) {
        let file = folder.open(&segment::name(number)).map_err(failed)?;
        match segment::read(&*file).map_err(failed)? {
            Some(used) => {
                files.insert(number, Arc::clone(&file));
                segments.insert(number, Segment { file, used });
            }
            None => match file.bytes().map_err(failed)? {
                bytes if bytes >= SEGMENT_BYTES_MIN => {
                    files.insert(number, file);
                    spares.push((number, bytes));
                }
                // It was being made, or given up.
                _ => garbage.push(number),
            },
        }
    }
    if segments.is_empty() || !marked {
        if !segments.is_empty() {
            return Err(StoreError::Corrupt(format!("the file {:?} of the store is missing", watermark::FILE)));
        }
        let mark = if marked { Watermark::read(folder).map_err(failed)? } else { None };
        if mark.is_some_and(|mark| mark.batch > 0) {
            return Err(StoreError::Corrupt("the segments of the log are missing".into()));
        }
        // A first start that was interrupted.
        remove(folder, spares.into_iter().map(|(number, _)| number).chain(garbage)).map_err(failed)?;
        return Ok(None);
    }
    let mark = Watermark::read(folder).map_err(failed)?;
    if mark.is_none() {
        tracing::warn!(
            file = watermark::FILE,
            "the record of syncs is damaged: this start cannot check that all is there"
        );
    }
    let marked_well = mark.is_some();
    let mark = mark.unwrap_or(Mark { batch: 0, secret: new_secret });
    let by_ordinal = segments.iter().map(|(number, segment)| (segment.used.ordinal, *number)).collect();
    let scanned = BTreeMap::new();
    let mut scanner = Scanner { planted, segments, by_ordinal, scanned, synced: mark.batch, doubt: None };
    let base = match scanner.find_base(mark.secret)? {
        // A first start that was interrupted: before anything is served, a mark above 0 is durable.
        None if mark.batch == 0 && scanner.synced == 0 && marked_well => {
            remove(folder, files.into_keys().chain(garbage)).map_err(failed)?;
            return Ok(None);
        }
        Some(base) => base,
        None => {
            let doubt = scanner.doubt.take().unwrap_or_else(|| "no segment says which are in use".into());
            return Err(StoreError::Corrupt(doubt));
        }
    };
    let index = Index::new(layout, mark.secret);
    let Some(batch) = base.chain.last().map(|at| at.head.batch) else {
        return Err(StoreError::Corrupt("the log has no frame".into()));
    };
    if scanner.synced > batch {
        let doubt = scanner.doubt.take().unwrap_or_else(|| "a frame of the newest segment is not whole".into());
        let synced = scanner.synced;
        return Err(StoreError::Corrupt(format!(
            "{doubt}: batch {synced} of the log was synced, and {batch} is the last that is there"
        )));
    }
    let (loaded, unsynced) = scanner.load(&base, &index)?;
    let in_use: BTreeSet<_> = loaded.iter().map(|loaded| loaded.segment).collect();
    let needed = scanner.needed_by_what_was_synced(&base)?;
    let others = scanner.segments.iter().filter(|(number, _)| !in_use.contains(number));
    let is_free = |segment: &Segment| needed.as_ref().is_some_and(|needed| !needed.contains(&segment.used.ordinal));
    let (free, doubtful): (Vec<_>, Vec<_>) = others.partition(|(_, segment)| is_free(segment));
    let free = free.into_iter().map(|(number, segment)| (*number, segment.used.bytes)).collect();
    let doubtful = doubtful.into_iter().map(|(number, _)| *number).collect();
    // Nothing refers to them.
    remove(folder, garbage).map_err(failed)?;
    let ordinal = scanner.by_ordinal.keys().next_back().copied().unwrap_or_default();
    let synced = scanner.synced;
    Ok(Some(Found { index, files, segments: loaded, batch, ordinal, synced, spares, free, doubtful, unsynced, mark }))
}

fn remove(folder: &dyn Folder, segments: impl IntoIterator<Item = u32>) -> io::Result<()> {
    segments.into_iter().try_for_each(|number| folder.remove(&segment::name(number)))
}

impl Scanner<'_> {
    fn find_base(&mut self, secret: u64) -> Result<Option<Base>, StoreError> {
        let ordinals: Vec<_> = self.by_ordinal.keys().rev().copied().collect();
        for ordinal in ordinals {
            let Some(&number) = self.by_ordinal.get(&ordinal) else { continue };
            let chain = self.chain(number, u64::MAX)?;
            if chain.first().is_none_or(|at| at.head.kind != Kind::Manifest) {
                continue;
            }
            let Some(listed) = self.listed(number, &chain)? else { continue };
            if let Some(footed) = self.footed(&listed, secret)? {
                return Ok(Some(Base { ordinal, chain, listed, footed }));
            }
        }
        Ok(None)
    }

    fn doubt(&mut self, doubt: String) {
        self.doubt.get_or_insert(doubt);
    }

    /// What the frames of a segment say is in use beside it.
    fn listed(&self, number: u32, chain: &[At]) -> Result<Option<Vec<Listed>>, StoreError> {
        let mut listed = None;
        for at in chain {
            match at.head.kind {
                Kind::Manifest => listed = Some(manifest::decode(&self.body(number, at)?)),
                Kind::Freed => {
                    let freed = manifest::decode_freed(&self.body(number, at)?);
                    listed.iter_mut().for_each(|listed| listed.retain(|listed| Some(listed.ordinal) != freed));
                }
                Kind::Records => {}
            }
        }
        if let Some(listed) = &mut listed {
            listed.sort_unstable_by_key(|listed| listed.ordinal);
        }
        Ok(listed)
    }

    /// Which segments a start would need that found only what was synced; `None` if that cannot be said.
    fn needed_by_what_was_synced(&self, base: &Base) -> Result<Option<BTreeSet<u64>>, StoreError> {
        let synced: Vec<_> = base.chain.iter().copied().take_while(|at| at.head.batch <= self.synced).collect();
        let listed = self.listed(self.by_ordinal[&base.ordinal], &synced)?;
        Ok(listed.map(|listed| listed.iter().map(|listed| listed.ordinal).chain([base.ordinal]).collect()))
    }

    /// Which segments in use have footers; `None` if one of these has neither footer nor all frames, and so was not synced.
    fn footed(&mut self, listed: &[Listed], secret: u64) -> Result<Option<BTreeSet<u64>>, StoreError> {
        let mut found = BTreeSet::new();
        for Listed { ordinal, end, last_batch } in listed.iter().copied() {
            let Some(&number) = self.by_ordinal.get(&ordinal) else {
                self.doubt(format!("the segment that was begun as number {ordinal} is missing"));
                return Ok(None);
            };
            let segment = &self.segments[&number];
            let footer = Footer::read(&*segment.file, segment.used.salt, end);
            match footer.map_err(|e| io_error("read the footer of a segment", &e))? {
                Some((_, of)) if of == secret => {
                    self.synced = self.synced.max(last_batch);
                    found.insert(ordinal);
                }
                _ => {
                    let chain = self.chain(number, last_batch)?;
                    if chain.last().is_none_or(|at| at.head.batch != last_batch) {
                        self.doubt(format!("{} is not whole", segment::name(number)));
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(found))
    }

    /// The frames of a segment up to this one, as far as none is missing.
    fn chain(&mut self, number: u32, last_batch: u64) -> Result<Vec<At>, StoreError> {
        if !self.scanned.contains_key(&number) {
            let found = self.scan(number)?;
            let proof = found.iter().map(|at| at.head.synced).max().unwrap_or_default();
            self.synced = self.synced.max(proof);
            self.scanned.insert(number, found);
        }
        let expected = self.segments[&number].used.first_batch..=last_batch;
        let mut chain = Vec::new();
        for (expected, at) in expected.zip(&self.scanned[&number]) {
            let begins = !chain.is_empty() || at.offset == FRAMES_AT;
            if at.head.batch != expected || !begins {
                break;
            }
            chain.push(*at);
        }
        Ok(chain)
    }

    /// All whole frames of a segment, wherever they are.
    fn scan(&self, number: u32) -> Result<Vec<At>, StoreError> {
        let segment = &self.segments[&number];
        let bytes = self.bytes(number, 0, segment.used.bytes)?;
        let (mut at, mut found) = (FRAMES_AT as usize, Vec::new());
        while at + frame::HEAD_BYTES <= bytes.len() {
            let here = &bytes[at..];
            let whole = self.frame(here, segment.used.salt);
            match whole {
                Some((head, body)) => {
                    found.push(At { offset: at as u64, head });
                    at += frame::HEAD_BYTES + body.len();
                }
                None => at += frame::ALIGN,
            }
        }
        Ok(found)
    }

    fn frame<'b>(&self, bytes: &'b [u8], salt: u64) -> Option<(frame::Head, &'b [u8])> {
        if !frame::may_begin(bytes, salt) && !self.planted.may_be(Bug::SaltIgnored) {
            return None;
        }
        let found = frame::read(bytes, salt);
        if found.is_none() && self.planted.may_be(Bug::SaltIgnored) {
            let found = frame::salt(bytes).and_then(|salt| frame::read(bytes, salt))?;
            return self.planted.is(Bug::SaltIgnored).then_some(found);
        }
        if found.is_none() && self.planted.may_be(Bug::FrameUnchecked) {
            let found = frame::unchecked(bytes, salt)?;
            return self.planted.is(Bug::FrameUnchecked).then_some(found);
        }
        found
    }

    fn body(&self, number: u32, at: &At) -> Result<Vec<u8>, StoreError> {
        self.bytes(number, at.offset + frame::HEAD_BYTES as u64, at.head.body.into())
    }

    fn bytes(&self, number: u32, at: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = self.segments[&number].file.read_at(&mut bytes, at);
        read.map_err(|e| io_error("read a segment", &e))?;
        Ok(bytes)
    }

    /// Enters everything into the index, the oldest first.
    fn load(&mut self, base: &Base, index: &Index) -> Result<(Vec<Loaded>, Vec<Unsynced>), StoreError> {
        let newest = Listed {
            ordinal: base.ordinal,
            end: base.chain.last().map_or(FRAMES_AT, end_of),
            last_batch: base.chain.last().map_or(0, |at| at.head.batch),
        };
        let (mut loaded, mut unsynced): (Vec<Loaded>, Vec<_>) = (Vec::new(), Vec::new());
        let mut numbers = BTreeMap::new();
        for listed in base.listed.iter().chain([&newest]) {
            let number = self.by_ordinal[&listed.ordinal];
            numbers.insert(number, loaded.len());
            let segment = &self.segments[&number];
            let used = segment.used;
            let Listed { end, last_batch, .. } = *listed;
            let mut this = Loaded {
                segment: number,
                used,
                end,
                last_batch,
                footer: None,
                kept: Some((end, last_batch)),
                live: 0,
                removals: 0,
            };
            let is_footed = base.footed.contains(&listed.ordinal);
            let footer = if is_footed { Footer::read(&*segment.file, used.salt, end) } else { Ok(None) };
            let footer = match footer.map_err(|e| io_error("read the footer of a segment", &e))? {
                Some((footer, _)) => footer,
                None => {
                    let chain = if listed.ordinal == base.ordinal {
                        base.chain.clone()
                    } else {
                        self.chain(number, last_batch)?
                    };
                    this.kept = self.kept(&chain, end);
                    let (all, kept) = self.read_frames(number, &chain, index, &mut unsynced)?;
                    this.footer = Some(kept);
                    all
                }
            };
            loaded.push(this);
            for change in footer.changes() {
                let location = Location { segment: number, offset: change.offset, length: change.length };
                let before =
                    if change.removes { index.remove(&change.place) } else { index.set(&change.place, location) };
                if let Some(this) = loaded.last_mut() {
                    let length = u64::from(location.length);
                    if change.removes { this.removals += length } else { this.live += length }
                }
                if let Some(before) = before
                    && let Some(other) = numbers.get(&before.segment).and_then(|at| loaded.get_mut(*at))
                {
                    other.live = other.live.saturating_sub(before.length.into());
                }
            }
        }
        Ok((loaded, unsynced))
    }

    /// Where the frames end that are known to be synced. The end of a segment whose last frame is, may lie behind that frame.
    fn kept(&self, chain: &[At], end: u64) -> Option<(u64, u64)> {
        let kept = chain.iter().take_while(|at| at.head.batch <= self.synced);
        if !kept.clone().any(|at| at.head.kind == Kind::Records) {
            return None;
        }
        let last = kept.last()?;
        let is_last = chain.last().is_some_and(|newest| newest.head.batch == last.head.batch);
        Some((if is_last { end } else { end_of(last) }, last.head.batch))
    }

    /// The changes in the frames of a segment: all, and those known to be synced.
    fn read_frames(
        &self,
        number: u32,
        chain: &[At],
        index: &Index,
        unsynced: &mut Vec<Unsynced>,
    ) -> Result<(Footer, Footer), StoreError> {
        let (mut all, mut kept) = (Footer::default(), Footer::default());
        for at in chain.iter().filter(|at| at.head.kind == Kind::Records) {
            let body = self.body(number, at)?;
            let is_synced = at.head.batch <= self.synced || self.planted.is(Bug::UnsyncedServed);
            for record in frame::records(&body, at.head.count) {
                let Some((start, record)) = record else {
                    let at = format!("a record in the frame at {} of {} is damaged", at.offset, segment::name(number));
                    return Err(StoreError::Corrupt(at));
                };
                let offset = (at.offset as usize + frame::HEAD_BYTES + start) as u32;
                let length = record.length as u32;
                let removes = record.value.is_none();
                let change = Change { place: index.place(record.key), removes, offset, length };
                all.push(&change);
                if is_synced {
                    kept.push(&change);
                } else {
                    unsynced.push(Unsynced { location: Location { segment: number, offset, length }, removes });
                }
            }
        }
        Ok((all, kept))
    }
}

fn end_of(at: &At) -> u64 {
    at.offset + frame::HEAD_BYTES as u64 + u64::from(at.head.body)
}
