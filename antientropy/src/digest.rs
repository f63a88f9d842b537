//! The digest of one key's siblings.

use driftless_proto::{BucketId, Header, Key};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Sixteen bytes over everything that replicas must agree on: bucket, key, vector, live dots and the hashes of their
/// values. Never over wall time, which replicas may learn in different ways.
///
/// Digests combine by exclusive or, in any order: a sum over many keys changes by `old ^ new` when one key does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of a key in this state.
    ///
    /// Hashed bytes, integers big endian: bucket (4), key length (4), key, number of actors (4), each actor (8) and
    /// counter (8), number of live writes (4), each actor (8), counter (8) and value hash (8).
    pub fn of(bucket: BucketId, key: &Key, header: &Header) -> Digest {
        let key = key.as_bytes();
        let mut bytes = Vec::with_capacity(16 + key.len() + header.vv().len() * 16 + header.live().len() * 24);
        bytes.extend(bucket.0.to_be_bytes());
        bytes.extend((key.len() as u32).to_be_bytes());
        bytes.extend(key);
        bytes.extend((header.vv().len() as u32).to_be_bytes());
        for (actor, counter) in header.vv().iter() {
            bytes.extend(actor.0.to_be_bytes());
            bytes.extend(counter.to_be_bytes());
        }
        bytes.extend((header.live().len() as u32).to_be_bytes());
        for (dot, outline) in header.live() {
            bytes.extend(dot.actor.0.to_be_bytes());
            bytes.extend(dot.counter.to_be_bytes());
            bytes.extend(outline.value_hash.to_be_bytes());
        }
        Digest(xxh3_128(&bytes))
    }

    /// Adds or removes one digest to a sum of many.
    pub fn combine(self, other: Digest) -> Digest {
        Digest(self.0 ^ other.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use driftless_proto::{ActorId, Dot, Hlc, Siblings, Version, VersionVector, WriteId};

    use super::*;

    fn header(value: &'static str, written_at: u64) -> Header {
        let mut siblings = Siblings::new();
        let version = Version {
            value: Some(Bytes::from_static(value.as_bytes())),
            write_id: WriteId(written_at.into()),
            written_at: Hlc(written_at),
        };
        siblings.event(&VersionVector::new(), Dot::new(ActorId(1), 1), version);
        siblings.header()
    }

    fn digest(bucket: u32, key: &'static str, header: &Header) -> Digest {
        Digest::of(BucketId(bucket), &Key::new(key).expect("valid"), header)
    }

    #[test]
    fn a_digest_tells_bucket_key_and_value_apart_but_not_time() {
        let base = digest(0, "bat", &header("v", 1));
        assert_eq!(base, digest(0, "bat", &header("v", 2)));
        assert_ne!(base, digest(1, "bat", &header("v", 1)));
        assert_ne!(base, digest(0, "cat", &header("v", 1)));
        assert_ne!(base, digest(0, "bat", &header("w", 1)), "a reused dot shows");
    }

    #[test]
    fn a_digest_stays_what_it_was() {
        // Stored on every disk: a change of this value is a change of the format.
        assert_eq!(digest(0, "bat", &header("v", 1)).0, 109_766_483_736_277_415_175_438_255_204_623_479_371);
    }

    #[test]
    fn sums_do_not_depend_on_order_and_undo() {
        let (a, b) = (digest(0, "a", &header("v", 1)), digest(0, "b", &header("v", 1)));
        assert_eq!(a.combine(b), b.combine(a));
        assert_eq!(a.combine(b).combine(b), a);
    }
}
