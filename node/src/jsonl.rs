//! Records as lines of JSON: what `driftless load` reads and `dump` writes.
//!
//! ```text
//! {"dump": "begins", "cluster": "shop", "bucket": "default"}    the first line of a dump
//! {"key": "bat", "value": "text"}
//! {"key": "img", "value": {"base64": "iVBORw0KGgo="}}
//! {"key": "two", "values": ["siblings", "as `dump` writes them"]}
//! {"dump": "ends", "records": 3, "complete": true}              and its last: what begins and does not end was cut off
//! ```
//! Lines that people and programs write by hand need no marks. Nothing that a line says is passed over: a field that is not
//! known or stands there twice makes the line wrong.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use driftless_proto::Key;
use driftless_proto::key::{SIBLING_BYTES_MAX, SIBLINGS_MAX};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Value, json};

/// What a line that is not blank holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// A key and its values.
    Record(Record),
    /// The first line of a dump.
    DumpBegins {
        /// The cluster that was dumped.
        cluster: String,
        /// The bucket that was dumped.
        bucket: String,
    },
    /// The last line of a dump.
    DumpEnds {
        /// Records between its first line and this one.
        records: u64,
        /// Whether nothing can be missing from it, as far as the cluster knew.
        complete: bool,
    },
}

/// A key and its values: one, or several siblings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// At least one.
    pub values: Vec<Bytes>,
}

/// Whether a record may need a line of so many bytes, with so many backslashes among them: it has all the values that a key may have,
/// in base64, or as text in which an escape takes five bytes more than what it stands for.
pub fn may_hold_a_record(bytes: u64, backslashes: u64) -> bool {
    bytes <= BYTES_MAX + 5 * backslashes.min(SIBLING_BYTES_MAX as u64)
}

/// Of a line without escapes: values in base64, and the key and all marks beside them.
const BYTES_MAX: u64 = (SIBLING_BYTES_MAX as u64).div_ceil(3) * 4 + (64 << 10);

/// Most values that a line may have: what thirty-two writers that do not know of each other leave at most.
const VALUES_MAX: usize = 32 * SIBLINGS_MAX;

/// Reads one line; `None` if it is blank.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_line(line: &[u8]) -> Result<Option<Line>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let parsed = json.deserialize_map(LineVisitor).and_then(|parsed| json.end().map(|()| parsed));
    parsed.map(Some).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = text.strip_suffix(&place).unwrap_or(&text);
        match error.classify() {
            Category::Data => text.to_owned(),
            Category::Syntax | Category::Eof | Category::Io => {
                format!("not JSON: {text}, at column {}", error.column())
            }
        }
    })
}

impl Line {
    /// As a line says it.
    pub fn to_json(&self) -> Value {
        match self {
            Line::Record(Record { key, values }) => {
                let key = json_bytes(key.as_bytes());
                match &**values {
                    [value] => json!({ "key": key, "value": json_bytes(value) }),
                    values => {
                        json!({ "key": key, "values": values.iter().map(|value| json_bytes(value)).collect::<Vec<_>>() })
                    }
                }
            }
            Line::DumpBegins { cluster, bucket } => json!({ "dump": "begins", "cluster": cluster, "bucket": bucket }),
            Line::DumpEnds { records, complete } => json!({ "dump": "ends", "records": records, "complete": complete }),
        }
    }
}

/// A value in JSON: text where it is valid UTF-8, else `{"base64": …}`.
pub fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

struct LineVisitor;

/// The fields of a line, each at most once.
#[derive(Default)]
struct Fields {
    key: Option<Bytes>,
    value: Option<Bytes>,
    values: Option<Vec<Bytes>>,
    dump: Option<String>,
    cluster: Option<String>,
    bucket: Option<String>,
    records: Option<u64>,
    complete: Option<bool>,
}

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with \"key\" and \"value\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let is_new = match &*name {
                "key" => fields.key.replace(map.next_value_seed(Text("\"key\""))?).is_none(),
                "value" => fields.value.replace(map.next_value_seed(Text("\"value\""))?).is_none(),
                "values" => fields.values.replace(map.next_value_seed(Texts)?).is_none(),
                "dump" => fields.dump.replace(map.next_value()?).is_none(),
                "cluster" => fields.cluster.replace(map.next_value()?).is_none(),
                "bucket" => fields.bucket.replace(map.next_value()?).is_none(),
                "records" => fields.records.replace(map.next_value()?).is_none(),
                "complete" => fields.complete.replace(map.next_value()?).is_none(),
                _ => return Err(unknown(&name)),
            };
            if !is_new {
                return Err(A::Error::custom(format_args!("the field {name:?} stands there twice")));
            }
        }
        fields.line().map_err(A::Error::custom)
    }
}

