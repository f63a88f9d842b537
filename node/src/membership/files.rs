//! What the agreement writes down, each file with a checksum at its end.
//!
//! ```text
//! NUMBER.record   DecidedRecord   one for each version, never changed
//! ballot          Standing        what this node has promised and accepted as a voter, for one version
//! marks           MarksFile       how far each store has come, the own one above all
//!
//! each: postcard ── xxh3_64 of that, 8 bytes, little endian
//! ```
//! A file that is not what was written is an error: a node that has forgotten what it promised must not vote, and it cannot know what
//! it has forgotten.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// What the voter has promised.
pub(super) const BALLOT: &str = "ballot";

/// How far stores have come.
pub(super) const MARKS: &str = "marks";

/// The name of the file of a version.
pub(super) fn record(version: u64) -> String {
    format!("{version}.record")
}

/// The version that a file of this name holds the record of.
pub(super) fn version_of(name: &str) -> Option<u64> {
    name.strip_suffix(".record")?.parse().ok()
}

/// The bytes of a file.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = postcard::to_stdvec(value).expect("what is written down has no type that postcard cannot write");
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// What a file holds.
///
/// # Errors
/// In words, with the name of the file.
pub(super) fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    let damaged = |what: &str| {
        format!(
            "the file {name} of the agreement on members is damaged ({what}): this node has forgotten what it promised, and must come \
             back with an empty data directory"
        )
    };
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("it is too short"))?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err(damaged("its checksum does not fit"));
    }
    postcard::from_bytes(body).map_err(|error| damaged(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_refused() {
        let bytes = encode(&(7_u64, "n2"));
        assert_eq!(decode::<(u64, String)>(BALLOT, &bytes), Ok((7, "n2".to_owned())));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = decode::<(u64, String)>(BALLOT, &damaged).unwrap_err();
            assert!(error.starts_with("the file ballot of the agreement on members is damaged"), "{error}");
            assert!(decode::<(u64, String)>(BALLOT, &bytes[..at]).is_err());
        }
    }

    #[test]
    fn records_are_named_by_their_version() {
        assert_eq!(version_of(&record(12)), Some(12));
        assert_eq!(version_of(BALLOT), None);
        assert_eq!(version_of("x.record"), None);
    }
}
