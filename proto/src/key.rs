//! What is stored: buckets by id and name, keys, and the limits on both.
//!
//! The constructors refuse what is out of bounds, also when a value arrives from the network, so that
//! later code need not check again.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest key in bytes. Keys live in every index and header cache; a kilobyte keeps those small.
pub const KEY_BYTES_MAX: usize = 1024;

/// Longest value in bytes, unless a node is configured otherwise. Replication sends whole values and keeps
/// them in memory while it does; larger objects belong in chunks.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most live siblings of one key, tombstones included. Beyond it a put is refused, never silently dropped.
pub const SIBLINGS_MAX: usize = 64;

/// Most bytes that the live siblings of one key may hold together, as far as the coordinator of a write knows. Several that
/// do not know of each other may each admit as many, and merges bring them together: see [`STATE_BYTES_MAX`].
pub const SIBLING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes that a replica keeps of one key, whatever merges bring together: thirty-two coordinators at their limit. A
/// merge that would leave more is refused, and loses nothing: each replica keeps what it has, and a read shows all of it.
/// It must be well below 4 GiB, the longest value that the store on disk can hold.
pub const STATE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A bucket's number: fixed when the bucket is created and part of every token and stored key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BucketId(pub u32);

/// A bucket's name: 1 to 64 characters of `a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(Arc<str>);

/// A key: 1 to [`KEY_BYTES_MAX`] bytes, of any content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Key(Bytes);

/// Why a key or bucket name was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Keys have at least one byte.
    #[error("the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes")]
    Empty,
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("the key has {0} bytes; a key has 1 to {KEY_BYTES_MAX} bytes")]
    TooLong(usize),
    /// Not a bucket name.
    #[error("{0:?} is not a bucket name; use 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or a digit")]
    BucketName(String),
}

impl BucketId {
    /// The built-in bucket `default`, which always exists.
    pub const DEFAULT: BucketId = BucketId(0);
}

impl BucketName {
    /// Accepts a well-formed name.
    ///
    /// # Errors
    /// [`KeyError::BucketName`] if it is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, KeyError> {
        let name = name.into();
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fine = (1..=64).contains(&name.len())
            && letter(name.as_bytes()[0])
            && name.bytes().all(|c| letter(c) || matches!(c, b'.' | b'_' | b'-'));
        if fine { Ok(BucketName(name.into())) } else { Err(KeyError::BucketName(name)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// Accepts 1 to [`KEY_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`KeyError::Empty`] or [`KeyError::TooLong`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            len if len > KEY_BYTES_MAX => Err(KeyError::TooLong(len)),
            _ => Ok(Key(bytes)),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's bytes, sharing their allocation.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl TryFrom<String> for BucketName {
    type Error = KeyError;

    fn try_from(name: String) -> Result<Self, KeyError> {
        BucketName::new(name)
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Bytes {
        key.0
    }
}

impl TryFrom<Bytes> for Key {
    type Error = KeyError;

    fn try_from(bytes: Bytes) -> Result<Self, KeyError> {
        Key::new(bytes)
    }
}

/// Text where the key is printable, escaped bytes elsewhere: also where a terminal would obey it, or show it in another order.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(is_unseen) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// Whether a character is a control, a format or a separator of lines or paragraphs (Cc, Cf, Zl and Zp of Unicode 16): nothing to see, and
/// it changes how what is around it is shown.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_to_a_thousand_and_twenty_four_bytes() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(vec![7; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![7; KEY_BYTES_MAX + 1]), Err(KeyError::TooLong(1025)));
    }

    #[test]
    fn a_key_from_the_network_is_checked_too() {
        let empty = postcard::to_stdvec(&Bytes::new()).expect("encodes");
        assert!(postcard::from_bytes::<Key>(&empty).is_err());
    }

    #[test]
    fn bucket_names_are_plain() {
        for good in ["default", "a", "carts.v2", "0-x_y"] {
            assert!(BucketName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Carts", "a b", "ä", &"x".repeat(65)] {
            assert!(BucketName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_print_as_text_or_escaped() {
        assert_eq!(Key::new("bat").expect("valid").to_string(), "bat");
        assert_eq!(Key::new(vec![0xff, b'a', b'\n']).expect("valid").to_string(), "\\xffa\\n");
        assert_eq!(Key::new("größe 鍵 🔑").expect("valid").to_string(), "größe 鍵 🔑");
    }

    /// A key that turned the rest of its line around would pass for another one.
    #[test]
    fn what_changes_how_a_line_is_shown_is_escaped() {
        for c in [
            '\u{1b}', '\u{85}', '\u{ad}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}',
            '\u{2069}', '\u{feff}',
        ] {
            let shown = Key::new(format!("a{c}b")).expect("valid").to_string();
            assert!(shown.is_ascii() && shown.contains("\\x"), "{shown}");
        }
    }
}
