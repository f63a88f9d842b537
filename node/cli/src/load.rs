//! `driftless load FILE.jsonl`: many records, some of which may be wrong, without stopping.
//!
//! ```text
//! {"key": "bat", "value": "text"}
//! {"key": "img", "value": {"base64": "iVBORw0KGgo="}}
//! {"key": "two", "values": ["siblings", "as `dump` writes them"]}
//! ```
//! The write id of each value follows from bucket, key, the file's name, the line's number and the line itself. Nodes recognise
//! a write that they hold already, so running a load again, as a whole or from where it stopped, makes no siblings. They also
//! recognise a write that has been replaced or deleted since, which stays so: such records are counted apart, and not as
//! loaded. With `--replace` ids are drawn: what is read first says what is stored already, and the same value in place of
//! something else is another write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Profile};
use driftless_node::jsonl::{Record, parse_line};
use driftless_proto::Key;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, Tone, grouped};
use super::quorum::WriteArgs;
use super::session::{self, BucketArg, IntoFailure};

/// A line that cannot be read or stored is reported with its number, and the load goes on. Exit code 1 if there was one, or if
/// a record had been loaded before and is not there any more.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// JSON lines; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    bucket: BucketArg,
    /// Puts under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    #[command(flatten)]
    quorum: WriteArgs,
    /// Skip what an interrupted load of this file has stored already
    #[arg(long)]
    resume: bool,
    /// Read each key first and replace what is there, instead of adding a sibling
    #[arg(long)]
    replace: bool,
}

/// What a load did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// Records that are stored.
    pub(crate) loaded: u64,
    /// Lines that could not be read or stored.
    pub(crate) failed: u64,
    /// Lines that `--resume` skipped.
    pub(crate) skipped: u64,
    /// Records that had been stored before under the same name, and have been replaced or deleted since: they are not there.
    pub(crate) gone: u64,
    /// The key of such a record.
    pub(crate) gone_example: Option<Key>,
    /// Keys that have more values now than any record gives them.
    pub(crate) with_siblings: u64,
    /// Keys among them of which the file has several records.
    pub(crate) repeated: u64,
    /// Of these the key with the most records, and how many it has.
    pub(crate) repeated_example: Option<(Key, u64)>,
    /// A key with siblings of which the file has one record: it had values before.
    pub(crate) sibling_example: Option<Key>,
    /// Time it took.
    pub(crate) elapsed: Duration,
}

/// How records are written.
#[derive(Debug)]
pub(crate) struct Options {
    /// Puts under way at once.
    pub(crate) concurrency: usize,
    /// How each is made.
    pub(crate) puts: Profile,
    /// Read first, and replace.
    pub(crate) replace: bool,
}

/// Loads a file.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let from_stdin = args.file.as_os_str() == "-";
    let (input, size): (Box<dyn Read>, Option<u64>) = if from_stdin {
        (Box::new(std::io::stdin().lock()), None)
    } else {
        let file = File::open(&args.file)
            .map_err(|error| Failure::failed(format_args!("cannot read {}: {error}", args.file.display())))?;
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        (Box::new(file), size)
    };
    if args.resume && from_stdin {
        return Err(Failure::usage("--resume needs a file, not standard input"));
    }
    let summary = session::run(global, async |client| {
        let bucket = session::existing_bucket(client, &args.bucket)?;
        let journal = if from_stdin {
            None
        } else {
            Journal::of(&args.file, session::topology(client).cluster(), &args.bucket.bucket)
        };
        let options =
            Options { concurrency: usize::from(args.concurrency), puts: args.quorum.profile(), replace: args.replace };
        let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let progress = Progress::new(size, "loading");
        let resume = if args.resume { journal.as_ref().and_then(Journal::read) } else { None };
        let load = Load { bucket: &bucket, options, name: &name, progress, journal };
        load.run(BufReader::with_capacity(1 << 20, input), resume).await
    })?;
    report(global, &args.bucket, &summary)?;
    Ok(if summary.failed + summary.gone > 0 { Exit::Failed.into() } else { ExitCode::SUCCESS })
}

