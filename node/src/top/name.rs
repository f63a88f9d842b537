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
            let kept = &key[..key.len().min(NAME_BYTES)];
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
