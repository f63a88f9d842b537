//! Where a log keeps its files: a folder of the system, or of a test that cuts its power.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::io::ReadWriteFlags;

use super::file_sync::FileSync;

/// A flat folder of files.
pub(super) trait Folder: Send + Sync {
    /// Names of all files, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Blocks>>;

    /// A new file with room for so many bytes, which read as zeros; or the file of that name, made so long.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blocks>>;

    /// Takes a file away.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are.
    fn sync(&self) -> io::Result<()>;
}

/// Whether a part of a file is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resident {
    /// It is, and was read.
    Read,
    No,
    /// The system cannot say.
    Unknown,
}

/// A file that is written in place.
pub(super) trait Blocks: Send + Sync {
    /// Fills the buffer from this offset on.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// The same, unless that would mean to wait for a disk.
    fn read_resident(&self, buffer: &mut [u8], at: u64) -> io::Result<Resident>;

    /// Writes all bytes at this offset.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&self) -> io::Result<()>;

    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// By how many names the file can be reached: more than one if somebody has linked it for a copy.
    fn links(&self) -> io::Result<u64>;

    /// Gives up what lies behind this length.
    fn cut(&self, bytes: u64) -> io::Result<()>;
}

/// A folder of the system.
pub(super) struct SystemFolder {
    path: PathBuf,
    /// Kept open: a sync must not be in want of a descriptor.
    folder: File,
    file_sync: FileSync,
}

/// The place of a file that is being made.
pub(super) struct Unmade;

struct SystemFile {
    file: File,
    file_sync: FileSync,
}

impl SystemFolder {
    pub(super) fn open(path: PathBuf, file_sync: FileSync) -> io::Result<SystemFolder> {
        Ok(SystemFolder { folder: File::open(&path)?, path, file_sync })
    }

    fn blocks(&self, file: File) -> Arc<dyn Blocks> {
        Arc::new(SystemFile { file, file_sync: self.file_sync.clone() })
    }
}

impl Folder for SystemFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // No file of the log has a name that is not text.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blocks>> {
        Ok(self.blocks(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blocks>> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path.join(name))?;
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)) {
            // A file system that cannot set blocks aside.
            Err(Errno::OPNOTSUPP) => file.set_len(bytes)?,
            done => done?,
        }
        Ok(self.blocks(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.sync_all()
    }
}

impl Blocks for SystemFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    #[cfg(target_os = "linux")]
    fn read_resident(&self, buffer: &mut [u8], at: u64) -> io::Result<Resident> {
        let length = buffer.len();
        let read = || rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT);
        match rustix::io::retry_on_intr(read) {
            Ok(read) if read == length => Ok(Resident::Read),
            Ok(_) | Err(Errno::AGAIN) => Ok(Resident::No),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(Resident::Unknown),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_resident(&self, _: &mut [u8], _: u64) -> io::Result<Resident> {
        Ok(Resident::Unknown)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file_sync.sync(&self.file)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl Blocks for Unmade {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn read_resident(&self, _: &mut [u8], _: u64) -> io::Result<Resident> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn cut(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl fmt::Debug for SystemFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
