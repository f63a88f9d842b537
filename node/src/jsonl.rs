//! Records as lines of JSON: what `driftless load` reads and `dump` writes.
//!
//! ```text
//! {"key": "bat", "value": "text"}
//! {"key": "img", "value": {"base64": "iVBORw0KGgo="}}
//! {"key": "two", "values": ["siblings", "as `dump` writes them"]}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use driftless_proto::{Key, WriteId};
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

/// One line: a key and its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Counted from 1.
    pub line: u64,
    /// The key.
    pub key: Key,
    /// Each with the name of its write.
    pub values: Vec<(Bytes, WriteId)>,
}

/// Reads one line; `None` if it is blank. Bucket, key, the file's name and the line's number go into the names of its
/// writes.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_line(bucket: &str, file: &str, number: u64, line: &[u8]) -> Result<Option<Record>, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let record: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut record) = record else {
        return Err("not a JSON object".to_owned());
    };
    let key = record.remove("key").ok_or("no \"key\"")?;
    let key = bytes_of_json(&key).ok_or("\"key\" is neither a text nor {\"base64\": …}")?;
    let key = Key::new(key).map_err(|error| error.to_string())?;
    let values = match (record.remove("value"), record.remove("values")) {
        (Some(value), None) => vec![value],
        (None, Some(Value::Array(values))) if !values.is_empty() => values,
        (None, Some(_)) => return Err("\"values\" is not a list of values".to_owned()),
        (None, None) => return Err("neither \"value\" nor \"values\"".to_owned()),
        (Some(_), Some(_)) => return Err("both \"value\" and \"values\"".to_owned()),
    };
    if let Some(other) = record.keys().next() {
        return Err(format!("unknown field \"{other}\"; a record has \"key\" and \"value\""));
    }
    let values = values
        .into_iter()
        .enumerate()
        .map(|(i, value)| {
            let value = bytes_of_json(&value).ok_or("a value is neither a text nor {\"base64\": …}")?;
            Ok((Bytes::from(value), write_id(&[bucket.as_bytes(), key.as_bytes(), file.as_bytes(), line], number, i)))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(Some(Record { line: number, key, values }))
}

/// The name of a write, the same whenever this line of this file is loaded into this bucket.
fn write_id(parts: &[&[u8]], number: u64, index: usize) -> WriteId {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&number.to_le_bytes());
    hasher.update(&(index as u64).to_le_bytes());
    WriteId(hasher.digest128())
}

/// A value in JSON: text where it is valid UTF-8, else `{"base64": …}`.
pub fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// The reverse of [`json_bytes`]; `None` if it is neither.
pub fn bytes_of_json(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Object(map) if map.len() == 1 => STANDARD.decode(map.get("base64")?.as_str()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Record>, String> {
        parse_line("default", "f.jsonl", 7, line.as_bytes())
    }

    #[test]
    fn records_have_a_key_and_one_or_more_values() {
        let one = parsed("{\"key\": \"bat\", \"value\": \"text\"}\n").expect("is fine").expect("is a record");
        assert_eq!(one.key, Key::new("bat").expect("valid"));
        assert_eq!(one.values[0].0, "text");
        let binary = parsed(r#"{"key": {"base64": "/w=="}, "value": {"base64": "AAE="}}"#)
            .expect("is fine")
            .expect("is a record");
        assert_eq!(binary.key.as_bytes(), [0xff]);
        assert_eq!(&binary.values[0].0[..], [0, 1]);
        let two = parsed(r#"{"key": "k", "values": ["a", "b"]}"#).expect("is fine").expect("is a record");
        assert_eq!(two.values.len(), 2);
        assert_ne!(two.values[0].1, two.values[1].1, "each write has a name of its own");
        assert_eq!(parsed("  \n"), Ok(None));
    }

    #[test]
    fn write_ids_follow_from_bucket_key_file_line_and_text() {
        let id = |bucket, file, number, line: &str| {
            parse_line(bucket, file, number, line.as_bytes()).expect("is fine").expect("is a record").values[0].1
        };
        let line = r#"{"key": "k", "value": "v"}"#;
        assert_eq!(id("b", "f", 1, line), id("b", "f", 1, &format!("{line}\n")));
        assert_ne!(id("b", "f", 1, line), id("b", "f", 2, line));
        assert_ne!(id("b", "f", 1, line), id("b", "g", 1, line));
        assert_ne!(id("b", "f", 1, line), id("c", "f", 1, line), "the same file into another bucket");
        assert_ne!(id("b", "f", 1, line), id("b", "f", 1, r#"{"key": "k", "value": "w"}"#));
        assert_ne!(id("b", "f", 1, line), id("b", "f", 1, r#"{"key": "l", "value": "v"}"#));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        let cases = [
            ("{\"key\": \"a\"", "not JSON"),
            ("[]", "not a JSON object"),
            ("{\"value\": \"v\"}", "no \"key\""),
            ("{\"key\": 7, \"value\": \"v\"}", "\"key\" is neither"),
            ("{\"key\": \"\", \"value\": \"v\"}", "the key is empty"),
            ("{\"key\": \"a\"}", "neither \"value\" nor \"values\""),
            ("{\"key\": \"a\", \"value\": 7}", "a value is neither"),
            ("{\"key\": \"a\", \"value\": {\"base64\": \"%%\"}}", "a value is neither"),
            ("{\"key\": \"a\", \"values\": []}", "not a list"),
            ("{\"key\": \"a\", \"value\": \"\", \"values\": [\"\"]}", "both"),
            ("{\"key\": \"a\", \"value\": \"\", \"ttl\": 5}", "unknown field \"ttl\""),
        ];
        for (line, expected) in cases {
            let problem = parsed(line).expect_err(line);
            assert!(problem.contains(expected), "{problem:?} should say {expected:?}");
        }
    }

    #[test]
    fn values_survive_json() {
        for bytes in [&b"plain"[..], b"", b"\xff\x00", "ä\n\"".as_bytes()] {
            assert_eq!(bytes_of_json(&json_bytes(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(json_bytes(b"bat"), json!("bat"));
        assert_eq!(json_bytes(b"\xff"), json!({ "base64": "/w==" }));
        for bad in [json!(7), json!({ "base64": "%" }), json!({ "base64": "", "x": 1 }), json!(null), json!({})] {
            assert_eq!(bytes_of_json(&bad), None, "{bad}");
        }
    }
}
