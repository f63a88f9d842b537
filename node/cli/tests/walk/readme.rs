//! The shell blocks of README, line by line: each has a step here, in the same order.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cluster_support::{Dev, shell, signal, wait};
use super::markdown::{blocks, page, repository};

/// What is done for a line.
enum Step {
    /// Nothing, for this reason.
    Elsewhere(&'static str),
    /// It is typed, succeeds, and says all of this.
    Says(&'static [&'static str]),
    /// The same, after a while.
    Comes(&'static [&'static str]),
    /// n3 is killed.
    Kill,
    /// n3 is killed and loses its data.
    Lose,
    /// n3 is started by hand with these flags.
    Serve(&'static [&'static str]),
}

use Step::{Comes, Elsewhere, Kill, Lose, Says, Serve};

const BUILT: &str = "the binary is built already";
const EXPANDED: &str = "what it stands for is typed";
const OWN: &str = "each test has a cluster of its own";

const FIRST: &[(&str, Step)] = &[
    ("cargo build --release --bin driftless", Elsewhere(BUILT)),
    ("alias driftless=target/release/driftless", Elsewhere(BUILT)),
    ("driftless dev --nodes 3 --dir /tmp/d &", Elsewhere(OWN)),
    ("alias d='driftless --profile /tmp/d'", Elsewhere(EXPANDED)),
    ("d put greeting hello", Says(&["stored"])),
    ("d get greeting", Says(&["hello", "context: "])),
    ("d put greeting \"good morning\"", Says(&["stored; the key has 2 siblings"])),
    ("d get greeting", Says(&["2 siblings:", "hello", "good morning", "context: "])),
    ("d put greeting \"hello, good morning\" --context TOKEN", Says(&["stored"])),
    ("d get greeting", Says(&["hello, good morning"])),
    ("d put --replace greeting hi", Says(&["stored"])),
    ("d load node/data/debian-packages.jsonl", Says(&["loaded 5,287 records, 0 failed"])),
    ("d get bat --format raw", Says(&["Package: bat"])),
    ("d status", Comes(&["All 3 nodes are up and connected."])),
    ("d doctor", Says(&["nodes: All 3 nodes are up and connected.", "machine"])),
    ("d ring --key bat", Says(&["token ", "partition n3/", "PRIMARY", "n1"])),
    ("d bench --clients 64 --seconds 10 --op put", Says(&["put", "OPS/S", "errors: none"])),
];

const WHEN_A_NODE_DIES: &[(&str, Step)] = &[
    ("kill %1; wait %1", Elsewhere(OWN)),
    ("driftless dev --nodes 5 --dir /tmp/five &", Elsewhere(OWN)),
    ("alias f='driftless --profile /tmp/five'", Elsewhere(EXPANDED)),
    ("f load node/data/debian-packages.jsonl", Says(&["loaded 5,287 records, 0 failed"])),
    ("kill -9 PID", Kill),
    ("f put greeting hello -w 3", Says(&["acknowledged by 2 primaries + 1 fallback"])),
    ("f get greeting --explain", Says(&["partition n3/", "REPLICA", "primary", "COUNTED", "REPAIRED", "hello"])),
    ("f status", Comes(&["n3    down", "1 of 5 nodes is down (n3)"])),
    ("f hints", Comes(&["HELD BY", "n3", "wait"])),
    ("driftless serve --config /tmp/five/n3/node.toml &", Serve(&[])),
    ("f hints", Comes(&["No hints are held."])),
    ("kill -9 PID; rm -r /tmp/five/n3/data", Lose),
    ("driftless serve --config /tmp/five/n3/node.toml --init &", Serve(&["--init"])),
    ("f aae status", Comes(&["NODE  PEER", "n3    n1"])),
];

#[test]
fn a_cluster_on_this_machine_as_readme_says() {
    let dev = Dev::of(3, |_| {});
    walk("A cluster on this machine", FIRST, &dev, ("d ", "/tmp/d"));
}

#[test]
fn when_a_node_dies_as_readme_says() {
    let dev = Dev::of(5, |_| {});
    walk("When a node dies", WHEN_A_NODE_DIES, &dev, ("f ", "/tmp/five"));
}

/// Blocks under other headings start builds: each is named with what does so instead.
#[test]
fn every_shell_block_of_readme_is_walked_or_listed() {
    let listed = [
        ("Driftless", "the tour is `cluster_demo`, and the tests are these"),
        ("A cluster on this machine", "above"),
        ("When a node dies", "above"),
        ("From Rust", "the examples are compiled with the client"),
    ];
    let blocks = blocks(&page("README.md"));
    let headings: Vec<&str> = blocks
        .iter()
        .filter(|block| matches!(block.language.as_str(), "sh" | "console"))
        .map(|block| block.heading.as_str())
        .collect();
    assert_eq!(headings, listed.map(|(heading, _)| heading));
}

fn walk(heading: &str, steps: &[(&str, Step)], dev: &Dev, (alias, dir): (&str, &str)) {
    let blocks = blocks(&page("README.md"));
    let lines: Vec<String> =
        blocks.iter().filter(|block| block.heading == heading).flat_map(|block| block.commands()).collect();
    let known: Vec<&str> = steps.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, known, "each line of README has a step, in the same order");

    let cluster = dev.cluster().display().to_string();
    let mut token = String::new();
    let mut by_hand = None;
    for (line, step) in steps {
        let typed = match line.strip_prefix(alias) {
            Some(rest) => format!("driftless --profile {dir} {rest}"),
            None => (*line).to_owned(),
        };
        let typed = typed.replace(dir, &cluster).replace("TOKEN", &token);
        // A second on a few keys shows as much of it.
        let typed = typed.replace("--seconds 10", "--seconds 1 --keys 500");
        match step {
            Elsewhere(reason) => println!("not typed: {line}: {reason}"),
            Says(words) => token = says(&typed, words, Duration::ZERO).unwrap_or(token),
            Comes(words) => token = says(&typed, words, Duration::from_secs(30)).unwrap_or(token),
            Kill => dev.kill("n3"),
            Lose => {
                drop(by_hand.take());
                dev.eventually("n3 is gone", || dev.pids().iter().any(|(name, pid)| name == "n3" && pid.is_none()));
                std::fs::remove_dir_all(dev.cluster().join("n3/data")).expect("is there");
            }
            Serve(flags) => by_hand = Some(ByHand(dev.serve_with("n3", flags))),
        }
    }
}

/// A node that was started by hand, and goes by `kill -9`.
struct ByHand(Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::KILL);
        let _ = wait(&mut self.0, Duration::from_secs(10));
    }
}

/// Types a line until it says all of that. Gives the context that it prints.
fn says(line: &str, words: &[&str], patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    loop {
        let done = shell(line, &repository());
        let printed = String::from_utf8_lossy(&done.stdout);
        if done.code == Some(0) && words.iter().all(|word| printed.contains(word)) {
            return printed.lines().find_map(|line| line.strip_prefix("context: ")).map(str::to_owned);
        }
        assert!(Instant::now() < deadline, "`{line}` should say {words:?}: {:?}\n{printed}", done.code);
        std::thread::sleep(Duration::from_millis(100));
    }
}
