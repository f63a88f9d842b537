//! Every `console` sample of the pages, and what it presumes.

use super::Walk;
use super::cluster_support::{Dev, driftless, finish, text};
use super::compare::Numbers;
use super::markdown::{Shown, blocks, page};

/// A command that a page shows with its output.
pub(crate) struct Sample {
    pub(crate) page: &'static str,
    /// As it stands there.
    pub(crate) command: &'static str,
    pub(crate) at: At,
    pub(crate) numbers: Numbers,
    pub(crate) repeat: Repeat,
}

/// Where a sample is run. Those of a place are run in their order here.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// Beside nothing.
    Empty(fn(&Walk)),
    /// Three nodes, of which none has failed yet.
    Three(Before),
    /// Five, likewise.
    Five(Before),
    /// Three whose members change.
    Changing(Before),
    /// The cluster by hand: `by_hand.rs`.
    ByHand,
    /// Nowhere, for this reason.
    NotRun(&'static str),
}

/// What has to be done first. It gives what to put in the place of words such as STALE.
type Before = fn(&Walk, &Dev) -> Vec<(&'static str, String)>;

/// Whether a sample may need time until it is true. One that writes is typed once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    Never,
    UntilEqual,
}

const fn exactly(page: &'static str, command: &'static str, at: At) -> Sample {
    Sample { page, command, at, numbers: Numbers::Count, repeat: Repeat::Never }
}

/// The same but for numbers.
const fn alike(page: &'static str, command: &'static str, at: At) -> Sample {
    Sample { numbers: Numbers::Vary, ..exactly(page, command, at) }
}

/// After a while.
const fn soon(sample: Sample) -> Sample {
    Sample { repeat: Repeat::UntilEqual, ..sample }
}

pub(crate) const PAGES: [&str; 5] = ["README.md", COMMANDS, CONFIGURATION, OPERATIONS, MEMBERSHIP];
const COMMANDS: &str = "docs/command-line.md";
const CONFIGURATION: &str = "docs/configuration.md";
const OPERATIONS: &str = "docs/operations.md";
const MEMBERSHIP: &str = "docs/membership.md";

