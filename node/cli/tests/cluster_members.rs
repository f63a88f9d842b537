//! Members come, go and take the place of others, as docs/membership.md says, on real processes; and buckets come and go.

mod cluster_support;

use cluster_support::{Dev, Done, driftless, expect_failure, finish, sample, sample_file, text};
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

/// It did not: `cluster.toml has no member "n4"; its members are n1, n2, n3, n4`. Killed after it had handed over everything and
/// before the others had heard so, it was waited for, and could not be started.
#[test]
fn who_was_a_member_by_the_file_and_has_left_starts_again() {
    let dev = Dev::of(4, |_| ());
    agreed(&dev);
    let n4 = dev.nodes().into_iter().find(|node| node["name"] == "n4").expect("is a node");
    change(&dev, &["leave", "n4"]);
    dev.eventually("dev stops who has left", || dev.pids().iter().all(|(name, pid)| name != "n4" || pid.is_none()));
    let log = std::fs::File::create(dev.file("n4.txt")).expect("can be written");
    let mut by_hand = driftless();
    by_hand.args(["serve", "--config", &text(&n4, "config")]).stdin(std::process::Stdio::null());
    by_hand.stdout(log.try_clone().expect("can be shared")).stderr(log);
    let mut again = by_hand.spawn().expect("the binary runs");
    let said = || std::fs::read_to_string(dev.file("n4.txt")).unwrap_or_default();
    dev.eventually("n4 has started or has given up", || said().contains("ready: ") || said().contains("error: "));
    again.kill().and_then(|()| again.wait()).expect("it runs");
    assert!(said().contains("ready: "), "{}", said());
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

/// n3 comes after all, with whatever is on its disk: nothing.
#[test]
fn a_cluster_is_founded_without_one_that_never_comes() {
    let mut dev = Dev::start();
    let data: Vec<String> = dev.nodes().iter().map(|node| text(node, "data_dir")).collect();
    dev.down();
    data.iter().for_each(|data| std::fs::remove_dir_all(data).expect("can be removed"));
    let init = |name: &str| {
        let mut command = driftless();
        command.args(["serve", "--config", &dev.text_of(name, "config"), "--init"]);
        Started(dev.spawned(name, command))
    };
    let _others = ["n1", "n2"].map(init);
    let state = || dev.run(&["cluster", "status", "--format", "json"]);
    let heard = || {
        let state: Value = serde_json::from_slice(&state().stdout).unwrap_or_default();
        let members = state["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|member| member["heard"] == Value::Bool(true)).count()
    };
    dev.eventually("n1 and n2 hear each other", || heard() == 2);
    let said = dev.ok(&["cluster", "status"]);
    assert!(
        said.contains("or if it never comes, `driftless") && said.contains("cluster found --without n3`"),
        "{said}"
    );
    dev.ok(&["load", sample_file()]);
    dev.fails(3, &["cluster", "set", "n1", "--weight", "2"], &["not agreed on yet", "`cluster found --without n3`"]);
    dev.fails(2, &["cluster", "found"], &["--without"]);
    let without = ["cluster", "found", "--without", "n3"];
    dev.eventually("a node has listened for long enough", || dev.run(&without).code == Some(0));
    dev.fails(3, &["cluster", "found", "--node", "n1", "--without", "n2,n3"], &["n2 is there: do not name it"]);
    let told = dev.ok(&without);
    assert!(told.starts_with("version 2, founded by n1, n2 without n3: nobody would be n3"), "{told}");
    assert!(told.trim_end().ends_with("cluster found --without n3 --yes"), "{told}");
    assert_eq!(dev.json(&without)["done"], false);
    dev.eventually("it is founded", || {
        let done = dev.run(&[&without[..], &["--yes"]].concat());
        done.code == Some(0)
            && String::from_utf8_lossy(&done.stdout)
                .starts_with("version 2 decided by n1, n2: founded by its file, without n3")
    });
    dev.eventually("all know", || {
        ["n1", "n2"].iter().all(|node| dev.json(&["cluster", "status", "--node", node])["version"] == 2)
    });
    assert_eq!(dev.json(&["cluster", "status"])["members"][2]["phase"], "lost");
    dev.fails(3, &without, &["the members are agreed on, at version 2"]);

    let _n3 = init("n3");
    dev.eventually("n3 is filled and named", || {
        let state: Value = serde_json::from_slice(&state().stdout).unwrap_or_default();
        state["version"] == 3 && state["members"][2]["phase"] == "ready"
    });
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["unchanged"], &loaded["failed"]), (&5_287.into(), &0.into()));
}

