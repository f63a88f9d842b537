//! Whose a data directory is, who may open it, and what damage to it is noticed.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use driftless_proto::{BucketDefinition, BucketId, BucketName, Conflict, Durability, Quorum};
use driftless_ring::{Member, Partitions, Ring, RingSpec};
use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn identity(cluster: &str, node: &str) -> Identity {
    Identity {
        cluster: cluster.into(),
        node: node.into(),
        created: "2026-11-20T06:00:00Z".into(),
        created_s: 1_000,
        nonce: 7,
    }
}

/// A process that another test is just starting holds a copy of each open file, and with it a lock that was given up, until it has
/// become its program: one that stays is somebody's.
#[allow(clippy::disallowed_methods, reason = "other processes are waited for")]
fn open_as(path: &Path, identity: &Identity) -> Result<DataDirectory, OpenError> {
    let mut opened = DataDirectory::open(path, identity);
    for _ in 0..50 {
        if !matches!(opened, Err(OpenError::InUse { .. })) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        opened = DataDirectory::open(path, identity);
    }
    opened
}

fn open(path: &Path) -> Result<DataDirectory, OpenError> {
    open_as(path, &identity("shop", "ada"))
}

fn everything(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(path).expect("listed").map(|entry| entry.expect("listed").path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect()
}

#[test]
fn what_was_agreed_on_is_kept_under_its_names_and_a_file_that_goes_is_gone() {
    let folder = folder();
    let path = folder.path().join("data");
    assert!(!DataDirectory::may_have_agreement(&path));
    let directory = open(&path).expect("made");
    assert!(!directory.has_agreement().expect("listed"));
    directory.write_agreement("ballot", Some(b"1")).expect("written");
    assert!(!directory.has_agreement().expect("listed"), "no version was decided");
    directory.write_agreement("2.record", Some(b"two")).expect("written");
    directory.write_agreement("ballot", Some(b"22")).expect("replaced");
    drop(directory);
    let directory = open(&path).expect("opened again");
    assert!(directory.has_agreement().expect("listed") && DataDirectory::may_have_agreement(&path));
    let files = [("2.record", &b"two"[..]), ("ballot", b"22")];
    assert_eq!(directory.agreement().expect("read"), files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
    directory.write_agreement("ballot", None).expect("removed");
    directory.write_agreement("ballot", None).expect("is not there");
    assert_eq!(directory.agreement().expect("read").len(), 1, "also what was kept aside of it");
}

#[test]
fn a_directory_keeps_its_store_id_and_another_has_another_also_one_of_an_early_release() {
    let folder = folder();
    let path = folder.path().join("data");
    let first = open(&path).expect("made").store_id();
    assert_eq!(open(&path).expect("opened").store_id(), first);
    let other = open(&folder.path().join("other")).expect("made").store_id();
    assert!(first != other && first.0 != 0 && other.0 != 0);
    // An early release has written none.
    let file = path.join(IDENTITY);
    let text = fs::read_to_string(&file).expect("read");
    let mut early: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    early.as_object_mut().expect("an object").remove("store").expect("was there");
    fs::write(&file, early.to_string()).expect("written");
    let drawn = open(&path).expect("opened").store_id();
    assert!(drawn != first && drawn.0 != 0);
    assert_eq!(open(&path).expect("opened").store_id(), drawn, "written down");
}

#[test]
fn a_data_directory_that_others_may_read_is_made_private_with_all_that_is_in_it() {
    let folder = folder();
    let path = folder.path().join("data");
    drop(open(&path).expect("made"));
    let outside = folder.path().join("outside");
    fs::write(&outside, "not ours").expect("written");
    fs::create_dir_all(path.join("store/keyspaces")).expect("made");
    for file in ["store/0.jnl", "store/keyspaces/1"] {
        fs::write(path.join(file), "a value").expect("written");
    }
    std::os::unix::fs::symlink(&outside, path.join("store/link")).expect("linked");
    let all =
        ["", "store", "store/0.jnl", "store/keyspaces", "store/keyspaces/1", IDENTITY].map(|name| path.join(name));
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    for path in all.iter().chain([&outside]) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    }
    let _open = open(&path).expect("is ours");
    for path in &all {
        assert_eq!(mode(path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(mode(&outside), 0o644, "a link leads out of the directory");
}

/// A start is counted before anything else is done, so a full disk must not keep it from being counted. Each start is made
/// without a single free block.
#[test]
fn a_start_is_counted_on_a_full_disk() {
    let folder = folder();
    let small = crate::testkit::SmallDisk::mount(&folder.path().join("disk"), 1 << 20);
    let Some(disk) = small else { return };
    let path = disk.path().join("data");
    let first = open(&path).expect("made").incarnation();
    disk.fill(0);
    for start in 1..=30 {
        let directory = open(&path).expect("opens on a full disk");
        assert_eq!(directory.incarnation().starts, first.starts + start);
    }
    let read: IdentityFile = read_json(&path.join(IDENTITY)).expect("readable").expect("there");
    assert_eq!(read.life(), first.starts + 30, "it is in the file");
}

#[test]
fn a_directory_is_made_for_its_owner_alone_and_opened_again() {
    let folder = folder();
    let path = folder.path().join("deep/data");
    let first = open(&path).expect("made");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(RESET_KEY)), 0o600);
    assert_eq!(first.incarnation(), Incarnation { starts: 1_001, nonce: 7 });
    let key = *first.reset_key();
    assert_ne!(key, [0; RESET_KEY_BYTES]);
    drop(first);
    let again = Identity { nonce: 8, created: "later".into(), created_s: 2_000, ..identity("shop", "ada") };
    let second = open_as(&path, &again).expect("opened again");
    assert_eq!(second.incarnation(), Incarnation { starts: 1_002, nonce: 8 });
    assert_eq!(*second.reset_key(), key, "peers know us by it");
    assert_eq!(second.created(), "2026-11-20T06:00:00Z");
}

#[test]
fn a_directory_made_after_its_predecessor_was_lost_is_newer_not_an_old_copy() {
    let folder = folder();
    let path = folder.path().join("data");
    let lives = (0..5).map(|_| open(&path).expect("opened").incarnation());
    let last = lives.max().expect("there were five");
    fs::remove_dir_all(&path).expect("lost");
    let later = Identity { created_s: 1_060, ..identity("shop", "ada") };
    let replaced = open_as(&path, &later).expect("made anew");
    assert!(replaced.incarnation() > last);
}

#[test]
fn a_directory_made_while_the_clock_was_behind_is_counted_on_from_what_a_peer_knows() {
    let folder = folder();
    let path = folder.path().join("data");
    let ahead = Identity { created_s: 90_000, ..identity("shop", "ada") };
    let old = open_as(&path, &ahead).expect("made a day ahead").incarnation();
    fs::remove_dir_all(&path).expect("lost");
    let directory = open(&path).expect("made anew");
    assert_eq!(directory.incarnation().starts, 1_001);
    directory.admitted_by("cyd").expect("written");
    assert_eq!(directory.life_above("bob", old.starts).expect("written"), Some(90_002));
    assert_eq!(
        directory.life_above("bob", old.starts).expect("written"),
        Some(90_002),
        "the other shard is told as well"
    );
    assert_eq!(directory.incarnation().starts, 90_002);
    directory.admitted_by("bob").expect("written");
    assert_eq!(directory.life_above("bob", 90_005).expect("looked up"), None, "it has met this very directory");
    drop(directory);
    // And so it stays, also for a copy that is started later.
    let again = open(&path).expect("opened");
    assert_eq!(again.incarnation().starts, 90_003);
    assert_eq!(again.life_above("cyd", 90_005).expect("looked up"), None);
    assert_eq!(again.life_above("dan", u64::MAX).expect("looked up"), None, "there is no later life");
}

#[test]
fn a_directory_of_an_early_release_is_taken_for_admitted_by_all() {
    let folder = folder();
    drop(open(folder.path()).expect("made"));
    let early =
        r#"{ "format": 2, "cluster": "shop", "node": "ada", "created": "then", "created_s": 1000, "starts": 3 }"#;
    fs::write(folder.path().join(IDENTITY), early).expect("written");
    let directory = open(folder.path()).expect("opened");
    assert_eq!(directory.incarnation().starts, 1_004);
    assert_eq!(directory.life_above("bob", 2_000).expect("looked up"), None);
}

#[test]
fn a_node_that_did_not_stop_in_order_is_told_from_one_that_did_and_from_one_that_never_served() {
    let folder = folder();
    let path = folder.path();
    // The directory is made; a start that comes to nothing; the first that serves, and is killed.
    assert!(!open(path).expect("made").is_after_crash());
    let served = open(path).expect("opened");
    assert!(!served.is_after_crash());
    served.note_running(true).expect("written");
    drop(served);
    // Starts that come to nothing do not hide it.
    for _ in 0..2 {
        assert!(open(path).expect("opened").is_after_crash());
    }
    let served = open(path).expect("opened");
    served.note_running(true).expect("written");
    served.note_running(false).expect("written");
    drop(served);
    let again = open(path).expect("opened");
    assert!(!again.is_after_crash());
    let text = fs::read_to_string(path.join(IDENTITY)).expect("is there");
    assert!(!text.contains("running"), "an earlier release finds what it knows: {text}");
}

#[test]
fn a_directory_in_use_is_refused_and_its_user_named() {
    let folder = folder();
    let held = open(folder.path()).expect("made");
    let before = everything(folder.path());
    let refused = open(folder.path()).expect_err("in use");
    assert!(matches!(refused, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())));
    assert_eq!(everything(folder.path()), before);
    drop(held);
    open(folder.path()).expect("free again");
}

#[test]
fn what_does_not_belong_to_this_node_is_refused_and_left_as_it_is() {
    type Check = fn(&OpenError) -> bool;
    let newer = br#"{ "format": 3, "something": "else" }"#;
    let cases: [(&str, &[u8], Check); 4] = [
        (IDENTITY, newer, |e| matches!(e, OpenError::OtherFormat { found: 3, .. })),
        (IDENTITY, b"{ \"format\": 2, \"clus", |e| matches!(e, OpenError::Damaged { .. })),
        (IDENTITY, b"", |e| matches!(e, OpenError::Damaged { .. })),
        (LOCK, b"", |_| false),
    ];
    for (file, bytes, check) in cases {
        let folder = folder();
        drop(open(folder.path()).expect("made"));
        fs::write(folder.path().join(file), bytes).expect("written");
        let before = everything(folder.path());
        match open(folder.path()) {
            Ok(_) => assert_eq!(file, LOCK, "what is written in the lock does not matter"),
            Err(error) => {
                assert!(check(&error), "{error}");
                let kept = |files: BTreeMap<PathBuf, Vec<u8>>| -> Vec<_> {
                    files.into_iter().filter(|(path, _)| !path.ends_with(LOCK)).collect()
                };
                assert_eq!(kept(everything(folder.path())), kept(before), "{error}");
            }
        }
    }
    let folder = folder();
    drop(open(folder.path()).expect("made"));
    let before = everything(folder.path());
    let other = open_as(folder.path(), &identity("shop", "bob")).expect_err("another node's");
    assert!(matches!(&other, OpenError::OtherNode { found, .. } if found == "ada"), "{other}");
    let other = open_as(folder.path(), &identity("mall", "ada")).expect_err("another cluster's");
    assert!(matches!(&other, OpenError::OtherCluster { found, .. } if found == "shop"), "{other}");
    assert_eq!(everything(folder.path()), before);
}

#[test]
fn a_directory_of_something_else_or_without_its_identity_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("thesis.txt"), "years of work").expect("written");
    let refused = open(folder.path()).expect_err("not ours");
    assert!(matches!(&refused, OpenError::NotOurs { found, .. } if found == "thesis.txt"), "{refused}");
    assert_eq!(everything(folder.path()).len(), 1, "nothing was added");
    fs::remove_file(folder.path().join("thesis.txt")).expect("removed");

    fs::create_dir(folder.path().join(STORE)).expect("created");
    assert!(matches!(open(folder.path()), Err(OpenError::Damaged { .. })), "data, and nobody's");
    fs::remove_dir(folder.path().join(STORE)).expect("removed");

    fs::create_dir(folder.path().join("lost+found")).expect("created");
    fs::write(folder.path().join("identity.json.new"), "{ \"for").expect("written");
    drop(open(folder.path()).expect("what an interrupted first start leaves is no obstacle"));
}

