//! Keeps other users of the machine out of a data directory.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Takes from others what they may do there: what is in the store's files is not theirs to read. If the directory was open to others,
/// so may be what is in it, which somebody may have open or linked: all of it is made private then. A directory of another owner (a
/// volume that was mounted for this process, say) stays as it is.
pub(super) fn make_private(path: &Path) {
    let contents = if can_be_closed(path) { close_contents(path) } else { Ok(()) };
    // Last: as long as others may enter, the next start sees that this one was cut off.
    match close_to_others(path) {
        Ok(None) => {}
        Ok(Some(mode)) => {
            let mode = format!("{:04o}", mode & 0o7777);
            match contents {
                Ok(()) => tracing::warn!(
                    path = %path.display(), mode,
                    "other users could look into the data directory; now it and its files are this user's alone"
                ),
                Err(error) => tracing::warn!(
                    path = %path.display(), mode, %error,
                    "other users could look into the data directory; now they cannot, but some of its files stay as they were"
                ),
            }
        }
        Err(error) => tracing::warn!(
            path = %path.display(), %error,
            "other users may be able to read the data: take that from them (chmod -R go= on the directory)"
        ),
    }
}

/// Whether others may enter a directory, and this process may change that.
fn can_be_closed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let permissions = found.permissions();
        // Gives it the mode that it has, which only its owner can.
        permissions.mode() & OTHERS != 0 && fs::set_permissions(path, permissions).is_ok()
    })
}

/// Answers the mode of a file or directory that had been open to others.
fn close_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)).map(|()| Some(mode))
}

/// Everything below a directory. Links are not followed: they lead out of it.
fn close_contents(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            continue;
        }
        close_to_others(&entry.path())?;
        if kind.is_dir() {
            close_contents(&entry.path())?;
        }
    }
    Ok(())
}

/// What the group and others may do with a file.
const OTHERS: u32 = 0o077;
