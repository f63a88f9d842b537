//! A position on the ring.
//!
//! The token decides where a key lives for as long as the cluster exists, so its definition can never
//! change: `xxh3_64(bucket as 4 bytes, big endian ++ key)` under the cluster's seed. The tests at the
//! foot of this file hold known answers.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// A position on the ring of 2^64 positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    /// The token of a key in a bucket. Does not allocate.
    pub fn of(seed: u64, bucket: u32, key: &[u8]) -> Token {
        let mut buffer = [0; ONE_SHOT_MAX];
        let length = BUCKET_BYTES + key.len();
        if let Some(input) = buffer.get_mut(..length) {
            let (head, tail) = input.split_at_mut(BUCKET_BYTES);
            head.copy_from_slice(&bucket.to_be_bytes());
            tail.copy_from_slice(key);
            Token(xxh3_64_with_seed(input, seed))
        } else {
            let mut hasher = Xxh3::with_seed(seed);
            hasher.update(&bucket.to_be_bytes());
            hasher.update(key);
            Token(hasher.digest())
        }
    }
}

/// A bucket id is hashed as four bytes.
const BUCKET_BYTES: usize = size_of::<u32>();

/// Inputs up to this length are joined on the stack and hashed at one go, which skips setting up the
/// streaming hasher's half kilobyte of state. Nearly all keys are shorter.
const ONE_SHOT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // From the sanity checks of the reference implementation.
        assert_eq!(xxh3_64_with_seed(b"", 0), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn tokens_never_change() {
        let answers = [
            (0, 0, &b""[..], KAT[0]),
            (0, 1, b"cart/42", KAT[1]),
            (7, 1, b"cart/42", KAT[2]),
            (u64::MAX, u32::MAX, &[0xff; 1024], KAT[3]),
        ];
        for (seed, bucket, key, token) in answers {
            assert_eq!(Token::of(seed, bucket, key), Token(token), "seed {seed} bucket {bucket}");
        }
    }

    #[test]
    fn short_and_long_keys_are_hashed_alike() {
        let key = [0x5a; 2 * ONE_SHOT_MAX];
        for length in [0, 1, 16, 240, 251, 252, 253, 256, 300, 512] {
            let joined = [&9u32.to_be_bytes(), &key[..length]].concat();
            assert_eq!(Token::of(3, 9, &key[..length]).0, xxh3_64_with_seed(&joined, 3), "{length} bytes");
        }
    }

    #[test]
    fn bucket_and_key_do_not_run_into_each_other() {
        assert_ne!(Token::of(0, 0x61, b"b"), Token::of(0, 0, b"ab"));
    }

    const KAT: [u64; 4] = [0x48b2_c926_16fc_193d, 0x371f_89e1_c0cb_3e80, 0xcb3b_a026_354b_156d, 0x1c77_b32f_966f_7d64];
}
