//! Whose data a directory holds, and what that data depends on. Checked before the store is opened.
//!
//! ```text
//! <data>/            0700
//!   lock             held by the process that uses the directory; its text is that process's id
//!   identity.json    whose data this is, and how often it was opened        replaced at every start
//!   identity.json.new    room for the next one: a start must be counted on a full disk too
//!   ring/            what the cluster has agreed on, in files of its own  replaced as members and buckets change
//!   topology.json    what placement and merging of the data depend on       replaced when that may change
//!   reset-key        0600  64 bytes: signs QUIC stateless resets
//!   store/           the store's own
//! ```
//! `identity.json` and `topology.json` are for people too:
//!
//! ```text
//! { "format": 1, "cluster": "shop", "node": "ada", "created": "2026-11-20T06:00:00Z", "created_s": 1795154400,
//!   "starts": 17, "raised_by": 0, "admitted_by": ["bob", "cyd"], "filling": "new", "running": true, "store": "…32 hexadecimal digits…" }
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

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftless_proto::Topology;
use driftless_proto::membership::StoreId;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

#[cfg(feature = "planted-bugs")]
use self::files::parse_json;
use self::files::{read_json, remove, sync_directory, write_atomically, write_json};
use self::foundation::Foundation;
pub use self::glance::{Glance, User, check_topology, disk_room, glance};
use self::private::make_private;
use crate::conditions::{DiskRoom, Filling};
use crate::peer::Incarnation;
use crate::remedy::Remedy;

mod files;
mod foundation;
mod glance;
mod private;

/// A node's data directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Mutex<IdentityFile>,
    nonce: u64,
    reset_key: [u8; RESET_KEY_BYTES],
    is_after_crash: bool,
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
        "the data directory {} is in use by {}. {STOP_IT}",
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
        "the data directory {} belongs to node {found:?}, and this is node {expected:?}. {CHECK_NAME}", path.display()
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
        "the data directory {} belongs to cluster {found:?}, and this node is of cluster {expected:?}. {CHECK_CLUSTER}", path.display()
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
        "the data directory {} has format {found}, and this release knows only {FORMAT}. {START_OTHER}", path.display()
    )]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One of its files cannot be understood, or is missing.
    #[error(
        "{} {what}. {RESTORE}", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, to be read after its name.
        what: String,
    },
    /// It has files in it that no Driftless node has put there.
    #[error(
        "the directory {} is not empty and holds no Driftless data ({} is in it). {GIVE_EMPTY}", path.display(), found
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the foreign files.
        found: String,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}. {CHECK_PATH}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

const UNDO: &str = "Membership, partitions and the nature of existing buckets cannot be changed by editing the file; undo that edit. New \
                    buckets, addresses, quorums, sloppy, durability and read_all may be changed";
const STOP_IT: &str = "Stop that process first, or give this node a directory of its own";
const CHECK_NAME: &str =
    "Check the node's name and the directory in its settings; never start a node on a copy of another node's data";
const CHECK_CLUSTER: &str = "Check the cluster file and the directory in the node's settings";
const START_OTHER: &str = "Start the release that has written it";
const RESTORE: &str = "Restore the file from a backup of this very directory if you have one; otherwise move the directory away and start \
                       the node with an empty one (`--init`), only this node's and only while the others are well (`driftless status`): \
                       they hold the data, and anti-entropy fills it again";
const GIVE_EMPTY: &str = "Give the node an empty directory, or the path of one that does not exist yet";
const CHECK_PATH: &str =
    "Check that the path exists, is on a working disk with room, and that this user may write to it";

impl Remedy for OpenError {
    fn remedy(&self) -> Option<String> {
        let remedy = match self {
            OpenError::InUse { .. } => STOP_IT,
            OpenError::OtherNode { .. } => CHECK_NAME,
            OpenError::OtherCluster { .. } => CHECK_CLUSTER,
            OpenError::OtherFormat { .. } => START_OTHER,
            OpenError::Damaged { .. } => RESTORE,
            OpenError::NotOurs { .. } => GIVE_EMPTY,
            OpenError::Io { .. } => CHECK_PATH,
        };
        Some(remedy.to_owned())
    }
}

