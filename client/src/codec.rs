//! Between values and bytes: what a [`TypedBucket`](crate::TypedBucket) encodes and decodes with.

#[cfg(feature = "json")]
mod json;

use std::any::type_name;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::client::Sibling;
use driftless_proto::{Hlc, Key};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "json")]
pub use json::Json;

/// Encodes and decodes values of `T`. Both directions have to agree for as long as values are kept, so what an application
/// wrote years ago has to be decoded by its release of today.
///
/// What [`decode`](Codec::decode) says of a value becomes part of a [`DecodeError`], which ends up in logs: it should not say
/// what the value is.
pub trait Codec<T>: Send + Sync {
    /// The bytes of a value.
    ///
    /// # Errors
    /// Why it has none.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value of bytes that were read.
    ///
    /// # Errors
    /// Why they are not one, without showing them.
    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError>;
}

/// What a [`Codec`] says when it cannot.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// [Postcard](https://docs.rs/postcard), by serde: compact, and quick.
///
/// **Its bytes do not say what they are.** After fields of a type were added, removed or moved, values written before are not
/// decoded, or are decoded as something else without an error. Types that will change are better an enum of their versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Postcard;

/// A value has no bytes in the codec of its bucket.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a value of {value_type} cannot be encoded: {source}")]
pub struct EncodeError {
    value_type: &'static str,
    source: Arc<dyn Error + Send + Sync>,
}

/// A sibling of a key is not a value in the codec of its bucket. It tells which, and not what it is.
///
/// The bucket without the type ([`TypedBucket::bucket`](crate::TypedBucket::bucket)) reads the bytes all the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("sibling {number} of {siblings} of the key {key}, written at {written_at}, is no {value_type}: {source}")]
pub struct DecodeError {
    key: Key,
    number: usize,
    siblings: usize,
    written_at: Hlc,
    value_type: &'static str,
    source: Arc<dyn Error + Send + Sync>,
}

/// The bytes of a value.
///
/// # Errors
/// [`EncodeError`].
pub(crate) fn encode<T>(codec: &dyn Codec<T>, value: &T) -> Result<Bytes, EncodeError> {
    codec.encode(value).map_err(|source| EncodeError { value_type: type_name::<T>(), source: Arc::from(source) })
}

/// The values of all siblings of a key.
///
/// # Errors
/// [`DecodeError`] for the first one that is none.
pub(crate) fn decode<T>(codec: &dyn Codec<T>, key: &Key, siblings: &[Sibling]) -> Result<Vec<T>, DecodeError> {
    let decode = |(number, sibling): (usize, &Sibling)| {
        codec.decode(&sibling.value).map_err(|source| DecodeError {
            key: key.clone(),
            number,
            siblings: siblings.len(),
            written_at: sibling.written_at,
            value_type: type_name::<T>(),
            source: Arc::from(source),
        })
    };
    (1..).zip(siblings).map(decode).collect()
}

impl DecodeError {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Which of the key's siblings it is, from 1, in the order of the read.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many siblings the key has.
    pub fn siblings(&self) -> usize {
        self.siblings
    }

    /// When it was written.
    pub fn written_at(&self) -> Hlc {
        self.written_at
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(postcard::to_stdvec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        // Bytes of another type, or of a later release of this one.
        if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes are left over", rest.len()).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("alice").expect("valid")
    }

    #[test]
    fn values_come_back_as_they_went() {
        let value = ("apples".to_owned(), vec![1_u32, 2]);
        let codecs: [&dyn Codec<(String, Vec<u32>)>; _] = [
            #[cfg(feature = "json")]
            &Json,
            &Postcard,
        ];
        for codec in codecs {
            let bytes = codec.encode(&value).expect("encodes");
            let read =
                [Sibling { value: bytes.clone(), written_at: Hlc(1) }, Sibling { value: bytes, written_at: Hlc(2) }];
            assert_eq!(decode(codec, &key(), &read).expect("decodes"), [value.clone(), value.clone()]);
        }
    }

    #[test]
    fn bytes_that_are_left_over_are_no_value() {
        let longer = postcard::to_stdvec(&(1_u8, 2_u8)).expect("encodes");
        let error = Codec::<u8>::decode(&Postcard, &longer.into()).expect_err("is two");
        assert_eq!(error.to_string(), "1 bytes are left over");
    }
}
