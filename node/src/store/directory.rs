//! Whose data a directory holds, and what that data depends on. Checked before the store is opened.
//!
//! ```text
//! <data>/            0700
//!   lock             held by the process that uses the directory; its text is that process's id
//!   identity.json    whose data this is, and how often it was opened        replaced at every start
//!   identity.json.new    room for the next one: a start must be counted on a full disk too
//!   topology.json    what placement and merging of the data depend on       replaced when that may change
//!   reset-key        0600  64 bytes: signs QUIC stateless resets
//!   store/           the store's own
//! ```
//! `identity.json` and `topology.json` are for people too:
//!
//! ```text
//! { "format": 1, "cluster": "shop", "node": "ada", "created": "2026-11-20T06:00:00Z", "created_s": 1795154400,
//!   "starts": 17, "raised_by": 0, "admitted_by": ["bob", "cyd"] }
//!
//! { "format": 1, "cluster": "shop", "partitions": 256, "hash_seed": 7,
//!   "members":    [ { "name": "ada", "id": "00c0ffee00c0ffee", "weight": 100, "zone": "", "shards": 1 }, … ],
//!   "placements": [ { "n": 3, "digest": "…32 hexadecimal digits…" } ],
//!   "buckets":    [ { "name": "default", "id": 0, "n": 3, "conflict": "siblings" }, … ] }
//! ```
//! Files are written aside, synced, renamed, and the directory synced: a crash leaves the old or the new one. The file aside keeps its
//! blocks, and changes places with the file that it replaces, so that the next one is written where the last but one was: a full
//! disk does not keep a node from starting. What is wrong with a directory is said in words, with what to do about it, and
//! nothing in it has been changed then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftless_proto::{Conflict, Topology};
use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::peer::Incarnation;

/// A node's data directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Mutex<IdentityFile>,
    nonce: u64,
    reset_key: [u8; RESET_KEY_BYTES],
    /// Held open: the lock goes with the process, however it ends.
    _lock: File,
}

/// Whose directory it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
    /// The date, written into a directory that is created now. For people.
    pub created: String,
    /// The same in seconds since 1970, for [`Incarnation::starts`].
    pub created_s: u64,
    /// Random, drawn anew at each start: tells two copies of one directory apart.
    pub nonce: u64,
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by {}. Stop that process first, or give this node a directory of its own",
        path.display(), pid.map_or("another process".into(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has written its id into the lock.
        pid: Option<u32>,
    },
    /// It belongs to another node of this cluster.
    #[error(
        "the data directory {} belongs to node {found:?}, and this is node {expected:?}. Check the node's name and \
         the directory in its settings; never start a node on a copy of another node's data", path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The node that starts.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// It belongs to a node of another cluster.
    #[error(
        "the data directory {} belongs to cluster {found:?}, and this node is of cluster {expected:?}. Check the \
         cluster file and the directory in the node's settings", path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster of the node that starts.
        expected: String,
        /// The cluster that the data is of.
        found: String,
    },
    /// Another release has written it.
    #[error(
        "the data directory {} has format {found}, and this release knows only {FORMAT}. Start the release that has \
         written it", path.display()
    )]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One of its files cannot be understood, or is missing.
    #[error(
        "{} {what}. Restore the file from a backup of this very directory if you have one; otherwise move the \
         directory away and start the node with an empty one: the other replicas hold the data, and anti-entropy \
         fills it again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, to be read after its name.
        what: String,
    },
    /// It has files in it that no Driftless node has put there.
    #[error(
        "the directory {} is not empty and holds no Driftless data ({} is in it). Give the node an empty directory, \
         or the path of one that does not exist yet", path.display(), found
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the foreign files.
        found: String,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}. Check that the path exists, is on a working disk with room, and that this \
             user may write to it", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// Why a topology does not fit the data.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It differs where it must not.
    #[error(transparent)]
    Changed(#[from] TopologyChanged),
    /// The stored copy could not be read or written.
    #[error(transparent)]
    Directory(#[from] OpenError),
}

/// A topology differs from the one that the data was written with, in a way that would put keys where nobody looks
/// for them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the cluster file does not fit the data of this node: {}. Membership, partitions and the nature of existing \
     buckets cannot be changed by editing the file; undo that edit. New buckets, addresses, quorums, sloppy, \
     durability and read_all may be changed", differences.join("; ")
)]
pub struct TopologyChanged {
    /// The differences, in words.
    pub differences: Vec<String>,
}

