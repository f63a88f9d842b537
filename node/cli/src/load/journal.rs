//! How far a load came, and under which names it wrote: what `--resume` goes on from.
//!
//! ```json
//! {"file": "/data/f.jsonl", "cluster": "shop", "bucket": "carts", "run": "5f0c…", "lines": 500, "digest": "ab12…", "failed": 0}
//! ```
//! It is in the user's state directory from the first write on, and goes when everything is loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use driftless_client::WriteId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

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

/// Up to which line everything is settled, and what those lines were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    /// Lines of the file.
    pub(crate) lines: u64,
    /// Hash of them.
    pub(crate) digest: u64,
    /// How many of them are wrong, and were not loaded.
    pub(crate) failed: u64,
}

/// Where a load writes down how far it came.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: String,
    cluster: String,
    bucket: String,
}

#[derive(Serialize, Deserialize)]
struct Written {
    file: String,
    cluster: String,
    bucket: String,
    run: String,
    lines: u64,
    digest: String,
    failed: u64,
}

impl Journal {
    /// Of this file into this bucket; none if there is no place for it.
    pub(crate) fn of(file: &Path, cluster: &str, bucket: &str) -> Option<Journal> {
        let base = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(&std::env::var_os("HOME")?).join(".local/state"),
        };
        Journal::within(&base.join("driftless"), file, cluster, bucket)
    }

    fn within(dir: &Path, file: &Path, cluster: &str, bucket: &str) -> Option<Journal> {
        let file = fs::canonicalize(file).ok()?.display().to_string();
        let name = xxh3_64(format!("{file}\n{cluster}\n{bucket}").as_bytes());
        let path = dir.join(format!("load-{name:016x}.json"));
        Some(Journal { path, file, cluster: cluster.to_owned(), bucket: bucket.to_owned() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What an interrupted load has left.
    pub(crate) fn read(&self) -> Option<(Run, Mark)> {
        let Written { run, lines, digest, failed, .. } = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        let run = Run(u128::from_str_radix(&run, 16).ok()?);
        Some((run, Mark { lines, digest: u64::from_str_radix(&digest, 16).ok()?, failed }))
    }

    /// Writes it down.
    pub(crate) fn write(&self, Run(run): Run, mark: &Mark) -> Result {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)
                .map_err(|error| Failure::failed(format_args!("cannot make {}: {error}", dir.display())))?;
        }
        let written = Written {
            file: self.file.clone(),
            cluster: self.cluster.clone(),
            bucket: self.bucket.clone(),
            run: format!("{run:032x}"),
            lines: mark.lines,
            digest: format!("{:016x}", mark.digest),
            failed: mark.failed,
        };
        let text = serde_json::to_string(&written).map_err(Failure::failed)?;
        new_file::replace(&self.path, &(text + "\n"), SECRET)
    }

    /// A load that is complete need not be resumed.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Which lines are settled, though that happens out of order.
#[derive(Default)]
pub(crate) struct Settled {
    open: BTreeMap<u64, Open>,
    all_up_to: Mark,
    marked: u64,
}

struct Open {
    digest: u64,
    /// Whether it is settled, and if so whether it is wrong.
    settled: Option<bool>,
}

impl Settled {
    /// Goes on behind a mark.
    pub(crate) fn after(mark: Mark) -> Settled {
        Settled { open: BTreeMap::new(), marked: mark.lines, all_up_to: mark }
    }

    /// A line is being worked on; the digest is that of the file up to its end.
    pub(crate) fn begin(&mut self, line: u64, digest: u64) {
        self.open.insert(line, Open { digest, settled: None });
    }

    /// It is loaded, or `is_wrong`, so that trying it again would not help. A line that failed otherwise stays open, and is tried
    /// again by `--resume`.
    pub(crate) fn settle(&mut self, line: u64, is_wrong: bool) {
        if let Some(open) = self.open.get_mut(&line) {
            open.settled = Some(is_wrong);
        }
        while let Some(entry) = self.open.first_entry()
            && let Some(is_wrong) = entry.get().settled
        {
            let failed = self.all_up_to.failed + u64::from(is_wrong);
            self.all_up_to = Mark { lines: *entry.key(), digest: entry.get().digest, failed };
            entry.remove();
        }
        if self.open.len() > OPEN_LINES_MAX {
            // Behind so many a resumed load begins at the first of them anyway.
            self.open.pop_last();
        }
    }

    /// How far everything is settled.
    pub(crate) fn mark(&self) -> &Mark {
        &self.all_up_to
    }

    /// The same if it is time to write it down.
    pub(crate) fn mark_due(&mut self) -> Option<&Mark> {
        if self.all_up_to.lines < self.marked + MARK_EVERY {
            return None;
        }
        self.marked = self.all_up_to.lines;
        Some(&self.all_up_to)
    }
}

/// Writing the journal costs a few syncs, about as much as some puts.
const MARK_EVERY: u64 = 2_000;

/// Bounds the memory of a load in which much fails.
const OPEN_LINES_MAX: usize = 100_000;

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

    #[test]
    fn a_mark_covers_only_lines_that_are_all_settled() {
        let mut settled = Settled::default();
        for line in 1..=4 {
            settled.begin(line, line * 10);
        }
        settled.settle(2, true);
        assert_eq!(settled.mark(), &Mark::default());
        settled.settle(1, false);
        let two = Mark { lines: 2, digest: 20, failed: 1 };
        assert_eq!(settled.mark(), &two);
        settled.settle(4, false);
        assert_eq!(settled.mark(), &two, "line 3 failed, and is tried again by a resumed load");
    }

    #[test]
    fn a_journal_keeps_the_run_and_the_mark() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("f.jsonl");
        fs::write(&file, "").expect("writes");
        let of = |bucket| Journal::within(&dir.path().join("deep"), &file, "shop", bucket).expect("there is a place");
        let journal = of("carts");
        assert_eq!(journal.read(), None);
        let (run, mark) = (Run::new(), Mark { lines: 12, digest: 0xabc, failed: 3 });
        journal.write(run, &mark).expect("writes");
        assert_eq!(journal.read(), Some((run, mark)));
        assert_eq!(of("default").read(), None, "another bucket is another load");
        journal.remove();
        assert_eq!(journal.read(), None);
    }
}
