//! How lists travel: rising numbers as their gaps, fingerprints as one run of bytes. Either is refused while it is
//! read, before memory is taken for it, once it is longer than its message may be.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Digest, ExchangeId};

/// At most `MAX` numbers, each larger than the one before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rising<const MAX: usize>(Vec<u64>);

/// At most `MAX` [`Fingerprint`]s.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fingerprints<const MAX: usize>(Vec<Fingerprint>);

/// Half of a digest, as one exchange sees it: digests that differ have fingerprints that differ, but for one chance in
/// 2^64, and the next exchange looks through other eyes, so that no difference stays hidden.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Fingerprint(pub u64);

impl<const MAX: usize> Rising<MAX> {
    /// # Panics
    /// If the numbers do not rise or are too many: what this side sends is for this side to get right.
    pub(crate) fn new(numbers: impl IntoIterator<Item = u64>) -> Self {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        assert!(numbers.len() <= MAX, "{} of at most {MAX} numbers", numbers.len());
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "numbers must rise");
        Rising(numbers)
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl<const MAX: usize> Fingerprints<MAX> {
    pub(crate) fn new(fingerprints: Vec<Fingerprint>) -> Self {
        assert!(fingerprints.len() <= MAX, "{} of at most {MAX} fingerprints", fingerprints.len());
        Fingerprints(fingerprints)
    }

    /// The fingerprints.
    pub fn as_slice(&self) -> &[Fingerprint] {
        &self.0
    }
}

impl Fingerprint {
    /// What an exchange sees of a digest.
    pub fn of(exchange: ExchangeId, digest: Digest) -> Fingerprint {
        Fingerprint(xxh3_64_with_seed(&digest.0.to_be_bytes(), exchange.0))
    }
}

impl<const MAX: usize> Serialize for Rising<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut previous = None;
        serializer.collect_seq(self.0.iter().map(|&number| {
            let gap = previous.map_or(number, |previous: u64| number - previous - 1);
            previous = Some(number);
            gap
        }))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Rising<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gaps<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for Gaps<MAX> {
            type Value = Rising<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} rising numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut numbers: Vec<u64> = Vec::with_capacity(capacity(&seq, MAX)?);
                while let Some(gap) = seq.next_element::<u64>()? {
                    let number = match numbers.last() {
                        None => Some(gap),
                        Some(last) => last.checked_add(gap).and_then(|number| number.checked_add(1)),
                    };
                    numbers.push(number.ok_or_else(|| A::Error::custom("numbers beyond 64 bits"))?);
                    if numbers.len() > MAX {
                        return Err(A::Error::invalid_length(numbers.len(), &self));
                    }
                }
                Ok(Rising(numbers))
            }
        }
        deserializer.deserialize_seq(Gaps)
    }
}

impl<const MAX: usize> Serialize for Fingerprints<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|fingerprint| fingerprint.0.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Fingerprints<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Run<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Run<MAX> {
            type Value = Fingerprints<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} fingerprints of 8 bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let (fingerprints, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() || fingerprints.len() > MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                let read = |bytes: &[u8; 8]| Fingerprint(u64::from_le_bytes(*bytes));
                Ok(Fingerprints(fingerprints.iter().map(read).collect()))
            }
        }
        deserializer.deserialize_bytes(Run)
    }
}

/// For `#[serde(deserialize_with)]`: a list of at most `MAX` elements.
pub(crate) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::with_capacity(capacity(&seq, MAX)?);
            while let Some(element) = seq.next_element()? {
                elements.push(element);
                if elements.len() > MAX {
                    return Err(A::Error::invalid_length(elements.len(), &self));
                }
            }
            Ok(elements)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// What to reserve for a sequence: what it says it has, which may be a lie, so only a little; refused if it says more
/// than it may have.
fn capacity<'de, A: SeqAccess<'de>>(seq: &A, max: usize) -> Result<usize, A::Error> {
    match seq.size_hint() {
        Some(said) if said > max => Err(A::Error::custom(format_args!("{said} elements, at most {max} are allowed"))),
        said => Ok(said.unwrap_or(0).min(256)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_arrive_as_they_were_sent(numbers in proptest::collection::btree_set(any::<u64>(), 0..50)) {
            let rising = Rising::<50>::new(numbers.iter().copied());
            let bytes = postcard::to_stdvec(&rising).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Rising<50>>(&bytes).unwrap(), rising);
            let fingerprints = Fingerprints::<50>::new(numbers.into_iter().map(Fingerprint).collect());
            let bytes = postcard::to_stdvec(&fingerprints).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Fingerprints<50>>(&bytes).unwrap(), fingerprints);
        }
    }

    #[test]
    fn neighbours_take_a_byte_each() {
        let rising = Rising::<100>::new(1_000_000..1_000_100);
        assert_eq!(postcard::to_stdvec(&rising).unwrap().len(), 1 + 3 + 99);
    }

    #[test]
    fn a_length_that_lies_costs_nothing() {
        let endless = postcard::to_stdvec(&u64::MAX).unwrap();
        assert!(postcard::from_bytes::<Rising<8>>(&endless).is_err());
        assert!(postcard::from_bytes::<Fingerprints<8>>(&endless).is_err());
        assert!(postcard::from_bytes::<Rising<8>>(&[9, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err(), "one too many");
        assert!(postcard::from_bytes::<Rising<8>>(&[8, 1, 1]).is_err(), "cut off");
        assert!(postcard::from_bytes::<Fingerprints<8>>(&[7, 1, 2, 3, 4, 5, 6, 7]).is_err(), "half a fingerprint");
    }

    #[test]
    fn numbers_do_not_wrap_round() {
        let gaps = postcard::to_stdvec(&vec![u64::MAX, 0]).unwrap();
        assert!(postcard::from_bytes::<Rising<8>>(&gaps).is_err());
    }
}
