//! What a value says: which write it is, and which elements its set has.
//!
//! `1f;3 a 1f;xxxx`: write 1f, whose set has the elements 3, a and 1f, padded.

use std::fmt::Write as _;

/// Number of a write. It is the element that the write adds, where the key is a set.
pub(super) type Id = u64;

/// The bytes of a write.
pub(super) fn encode(id: Id, elements: &[Id]) -> String {
    let mut text = format!("{id:x};");
    for element in elements {
        let _ = write!(text, "{element:x} ");
    }
    text.push(';');
    // Some are long enough for the store to keep them apart from their keys, and to fill its tables soon.
    let padding = if id.is_multiple_of(8) { 4096 } else { (id % 200) as usize };
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
    (encode(id, &elements).as_bytes() == value).then_some((id, elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for (id, elements) in [(1, vec![]), (32, vec![1, 2, 32]), (0xabc, vec![0xabc])] {
            assert_eq!(decode(encode(id, &elements).as_bytes()), Some((id, elements)));
        }
        assert_eq!(decode(b"1f;3 a;x"), None, "its length is another");
        assert_eq!(decode(b"junk"), None);
    }
}
