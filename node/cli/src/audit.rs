//! The file that a node's audit events go to: appended to, readable by its owner only, opened again when it was rotated.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Written to by any thread, a line at a time.
pub(crate) struct AuditFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl AuditFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> io::Result<AuditFile> {
        Ok(AuditFile { path: path.to_owned(), file: Mutex::new(append_to(path)?) })
    }

    /// Goes on in the file that has the name now.
    pub(crate) fn reopen(&self) {
        match append_to(&self.path) {
            Ok(file) => *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file,
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "the audit file cannot be opened again: the node goes on in the old one");
            }
        }
    }
}

impl Write for &AuditFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    // One that somebody has made beforehand, for everybody to read.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

const MODE: u32 = 0o600;