/// Members ada, bob, cyd, and the built-in bucket with these changes.
fn topology(ring: impl FnOnce(&mut RingSpec), buckets: impl FnOnce(&mut Vec<BucketDefinition>)) -> Topology {
    let member = |name: &str| Member::new(name, format!("{name}:7400"));
    let mut definitions = vec![BucketDefinition::built_in(3), bucket(1, "carts", 3)];
    buckets(&mut definitions);
    let mut spec = RingSpec {
        partitions: Partitions::new(16).expect("a power of two"),
        hash_seed: 1,
        members: ["ada", "bob", "cyd"].map(member).to_vec(),
        classes: definitions.iter().map(|bucket| bucket.quorum.n()).collect::<BTreeSet<u8>>(),
    };
    ring(&mut spec);
    Topology::new("shop", Ring::first(spec).expect("a ring"), definitions).expect("a topology")
}

fn bucket(id: u32, name: &str, n: u8) -> BucketDefinition {
    BucketDefinition {
        id: BucketId(id),
        name: BucketName::new(name).expect("a name"),
        quorum: Quorum::majority(n).expect("a quorum"),
        ..BucketDefinition::built_in(3)
    }
}

#[test]
fn a_topology_may_change_where_the_data_does_not_depend_on_it() {
    let folder = folder();
    let directory = open(folder.path()).expect("made");
    directory.check_topology(&topology(|_| {}, |_| {})).expect("the first");
    let before = fs::read(folder.path().join(TOPOLOGY)).expect("kept");
    directory.check_topology(&topology(|_| {}, |_| {})).expect("the same");
    let tuned = |buckets: &mut Vec<BucketDefinition>| {
        buckets[1].quorum = Quorum::new(3, 1, 3).expect("a quorum");
        buckets[1].durability = Durability::Buffered;
        buckets[1].sloppy = false;
        buckets[1].read_all = 100;
    };
    let moved = |spec: &mut RingSpec| spec.members[1].address = "elsewhere:1".into();
    directory.check_topology(&topology(moved, tuned)).expect("may change");
    assert_eq!(fs::read(folder.path().join(TOPOLOGY)).expect("kept"), before);

    let more = |buckets: &mut Vec<BucketDefinition>| buckets.push(bucket(2, "logs", 2));
    directory.check_topology(&topology(|_| {}, more)).expect("a new bucket");
    drop(directory);
    let directory = open(folder.path()).expect("opened again");
    directory.check_topology(&topology(|_| {}, more)).expect("it is remembered");
    let error = directory.check_topology(&topology(|_| {}, |_| {})).expect_err("it cannot go again");
    assert!(error.to_string().contains("bucket \"logs\" is missing"), "{error}");
}

