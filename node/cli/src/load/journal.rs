//! How far a load came, and under which names it wrote: what `--resume` goes on from.
//!
//! ```json
//! {"file": "/data/f.jsonl", "cluster": "shop", "authority": "9c41…", "bucket": "carts", "run": "5f0c…",
//!  "terms": {"w": null, "sloppy": null, "timeout_ms": null, "replace": false},
//!  "lines": 500, "digest": "ab12…", "failed": 0, "open": [[480, 499]], "exact": true}
//! ```
//! It is in the user's state directory from the first settled line on, and goes when everything is loaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use driftless_client::WriteId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::settled::{Mark, OPEN_LINES_MAX};
use crate::exit::{Failure, Result};
use crate::new_file::{self, SECRET};

/// A load, from its first start over all resumptions to its end: part of the name of every write that it makes. So a write that
/// is made again by the same load is recognised by the nodes, and one that another load makes of the same file is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run(u128);

impl Run {
    /// Of no load before.
    pub(crate) fn new() -> Run {
        Run(rand::random())
    }

    /// The name of the write of a value: the same if it is made again in place of the same.
    pub(crate) fn write_id(self, line: u64, index: usize, value: &[u8], context: Option<&[u8]>) -> WriteId {
        let mut hasher = Xxh3::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&line.to_le_bytes());
        hasher.update(&(index as u64).to_le_bytes());
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value);
        hasher.update(context.unwrap_or_default());
        WriteId(hasher.digest128())
    }
}

/// What a load runs with, and a resumed one goes on with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// Replicas that must acknowledge a write, if that was said.
    pub(crate) w: Option<u8>,
    /// Whether fallbacks count, if that was said.
    pub(crate) sloppy: Option<bool>,
    /// Milliseconds that a request may take, if that was said.
    pub(crate) timeout_ms: Option<u64>,
    /// Whether to replace what is there.
    pub(crate) replace: bool,
}

impl Terms {
    /// These, for a load that is resumed with `given` flags. What was not said before cannot be said now.
    pub(crate) fn resumed_with(self, given: &Terms) -> Result<Terms> {
        let contradictions = [
            ("-w", given.w.is_some() && given.w != self.w),
            ("--sloppy or --strict", given.sloppy.is_some() && given.sloppy != self.sloppy),
            ("--timeout", given.timeout_ms.is_some() && given.timeout_ms != self.timeout_ms),
            ("--replace", given.replace && !self.replace),
        ];
        match contradictions.iter().find(|(_, contradicts)| *contradicts) {
            None => Ok(self),
            Some((flag, _)) => Err(Failure::usage(format_args!(
                "{flag} is not what the interrupted load was started with, and --resume goes on with what that was"
            ))
            .hint("leave it out, or load from the first line, without --resume")),
        }
    }
}

/// What a load has left that did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interrupted {
    /// Which load.
    pub(crate) run: Run,
    /// What it ran with.
    pub(crate) terms: Terms,
    /// How far it came.
    pub(crate) mark: Mark,
}

/// Where a load writes down how far it came.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    of: Of,
}

/// Which load it is of. Clusters may have the same name (all `dev` clusters have): their authorities tell them apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Of {
    file: String,
    cluster: String,
    authority: String,
    bucket: String,
}

#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    of: Of,
    run: String,
    terms: Terms,
    lines: u64,
    digest: String,
    failed: u64,
    /// First and last line of each range.
    open: Vec<(u64, u64)>,
    exact: bool,
}

impl Journal {
    /// Of this file into this bucket of the cluster of that name and authority (the file of its certificate); none if there is no
    /// place for it.
    pub(crate) fn of(file: &Path, (cluster, ca): (&str, &Path), bucket: &str) -> Option<Journal> {
        let base = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(&std::env::var_os("HOME").filter(|dir| !dir.is_empty())?).join(".local/state"),
        };
        let authority = format!("{:032x}", xxh3_128(&fs::read(ca).ok()?));
        Journal::within(&base.join("driftless"), file, (cluster, &authority), bucket)
    }

    fn within(dir: &Path, file: &Path, (cluster, authority): (&str, &str), bucket: &str) -> Option<Journal> {
        let file = fs::canonicalize(file).ok()?.display().to_string();
        let name = xxh3_64(format!("{file}\n{cluster}\n{authority}\n{bucket}").as_bytes());
        let path = dir.join(format!("load-{name:016x}.json"));
        let (cluster, authority, bucket) = (cluster.to_owned(), authority.to_owned(), bucket.to_owned());
        Some(Journal { path, of: Of { file, cluster, authority, bucket } })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What an interrupted load has left.
    pub(crate) fn read(&self) -> Option<Interrupted> {
        let written: Written = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        if written.of != self.of {
            return None;
        }
        let Written { run, terms, lines, digest, failed, open, exact, .. } = written;
        let run = Run(u128::from_str_radix(&run, 16).ok()?);
        let digest = u64::from_str_radix(&digest, 16).ok()?;
        let mark = Mark { lines, digest, failed, open: lines_of(&open, lines)?, is_exact: exact };
        Some(Interrupted { run, terms, mark })
    }

    /// Writes it down.
    pub(crate) fn write(&self, Run(run): Run, terms: &Terms, mark: &Mark) -> Result {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)
                .map_err(|error| Failure::failed(format_args!("cannot make {}: {error}", dir.display())))?;
        }
        let written = Written {
            of: self.of.clone(),
            run: format!("{run:032x}"),
            terms: terms.clone(),
            lines: mark.lines,
            digest: format!("{:016x}", mark.digest),
            failed: mark.failed,
            open: ranges(&mark.open),
            exact: mark.is_exact,
        };
        let text = serde_json::to_string(&written).map_err(Failure::failed)?;
        new_file::replace(&self.path, &(text + "\n"), SECRET)
    }

    /// A load that is complete need not be resumed.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn ranges(lines: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    ranges
}