#[rustfmt::skip]
pub(crate) const SAMPLES: &[Sample] = &[
    exactly(COMMANDS, "driftless cert show alice/alice.pem", At::Empty(a_reader)),
    exactly(COMMANDS, "driftless config explain limits.requests_max", At::Empty(beside_nothing)),
    soon(alike(OPERATIONS, "curl http://127.0.0.1:7401/status", At::Three(the_port_of_n1))),
    exactly(COMMANDS, "driftless --profile DIR put greeting hello", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR put greeting \"good morning\"", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR get greeting", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR delete k --context STALE", At::Three(a_stale_context)),
    alike(COMMANDS, "driftless --profile DIR put explained hello --explain", At::Three(nothing)),
    alike(COMMANDS, "driftless --profile DIR top -n 2", At::Three(greetings)),
    alike(COMMANDS, "driftless --profile DIR load node/data/debian-packages.jsonl", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR scan --limit 2 --format json", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR scan --prefix lib --limit 2", At::Three(nothing)),
    soon(exactly(COMMANDS, "driftless --profile DIR ring --key bat", At::Three(nothing))),
    soon(alike(COMMANDS, "driftless --profile DIR aae status", At::Three(a_comparison))),
    alike(COMMANDS, "driftless --profile DIR backup create shop-backup", At::Three(compared)),
    alike(COMMANDS, "driftless --profile DIR backup show shop-backup", At::Three(nothing)),
    alike(COMMANDS, "driftless --profile DIR backup restore shop-backup", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR drain n2 --wait", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR drain n2 --undo", At::Three(nothing)),
    soon(alike(COMMANDS, "driftless --profile DIR status", At::Three(n3_killed_and_puts))),
    alike(COMMANDS, "driftless --profile DIR dump -o backup.jsonl", At::Three(nothing)),
    soon(alike(MEMBERSHIP, "driftless --profile DIR cluster recover --lost n2,n3", At::Three(n2_killed_as_well))),
    exactly(COMMANDS, "driftless --profile DIR put greeting hello -w 3", At::Five(n3_killed)),
    soon(alike(COMMANDS, "driftless --profile DIR hints", At::Five(more_puts))),
    soon(alike(MEMBERSHIP, "driftless --profile DIR cluster found --without n4,n5", At::Five(begun_anew_by_three))),
    soon(exactly(CONFIGURATION, "driftless --endpoint 127.0.0.1:8500 --ca authority/ca.pem --cert alice/alice.pem --key alice/alice.key status", At::ByHand)),
    exactly(COMMANDS, "driftless --profile shop bucket list", At::ByHand),
    soon(alike(COMMANDS, "driftless --profile DIR cluster status", At::Changing(records))),
    alike(MEMBERSHIP, "driftless --profile DIR cluster join n4", At::Changing(n4_calls)),
    soon(alike(MEMBERSHIP, "driftless --profile DIR cluster plan", At::Changing(nothing))),
    soon(alike(COMMANDS, "driftless --profile DIR cluster plan", At::Changing(nothing))),
    alike(MEMBERSHIP, "driftless --profile DIR cluster commit 24dd3d40", At::Changing(a_plan)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster leave n2", At::Changing(settled)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster double", At::Changing(nothing_staged)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster set n1 --weight 2", At::Changing(nothing_staged)),
    alike(COMMANDS, "driftless --profile DIR bucket create carts --strict", At::Changing(nothing_staged)),
    alike(COMMANDS, "driftless --profile DIR bucket set carts -r 2 -w 3", At::Changing(settled)),
    alike(COMMANDS, "driftless --profile DIR access grant web writer --bucket carts", At::Changing(settled)),
    alike(COMMANDS, "driftless --profile DIR access deny client mallory", At::Changing(settled)),
    soon(alike(COMMANDS, "driftless --profile DIR access show", At::Changing(nothing))),
    alike(OPERATIONS, "driftless --profile DIR access default reader", At::Changing(settled)),
    alike(OPERATIONS, "driftless --profile DIR access deny serial 5A00C3", At::Changing(settled)),
    soon(alike(OPERATIONS, "driftless --profile DIR access show", At::Changing(nothing))),
    alike(MEMBERSHIP, "driftless --profile DIR cluster replace n3 --with n5", At::Changing(n5_calls_and_n3_is_gone)),
    alike(COMMANDS, "driftless --profile DIR transfers", At::NotRun("shows a moment of a change that takes minutes")),
    alike(COMMANDS, "driftless doctor --config n1/node.toml", At::NotRun("what it says is the machine's")),
    alike(COMMANDS, "driftless --profile DIR damaged list", At::NotRun(DAMAGE)),
    alike(COMMANDS, "driftless --profile DIR damaged restore bat --accept-loss", At::NotRun(DAMAGE)),
    alike(OPERATIONS, "ssh n1 curl -s http://127.0.0.1:7401/metrics | grep -E 'credentials_(reread|refused)_total '", At::NotRun("needs other machines")),
    alike(OPERATIONS, "openssl verify -CAfile next/ca.pem n1.pem", At::NotRun("is another program")),
];

const DAMAGE: &str = "needs a record that a fault of memory has changed, which no process does by itself";

fn nothing(_: &Walk, _: &Dev) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn beside_nothing(_: &Walk) {}

fn a_reader(walk: &Walk) {
    walk.does("driftless cert ca --cluster shop");
    walk.does("driftless cert client alice --role reader --out alice");
}

fn the_port_of_n1(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    vec![("127.0.0.1:7401", text(&dev.nodes()[0], "admin"))]
}

fn a_stale_context(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["put", "k", "old"]);
    let context = text(&dev.json(&["get", "k"]), "context");
    dev.ok(&["put", "k", "new", "--context", &context]);
    vec![("STALE", context)]
}

fn greetings(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    (0..12).for_each(|_| drop(dev.run(&["get", "greeting"])));
    Vec::new()
}

fn a_comparison(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["aae", "run"]);
    Vec::new()
}

fn compared(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.eventually("all has been compared", || dev.run(&["scan", "--wait", "60s"]).code == Some(0));
    Vec::new()
}

fn n3_killed(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.kill("n3");
    Vec::new()
}

fn n2_killed_as_well(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.kill("n2");
    Vec::new()
}

fn n3_killed_and_puts(walk: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    n3_killed(walk, dev);
    more_puts(walk, dev)
}

/// Nothing was agreed on, and two never come.
fn begun_anew_by_three(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    let running = dev.pids().into_iter().filter(|(_, pid)| pid.is_some());
    running.for_each(|(name, _)| dev.kill(&name));
    for node in dev.nodes() {
        std::fs::remove_dir_all(text(&node, "data_dir")).expect("can be removed");
    }
    for name in ["n1", "n2", "n3"] {
        let mut child = dev.serve_with(name, &["--init"]);
        // The cluster ends it, and somebody has to take note of that.
        std::thread::spawn(move || child.wait());
    }
    Vec::new()
}