#[test]
fn a_topology_that_does_not_fit_the_data_is_refused_in_words() {
    type Ring = fn(&mut RingSpec);
    type Buckets = fn(&mut Vec<BucketDefinition>);
    let cases: [(Ring, Buckets, &str); 12] = [
        (|s| s.partitions = Partitions::new(32).expect("valid"), |_| {}, "there are 32 partitions and were 16"),
        (|s| s.hash_seed = 2, |_| {}, "the hash seed is 2 and was 1"),
        (|s| s.members.push(Member::new("dan", "dan:7400")), |_| {}, "member \"dan\" is new"),
        (|s| s.members[2] = Member::new("dan", "dan:7400"), |_| {}, "member \"cyd\" is missing"),
        (|s| s.members[0].weight = 50, |_| {}, "member \"ada\" has weight 50 and had 1"),
        (|s| s.members[0].zone = "b".into(), |_| {}, "member \"ada\" is in zone \"b\" and was in \"\""),
        (|s| s.members[0].shards = 2, |_| {}, "member \"ada\" has 2 shards and had 1"),
        (|_| {}, |b| b.truncate(1), "bucket \"carts\" is missing"),
        (|_| {}, |b| b[1] = bucket(5, "carts", 3), "bucket \"carts\" has id 5 and had 1"),
        (|_| {}, |b| b[1] = bucket(1, "carts", 2), "bucket \"carts\" has n = 2 and had 3"),
        (|_| {}, |b| b[1] = bucket(1, "cards", 3), "bucket \"cards\" has id 1, which is that of bucket \"carts\""),
        (|_| {}, |b| b[1].conflict = Conflict::Lww, "bucket \"carts\" has conflict = \"lww\" and had \"siblings\""),
    ];
    let folder = folder();
    let directory = open(folder.path()).expect("made");
    directory.check_topology(&topology(|_| {}, |_| {})).expect("the first");
    let before = everything(folder.path());
    for (ring, buckets, said) in cases {
        let Err(TopologyError::Changed(error)) = directory.check_topology(&topology(ring, buckets)) else {
            panic!("should be refused: {said}");
        };
        assert!(error.differences.iter().any(|difference| difference == said), "{said}: {error}");
        assert!(error.to_string().contains("cannot be changed by editing the file"), "{error}");
        let seen = check_topology(folder.path(), &topology(ring, buckets)).expect_err("as at a start");
        assert_eq!(seen.to_string(), error.to_string());
        crate::remedy::check(&seen);
    }
    check_topology(folder.path(), &topology(|_| {}, |b| b.push(bucket(2, "logs", 2)))).expect("a new bucket");
    assert_eq!(everything(folder.path()), before);
}

