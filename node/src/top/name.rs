//! What is kept of a key's name: nothing, or its first bytes.

use bytes::Bytes;
use driftless_proto::top::{NAME_BYTES, TopKey};
use driftless_ring::Token;

/// A name, or none. The bytes are copied: a key that came with a request shares the memory of all of that.
#[derive(Clone, Default)]
pub(super) struct Name {
    /// Filled anew for the next key, so that nothing is allocated for each.
    bytes: Vec<u8>,
    is_known: bool,
    is_cut: bool,
}

impl Name {
    /// Of this key now, if names are kept.
    pub(super) fn set(&mut self, key: Option<&[u8]>) {
        self.bytes.clear();
        self.is_known = key.is_some();
        if let Some(key) = key {
            self.is_cut = key.len() > NAME_BYTES;
            let kept = beginning(key);
            self.bytes.reserve_exact(kept.len());
            self.bytes.extend_from_slice(kept);
        }
    }

    /// Takes a name for a key that came in when none were kept.
    pub(super) fn fill(&mut self, key: Option<&[u8]>) {
        if !self.is_known && key.is_some() {
            self.set(key);
        }
    }

    /// Gives its memory back as well.
    pub(super) fn forget(&mut self) {
        *self = Name::default();
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn of(&self, token: Token) -> TopKey {
        TopKey {
            token,
            name: self.is_known.then(|| Bytes::copy_from_slice(&self.bytes)),
            cut: self.is_known && self.is_cut,
        }
    }
}

/// As much of a key as is kept. Of one that is text no character is cut in two: what is left of it would be shown as bytes.
fn beginning(key: &[u8]) -> &[u8] {
    let Some((kept, _)) = key.split_at_checked(NAME_BYTES) else { return key };
    match std::str::from_utf8(kept) {
        // All of it is text, but for the character that it ends within.
        Err(error) if error.error_len().is_none() => &kept[..error.valid_up_to()],
        _ => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters_if_it_has_any() {
        let text = format!("x{}", "é".repeat(NAME_BYTES));
        assert_eq!(beginning(text.as_bytes()), format!("x{}", "é".repeat(31)).as_bytes());
        let even = "é".repeat(NAME_BYTES);
        assert_eq!(beginning(even.as_bytes()), "é".repeat(32).as_bytes());
        assert_eq!(beginning(&[0xff; 99]), [0xff; NAME_BYTES], "bytes are cut anywhere");
        assert_eq!(beginning("short, é".as_bytes()), "short, é".as_bytes());
        let odd = [&[b'x'; NAME_BYTES - 1][..], "é".as_bytes()].concat();
        assert_eq!(beginning(&odd), [b'x'; NAME_BYTES - 1]);
    }
}
