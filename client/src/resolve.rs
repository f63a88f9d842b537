//! From siblings to one value.
//!
//! A resolver looks at the values that a read found and says what they mean together. It must not depend on their
//! order, and resolving what was resolved must change nothing: clients resolve at different times, and what each
//! writes back may become a sibling of the other's.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::client::Sibling;

use crate::answer::Conflict;

/// Makes one value of siblings. Closures of the form `|siblings: &[Sibling]| …` are resolvers too.
pub trait Resolve {
    /// The value.
    type Output;

    /// Makes one value of all that were read; there may be none.
    ///
    /// # Errors
    /// [`ResolveError`] if there is no such value.
    fn resolve(&self, siblings: &[Sibling]) -> Result<Self::Output, ResolveError>;
}

/// Why siblings could not be made one value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There are several, and [`Fail`] does not choose.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A sibling is not what the decoder expects.
    #[error("a sibling cannot be decoded: {0}")]
    Decode(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// The union of all elements of all siblings.
///
/// For sets that only grow. Union alone brings a removed element back, when the removal was concurrent with any other
/// write; the example `shopping_cart` shows what to do about it.
#[derive(Clone, Copy, Debug)]
pub struct Union<D>(D);

/// The greatest sibling, by the order of what it decodes to; `None` if there is none.
#[derive(Clone, Copy, Debug)]
pub struct Max<D>(D);

/// The sibling written last, by the clocks of the nodes; `None` if there is none. The others are given up, and clocks
/// can be wrong: only for values of which losing one does not matter.
#[derive(Clone, Copy, Debug)]
pub struct LastWriter;

/// The only value there is, or `None`; several are an error. For keys that have one writer.
#[derive(Clone, Copy, Debug)]
pub struct Fail;

impl<D> Union<D> {
    /// A union of what `decode` makes of each value: anything that can be iterated over.
    pub fn new<C, E>(decode: D) -> Union<D>
    where
        D: Fn(&Bytes) -> Result<C, E>,
    {
        Union(decode)
    }
}

impl<D> Max<D> {
    /// The maximum of what `decode` makes of each value.
    pub fn new<T, E>(decode: D) -> Max<D>
    where
        D: Fn(&Bytes) -> Result<T, E>,
    {
        Max(decode)
    }
}

impl<D, C, E> Resolve for Union<D>
where
    D: Fn(&Bytes) -> Result<C, E>,
    C: IntoIterator,
    C::Item: Ord,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = BTreeSet<C::Item>;

    fn resolve(&self, siblings: &[Sibling]) -> Result<Self::Output, ResolveError> {
        let mut all = BTreeSet::new();
        for sibling in siblings {
            all.extend((self.0)(&sibling.value).map_err(decode_error)?);
        }
        Ok(all)
    }
}

impl<D, T, E> Resolve for Max<D>
where
    D: Fn(&Bytes) -> Result<T, E>,
    T: Ord,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Option<T>;

    fn resolve(&self, siblings: &[Sibling]) -> Result<Option<T>, ResolveError> {
        let decoded: Result<Vec<T>, E> = siblings.iter().map(|sibling| (self.0)(&sibling.value)).collect();
        Ok(decoded.map_err(decode_error)?.into_iter().max())
    }
}

impl Resolve for LastWriter {
    type Output = Option<Bytes>;

    fn resolve(&self, siblings: &[Sibling]) -> Result<Option<Bytes>, ResolveError> {
        // Equal times are decided by the bytes, so that every reader chooses the same.
        let last = siblings.iter().max_by_key(|sibling| (sibling.written_at, &sibling.value));
        Ok(last.map(|sibling| sibling.value.clone()))
    }
}

impl Resolve for Fail {
    type Output = Option<Bytes>;

    fn resolve(&self, siblings: &[Sibling]) -> Result<Option<Bytes>, ResolveError> {
        match siblings {
            [] => Ok(None),
            [only] => Ok(Some(only.value.clone())),
            several => Err(Conflict { siblings: several.len() }.into()),
        }
    }
}

impl<F, T> Resolve for F
where
    F: Fn(&[Sibling]) -> T,
{
    type Output = T;

    fn resolve(&self, siblings: &[Sibling]) -> Result<T, ResolveError> {
        Ok(self(siblings))
    }
}

fn decode_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ResolveError {
    ResolveError::Decode(Arc::new(Boxed(error.into())))
}

/// An `Arc` of a boxed error is not an error itself.
#[derive(Debug)]
struct Boxed(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Boxed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use driftless_proto::Hlc;
    use proptest::prelude::*;

    use super::*;

    fn siblings(values: &[(&str, u64)]) -> Vec<Sibling> {
        values
            .iter()
            .map(|(value, time)| Sibling { value: Bytes::copy_from_slice(value.as_bytes()), written_at: Hlc(*time) })
            .collect()
    }

    fn words(value: &Bytes) -> Result<Vec<String>, std::string::FromUtf8Error> {
        Ok(String::from_utf8(value.to_vec())?.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn union_has_every_element_once() {
        let union = Union::new(words).resolve(&siblings(&[("b a", 1), ("c a", 2)])).expect("decodes");
        assert_eq!(union.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(Union::new(words).resolve(&[]).expect("nothing to decode").is_empty());
    }

    #[test]
    fn max_compares_what_was_decoded() {
        let number = |value: &Bytes| std::str::from_utf8(value).expect("text").parse::<u32>();
        let max = Max::new(number);
        assert_eq!(max.resolve(&siblings(&[("9", 1), ("10", 2), ("8", 3)])).expect("numbers"), Some(10));
        assert_eq!(max.resolve(&[]).expect("nothing to decode"), None);
        let error = max.resolve(&siblings(&[("x", 1)])).expect_err("is no number");
        assert!(error.to_string().starts_with("a sibling cannot be decoded: invalid digit"), "{error}");
    }

    #[test]
    fn the_last_writer_is_the_same_for_every_reader() {
        let last = |values: &[(&str, u64)]| LastWriter.resolve(&siblings(values)).expect("never fails");
        assert_eq!(last(&[("a", 1), ("b", 3), ("c", 2)]).as_deref(), Some(&b"b"[..]));
        assert_eq!(last(&[("a", 1), ("b", 1)]), last(&[("b", 1), ("a", 1)]));
        assert_eq!(last(&[]), None);
    }

    #[test]
    fn fail_takes_one_value_or_none() {
        assert_eq!(Fail.resolve(&[]).expect("none is fine"), None);
        assert_eq!(Fail.resolve(&siblings(&[("a", 1)])).expect("one is fine").as_deref(), Some(&b"a"[..]));
        let several = Fail.resolve(&siblings(&[("a", 1), ("b", 1)]));
        assert!(matches!(several, Err(ResolveError::Conflict(Conflict { siblings: 2 }))));
    }

    #[test]
    fn closures_resolve() {
        let count = |siblings: &[Sibling]| siblings.len();
        assert_eq!(count.resolve(&siblings(&[("a", 1), ("b", 1)])).expect("never fails"), 2);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(values in proptest::collection::vec(("[a-c ]{0,4}", 0..3_u64), 0..5)) {
            let forth: Vec<_> = values.iter().map(|(v, t)| (v.as_str(), *t)).collect();
            let back: Vec<_> = forth.iter().rev().copied().collect();
            let union = |v: &[(&str, u64)]| Union::new(words).resolve(&siblings(v)).expect("text");
            prop_assert_eq!(union(&forth), union(&back));
            let last = |v: &[(&str, u64)]| LastWriter.resolve(&siblings(v)).expect("never fails");
            prop_assert_eq!(last(&forth), last(&back));
        }
    }
}
