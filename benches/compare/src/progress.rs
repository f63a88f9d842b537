//! What is going on, to standard error.

use std::fmt;
use std::io::Write as _;

/// Nobody listening is fine.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