/// Enough that a plan says how long it takes to move.
fn records(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["bench", "--op", "get", "--keys", "200", "--value-size", "256KiB", "--seconds", "1", "--clients", "4"]);
    Vec::new()
}

fn n4_calls(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    calls(dev, "n4")
}

fn a_plan(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    vec![("24dd3d40", text(&dev.json(&["cluster", "plan"]), "plan"))]
}

fn settled(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["transfers", "--watch", "--timeout", "90s"]);
    Vec::new()
}

fn nothing_staged(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["cluster", "clear"]);
    Vec::new()
}

fn n5_calls_and_n3_is_gone(walk: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    settled(walk, dev);
    calls(dev, "n5");
    dev.kill("n3");
    dev.eventually("n3 is not heard", || {
        let state = dev.json(&["cluster", "status"]);
        let members = state["members"].as_array().expect("a list");
        members.iter().any(|member| member["name"] == "n3" && member["heard"] == false)
    });
    Vec::new()
}

/// One more node beside the cluster, that has called.
fn calls(dev: &Dev, name: &str) -> Vec<(&'static str, String)> {
    let mut command = driftless();
    command.args(["dev", "add", name, "--dir"]).arg(dev.cluster());
    let added = finish(command, b"");
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    dev.eventually("it has called", || {
        let state = dev.json(&["cluster", "status"]);
        state["candidates"].as_array().expect("a list").iter().any(|candidate| candidate["name"] == name)
    });
    Vec::new()
}

/// Enough that each of the others has something for n3.
fn more_puts(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    for i in 0..20 {
        dev.ok(&["put", &format!("more-{i}"), "v", "-w", "2"]);
    }
    Vec::new()
}

impl Sample {
    /// What its page shows.
    pub(crate) fn shown(&self) -> Shown {
        let all = all_of(self.page);
        all.into_iter().find(|shown| shown.command == self.command).unwrap_or_else(|| {
            panic!("{} has no sample `{}` any more", self.page, self.command);
        })
    }
}

/// The samples of the cluster by hand.
pub(crate) fn by_hand() -> impl Iterator<Item = &'static Sample> {
    SAMPLES.iter().filter(|sample| matches!(sample.at, At::ByHand))
}

fn all_of(name: &str) -> Vec<Shown> {
    let console = |page: &str| blocks(page).into_iter().filter(|block| block.language == "console").collect::<Vec<_>>();
    console(&page(name)).iter().flat_map(|block| block.shown()).collect()
}

#[test]
fn every_sample_is_run_or_listed_with_the_reason() {
    let mut unknown = Vec::new();
    for name in PAGES {
        for shown in all_of(name) {
            let known = SAMPLES.iter().any(|sample| sample.page == name && sample.command == shown.command);
            if !known {
                unknown.push(format!("{name}: {}", shown.command));
            }
        }
    }
    assert!(unknown.is_empty(), "neither run nor listed: {unknown:#?}");
    // The other way round, and with it the names of those that are not run.
    for sample in SAMPLES {
        let shown = sample.shown();
        if let At::NotRun(reason) = sample.at {
            println!("not run: {}: {reason}", shown.command);
        }
    }
}

#[test]
fn samples_that_presume_nothing() {
    let walk = Walk::new();
    for sample in SAMPLES {
        if let At::Empty(before) = sample.at {
            before(&walk);
            walk.compares(sample, &[]);
        }
    }
}

#[test]
fn samples_of_three_nodes() {
    compare_beside(&Dev::start(), |at| if let At::Three(before) = at { Some(before) } else { None });
}

#[test]
fn samples_of_five_nodes() {
    compare_beside(&Dev::of(5, |_| {}), |at| if let At::Five(before) = at { Some(before) } else { None });
}

#[test]
fn samples_of_nodes_that_come_and_go() {
    compare_beside(&Dev::start(), |at| if let At::Changing(before) = at { Some(before) } else { None });
}

/// The samples of one place, in their order, beside this cluster.
fn compare_beside(dev: &Dev, is_there: impl Fn(At) -> Option<Before>) {
    let walk = Walk::beside(dev);
    for sample in SAMPLES {
        if let Some(before) = is_there(sample.at) {
            let placeholders = before(&walk, dev);
            walk.compares(sample, &placeholders);
        }
    }
}