/// A process that ends with the test.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two of three are gone, and with them the majority that decides. With w = 3 the third holds all that was acknowledged.
#[test]
fn most_voters_are_lost_and_the_one_that_is_left_goes_on() {
    let dev = Dev::start();
    agreed(&dev);
    dev.ok(&["bucket", "set", "default", "-w", "3"]);
    dev.eventually("all have settled", || dev.json(&["transfers"])["settled"] == Value::Bool(true));
    dev.ok(&["load", sample_file()]);
    ["n4", "n5"].iter().for_each(|name| assert_eq!(add(&dev, &[name]).code, Some(0)));
    ["n2", "n3"].iter().for_each(|name| dev.kill(name));
    let heard = |name: &str| {
        let state = dev.json(&["cluster", "status", "--node", "n1"]);
        let lists = ["members", "candidates"].map(|list| state[list].as_array().expect("a list").clone());
        lists.concat().iter().any(|one| one["name"] == name && one["heard"] != Value::Bool(false))
    };
    dev.eventually("n1 hears who is there", || ["n2", "n3", "n4", "n5"].map(heard) == [false, false, true, true]);

    dev.ok(&["cluster", "replace", "n2", "--with", "n4"]);
    let plan = text(&dev.json(&["cluster", "plan"]), "plan");
    dev.fails(3, &["cluster", "commit", &plan], &["no majority of voters: n2, n3 do not answer"]);

    dev.fails(2, &["cluster", "recover"], &["--lost"]);
    let lost = ["cluster", "recover", "--node", "n1", "--lost", "n2,n3"];
    dev.eventually("n1 has listened for long enough", || dev.run(&lost).code == Some(0));
    dev.fails(3, &["cluster", "recover", "--node", "n1", "--lost", "n2"], &["n3 is neither heard nor declared lost"]);
    let told = dev.ok(&lost);
    assert!(told.starts_with("version 3 -> 1000, by force: n2, n3 would be declared lost"), "{told}");
    assert!(told.contains("acknowledged") && told.trim_end().ends_with("--lost n2,n3 --node n1 --force"), "{told}");
    assert_eq!(dev.json(&lost)["done"], false);
    assert_eq!(dev.json(&["cluster", "status", "--node", "n1"])["version"], 3, "it was only asked");
    let forced = dev.ok(&[&lost[..], &["--force"]].concat());
    assert!(forced.starts_with("version 1000 decided by n1: n2, n3 are lost: forced on version 3"), "{forced}");
    let history = dev.json(&["cluster", "history"]);
    assert_eq!(history["versions"][3]["forced_on"], 3);
    let state = dev.json(&["cluster", "status", "--node", "n1"]);
    assert_eq!((&state["members"][1]["phase"], &state["voters"]), (&"lost".into(), &serde_json::json!(["n1"])));

    // The disk of n2 was readable after all: it is too late.
    let mut back = dev.serve("n2");
    let said = || std::fs::read_to_string(dev.file("n2.txt")).unwrap_or_default();
    dev.eventually("n2 is told that it is lost", || said().contains("its store was declared lost in version 1000"));
    back.kill().and_then(|()| back.wait()).expect("it runs");

    dev.ok(&["cluster", "replace", "n2", "--with", "n4"]);
    let plan = text(&dev.json(&["cluster", "plan"]), "plan");
    assert!(dev.ok(&["cluster", "commit", &plan]).starts_with("version 1001 decided by n1"));
    change(&dev, &["replace", "n3", "--with", "n5"]);
    assert_eq!(members(&dev), ["n1", "n4", "n5"]);
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["unchanged"], &loaded["failed"]), (&5_287.into(), &0.into()), "nothing is lost that n1 held");
}