impl Fields {
    fn line(self) -> Result<Line, String> {
        let Fields { key, value, values, dump, cluster, bucket, records, complete } = self;
        if let Some(dump) = dump {
            return match (&*dump, key.or(value), values, cluster, bucket, records, complete) {
                ("begins", None, None, Some(cluster), Some(bucket), None, None) => {
                    Ok(Line::DumpBegins { cluster, bucket })
                }
                ("ends", None, None, None, None, Some(records), Some(complete)) => {
                    Ok(Line::DumpEnds { records, complete })
                }
                _ => Err("neither the first nor the last line of a dump".to_owned()),
            };
        }
        let of_dumps = [
            ("cluster", cluster.is_some()),
            ("bucket", bucket.is_some()),
            ("records", records.is_some()),
            ("complete", complete.is_some()),
        ];
        if let Some((name, _)) = of_dumps.iter().find(|(_, is_there)| *is_there) {
            return Err(unknown_text(name));
        }
        let key = Key::new(key.ok_or("no \"key\"")?).map_err(|error| error.to_string())?;
        let values = match (value, values) {
            (Some(value), None) => vec![value],
            (None, Some(values)) if values.is_empty() => return Err("\"values\" is an empty list".to_owned()),
            (None, Some(values)) => values,
            (None, None) => return Err("neither \"value\" nor \"values\"".to_owned()),
            (Some(_), Some(_)) => return Err("both \"value\" and \"values\"".to_owned()),
        };
        Ok(Line::Record(Record { key, values }))
    }
}

fn unknown<E: serde::de::Error>(name: &str) -> E {
    E::custom(unknown_text(name))
}

fn unknown_text(name: &str) -> String {
    let name = shown(name);
    format!("unknown field {name}; a record has \"key\" and \"value\"")
}

/// As a terminal may have it: escaped, and not longer than anybody reads.
fn shown(name: &str) -> String {
    match name.char_indices().nth(NAME_SHOWN_MAX) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}…", &name[..end]),
    }
}

/// Characters of a name that is not known.
const NAME_SHOWN_MAX: usize = 40;

/// Text, or `{"base64": …}`, of what is called so.
struct Text(&'static str);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Bytes;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a text or {{\"base64\": …}}", self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn visit_string<E>(self, text: String) -> Result<Bytes, E> {
        Ok(text.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes, A::Error> {
        let mut bytes = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != "base64" || bytes.is_some() {
                return Err(A::Error::custom(format_args!("{} has more than one \"base64\"", self.0)));
            }
            let text: String = map.next_value()?;
            let decoded = STANDARD.decode(text);
            bytes = Some(decoded.map_err(|error| A::Error::custom(format_args!("{} is not base64: {error}", self.0)))?);
        }
        let bytes = bytes.ok_or_else(|| A::Error::custom(format_args!("{} has no \"base64\"", self.0)))?;
        Ok(bytes.into())
    }
}