impl DataDirectory {
    /// Opens a node's data directory, or makes it; locks it, checks that it is this node's, and counts the start.
    ///
    /// # Errors
    /// [`OpenError`]: says what to do. Nothing was changed, unless an operation of the system failed half-way.
    pub fn open(path: impl AsRef<Path>, identity: &Identity) -> Result<DataDirectory, OpenError> {
        let path = path.as_ref().to_path_buf();
        create_if_absent(&path)?;
        // Looked at before the lock is made in it, so that a foreign directory stays as it is.
        let found = match IdentityFile::read(&path)? {
            Some(found) => {
                found.check(&path, identity)?;
                true
            }
            None => {
                check_unused(&path)?;
                false
            }
        };
        let lock = lock(&path)?;
        make_private(&path);
        // Read again under the lock: another process may have been at it since.
        let mut file = match IdentityFile::read(&path)? {
            Some(file) => file,
            None if found => return Err(IdentityFile::missing(&path)),
            None => IdentityFile {
                format: FORMAT,
                cluster: identity.cluster.clone(),
                node: identity.node.clone(),
                created: identity.created.clone(),
                created_s: identity.created_s,
                starts: 0,
                raised_by: 0,
                admitted_by: Some(BTreeSet::new()),
            },
        };
        file.check(&path, identity)?;
        let reset_key = reset_key(&path)?;
        // Durable before anybody hears of it: no two lives of the store may tell the same number.
        file.starts += 1;
        write_json(&path, IDENTITY, &file)?;
        Ok(DataDirectory { path, identity: Mutex::new(file), nonce: identity.nonce, reset_key, _lock: lock })
    }

    /// Checks the topology against the data, and remembers it if it is the first one or differs where it may. To be
    /// called before the store is opened.
    ///
    /// # Errors
    /// [`TopologyError::Changed`] names every difference that cannot be.
    pub fn check_topology(&self, topology: &Topology) -> Result<(), TopologyError> {
        let new = Foundation::of(topology);
        let path = self.path.join(TOPOLOGY);
        let cluster = self.identity().cluster.clone();
        if new.cluster != cluster {
            let difference = format!("the cluster is {:?} and was {cluster:?}", new.cluster);
            return Err(TopologyChanged { differences: vec![difference] }.into());
        }
        if let Some(old) = read_json::<Foundation>(&path)? {
            let differences = old.differences(&new);
            if !differences.is_empty() {
                return Err(TopologyChanged { differences }.into());
            }
            if old == new {
                return Ok(());
            }
        } else if self.has_data() {
            let what = "is missing, and this directory holds data".to_string();
            return Err(OpenError::Damaged { path, what }.into());
        }
        Ok(write_json(&self.path, TOPOLOGY, &new)?)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store keeps its files. It makes that directory itself.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Which life of this directory the present one is.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { starts: self.identity().life(), nonce: self.nonce }
    }

    /// Another node has admitted the present life: from then on it can tell an older copy of this directory from a new one.
    ///
    /// # Errors
    /// [`OpenError::Io`]: it is not written down.
    pub fn admitted_by(&self, peer: &str) -> Result<(), OpenError> {
        let mut identity = self.identity();
        let mut file = identity.clone();
        if !file.admitted_by.as_mut().is_some_and(|peers| peers.insert(peer.to_owned())) {
            return Ok(());
        }
        write_json(&self.path, IDENTITY, &file)?;
        *identity = file;
        Ok(())
    }

