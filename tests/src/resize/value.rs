//! The bytes of a write: of which key, which write of it, how long, and then bytes that follow from these.

use super::history::{KeyNumber, Seq};

/// So many bytes, and [`BYTES_MIN`] at least.
pub(super) fn encode(key: KeyNumber, seq: Seq, bytes: usize) -> Vec<u8> {
    let bytes = bytes.max(BYTES_MIN);
    let mut value = format!("{key};{seq};{bytes};").into_bytes();
    let fill = b'a' + ((key as u64).wrapping_mul(31).wrapping_add(seq.into()) % 26) as u8;
    value.resize(bytes, fill);
    value
}

/// Which write of this key; `None` if these are the bytes of none.
pub(super) fn decode(key: KeyNumber, value: &[u8]) -> Option<Seq> {
    let head = std::str::from_utf8(value.get(..BYTES_MIN)?).ok()?;
    let seq = head.split(';').nth(1)?.parse().ok()?;
    (encode(key, seq, value.len()) == value).then_some(seq)
}

/// Room for the longest head: of a key of eight digits, a write of ten and a length of seven.
pub(super) const BYTES_MIN: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_and_nothing_else() {
        for bytes in [0, BYTES_MIN, 100, 5_000] {
            let mut value = encode(99_999_999, Seq::MAX, bytes);
            assert_eq!(value.len(), bytes.max(BYTES_MIN));
            assert_eq!(decode(99_999_999, &value), Some(Seq::MAX));
            assert_eq!(decode(7, &value), None, "it is another key's");
            *value.last_mut().expect("not empty") ^= 1;
            assert_eq!(decode(99_999_999, &value), None);
        }
        assert_eq!(decode(7, b""), None);
    }
}
