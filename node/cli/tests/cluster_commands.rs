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

/// Whether half a file is left beside the one that it was to be.
fn is_left(dev: &Dev) -> bool {
    let dir = dev.file("bk").parent().expect("has one").to_owned();
    fs::read_dir(dir)
        .expect("is there")
        .any(|entry| entry.expect("an entry").file_name().to_string_lossy().ends_with(".new"))
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
    assert!(!is_left(&dev), "and nothing beside it");
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
    let marks = |dump: &str| dump.lines().filter(|line| line.contains("\"dump\"")).count();
    assert_eq!((whole.lines().count(), marks(&whole)), (102, 2));

    dev.kill("n3");
    dev.ok(&["load", &file(&dev, "second.jsonl", records().skip(100))]);
    let missing = ["KEYS MAY BE MISSING", "n3 does not answer", "--wait"];
    dev.fails(7, &["dump", "-o", &backup], &[&missing[..], &["keys wait to be handed", "bk.incomplete"]].concat());
    assert_eq!(fs::read_to_string(&backup).expect("is there"), whole, "the last whole one stays");
    assert!(dev.file("bk.incomplete").is_file() && !is_left(&dev));
    dev.fails(7, &["scan"], &missing);
    let done = dev.run(&["scan", "--format", "json"]);
    let last = done.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("has lines");
    let last: Value = serde_json::from_slice(last).expect("is JSON");
    assert_eq!((done.code, &last["complete"]), (Some(7), &json!(false)), "{last}");
    assert_eq!(dev.ok(&["scan", "--limit", "5"]).lines().count(), 5, "who wants five does not ask for all");

    let mut by_hand = dev.serve("n3");
    dev.ok(&["dump", "--wait", "80s", "-o", &backup]);
    assert_eq!(fs::read_to_string(&backup).expect("is there").lines().count(), 202);
    cluster_support::signal(by_hand.id(), rustix::process::Signal::TERM);
    cluster_support::wait(&mut by_hand, std::time::Duration::from_secs(30)).expect("stops when asked to");
}

/// "loaded 1 records, 0 failed", and the key was deleted: nodes had recognised the put of the first load. What a load did depended
/// on whether five minutes had passed.
#[test]
fn what_was_deleted_or_replaced_since_an_earlier_load_is_loaded_again() {
    let dev = with_buckets("[[bucket]]\nname = \"last\"\nconflict = \"lww\"\n");
    let one = |name: &str, value: &str| file(&dev, name, [("k".to_owned(), value.to_owned())]);
    let values = |bucket: &str| dev.json(&["get", "-b", bucket, "k"])["values"].clone();
    let p = one("p.jsonl", "x");
    dev.ok(&["load", &p]);
    for _ in 0..2 {
        dev.ok(&["delete", "k"]);
        assert_eq!(dev.json(&["load", &p])["loaded"], json!(1));
        assert_eq!(values("default"), json!(["x"]));
    }
    // A file that is reset to, again and again.
    let q = one("q.jsonl", "y");
    for (file, value) in [(&q, "y"), (&p, "x"), (&q, "y"), (&p, "x")] {
        assert_eq!(dev.json(&["load", "--replace", file])["failed"], json!(0));
        assert_eq!(values("default"), json!([value]));
        dev.ok(&["load", "-b", "last", file]);
        assert_eq!(values("last"), json!([value]), "where the last writer wins, that is this one");
    }
    // Of a file that replaces its own lines nothing is missing, however often it is loaded.
    let both = file(&dev, "both.jsonl", ["1", "2"].map(|value| ("twice".to_owned(), value.to_owned())));
    for _ in 0..2 {
        let said = dev.json(&["load", "-b", "last", &both]);
        assert_eq!((&said["loaded"], &said["failed"]), (&json!(2), &json!(0)));
        assert_eq!(dev.json(&["get", "-b", "last", "twice"])["values"], json!(["2"]));
    }
}