impl Remedy for TopologyError {
    fn remedy(&self) -> Option<String> {
        match self {
            TopologyError::Changed(_) => Some(UNDO.to_owned()),
            TopologyError::Directory(error) => error.remedy(),
        }
    }
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
#[error("the cluster file does not fit the data of this node: {}. {UNDO}", differences.join("; "))]
pub struct TopologyChanged {
    /// The differences, in words.
    pub differences: Vec<String>,
}

impl DataDirectory {
    /// Whether opening it would make one: the path does not exist, or the directory holds nothing that anybody has put there. What
    /// else is wrong with it is for [`DataDirectory::open`] to say.
    pub fn would_be_made(path: impl AsRef<Path>) -> bool {
        match fs::read_dir(path) {
            Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| is_left_over(&entry.file_name()))),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Whether something may have been agreed on with other nodes by who has used it; known for certain once it is open.
    pub fn may_have_agreement(path: impl AsRef<Path>) -> bool {
        path.as_ref().join(RING).is_dir()
    }

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
                filling: Some(Filling::New),
                running: false,
                store: None,
            },
        };
        file.check(&path, identity)?;
        if file.store.is_none() {
            // It is new, or an earlier release made it.
            file.store = Some(draw_store(&path)?);
        }
        let reset_key = reset_key(&path)?;
        // Durable before anybody hears of it: no two lives of the store may tell the same number.
        file.starts += 1;
        write_json(&path, IDENTITY, &file)?;
        let is_after_crash = file.running;
        Ok(DataDirectory {
            path,
            identity: Mutex::new(file),
            nonce: identity.nonce,
            reset_key,
            is_after_crash,
            _lock: lock,
        })
    }

    /// Checks the topology against the data, and remembers it if it is the first one or differs where it may. To be
    /// called before the store is opened.
    ///
    /// # Errors
    /// [`TopologyError::Changed`] names every difference that cannot be.
    pub fn check_topology(&self, topology: &Topology) -> Result<(), TopologyError> {
        let cluster = self.identity().cluster.clone();
        match compare_topology(&self.path, &cluster, topology)? {
            Some(new) => Ok(write_json(&self.path, TOPOLOGY, &new)?),
            None => Ok(()),
        }
    }

    /// Whether other nodes have agreed with this one on a version of the cluster: then that counts, and no longer the cluster file.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn has_agreement(&self) -> Result<bool, OpenError> {
        Ok(self.agreement()?.iter().any(|(name, _)| name.ends_with(RECORD)))
    }

    /// What was written of the agreement with other nodes, each file by its name.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn agreement(&self) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
        agreement_at(&self.path)
    }

    /// Writes one of these files, or removes it.
    ///
    /// # Errors
    /// [`OpenError::Io`]: it is as before, or as it should be.
    pub fn write_agreement(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), OpenError> {
        let path = self.path.join(RING);
        if !path.is_dir() {
            DirBuilder::new().mode(0o700).create(&path).map_err(|e| failed("create", &path, e))?;
            sync_directory(&self.path)?;
        }
        match bytes {
            Some(bytes) => write_atomically(&path, name, bytes),
            None => remove(&path, name),
        }
    }

    /// Names this directory's data for as long as it lives.
    pub fn store_id(&self) -> StoreId {
        // Written at every start; 0 stands for none that anybody has.
        let digits = self.identity().store.clone().unwrap_or_default();
        StoreId(u128::from_str_radix(&digits, 16).unwrap_or(0))
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

    /// Every life of this directory is above this one.
    pub fn first_life(&self) -> u64 {
        let identity = self.identity();
        identity.created_s.saturating_add(identity.raised_by)
    }

    /// How far it has come to be what other nodes hold; `None` once it has, or if an early release made it.
    pub fn filling(&self) -> Option<Filling> {
        self.identity().filling
    }

    /// Writes that down.
    ///
    /// # Errors
    /// [`OpenError::Io`]: it is as before.
    pub fn note_filling(&self, filling: Option<Filling>) -> Result<(), OpenError> {
        let mut identity = self.identity();
        let file = IdentityFile { filling, ..identity.clone() };
        write_json(&self.path, IDENTITY, &file)?;
        *identity = file;
        Ok(())
    }

    /// Whether the node that served with it before has not stopped in order: it was killed, or has ended by itself.
    pub fn is_after_crash(&self) -> bool {
        self.is_after_crash
    }

    /// Writes down that a node serves with it from now on, or has stopped in order.
    ///
    /// # Errors
    /// [`OpenError::Io`]: it is as before.
    pub fn note_running(&self, running: bool) -> Result<(), OpenError> {
        let mut identity = self.identity();
        let file = IdentityFile { running, ..identity.clone() };
        write_json(&self.path, IDENTITY, &file)?;
        *identity = file;
        Ok(())
    }

    /// How full its disk is; `None` if the system does not say.
    pub fn disk_room(&self) -> Option<DiskRoom> {
        disk_room(&self.path)
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
    /// Absent once it is what other nodes hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filling: Option<Filling>,
    /// A node serves with it, or did so and has not stopped in order. Absent if not, and where an earlier release has written this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    running: bool,
    /// Names the data. Absent where an early release made the directory, until its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
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

/// Holds a topology against the data in a directory of this cluster. What is to be remembered of it, if that is news.
fn compare_topology(directory: &Path, cluster: &str, topology: &Topology) -> Result<Option<Foundation>, TopologyError> {
    let new = Foundation::of(topology);
    if new.cluster != cluster {
        let difference = format!("the cluster is {:?} and was {cluster:?}", new.cluster);
        return Err(TopologyChanged { differences: vec![difference] }.into());
    }
    let path = directory.join(TOPOLOGY);
    match read_json::<Foundation>(&path)? {
        Some(old) => {
            let differences = old.differences(&new);
            if !differences.is_empty() {
                return Err(TopologyChanged { differences }.into());
            }
            Ok((old != new).then_some(new))
        }
        None if directory.join(STORE).exists() => {
            let what = "is missing, and this directory holds data".to_string();
            Err(OpenError::Damaged { path, what }.into())
        }
        None => Ok(Some(new)),
    }
}

/// What was written of the agreement with other nodes in a directory.
fn agreement_at(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
    let path = directory.join(RING);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", &path, e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| failed("list", &path, e))?.file_name();
        if let Some(name) = name.to_str().filter(|name| !name.ends_with(ASIDE)) {
            let file = path.join(name);
            files.push((name.to_owned(), fs::read(&file).map_err(|e| failed("read", &file, e))?));
        }
    }
    files.sort();
    Ok(files)
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

/// Refuses a directory without an identity that is in use for something else, or has lost its identity.
fn check_unused(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(|e| failed("list", path, e))? {
        let name = entry.map_err(|e| failed("list", path, e))?.file_name();
        match name.to_str() {
            Some(STORE | TOPOLOGY | RING) => return Err(IdentityFile::missing(path)),
            _ if is_left_over(&name) => {}
            _ => {
                let found = name.to_string_lossy().into_owned();
                return Err(OpenError::NotOurs { path: path.into(), found });
            }
        }
    }
    Ok(())
}

/// What a first start leaves that was interrupted, and what file systems put at their roots.
fn is_left_over(name: &OsStr) -> bool {
    matches!(name.to_str(), Some(LOCK | RESET_KEY | "lost+found"))
        || name.to_str().is_some_and(|name| name.ends_with(ASIDE))
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
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => return Ok(key),
            Err(bytes) => {
                // No data rests on it: peers that know the old one notice this start some seconds later.
                let (path, bytes) = (path.display(), bytes.len());
                tracing::warn!(%path, bytes, "the key that signs stateless resets is cut off, and is made anew");
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("read", &path, e)),
    }
    let mut key = [0; RESET_KEY_BYTES];
    OsRng.try_fill_bytes(&mut key).map_err(|e| failed("draw random bytes for", &path, io::Error::other(e)))?;
    write_atomically(directory, RESET_KEY, &key)?;
    Ok(key)
}

fn draw_store(directory: &Path) -> Result<String, OpenError> {
    let mut bytes = [0; 16];
    let drawn = OsRng.try_fill_bytes(&mut bytes);
    drawn.map_err(|e| failed("draw random bytes for", &directory.join(IDENTITY), io::Error::other(e)))?;
    Ok(StoreId(u128::from_be_bytes(bytes)).to_string())
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
const RING: &str = "ring";
/// Ending of the files of versions that were agreed on.
const RECORD: &str = ".record";
/// Ending of files that are being written.
const ASIDE: &str = ".new";

/// Decimal digits of a process's id, so that a new one is written over an old one without a change of length.
const PID_WIDTH: usize = 10;

#[cfg(test)]
mod tests;
