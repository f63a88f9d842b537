//! Every `console` sample of the pages, and what it presumes.

use super::Walk;
use super::cluster_support::{Dev, text};
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
    soon(alike(OPERATIONS, "curl http://127.0.0.1:7401/status", At::Three(the_port_of_n1))),
    exactly(COMMANDS, "driftless --profile DIR put greeting hello", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR put greeting \"good morning\"", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR get greeting", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR delete k --context STALE", At::Three(a_stale_context)),
    alike(COMMANDS, "driftless --profile DIR load node/data/debian-packages.jsonl", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR scan --limit 2 --format json", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR scan --prefix lib --limit 2", At::Three(nothing)),
    soon(exactly(COMMANDS, "driftless --profile DIR ring --key bat", At::Three(nothing))),
    soon(alike(COMMANDS, "driftless --profile DIR aae status", At::Three(a_comparison))),
    exactly(COMMANDS, "driftless --profile DIR drain n2 --wait", At::Three(nothing)),
    exactly(COMMANDS, "driftless --profile DIR drain n2 --undo", At::Three(nothing)),
    soon(alike(COMMANDS, "driftless --profile DIR status", At::Three(n3_killed_and_puts))),
    alike(COMMANDS, "driftless --profile DIR dump -o backup.jsonl", At::Three(nothing)),
    soon(alike(MEMBERSHIP, "driftless --profile DIR cluster recover --lost n2,n3", At::Three(n2_killed_as_well))),
    exactly(COMMANDS, "driftless --profile DIR put greeting hello -w 3", At::Five(n3_killed)),
    soon(alike(COMMANDS, "driftless --profile DIR hints", At::Five(more_puts))),
    soon(exactly(CONFIGURATION, "driftless --endpoint 127.0.0.1:8500 --ca authority/ca.pem --cert alice/alice.pem --key alice/alice.key status", At::ByHand)),
    exactly(COMMANDS, "driftless --profile shop bucket list", At::ByHand),
    alike(COMMANDS, "driftless --profile DIR cluster status", At::NotRun(MEMBERS)),
    alike(COMMANDS, "driftless --profile DIR cluster plan", At::NotRun(MEMBERS)),
    alike(COMMANDS, "driftless --profile DIR transfers", At::NotRun(MEMBERS)),
    alike(COMMANDS, "driftless --profile DIR bucket create carts --strict", At::NotRun(MEMBERS)),
    alike(COMMANDS, "driftless --profile DIR bucket set carts -r 2 -w 3", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster join n4", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster plan", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster commit 24dd3d40", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster leave n2", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster replace n3 --with n5", At::NotRun(MEMBERS)),
    alike(MEMBERSHIP, "driftless --profile DIR cluster set n1 --weight 2", At::NotRun(MEMBERS)),
    alike(COMMANDS, "driftless --profile DIR damaged list", At::NotRun(DAMAGE)),
    alike(COMMANDS, "driftless --profile DIR damaged restore bat --accept-loss", At::NotRun(DAMAGE)),
    alike(OPERATIONS, "ssh n1 curl -s http://127.0.0.1:7401/metrics | grep -E 'credentials_(reread|refused)_total '", At::NotRun("needs other machines")),
    alike(OPERATIONS, "openssl verify -CAfile next/ca.pem n1.pem", At::NotRun("is another program")),
];

const MEMBERS: &str = "tests/cluster_members.rs changes the members of a cluster of its own";

const DAMAGE: &str = "needs a record that a fault of memory has changed, which no process does by itself";

fn nothing(_: &Walk, _: &Dev) -> Vec<(&'static str, String)> {
    Vec::new()
}

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

fn a_comparison(_: &Walk, dev: &Dev) -> Vec<(&'static str, String)> {
    dev.ok(&["aae", "run"]);
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
    let dev = Dev::start();
    let walk = Walk::beside(&dev);
    for sample in SAMPLES {
        if let At::Three(before) = sample.at {
            let placeholders = before(&walk, &dev);
            walk.compares(sample, &placeholders);
        }
    }
}

#[test]
fn samples_of_five_nodes() {
    let dev = Dev::of(5, |_| {});
    let walk = Walk::beside(&dev);
    for sample in SAMPLES {
        if let At::Five(before) = sample.at {
            let placeholders = before(&walk, &dev);
            walk.compares(sample, &placeholders);
        }
    }
}