    /// The life of this directory, if it is above `known`, or else a later one, durable: its clock was behind when it was
    /// made. `None` if the node that knows of such a life has admitted this directory before: then this is an older copy.
    ///
    /// # Errors
    /// [`OpenError::Io`]: the life is the same as before.
    pub fn life_above(&self, peer: &str, known: u64) -> Result<Option<u64>, OpenError> {
        let mut identity = self.identity();
        if identity.admitted_by.as_ref().is_none_or(|peers| peers.contains(peer)) {
            return Ok(None);
        }
        let Some(least) = known.checked_add(1) else { return Ok(None) };
        let missing = least.saturating_sub(identity.life());
        let mut file = identity.clone();
        file.raised_by = file.raised_by.saturating_add(missing);
        if missing > 0 {
            write_json(&self.path, IDENTITY, &file)?;
            *identity = file;
        }
        Ok(Some(identity.life()))
    }

    /// The key that signs QUIC stateless resets: the same in every life, so that peers notice a restart at once
    /// instead of waiting for their connections to time out.
    pub fn reset_key(&self) -> &[u8; RESET_KEY_BYTES] {
        &self.reset_key
    }

    /// When the directory was made, as its maker wrote it.
    pub fn created(&self) -> String {
        self.identity().created.clone()
    }

    fn identity(&self) -> MutexGuard<'_, IdentityFile> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_data(&self) -> bool {
        self.store_path().exists()
    }
}

/// `identity.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    cluster: String,
    node: String,
    created: String,
    /// Absent where an early release made the directory.
    #[serde(default)]
    created_s: u64,
    starts: u64,
    /// By how much lives were counted up since, because others had seen later ones.
    #[serde(default)]
    raised_by: u64,
    /// Peers that have admitted a life of this directory. Absent where an early release made it: then, all of them.
    #[serde(default)]
    admitted_by: Option<BTreeSet<String>>,
}

impl IdentityFile {
    /// The number of the present life.
    fn life(&self) -> u64 {
        self.created_s.saturating_add(self.raised_by).saturating_add(self.starts)
    }

    fn read(directory: &Path) -> Result<Option<IdentityFile>, OpenError> {
        read_json(&directory.join(IDENTITY))
    }

    fn check(&self, directory: &Path, identity: &Identity) -> Result<(), OpenError> {
        let path = directory.to_path_buf();
        if self.cluster != identity.cluster {
            let (expected, found) = (identity.cluster.clone(), self.cluster.clone());
            return Err(OpenError::OtherCluster { path, expected, found });
        }
        if self.node != identity.node {
            let (expected, found) = (identity.node.clone(), self.node.clone());
            return Err(OpenError::OtherNode { path, expected, found });
        }
        Ok(())
    }

    fn missing(directory: &Path) -> OpenError {
        let what = "is missing, and the directory holds data".to_string();
        OpenError::Damaged { path: directory.join(IDENTITY), what }
    }
}

/// `topology.json`: that part of a topology which the data depends on. Kept in words of its own and not as the
/// topology itself, so that a release which knows more of topologies still reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Foundation {
    format: u32,
    cluster: String,
    partitions: u32,
    hash_seed: u64,
    members: Vec<FoundationMember>,
    placements: Vec<FoundationPlacement>,
    buckets: Vec<FoundationBucket>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationMember {
    name: String,
    id: String,
    weight: u32,
    zone: String,
    shards: u16,
}

/// A digest of who owns what in one class: equal members must give an equal table, also in a later release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationPlacement {
    n: u8,
    digest: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationBucket {
    name: String,
    id: u32,
    n: u8,
    conflict: Conflict,
}

impl Foundation {
    fn of(topology: &Topology) -> Foundation {
        let ring = topology.ring();
        let members = ring.members().iter().map(|member| FoundationMember {
            name: member.name.clone(),
            id: member.id.to_string(),
            weight: member.weight,
            zone: member.zone.clone(),
            shards: member.shards,
        });
        let mut tables: BTreeMap<u8, Xxh3> = BTreeMap::new();
        for partition in ring.all_partitions() {
            let table = tables.entry(partition.n).or_default();
            for owner in ring.owners(partition) {
                table.update(&owner.0.to_le_bytes());
            }
        }
        let buckets = topology.buckets().iter().map(|bucket| FoundationBucket {
            name: bucket.name.to_string(),
            id: bucket.id.0,
            n: bucket.quorum.n(),
            conflict: bucket.conflict,
        });
        Foundation {
            format: FORMAT,
            cluster: topology.cluster().into(),
            partitions: ring.partitions().get(),
            hash_seed: ring.hash_seed(),
            members: members.collect(),
            placements: tables
                .iter()
                .map(|(&n, table)| FoundationPlacement { n, digest: format!("{:032x}", table.digest128()) })
                .collect(),
            buckets: buckets.collect(),
        }
    }

