//! JSON as a codec, which says what is wrong with text without showing it.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError};

/// JSON, by serde. Fields can be added to a type later on if they have a default (`#[serde(default)]`).
///
/// Numbers that JSON does not have, `NaN` and the infinities, become `null` when they are written, and are no numbers any more
/// when they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Json;

/// What is wrong with text that should be JSON of some type. The parser's own words quote what it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NotJson {
    what: &'static str,
    line: usize,
    column: usize,
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| NotJson::of(&error).into())
    }
}

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

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at line {} column {}", self.what, self.line, self.column)
    }
}

impl Error for NotJson {}

#[cfg(test)]
mod tests {
    use driftless_proto::client::Sibling;
    use driftless_proto::{Hlc, Key};

    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn what_cannot_be_decoded_is_named_and_not_shown() {
        let sibling = |value| Sibling { value: Bytes::from_static(value), written_at: Hlc(7 << 16) };
        let read = [sibling(b"7"), sibling(b"\"top secret\"")];
        let key = Key::new("alice").expect("valid");
        let error = decode::<u32>(&Json, &key, &read).expect_err("is no number");
        assert_eq!(
            error.to_string(),
            "sibling 2 of 2 of the key alice, written at 7.0, is no u32: JSON that does not fit the type, at line 1 column 12"
        );
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!((error.number(), error.siblings(), error.written_at()), (2, 2, Hlc(7 << 16)));
    }

    #[test]
    fn what_cannot_be_encoded_names_its_type() {
        let value = std::collections::BTreeMap::from([(vec![1_u8], 2_u8)]);
        let error = encode(&Json, &value).expect_err("keys of objects are text");
        assert!(error.to_string().starts_with("a value of alloc::collections::btree::map::BTreeMap<"), "{error}");
    }
}