/// A dump that was loaded into the living cluster gave every key two equal values, and three when it was loaded again.
#[test]
fn a_dump_loaded_into_its_own_cluster_changes_nothing_and_one_that_was_cut_off_is_noticed() {
    let dev = Dev::start();
    for (key, values) in [("one", &["1"][..]), ("two", &["a", "b"]), ("equal", &["same", "same"])] {
        values.iter().for_each(|value| drop(dev.ok(&["put", key, value])));
    }
    let backup = dev.file("bk").display().to_string();
    dev.ok(&["dump", "--wait", "80s", "-o", &backup]);
    let sorted = || {
        let dump = dev.ok(&["dump", "--wait", "80s"]);
        let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = sorted();
    for _ in 0..2 {
        let said = dev.json(&["load", &backup]);
        assert_eq!((&said["loaded"], &said["unchanged"], &said["complete"]), (&json!(3), &json!(3), &json!(true)));
        assert_eq!(sorted(), before);
    }
    // Into an empty place the same comes, equal siblings too.
    dev.ok(&["delete", "one"]);
    dev.ok(&["delete", "equal"]);
    let said = dev.json(&["load", &backup]);
    assert_eq!((&said["loaded"], &said["unchanged"]), (&json!(3), &json!(1)));
    assert_eq!(sorted(), before);

    let whole = fs::read_to_string(&backup).expect("is there");
    let cut = dev.file("cut.jsonl");
    fs::write(&cut, whole.lines().take(3).collect::<Vec<_>>().join("\n")).expect("writes");
    dev.fails(7, &["load", &cut.display().to_string()], &["not whole: after 2 records its last line"]);
    fs::write(&cut, whole.replace("\"complete\":true", "\"complete\":false")).expect("writes");
    dev.fails(7, &["load", &cut.display().to_string()], &["keys may have been missing"]);
}

/// A load would have tried a million lines for 43 hours, and then forgotten how far it had come.
#[test]
fn a_load_that_nobody_answers_ends_keeps_its_mark_and_is_resumed() {
    let mut dev = Dev::start();
    let records = |count: u32| (0..count).map(|i| (format!("key-{i}"), "v".to_owned()));
    let path = file(&dev, "long.jsonl", records(4_000));
    let state = dev.file("state");
    let profile = dev.cluster();
    let load = |more: &[&str]| {
        let mut command = cluster_support::driftless();
        command.arg("--profile").arg(&profile).args(["load", &path, "--timeout", "2s"]).args(more);
        command.env("XDG_STATE_HOME", &state);
        command
    };
    let mut child =
        load(&["--concurrency", "1"]).stderr(std::process::Stdio::piped()).spawn().expect("the binary runs");
    let journals = || fs::read_dir(state.join("driftless")).into_iter().flatten().flatten();
    let journal = || journals().next().is_some();
    let mark = || {
        let written = journals().find_map(|entry| fs::read(entry.path()).ok())?;
        serde_json::from_slice::<Value>(&written).ok()?["lines"].as_u64()
    };
    dev.eventually("the load has come somewhere", || mark().is_some_and(|lines| lines > 0));
    dev.kill_all();
    let status = cluster_support::wait(&mut child, std::time::Duration::from_secs(60)).expect("comes to an end");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("is a pipe"), &mut said).expect("is text");
    assert!(!status.success() && said.contains("nothing could be stored for 20 s"), "{status}: {said}");
    assert!(said.contains("--resume") && journal(), "{said}");

    dev.down();
    dev.up();
    let done = cluster_support::finish(load(&["--resume", "--format", "json"]), b"");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_slice(&done.stdout).expect("is JSON");
    let count = |field: &str| said[field].as_u64().expect("a number");
    assert_eq!((count("loaded") + count("skipped"), count("keys_with_siblings")), (4_000, 0), "{said}");
    assert!(count("skipped") > 0, "{said}");
    assert!(!journal(), "a load that is complete need not be resumed");
    assert_eq!(dev.ok(&["scan", "--wait", "80s"]).lines().count(), 4_000);
}

/// What should have heard the signal was blocked in a write.
#[test]
fn a_dump_that_nobody_reads_ends_when_it_is_asked_to() {
    let dev = Dev::start();
    dev.ok(&["load", &file(&dev, "large.jsonl", [("k".to_owned(), "x".repeat(1 << 20))])]);
    let mut dump = cluster_support::driftless();
    dump.arg("--profile").arg(dev.cluster()).arg("dump").stdout(std::process::Stdio::piped());
    let mut child = dump.spawn().expect("the binary runs");
    // When the first byte is there the others wait: they do not fit into a pipe.
    let out = child.stdout.as_mut().expect("is a pipe");
    std::io::Read::read_exact(out, &mut [0]).expect("something comes");
    cluster_support::signal(child.id(), rustix::process::Signal::TERM);
    cluster_support::wait(&mut child, std::time::Duration::from_secs(30)).expect("comes to an end");
}

