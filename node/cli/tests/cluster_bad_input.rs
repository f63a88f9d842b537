//! Bad input gets a clear error and changes nothing.

mod cluster_support;

use std::path::Path;

use cluster_support::{Dev, Done, driftless, expect_failure, finish, signal, text};
use rustix::process::Signal;
use serde_json::{Value, json};

fn serve(config: &Path, more: &[&str]) -> Done {
    let mut command = driftless();
    command.arg("serve").arg("--config").arg(config).args(more);
    finish(command, b"")
}

/// What `doctor` says of a node: its exit code, and each finding as a line.
fn doctor(config: &Path) -> (Option<i32>, Vec<String>) {
    let mut command = driftless();
    command.args(["doctor", "--format", "json", "--config"]).arg(config);
    // What a shell has set for the commands that it runs is not asked about a node that is named.
    command.env("DRIFTLESS_PROFILE", "of-another-cluster");
    let done = finish(command, b"");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("is JSON: {}", done.stderr));
    let findings = report["findings"].as_array().expect("a list");
    let line = |finding: &Value| {
        let parts = ["severity", "check", "what", "remedy"].map(|part| finding[part].as_str().unwrap_or("-"));
        parts.join(" | ")
    };
    (done.code, findings.iter().map(line).collect())
}

/// It has found a problem, and one that says all of this.
#[track_caller]
fn diagnosed(config: &Path, says: &[&str]) {
    let (code, findings) = doctor(config);
    assert_eq!(code, Some(1), "{findings:#?}");
    let is_it = |finding: &String| finding.starts_with("problem") && says.iter().all(|part| finding.contains(part));
    assert!(findings.iter().any(is_it), "somewhere it should say {says:?}: {findings:#?}");
}

