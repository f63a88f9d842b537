//! What a member may be called, and how much of it there may be: in a file that somebody writes, and in what other nodes say.

/// Names of clusters and members go into certificates, file names and labels: 1 to 64 of letters, digits, `-`, `_`, `.`.
pub fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// Weights are relative; a million to one is more than any two machines differ.
pub(crate) const WEIGHT_MAX: u64 = 1_000_000;

/// More threads than machines have today.
pub(crate) const SHARDS_MAX: u64 = 1024;
