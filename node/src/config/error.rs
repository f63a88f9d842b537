//! What can be wrong with a configuration. Every message names the place and says what to write instead.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use driftless_proto::topology::TopologyError;
use driftless_proto::{KeyError, QuorumError};
use driftless_ring::RingError;

use super::private::closing;
use crate::remedy::Remedy;

/// Why a configuration was not accepted. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; {}", .path.display(), reading_advice(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not well-formed TOML: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key that does not exist.
    #[error("unknown key \"{key}\" in {place}; {}", suggestion(.closest))]
    UnknownKey {
        /// The key, with its section.
        key: String,
        /// File or environment.
        place: String,
        /// The known key that resembles it most.
        closest: Option<String>,
    },
    /// A value that cannot be used.
    #[error("{key} = {value} in {place} cannot be used; expected {expected}")]
    BadValue {
        /// The key, with its section.
        key: String,
        /// What was written.
        value: String,
        /// File, environment variable or flag.
        place: String,
        /// What was expected instead.
        expected: String,
    },
    /// A value without which nothing works.
    #[error("{key} is missing in {place}; {advice}")]
    Missing {
        /// The key, with its section.
        key: String,
        /// The file.
        place: String,
        /// What to do.
        advice: String,
    },
    /// A bucket's name is not one.
    #[error("bad bucket in {}: {source}", .path.display())]
    BucketName {
        /// The cluster file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A bucket's n, r or w do not fit each other.
    #[error("bucket \"{bucket}\" in {}: {source}", .path.display())]
    Quorum {
        /// The cluster file.
        path: PathBuf,
        /// The bucket.
        bucket: String,
        /// Which number is out of bounds.
        source: QuorumError,
    },
    /// A bucket wants more replicas than there are members.
    #[error("bucket \"{bucket}\" in {} wants n = {n}, but there are only {members} members; {LOWER_N}", .path.display())]
    TooFewMembers {
        /// The cluster file.
        path: PathBuf,
        /// The bucket.
        bucket: String,
        /// Replicas wanted.
        n: u8,
        /// Members named.
        members: usize,
    },
    /// Two buckets hash to one id.
    #[error("buckets \"{first}\" and \"{second}\" in {} get the same id {id}; {GIVE_IDS}", .path.display())]
    BucketId {
        /// The cluster file.
        path: PathBuf,
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// The id.
        id: u32,
    },
    /// Two members would listen on one port.
    #[error(
        "{first} and {second} in {} have a port of {host} in common; a member has one for each of its shards, from that of its \
         address on: give them others", .path.display()
    )]
    SharedPorts {
        /// The cluster file.
        path: PathBuf,
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// Where both are.
        host: String,
    },
    /// The members do not make a ring.
    #[error("the members in {} make no ring: {source}", .path.display())]
    Ring {
        /// The cluster file.
        path: PathBuf,
        /// Why.
        source: RingError,
    },
    /// Ring and buckets do not fit each other.
    #[error("{} does not hold together: {source}", .path.display())]
    Topology {
        /// The cluster file.
        path: PathBuf,
        /// Why.
        source: TopologyError,
    },
    /// This node is not in the cluster file.
    #[error("{} has no member \"{name}\"; its members are {members}. {BECOME_ONE}", .path.display())]
    NotAMember {
        /// The cluster file.
        path: PathBuf,
        /// This node.
        name: String,
        /// The members that are in it.
        members: String,
    },
    /// A secret that others can read.
    #[error("{} can be read by others (mode {mode:o}); {}", .path.display(), closing(.path, *.is_roots))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether it belongs to root.
        is_roots: bool,
    },
    /// A line of the key file is not `ID HEX64`.
    #[error("line {line} of {} is not `ID HEX`: a number from 0 to 255, a space, and 64 hexadecimal digits; newest key first", .path.display())]
    KeyLine {
        /// The key file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The access file says something that cannot be.
    #[error("line {line} of {}: {problem}", .path.display())]
    Access {
        /// The access file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What, and what to write instead.
        problem: String,
    },
    /// Two keys with one id.
    #[error("key id {id} occurs twice in {}; a token could not say which it means", .path.display())]
    KeyTwice {
        /// The key file.
        path: PathBuf,
        /// The id.
        id: u8,
    },
    /// No key at all.
    #[error("{} holds no key; `driftless cert ca` makes a file with one, to be copied to all nodes of the cluster", .path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
}

