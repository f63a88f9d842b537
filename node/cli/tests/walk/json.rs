//! What the page on the command line shows as JSON has the fields that commands print, no more and no fewer.
//!
//! It may leave values out, as in `{"name", "peers": [{"name"}]}`.

use std::collections::BTreeMap;

use super::Walk;
use super::cluster_support::Dev;
use super::markdown::{blocks, page};

/// What is typed for each `json` block, in their order. They are written and read by one another.
const TYPED: &[&str] = &[
    "driftless --profile DIR put -b typo k v",
    "driftless cert show DIR/client.pem",
    "driftless config explain limits.requests_max",
    "driftless config check DIR/cluster.toml",
    "driftless --profile DIR put j v",
    "driftless --profile DIR get j",
    "driftless --profile DIR delete j",
    "driftless --profile DIR put explained hello --explain",
    "driftless --profile DIR load node/data/debian-packages.jsonl",
    "driftless --profile DIR dump --wait 60s | grep '\"dump\"'",
    "driftless --profile DIR dump --wait 60s -o backup.jsonl",
    "driftless --profile DIR backup create shop-backup --wait 60s",
    "driftless --profile DIR backup restore shop-backup",
    "driftless --profile DIR status",
    "driftless --profile DIR doctor",
    "driftless --profile DIR top",
    "driftless --profile DIR hints",
    "driftless --profile DIR damaged list",
    "driftless --profile DIR aae status",
    "driftless --profile DIR drain n2 --undo",
    "driftless --profile DIR ring --key bat",
    "driftless --profile DIR bucket show default",
    "driftless --profile DIR access show",
];

#[test]
fn what_is_shown_as_json_has_the_fields_that_are_printed() {
    let page = page("docs/command-line.md");
    let shown: Vec<_> = blocks(&page).into_iter().filter(|block| block.language == "json").collect();
    assert_eq!(shown.len(), TYPED.len(), "something is typed for each block");
    let dev = Dev::start();
    let walk = Walk::beside(&dev);
    dev.ok(&["aae", "run"]);
    for (block, line) in shown.iter().zip(TYPED) {
        if line.ends_with("hints") {
            dev.kill("n3");
            dev.ok(&["put", "missed", "by n3"]);
            dev.eventually("somebody keeps it", || dev.json(&["hints"])["keys"].as_u64() > Some(0));
        }
        let typed = match line.split_once(" | ") {
            Some((command, rest)) => format!("{command} --format json | {rest}"),
            None => format!("{line} --format json"),
        };
        let printed = String::from_utf8(walk.types(&typed).stdout).expect("is text");
        let printed: Vec<&str> = printed.lines().filter(|line| line.starts_with('{')).collect();
        let shown = block.lines.join("\n");
        let (documented, actual) = (shapes(&shown), shapes(&printed.join("\n")));
        assert_eq!(documented.len(), actual.len(), "`{line}` prints as many objects: {printed:?}");
        for (documented, actual) in documented.iter().zip(&actual) {
            assert!(
                documented.fits(actual),
                "`{line}`: the page shows\n{shown}\nand printed is\n{}",
                printed.join("\n")
            );
        }
    }
}

/// The fields of a value, without what they hold.
#[derive(PartialEq, Eq, Debug)]
enum Shape {
    Object(BTreeMap<String, Shape>),
    /// Of the first one of a list; nothing of an empty one.
    List(Option<Box<Shape>>),
    Value,
}

impl Shape {
    /// Whether fields are the same at every depth that both show.
    fn fits(&self, other: &Shape) -> bool {
        match (self, other) {
            (Shape::Object(one), Shape::Object(two)) => {
                one.len() == two.len()
                    && one.iter().all(|(name, shape)| two.get(name).is_some_and(|other| shape.fits(other)))
            }
            (Shape::List(Some(one)), Shape::List(Some(two))) => one.fits(two),
            (Shape::List(_), Shape::List(_)) => true,
            // A field may be null, and values may be left out.
            (Shape::Value, _) | (_, Shape::Value) => true,
            _ => false,
        }
    }
}

fn shapes(text: &str) -> Vec<Shape> {
    let mut rest = text.trim();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (shape, left) = value(rest);
        all.push(shape);
        rest = left.trim_start();
    }
    all
}

/// A value, and what comes behind it.
fn value(text: &str) -> (Shape, &str) {
    if let Some(inside) = text.strip_prefix('{') {
        let mut fields = BTreeMap::new();
        let rest = items(inside, '}', |text| {
            let (name, rest) = quoted(text);
            let (shape, rest) = match rest.trim_start().strip_prefix(':') {
                Some(rest) => value(rest.trim_start()),
                None => (Shape::Value, rest),
            };
            fields.insert(name.to_owned(), shape);
            rest
        });
        return (Shape::Object(fields), rest);
    }
    if let Some(inside) = text.strip_prefix('[') {
        let mut first = None;
        let rest = items(inside, ']', |text| {
            let (shape, rest) = value(text);
            first.get_or_insert_with(|| Box::new(shape));
            rest
        });
        return (Shape::List(first), rest);
    }
    if text.starts_with('"') {
        return (Shape::Value, quoted(text).1);
    }
    (Shape::Value, text.trim_start_matches(|c: char| !matches!(c, ',' | '}' | ']' | '\n')))
}

/// What stands between commas up to the bracket; gives what comes behind that.
fn items<'a>(text: &'a str, bracket: char, mut item: impl FnMut(&'a str) -> &'a str) -> &'a str {
    let mut rest = text.trim_start();
    loop {
        if let Some(behind) = rest.strip_prefix(bracket) {
            return behind;
        }
        assert!(!rest.is_empty(), "a bracket is not closed: {text}");
        rest = item(rest).trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

fn quoted(text: &str) -> (&str, &str) {
    let inside = text.strip_prefix('"').unwrap_or_else(|| panic!("a quote begins: {text}"));
    let mut escaped = false;
    let end = inside.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let end = end.unwrap_or_else(|| panic!("a quote ends: {text}"));
    (&inside[..end], &inside[end + 1..])
}

#[test]
fn fields_are_compared_at_every_depth() {
    let fits = |one: &str, two: &str| shapes(one)[0].fits(&shapes(two)[0]);
    assert!(fits(r#"{"a", "b": [{"c"}]}"#, r#"{"b":[{"c":"x\"}"},{"c":null}],"a":1.5}"#));
    assert!(!fits(r#"{"a"}"#, r#"{"a":1,"b":2}"#) && !fits(r#"{"b": [{"c"}]}"#, r#"{"b":[{"d":1}]}"#));
    assert!(fits(r#"{"b": []}"#, r#"{"b":[{"d":1}]}"#) && fits(r#"{"b": null}"#, r#"{"b":{"d":1}}"#));
    assert!(!fits(r#"{"b": []}"#, r#"{"b":{"d":1}}"#));
    assert_eq!(shapes("{\"a\":1}\n{}").len(), 2);
}
