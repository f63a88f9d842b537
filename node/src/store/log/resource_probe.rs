//! How much is left of what a store can run out of.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::descriptors;

/// Asks how much is left of something: the system, or whatever a test says.
#[derive(Clone)]
pub struct ResourceProbe(Arc<dyn Fn() -> io::Result<u64> + Send + Sync>);

impl ResourceProbe {
    /// The bytes that this process may still write to the file system of a path.
    pub fn of_file_system(path: impl AsRef<Path>) -> ResourceProbe {
        let path: PathBuf = path.as_ref().into();
        ResourceProbe::new(move || {
            let found = rustix::fs::statvfs(&path)?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        })
    }

    /// The files that this process may still open: its limit less what it has open.
    pub fn of_descriptors() -> ResourceProbe {
        ResourceProbe::new(|| {
            let Some(limit) = descriptors::limit() else { return Ok(u64::MAX) };
            match fs::read_dir("/dev/fd") {
                // The directory itself is one of those.
                Ok(open) => Ok(limit.saturating_sub(open.count() as u64)),
                // Not every container has it, and then nothing is known.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(u64::MAX),
                Err(e) => Err(e),
            }
        })
    }

    /// Any other source.
    pub fn new(left: impl Fn() -> io::Result<u64> + Send + Sync + 'static) -> ResourceProbe {
        ResourceProbe(Arc::new(left))
    }

    pub(super) fn left(&self) -> io::Result<u64> {
        (self.0)()
    }
}

impl fmt::Debug for ResourceProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceProbe")
    }
}
