//! What a reader saw, sealed.
//!
//! ```text
//! byte 0        format, 1
//! byte 1        id of the key that sealed it
//! 2 .. len-16   postcard of (version vector, written_at)
//! last 16       keyed blake3 of bucket id (4, big endian), key length (4), key, and all bytes before
//! ```
//! A client hands the token back with its write. Unsealed, it could claim to have seen the future and hide all later
//! writes; bound to bucket and key, it cannot be replayed elsewhere.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hlc::Hlc;
use super::version_vector::VersionVector;
use crate::key::{BucketId, Key};

/// What was read: the vector of the merged siblings, and the latest time among them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Context {
    /// Everything seen of the key.
    pub vv: VersionVector,
    /// The largest `written_at` among the siblings read.
    pub written_at: Hlc,
}

/// A sealed [`Context`]: opaque to clients, text-safe through [`Display`](fmt::Display) and [`FromStr`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[must_use = "a context is what lets the next put replace what was read"]
pub struct ContextToken(Bytes);

/// One sealing key with the id that tokens name it by.
#[derive(Clone)]
pub struct ContextKey {
    /// Named in each token, so that two keys can be valid during a rotation.
    pub id: u8,
    /// 256 secret random bits that all nodes of the cluster share.
    pub secret: [u8; 32],
}

/// The keys that are valid now: the first one seals, all of them open.
#[derive(Clone)]
pub struct ContextKeys(Vec<ContextKey>);

/// Why a context token was not accepted. Nothing was written; read the key again for a fresh one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum ContextError {
    /// Not base64 text of a token.
    #[error("this is not a context token; pass one exactly as a get or put printed it")]
    Malformed,
    /// Sealed in a format of another release.
    #[error("the context token has format {0}, this node reads format 1; read the key again")]
    Format(u8),
    /// Sealed with a key that is not valid here.
    #[error(
        "the context token was sealed with key {0}, which this cluster does not have (another cluster's, or rotated out); read the key again"
    )]
    UnknownKey(u8),
    /// The seal does not fit: damaged, or of another bucket or key.
    #[error("the context token is damaged or belongs to another bucket or key; read the key again")]
    Seal,
    /// Sealed as it should be, of what no honest node has read: of the far future, or of more actors than a cluster can have.
    #[error(
        "the context token tells of a write more than ten years from now, or of more actors than a cluster can have: no honest node has sealed it, and the key of contexts may be in wrong hands; read the key again"
    )]
    Implausible,
}

impl ContextKeys {
    /// Keys in order of age, newest first. `None` if there is none.
    pub fn new(keys: Vec<ContextKey>) -> Option<ContextKeys> {
        (!keys.is_empty()).then_some(ContextKeys(keys))
    }

    /// Seals what a reader of `key` in `bucket` saw.
    pub fn seal(&self, bucket: BucketId, key: &Key, context: &Context) -> ContextToken {
        let sealer = &self.0[0];
        let mut bytes = Vec::with_capacity(64 + context.vv.len() * 12);
        bytes.extend([FORMAT, sealer.id]);
        let mut bytes = postcard::to_extend(context, bytes).expect("a context has no type that postcard cannot write");
        let seal = sealer.seal(bucket, key, &bytes);
        bytes.extend(seal);
        ContextToken(bytes.into())
    }

    /// Opens a token that a client says belongs to `key` in `bucket`.
    ///
    /// # Errors
    /// [`ContextError`] says what is wrong with it.
    pub fn open(&self, bucket: BucketId, key: &Key, token: &ContextToken) -> Result<Context, ContextError> {
        let (body, seal) = token.0.split_last_chunk::<SEAL_BYTES>().ok_or(ContextError::Malformed)?;
        let [format, id, context @ ..] = body else {
            return Err(ContextError::Malformed);
        };
        if *format != FORMAT {
            return Err(ContextError::Format(*format));
        }
        let sealer = self.0.iter().find(|key| key.id == *id).ok_or(ContextError::UnknownKey(*id))?;
        // blake3::Hash compares in constant time; so must this.
        let same = sealer.seal(bucket, key, body).iter().zip(seal).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0;
        if !same {
            return Err(ContextError::Seal);
        }
        postcard::from_bytes(context).map_err(|_| ContextError::Malformed)
    }
}

