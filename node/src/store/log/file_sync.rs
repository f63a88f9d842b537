//! Makes a file durable: the system does, unless a test stands in between, to see what happens during a sync.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// How the bytes of a file come to the disk.
#[derive(Clone)]
pub struct FileSync(Arc<Way>);

type Way = dyn Fn(&File) -> io::Result<()> + Send + Sync;

impl FileSync {
    /// `fdatasync`.
    pub fn of_system() -> FileSync {
        FileSync::new(File::sync_data)
    }

    /// Any other way. What is written to the file while it runs need not be durable after it.
    pub fn new(sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static) -> FileSync {
        FileSync(Arc::new(sync))
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        (self.0)(file)
    }
}

impl fmt::Debug for FileSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileSync")
    }
}
