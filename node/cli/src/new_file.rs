//! A file that is written beside its place, and takes it when all of it is on the disk: what was there stays until then, and
//! whoever looks sees the old file or the new one. What is interrupted leaves nothing behind.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::exit::{Failure, Result};

/// Permissions of what everybody may read whom the umask does not keep out.
pub(crate) const PUBLIC: u32 = 0o644;

/// Permissions of private keys.
pub(crate) const SECRET: u32 = 0o600;

/// A file that has no name yet that anybody would look for.
pub(crate) struct NewFile {
    file: NamedTempFile,
    /// Whose place it takes.
    target: PathBuf,
}

impl NewFile {
    /// Begins a file with these permissions, or with those of the file whose place it takes.
    pub(crate) fn beside(target: &Path, mode: u32) -> Result<NewFile> {
        // A link stays one: what it points to is replaced.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        if target.is_dir() {
            return Err(Failure::failed(format_args!("cannot write {}: it is a directory", target.display())));
        }
        let dir = dir_of(&target);
        if !dir.is_dir() {
            let problem = format!("cannot write {}: there is no directory {}", target.display(), dir.display());
            return Err(Failure::failed(problem));
        }
        let failed = |error| cannot_write(&target, &error);
        let name = target.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let file = Builder::new()
            .prefix(&prefix)
            .suffix(".new")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)
            .map_err(failed)?;
        // A user who may not read the old file shall not read the new one, and one who may still may.
        if let Ok(there) = fs::metadata(&target) {
            let new = file.as_file();
            let is_of_group = fchown(new, Some(there.uid()), Some(there.gid()))
                .or_else(|_| fchown(new, None, Some(there.gid())))
                .is_ok();
            let mode = mode_of(there.permissions().mode(), is_of_group);
            new.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(NewFile { file, target })
    }

    /// What to write into.
    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Puts the file in its place, and what was there is gone.
    pub(crate) fn replace(self) -> Result<PathBuf> {
        let target = self.target.clone();
        self.replace_other(target)
    }

    /// Gives it the name that its target has with this end, and leaves the target as it is.
    pub(crate) fn replace_with_end(self, end: &str) -> Result<PathBuf> {
        let mut name = OsString::from(&self.target);
        name.push(end);
        self.replace_other(name.into())
    }

    /// Gives it its name, unless there is such a file.
    pub(crate) fn create(self) -> Result {
        self.sync()?;
        let target = self.target;
        self.file.persist_noclobber(&target).map_err(|error| cannot_write(&target, &error.error))?;
        sync_dir_of(&target)
    }

    fn replace_other(self, target: PathBuf) -> Result<PathBuf> {
        self.sync()?;
        self.file.persist(&target).map_err(|error| cannot_write(&target, &error.error))?;
        sync_dir_of(&target)?;
        Ok(target)
    }

    /// Before it has its name: a power cut would leave an empty file in place of the old one.
    fn sync(&self) -> Result {
        self.file().sync_all().map_err(|error| cannot_write(&self.target, &error))
    }
}

/// Writes a file that must not be there yet.
pub(crate) fn create(path: &Path, text: &str, mode: u32) -> Result {
    written(path, text, mode)?.create()
}

/// Writes a file in place of what is there.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result {
    written(path, text, mode)?.replace().map(|_| ())
}

fn written(path: &Path, text: &str, mode: u32) -> Result<NewFile> {
    let new = NewFile::beside(path, mode)?;
    new.file().write_all(text.as_bytes()).map_err(|error| cannot_write(path, &error))?;
    Ok(new)
}

/// What the old group was allowed is not for another one.
fn mode_of(old: u32, is_of_group: bool) -> u32 {
    if is_of_group { old } else { old & !0o070 }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir_of(path: &Path) -> Result {
    File::open(dir_of(path)).and_then(|dir| dir.sync_all()).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_stays_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        fs::write(&target, "old").expect("writes");
        let read = || fs::read_to_string(&target).expect("reads");
        drop(written(&target, "half", PUBLIC).expect("writes"));
        assert_eq!((names(dir.path()), read()), (vec!["bk".to_owned()], "old".to_owned()));
        let at = written(&target, "may be less", PUBLIC).expect("writes").replace_with_end(".incomplete");
        assert_eq!(at.expect("finishes"), dir.path().canonicalize().expect("exists").join("bk.incomplete"));
        assert_eq!(read(), "old");
        replace(&target, "all", PUBLIC).expect("writes");
        assert_eq!((names(dir.path()), read()), (vec!["bk".to_owned(), "bk.incomplete".to_owned()], "all".to_owned()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("none/bk");
        let failure = replace(&target, "text", PUBLIC).expect_err("there is no such directory").to_string();
        assert!(failure.contains("none/bk: there is no directory") && failure.ends_with("none"), "{failure}");
    }

    #[test]
    fn two_that_write_one_file_do_not_write_into_each_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        let first = written(&target, "first", PUBLIC).expect("writes");
        let second = written(&target, "second", PUBLIC).expect("writes");
        first.replace().expect("finishes");
        second.replace().expect("finishes");
        assert_eq!(fs::read_to_string(&target).expect("reads"), "second");
        assert_eq!(names(dir.path()), ["bk"]);
    }

    #[test]
    fn permissions_are_those_asked_for_or_those_of_the_file_before() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("ca.key");
        create(&target, "secret", SECRET).expect("writes");
        assert_eq!(mode(&target), 0o600);
        replace(&target, "another", PUBLIC).expect("writes");
        assert_eq!(mode(&target), 0o600, "who could not read the old one does not read the new one");
    }

    #[test]
    fn a_group_keeps_what_it_may_and_another_one_gets_nothing() {
        assert_eq!((mode_of(0o640, true), mode_of(0o664, false)), (0o640, 0o604));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        create(&target, "old", PUBLIC).expect("writes");
        // Root may give it to any group, others to their own.
        let _ = std::os::unix::fs::chown(&target, None, Some(12_345));
        let group = fs::metadata(&target).expect("is there").gid();
        replace(&target, "new", PUBLIC).expect("writes");
        assert_eq!(fs::metadata(&target).expect("is there").gid(), group);
    }

    #[test]
    fn a_file_that_must_not_be_there_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("ca.key");
        create(&target, "the only one", SECRET).expect("writes");
        let failure = create(&target, "another", SECRET).expect_err("is there").to_string();
        assert!(failure.contains("ca.key"), "{failure}");
        assert_eq!(fs::read_to_string(&target).expect("reads"), "the only one");
        assert_eq!(names(dir.path()), ["ca.key"]);
    }
}