#[test]
fn a_lost_topology_is_not_replaced_once_there_is_data() {
    let folder = folder();
    let directory = open(folder.path()).expect("made");
    directory.check_topology(&topology(|_| {}, |_| {})).expect("the first");
    fs::create_dir(directory.store_path()).expect("created");
    fs::remove_file(folder.path().join(TOPOLOGY)).expect("removed");
    let error = directory.check_topology(&topology(|_| {}, |_| {})).expect_err("lost");
    assert!(matches!(error, TopologyError::Directory(OpenError::Damaged { .. })), "{error}");
}

#[test]
fn a_directory_would_be_made_where_nothing_is_and_not_in_place_of_what_is_there() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("data");
    assert!(DataDirectory::would_be_made(&path), "it does not exist");
    std::fs::create_dir_all(path.join("lost+found")).expect("made");
    assert!(DataDirectory::would_be_made(&path), "the root of a file system");
    drop(open(&path).expect("made"));
    assert!(!DataDirectory::would_be_made(&path));
    let foreign = folder.path().join("foreign");
    std::fs::create_dir_all(&foreign).expect("made");
    std::fs::write(foreign.join("letter.txt"), "dear").expect("written");
    assert!(!DataDirectory::would_be_made(&foreign), "what is wrong with it is said by opening it");
}

