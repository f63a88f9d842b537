//! Three real processes keep real data: through every node, over restarts, and over the crash of all of them.

mod cluster_support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cluster_support::{Dev, driftless, expect_failure, finish, sample, sample_file, signal, text, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

fn dump(dev: &Dev) -> BTreeMap<String, Vec<String>> {
    dump_of(dev, "default")
}

fn dump_of(dev: &Dev, bucket: &str) -> BTreeMap<String, Vec<String>> {
    dev.ok(&["dump", "--wait", "60s", "-b", bucket])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("is JSON"))
        .filter(|record| record["dump"].is_null())
        .map(|record| {
            let values = match &record["values"] {
                Value::Array(values) => {
                    values.iter().map(|value| value.as_str().expect("is text").to_owned()).collect()
                }
                _ => vec![text(&record, "value")],
            };
            (text(&record, "key"), values)
        })
        .collect()
}

#[test]
fn acknowledged_records_stay_through_restarts_and_crashes() {
    let mut dev = Dev::start();
    let sample = sample();

    // All records, and loading them again makes no siblings.
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["loaded"], &loaded["failed"]), (&json!(5287), &json!(0)));
    let again = dev.json(&["load", sample_file()]);
    assert_eq!(
        (&again["loaded"], &again["unchanged"], &again["failed"], &again["keys_with_siblings"]),
        (&json!(5287), &json!(5287), &json!(0), &json!(0))
    );

    // Byte-equal through each node.
    let (_, bat) = sample.iter().find(|(key, _)| key == "bat").expect("is in the sample");
    for endpoint in dev.endpoints() {
        let done = dev.run(&["--endpoint", &endpoint, "get", "bat", "--format", "raw"]);
        assert_eq!((done.code, done.stdout.as_slice()), (Some(0), bat.as_bytes()), "through {endpoint}");
    }
    let expected: BTreeMap<String, Vec<String>> =
        sample.iter().cloned().map(|(key, value)| (key, vec![value])).collect();
    assert!(dump(&dev) == expected, "a dump is what was loaded");

    // Two blind writes, a merge, and a delete.
    assert_eq!(dev.ok(&["put", "k", "A"]), "stored\n");
    assert!(
        dev.ok(&["put", "k", "B"]).starts_with("stored; the key has 2 siblings, read them with: driftless --profile ")
    );
    let read = dev.json(&["get", "k"]);
    assert_eq!((&read["key"], &read["found"], &read["values"]), (&json!("k"), &json!(true), &json!(["A", "B"])));
    dev.fails(1, &["get", "k", "--format", "raw"], &["2 siblings", "--format json"]);
    let token = text(&read, "context");
    dev.ok(&["put", "k", "C", "--context", &token]);
    let read = dev.json(&["get", "k"]);
    assert_eq!(read["values"], json!(["C"]));
    // A stale context removes only what it has seen.
    let stale = dev.json(&["put", "k", "D", "--context", &token]);
    assert_eq!((&stale["siblings"], &stale["context"]), (&json!(2), &json!(null)));
    let read = dev.json(&["get", "k"]);
    let merged = dev.json(&["put", "k", "E", "--context", &text(&read, "context")]);
    assert_eq!(merged["siblings"], json!(1));
    dev.json(&["put", "gone", "x"]);
    assert_eq!(dev.ok(&["delete", "gone"]), "deleted\n");
    dev.fails(5, &["get", "gone"], &["gone not found"]);
    dev.fails(5, &["delete", "gone"], &["nothing to delete"]);

    // As in other stores: the value takes the place of what is there.
    for value in ["1", "2", "2"] {
        assert!(dev.ok(&["put", "--replace", "set", value]).starts_with("stored"));
    }
    dev.ok(&["put", "set", "sibling"]);
    let said = dev.json(&["put", "--replace", "set", "3"]);
    assert_eq!((&said["replaced"], &said["siblings"]), (&json!(2), &json!(1)));
    let done = dev.run(&["get", "set"]);
    assert_eq!((&*done.stdout, done.stderr.contains("context: ")), (&b"3\n"[..], true), "a script takes the value");
    dev.ok(&["delete", "set"]);

    // Keys that cannot be typed.
    dev.ok(&["put", "--key-base64", "/wAK", "v"]);
    assert_eq!(dev.json(&["get", "--key-base64", "/wAK"])["key"], json!({ "base64": "/wAK" }));
    assert_eq!(dev.json(&["ring", "--key", "/wAK", "--key-base64"])["key"], json!({ "base64": "/wAK" }));
    dev.ok(&["delete", "--key-base64", "/wAK"]);

    // Bytes that are not text.
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(dev.run_with_input(&["put", "binary", "-"], &binary).code, Some(0));
    assert_eq!(dev.run(&["get", "binary", "--format", "raw"]).stdout, binary);
    assert!(dev.json(&["get", "binary"])["values"][0]["base64"].is_string());
    dev.ok(&["delete", "binary"]);

    // Stop and start: everything is there.
    let mut expected = expected;
    expected.insert("k".to_owned(), vec!["E".to_owned()]);
    dev.down();
    dev.up();
    assert!(dump(&dev) == expected, "everything is there after a restart");

    // All three crash at once: everything that was acknowledged is there.
    for i in 0..20 {
        dev.ok(&["put", &format!("late-{i}"), "v"]);
        expected.insert(format!("late-{i}"), vec!["v".to_owned()]);
    }
    dev.kill_all();
    dev.down();
    dev.up();
    assert!(dump(&dev) == expected, "everything acknowledged is there after all three crashed");
    dev.fails(5, &["get", "gone"], &["gone not found"]);

    let status = dev.json(&["status"]);
    assert_eq!((&status["healthy"], status["nodes"].as_array().map(Vec::len)), (&json!(true), Some(3)));
    assert!(status["summary"].is_string());
}