/// It has a finding that begins so.
#[track_caller]
fn diagnosed_as(config: &Path, finding: &str) {
    let (_, findings) = doctor(config);
    assert!(
        findings.iter().any(|found| found.starts_with(finding)),
        "somewhere it should say {finding:?}: {findings:#?}"
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let dev = Dev::start();
    let put = dev.json(&["put", "k", "A"]);
    let token = text(&put, "context");

    dev.fails(3, &["get", "-b", "nope", "k"], &["bucket", "bucket list"]);
    dev.fails(2, &["get", "-b", "No Bucket", "k", "-r", "x"], &["invalid value"]);
    dev.fails(2, &["put", "", "v"], &["the key is empty"]);
    dev.fails(2, &["put", &"x".repeat(1025), "v"], &["1025 bytes"]);
    expect_failure(
        &dev.run_with_input(&["put", "big"], &vec![7; (4 << 20) + 1]),
        3,
        "a large value",
        &["the limit is"],
    );
    assert_eq!(dev.run_with_input(&["put", "big"], &vec![7; 4 << 20]).code, Some(0), "a value at the limit");
    dev.fails(2, &["get", "k", "-r", "0"], &["invalid value"]);
    dev.fails(3, &["get", "k", "-r", "4"], &["r = 4 is not possible with n = 3"]);
    dev.fails(2, &["put", "k", "v", "-w", "0"], &["invalid value"]);
    dev.fails(3, &["put", "k", "v", "-w", "4"], &["w = 4 is not possible with n = 3"]);

    // Context tokens: not one, damaged, of another key, of a future format.
    dev.fails(2, &["put", "k", "v", "--context", "%%%"], &["not a context token"]);
    let (head, tail) = token.split_at(token.len() - 3);
    let damaged = format!("{head}{}", if tail == "AAA" { "BBB" } else { "AAA" });
    dev.fails(3, &["put", "k", "v", "--context", &damaged], &["read the key again"]);
    dev.fails(3, &["put", "other", "v", "--context", &token], &["another bucket or key"]);
    let future = format!("Ag{}", &token[2..]);
    dev.fails(3, &["put", "k", "v", "--context", &future], &["format 2"]);
    assert_eq!(dev.json(&["get", "k"])["values"], json!(["A"]), "nothing has changed");
    dev.fails(5, &["get", "other"], &["not found"]);

    // Malformed lines are reported by number, and the load goes on.
    let file = dev.file("lines.jsonl");
    std::fs::write(
        &file,
        "{\"key\":\"l1\",\"value\":\"1\"}\n{oops\n\n{\"key\":\"\",\"value\":\"x\"}\n{\"key\":\"l5\",\"value\":\"5\"}\n",
    )
    .expect("writes");
    let done = dev.run(&["load", &file.display().to_string(), "--format", "json"]);
    expect_failure(&done, 1, "a load with malformed lines", &["line 2: not JSON", "line 4: the key is empty"]);
    let summary: Value = serde_json::from_slice(&done.stdout).expect("is JSON");
    assert_eq!((&summary["loaded"], &summary["failed"]), (&json!(2), &json!(2)));
    assert_eq!(dev.json(&["get", "l5"])["values"], json!(["5"]));

    // Who may speak to the cluster, and to what.
    let stranger = dev.file("stranger");
    let dir = stranger.display().to_string();
    for args in [
        &["cert", "ca", "--cluster", "dev", "--out", &dir][..],
        &["cert", "client", "eve", "--authority", &dir, "--out", &dir],
    ] {
        let mut command = driftless();
        command.args(args);
        assert_eq!(finish(command, b"").code, Some(0));
    }
    let (cert, key) = (format!("{dir}/eve.pem"), format!("{dir}/eve.key"));
    dev.fails(1, &["--cert", &cert, "--key", &key, "get", "k"], &["error:"]);
    dev.fails(1, &["--ca", &format!("{dir}/ca.pem"), "get", "k"], &["not trusted"]);
    dev.fails(1, &["--cert", "/nonexistent.pem", "get", "k"], &["cannot read /nonexistent.pem"]);
    dev.fails(1, &["--endpoint", "127.0.0.1:9", "get", "k"], &["127.0.0.1:9", "hint:"]);
    dev.fails(2, &["--profile", "/nonexistent/dir", "get", "k"], &["not the directory of a dev cluster"]);
    dev.fails(2, &["frobnicate"], &["unrecognized subcommand"]);
    dev.fails(2, &["put", "k", "v", "--format", "raw"], &["`get` only"]);
}

#[test]
fn nodes_that_make_no_sense_do_not_start() {
    let mut dev = Dev::start();
    let nodes = dev.nodes();
    let config = |i: usize| Path::new(&text(&nodes[i], "config")).to_owned();

    // Nothing is the matter with a node that runs, once it has met the others; what the machine lacks is a warning at most.
    let parts = [
        "in use by process",
        "held by the node that runs",
        "3 nodes are up",
        "it says what was agreed on (version 2)",
        "and so is the node here",
    ];
    dev.eventually("doctor finds no problem", || {
        let (code, findings) = doctor(&config(1));
        let is_fine = |part: &str| findings.iter().any(|finding| finding.starts_with("ok") && finding.contains(part));
        code == Some(0) && parts.into_iter().all(is_fine)
    });
    rereads(&dev, &config(1));

    // While the cluster runs: its ports and its data are taken.
    let other_port = ["--listen", "127.0.0.1:0", "--admin", "off"];
    expect_failure(&serve(&config(1), &other_port), 1, "a directory in use", &["in use by process"]);
    let fresh = dev.file("fresh").display().to_string();
    expect_failure(&serve(&config(1), &["--init", "--data-dir", &fresh]), 1, "a port in use", &["cannot listen on"]);
    expect_failure(
        &serve(&config(1), &["--data-dir", "/nonexistent/data"]),
        1,
        "a data directory on a disk that is not mounted",
        &["does not exist", "mounted", "--init"],
    );
    let mut command = driftless();
    command.arg("dev").arg("--dir").arg(dev.cluster());
    expect_failure(&finish(command, b""), 1, "a second dev", &["already running in", ", pid ", "kill "]);
    let mut command = driftless();
    command.args(["dev", "--nodes", "5", "--dir"]).arg(dev.cluster());
    expect_failure(&finish(command, b""), 2, "another number of nodes", &["has --nodes 3, not 5"]);
    dev.ok(&["put", "k", "v"]);
    dev.down();

    expect_failure(
        &serve(&config(1), &["--data-dir", &text(&nodes[0], "data_dir")]),
        1,
        "data of another node",
        &["belongs to node \"n1\""],
    );
    expect_failure(
        &serve(&config(1), &["--name", "n9"]),
        1,
        "another node's certificate",
        &["this node is driftless://dev/node/n9"],
    );
    let nowhere = dev.file("nowhere").display().to_string();
    let nobody = ["--name", "n9", "--init", "--data-dir", &nowhere];
    expect_failure(&serve(&config(1), &nobody), 2, "no member", &["has no member \"n9\"", "n1, n2, n3", "address = "]);
    assert!(!Path::new(&nowhere).exists(), "nothing was made for it");
    expect_failure(
        &serve(&config(1), &["--name", "n1"]),
        1,
        "another node's certificate",
        &["driftless://dev/node/n2"],
    );
    expect_failure(
        &serve(&config(1), &["--set", "limits.request_max=1"]),
        2,
        "a mistyped key",
        &["did you mean \"limits.requests_max\"?"],
    );
    expect_failure(&serve(&config(1), &["--set", "limits.retry_after=50"]), 2, "no unit", &["time with its unit"]);
    expect_failure(
        &serve(Path::new("/nonexistent/node.toml"), &[]),
        2,
        "no file",
        &["cannot read /nonexistent/node.toml"],
    );
    expect_failure(&serve(&config(1), &["--cert", "/nonexistent.pem"]), 1, "no certificate", &["/nonexistent.pem"]);
    let client = dev.cluster().join("client.pem").display().to_string();
    let client_key = dev.cluster().join("client.key").display().to_string();
    expect_failure(
        &serve(&config(1), &["--cert", &client, "--key", &client_key]),
        1,
        "a client's certificate",
        &["driftless://dev/client/dev"],
    );

    let home = config(1).parent().expect("has one").to_owned();
    let key = home.join("node.key");
    set_mode(&key, 0o644);
    expect_failure(&serve(&config(1), &[]), 1, "a key that others can read", &["; run `chmod "]);
    diagnosed(&config(1), &["other users can read", "| run `chmod "]);
    set_mode(&key, 0o600);
    let context_key = dev.cluster().join("context.key");
    let good = std::fs::read_to_string(&context_key).expect("dev has written it");
    std::fs::write(&context_key, "1 abc\n").expect("writes");
    expect_failure(&serve(&config(1), &[]), 2, "a malformed context key", &["line 1 of"]);
    diagnosed(&config(1), &["context key", "line 1 of"]);
    std::fs::write(&context_key, good).expect("writes");

    // A data directory of a later release.
    let identity = Path::new(&text(&nodes[1], "data_dir")).join("identity.json");
    let good = std::fs::read_to_string(&identity).expect("the node has written it");
    let mut newer: Value = serde_json::from_str(&good).expect("is JSON");
    newer["format"] = json!(99);
    std::fs::write(&identity, newer.to_string()).expect("writes");
    expect_failure(&serve(&config(1), &[]), 1, "data of a later release", &["format"]);
    diagnosed(&config(1), &["directory", "has format 99", "start the release"]);
    std::fs::write(&identity, good).expect("writes");
    // What was agreed on is damaged, and everything that has to do with it is told.
    let agreement = identity.with_file_name("ring");
    let records =
        std::fs::read_dir(&agreement).expect("something was agreed on").map(|entry| entry.expect("is there").path());
    let records: Vec<_> = records.map(|path| (std::fs::read(&path).expect("can be read"), path)).collect();
    records.iter().for_each(|(_, path)| std::fs::write(path, "x").expect("writes"));
    expect_failure(&serve(&config(1), &[]), 1, "a damaged agreement", &["ring cannot be used"]);
    diagnosed(&config(1), &["ring", "cannot be used", "restore the file"]);
    records.iter().for_each(|(good, path)| std::fs::write(path, good).expect("writes"));
    // By the file alone, which was edited since.
    let aside = identity.with_file_name("ring-aside");
    std::fs::rename(&agreement, &aside).expect("can be put aside");
    let cluster = dev.cluster().join("cluster.toml");
    let good = std::fs::read_to_string(&cluster).expect("dev has written it");
    diagnosed_as(&config(1), "ok | topology | the data fits what cluster.toml says");
    std::fs::write(&cluster, good.replacen("[[member]]", "[[member]]\nweight = 2", 1)).expect("writes");
    let differs = "has weight 2 and had 1";
    expect_failure(&serve(&config(1), &[]), 1, "an edited cluster file", &["does not fit the data", differs]);
    diagnosed(&config(1), &["topology", differs, "undo that edit"]);
    std::fs::write(&cluster, good).expect("writes");
    std::fs::rename(&aside, &agreement).expect("can be put back");
    a_mistyped_profile_hides_nothing(&config(1));

    mistakes_are_named_at_once(&dev, &config(1));

    let mut command = driftless();
    command.arg("serve").arg("--config").arg(config(1)).args(["--print-config", "--listen", "127.0.0.1:1"]);
    command.env("DRIFTLESS__LOG__LEVEL", "debug");
    let printed = String::from_utf8(finish(command, b"").stdout).expect("is text");
    assert!(
        printed.contains("# flag --listen") && printed.contains("# environment DRIFTLESS__LOG__LEVEL"),
        "{printed}"
    );
    assert!(printed.contains("node.toml: ") && printed.contains("# default: "), "{printed}");

    dev.up();
    assert_eq!(dev.json(&["get", "k"])["values"], json!(["v"]), "nothing has changed");
}

/// A running node takes what it can of its file on SIGHUP, says what it cannot, and goes on if it can use none of it.
fn rereads(dev: &Dev, config: &Path) {
    let good = std::fs::read_to_string(config).expect("dev has written it");
    let log = config.with_file_name("log.txt");
    let (name, pid) = dev.pids().swap_remove(1);
    let said = |parts: &[&str]| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let reread = |text: &str, parts: &[&str]| {
        std::fs::write(config, text).expect("writes");
        signal(pid.expect("runs"), Signal::HUP);
        dev.eventually(&format!("{name} says {parts:?}"), || said(parts));
    };
    let endpoint = &dev.endpoints()[1];
    let value = "x".repeat(2_000);
    reread(&format!("{good}\n[limits]\nvalue_bytes_max = \"1KiB\"\n"), &["found=\"taken\"", "limits.value_bytes_max"]);
    dev.eventually("the limit counts", || dev.run(&["--endpoint", endpoint, "put", "long", &value]).code == Some(3));
    reread(&format!("{good}\n[limits]\nmemory = \"2GiB\"\n"), &["found=\"needs a restart\"", "limits.memory"]);
    dev.eventually("the default counts", || dev.run(&["--endpoint", endpoint, "put", "long", &value]).code == Some(0));
    reread(&format!("{good}\n[log]\nlevel = \"loud=loud\"\n"), &["ERROR", "cannot be used", "log.level"]);
    // By the directives that leave such lines out, what is read next is not announced, and what came of it is told all the same.
    reread(&format!("{good}\n[log]\nlevel = \"error\"\n"), &["found=\"taken\"", "log.level", "to=\"error\""]);
    let announced = || std::fs::read_to_string(&log).expect("is there").matches("SIGHUP: reading").count();
    let before = announced();
    reread(&good, &["found=\"taken\"", "log.level", "from=\"error\""]);
    assert_eq!(announced(), before, "what the directives say counts");
    reread("name = ", &["ERROR", "cannot be used", "not well-formed"]);
    reread(&good, &["found=\"unchanged\"", "configuration"]);

    // By the default nothing is slow that has not taken a second.
    let slow = |part: &str| {
        let text = std::fs::read_to_string(&log).expect("is there");
        let took_ms = |line: &str| line.split(" ms=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        let is_brief = |line: &&str| took_ms(line).is_some_and(|ms| ms < 1_000);
        text.lines().filter(|line| line.contains("slow request")).filter(is_brief).any(|line| line.contains(part))
    };
    let put = |number: u32| dev.run(&["--endpoint", endpoint, "put", &format!("slow-{number}"), "v"]).code == Some(0);
    // Not every key is coordinated by this node.
    let until_slow = |part: &str| dev.eventually(part, || (0..10).all(put) && slow(part));
    reread(&format!("{good}\n[log]\nslow = \"1us\"\n"), &["found=\"taken\"", "key=\"log.slow\"", "to=\"1us\""]);
    until_slow("operation=\"put\"");
    assert!(!slow(" key="), "only tokens are named");
    let named = format!("{good}\n[log]\nslow = \"1us\"\nslow_keys = true\n");
    reread(&named, &["found=\"taken\"", "key=\"log.slow_keys\"", "to=\"true\""]);
    until_slow(" key=\"slow-");

    let top = |field: &str| dev.json(&["top"])[field].clone();
    assert_eq!((top("names"), top("not_watching")), (json!(false), json!([])));
    reread(&format!("{good}\n[top]\nkeys = true\n"), &["found=\"taken\"", "key=\"top.keys\"", "to=\"true\""]);
    dev.eventually("names are shown", || put(0) && top("names") == json!(true));
    reread(&format!("{good}\n[top]\nwatch = false\n"), &["found=\"taken\"", "key=\"top.watch\"", "to=\"false\""]);
    dev.eventually("nothing is counted", || top("not_watching") == json!([name]));
    reread(&good, &["found=\"taken\"", "key=\"top.watch\"", "to=\"true\""]);
    dev.eventually("it is counted again", || top("not_watching") == json!([]));
}

/// Of the machine and the node everything is said all the same.
fn a_mistyped_profile_hides_nothing(config: &Path) {
    let mut command = driftless();
    command.args(["--profile", "mistyped", "doctor", "--config"]).arg(config);
    let done = finish(command, b"");
    let said = String::from_utf8(done.stdout).expect("is text");
    assert_eq!(done.code, Some(1), "{said}");
    for part in ["node.toml: ", "directory: ", "\"mistyped\""] {
        assert!(said.contains(part), "it should say {part:?}: {said}");
    }
}

fn mistakes_are_named_at_once(dev: &Dev, config: &Path) {
    let bad = dev.file("bad.toml");
    std::fs::write(&bad, "name = \"n1\"\nlisen = \"x\"\n[limits]\nretry_after = 50\n[log]\nlevel = \"a=loud\"\n")
        .expect("writes");
    let mut command = driftless();
    command.args(["config", "check"]).arg(config).arg(dev.cluster().join("cluster.toml")).arg(&bad);
    let done = finish(command, b"");
    let said = String::from_utf8(done.stdout).expect("is text");
    assert_eq!(done.code, Some(1), "{said}");
    for part in
        ["a node's file: ok", "a cluster file: ok", "3 mistakes", "\"listen\"", "limits.retry_after", "log.level"]
    {
        assert!(said.contains(part), "it should say {part:?}: {said}");
    }
    diagnosed(&bad, &["node.toml", "\"lisen\"", "did you mean"]);
    let mut command = driftless();
    command.args(["config", "explain", "limits.retry_after", "--config"]).arg(config);
    command.env("DRIFTLESS__LIMITS__RETRY_AFTER", "70ms");
    let said = String::from_utf8(finish(command, b"").stdout).expect("is text");
    assert!(said.contains("70ms, from environment DRIFTLESS__LIMITS__RETRY_AFTER"), "{said}");
    let mut command = driftless();
    command.args(["config", "explain", "retry_afer"]);
    expect_failure(&finish(command, b""), 2, "a mistyped key", &["did you mean limits.retry_after"]);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changes mode");
}
