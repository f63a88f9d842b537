//! Which variants an enum has, and which of them a list of values shows: a message that is new must not go untested.

use std::collections::BTreeSet;

use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};

/// The names of an enum's variants that none of these values is.
pub fn missing<'a, T: Serialize + Deserialize<'static> + 'a>(
    values: impl IntoIterator<Item = &'a T>,
) -> Vec<&'static str> {
    let mut names = Names(&[]);
    let _ = T::deserialize(&mut names);
    assert!(!names.0.is_empty(), "{} is no enum", std::any::type_name::<T>());
    let seen: BTreeSet<usize> = values.into_iter().map(index).collect();
    names.0.iter().enumerate().filter(|(at, _)| !seen.contains(at)).map(|(_, name)| *name).collect()
}

/// The number that a value's variant has on the wire, which is its place among the names.
fn index(value: &impl Serialize) -> usize {
    let bytes = postcard::to_stdvec(value).expect("has no type that postcard cannot write");
    postcard::from_bytes::<u32>(&bytes).expect("begins with the number of its variant") as usize
}

/// Looks what an enum asks for, and gives it nothing.
struct Names(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Names {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("nothing here"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0 = variants;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
