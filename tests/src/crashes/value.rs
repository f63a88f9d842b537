//! The bytes of a write: of which key, which write, and then bytes that follow from its number.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

/// Number of a write.
pub(super) type Id = u64;

/// A key: whose it is, and the how manieth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) writer: u16,
    pub(super) place: u16,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.writer, self.place)
    }
}

/// So many bytes, and [`BYTES_MIN`] at least.
pub(super) fn encode(key: Key, id: Id, bytes: usize) -> Vec<u8> {
    let mut value = format!("{key} {id:x};").into_bytes();
    let head = value.len();
    value.resize(bytes.max(BYTES_MIN), 0);
    StdRng::seed_from_u64(id).fill_bytes(&mut value[head..]);
    value
}

/// Which write; `None` if these are the bytes of none.
pub(super) fn decode(value: &[u8]) -> Option<(String, Id)> {
    let head = value.iter().take(BYTES_MIN).position(|byte| *byte == b';')?;
    let (key, id) = std::str::from_utf8(&value[..head]).ok()?.split_once(' ')?;
    let id = Id::from_str_radix(id, 16).ok()?;
    let mut expected = vec![0; value.len() - head - 1];
    StdRng::seed_from_u64(id).fill_bytes(&mut expected);
    (value[head + 1..] == expected).then(|| (key.to_owned(), id))
}

/// Room for the longest head: a key of five digits and a hundred million writes.
pub(super) const BYTES_MIN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_and_nothing_else() {
        let key = Key { writer: 47, place: 59 };
        for bytes in [0, 20, 21, 5000] {
            let value = encode(key, 99_999_999, bytes);
            assert_eq!(value.len(), bytes.max(BYTES_MIN));
            assert_eq!(decode(&value), Some(("47/59".to_owned(), 99_999_999)));
            let mut flipped = value.clone();
            *flipped.last_mut().expect("not empty") ^= 1;
            assert_eq!(decode(&flipped), None);
        }
        assert_eq!(decode(b"47/59 1;"), Some(("47/59".to_owned(), 1)), "the shortest");
        assert_eq!(decode(b""), None);
    }
}
