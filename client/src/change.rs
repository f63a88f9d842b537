//! What an update decides.

use std::borrow::Cow;

use bytes::Bytes;

use crate::into_bytes::IntoBytes;

/// What a key shall hold, as the closure of an update decides: of bytes in [`Bucket::update`](crate::Bucket::update), of `T` in
/// [`TypedBucket::update`](crate::TypedBucket::update).
///
/// Values, and options of values, convert into it: `None` removes the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change<T = Bytes> {
    /// This value, instead of all that was read.
    Put(T),
    /// Nothing.
    Delete,
    /// What it holds; nothing is written.
    Keep,
}

impl<T> From<T> for Change<T> {
    fn from(value: T) -> Change<T> {
        Change::Put(value)
    }
}

impl<T> From<Option<T>> for Change<T> {
    fn from(value: Option<T>) -> Change<T> {
        value.map_or(Change::Delete, Change::Put)
    }
}

/// What an update of bytes may give: all that can be given to a put, and options of it.
macro_rules! bytes_from {
    ($([$($generics:tt)*] $name:ty),+ $(,)?) => {$(
        impl<$($generics)*> From<$name> for Change {
            fn from(value: $name) -> Change {
                Change::Put(IntoBytes::into_bytes(value))
            }
        }

        impl<$($generics)*> From<Option<$name>> for Change {
            fn from(value: Option<$name>) -> Change {
                value.map_or(Change::Delete, Change::from)
            }
        }
    )+};
}

bytes_from! {
    [] Vec<u8>,
    [] &Vec<u8>,
    [] String,
    [] &String,
    [] &str,
    [] &[u8],
    [] &Bytes,
    [] Box<[u8]>,
    [] Cow<'_, [u8]>,
    [] Cow<'_, str>,
    [const N: usize] [u8; N],
    [const N: usize] &[u8; N],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_may_give_whatever_a_put_takes() {
        let abc = Change::Put(Bytes::from_static(b"abc"));
        let given: [Change; 12] = [
            "abc".into(),
            "abc".to_owned().into(),
            b"abc".into(),
            (*b"abc").into(),
            b"abc".to_vec().into(),
            (&b"abc".to_vec()).into(),
            b"abc"[..].into(),
            Bytes::from_static(b"abc").into(),
            Cow::Borrowed("abc").into(),
            Some("abc").into(),
            Some(b"abc".to_vec()).into(),
            Some(Bytes::from_static(b"abc")).into(),
        ];
        for change in given {
            assert_eq!(change, abc);
        }
        assert_eq!(Change::from(None::<&str>), Change::<Bytes>::Delete);
    }

    #[test]
    fn an_update_of_values_gives_values() {
        assert_eq!(Change::from(7_u64), Change::Put(7));
        assert_eq!(Change::<u64>::from(Some(7)), Change::Put(7));
        assert_eq!(Change::<u64>::from(None), Change::Delete);
    }
}