/// Records of a load were taken for retries of the records that the same file had put into another bucket before: of 5,287 that
/// were "loaded, 0 failed", 16 were nowhere.
#[test]
fn a_file_loaded_into_two_buckets_is_whole_in_both() {
    let dev = Dev::prepare(|cluster| {
        let text = std::fs::read_to_string(cluster).expect("dev has written it");
        std::fs::write(cluster, text + "\n[[bucket]]\nname = \"copy\"\n").expect("writes");
    });
    let sample = sample();
    let other = dev.file("other.jsonl").display().to_string();
    let lines = sample.iter().map(|(key, value)| json!({ "key": key, "value": format!("other {value}") }).to_string());
    std::fs::write(&other, lines.collect::<Vec<_>>().join("\n")).expect("writes");
    let all = |load: &[&str]| {
        let said = dev.json(load);
        assert_eq!((&said["loaded"], &said["failed"]), (&json!(5287), &json!(0)), "{load:?}");
    };
    all(&["load", sample_file(), "-b", "default"]);
    all(&["load", &other, "-b", "copy"]);
    all(&["load", sample_file(), "-b", "copy"]);
    let expected = |values: fn(&String) -> Vec<String>| -> BTreeMap<String, Vec<String>> {
        sample.iter().map(|(key, value)| (key.clone(), values(value))).collect()
    };
    let sorted = |mut dump: BTreeMap<String, Vec<String>>| {
        dump.values_mut().for_each(|values| values.sort());
        dump
    };
    let both = sorted(expected(|value| vec![value.clone(), format!("other {value}")]));
    assert!(sorted(dump_of(&dev, "copy")) == both, "what both files have is there");
    assert!(dump(&dev) == expected(|value| vec![value.clone()]), "and the first bucket is as it was");
    // Once more: nothing is doubled.
    all(&["load", sample_file(), "-b", "copy"]);
    assert!(sorted(dump_of(&dev, "copy")) == both, "a load made again makes no siblings");
    // In place of both, within the time in which ids are remembered.
    all(&["load", "--replace", sample_file(), "-b", "copy"]);
    assert!(dump_of(&dev, "copy") == expected(|value| vec![value.clone()]), "replaced");
}

