//! What can be given as a key or a value: whatever people hold their bytes and text in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::Key;

/// Things that can be given as a key or value. Text and slices are copied, owned buffers are not.
pub trait IntoBytes {
    /// The bytes.
    fn into_bytes(self) -> Bytes;
}

/// Owned: taken over.
macro_rules! owned {
    ($([$($generics:tt)*] $name:ty),+ $(,)?) => {$(
        impl<$($generics)*> IntoBytes for $name {
            fn into_bytes(self) -> Bytes {
                self.into()
            }
        }
    )+};
}

/// Borrowed: copied.
macro_rules! borrowed {
    ($([$($generics:tt)*] $name:ty),+ $(,)?) => {$(
        impl<$($generics)*> IntoBytes for $name {
            fn into_bytes(self) -> Bytes {
                let bytes: &[u8] = self.as_ref();
                Bytes::copy_from_slice(bytes)
            }
        }
    )+};
}

owned! {
    [] Bytes,
    [] Vec<u8>,
    [] String,
    [] Box<[u8]>,
    [] Key,
}

borrowed! {
    [] &Vec<u8>,
    [] &String,
    [] &str,
    [] &&str,
    [] &[u8],
    [] &&[u8],
    [] &Box<[u8]>,
    [const N: usize] [u8; N],
    [const N: usize] &[u8; N],
}

impl IntoBytes for &Bytes {
    fn into_bytes(self) -> Bytes {
        self.clone()
    }
}

impl IntoBytes for &Key {
    fn into_bytes(self) -> Bytes {
        self.to_bytes()
    }
}

impl IntoBytes for Box<str> {
    fn into_bytes(self) -> Bytes {
        String::from(self).into()
    }
}

impl IntoBytes for Arc<str> {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

impl IntoBytes for &Arc<str> {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

impl IntoBytes for Cow<'_, [u8]> {
    fn into_bytes(self) -> Bytes {
        self.into_owned().into()
    }
}

impl IntoBytes for &Cow<'_, [u8]> {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl IntoBytes for Cow<'_, str> {
    fn into_bytes(self) -> Bytes {
        self.into_owned().into()
    }
}

impl IntoBytes for &Cow<'_, str> {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_holds_bytes_or_text_can_be_given() {
        let (text, vector, boxed) = (String::from("abc"), b"abc".to_vec(), b"abc".to_vec().into_boxed_slice());
        let key = Key::new("abc").expect("valid");
        let (borrowed, owned): (Cow<'_, [u8]>, Cow<'_, str>) = (Cow::Borrowed(b"abc"), Cow::Owned("abc".into()));
        let given = [
            Bytes::from_static(b"abc").into_bytes(),
            (&Bytes::from_static(b"abc")).into_bytes(),
            (&vector).into_bytes(),
            vector[..].into_bytes(),
            (&&vector[..]).into_bytes(),
            vector.clone().into_bytes(),
            (&text).into_bytes(),
            text.as_str().into_bytes(),
            (&text.as_str()).into_bytes(),
            IntoBytes::into_bytes(text.clone()),
            (&boxed).into_bytes(),
            boxed.clone().into_bytes(),
            Box::<str>::from("abc").into_bytes(),
            Arc::<str>::from("abc").into_bytes(),
            (&Arc::<str>::from("abc")).into_bytes(),
            (*b"abc").into_bytes(),
            b"abc".into_bytes(),
            (&key).into_bytes(),
            key.clone().into_bytes(),
            (&borrowed).into_bytes(),
            borrowed.clone().into_bytes(),
            (&owned).into_bytes(),
            owned.clone().into_bytes(),
        ];
        for bytes in given {
            assert_eq!(bytes, "abc");
        }
    }

    #[test]
    fn owned_buffers_are_not_copied() {
        let vector = vec![7; 100];
        let address = vector.as_ptr();
        assert_eq!(vector.into_bytes().as_ptr(), address);
    }
}
