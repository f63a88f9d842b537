//! Members come, go and take the place of others, as docs/membership.md says, on real processes; and buckets come and go.

mod cluster_support;

use cluster_support::{Dev, Done, driftless, expect_failure, finish, sample_file, text};
use serde_json::Value;

fn add(dev: &Dev, words: &[&str]) -> Done {
    let mut command = driftless();
    command.args(["dev", "add"]).args(words).arg("--dir").arg(dev.cluster());
    finish(command, b"")
}

/// Each is asked itself: what one knows another that is told to change something may not have heard of yet.
fn agreed(dev: &Dev) {
    for (name, _) in dev.pids() {
        dev.eventually("the members agree", || dev.json(&["cluster", "status", "--node", &name])["agreed"] == true);
    }
}

/// Stages, plans, commits and waits.
fn change(dev: &Dev, words: &[&str]) -> Value {
    let staged = dev.ok(&[&["cluster"], words].concat());
    assert!(staged.starts_with("staged on version ") && staged.contains("cluster plan"), "{staged}");
    let plan = dev.json(&["cluster", "plan"]);
    let name = text(&plan, "plan");
    let said = dev.ok(&["cluster", "plan"]);
    assert!(said.trim_end().ends_with(&format!("cluster commit {name}")), "{said}");
    let decided = dev.ok(&["cluster", "commit", &name]);
    assert!(decided.contains(" decided by n"), "{decided}");
    let again = dev.ok(&["cluster", "commit", &name]);
    assert_eq!(again.split(' ').nth(1), decided.split(' ').nth(1), "it is the same change");
    let watched = dev.ok(&["transfers", "--watch", "--timeout", "90s"]);
    assert!(watched.trim_end().ends_with("is settled"), "{watched}");
    plan
}

fn members(dev: &Dev) -> Vec<String> {
    let state = dev.json(&["cluster", "status"]);
    let members = state["members"].as_array().expect("a list");
    members.iter().filter(|member| member["member"] == Value::Bool(true)).map(|member| text(member, "name")).collect()
}

#[test]
fn a_node_joins_and_another_leaves_and_dev_knows() {
    let mut dev = Dev::start();
    dev.ok(&["load", sample_file()]);
    agreed(&dev);

    let added = add(&dev, &[]);
    let said = String::from_utf8_lossy(&added.stdout).into_owned();
    assert_eq!(added.code, Some(0), "{said}\n{}", added.stderr);
    assert!(said.contains("n4 runs") && said.contains("cluster join n4"), "{said}");
    dev.eventually("n4 has called", || dev.json(&["cluster", "status"])["candidates"][0]["name"] == "n4");

    let plan = change(&dev, &["join", "n4"]);
    assert_eq!(plan["slots_moved"], plan["slots_minimum"]);
    assert_eq!(members(&dev), ["n1", "n2", "n3", "n4"]);
    assert!(dev.ok(&["status"]).contains("All 4 nodes are up and connected."));

    // A `dev` that is started again starts it as well.
    dev.down();
    dev.up();
    dev.eventually("all are up", || dev.ok(&["status"]).contains("All 4 nodes are up and connected."));

    change(&dev, &["leave", "n2"]);
    assert_eq!(members(&dev), ["n1", "n3", "n4"]);
    dev.eventually("dev stops who has left", || dev.pids().iter().any(|(name, pid)| name == "n2" && pid.is_none()));
    assert!(dev.said().contains("n2 has left the cluster"), "{}", dev.said());
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["unchanged"], &loaded["failed"]), (&5_287.into(), &0.into()), "nothing is lost");

    dev.down();
    dev.up();
    assert!(dev.pids().iter().all(|(name, _)| name != "n2"), "it is not started again");
    let history = dev.json(&["cluster", "history"]);
    assert_eq!(history["versions"].as_array().map(Vec::len), Some(4), "the file, the founding, and two changes");
}