/// With many puts under way the revisions of a key met each other.
#[test]
fn of_several_records_of_a_key_a_load_that_replaces_leaves_the_last() {
    let dev = Dev::start();
    let file = dev.file("revisions.jsonl").display().to_string();
    let lines = (1..=10).flat_map(|revision| {
        (0..20).map(move |key| json!({ "key": format!("doc-{key}"), "value": format!("revision {revision}") }))
    });
    std::fs::write(&file, lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n")).expect("writes");
    for _ in 0..2 {
        let said = dev.json(&["load", "--replace", &file]);
        assert_eq!((&said["loaded"], &said["failed"]), (&json!(200), &json!(0)));
        let expected = (0..20).map(|key| (format!("doc-{key}"), vec!["revision 10".to_owned()])).collect();
        assert!(dump(&dev) == expected);
    }
}

#[test]
fn looking_around_agrees_with_itself() {
    let dev = Dev::prepare(|cluster| {
        let text = std::fs::read_to_string(cluster).expect("dev has written it");
        std::fs::write(
            cluster,
            text + "\n[[bucket]]\nname = \"carts\"\nn = 2\nr = 1\nw = 1\ndurability = \"buffered\"\n",
        )
        .expect("writes");
    });
    let buckets = dev.json(&["bucket", "list"]);
    assert_eq!(buckets["buckets"].as_array().map(Vec::len), Some(2));
    let carts = dev.json(&["bucket", "show", "carts"]);
    assert_eq!(
        (&carts["n"], &carts["r"], &carts["w"], &carts["durability"]),
        (&json!(2), &json!(1), &json!(1), &json!("buffered"))
    );

    for i in 0..50 {
        dev.ok(&["put", "-b", "carts", &format!("cart-{i}"), "apples"]);
    }
    assert_eq!(dev.ok(&["scan", "carts", "--wait", "60s"]).lines().count(), 50);
    assert_eq!(dev.ok(&["scan", "carts", "--limit", "7"]).lines().count(), 7);
    let of_prefix = |prefix: &str| dev.ok(&["scan", "carts", "--wait", "60s", "--prefix", prefix]).lines().count();
    assert_eq!(["", "cart-1", "cart-49", "art"].map(of_prefix), [50, 11, 1, 0], "only keys that begin so");
    assert_eq!(dev.ok(&["scan", "--wait", "60s"]).lines().count(), 0, "buckets are apart");
    assert_eq!(
        dev.ok(&["scan", "carts", "--wait", "60s", "--format", "json"])
            .lines()
            .filter(|line| line.starts_with("{\"key\":\"cart-"))
            .count(),
        50
    );

    let place = dev.json(&["ring", "--key", "cart-0", "-b", "carts"]);
    let partition = text(&place, "partition");
    assert!(partition.starts_with("n2/"), "{partition}");
    assert_eq!(place["primaries"].as_array().map(Vec::len), Some(2));
    let row = dev.json(&["ring", "--partition", &partition]);
    assert_eq!(row["primaries"], place["primaries"]);
    let keys = dev.ok(&["scan", "carts", "--wait", "60s", "--partition", &partition]);
    assert!(keys.lines().any(|key| key == "cart-0"), "{keys}");
    let ring = dev.json(&["ring"]);
    assert_eq!((&ring["version"], &ring["partitions"]), (&json!(2), &json!(256)));
    let explained = dev.json(&["get", "-b", "carts", "cart-0", "--explain"]);
    assert_eq!(explained["explanation"]["partition"], json!(partition));
    assert!(explained["explanation"]["read"]["replicas"].as_array().is_some_and(|replicas| replicas.len() == 2));

    let explained = dev.json(&["put", "-b", "carts", "explained", "1", "--explain"]);
    let write = &explained["explanation"]["write"];
    assert_eq!((&write["counted"], &write["replicas"][0]["did"]), (&explained["acks"], &json!("stamped")));
    let explained = dev.json(&["delete", "-b", "carts", "explained", "--explain"]);
    let counted = |phase: &str| explained["explanation"][phase]["counted"].as_u64();
    assert!(counted("read") > Some(0) && counted("write") == explained["acks"].as_u64(), "{explained}");
    dev.fails(3, &["put", "-b", "carts", "k", "1", "-w", "9", "--explain"], &["bad quorum", "coordinated by"]);
    for command in [&["put", "-b", "carts", "k", "1", "-w", "9"][..], &["delete", "-b", "carts", "k", "-w", "9"]] {
        let failed = dev.run(&[command, &["--explain", "--format", "json"]].concat());
        let error = serde_json::from_str::<Value>(&failed.stderr).expect("is JSON")["error"].clone();
        assert_eq!((failed.code, &error["code"]), (Some(3), &json!(3)), "{error}");
        let told = &error["explanation"];
        assert!(told["coordinator"].as_str().is_some_and(|name| name.starts_with('n')), "{error}");
        assert_eq!((&told["partition"].is_string(), &told["stamp"]), (&true, &Value::Null), "{error}");
        let failed = dev.run(&[command, &["--format", "json"]].concat());
        let error = serde_json::from_str::<Value>(&failed.stderr).expect("is JSON")["error"].clone();
        assert_eq!((&error["code"], error.get("explanation")), (&json!(3), None), "nobody has asked for it");
    }

    // A dump of one bucket loads into another.
    let file = dev.file("carts.jsonl").display().to_string();
    dev.ok(&["dump", "--wait", "60s", "-b", "carts", "-o", &file]);
    assert_eq!(dev.json(&["load", &file])["loaded"], json!(50));
    assert_eq!(dev.ok(&["scan", "--wait", "60s"]).lines().count(), 50);

    let bench =
        dev.json(&["bench", "--clients", "4", "--seconds", "0.5", "--warmup", "0.2", "--keys", "200", "--op", "mixed"]);
    assert!(bench["operations"].as_u64().is_some_and(|operations| operations > 0), "{bench}");
    assert_eq!(bench["errors"]["kinds"], json!({}));
    assert!(bench["server_cpu_us_per_op"].is_number(), "{bench}");
    assert_eq!((&bench["durability"], &bench["w"]), (&json!("sync"), &json!(2)));
    let siblings = dev.ok(&["dump", "--wait", "60s"]).lines().filter(|line| line.contains("\"values\"")).count();
    assert_eq!(siblings, 0, "a benchmark piles up no siblings");
}

#[test]
fn a_bench_writes_no_key_that_is_there_and_leaves_no_siblings() {
    let dev = Dev::start();
    let file = |name: &str| dev.file(name).display().to_string();
    let bench = |more: &[&str]| {
        let args = ["bench", "--clients", "4", "--seconds", "0.5", "--warmup", "0.1", "--keys", "200"];
        let done = dev.run(&[&args[..], more].concat());
        assert_eq!(done.code, Some(0), "{more:?}: {}", done.stderr);
        done.stderr
    };
    let said = bench(&["--workload", "c"]);
    assert!(said.contains("prefilled: 200 of 200 keys were missing"), "{said}");
    let said = bench(&["--op", "put", "--output", &file("put.json")]);
    assert!(said.contains("nothing to prefill: all 200 keys are there"), "{said}");
    let said = bench(&["--workload", "d", "--rate", "300", "--output", &file("d.json"), "--plot", &file("d.svg")]);
    assert!(said.contains("nothing to prefill: 200 of 200 keys were looked for") && !said.contains("go on"), "{said}");
    let said = bench(&["--workload", "d", "--rate", "300", "--hdr", &file("d.hgrm")]);
    assert!(said.contains("inserts go on from bench-000002"), "{said}");
    bench(&["--workload", "a"]);
    bench(&["--workload", "f"]);

    let d: Value = serde_json::from_slice(&std::fs::read(dev.file("d.json")).expect("was written")).expect("JSON");
    assert!(d["open_loop"]["due"].as_u64().is_some_and(|due| (140..400).contains(&due)), "{d}");
    let counted = ["due", "not_begun", "unfinished"].map(|name| d["open_loop"][name].as_u64().expect("a number"));
    let answered = d["operations"].as_u64().expect("a number");
    assert_eq!(counted[0], answered + counted[1] + counted[2], "none is lost: {d}");
    assert!(d["histograms"]["get"].as_str().is_some_and(|text| text.starts_with("HISTFAAA")), "{d}");
    assert_eq!((&d["errors"]["kinds"], d["time_line"].as_array().map(Vec::len)), (&json!({}), Some(1)));
    assert!(std::fs::read_to_string(dev.file("d.svg")).expect("was written").ends_with("</svg>\n"));
    assert!(std::fs::read_to_string(dev.file("d.hgrm")).expect("was written").contains("1/(1-Percentile)"));
    let compared = dev.json(&["bench", "--compare", &file("d.json"), &file("put.json")]);
    assert_eq!(compared["rows"][0]["what"], json!("ops/s"));
    assert!(compared["warnings"].to_string().contains("the settings differ: workload"), "{compared}");

    let siblings = dev.ok(&["dump", "--wait", "60s"]).lines().filter(|line| line.contains("\"values\"")).count();
    assert_eq!(siblings, 0, "neither puts nor inserts nor read-modify-writes pile up siblings");
}

#[test]
fn a_certificate_says_who_belongs_to_a_cluster() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |args: &[&str]| {
        let mut command = driftless();
        command.args(args).current_dir(dir.path());
        finish(command, b"")
    };
    assert_eq!(run(&["cert", "ca", "--cluster", "shop"]).code, Some(0));
    for file in ["ca.key", "context.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join(file)).expect("was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(run(&["cert", "node", "n1"]).code, Some(0));
    assert_eq!(run(&["cert", "client", "app", "--days", "3"]).code, Some(0));
    assert!(dir.path().join("n1.key").is_file() && dir.path().join("app.pem").is_file());
    let again = run(&["cert", "ca", "--cluster", "shop"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert_eq!(run(&["cert", "node", "no spaces"]).code, Some(2));
    assert_eq!(run(&["cert", "ca", "--cluster", "a/b", "--out", "other"]).code, Some(2));
}

/// All that a cluster holds of its keys: in a directory, back into the same cluster, and into one with other members.
#[test]
fn a_backup_takes_nothing_back_and_brings_everything_back() {
    let dev = Dev::start();
    dev.ok(&["load", sample_file()]);
    dev.ok(&["put", "bat", "a sibling"]);
    dev.ok(&["delete", "389-ds"]);
    dev.ok(&["bucket", "create", "carts", "--strict"]);
    dev.ok(&["put", "-b", "carts", "ann", "apples"]);
    // It outlives the cluster.
    let place = tempfile::tempdir().expect("a temporary directory");
    let directory = place.path().join("bk").display().to_string();
    let made = dev.json(&["backup", "create", &directory, "--wait", "60s"]);
    assert_eq!((&made["complete"], &made["keys"], &made["unread"]), (&json!(true), &json!(5287), &json!(0)));
    assert_eq!(made["directory"], json!(directory));
    let (all, carts) = (dump(&dev), dump_of(&dev, "carts"));
    assert_eq!(all["bat"].len(), 2);

    // Looked at without a cluster.
    let look = |words: &[&str]| {
        let mut command = driftless();
        command.arg("backup").args(words).arg(&directory);
        finish(command, b"")
    };
    let shown = look(&["show"]);
    assert!(
        shown.code == Some(0) && String::from_utf8_lossy(&shown.stdout).contains("complete: what was acknowledged"),
        "{shown:?}"
    );
    let sound = look(&["verify"]);
    assert!(
        sound.code == Some(0) && String::from_utf8_lossy(&sound.stdout).starts_with("sound: 5,287 keys"),
        "{sound:?}"
    );
    dev.fails(1, &["backup", "create", &directory], &["is there already", "never written over"]);

    // Into the cluster that it came from: what was done since stays.
    dev.ok(&["put", "--replace", "bat", "newer"]);
    dev.ok(&["delete", "7kaa"]);
    dev.ok(&["put", "fresh", "since"]);
    let restored = dev.json(&["backup", "restore", &directory]);
    assert_eq!((&restored["keys"], &restored["failed"]), (&json!(5287), &json!(0)));
    let mut since = all.clone();
    since.insert("bat".to_owned(), vec!["newer".to_owned()]);
    since.insert("fresh".to_owned(), vec!["since".to_owned()]);
    since.remove("7kaa");
    assert!(dump(&dev) == since, "nothing is taken back");
    drop(dev);

    // That one is gone: into another, of other members.
    let other = Dev::of(5, |_| {});
    let refused = ["there is no bucket carts; nothing was restored", "--create-buckets"];
    other.fails(3, &["backup", "restore", &directory], &refused);
    let restored = other.json(&["backup", "restore", &directory, "--create-buckets"]);
    assert_eq!((&restored["keys"], &restored["failed"]), (&json!(5287), &json!(0)));
    assert!(dump(&other) == all && dump_of(&other, "carts") == carts, "it is what was there, siblings included");

    // Damage is said before anything is written.
    let file = place.path().join("bk/default.states");
    let mut bytes = std::fs::read(&file).expect("is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("writes");
    other.ok(&["put", "--replace", "k", "untouched"]);
    other.fails(1, &["backup", "restore", &directory], &["default.states", "is damaged", "another copy"]);
    other.fails(1, &["backup", "verify", &directory], &["default.states", "is damaged"]);
    std::fs::remove_file(place.path().join("bk/backup.json")).expect("is there");
    other.fails(1, &["backup", "restore", &directory], &["backup.json", "is no backup"]);
}

/// What is not whole says so, and takes no place of what is.
#[test]
fn a_backup_that_may_lack_keys_is_called_incomplete() {
    let dev = Dev::start();
    dev.ok(&["put", "k", "v"]);
    dev.kill("n3");
    let directory = dev.file("bk");
    let name = directory.display().to_string();
    dev.fails(7, &["backup", "create", &name], &["KEYS MAY BE MISSING from this backup", "n3 does not answer"]);
    let incomplete = dev.file("bk.incomplete");
    assert!(!directory.exists() && incomplete.join("backup.json").is_file());
    let said = ["KEYS MAY BE MISSING: the backup of", "n3 does not answer"];
    dev.fails(7, &["backup", "restore", &incomplete.display().to_string()], &said);
    assert_eq!(dev.json(&["get", "k"])["values"], json!(["v"]));
    dev.fails(1, &["backup", "create", &name], &["bk.incomplete is there already"]);
    // Who cannot write leaves nothing.
    let none = dev.file("none/bk").display().to_string();
    dev.fails(1, &["backup", "create", &none], &["there is no directory"]);
}

/// Ctrl-C leaves nothing; what was killed cannot put away what it had written, and the next one says so.
#[test]
fn a_backup_that_is_cut_short_takes_nobodys_place_and_is_told() {
    let dev = Dev::start();
    dev.ok(&["load", sample_file()]);
    let place = tempfile::tempdir().expect("a temporary directory");
    let directory = place.path().join("bk").display().to_string();
    let names = || {
        let entries = std::fs::read_dir(place.path()).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect::<Vec<_>>()
    };
    for (with, says) in [(Signal::INT, "interrupted; nothing is left of it"), (Signal::KILL, "")] {
        let mut command = driftless();
        command.arg("--profile").arg(dev.cluster()).args(["backup", "create", &directory, "--concurrency", "1"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
        let has_begun = || names().first().is_some_and(|new| place.path().join(new).join("default.states").exists());
        dev.eventually("it has begun to write", has_begun);
        signal(child.id(), with);
        let mut said = String::new();
        child.stderr.take().expect("is a pipe").read_to_string(&mut said).expect("is text");
        let status = wait(&mut child, Duration::from_secs(30)).expect("ends");
        assert!(said.contains(says) && !status.success(), "{status}: {said}");
        assert_eq!(names().is_empty(), with == Signal::INT, "{:?}", names());
    }
    let left = names().remove(0);
    let done = dev.run(&["backup", "create", &directory, "--wait", "60s"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains(&left) && done.stderr.contains("of a backup that was killed"), "{}", done.stderr);
    dev.ok(&["backup", "verify", &directory]);
}

/// What is done to a backup: in a word, what is said of it, and how.
type Damage<'a> = (&'a str, &'a [&'a str], &'a dyn Fn());

/// Files that are missing, cut off, swapped or no files at all: all of them are named, and none of what is sound is written either.
#[test]
fn a_backup_of_which_files_are_not_what_was_written_is_refused_whole() {
    let dev = Dev::start();
    for bucket in ["carts", "prices"] {
        // A change of members, or buckets, waits for the one before.
        dev.eventually("all have settled", || dev.json(&["transfers"])["settled"] == Value::Bool(true));
        dev.ok(&["bucket", "create", bucket]);
        dev.ok(&["put", "-b", bucket, "k", bucket]);
    }
    let bucket_file = |bucket: &str| dev.file("bk").join(format!("{bucket}.states"));
    let directory = dev.file("bk").display().to_string();
    dev.ok(&["backup", "create", &directory, "--wait", "60s"]);
    let [carts, prices] = ["carts", "prices"].map(|bucket| std::fs::read(bucket_file(bucket)).expect("is there"));
    for bucket in ["carts", "prices"] {
        dev.ok(&["put", "--replace", "-b", bucket, "k", "since"]);
    }
    let verify = || {
        let mut command = driftless();
        command.args(["backup", "verify", &directory]);
        finish(command, b"")
    };
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().is_ok_and(|made| made.success()));
    };
    let write = |bucket: &str, bytes: &[u8]| std::fs::write(bucket_file(bucket), bytes).expect("writes");
    let damages: [Damage<'_>; 5] = [
        ("missing", &["carts.states: No such file"], &|| {}),
        ("cut off", &["carts.states: it ends before its end"], &|| write("carts", &carts[..carts.len() - 3])),
        ("empty", &["carts.states: it ends before its end"], &|| write("carts", b"")),
        ("a pipe", &["carts.states: it is no file"], &|| pipe(&bucket_file("carts"))),
        ("swapped", &[".states: it is another file", "carts.states", "prices.states", "2 of 3 files"], &|| {
            write("carts", &prices);
            write("prices", &carts);
        }),
    ];
    for (what, says, damage) in damages {
        std::fs::remove_file(bucket_file("carts")).expect("is there");
        damage();
        let says = [says, &["another copy of this backup"]].concat();
        expect_failure(&verify(), 1, what, &says);
        dev.fails(1, &["backup", "restore", &directory], &[says[0], "another copy of this backup"]);
        let _ = std::fs::remove_file(bucket_file("carts"));
        write("carts", &carts);
        write("prices", &prices);
        assert_eq!(verify().code, Some(0), "{what} is mended");
    }
    assert_eq!(dev.json(&["get", "-b", "prices", "k"])["values"], json!(["since"]));
    dev.fails(1, &["backup", "restore", &directory, "-b", "nope"], &["there is no bucket \"nope\" in ", "it has "]);
    let other = dev.file("bk2").display().to_string();
    dev.fails(3, &["backup", "create", &other, "-b", "nope"], &["there is no bucket \"nope\""]);
    // A device in the place of what says what is in it.
    std::fs::remove_file(dev.file("bk/backup.json")).expect("is there");
    std::os::unix::fs::symlink("/dev/zero", dev.file("bk/backup.json")).expect("is made");
    expect_failure(&verify(), 1, "a device", &["backup.json", "it has more than"]);
}

/// Keys that failed are exit code 1 if nothing can have happened to any of them, and 4 if something may have.
#[test]
fn a_restore_that_fails_says_whether_something_may_have_happened() {
    let dev = Dev::start();
    for i in 0..5 {
        dev.ok(&["put", &format!("k{i}"), "v"]);
    }
    let directory = dev.file("bk").display().to_string();
    dev.ok(&["backup", "create", &directory, "--wait", "60s"]);
    let restore = ["--endpoint", &dev.endpoints()[0], "backup", "restore", &directory, "--timeout", "2s"];
    let others =
        || -> Vec<u32> { dev.pids().into_iter().filter_map(|(name, pid)| pid.filter(|_| name != "n1")).collect() };

    // Two that stand still: until that is noticed each write waits for them, and n1 may have it. Where it is noticed before, it is done again.
    let frozen = others();
    let mut done = None;
    for _ in 0..5 {
        frozen.iter().for_each(|&pid| signal(pid, Signal::STOP));
        let attempt = dev.run(&restore);
        frozen.iter().for_each(|&pid| signal(pid, Signal::CONT));
        dev.eventually("all is well", || dev.json(&["status"])["healthy"] == json!(true));
        let is_unknown = attempt.code == Some(4);
        done = Some(attempt);
        if is_unknown {
            break;
        }
    }
    expect_failure(&done.expect("was tried"), 4, "restore", &["5 keys were not restored", "key k0: ", "run it again"]);

    // Two that are known to be gone.
    dev.kill("n2");
    dev.kill("n3");
    dev.eventually("n1 knows it", || {
        let peers = dev.json(&["status"])["nodes"][0]["peers"].as_array().cloned().unwrap_or_default();
        peers.len() == 2 && peers.iter().all(|peer| peer["liveness"] == json!("down"))
    });
    dev.fails(1, &restore, &["5 keys were not restored", "not enough replicas", "run it again"]);

    let mut by_hand = ["n2", "n3"].map(|name| dev.serve(name));
    dev.eventually("all is well", || dev.json(&["status"])["healthy"] == json!(true));
    let said = dev.ok(&["backup", "restore", &directory]);
    assert!(said.starts_with("5 keys with 5 values merged into 1 bucket, 0 failed"), "{said}");
    for node in &mut by_hand {
        signal(node.id(), Signal::TERM);
        wait(node, Duration::from_secs(20)).expect("stops");
    }
}
