//! One `dev` for each directory.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::exit::{Failure, Result};

/// Says that a `dev` runs in this directory, until it is dropped or the process ends, however that happens.
#[derive(Debug)]
pub(crate) struct DirectoryLock(#[allow(dead_code, reason = "it is the open file that holds the lock")] File);

impl DirectoryLock {
    /// Takes it, or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<DirectoryLock> {
        let path = dir.join(LOCK_FILE);
        let cannot = |error| Failure::failed(format_args!("cannot use {}: {error}", path.display()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // It may not have been written yet.
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim();
                let (who, stop) = match pid {
                    "" => (String::new(), "stop it first".to_owned()),
                    pid => (format!(", pid {pid}"), format!("stop it with `kill {pid}`")),
                };
                return Err(Failure::failed(format_args!(
                    "a dev cluster is already running in {}{who}",
                    dir.display()
                ))
                .hint(format_args!("use it with `driftless --profile {}`, or {stop}", dir.display())));
            }
        }
        let written = file.set_len(0).and_then(|()| file.rewind());
        written.and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
        Ok(DirectoryLock(file))
    }
}

impl DirectoryLock {
    /// Whether somebody has it.
    pub(crate) fn is_taken(dir: &Path) -> bool {
        let file = File::open(dir.join(LOCK_FILE));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

const LOCK_FILE: &str = "dev.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_dev_in_a_directory_is_told_who_has_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(!DirectoryLock::is_taken(dir.path()), "nobody has ever run here");
        let lock = DirectoryLock::take(dir.path()).expect("is free");
        assert!(DirectoryLock::is_taken(dir.path()));
        let refused = DirectoryLock::take(dir.path()).expect_err("is taken").to_string();
        let pid = std::process::id();
        assert!(refused.contains(&format!("already running in {}, pid {pid}", dir.path().display())), "{refused}");
        assert!(refused.contains(&format!("kill {pid}")), "{refused}");
        drop(lock);
        assert!(!DirectoryLock::is_taken(dir.path()));
        DirectoryLock::take(dir.path()).expect("is free again");
    }
}