/// No data rests on it, and the advice was to throw the data away.
#[test]
fn a_reset_key_that_is_cut_off_is_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("data");
    let key = *open(&path).expect("opened").reset_key();
    for left in [0, RESET_KEY_BYTES - 1] {
        std::fs::write(path.join(RESET_KEY), vec![7; left]).expect("written");
        let again = *open(&path).expect("opened").reset_key();
        assert_ne!(again, key);
        assert_eq!(*open(&path).expect("opened").reset_key(), again, "and kept");
    }
}

#[test]
fn what_to_do_is_where_the_message_ends_whatever_stands_in_it() {
    use crate::remedy::{NASTY, check};
    let (path, text) = (PathBuf::from(NASTY), NASTY.to_owned());
    let (expected, found) = (text.clone(), text.clone());
    for error in [
        OpenError::InUse { path: path.clone(), pid: Some(7) },
        OpenError::OtherNode { path: path.clone(), expected: expected.clone(), found: found.clone() },
        OpenError::OtherCluster { path: path.clone(), expected, found: found.clone() },
        OpenError::OtherFormat { path: path.clone(), found: 99 },
        OpenError::Damaged { path: path.clone(), what: text },
        OpenError::NotOurs { path: path.clone(), found },
        OpenError::Io { what: "read", path, source: io::Error::other(NASTY) },
    ] {
        check(&error);
    }
}

#[test]
fn the_page_of_the_disk_has_every_file_of_a_directory() {
    let page = include_str!("../../../../docs/disk-format.md");
    let code =
        [("FORMAT", FORMAT.into()), ("RESET_KEY_BYTES", RESET_KEY_BYTES as u64), ("PID_WIDTH", PID_WIDTH as u64)];
    driftless_testkit::pages::assert_constants(page, "node/src/store/directory.rs", &code);
    for name in [LOCK, IDENTITY, TOPOLOGY, RESET_KEY] {
        assert!(page.contains(&format!("\n| `{name}` |")), "the page has no row for {name}");
    }
    for name in [STORE, RING] {
        assert!(page.contains(&format!("\n| `{name}/` |")), "the page has no row for {name}/");
    }
}