#[test]
fn a_node_takes_the_place_of_one_that_is_lost() {
    let dev = Dev::start();
    dev.ok(&["load", sample_file()]);
    agreed(&dev);
    assert_eq!(add(&dev, &["n5"]).code, Some(0));
    dev.eventually("n5 has called", || dev.json(&["cluster", "status"])["candidates"][0]["name"] == "n5");
    dev.fails(3, &["cluster", "replace", "n3", "--with", "n5"], &["n3 is up"]);
    dev.kill("n3");
    dev.eventually("n3 is not heard", || {
        let state = dev.json(&["cluster", "status"]);
        state["members"].as_array().expect("a list").iter().any(|member| member["heard"] == Value::Bool(false))
    });
    let said = dev.ok(&["transfers"]);
    assert!(said.contains("as far as is known: version 2 is settled; n3 does not answer"), "{said}");
    change(&dev, &["replace", "n3", "--with", "n5"]);
    assert_eq!(members(&dev), ["n1", "n2", "n5"]);
    dev.eventually("dev knows", || dev.said().contains("n3 has left the cluster, and is not started again"));
    assert!(dev.cluster().join("n3/left").is_file());
}

#[test]
fn what_nobody_has_seen_is_not_committed() {
    let dev = Dev::start();
    agreed(&dev);
    dev.fails(3, &["cluster", "commit", "5f3c9a01"], &["staged"]);
    dev.fails(3, &["cluster", "join", "n9"], &["n9"]);
    for change in [
        &["leave", "n9"][..],
        &["leave", "n9", "--lost"],
        &["set", "n9", "--weight", "2"],
        &["replace", "n9", "--with", "n8"],
    ] {
        dev.fails(3, &[&["cluster"], change].concat(), &["n9 is no member"]);
    }
    dev.fails(2, &["cluster", "set", "n1", "--zone", ""], &["expected 1 to 64 bytes of text"]);
    let zone = add(&dev, &["n4", "--zone", "rack\n1"]);
    expect_failure(&zone, 2, "a zone of two lines", &["expected 1 to 64 bytes of text"]);
    assert!(!dev.cluster().join("n4").exists(), "nothing was made");
    assert_eq!(dev.json(&["cluster", "status"])["staged"]["changes"], serde_json::json!([]), "nothing is staged");
    dev.fails(3, &["cluster", "leave", "n3"], &["n = 3 needs 3 members"]);
    dev.ok(&["cluster", "set", "n1", "--weight", "2"]);
    let plan = text(&dev.json(&["cluster", "plan"]), "plan");
    dev.ok(&["cluster", "set", "n1", "--weight", "3"]);
    dev.fails(3, &["cluster", "commit", &plan], &[&plan, "plan again"]);
    assert!(dev.ok(&["cluster", "clear"]).starts_with("nothing is staged"));
    dev.fails(3, &["cluster", "cancel"], &["cancel"]);
}

#[test]
fn a_bucket_comes_to_be_is_set_and_goes() {
    let dev = Dev::start();
    agreed(&dev);
    assert!(dev.ok(&["bucket", "create", "carts", "--strict"]).contains("bucket carts comes to be"));
    dev.ok(&["put", "-b", "carts", "ann", "apples"]);
    dev.eventually("all have settled", || dev.json(&["transfers"])["settled"] == Value::Bool(true));
    dev.ok(&["bucket", "set", "carts", "-w", "3"]);
    let shown = dev.json(&["bucket", "show", "carts"]);
    assert_eq!((&shown["w"], &shown["sloppy"]), (&3.into(), &false.into()));
    dev.fails(2, &["bucket", "drop", "carts"], &["for ever", "--yes"]);
    dev.eventually("all have settled", || dev.json(&["transfers"])["settled"] == Value::Bool(true));
    dev.ok(&["bucket", "drop", "carts", "--yes"]);
    dev.fails(5, &["bucket", "show", "carts"], &["there is no bucket"]);
    dev.eventually("all have settled", || dev.json(&["transfers"])["settled"] == Value::Bool(true));
    dev.ok(&["bucket", "create", "carts"]);
    dev.fails(5, &["get", "-b", "carts", "ann"], &[]);
}
