//! How a key is laid out in the store.
//!
//! ```text
//! key of a record                              value of a record
//!  0      space, 1                              0      format, 2
//!  1      n, the replication factor             1      digest, big endian (16)
//!  2      token, big endian (8)                 17     length of the header, little endian (4)
//!  10     bucket id, big endian (4)             21     checksum of digest, length and header, big endian (8)
//!  14     key                                   29     header: postcard of the vector and the live outlines
//!                                               …      values of the live writes, in order; lengths in the header
//!
//! key of a hint                                value of a hint
//!  0      space, 2                              a copy: as the value of a record
//!  1      target, big endian (8)                a marker: the one byte 129
//!  9      the record's key without its space
//!
//! key of an actor                              value of an actor
//!  0      space, 0                              0      format, 1
//!  1      'a'                                   1      actor, big endian (8)
//!  2      n                                     9      counter, big endian (8)
//!  3      arc, big endian (4)
//! ```
//! Every byte of a record is covered: the front and the header by the checksum, a value by the hash of it in the header. The
//! digest alone would not do, since it leaves out what replicas need not agree on at once: times and write ids.
//!
//! Records sort by (n, token, bucket, key): a partition is one contiguous range, whatever its buckets; hints by target,
//! then like records. A *copy* is the state of a key held for its target by a node that does not own the key. A *marker*
//! says that the target misses something of a key that the node owns itself: the record is the copy, it never goes away
//! while the node owns it, and what is delivered is its state then, which includes what its target missed.

mod key;
mod value;

use bytes::Bytes;

use super::store::StoreError;

pub(in crate::replica) use key::actor_key;
pub use key::{
    HintKey, RECORDS_PREFIX, RecordKey, all_hints, all_records, arc_range, hints_of, is_hint, is_hint_of,
    token_and_bucket, token_range,
};
#[cfg(feature = "planted-bugs")]
pub(in crate::replica) use value::decode_as_it_is;
pub use value::{
    Entry, audit, decode, decode_digest, decode_entry, decode_header, encode, is_marker, read_copy, read_header,
    read_state, stored_digest,
};
pub(in crate::replica) use value::{digest_of, encode_actor, is_no_copy, marker};

/// A record could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The store cannot be trusted any more; stop serving.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This one is not what was written; the others may well be.
    #[error("a record is damaged: {reason}")]
    Damaged {
        /// Its key in the store.
        record: Bytes,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was read is not what was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl RecordError {
    /// Whether it says nothing against other records.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, RecordError::Damaged { .. })
    }
}

impl From<StoreError> for Malformed {
    fn from(error: StoreError) -> Malformed {
        match error {
            StoreError::Corrupt(reason) => Malformed(reason),
            error => Malformed(error.to_string()),
        }
    }
}

impl Malformed {
    /// It was met in reading this record.
    pub(super) fn in_record(self, record: &[u8]) -> RecordError {
        RecordError::Damaged { record: Bytes::copy_from_slice(record), reason: self.0 }
    }
}

#[cfg(test)]
mod tests {
    use driftless_proto::{ActorId, BucketId, Dot, Hlc, Key, Siblings, Version, VersionVector, WriteId};
    use driftless_ring::{ArcIndex, NodeId, PartitionId, Partitions, Token};
    use proptest::prelude::*;

    use super::key::SPACE_HINTS;
    use super::*;

