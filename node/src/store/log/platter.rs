//! A folder in memory that knows what of it is on the disk: for power cuts, failed syncs and deaths at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use rand::Rng as _;
use rand::rngs::StdRng;

use super::append::lock;
use super::folder::{Blocks, Folder, Resident};
use super::segment::PAGE;

/// The disk. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Platter(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    /// As the process sees it.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next: u64,
    /// How many writes and syncs are still done, before the process dies at the next.
    left: Option<u64>,
    /// A write or a new file meets a quota when so many more were done.
    short_after: Option<u64>,
    /// The next sync fails, and what it was to bring to the disk is forgotten.
    sync_fails: bool,
    /// The next sync says that it is there, and waits to be let through.
    gate: Option<(Sender<()>, Receiver<()>)>,
}

#[derive(Clone, Default)]
struct Contents {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written and not synced.
    dirty: BTreeSet<usize>,
    /// Pages that the system has dropped from memory.
    evicted: BTreeSet<usize>,
}

struct OnPlatter {
    platter: Platter,
    file: u64,
}

impl Platter {
    /// The process dies after so many more writes and syncs; the last of them may be half done.
    pub(super) fn die_after(&self, operations: u64) {
        lock(&self.0).left = Some(operations);
    }

    /// It is started again.
    pub(super) fn revive(&self) {
        let mut state = lock(&self.0);
        state.left = None;
        state.short_after = None;
        state.sync_fails = false;
    }

    /// One of the next writes or new files finds that nothing is left. What it wrote until then is there.
    pub(super) fn run_short_after(&self, operations: u64) {
        lock(&self.0).short_after = Some(operations);
    }

    pub(super) fn fail_next_sync(&self) {
        lock(&self.0).sync_fails = true;
    }

    /// The power goes: each sector that was not synced is the old or the new one, and so is each name.
    pub(super) fn cut_power(&self, random: &mut StdRng) {
        let mut state = lock(&self.0);
        let likely = random.random_range(0.0..=1.0);
        for contents in state.files.values_mut() {
            for sector in std::mem::take(&mut contents.dirty) {
                if random.random_bool(likely) {
                    contents.bring(sector);
                }
            }
            contents.written = contents.durable.clone();
        }
        let known: BTreeSet<_> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        for name in known {
            if random.random_bool(0.5) {
                match state.names.get(&name).copied() {
                    Some(file) => state.durable_names.insert(name, file),
                    None => state.durable_names.remove(&name),
                };
            }
        }
        state.names = state.durable_names.clone();
    }

    /// The next sync waits for this, once it has begun; or it is taken down again, if none has begun.
    pub(super) fn set_gate(&self, gate: Option<(Sender<()>, Receiver<()>)>) {
        lock(&self.0).gate = gate;
    }

    /// The power goes, and whatever was not synced is gone.
    pub(super) fn cut_power_cleanly(&self) {
        let mut state = lock(&self.0);
        for contents in state.files.values_mut() {
            contents.dirty.clear();
            contents.written = contents.durable.clone();
        }
        state.names = state.durable_names.clone();
    }

    /// The system drops from memory what is on the disk as well.
    pub(super) fn evict(&self) {
        for contents in lock(&self.0).files.values_mut() {
            let dirty: BTreeSet<usize> = contents.dirty.iter().map(|sector| sector * SECTOR / PAGE as usize).collect();
            contents.evicted = pages(0, contents.written.len()).filter(|page| !dirty.contains(page)).collect();
        }
    }

    /// Changes a byte behind everybody's back.
    pub(super) fn damage(&self, name: &str, at: usize) {
        let mut state = lock(&self.0);
        let file = state.names[name];
        let contents = state.files.get_mut(&file).expect("a name is of a file");
        contents.written[at] ^= 0x10;
        contents.durable[at] ^= 0x10;
    }

    /// Another disk with the same on it.
    pub(super) fn copy(&self) -> Platter {
        let state = lock(&self.0);
        let (files, next) = (state.files.clone(), state.next);
        let (names, durable_names) = (state.names.clone(), state.durable_names.clone());
        Platter(Arc::new(Mutex::new(State { files, names, durable_names, next, ..State::default() })))
    }

    pub(super) fn bytes_of(&self, name: &str) -> Vec<u8> {
        let state = lock(&self.0);
        state.files[&state.names[name]].written.clone()
    }
}