/// A load under way.
pub(crate) struct Load<'a> {
    /// Where to.
    pub(crate) bucket: &'a Bucket,
    /// How.
    pub(crate) options: Options,
    /// The file's name, which is part of every write id.
    pub(crate) name: &'a str,
    /// What people see meanwhile.
    pub(crate) progress: Progress,
    /// Where to write down how far it came.
    pub(crate) journal: Option<Journal>,
}

impl Load<'_> {
    /// Reads lines to the end and stores them.
    pub(crate) async fn run(mut self, mut input: impl BufRead, resume: Option<Mark>) -> Result<Summary> {
        let started = Instant::now();
        let puts = self.bucket.with_profile(&self.options.puts);
        let mut summary = Summary::default();
        let mut under_way = FuturesUnordered::new();
        let mut keys_under_way = BTreeSet::new();
        let mut keys = Keys::default();
        let mut done = DoneLines::default();
        let mut digest = Digest::default();
        let mut line = Vec::new();
        let mut number = 0;
        let mut bytes = 0_u64;
        let mut skip_to = resume.as_ref().map_or(0, |mark| mark.lines);
        loop {
            line.clear();
            let read = input
                .read_until(b'\n', &mut line)
                .map_err(|error| Failure::failed(format_args!("cannot read line {}: {error}", number + 1)))?;
            if read == 0 {
                break;
            }
            number += 1;
            bytes += read as u64;
            digest.line(&line);
            if number <= skip_to {
                summary.skipped += 1;
                done.finish(number);
                if number == skip_to && resume.as_ref().is_some_and(|mark| mark.digest != digest.value()) {
                    return Err(Failure::failed("the file has changed since the load that was interrupted")
                        .hint("load it again without --resume; what is stored already makes no siblings"));
                }
                continue;
            }
            skip_to = 0;
            done.begin(number, digest.value());
            match parse_line(self.bucket.name(), self.name, number, &line) {
                Ok(None) => done.finish(number),
                Ok(Some(record)) => {
                    // Records of one key are stored in their order: with --replace the last one stays.
                    while keys_under_way.contains(&record.key)
                        && let Some((before, outcome)) = under_way.next().await
                    {
                        self.take(&mut summary, &mut done, &mut keys, &before, outcome);
                        keys_under_way.remove(&before.key);
                    }
                    keys_under_way.insert(record.key.clone());
                    keys.meet(&record.key);
                    let (bucket, puts, replace) = (self.bucket, &puts, self.options.replace);
                    under_way.push(async move {
                        let outcome = store(bucket, puts, replace, &record).await;
                        (record, outcome)
                    });
                }
                Err(problem) => {
                    self.failure(&mut summary, number, &problem);
                    done.finish(number);
                }
            }
            while under_way.len() >= self.options.concurrency {
                if let Some((record, outcome)) = under_way.next().await {
                    keys_under_way.remove(&record.key);
                    self.take(&mut summary, &mut done, &mut keys, &record, outcome);
                }
            }
            self.progress.show(bytes, number, &summary);
            self.write_journal(&mut done, &summary);
        }
        while let Some((record, outcome)) = under_way.next().await {
            self.take(&mut summary, &mut done, &mut keys, &record, outcome);
            self.progress.show(bytes, number, &summary);
        }
        self.progress.finish();
        keys.sum_up(&mut summary);
        if let Some(journal) = &self.journal {
            // A complete load need not be resumed; lines that failed shall be tried again by the next load.
            journal.remove();
        }
        summary.elapsed = started.elapsed();
        Ok(summary)
    }

    fn take(
        &self,
        summary: &mut Summary,
        done: &mut DoneLines,
        keys: &mut Keys,
        record: &Record,
        outcome: Result<StoredRecord>,
    ) {
        match outcome {
            Ok(stored) => {
                if stored.is_there {
                    summary.loaded += 1;
                    // Where the last writer wins, this line has replaced those before it: the file has what it wants.
                    let replaced = keys.is_there(&record.key);
                    summary.gone -= replaced;
                    summary.loaded += replaced;
                } else {
                    summary.gone += 1;
                    keys.is_gone(&record.key);
                }
                if stored.siblings as usize > record.values.len() {
                    keys.has_siblings(&record.key);
                }
                done.finish(record.line);
            }
            // Its line stays unfinished, so that --resume tries it again.
            Err(failure) => {
                let which = match keys.records_of(&record.key) {
                    0 | 1 => String::new(),
                    records => format!(", which {records} lines so far are of"),
                };
                self.failure(summary, record.line, &format!("key {}{which}: {}", record.key, failure.message()));
            }
        }
    }

    fn failure(&self, summary: &mut Summary, line: u64, problem: &str) {
        summary.failed += 1;
        match summary.failed {
            1..=FAILURES_SHOWN_MAX => self.progress.above(|| output::warning(format_args!("line {line}: {problem}"))),
            n if n == FAILURES_SHOWN_MAX + 1 => {
                self.progress.above(|| output::warning("more lines failed; they are counted"));
            }
            _ => {}
        }
    }

    fn write_journal(&self, done: &mut DoneLines, summary: &Summary) {
        if let Some(journal) = &self.journal
            && let Some(mark) = done.mark_due(summary.loaded)
        {
            journal.write(&mark);
        }
    }
}