/// A list of texts.
struct Texts;

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = Vec<Bytes>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<Bytes>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"values\" to be a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Bytes>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Text("a value"))? {
            if values.len() == VALUES_MAX {
                return Err(A::Error::custom(format_args!("more than {VALUES_MAX} values")));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str) -> Record {
        match parse_line(line.as_bytes()) {
            Ok(Some(Line::Record(record))) => record,
            other => panic!("{line} is no record: {other:?}"),
        }
    }

    #[test]
    fn records_have_a_key_and_one_or_more_values() {
        let one = record("{\"key\": \"bat\", \"value\": \"text\"}\r\n");
        assert_eq!((one.key.as_bytes(), &*one.values), (&b"bat"[..], &[Bytes::from("text")][..]));
        let binary = record(r#"{"key": {"base64": "/w=="}, "value": {"base64": "AAE="}}"#);
        assert_eq!((binary.key.as_bytes(), &binary.values[0][..]), (&[0xff][..], &[0, 1][..]));
        assert_eq!(record(r#"{"key": "k", "values": ["a", "a"]}"#).values, ["a", "a"], "what is said twice is kept");
        assert_eq!(parse_line(b"  \n"), Ok(None));
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        let cases = [
            ("{\"key\": \"a\"", "not JSON: EOF while parsing an object, at column"),
            ("{oops", "not JSON"),
            ("{\"key\": \"a\", \"value\": \"v\"} {}", "not JSON: trailing characters"),
            ("[]", "expected a JSON object"),
            ("7", "expected a JSON object"),
            ("{\"value\": \"v\"}", "no \"key\""),
            ("{\"key\": 7, \"value\": \"v\"}", "integer `7`, expected \"key\" to be a text"),
            ("{\"key\": \"\", \"value\": \"v\"}", "the key is empty"),
            ("{\"key\": \"a\"}", "neither \"value\" nor \"values\""),
            ("{\"key\": \"a\", \"value\": null}", "null, expected \"value\" to be a text"),
            ("{\"key\": \"a\", \"value\": {}}", "\"value\" has no \"base64\""),
            ("{\"key\": \"a\", \"value\": {\"base64\": \"%%\"}}", "\"value\" is not base64"),
            ("{\"key\": \"a\", \"values\": []}", "an empty list"),
            ("{\"key\": \"a\", \"values\": \"v\"}", "expected \"values\" to be a list"),
            ("{\"key\": \"a\", \"value\": \"\", \"values\": [\"\"]}", "both"),
            ("{\"key\": \"a\", \"value\": \"\", \"ttl\": 5}", "unknown field \"ttl\""),
            ("{\"key\": \"a\", \"value\": \"\", \"records\": 5}", "unknown field \"records\""),
            ("{\"dump\": \"begins\", \"key\": \"a\"}", "neither the first nor the last line of a dump"),
        ];
        for (line, expected) in cases {
            let problem = parse_line(line.as_bytes()).expect_err(line);
            assert!(problem.contains(expected), "{problem:?} should say {expected:?}");
            assert!(!problem.contains("line 1"), "the caller knows the number: {problem}");
        }
    }

    #[test]
    fn an_unknown_name_does_not_command_the_terminal_of_its_reader() {
        let problem = parse_line(br#"{"\u001b[2J\n": 1}"#).expect_err("is unknown");
        assert!(problem.starts_with(r#"unknown field "\u{1b}[2J\n";"#), "{problem}");
        let long = format!("{{\"{}\": 1}}", "ä".repeat(5_000));
        let problem = parse_line(long.as_bytes()).expect_err("is unknown");
        assert!(problem.chars().count() < 120 && problem.contains("ä\"…;"), "{problem}");
    }

    /// The first of two values was dropped without a word.
    #[test]
    fn a_field_that_stands_twice_in_a_line_is_refused() {
        for line in [
            r#"{"key": "a", "value": "1", "value": "2"}"#,
            r#"{"key": "a", "key": "b", "value": "1"}"#,
            r#"{"key": "a", "values": ["1"], "values": ["2"]}"#,
            r#"{"key": "a", "value": {"base64": "", "base64": "AAE="}}"#,
        ] {
            let problem = parse_line(line.as_bytes()).expect_err(line);
            assert!(problem.contains("stands there twice") || problem.contains("more than one"), "{problem}");
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        let key = |bytes: &'static [u8]| Key::new(bytes).expect("valid");
        let values = |values: &[&'static [u8]]| values.iter().map(|value| Bytes::from_static(value)).collect();
        for line in [
            Line::Record(Record { key: key(b"plain"), values: values(&[b"v"]) }),
            Line::Record(Record { key: key(b"\xff\0"), values: values(&[b"", b"\xff", "ä\n\"".as_bytes()]) }),
            Line::DumpBegins { cluster: "shop".to_owned(), bucket: "carts".to_owned() },
            Line::DumpEnds { records: 7, complete: false },
        ] {
            assert_eq!(parse_line(line.to_json().to_string().as_bytes()), Ok(Some(line)));
        }
    }

    #[test]
    fn every_record_that_a_key_can_be_fits_its_line() {
        let worst = |value: &[u8]| {
            let values = vec![Bytes::copy_from_slice(value); 4];
            let line =
                Line::Record(Record { key: Key::new(vec![1; 1024]).expect("valid"), values }).to_json().to_string();
            (line.len() as u64, line.bytes().filter(|&byte| byte == b'\\').count() as u64)
        };
        for value in [vec![1; 4 << 20], vec![0xff; 4 << 20], vec![b'x'; 4 << 20], vec![b'"'; 4 << 20]] {
            let (bytes, backslashes) = worst(&value);
            assert!(may_hold_a_record(bytes, backslashes), "{bytes} bytes, {backslashes} backslashes");
        }
        assert!(!may_hold_a_record(30 << 20, 0) && !may_hold_a_record(300 << 20, 300 << 20));
    }

    #[test]
    fn no_line_makes_more_values_than_a_key_can_have() {
        let line = format!("{{\"key\": \"k\", \"values\": [{}\"\"]}}", "\"\",".repeat(VALUES_MAX));
        assert!(parse_line(line.as_bytes()).expect_err("too many").contains("more than 2048 values"));
    }
}
