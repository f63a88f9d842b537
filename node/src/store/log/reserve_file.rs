//! A part of the reserve that nobody else can take: a file with nothing in it but its blocks.
//!
//! Others may fill the device to the last block, and then a log could not begin another segment, neither to merge into nor at a start. So
//! when room has become short the file is removed, and what it held is used for that, while batches are refused. It is made again when
//! there is room.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

#[derive(Debug)]
pub(super) struct ReserveFile {
    path: PathBuf,
    /// What it holds when it is there.
    bytes: u64,
    held: u64,
    /// When making it may be tried again, after it has failed.
    again: Again,
}

#[derive(Debug)]
enum Again {
    AtOnce,
    From(Instant),
    Never,
}

impl ReserveFile {
    /// The file in a database directory, as it is.
    pub(super) fn of(database: &Path, bytes: u64) -> ReserveFile {
        let path = database.join(FILE);
        let held = fs::metadata(&path).map_or(0, |found| found.len());
        ReserveFile { path, bytes, held, again: Again::AtOnce }
    }

    /// Bytes that it holds now.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Bytes that it is to hold.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives its room back.
    pub(super) fn release(&mut self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => self.held = 0,
        }
        tracing::warn!(
            bytes = self.bytes,
            "room is short: the file kept for that is given up, so that the store can write out what it has"
        );
        Ok(())
    }

    /// Takes its room, all of it or nothing. A file system that cannot set blocks aside has none and is not asked again; one that could
    /// not, say for a quota, is asked a minute later: this is called ten times in a second.
    pub(super) fn make(&mut self) {
        match self.again {
            Again::Never => return,
            Again::From(then) if Instant::now() < then => return,
            Again::From(_) | Again::AtOnce => {}
        }
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        let made = made.and_then(|file| Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?));
        match made {
            Ok(()) => (self.held, self.again) = (self.bytes, Again::AtOnce),
            Err(error) => {
                tracing::debug!(%error, "no room is set aside");
                let unsupported = Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP);
                self.again = if unsupported { Again::Never } else { Again::From(Instant::now() + PAUSE) };
                // Whether this works is of no importance: what is there holds nothing.
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

const FILE: &str = "reserve";

const PAUSE: Duration = Duration::from_secs(60);