/// What has become of a record.
struct StoredRecord {
    /// Values that its key has.
    siblings: u32,
    /// Whether its own are among them.
    is_there: bool,
}

/// Reads through `bucket` if what is there is to be replaced, and writes through `puts`.
async fn store(bucket: &Bucket, puts: &Bucket, replace: bool, record: &Record) -> Result<StoredRecord> {
    let mut stored = StoredRecord { siblings: 0, is_there: true };
    let mut context = None;
    if replace {
        let read = bucket.get(record.key.to_bytes()).await.map_err(IntoFailure::into_failure)?;
        let same = read.values().eq(record.values.iter().map(|(value, _)| value));
        if same {
            return Ok(StoredRecord { siblings: record.values.len() as u32, ..stored });
        }
        context = read.context().cloned();
    }
    for (value, write_id) in &record.values {
        let mut put = puts.put(record.key.to_bytes(), value.clone());
        if !replace {
            put = put.write_id(*write_id);
        }
        // The first value replaces what was read; the others are its siblings.
        if let Some(context) = context.take() {
            put = put.context(context);
        }
        let done = put.await.map_err(IntoFailure::into_failure)?;
        stored.siblings = done.siblings();
        stored.is_there &= done.is_live();
    }
    Ok(stored)
}

fn report(global: &GlobalArgs, bucket: &BucketArg, summary: &Summary) -> Result {
    let rate = summary.loaded as f64 / summary.elapsed.as_secs_f64().max(1e-9);
    if global.format == Format::Json {
        return output::json_line(&json!({
            "loaded": summary.loaded,
            "failed": summary.failed,
            "skipped": summary.skipped,
            "gone": summary.gone,
            "keys_with_siblings": summary.with_siblings,
            "keys_repeated": summary.repeated,
            "seconds": summary.elapsed.as_secs_f64(),
            "records_per_second": rate,
        }));
    }
    let skipped = if summary.skipped > 0 { format!(", skipped {}", grouped(summary.skipped)) } else { String::new() };
    output::line(format_args!(
        "loaded {} records, {} failed{skipped}, in {:.1} s ({} records/s)",
        grouped(summary.loaded),
        grouped(summary.failed),
        summary.elapsed.as_secs_f64(),
        grouped(rate as u64),
    ))?;
    notes(&global.profile_flag(), &bucket.bucket, summary).into_iter().for_each(|(tone, text)| match tone {
        Tone::Warning => output::warning(text),
        _ => output::note(text),
    });
    Ok(())
}