/// What a node says of the ring that it goes by: its version, how many partitions it has, and who holds how many.
fn partitions(dev: &Dev) -> (Value, Value, Vec<Value>) {
    let ring = dev.json(&["ring"]);
    let members = ring["members"].as_array().expect("a list");
    (ring["version"].clone(), ring["partitions"].clone(), members.iter().map(|one| one["partitions"].clone()).collect())
}

/// All keys of the bucket, as often as a scan of everything names them.
fn scanned(dev: &Dev) -> Vec<String> {
    let mut keys: Vec<String> = dev.ok(&["scan", "--wait", "60s"]).lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

#[test]
fn partitions_are_doubled_and_everything_is_there_by_the_same_keys_and_contexts_and_members_change_afterwards() {
    // More than replicas: partitions have owners to move between.
    let dev = Dev::of(4, |_| ());
    dev.ok(&["load", sample_file()]);
    dev.ok(&["put", "divided", "apples"]);
    dev.ok(&["put", "divided", "pears"]);
    let context = text(&dev.json(&["get", "divided"]), "context");
    let mut keys: Vec<String> = sample().into_iter().map(|(key, _)| key).collect();
    keys.push("divided".to_owned());
    keys.sort();
    assert_eq!(scanned(&dev), keys);
    agreed(&dev);
    let (version, before, owned) = partitions(&dev);

    let plan = change(&dev, &["double"]);
    assert_eq!(plan["slots_moved"], 0, "{plan}");
    let twice = |count: &Value| Value::from(2 * count.as_u64().expect("a number"));
    let doubled = partitions(&dev);
    assert_eq!(doubled.0, version.as_u64().expect("a number") + 1);
    assert_eq!(doubled.1, twice(&before));
    assert_eq!(doubled.2, owned.iter().map(twice).collect::<Vec<_>>(), "of the same owners");
    assert_eq!(scanned(&dev), keys);
    for endpoint in dev.endpoints() {
        let read = dev.json(&["--endpoint", &endpoint, "get", "divided"]);
        assert_eq!(read["values"], serde_json::json!(["apples", "pears"]), "through {endpoint}");
    }
    dev.ok(&["put", "divided", "plums", "--context", &context]);
    assert_eq!(dev.json(&["get", "divided"])["values"], serde_json::json!(["plums"]), "what was read before is meant");
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["unchanged"], &loaded["failed"]), (&5_287.into(), &0.into()), "nothing is lost");

    // What a node has on its disk is numbered anew as well.
    dev.kill("n2");
    let mut n2 = dev.serve("n2");
    let alone = dev.text_of("n2", "listen");
    dev.eventually("n2 serves", || dev.run(&["--endpoint", &alone, "get", "divided"]).code == Some(0));
    dev.eventually("all are up", || dev.ok(&["status"]).contains("All 4 nodes are up and connected."));
    assert_eq!(dev.json(&["cluster", "status", "--node", "n2"])["version"], doubled.0);
    assert_eq!(dev.json(&["--endpoint", &alone, "get", "divided"])["values"], serde_json::json!(["plums"]));
    assert_eq!(scanned(&dev), keys);

    agreed(&dev);
    let plan = change(&dev, &["set", "n1", "--weight", "2"]);
    assert_ne!(plan["slots_moved"], 0, "{plan}");
    let weighted = partitions(&dev);
    assert_eq!(weighted.1, doubled.1);
    assert_ne!(weighted.2, doubled.2);
    assert_eq!(scanned(&dev), keys);
    let loaded = dev.json(&["load", sample_file()]);
    assert_eq!((&loaded["unchanged"], &loaded["failed"]), (&5_287.into(), &0.into()), "nothing is lost");
    n2.kill().and_then(|()| n2.wait()).expect("it runs");
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
