//! Keys in commands that are printed to be typed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless_proto::Key;

/// A key as a shell takes it for one word; one that cannot be typed in base64, and with the flag that says so.
pub(crate) fn key_words(key: &Key) -> String {
    match typed(key) {
        Some(text) if text.starts_with('-') => format!("-- {text}"),
        Some(text) => text,
        None => format!("--key-base64 {}", STANDARD.encode(key.as_bytes())),
    }
}

fn typed(key: &Key) -> Option<String> {
    let text = std::str::from_utf8(key.as_bytes()).ok().filter(|text| !text.chars().any(char::is_control))?;
    let is_plain = |c: char| c.is_alphanumeric() || "-_.,:/@%+=".contains(c);
    Some(if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_typed_whatever_the_key_is() {
        let words = |bytes: &'static [u8]| key_words(&Key::new(bytes).expect("valid"));
        assert_eq!(words(b"cart:7"), "cart:7");
        assert_eq!(words(b"my cart"), "'my cart'");
        assert_eq!(words(b"it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(words(b"-5"), "-- -5");
        assert_eq!(words(b"\x1b[2J"), "--key-base64 G1sySg==");
        assert_eq!(words(b"\xff\0"), "--key-base64 /wA=");
    }
}
