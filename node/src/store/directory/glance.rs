//! What can be seen of a data directory by who does not use it: nothing is locked, changed or counted.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use driftless_proto::Topology;
use driftless_proto::membership::StoreId;

use super::{
    Identity, IdentityFile, LOCK, OpenError, STORE, TopologyError, agreement_at, check_unused, compare_topology, failed,
};
use crate::conditions::DiskRoom;

/// What is seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glance {
    /// How often a node was started with it.
    pub starts: u64,
    /// When it was made, as its maker wrote it.
    pub created: String,
    /// Names its data.
    pub store: StoreId,
    /// What was written of the agreement with other nodes, each file by its name.
    pub agreement: Vec<(String, Vec<u8>)>,
    /// Files of its store; a node that runs has nearly all of them open.
    pub files: usize,
    /// Who uses it.
    pub user: User,
}

/// Who uses a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// Nobody.
    Nobody,
    /// A process, with the number that it has written down.
    Process(Option<u32>),
    /// The system does not say.
    Unknown,
}

/// Looks at a directory that should be this node's. `None` if there is nothing in it yet.
///
/// # Errors
/// [`OpenError`]: why a node would not start with it.
pub fn glance(path: &Path, identity: &Identity) -> Result<Option<Glance>, OpenError> {
    // What this user may not look at is not absent.
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(failed("enter", path, io::Error::from(ErrorKind::NotADirectory))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path, error)),
    }
    let Some(found) = IdentityFile::read(path)? else {
        return check_unused(path).map(|()| None);
    };
    found.check(path, identity)?;
    let store = found.store.as_deref().and_then(|digits| u128::from_str_radix(digits, 16).ok());
    Ok(Some(Glance {
        starts: found.starts,
        created: found.created,
        store: StoreId(store.unwrap_or(0)),
        agreement: agreement_at(path)?,
        files: fs::read_dir(path.join(STORE)).map_or(0, Iterator::count),
        user: user(path),
    }))
}

/// Holds a topology against the data in a directory of its cluster, as a start does, and writes nothing down.
///
/// # Errors
/// [`TopologyError`]: why a node would not start with it.
pub fn check_topology(path: &Path, topology: &Topology) -> Result<(), TopologyError> {
    compare_topology(path, topology.cluster(), topology).map(drop)
}

/// How full the disk is that a path is on; `None` if the system does not say.
pub fn disk_room(path: &Path) -> Option<DiskRoom> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(DiskRoom { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Without trying the lock: a node that starts at that moment would find it taken.
fn user(path: &Path) -> User {
    let lock = path.join(LOCK);
    let found = match fs::metadata(&lock) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return User::Nobody,
        Err(_) => return User::Unknown,
    };
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return User::Unknown };
    if !is_locked(&locks, found.ino()) {
        return User::Nobody;
    }
    User::Process(fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok()))
}

/// Whether a file is among the locks of the system: `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`. Some file systems have another
/// number of their device there than a file says.
fn is_locked(locks: &str, inode: u64) -> bool {
    let of_file = |line: &str| {
        let mut words = line.split_whitespace();
        let is_whole = words.any(|word| word == "FLOCK");
        is_whole && words.filter_map(|word| word.rsplit_once(':')).any(|(_, found)| found.parse() == Ok(inode))
    };
    locks.lines().any(of_file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::super::DataDirectory;
    use super::*;

    fn identity(node: &str) -> Identity {
        let created = "2026-11-20T06:00:00Z".to_owned();
        Identity { cluster: "c".to_owned(), node: node.to_owned(), created, created_s: 5, nonce: 1 }
    }

    #[test]
    fn a_glance_changes_nothing_and_tells_whose_it_is_and_who_uses_it() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("data");
        assert_eq!(glance(&path, &identity("a")).expect("nothing is wrong"), None);
        assert!(!path.exists());
        let open = DataDirectory::open(&path, &identity("a")).expect("opens");
        let seen = glance(&path, &identity("a")).expect("fits").expect("is there");
        assert_eq!((seen.starts, seen.store), (1, open.store_id()));
        let own = User::Process(Some(std::process::id()));
        assert!([own, User::Unknown].contains(&seen.user), "{:?}", seen.user);
        drop(open);
        let seen = glance(&path, &identity("a")).expect("fits").expect("is there");
        assert_eq!(seen.starts, 1, "it is no start");
        assert!([User::Nobody, User::Unknown].contains(&seen.user), "{:?}", seen.user);
        assert!(matches!(glance(&path, &identity("b")), Err(OpenError::OtherNode { .. })));
        fs::write(folder.path().join("letter"), "x").expect("writes");
        assert!(matches!(glance(folder.path(), &identity("a")), Err(OpenError::NotOurs { .. })));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let is_refused = |path: &Path| matches!(glance(path, &identity("a")), Err(OpenError::Io { .. }));
        let file = folder.path().join("file");
        fs::write(&file, "x").expect("writes");
        assert!(is_refused(&file) && is_refused(&file.join("data")), "a file is no directory, and has none in it");
        let closed = folder.path().join("closed");
        fs::create_dir_all(closed.join("data")).expect("makes it");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("is ours");
        let is_open_to_us = fs::metadata(closed.join("data")).is_ok();
        if is_open_to_us {
            writeln!(io::stderr(), "skipped: this user (root, as it seems) may look into a directory of mode 0")
                .expect("can be written");
        } else {
            assert!(is_refused(&closed.join("data")));
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("is ours");
    }

    #[test]
    fn locks_are_found_by_the_number_of_their_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 1 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 2 08:01:78 0 EOF\n";
        assert!(is_locked(locks, 78) && !is_locked(locks, 77) && !is_locked(locks, 8));
    }
}