    /// Where `new` differs from this in a way that the data does not survive.
    fn differences(&self, new: &Foundation) -> Vec<String> {
        let mut said = Vec::new();
        if self.partitions != new.partitions {
            said.push(format!("there are {} partitions and were {}", new.partitions, self.partitions));
        }
        if self.hash_seed != new.hash_seed {
            said.push(format!("the hash seed is {} and was {}", new.hash_seed, self.hash_seed));
        }
        self.member_differences(new, &mut said);
        self.bucket_differences(new, &mut said);
        if said.is_empty() {
            // Only then: any of the differences above moves partitions too.
            for old in &self.placements {
                if let Some(now) = new.placements.iter().find(|now| now.n == old.n)
                    && now.digest != old.digest
                {
                    said.push(format!(
                        "this release gives the partitions of n = {} to other members than the one that wrote the \
                         data did (this is a mistake in Driftless: please report it and go back to that release)",
                        old.n
                    ));
                }
            }
        }
        said
    }

    fn member_differences(&self, new: &Foundation, said: &mut Vec<String>) {
        for old in &self.members {
            let Some(now) = new.members.iter().find(|now| now.name == old.name) else {
                said.push(format!("member {:?} is missing", old.name));
                continue;
            };
            if now.id != old.id {
                said.push(format!("member {:?} has id {} and had {}", old.name, now.id, old.id));
            }
            if now.weight != old.weight {
                said.push(format!("member {:?} has weight {} and had {}", old.name, now.weight, old.weight));
            }
            if now.zone != old.zone {
                said.push(format!("member {:?} is in zone {:?} and was in {:?}", old.name, now.zone, old.zone));
            }
            if now.shards != old.shards {
                said.push(format!("member {:?} has {} shards and had {}", old.name, now.shards, old.shards));
            }
        }
        for now in &new.members {
            if !self.members.iter().any(|old| old.name == now.name) {
                said.push(format!("member {:?} is new", now.name));
            }
        }
    }

    fn bucket_differences(&self, new: &Foundation, said: &mut Vec<String>) {
        for old in &self.buckets {
            let Some(now) = new.buckets.iter().find(|now| now.name == old.name) else {
                said.push(format!("bucket {:?} is missing", old.name));
                continue;
            };
            if now.id != old.id {
                said.push(format!("bucket {:?} has id {} and had {}", old.name, now.id, old.id));
            }
            if now.n != old.n {
                said.push(format!("bucket {:?} has n = {} and had {}", old.name, now.n, old.n));
            }
            if now.conflict != old.conflict {
                let word = |conflict| match conflict {
                    Conflict::Siblings => "siblings",
                    Conflict::Lww => "lww",
                };
                let (now, was) = (word(now.conflict), word(old.conflict));
                said.push(format!("bucket {:?} has conflict = {now:?} and had {was:?}", old.name));
            }
        }
        for now in &new.buckets {
            let was = self.buckets.iter().find(|old| old.id == now.id && old.name != now.name);
            let is_new = !self.buckets.iter().any(|old| old.name == now.name);
            if let (Some(was), true) = (was, is_new) {
                said.push(format!("bucket {:?} has id {}, which is that of bucket {:?}", now.name, now.id, was.name));
            }
        }
    }
}

