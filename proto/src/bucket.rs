//! How a bucket behaves: replication, quorums, conflict policy, durability.

use serde::{Deserialize, Serialize};

use crate::key::{BucketId, BucketName};

/// Replication factor and default quorums of a bucket: `1 <= r, w <= n`.
///
/// `r + w > n` makes every strict read see every strict write; less is allowed, for those who want speed over
/// freshness, and [`Quorum::overlaps`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawQuorum", into = "RawQuorum")]
pub struct Quorum {
    n: u8,
    r: u8,
    w: u8,
}

/// What happens to concurrent writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// They are kept as siblings until a write whose context saw them replaces them.
    #[default]
    Siblings,
    /// Last writer wins, by hybrid logical clock: the others are discarded, and counted.
    Lww,
}

/// When a replica acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the covering sync: acknowledged data survives a power cut.
    #[default]
    Sync,
    /// After the write to the log, which is synced within a second: survives the death of the process, not of the
    /// machine.
    Buffered,
}

/// A bucket, as the cluster agreed on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketDefinition {
    /// Number in tokens and stored keys; never changes.
    pub id: BucketId,
    /// Name in requests of people.
    pub name: BucketName,
    /// Replication factor (never changes) and default quorums.
    pub quorum: Quorum,
    /// Whether fallbacks count towards w.
    pub sloppy: bool,
    /// Conflict policy; never changes.
    pub conflict: Conflict,
    /// When writes are acknowledged.
    pub durability: Durability,
    /// Percentage of reads that ask all n replicas instead of r, so that read repair sees every replica of what is
    /// read. More heals sooner and costs replica reads; 0 leaves unread replicas to anti-entropy.
    pub read_all: u8,
}

/// Why quorum numbers were not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum QuorumError {
    /// n must be 1 to 16: past that, quorums cost more than the safety they add.
    #[error("n = {0} is not possible; use 1 to {max}", max = Quorum::N_MAX)]
    Replicas(u8),
    /// r must be 1 to n.
    #[error("r = {r} is not possible with n = {n}; use 1 to {n}")]
    Read {
        /// Asked for.
        r: u8,
        /// Replication factor.
        n: u8,
    },
    /// w must be 1 to n.
    #[error("w = {w} is not possible with n = {n}; use 1 to {n}")]
    Write {
        /// Asked for.
        w: u8,
        /// Replication factor.
        n: u8,
    },
}

impl Quorum {
    /// Most replicas of a key.
    pub const N_MAX: u8 = 16;

    /// Accepts `1 <= r, w <= n <= N_MAX`.
    ///
    /// # Errors
    /// [`QuorumError`] says which number is out of bounds.
    pub const fn new(n: u8, r: u8, w: u8) -> Result<Quorum, QuorumError> {
        if n == 0 || n > Quorum::N_MAX {
            return Err(QuorumError::Replicas(n));
        }
        if r == 0 || r > n {
            return Err(QuorumError::Read { r, n });
        }
        if w == 0 || w > n {
            return Err(QuorumError::Write { w, n });
        }
        Ok(Quorum { n, r, w })
    }

    /// A majority of n for both reads and writes.
    ///
    /// # Errors
    /// [`QuorumError::Replicas`] if n is out of bounds.
    pub const fn majority(n: u8) -> Result<Quorum, QuorumError> {
        Quorum::new(n, n / 2 + 1, n / 2 + 1)
    }

    /// The same with another r or w, where given.
    ///
    /// # Errors
    /// [`QuorumError`] if one is out of bounds.
    pub const fn with(self, r: Option<u8>, w: Option<u8>) -> Result<Quorum, QuorumError> {
        let r = match r {
            Some(r) => r,
            None => self.r,
        };
        let w = match w {
            Some(w) => w,
            None => self.w,
        };
        Quorum::new(self.n, r, w)
    }

    /// Replicas of each key.
    pub const fn n(self) -> u8 {
        self.n
    }

    /// Replicas that answer a read.
    pub const fn r(self) -> u8 {
        self.r
    }

    /// Replicas that acknowledge a write.
    pub const fn w(self) -> u8 {
        self.w
    }

    /// Whether every read quorum meets every write quorum.
    pub const fn overlaps(self) -> bool {
        self.r + self.w > self.n
    }
}

impl BucketDefinition {
    /// The built-in bucket: n = 3 (or as many as there are members), r and w a majority of it, sloppy, siblings, sync.
    pub fn built_in(members: usize) -> BucketDefinition {
        let n = members.clamp(1, 3) as u8;
        BucketDefinition {
            id: BucketId::DEFAULT,
            name: BucketName::new("default").expect("is a well-formed name"),
            quorum: Quorum::majority(n).expect("n is 1 to 3"),
            sloppy: true,
            conflict: Conflict::default(),
            durability: Durability::default(),
            read_all: READ_ALL_DEFAULT,
        }
    }
}

/// One read in ten asks every replica (protocol: "GET").
pub const READ_ALL_DEFAULT: u8 = 10;

#[derive(Serialize, Deserialize)]
struct RawQuorum {
    n: u8,
    r: u8,
    w: u8,
}

impl TryFrom<RawQuorum> for Quorum {
    type Error = QuorumError;

    fn try_from(raw: RawQuorum) -> Result<Quorum, QuorumError> {
        Quorum::new(raw.n, raw.r, raw.w)
    }
}

impl From<Quorum> for RawQuorum {
    fn from(Quorum { n, r, w }: Quorum) -> RawQuorum {
        RawQuorum { n, r, w }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_stay_within_n() {
        assert!(Quorum::new(3, 2, 2).expect("valid").overlaps());
        assert!(!Quorum::new(3, 1, 2).expect("valid").overlaps());
        assert_eq!(Quorum::new(0, 1, 1), Err(QuorumError::Replicas(0)));
        assert_eq!(Quorum::new(17, 1, 1), Err(QuorumError::Replicas(17)));
        assert_eq!(Quorum::new(3, 0, 2), Err(QuorumError::Read { r: 0, n: 3 }));
        assert_eq!(Quorum::new(3, 2, 4), Err(QuorumError::Write { w: 4, n: 3 }));
        let default = Quorum::new(3, 2, 2).expect("valid");
        assert_eq!(default.with(Some(3), None), Quorum::new(3, 3, 2));
        assert_eq!(default.with(None, Some(9)), Err(QuorumError::Write { w: 9, n: 3 }));
    }

    #[test]
    fn a_quorum_from_the_network_is_checked_too() {
        assert!(postcard::from_bytes::<Quorum>(&[3, 2, 2]).is_ok());
        assert!(postcard::from_bytes::<Quorum>(&[3, 4, 2]).is_err());
    }

    #[test]
    fn small_clusters_get_a_smaller_default_bucket() {
        assert_eq!(BucketDefinition::built_in(1).quorum, Quorum::new(1, 1, 1).expect("valid"));
        assert_eq!(BucketDefinition::built_in(2).quorum, Quorum::new(2, 2, 2).expect("valid"));
        assert_eq!(BucketDefinition::built_in(9).quorum, Quorum::new(3, 2, 2).expect("valid"));
    }
}
