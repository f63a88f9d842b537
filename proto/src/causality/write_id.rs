//! The name of a write, by which a retry is recognised.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 128 random bits that a client draws for each put or delete and repeats when it retries. As text 32 hexadecimal
/// digits, so that an error can tell it and a person repeat it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct WriteId(pub u128);

impl WriteId {
    /// Draws one from the thread's generator. Two are the same with a chance that nobody will live to see.
    ///
    /// ```
    /// # use driftless_proto::WriteId;
    /// assert_ne!(WriteId::random(), WriteId::random());
    /// ```
    #[cfg(feature = "random")]
    pub fn random() -> WriteId {
        WriteId(rand::random())
    }
}

/// Text that is no write id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a write id is {DIGITS} hexadecimal digits, as an error prints it")]
pub struct MalformedWriteId;

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl FromStr for WriteId {
    type Err = MalformedWriteId;

    fn from_str(text: &str) -> Result<WriteId, MalformedWriteId> {
        // The standard library's parser would take a sign as well.
        let is_id = text.len() == DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let id = is_id.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(WriteId).ok_or(MalformedWriteId)
    }
}

const DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_after_it_was_text() {
        for id in [0, 1, 0xfeed << 64, u128::MAX].map(WriteId) {
            assert_eq!(id.to_string().len(), DIGITS);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "17", "+0000000000000000000000000000000", "g0000000000000000000000000000000", &"0".repeat(33)]
        {
            assert_eq!(text.parse::<WriteId>(), Err(MalformedWriteId), "{text}");
        }
    }
}