impl ContextKey {
    fn seal(&self, bucket: BucketId, key: &Key, body: &[u8]) -> [u8; SEAL_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&bucket.0.to_be_bytes());
        hasher.update(&(key.as_bytes().len() as u32).to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(body);
        let mut seal = [0; SEAL_BYTES];
        hasher.finalize_xof().fill(&mut seal);
        seal
    }
}

impl ContextToken {
    /// The token's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// 128 bits: forging one takes more guesses than a cluster will ever answer.
const SEAL_BYTES: usize = 16;

const FORMAT: u8 = 1;

impl From<Bytes> for ContextToken {
    fn from(bytes: Bytes) -> ContextToken {
        ContextToken(bytes)
    }
}

impl fmt::Display for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for ContextToken {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<ContextToken, ContextError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| ContextError::Malformed)?;
        Ok(ContextToken(bytes.into()))
    }
}

impl fmt::Debug for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextToken({self})")
    }
}

/// Secrets do not print.
impl fmt::Debug for ContextKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dot::{ActorId, Dot};
    use super::*;

    fn keys(ids: &[u8]) -> ContextKeys {
        ContextKeys::new(ids.iter().map(|&id| ContextKey { id, secret: [id; 32] }).collect()).expect("has a key")
    }

    fn sample() -> (BucketId, Key, Context) {
        let vv = [Dot::new(ActorId(7), 3), Dot::new(ActorId(9), 1)].into_iter().collect();
        (BucketId(4), Key::new("bat").expect("valid"), Context { vv, written_at: Hlc(77) })
    }

    #[test]
    fn a_token_opens_to_what_was_sealed() {
        let (bucket, key, context) = sample();
        let token = keys(&[1]).seal(bucket, &key, &context);
        assert_eq!(keys(&[1]).open(bucket, &key, &token), Ok(context));
        assert_eq!(token.to_string().parse::<ContextToken>(), Ok(token));
    }

    #[test]
    fn a_token_of_another_bucket_or_key_is_refused() {
        let (bucket, key, context) = sample();
        let token = keys(&[1]).seal(bucket, &key, &context);
        assert_eq!(keys(&[1]).open(BucketId(5), &key, &token), Err(ContextError::Seal));
        let other = Key::new("cat").expect("valid");
        assert_eq!(keys(&[1]).open(bucket, &other, &token), Err(ContextError::Seal));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (bucket, key, context) = sample();
        let token = keys(&[1]).seal(bucket, &key, &context);
        for bit in 0..token.0.len() * 8 {
            let mut bytes = token.0.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(keys(&[1]).open(bucket, &key, &ContextToken(bytes.into())).is_err(), "bit {bit}");
        }
        for len in 0..token.0.len() {
            assert!(keys(&[1]).open(bucket, &key, &ContextToken(token.0.slice(..len))).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_future_format_is_named() {
        let (bucket, key, context) = sample();
        let mut bytes = keys(&[1]).seal(bucket, &key, &context).0.to_vec();
        bytes[0] = 2;
        assert_eq!(keys(&[1]).open(bucket, &key, &ContextToken(bytes.into())), Err(ContextError::Format(2)));
    }

    #[test]
    fn two_keys_are_valid_during_a_rotation() {
        let (bucket, key, context) = sample();
        let old = keys(&[1]).seal(bucket, &key, &context);
        assert_eq!(keys(&[2, 1]).open(bucket, &key, &old), Ok(context));
        assert_eq!(keys(&[2]).open(bucket, &key, &old), Err(ContextError::UnknownKey(1)));
    }

    #[test]
    fn text_that_is_no_token_is_refused() {
        assert_eq!("%%%".parse::<ContextToken>(), Err(ContextError::Malformed));
        let (bucket, key, _) = sample();
        let empty: ContextToken = "".parse().expect("is base64");
        assert_eq!(keys(&[1]).open(bucket, &key, &empty), Err(ContextError::Malformed));
    }
}
