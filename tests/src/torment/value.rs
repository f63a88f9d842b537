//! What a value says: which write it is, and which elements its set has.
//!
//! `1f;3 a 1f;xxxx`: write 1f, whose set has the elements 3, a and 1f, padded.

use std::fmt::Write as _;

use driftless_client::VALUE_BYTES_MAX;

/// Number of a write. It is the element that the write adds, where the key is a set.
pub(super) type Id = u64;

/// How much a value is padded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Size {
    /// Some hundred bytes, or, now and then, a few thousand: long enough for the store to keep them apart from their keys,
    /// and to fill its tables soon.
    Usual,
    /// From 64 KiB to all that a value may have.
    Large,
}

impl Size {
    fn padding(self, id: Id, before: usize) -> usize {
        match self {
            Size::Usual if id.is_multiple_of(8) => 4096,
            Size::Usual => (id % 200) as usize,
            Size::Large if id.is_multiple_of(8) => VALUE_BYTES_MAX - before,
            Size::Large => (64 << 10) << (id % 5),
        }
    }
}

/// The bytes of a write.
pub(super) fn encode(id: Id, elements: &[Id], size: Size) -> String {
    let mut text = format!("{id:x};");
    for element in elements {
        let _ = write!(text, "{element:x} ");
    }
    text.push(';');
    let padding = size.padding(id, text.len());
    text.extend(std::iter::repeat_n('x', padding));
    text
}

/// Which write, and its elements; `None` if no client of ours has written this.
pub(super) fn decode(value: &[u8]) -> Option<(Id, Vec<Id>)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split(';');
    let hex = |word: &str| Id::from_str_radix(word, 16).ok();
    let id = hex(parts.next()?)?;
    let elements = parts.next()?.split_ascii_whitespace().map(hex).collect::<Option<Vec<_>>>()?;
    let is_it = |size: Size| encode(id, &elements, size).as_bytes() == value;
    (is_it(Size::Usual) || is_it(Size::Large)).then_some((id, elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for (id, elements) in [(1, vec![]), (32, vec![1, 2, 32]), (0xabc, vec![0xabc])] {
            for size in [Size::Usual, Size::Large] {
                assert_eq!(decode(encode(id, &elements, size).as_bytes()), Some((id, elements.clone())));
            }
        }
        assert_eq!(decode(b"1f;3 a;x"), None, "its length is another");
        assert_eq!(decode(b"junk"), None);
    }

    #[test]
    fn some_values_are_as_long_as_values_may_be() {
        assert_eq!(encode(8, &[], Size::Large).len(), VALUE_BYTES_MAX);
        assert!((1..100).all(|id| encode(id, &[], Size::Large).len() <= VALUE_BYTES_MAX));
    }
}
