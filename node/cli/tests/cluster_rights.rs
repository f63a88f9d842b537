//! Roles, the access file and the audit log on real processes.

mod cluster_support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cluster_support::{Dev, Done, driftless, expect_failure, finish, signal};
use rustix::process::Signal;
use serde_json::Value;

fn path(dev: &Dev, name: &str) -> PathBuf {
    dev.cluster().join(name)
}

fn append(file: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(file).expect("opens");
    file.write_all(text.as_bytes()).expect("is written");
}

/// A command with a certificate of its own.
fn run_as(dev: &Dev, name: &str, args: &[&str]) -> Done {
    let mut command = driftless();
    command.arg("--profile").arg(dev.cluster());
    command
        .arg("--cert")
        .arg(path(dev, &format!("{name}.pem")))
        .arg("--client-key")
        .arg(path(dev, &format!("{name}.key")));
    command.args(args);
    finish(command, b"")
}

fn issue(dev: &Dev, name: &str, more: &[&str]) {
    let mut command = driftless();
    command.args(["cert", "client", name, "--authority"]).arg(dev.cluster()).arg("--out").arg(dev.cluster()).args(more);
    let done = finish(command, b"");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn says(file: &Path, event: &str, who: &str) -> bool {
    lines(file).iter().any(|line| line["event"] == event && line["who"].as_str().is_some_and(|said| said.contains(who)))
}

#[test]
fn roles_are_kept_and_what_is_done_is_written_to_a_file_that_can_be_rotated() {
    let mut dev = Dev::start();
    dev.down();
    for node in ["n1", "n2", "n3"] {
        append(
            &path(&dev, &format!("{node}/node.toml")),
            "\n[access]\nfile = \"../access.toml\"\n\n[audit]\nfile = \"audit.jsonl\"\n",
        );
    }
    let access = path(&dev, "access.toml");
    append(&access, "# nobody\n");
    dev.up();
    let audit = path(&dev, "n1/audit.jsonl");
    assert_eq!(fs::metadata(&audit).expect("is there").permissions().mode() & 0o777, 0o600);

    issue(&dev, "web", &["--role", "reader"]);
    issue(&dev, "app", &[]);
    let mut show = driftless();
    show.args(["cert", "show", "--format", "json"]).arg(path(&dev, "web.pem"));
    let shown: Value = serde_json::from_slice(&finish(show, b"").stdout).expect("is JSON");
    assert_eq!(shown["name"], "driftless://dev/client/web/reader");
    let refused = run_as(&dev, "web", &["put", "k", "v"]);
    expect_failure(
        &refused,
        3,
        "a put of a reader",
        &["client/web/reader has the role reader", "takes the role writer"],
    );
    assert_eq!(run_as(&dev, "app", &["put", "k", "v"]).code, Some(0));
    assert_eq!(run_as(&dev, "web", &["get", "k"]).code, Some(0));
    expect_failure(&run_as(&dev, "app", &["aae", "pause"]), 3, "an order of a writer", &["takes the role operator"]);
    expect_failure(&run_as(&dev, "app", &["top"]), 3, "hot keys for a writer", &["takes the role operator"]);
    dev.eventually("an operator sees them", || dev.json(&["top"])["keys"][0]["bucket"] == "default");
    dev.ok(&["aae", "pause"]);
    dev.ok(&["aae", "resume"]);
    dev.eventually("it is written down", || says(&audit, "ordered", "client/dev/operator"));

    // The file is moved away, and the node is told: it goes on in a new one, with what the access file says by now.
    fs::write(&access, "[deny]\nclients = [\"web\"]\n").expect("is written");
    let moved = path(&dev, "n1/audit.1.jsonl");
    fs::rename(&audit, &moved).expect("is ours");
    for (_, pid) in dev.pids() {
        signal(pid.expect("runs"), Signal::HUP);
    }
    dev.eventually("a new file is begun", || lines(&audit).iter().any(|line| line["event"] == "read again"));
    dev.eventually("who is denied is refused", || run_as(&dev, "web", &["get", "k"]).code == Some(1));
    assert!(dev.pids().iter().all(|(_, pid)| pid.is_some_and(cluster_support::is_alive)), "SIGHUP ends nothing");
    assert!(says(&moved, "connected", "client/app") && !says(&audit, "connected", "client/app"));

    // A right in a bucket that there is not allows nothing, and counts as soon as there is one.
    let grant = "[[client]]\nname = \"app\"\nrole = \"writer\"\nbuckets = [\"carts\"]\n";
    fs::write(&access, grant).expect("is written");
    for (_, pid) in dev.pids() {
        signal(pid.expect("runs"), Signal::HUP);
    }
    dev.eventually("the file counts", || run_as(&dev, "app", &["put", "k", "v"]).code == Some(3));
    expect_failure(
        &run_as(&dev, "app", &["put", "-b", "carts", "k", "v"]),
        3,
        "before",
        &["there is no bucket \"carts\""],
    );
    dev.eventually("the bucket comes to be", || dev.run(&["bucket", "create", "carts"]).code == Some(0));
    dev.eventually("the right counts", || run_as(&dev, "app", &["put", "-b", "carts", "k", "v"]).code == Some(0));
    expect_failure(&run_as(&dev, "app", &["put", "k", "v"]), 3, "in the other", &["default"]);

    // What is wrong in the access file keeps a node from starting.
    dev.down();
    fs::write(&access, "[[client]]\nname = \"web\"\nrole = \"writer\"\nbuckets = [\"my cart\"]\n").expect("is written");
    let mut command = driftless();
    command.arg("serve").arg("--config").arg(path(&dev, "n1/node.toml"));
    expect_failure(&finish(command, b""), 2, "a bad access file", &["line 4 of", "\"my cart\" is not a bucket name"]);
}

/// How a command ends at each node, with the certificate of the client `web`.
fn as_web(dev: &Dev, args: &[&str]) -> Vec<Option<i32>> {
    let endpoints = dev.endpoints();
    let run = |endpoint: &String| run_as(dev, "web", &[&["--endpoint", endpoint.as_str()], args].concat()).code;
    endpoints.iter().map(run).collect()
}

/// Has it decided, once no version is unfinished.
fn agree(dev: &Dev, args: &[&str]) {
    let args = [&["access"], args].concat();
    dev.eventually(&format!("{args:?}"), || dev.run(&args).code == Some(0));
}

#[test]
fn what_the_cluster_agrees_on_is_said_once_and_holds_on_all_nodes_after_a_start_too() {
    let mut dev = Dev::start();
    dev.down();
    for node in ["n1", "n2", "n3"] {
        append(&path(&dev, &format!("{node}/node.toml")), "\n[audit]\nfile = \"audit.jsonl\"\n");
    }
    dev.up();
    assert!(dev.ok(&["access", "show"]).contains("nothing is agreed on"));
    issue(&dev, "web", &["--role", "operator"]);
    assert_eq!(as_web(&dev, &["put", "k", "v"]), [Some(0); 3]);
    let grant = ["access", "grant", "web", "writer", "--bucket", "carts"];
    dev.eventually("it is agreed on", || {
        let done = dev.run(&grant);
        let is_told = done.stderr.contains("the cluster has no bucket carts: there nothing is allowed until it has");
        assert!(done.code != Some(0) || is_told, "{}", done.stderr);
        done.code == Some(0)
    });
    dev.eventually("it counts everywhere", || as_web(&dev, &["put", "k", "v"]) == [Some(3); 3]);
    dev.eventually("the bucket comes to be", || dev.run(&["bucket", "create", "carts"]).code == Some(0));
    dev.eventually("and there it may write", || as_web(&dev, &["put", "-b", "carts", "k", "v"]) == [Some(0); 3]);
    agree(&dev, &["deny", "client", "web"]);
    dev.eventually("it is let in nowhere", || as_web(&dev, &["get", "-b", "carts", "k"]) == [Some(1); 3]);
    let shown = dev.json(&["access", "show"]);
    assert_eq!(shown["denied"]["clients"], serde_json::json!(["web"]));
    assert_eq!(shown["grants"], serde_json::json!([{ "client": "web", "role": "writer", "buckets": ["carts"] }]));

    dev.down();
    dev.up();
    assert_eq!(as_web(&dev, &["get", "-b", "carts", "k"]), [Some(1); 3]);
    agree(&dev, &["allow", "client", "web"]);
    agree(&dev, &["revoke", "web"]);
    dev.eventually("its certificate counts again", || as_web(&dev, &["put", "k", "v"]) == [Some(0); 3]);
    let history = dev.ok(&["cluster", "history"]);
    for what in [
        "client web is writer in carts",
        "client web is denied,",
        "client web is denied no more",
        "the grant of client web is taken back",
    ] {
        assert!(history.contains(what), "{what}: {history}");
    }
    let ordered = ["n1", "n2", "n3"].iter().flat_map(|node| lines(&path(&dev, &format!("{node}/audit.jsonl"))));
    let changes: Vec<Value> =
        ordered.filter(|line| line["event"] == "ordered").map(|line| line["change"].clone()).collect();
    assert!(changes.iter().any(|change| change == "client web is denied"), "{changes:?}");

    // Nobody locks the own certificate out by mistake; it is of the client `dev`.
    let own = ["nothing is done", "--yes"];
    dev.fails(2, &["access", "deny", "client", "dev"], &own);
    dev.fails(2, &["access", "grant", "dev", "reader"], &own);
    dev.fails(3, &["access", "deny", "node", "n2"], &["n2 is a member"]);
    dev.eventually("what changes nothing is refused", || {
        let done = dev.run(&["access", "revoke", "nobody"]);
        done.code == Some(3) && done.stderr.contains("client nobody has no grant")
    });
    dev.eventually("with --yes it is done", || dev.run(&["access", "deny", "client", "dev", "--yes"]).code == Some(0));
    dev.eventually("and the way in is a node's certificate", || {
        let mut command = driftless();
        let file = |name: &str| path(&dev, "n1").join(name);
        command.arg("--profile").arg(dev.cluster()).arg("--cert").arg(file("node.pem"));
        command.arg("--client-key").arg(file("node.key")).args(["access", "allow", "client", "dev"]);
        finish(command, b"").code == Some(0)
    });
    dev.eventually("it is let in again", || dev.run(&["get", "k"]).code == Some(0));
}