impl State {
    /// Counts a write or sync; the last one is the process' death.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl State {
    /// Whether this operation meets the quota.
    fn is_short(&mut self) -> bool {
        match &mut self.short_after {
            Some(0) => {
                self.short_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

fn pages(at: u64, length: usize) -> Range<usize> {
    parts(at, length, PAGE as usize)
}

/// The parts of a length that some bytes touch.
fn parts(at: u64, length: usize, of: usize) -> Range<usize> {
    let at = at as usize;
    if length == 0 { 0..0 } else { at / of..(at + length - 1) / of + 1 }
}

impl Contents {
    fn bring(&mut self, sector: usize) {
        let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.written.len());
        self.durable.resize(self.written.len(), 0);
        self.durable[range.clone()].copy_from_slice(&self.written[range]);
    }
}

impl Folder for Platter {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blocks>> {
        let file = *lock(&self.0).names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(OnPlatter { platter: self.clone(), file }))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blocks>> {
        let mut state = lock(&self.0);
        state.spend()?;
        if state.is_short() {
            return Err(rustix::io::Errno::DQUOT.into());
        }
        let file = match state.names.get(name) {
            Some(file) => *file,
            None => {
                state.next += 1;
                let file = state.next;
                state.files.insert(file, Contents::default());
                state.names.insert(name.to_owned(), file);
                file
            }
        };
        let contents = state.files.get_mut(&file).expect("just found");
        let length = contents.written.len().max(bytes as usize);
        contents.written.resize(length, 0);
        contents.durable.resize(length, 0);
        Ok(Arc::new(OnPlatter { platter: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.spend()?;
        state.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.spend()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl Blocks for OnPlatter {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut state = lock(&self.platter.0);
        let Contents { written, evicted, .. } = state.files.get_mut(&self.file).expect("it is open");
        let bytes = written.get(at as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        for page in pages(at, buffer.len()) {
            evicted.remove(&page);
        }
        Ok(())
    }

    fn read_resident(&self, buffer: &mut [u8], at: u64) -> io::Result<Resident> {
        let is_away = {
            let evicted = &lock(&self.platter.0).files[&self.file].evicted;
            pages(at, buffer.len()).any(|page| evicted.contains(&page))
        };
        if is_away { Ok(Resident::No) } else { self.read_at(buffer, at).map(|()| Resident::Read) }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = lock(&self.platter.0);
        let is_short = state.is_short();
        let dies = state.left == Some(0) || is_short;
        let contents = state.files.get_mut(&self.file).expect("it is open");
        // What was under way when the process died is there in part.
        let bytes = if dies { &bytes[..bytes.len() / 2] } else { bytes };
        let at = at as usize;
        if contents.written.len() < at + bytes.len() {
            contents.written.resize(at + bytes.len(), 0);
        }
        contents.written[at..at + bytes.len()].copy_from_slice(bytes);
        contents.dirty.extend(parts(at as u64, bytes.len(), SECTOR));
        for page in pages(at as u64, bytes.len()) {
            contents.evicted.remove(&page);
        }
        if is_short {
            return Err(rustix::io::Errno::DQUOT.into());
        }
        state.spend()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.platter.0);
        state.spend()?;
        if std::mem::take(&mut state.sync_fails) {
            // As Linux does: the pages count as clean, and are on no disk.
            state.files.get_mut(&self.file).expect("it is open").dirty.clear();
            return Err(io::Error::other("the disk has failed"));
        }
        let contents = state.files.get_mut(&self.file).expect("it is open");
        // What is written while it runs need not be durable after it.
        let (written, dirty) = (contents.written.clone(), std::mem::take(&mut contents.dirty));
        if let Some((arrived, go)) = state.gate.take() {
            drop(state);
            arrived.send(()).expect("the test waits for it");
            go.recv().expect("the test lets it through");
            state = lock(&self.platter.0);
        }
        let contents = state.files.get_mut(&self.file).expect("it is open");
        let now = std::mem::replace(&mut contents.written, written);
        dirty.into_iter().for_each(|sector| contents.bring(sector));
        contents.written = now;
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.platter.0).files[&self.file].written.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.platter.0);
        state.spend()?;
        let contents = state.files.get_mut(&self.file).expect("it is open");
        contents.written.truncate(bytes as usize);
        contents.durable.truncate(bytes as usize);
        let last = contents.written.len() / SECTOR;
        contents.dirty.retain(|sector| *sector < last);
        Ok(())
    }
}

const SECTOR: usize = 512;
