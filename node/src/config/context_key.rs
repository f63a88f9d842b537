//! The file of the keys that seal context tokens: one `ID HEX` line per key, newest first, the same on all nodes.
//!
//! ```text
//! # newest first: the first one seals, all of them open
//! 2 6e1f…(64 digits)…
//! 1 09ab…(64 digits)…
//! ```
//! To rotate, put a new line on top on every node (all must know it before the first one seals with it: add it below
//! first, then move it up), and drop the old one when no client can hold a token of it any more.

use std::path::Path;

use driftless_proto::ContextKeys;
use driftless_proto::causality::ContextKey;

use super::error::{ConfigError, read_file};
use super::private::{Exposure, exposed};

/// Reads the key file, which only its owner may be able to read.
///
/// # Errors
/// [`ConfigError`] names the line that is wrong.
pub fn read_context_keys(path: &Path) -> Result<ContextKeys, ConfigError> {
    check_private(path)?;
    parse_context_keys(path, &read_file(path)?)
}

/// A key file with one key made of the given random bits.
pub fn context_key_file(secret: [u8; 32]) -> String {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("# Seals context tokens. The same on all nodes; `ID HEX`, newest first. Keep it secret.\n1 {hex}\n")
}

/// Refuses a secret that others can read.
///
/// # Errors
/// [`ConfigError::Exposed`], or [`ConfigError::Read`] if it is not there.
pub fn check_private(path: &Path) -> Result<(), ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    match exposed(&metadata) {
        None => Ok(()),
        Some(Exposure { mode, is_roots }) => Err(ConfigError::Exposed { path: path.to_owned(), mode, is_roots }),
    }
}

/// Reads the text of a key file; the path is for messages.
///
/// # Errors
/// As [`read_context_keys`].
pub fn parse_context_keys(path: &Path, text: &str) -> Result<ContextKeys, ConfigError> {
    let mut keys: Vec<ContextKey> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(key) = parse_line(line) else {
            return Err(ConfigError::KeyLine { path: path.to_owned(), line: i + 1 });
        };
        if keys.iter().any(|other| other.id == key.id) {
            return Err(ConfigError::KeyTwice { path: path.to_owned(), id: key.id });
        }
        keys.push(key);
    }
    ContextKeys::new(keys).ok_or_else(|| ConfigError::NoKey { path: path.to_owned() })
}

fn parse_line(line: &str) -> Option<ContextKey> {
    let (id, hex) = line.split_once(char::is_whitespace)?;
    let hex = hex.trim();
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, digits) in secret.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(ContextKey { id: id.parse().ok()?, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        parse_context_keys(Path::new("context.key"), text)
            .map(|keys| format!("{keys:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_read_newest_first() {
        let text = format!("# a comment\n\n2 {}\n1\t{}\n", "ab".repeat(32), "00".repeat(32));
        assert_eq!(parsed(&text), Ok("[2, 1]".to_owned()));
    }

    #[test]
    fn what_is_written_can_be_read() {
        assert_eq!(parsed(&context_key_file([7; 32])), Ok("[1]".to_owned()));
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = "ab".repeat(32);
        for bad in
            ["nonsense", "1 abc", &format!("256 {good}"), &format!("x {good}"), &format!("3 {}", "zz".repeat(32))]
        {
            let error = parsed(&format!("1 {good}\n{bad}\n")).expect_err(bad);
            assert!(error.starts_with("line 2 of context.key"), "{error}");
        }
        assert!(parsed(&format!("1 {good}\n1 {good}")).expect_err("twice").contains("occurs twice"));
        assert!(parsed("\n").expect_err("empty").contains("holds no key"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("context.key");
        std::fs::write(&path, context_key_file([7; 32])).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changes mode");
        assert!(read_context_keys(&path).expect_err("is exposed").to_string().contains("; run `chmod "));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changes mode");
        assert!(read_context_keys(&path).is_ok());
        assert!(
            read_context_keys(&dir.path().join("absent")).expect_err("is absent").to_string().contains("cannot read")
        );
    }
}