/// None if they are not what a load writes: somebody else has written there.
fn lines_of(ranges: &[(u64, u64)], max: u64) -> Option<BTreeSet<u64>> {
    let mut lines = BTreeSet::new();
    for &(first, last) in ranges {
        if first > last || last > max || lines.len() as u64 + (last - first) >= OPEN_LINES_MAX as u64 {
            return None;
        }
        lines.extend(first..=last);
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was deleted from and loaded again within five minutes was not there, and said to be loaded.
    #[test]
    fn each_load_has_write_ids_of_its_own_and_a_resumed_one_has_those_it_had() {
        let run = Run::new();
        let id = run.write_id(7, 0, b"value", None);
        assert_eq!(run.write_id(7, 0, b"value", None), id, "resumed");
        assert_ne!(Run::new().write_id(7, 0, b"value", None), id, "another load of the same file");
        for other in [
            run.write_id(8, 0, b"value", None),
            run.write_id(7, 1, b"value", None),
            run.write_id(7, 0, b"other", None),
            run.write_id(7, 0, b"value", Some(b"context")),
        ] {
            assert_ne!(other, id, "an id names one write");
        }
    }

    fn of(dir: &Path, authority: &str, bucket: &str) -> Journal {
        let file = dir.join("f.jsonl");
        fs::write(&file, "").expect("writes");
        Journal::within(&dir.join("deep"), &file, ("dev", authority), bucket).expect("there is a place")
    }

    fn terms() -> Terms {
        Terms { w: Some(3), sloppy: Some(false), timeout_ms: None, replace: true }
    }

    #[test]
    fn a_journal_keeps_the_run_its_terms_and_the_open_lines() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = of(dir.path(), "a", "carts");
        assert_eq!(journal.read(), None);
        let open = BTreeSet::from([3, 4, 5, 9]);
        assert_eq!(ranges(&open), [(3, 5), (9, 9)]);
        let mark = Mark { lines: 12, digest: 0xabc, failed: 3, open, is_exact: true };
        let (run, terms) = (Run::new(), terms());
        journal.write(run, &terms, &mark).expect("writes");
        assert_eq!(journal.read(), Some(Interrupted { run, terms, mark }));
        journal.remove();
        assert_eq!(journal.read(), None);
    }

    /// All `dev` clusters are called dev: a load into the second one went on where that into the first had stopped.
    #[test]
    fn another_bucket_and_another_cluster_of_the_same_name_are_other_loads() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = of(dir.path(), "a", "carts");
        journal.write(Run::new(), &terms(), &Mark::default()).expect("writes");
        let (bucket, authority) = (of(dir.path(), "a", "default"), of(dir.path(), "b", "carts"));
        assert_eq!((bucket.read(), authority.read()), (None, None));
        fs::copy(journal.path(), authority.path()).expect("copies");
        assert_eq!(authority.read(), None, "the content says whose it is, whatever it is called");
    }

    #[test]
    fn open_lines_that_no_load_has_written_are_none() {
        assert_eq!(lines_of(&[(0, u64::MAX)], u64::MAX), None);
        assert_eq!(lines_of(&[(3, 2)], 9), None);
        assert_eq!(lines_of(&[(3, 10)], 9), None);
        assert_eq!(lines_of(&[(3, 4)], 9), Some(BTreeSet::from([3, 4])));
    }

    #[test]
    fn a_resumed_load_goes_on_with_what_it_ran_with_and_refuses_anything_else() {
        assert_eq!(terms().resumed_with(&Terms::default()).expect("nothing is said"), terms());
        assert_eq!(terms().resumed_with(&terms()).expect("the same is said"), terms());
        for (given, flag) in [
            (Terms { w: Some(1), ..Terms::default() }, "-w"),
            (Terms { sloppy: Some(true), ..Terms::default() }, "--sloppy"),
            (Terms { timeout_ms: Some(1), ..Terms::default() }, "--timeout"),
        ] {
            let failure = terms().resumed_with(&given).expect_err("contradicts");
            assert!(failure.message().starts_with(flag), "{failure}");
        }
        let adds = Terms::default();
        assert!(adds.resumed_with(&Terms { replace: true, ..Terms::default() }).is_err());
    }
}