/// Reads a file that people write, or says why not. A device that never comes to an end takes no memory.
///
/// # Errors
/// [`ConfigError::Read`].
pub fn read_file(path: &Path) -> Result<String, ConfigError> {
    read_text(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("it has more than {} MiB, as no file of this kind has", FILE_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// An access file with a hundred thousand names has some megabytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The candidate that resembles a mistyped word most, if any does at all.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).first().map(|candidate| (*candidate).to_owned())
}

/// The candidates that resemble a mistyped word, the nearest first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let likeness = |candidate: &'a str| (strsim::jaro_winkler(word, candidate), candidate);
    let mut found: Vec<_> = candidates.into_iter().map(likeness).filter(|(like, _)| *like > LIKENESS_MIN).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Below this two words have little more in common than letters: "lsiten" and "listen" have 0.95, "colour" and
/// "cluster" 0.74.
const LIKENESS_MIN: f64 = 0.75;

const LOWER_N: &str = "lower n or add members";
const GIVE_IDS: &str = "give one of them an `id` of its own";
const BECOME_ONE: &str = "Correct `name` in the node's file; or, if it is to join those that run already, write there where they reach it: \
                          address = \"10.0.0.4:7400\"; or, if none has run yet, add a [[member]] with that name";

impl Remedy for ConfigError {
    fn remedy(&self) -> Option<String> {
        match self {
            ConfigError::Read { source, .. } => Some(reading_advice(source).to_owned()),
            ConfigError::UnknownKey { closest, .. } => Some(suggestion(closest)),
            ConfigError::Missing { advice, .. } => Some(advice.clone()),
            ConfigError::TooFewMembers { .. } => Some(LOWER_N.to_owned()),
            ConfigError::BucketId { .. } => Some(GIVE_IDS.to_owned()),
            ConfigError::NotAMember { .. } => Some(BECOME_ONE.to_owned()),
            ConfigError::Exposed { path, is_roots, .. } => Some(closing(path, *is_roots)),
            ConfigError::Syntax { .. }
            | ConfigError::BadValue { .. }
            | ConfigError::BucketName { .. }
            | ConfigError::Quorum { .. }
            | ConfigError::SharedPorts { .. }
            | ConfigError::Ring { .. }
            | ConfigError::Topology { .. }
            | ConfigError::KeyLine { .. }
            | ConfigError::Access { .. }
            | ConfigError::KeyTwice { .. }
            | ConfigError::NoKey { .. } => None,
        }
    }
}

fn suggestion(closest: &Option<String>) -> String {
    match closest {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => "remove it, or see `driftless config explain` for the keys of a node that exist".to_owned(),
    }
}

fn reading_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "check the path (relative paths start at the file that names them)",
        io::ErrorKind::PermissionDenied => "run as the user that owns it",
        io::ErrorKind::IsADirectory => "name the file in it that is meant",
        _ => "check that it is the file that is meant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::{NASTY, check};

    #[test]
    fn what_to_do_is_where_the_message_ends_whatever_stands_in_it() {
        let (path, text) = (PathBuf::from(NASTY), NASTY.to_owned());
        let says_what_to_do = [
            ConfigError::Read { path: path.clone(), source: io::Error::other(NASTY) },
            ConfigError::UnknownKey { key: text.clone(), place: text.clone(), closest: None },
            ConfigError::UnknownKey { key: text.clone(), place: text.clone(), closest: Some("listen".to_owned()) },
            ConfigError::Missing { key: text.clone(), place: text.clone(), advice: "write it".to_owned() },
            ConfigError::TooFewMembers { path: path.clone(), bucket: text.clone(), n: 3, members: 1 },
            ConfigError::BucketId { path: path.clone(), first: text.clone(), second: text.clone(), id: 1 },
            ConfigError::NotAMember { path: path.clone(), name: text.clone(), members: text.clone() },
            ConfigError::Exposed { path: path.clone(), mode: 0o644, is_roots: false },
            ConfigError::Exposed { path, mode: 0o644, is_roots: true },
        ];
        for error in says_what_to_do {
            assert!(error.remedy().is_some(), "{error}");
            check(&error);
        }
        let (key, value, place) = (text.clone(), text.clone(), text.clone());
        let bad = ConfigError::BadValue { key, value, place, expected: text };
        assert_eq!(bad.remedy(), None);
        check(&bad);
    }

    #[test]
    fn what_is_no_file_of_settings_is_refused_with_what_it_is() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let large = folder.path().join("large");
        File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("has holes only");
        let latin = folder.path().join("latin");
        std::fs::write(&latin, b"name = \"caf\xe9\"").expect("writes");
        for (path, expected) in [
            (folder.path(), "name the file in it that is meant"),
            (&large, "it has more than 16 MiB"),
            (Path::new("/dev/zero"), "it has more than 16 MiB"),
            (&latin, "it is not text in UTF-8"),
            (&folder.path().join("none"), "check the path"),
        ] {
            let said = read_file(path).expect_err("cannot be read").to_string();
            assert!(said.starts_with("cannot read ") && said.contains(expected), "{said}");
        }
        assert_eq!(read_file(Path::new("/dev/null")).expect("is empty"), "");
    }
}
