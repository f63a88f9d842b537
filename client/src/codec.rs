//! Between values and bytes: what a [`TypedBucket`](crate::TypedBucket) encodes and decodes with.

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::client::Sibling;
use driftless_proto::{Hlc, Key};
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// JSON, by serde. Fields can be added to a type later on if they have a default (`#[serde(default)]`).
///
/// Numbers that JSON does not have, `NaN` and the infinities, become `null` when they are written, and are no numbers any more
/// when they are read.
#[cfg(feature = "json")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Json;

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

#[cfg(feature = "json")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| NotJson::of(&error).into())
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

/// What is wrong with text that should be JSON of some type. The parser's own words quote what it found.
#[cfg(feature = "json")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NotJson {
    what: &'static str,
    line: usize,
    column: usize,
}

#[cfg(feature = "json")]
impl NotJson {
    fn of(error: &serde_json::Error) -> NotJson {
        use serde_json::error::Category;
        let what = match error.classify() {
            Category::Data => "JSON that does not fit the type",
            Category::Eof => "JSON that ends too early",
            Category::Syntax | Category::Io => "not JSON",
        };
        NotJson { what, line: error.line(), column: error.column() }
    }
}

#[cfg(feature = "json")]
impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at line {} column {}", self.what, self.line, self.column)
    }
}

#[cfg(feature = "json")]
impl Error for NotJson {}

#[cfg(test)]
mod tests {
    use super::*;

    fn siblings(values: &[&'static [u8]]) -> Vec<Sibling> {
        let sibling = |value: &&'static [u8]| Sibling { value: Bytes::from_static(value), written_at: Hlc(7 << 16) };
        values.iter().map(sibling).collect()
    }

    fn key() -> Key {
        Key::new("alice").expect("valid")
    }

    #[test]
    fn values_come_back_as_they_went() {
        let value = ("apples".to_owned(), vec![1_u32, 2]);
        for codec in [&Json as &dyn Codec<(String, Vec<u32>)>, &Postcard] {
            let bytes = codec.encode(&value).expect("encodes");
            let read =
                [Sibling { value: bytes.clone(), written_at: Hlc(1) }, Sibling { value: bytes, written_at: Hlc(2) }];
            assert_eq!(decode(codec, &key(), &read).expect("decodes"), [value.clone(), value.clone()]);
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_named_and_not_shown() {
        let read = siblings(&[b"7", b"\"top secret\""]);
        let error = decode::<u32>(&Json, &key(), &read).expect_err("is no number");
        assert_eq!(
            error.to_string(),
            "sibling 2 of 2 of the key alice, written at 7.0, is no u32: JSON that does not fit the type, at line 1 column 12"
        );
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!((error.number(), error.siblings(), error.written_at()), (2, 2, Hlc(7 << 16)));
    }

    #[test]
    fn bytes_that_are_left_over_are_no_value() {
        let longer = postcard::to_stdvec(&(1_u8, 2_u8)).expect("encodes");
        let error = Codec::<u8>::decode(&Postcard, &longer.into()).expect_err("is two");
        assert_eq!(error.to_string(), "1 bytes are left over");
    }

    #[test]
    fn what_cannot_be_encoded_names_its_type() {
        let value = std::collections::BTreeMap::from([(vec![1_u8], 2_u8)]);
        let error = encode(&Json, &value).expect_err("keys of objects are text");
        assert!(error.to_string().starts_with("a value of alloc::collections::btree::map::BTreeMap<"), "{error}");
    }
}