    fn siblings(values: &[Option<&'static [u8]>]) -> Siblings {
        let mut siblings = Siblings::new();
        for (i, value) in values.iter().enumerate() {
            let version =
                Version { value: value.map(Bytes::from_static), write_id: WriteId(i as u128), written_at: Hlc(9) };
            siblings.event(&VersionVector::new(), Dot::new(ActorId(i as u64), 3), version);
        }
        siblings
    }

    fn key() -> Key {
        Key::new("bat").expect("valid")
    }

    fn encoded(siblings: &Siblings) -> Bytes {
        encode(BucketId(7), &key(), &siblings.header(), siblings)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for values in [vec![], vec![None], vec![Some(&b""[..])], vec![Some(&b"one"[..]), None, Some(&b"two"[..])]] {
            let siblings = siblings(&values);
            assert_eq!(decode(encoded(&siblings)), Ok(siblings.clone()));
            assert_eq!(decode_header(&encoded(&siblings)), Ok(siblings.header()));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let good = encoded(&siblings(&[Some(b"precious"), None]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for bit in 0..8 * good.len() {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_state(&record, bad.into()), Err(RecordError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_values_is_noticed_without_reading_them() {
        let value = b"precious";
        let good = encoded(&siblings(&[Some(value)]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for bit in 0..8 * (good.len() - value.len()) {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            assert!(decode_digest(record.as_bytes(), &bad).is_err(), "bit {bit}");
            assert!(decode_entry(record.as_bytes(), &bad).is_err(), "bit {bit}");
            assert!(decode_header(&bad).is_err() && stored_digest(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_short_or_with_zeros_in_it_is_noticed() {
        let good = encoded(&siblings(&[Some(b"precious"), Some(b"too")]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for at in 0..good.len() {
            assert!(read_state(&record, good.slice(..at)).is_err(), "cut at {at}");
            let mut bad = good.to_vec();
            let end = bad.len().min(at + 16);
            bad[at..end].fill(0);
            assert!(bad == good || read_state(&record, bad.into()).is_err(), "zeros at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut newer = encoded(&siblings(&[Some(b"v")])).to_vec();
        newer[0] = 3;
        let Err(Malformed(reason)) = decode(newer.into()) else { panic!("must be refused") };
        assert!(reason.contains("format 3"), "{reason}");
    }

    #[test]
    fn a_partition_is_one_contiguous_range() {
        let partitions = Partitions::new(4).expect("a power of two");
        for arc in 0..4 {
            let range = arc_range(PartitionId { n: 3, arc: ArcIndex(arc) }, partitions);
            for token in [0, 1, u64::MAX / 4, u64::MAX / 4 + 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                let record = RecordKey::new(3, Token(token), BucketId(u32::MAX), &key());
                let inside = range.start.as_slice() <= record.as_bytes() && record.as_bytes() < range.end.as_slice();
                assert_eq!(inside, partitions.arc_of(Token(token)) == ArcIndex(arc), "token {token} arc {arc}");
                let other_class = RecordKey::new(4, Token(token), BucketId(0), &key());
                assert!(range.end.as_slice() <= other_class.as_bytes());
            }
        }
    }

    #[test]
    fn a_record_key_reads_back() {
        let record = RecordKey::new(3, Token(0x0102_0304_0506_0708), BucketId(9), &key());
        assert_eq!(record.position(), (3, Token(0x0102_0304_0506_0708)));
        assert_eq!(record.bucket_and_key(), Ok((BucketId(9), key())));
        let value = encoded(&siblings(&[Some(b"v")]));
        let entry = decode_entry(record.as_bytes(), &value).expect("well formed");
        assert_eq!(decode_digest(record.as_bytes(), &value), Ok((entry.token, entry.digest)));
        assert_eq!(
            (entry.n, entry.token, entry.bucket, entry.key),
            (3, Token(0x0102_0304_0506_0708), BucketId(9), key())
        );
    }

    #[test]
    fn a_hint_is_about_a_record_and_sorts_by_target_then_like_records() {
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        let hint = HintKey::new(NodeId(5), &record);
        assert_eq!((hint.target(), hint.record()), (NodeId(5), record.clone()));
        assert_eq!(record.bucket_and_key(), Ok((BucketId(7), key())));
        assert_eq!(HintKey::from_stored(hint.as_bytes()), Ok(hint.clone()));
        let other = RecordKey::new(3, Token(10), BucketId(7), &key());
        assert!(is_hint(hint.as_bytes()) && !is_hint(record.as_bytes()));
        assert!(is_hint_of(hint.as_bytes(), &record) && !is_hint_of(record.as_bytes(), &record));
        assert!(!is_hint_of(hint.as_bytes(), &other) && !is_hint_of(&[SPACE_HINTS], &record));
        for (target, inside) in [(4, false), (5, true), (6, false)] {
            assert_eq!(hints_of(NodeId(target)).contains(&hint.to_bytes().to_vec()), inside);
        }
        let last = HintKey::new(NodeId(u64::MAX), &RecordKey::new(255, Token(u64::MAX), BucketId(u32::MAX), &key()));
        assert!(hints_of(NodeId(u64::MAX)).contains(&last.to_bytes().to_vec()));
        assert!(all_hints().contains(&last.to_bytes().to_vec()) && !all_hints().contains(&record.to_bytes().to_vec()));
        assert!(is_marker(&marker()) && !is_marker(&encoded(&siblings(&[None]))));
    }

    #[test]
    fn the_end_of_an_arc_is_after_its_hints_and_before_those_of_the_next() {
        let partitions = Partitions::new(4).expect("a power of two");
        let hint = |n, token| HintKey::new(NodeId(5), &RecordKey::new(n, Token(token), BucketId(0), &key()));
        let quarter = u64::MAX / 4 + 1;
        let end = hint(3, 1).end_of_arc(partitions);
        assert!(hint(3, quarter - 1).as_bytes() < end.as_slice() && end.as_slice() < hint(3, quarter).as_bytes());
        let end = hint(3, u64::MAX).end_of_arc(partitions);
        assert!(hint(3, u64::MAX).as_bytes() < end.as_slice() && end.as_slice() < hint(4, 0).as_bytes());
        assert_eq!(hint(255, u64::MAX).end_of_arc(partitions), hints_of(NodeId(5)).end);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(record in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_entry(&record, &value);
            let _ = decode_digest(&record, &value);
            let _ = HintKey::from_stored(&record).map(|hint| hint.record().bucket_and_key());
            let _ = decode(value.into());
        }

        #[test]
        fn damaged_records_never_panic(at in 0..200_usize, byte in any::<u8>()) {
            let mut bytes = encoded(&siblings(&[Some(b"one"), None, Some(b"two")])).to_vec();
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = decode(bytes.into());
        }
    }
}