fn create_if_absent(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed("create", path, e))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Takes from others what they may do there: what is in the store's files is not theirs to read. If the directory was open to others,
/// so may be what is in it, which somebody may have open or linked: all of it is made private then. A directory of another owner (a
/// volume that was mounted for this process, say) stays as it is.
fn make_private(path: &Path) {
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

/// Refuses a directory without an identity that is in use for something else, or has lost its identity.
fn check_unused(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(|e| failed("list", path, e))? {
        let name = entry.map_err(|e| failed("list", path, e))?.file_name();
        match name.to_str() {
            Some(STORE | TOPOLOGY) => return Err(IdentityFile::missing(path)),
            // What a first start leaves that was interrupted, and what file systems put at their roots.
            Some(LOCK | RESET_KEY | "lost+found") => {}
            Some(name) if name.ends_with(ASIDE) => {}
            _ => {
                let found = name.to_string_lossy().into_owned();
                return Err(OpenError::NotOurs { path: path.into(), found });
            }
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|e| failed("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::InUse { path: directory.into(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(failed("lock", &path, e)),
    }
    // The text only helps people; the lock is what counts. So it need not be durable, nor be there on a full disk.
    let pid = std::process::id();
    if let Err(error) = file.write_all_at(format!("{pid:<PID_WIDTH$}\n").as_bytes(), 0) {
        tracing::warn!(path = %path.display(), %error, "this process's id is not in the lock of its data directory");
    }
    Ok(file)
}

fn reset_key(directory: &Path) -> Result<[u8; RESET_KEY_BYTES], OpenError> {
    let path = directory.join(RESET_KEY);
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| OpenError::Damaged {
            path,
            what: format!("has {} bytes and should have {RESET_KEY_BYTES}", bytes.len()),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut key = [0; RESET_KEY_BYTES];
            OsRng.try_fill_bytes(&mut key).map_err(|e| failed("draw random bytes for", &path, io::Error::other(e)))?;
            write_atomically(directory, RESET_KEY, &key)?;
            Ok(key)
        }
        Err(e) => Err(failed("read", &path, e)),
    }
}

/// Reads a file of ours; the format is looked at before anything else, because a later one may look different.
fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, OpenError> {
    match fs::read(path) {
        Ok(bytes) => parse_json(path, &bytes).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path, e)),
    }
}

fn parse_json<T: for<'a> Deserialize<'a>>(path: &Path, bytes: &[u8]) -> Result<T, OpenError> {
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

fn write_json(directory: &Path, name: &str, value: &impl Serialize) -> Result<(), OpenError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| failed("encode", &directory.join(name), io::Error::other(e)))?;
    bytes.push(b'\n');
    write_atomically(directory, name, &bytes)
}

/// After this returns the file has these bytes, also after a power cut; if it does not return, the old or these.
fn write_atomically(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
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
fn sync_directory(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|e| failed("sync", path, e))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { what, path: path.into(), source }
}

/// For the rig that damages files: each of the two as it is written again, if it can be read.
#[cfg(feature = "planted-bugs")]
pub(crate) fn rewritten(bytes: &[u8]) -> [Option<Vec<u8>>; 2] {
    fn rewritten<T: for<'a> Deserialize<'a> + Serialize>(bytes: &[u8]) -> Option<Vec<u8>> {
        let value: T = parse_json(Path::new("file"), bytes).ok()?;
        Some(serde_json::to_vec_pretty(&value).expect("has no type that JSON cannot hold"))
    }
    [rewritten::<IdentityFile>(bytes), rewritten::<Foundation>(bytes)]
}

/// Format of the directory, of the files described above, and of what the store holds.
const FORMAT: u32 = 2;

/// Length of the key that signs stateless resets: the block size of the HMAC-SHA-256 that it is for.
pub const RESET_KEY_BYTES: usize = 64;

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.json";
const TOPOLOGY: &str = "topology.json";
const RESET_KEY: &str = "reset-key";
const STORE: &str = "store";
/// Ending of files that are being written.
const ASIDE: &str = ".new";

/// What the group and others may do with a file.
const OTHERS: u32 = 0o077;

/// Decimal digits of a process's id, so that a new one is written over an old one without a change of length.
const PID_WIDTH: usize = 10;

/// What file systems allot room in, and a few names of peers that admit the next life.
const BLOCK: usize = 4096;
const ROOM_TO_GROW: usize = 256;

#[cfg(test)]
mod tests;