/// What is to be said beside the numbers.
fn notes(profile: &str, bucket: &str, summary: &Summary) -> Vec<(Tone, String)> {
    let mut notes = Vec::new();
    let many = |count: u64, one: &str, more: &str| {
        if count == 1 { format!("1 {one}") } else { format!("{} {more}", grouped(count)) }
    };
    if let Some(key) = &summary.gone_example {
        let text = format!(
            "{} been loaded before and replaced or deleted since, such as {key}, and {} not there now; load with --replace to \
             write {} again",
            many(summary.gone, "record had", "records had"),
            if summary.gone == 1 { "is" } else { "are" },
            if summary.gone == 1 { "it" } else { "them" },
        );
        notes.push((Tone::Warning, text));
    }
    if let Some((key, records)) = &summary.repeated_example {
        let text = format!(
            "{} in several lines of the file, such as {key} ({} lines): each line became a sibling of the others; see them \
             with: driftless{profile} get -b {bucket} {key}\nto keep the last line of each key, load with --replace",
            many(summary.repeated, "key is", "keys are"),
            grouped(*records),
        );
        notes.push((Tone::Quiet, text));
    }
    if let Some(key) = &summary.sibling_example {
        let text = format!(
            "{} other values before and {} siblings now, such as {key}; see them with: driftless{profile} get -b {bucket} \
             {key}\nto replace what is there instead, load with --replace",
            many(summary.with_siblings - summary.repeated, "key had", "keys had"),
            if summary.with_siblings - summary.repeated == 1 { "has" } else { "have" },
        );
        notes.push((Tone::Quiet, text));
    }
    notes
}

/// A bar for people, a line every few seconds for logs.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: Option<u64>,
    last: Instant,
}

impl Progress {
    /// Progress through this many bytes, if that is known.
    pub(crate) fn new(total: Option<u64>, what: &'static str) -> Progress {
        let bar = output::draws_progress().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = if total.is_some() {
                "{prefix} [{wide_bar}] {percent:>3} %  {msg}  {elapsed_precise}"
            } else {
                "{spinner} {prefix} {msg}  {elapsed_precise}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(what)
        });
        Progress { bar, what, total, last: Instant::now() }
    }

    fn show(&mut self, position: u64, lines: u64, summary: &Summary) {
        if self.last.elapsed() < if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL } {
            return;
        }
        self.last = Instant::now();
        let records = format!("{} records, {} failed", grouped(summary.loaded), grouped(summary.failed));
        match (&self.bar, self.total) {
            (Some(bar), _) => {
                bar.set_position(position);
                bar.set_message(records);
            }
            (None, Some(total)) if total > 0 => {
                output::note(format_args!("{}: {} %, {records}", self.what, position * 100 / total));
            }
            (None, _) => output::note(format_args!("{}: line {}, {records}", self.what, grouped(lines))),
        }
    }

    /// Prints something without tearing the bar.
    fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Up to which line everything is stored, and what those lines were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    lines: u64,
    digest: u64,
}

/// Where a load writes down how far it came: a small file in the user's state directory.
pub(crate) struct Journal(PathBuf);

