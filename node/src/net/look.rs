//! How a file looked, to tell whether it has changed since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What changes when a file does: it was written, replaced, or got other permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// At a file; `None` if it is not there.
    pub(crate) fn at(path: &Path) -> Option<Look> {
        let metadata = fs::metadata(path).ok()?;
        Some(Look {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