/// It said "not found; there was nothing to delete" of a key that a get shows.
#[test]
fn a_delete_that_covers_nothing_says_what_stays() {
    let dev = Dev::start();
    dev.ok(&["put", "k", "old"]);
    let stale = text(&dev.json(&["get", "k"]), "context");
    dev.ok(&["put", "k", "new", "--context", &stale]);
    let says =
        ["the context covers nothing that is there, and 1 value that it has not seen stays", "delete k", "get k"];
    let done = dev.run(&["delete", "k", "--context", &stale]);
    expect_failure(&done, 5, "a delete with a stale context", &says);
    assert!(!done.stderr.contains("not found"), "{}", done.stderr);
    assert_eq!(dev.json(&["get", "k"])["values"], json!(["new"]));
    dev.ok(&["delete", "k"]);
    dev.fails(5, &["delete", "k"], &["k not found; there was nothing to delete"]);
}

/// 64 of 100 lines were stored, and the newest 36 refused one by one; 20 keys were counted as 180.
#[test]
fn a_load_says_that_keys_repeat_in_its_file() {
    let dev = Dev::start();
    let revisions =
        (1..=10).flat_map(|revision| (0..20).map(move |key| (format!("doc{key}"), format!("rev {revision}"))));
    let done = dev.run(&["load", &file(&dev, "revisions.jsonl", revisions)]);
    expect_failure(
        &done,
        0,
        "load",
        &["20 keys are in several lines of the file, such as doc", "(10 lines)", "became siblings", "--replace"],
    );
    assert!(!done.stderr.contains("other values as well"), "{}", done.stderr);
    let hot = file(&dev, "hot.jsonl", (0..100).map(|i| ("hot".to_owned(), format!("v{i}"))));
    dev.fails(
        1,
        &["load", &hot],
        &["key hot has more values", "the 64 that a key holds; nothing was written", "--replace"],
    );
    dev.fails(5, &["get", "hot"], &["not found"]);
    let done = dev.run(&["load", "--replace", &hot]);
    expect_failure(
        &done,
        0,
        "load --replace",
        &["1 key is in several lines of the file, such as hot (100 lines)", "the last"],
    );
    assert_eq!(dev.json(&["get", "hot"])["values"], json!(["v99"]));
    let said = dev.run(&["load", "-b", "nosuch", &hot]);
    expect_failure(&said, 3, "load -b nosuch", &["there is no bucket \"nosuch\"", "driftless bucket list"]);
    assert!(!said.stderr.contains("line 1"), "once, not for each line: {}", said.stderr);
}

/// Its prefill gave up at the first key of a dead node, unnamed; and it ended well after 25,872 refusals.
#[test]
fn a_bench_goes_on_where_nothing_is_certain_and_fails_where_requests_do() {
    let dev = with_buckets("[[bucket]]\nname = \"single\"\nn = 1\nr = 1\nw = 1\n");
    let bench = |more: &[&str]| {
        let args = ["bench", "--clients", "4", "--seconds", "0.5", "--warmup", "0.1", "--keys", "60", "--op", "get"];
        dev.run(&[&args[..], more].concat())
    };
    assert_eq!(bench(&[]).code, Some(0));
    dev.kill("n3");
    dev.eventually("everybody thinks n3 down", || dev.json(&["status"])["nodes"][2]["state"] == json!("down"));
    let done = bench(&["-b", "single"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let done = bench(&["-r", "3", "--no-prefill", "--timeout", "150ms"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.code, Some(1), "{said}{}", done.stderr);
    assert!(said.contains("0 unknown, 0 otherwise") && said.contains(", the first: "), "{said}");
    let done = bench(&["-r", "3", "--no-prefill"]);
    assert_eq!(done.code, Some(1), "each tries for ten seconds, and half a second is measured");
    expect_failure(&bench(&["-r", "3"]), 3, "a prefill that is refused", &["prefilling key bench-000000"]);
}

/// Its JSON lacked what that of any other delete has.
#[test]
fn an_uncertain_delete_has_the_fields_of_any_other() {
    let dev = with_buckets("[[bucket]]\nname = \"single\"\nn = 1\nr = 1\nw = 1\n");
    dev.kill("n3");
    dev.eventually("everybody thinks n3 down", || dev.json(&["status"])["nodes"][2]["state"] == json!("down"));
    let of_third = |key: &&String| dev.json(&["ring", "-b", "single", "--key", key])["primaries"] == json!(["n3"]);
    let keys: Vec<String> = (0..60).map(|i| format!("key-{i}")).collect();
    let key = keys.iter().find(of_third).expect("n3 owns one in three");
    let done = dev.run(&["delete", "-b", "single", key, "--format", "json"]);
    assert_eq!(done.code, Some(6), "{}", done.stderr);
    let said: Value = serde_json::from_slice(&done.stdout).expect("is JSON");
    for field in ["acks", "primaries", "siblings"] {
        assert!(said[field].is_u64(), "{field}: {said}");
    }
    assert_eq!((&said["certain"], &said["existed"]), (&json!(false), &json!(false)));
}