impl Journal {
    fn of(file: &Path, cluster: &str, bucket: &str) -> Option<Journal> {
        let base = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(&std::env::var_os("HOME")?).join(".local/state"),
        };
        let path = std::fs::canonicalize(file).ok()?;
        let name = format!("{}\n{cluster}\n{bucket}", path.display());
        Some(Journal(base.join("driftless").join(format!("load-{:016x}", xxh3_64(name.as_bytes())))))
    }

    fn read(&self) -> Option<Mark> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        let (lines, digest) = text.trim().split_once(' ')?;
        Some(Mark { lines: lines.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? })
    }

    /// Without it a load cannot be resumed but still be repeated: failing to write it is no failure.
    fn write(&self, mark: &Mark) {
        if let Some(dir) = self.0.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        let new = self.0.with_extension("new");
        if std::fs::write(&new, format!("{} {:016x}\n", mark.lines, mark.digest)).is_ok() {
            let _ = std::fs::rename(&new, &self.0);
        }
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Running hash of the lines seen.
#[derive(Clone, Copy, Default)]
struct Digest(u64);

impl Digest {
    fn line(&mut self, line: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(line, self.0);
    }

    fn value(self) -> u64 {
        self.0
    }
}

/// The keys of a file: how many records are of each, and which have siblings now.
#[derive(Default)]
struct Keys {
    /// By a hash of the key, so that keys of any length cost the same.
    records: BTreeMap<u64, u32>,
    with_siblings: BTreeMap<u64, Key>,
    /// Of whose records the last one is not there, and how many before it.
    gone: BTreeMap<u64, (Key, u64)>,
}

impl Keys {
    fn meet(&mut self, key: &Key) {
        let hash = xxh3_64(key.as_bytes());
        if self.records.len() < KEYS_MAX || self.records.contains_key(&hash) {
            *self.records.entry(hash).or_default() += 1;
        }
    }

    /// Records met so far of this key.
    fn records_of(&self, key: &Key) -> u32 {
        self.records.get(&xxh3_64(key.as_bytes())).copied().unwrap_or_default()
    }

    fn has_siblings(&mut self, key: &Key) {
        if self.with_siblings.len() < KEYS_MAX {
            self.with_siblings.entry(xxh3_64(key.as_bytes())).or_insert_with(|| key.clone());
        }
    }

    fn is_gone(&mut self, key: &Key) {
        let hash = xxh3_64(key.as_bytes());
        if self.gone.len() < KEYS_MAX || self.gone.contains_key(&hash) {
            self.gone.entry(hash).or_insert_with(|| (key.clone(), 0)).1 += 1;
        }
    }

    /// How many records before this one were not.
    fn is_there(&mut self, key: &Key) -> u64 {
        if self.gone.is_empty() { 0 } else { self.gone.remove(&xxh3_64(key.as_bytes())).map_or(0, |(_, count)| count) }
    }

    fn sum_up(&self, summary: &mut Summary) {
        summary.gone_example = self.gone.values().next().map(|(key, _)| key.clone());
        summary.with_siblings = self.with_siblings.len() as u64;
        for (hash, key) in &self.with_siblings {
            match self.records.get(hash).copied().unwrap_or_default() {
                0 | 1 => {
                    summary.sibling_example.get_or_insert_with(|| key.clone());
                }
                records => {
                    summary.repeated += 1;
                    let records = u64::from(records);
                    if summary.repeated_example.as_ref().is_none_or(|(_, most)| records > *most) {
                        summary.repeated_example = Some((key.clone(), records));
                    }
                }
            }
        }
    }
}

/// Which lines are done, though they finish out of order.
#[derive(Default)]
struct DoneLines {
    open: BTreeMap<u64, (bool, u64)>,
    all_up_to: Option<Mark>,
    marked: u64,
}

impl DoneLines {
    fn begin(&mut self, line: u64, digest: u64) {
        self.open.insert(line, (false, digest));
    }

    fn finish(&mut self, line: u64) {
        if let Some(entry) = self.open.get_mut(&line) {
            entry.0 = true;
        }
        while let Some(entry) = self.open.first_entry() {
            let (line, (finished, digest)) = (*entry.key(), *entry.get());
            if !finished {
                break;
            }
            entry.remove();
            self.all_up_to = Some(Mark { lines: line, digest });
        }
        if self.open.len() > OPEN_LINES_MAX {
            // Lines that failed stay open; past this many a resumed load begins at the first of them anyway.
            self.open.pop_last();
        }
    }

    /// Something new to write down, now and then.
    fn mark_due(&mut self, loaded: u64) -> Option<Mark> {
        if loaded < self.marked + MARK_EVERY {
            return None;
        }
        self.marked = loaded;
        self.all_up_to.clone()
    }
}

/// More would bury the summary.
const FAILURES_SHOWN_MAX: u64 = 20;

const BAR_INTERVAL: Duration = Duration::from_millis(100);

const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// Writing the journal costs about as much as a put.
const MARK_EVERY: u64 = 500;

/// Keys that are told apart, for some tens of megabytes; of a longer file the rest is loaded like any other, and neither counted as
/// repeated nor as having siblings.
const KEYS_MAX: usize = 1 << 20;

/// Bounds the memory of a load in which everything fails.
const OPEN_LINES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_covers_only_lines_that_are_all_done() {
        let mut done = DoneLines::default();
        for line in 1..=4 {
            done.begin(line, line * 10);
        }
        done.finish(2);
        assert_eq!(done.all_up_to, None);
        done.finish(1);
        assert_eq!(done.all_up_to, Some(Mark { lines: 2, digest: 20 }));
        done.finish(4);
        assert_eq!(done.all_up_to, Some(Mark { lines: 2, digest: 20 }));
    }

    #[test]
    fn a_journal_remembers_a_mark() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal(dir.path().join("deep/mark"));
        assert_eq!(journal.read(), None);
        let mark = Mark { lines: 12, digest: 0xabc };
        journal.write(&mark);
        assert_eq!(journal.read(), Some(mark));
        journal.remove();
        assert_eq!(journal.read(), None);
    }
}
