//! Reading and writing the small files of a data directory: a crash leaves the old or the new one, and a full disk room for the next.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::{ASIDE, FORMAT, IDENTITY, OpenError, failed};

/// Reads a file of ours; the format is looked at before anything else, because a later one may look different.
pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, OpenError> {
    match fs::read(path) {
        Ok(bytes) => parse_json(path, &bytes).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path, e)),
    }
}

pub(super) fn parse_json<T: for<'a> Deserialize<'a>>(path: &Path, bytes: &[u8]) -> Result<T, OpenError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |e: serde_json::Error| OpenError::Damaged { path: path.into(), what: format!("is damaged ({e})") };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        let path = path.parent().unwrap_or(path).into();
        return Err(OpenError::OtherFormat { path, found: format });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

pub(super) fn write_json(directory: &Path, name: &str, value: &impl Serialize) -> Result<(), OpenError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| failed("encode", &directory.join(name), io::Error::other(e)))?;
    bytes.push(b'\n');
    write_atomically(directory, name, &bytes)
}

/// After this returns the file has these bytes, also after a power cut; if it does not return, the old or these.
pub(super) fn write_atomically(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
    let (path, aside) = (directory.join(name), directory.join(format!("{name}{ASIDE}")));
    let write = || {
        let mut options = OpenOptions::new();
        // Not truncated before it is written: that would give back the blocks which it is kept for.
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&aside)?;
        file.write_all_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        replace(&aside, &path)
    };
    write().map_err(|e| failed("write", &aside, e))?;
    sync_directory(directory)?;
    if name == IDENTITY
        && let Err(error) = keep_room(&aside, bytes.len())
    {
        tracing::warn!(
            path = %aside.display(), %error,
            "there is no room for the next start's number: free some space, or this node cannot be started again"
        );
    }
    Ok(())
}

/// After this returns the file is gone, also after a power cut.
pub(super) fn remove(directory: &Path, name: &str) -> Result<(), OpenError> {
    for name in [name.to_owned(), format!("{name}{ASIDE}")] {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("remove", &path, e)),
        }
    }
    sync_directory(directory)
}

/// Puts `aside` in the place of a file. Where the file system can, the two change places, so that the blocks of both stay.
fn replace(aside: &Path, path: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, aside, here, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // There is nothing to change places with yet, or the file system cannot do it.
        Err(_) => fs::rename(aside, path),
    }
}

/// Sees to it that a file has blocks for another file of that length, and a little more.
fn keep_room(aside: &Path, len: usize) -> io::Result<()> {
    let wanted = (len + ROOM_TO_GROW).next_multiple_of(BLOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(aside)?;
    let has = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if has < wanted {
        // Spaces, so that its former text stays readable. What it has blocks for already takes none.
        file.write_all_at(&vec![b' '; wanted - has], has as u64)?;
        file.sync_all()?;
        sync_directory_of(aside)?;
    }
    Ok(())
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes creations and renames in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|e| failed("sync", path, e))
}

/// What file systems allot room in, and a few names of peers that admit the next life.
const BLOCK: usize = 4096;
const ROOM_TO_GROW: usize = 256;
