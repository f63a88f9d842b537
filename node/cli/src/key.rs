//! Keys on the command line: as they are given, and in commands that are printed to be typed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless_proto::Key;

use super::exit::{Failure, Result};

/// Which key.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KeyArg {
    /// The key
    key: OsString,
    /// KEY is base64: for keys that cannot be typed
    #[arg(long)]
    key_base64: bool,
}

impl KeyArg {
    /// The key that is meant.
    pub(crate) fn key(self) -> Result<Key> {
        if self.key_base64 { of_base64(self.key) } else { of_bytes(self.key) }
    }
}

/// Any bytes are a key.
pub(crate) fn of_bytes(text: OsString) -> Result<Key> {
    Key::new(text.into_vec()).map_err(Failure::usage)
}

/// The bytes that a base64 text stands for.
pub(crate) fn of_base64(text: OsString) -> Result<Key> {
    let bytes = STANDARD.decode(text.into_vec());
    Key::new(bytes.map_err(|error| Failure::usage(format_args!("KEY is not base64: {error}")))?).map_err(Failure::usage)
}

/// A key as a shell takes it for one word; one that cannot be typed in base64, and with the flag that says so.
pub(crate) fn key_words(key: &Key) -> String {
    match typed(key) {
        Some(text) if key.as_bytes().starts_with(b"-") => format!("-- {text}"),
        Some(text) => text,
        None => format!("--key-base64 {}", STANDARD.encode(key.as_bytes())),
    }
}

fn typed(key: &Key) -> Option<String> {
    // What is shown otherwise than it is cannot be typed either.
    let text = key.to_string();
    (text.as_bytes() == key.as_bytes()).then(|| word(&text))
}

/// Text as a shell takes it for one word.
pub(crate) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.,:/@%+=".contains(c);
    let is_bare = !text.is_empty() && text.chars().all(is_plain);
    if is_bare { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_typed_is_given_in_base64() {
        let key = |text: &str, key_base64| KeyArg { key: text.into(), key_base64 }.key();
        assert_eq!(key("/wA=", true).expect("is base64").as_bytes(), b"\xff\0");
        assert_eq!(key("/wA=", false).expect("is a key").as_bytes(), b"/wA=");
        assert!(key("%", true).expect_err("is none").to_string().contains("not base64"));
        assert!(key("", true).expect_err("is empty").to_string().contains("the key is empty"));
    }

    #[test]
    fn a_printed_command_can_be_typed_whatever_the_key_is() {
        let words = |bytes: &'static [u8]| key_words(&Key::new(bytes).expect("valid"));
        assert_eq!(words(b"cart:7"), "cart:7");
        assert_eq!(words(b"my cart"), "'my cart'");
        assert_eq!(words(b"it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!((words(b"-5"), words(b"-x y")), ("-- -5".to_owned(), "-- '-x y'".to_owned()));
        assert_eq!(words(b"\x1b[2J"), "--key-base64 G1sySg==");
        assert_eq!(words(b"\xff\0"), "--key-base64 /wA=");
        assert_eq!(words("a\u{202e}b".as_bytes()), "--key-base64 YeKArmI=");
    }
}
