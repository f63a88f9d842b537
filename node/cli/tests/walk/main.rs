//! A second person's walk: what README and the pages on the command line, configuration, operations and membership tell a reader to type is
//! typed here, against real processes, and what is printed is compared with what they show.
//!
//! - `samples.rs`: every `console` sample, what it presumes, and those that cannot be run, with the reason;
//! - `by_hand.rs`: the cluster by hand of docs/configuration.md;
//! - `readme.rs`: the shell blocks of README, line by line;
//! - `json.rs`: the fields of what is shown as JSON;
//! - `packaging.rs`: what stands in node/packaging, as far as it can be tried without what it is for;
//! - `markdown.rs`, `compare.rs`: how pages are read, and what may differ from them.
//!
//! Whether the flags of *all* documented command lines exist is tested beside the parser: `src/documented.rs`.

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]
#![allow(clippy::print_stdout, reason = "what is not run is told, with the reason")]

#[path = "../cluster_support/mod.rs"]
mod cluster_support;

mod by_hand;
mod compare;
mod json;
mod markdown;
mod packaging;
mod readme;
mod samples;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_support::{Dev, Done, fetch, shell};
use compare::difference;
use samples::{Repeat, Sample};

/// A reader at a shell, in a directory of their own.
struct Walk {
    dir: tempfile::TempDir,
}

impl Walk {
    fn new() -> Walk {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The pages name files of the repository.
        link(&markdown::repository().join("node"), &dir.path().join("node"));
        Walk { dir }
    }

    /// One to whom `DIR` is the directory of this cluster.
    fn beside(dev: &Dev) -> Walk {
        let walk = Walk::new();
        link(&dev.cluster(), &walk.path("DIR"));
        walk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Types a line.
    fn types(&self, line: &str) -> Done {
        shell(line, self.dir.path())
    }

    /// Types a line that must succeed.
    fn does(&self, line: &str) -> String {
        let done = self.types(line);
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.code, Some(0), "{line}: {printed}");
        printed
    }

    /// Types a sample until what it prints is what its page shows: once, or as often as it takes.
    fn compares(&self, sample: &Sample, placeholders: &[(&str, String)]) {
        let shown = sample.shown();
        let typed = placeholders.iter().fold(shown.command.clone(), |line, (name, value)| line.replace(name, value));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = match typed.strip_prefix("curl ") {
                Some(url) => fetched(url),
                None => String::from_utf8(self.types(&typed).stdout).expect("is text"),
            };
            let Some(difference) = difference(&shown.output, &printed, sample.numbers) else { return };
            let patient = sample.repeat == Repeat::UntilEqual && Instant::now() < deadline;
            assert!(patient, "{}: `{}`: {difference}", sample.page, shown.command);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn link(to: &Path, from: &Path) {
    std::os::unix::fs::symlink(to, from).expect("a link can be made");
}

/// What `curl` prints of a page without TLS.
fn fetched(url: &str) -> String {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("has a path");
    let answer = fetch(host, path).expect("the admin port answers");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("has a body")
}

/// The longest that a sample waits for is a connection that gives up on a node that was killed.
const PATIENCE: Duration = Duration::from_secs(40);
