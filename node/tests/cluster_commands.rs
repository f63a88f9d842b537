//! What commands say, and leave, when things are not as hoped: on three real processes.

mod cluster_support;

use std::fs;

use cluster_support::{Dev, expect_failure, text};
use serde_json::{Value, json};

fn with_buckets(tables: &str) -> Dev {
    Dev::prepare(|cluster| {
        let before = fs::read_to_string(cluster).expect("dev has written it");
        fs::write(cluster, format!("{before}\n{tables}")).expect("writes");
    })
}

/// A file of JSON lines.
fn file(dev: &Dev, name: &str, records: impl IntoIterator<Item = (String, String)>) -> String {
    let lines = records.into_iter().map(|(key, value)| json!({ "key": key, "value": value }).to_string());
    let path = dev.file(name);
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("writes");
    path.display().to_string()
}

/// The only backup had been truncated before it was looked whether there is such a bucket, or anybody to ask.
#[test]
fn a_dump_that_fails_leaves_the_file_that_was_there() {
    let dev = Dev::start();
    let backup = dev.file("bk").display().to_string();
    fs::write(&backup, "the last one\n").expect("writes");
    dev.fails(3, &["dump", "-b", "typo", "-o", &backup], &["there is no bucket \"typo\"", "bk is as it was"]);
    dev.kill_all();
    let again = format!("driftless dev --dir {}", dev.cluster().display());
    dev.fails(1, &["dump", "-o", &backup], &["nothing answers at", "bk is as it was", &again]);
    assert_eq!(fs::read_to_string(&backup).expect("is there"), "the last one\n");
    assert!(!dev.file("bk.new").exists(), "and nothing beside it");
}

/// With hints under way a scan listed 3,614 of 4,000 keys, and ended as if that were all.
#[test]
fn a_dump_that_may_lack_keys_says_so_and_replaces_nothing() {
    let dev = Dev::start();
    let records = || (0..200).map(|i| (format!("key-{i}"), "v".to_owned()));
    dev.ok(&["load", &file(&dev, "first.jsonl", records().take(100))]);
    let backup = dev.file("bk").display().to_string();
    dev.ok(&["dump", "--wait", "80s", "-o", &backup]);
    let whole = fs::read_to_string(&backup).expect("is there");
    assert_eq!(whole.lines().count(), 100);

    dev.kill("n3");
    dev.ok(&["load", &file(&dev, "second.jsonl", records().skip(100))]);
    let missing = ["KEYS MAY BE MISSING", "n3 does not answer", "--wait"];
    dev.fails(7, &["dump", "-o", &backup], &[&missing[..], &["keys wait to be handed", "bk.incomplete"]].concat());
    assert_eq!(fs::read_to_string(&backup).expect("is there"), whole, "the last whole one stays");
    assert!(dev.file("bk.incomplete").is_file() && !dev.file("bk.new").exists());
    dev.fails(7, &["scan"], &missing);
    let done = dev.run(&["scan", "--format", "json"]);
    let last = done.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("has lines");
    let last: Value = serde_json::from_slice(last).expect("is JSON");
    assert_eq!((done.code, &last["complete"]), (Some(7), &json!(false)), "{last}");
    assert_eq!(dev.ok(&["scan", "--limit", "5"]).lines().count(), 5, "who wants five does not ask for all");

    let mut by_hand = dev.serve("n3");
    dev.ok(&["dump", "--wait", "80s", "-o", &backup]);
    assert_eq!(fs::read_to_string(&backup).expect("is there").lines().count(), 200);
    cluster_support::signal(by_hand.id(), rustix::process::Signal::TERM);
    cluster_support::wait(&mut by_hand, std::time::Duration::from_secs(30)).expect("stops when asked to");
}
