//! `driftless load FILE.jsonl`: many records, some of which may be wrong, without stopping.
//!
//! ```text
//! lines.rs     the lines of the file, in bounded memory, parsed by a thread of their own
//! formats.rs   what a file is that holds no such lines
//! marks.rs     whether a dump is whole
//! keys.rs      keys that have several lines, siblings, or too many values
//! store.rs     what is written for one record, and whose fault it is if that fails
//! journal.rs   how far the load came, for --resume
//! summary.rs   what it did, in numbers and words
//! progress.rs  what people see meanwhile
//! ```
//! Each key is read first. A value that is live already is left alone, so that a file can be loaded again, and a dump into the
//! cluster that it came from; others become siblings of what is there, or take its place (`--replace`, and where the last writer
//! wins). Records of one key are stored in the order of the file.
//!
//! Write ids follow from the load, the line and the value ([`Run`](journal::Run)). A write made again, by a retry or by `--resume`,
//! is recognised by the nodes; what an earlier load of the same file wrote, and somebody has deleted since, is written again.

mod formats;
mod journal;
mod keys;
mod lines;
mod marks;
mod progress;
mod store;
mod summary;

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use driftless_client::{Bucket, Profile};
use driftless_node::jsonl::{Line, Record};
use driftless_proto::Conflict;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::output::{self, Format, Tone, grouped};
use super::quorum::WriteArgs;
use super::session::{self, BucketArg};
use journal::{Journal, Mark, Run, Settled};
use keys::{Crowding, Keys};
use lines::ParsedLine;
use marks::Marks;
use store::{Fault, How, NotStored, PATIENCE, Patience, Stored, store};

pub(crate) use lines::{Lines, Reader};
pub(crate) use progress::Progress;
pub(crate) use summary::Summary;

/// A line that cannot be read or stored is reported with its number, and the load goes on. Exit code 1 if there was one; 7 if
/// the file is a dump that is not whole.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// JSON lines; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    bucket: BucketArg,
    /// Records under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    #[command(flatten)]
    quorum: WriteArgs,
    /// Go on where an interrupted load of this file into this bucket stopped
    #[arg(long)]
    resume: bool,
    /// Replace what is there, instead of adding a sibling; of several lines of a key the last one stays
    #[arg(long)]
    replace: bool,
}

/// How records are written.
#[derive(Debug)]
pub(crate) struct Options {
    /// Records under way at once.
    pub(crate) concurrency: usize,
    /// How each is written.
    pub(crate) puts: Profile,
    /// In place of what is there.
    pub(crate) replace: bool,
}

/// Loads a file.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let from_stdin = args.file.as_os_str() == "-";
    if args.resume && from_stdin {
        return Err(Failure::usage("--resume needs a file, not standard input")
            .hint("load it again: what is there already is left alone"));
    }
    let file = if from_stdin { None } else { Some(open(&args.file)?) };
    let size = file.as_ref().and_then(regular_size);
    let input: Box<dyn Read + Send> = match file {
        Some(file) => Box::new(file),
        None => Box::new(io::stdin()),
    };
    let mut input = BufReader::with_capacity(BUFFER, input);
    let head = input.fill_buf().map_err(|error| unreadable(&args.file, &error))?;
    let load = format!("driftless{} load{} -", global.profile_flag(), args.bucket.flag());
    if let Some((what, how)) = formats::another_format(head, &args.file.display().to_string(), &load) {
        let name = if from_stdin { "standard input".to_owned() } else { args.file.display().to_string() };
        return Err(Failure::failed(format_args!("{name} {what}")).hint(how));
    }
    let summary = session::run(global, async |client| {
        let bucket = session::existing_bucket(client, &args.bucket)?;
        let topology = client.topology();
        let last_writer_wins =
            topology.bucket_named(bucket.name()).is_some_and(|bucket| bucket.conflict == Conflict::Lww);
        let replace = args.replace || last_writer_wins;
        if size.is_some() && !replace {
            refuse_crowding(&args.file)?;
        }
        let journal = if from_stdin { None } else { Journal::of(&args.file, topology.cluster(), &args.bucket.bucket) };
        let resume = goes_on_from(args, journal.as_ref());
        let options = Options { concurrency: usize::from(args.concurrency), puts: args.quorum.profile(), replace };
        let mut interrupts = Interrupts::listen()?;
        let load = Load::new(&bucket, options, Progress::new(size, "loading"), journal, resume);
        let reader = Reader::start(Lines::new(input))
            .map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
        load.run(reader, interrupts.next()).await
    })?;
    report(global, args, &summary)?;
    match summary.stopped {
        Some(failure) => Err(failure.or_hint(|| how_to_go_on(global, args))),
        None if summary.failed + summary.failed_before > 0 => Ok(Exit::Failed.into()),
        None if !summary.problems.is_empty() => Ok(Exit::Incomplete.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Before anything is written.
fn refuse_crowding(file: &Path) -> Result {
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER, open(file)?));
    let mut crowding = Crowding::default();
    while let Some(line) = lines.parse().map_err(|error| unreadable(file, &error))? {
        if let Ok(Some(Line::Record(record))) = line.content {
            crowding.meet(&record);
        }
    }
    match crowding.crowded() {
        None => Ok(()),
        Some((key, values)) => Err(Failure::failed(format_args!(
            "key {key} has {values} values in {}, and a key holds {} at most; nothing was written",
            file.display(),
            driftless_proto::key::SIBLINGS_MAX
        ))
        .hint("to keep the last line of each key, load with --replace")),
    }
}

fn goes_on_from(args: &Args, journal: Option<&Journal>) -> Option<(Run, Mark)> {
    let interrupted = journal.and_then(Journal::read);
    match (&interrupted, args.resume) {
        (None, true) => output::note("no interrupted load of this file into this bucket is known: it begins at line 1"),
        (Some((_, mark)), false) if mark.lines > 0 => output::note(format_args!(
            "a load of this file was interrupted after line {}; this one begins at line 1, --resume would go on from there",
            grouped(mark.lines)
        )),
        _ => {}
    }
    interrupted.filter(|_| args.resume)
}

fn how_to_go_on(global: &GlobalArgs, args: &Args) -> String {
    if args.file.as_os_str() == "-" {
        return "load it again: what is there already is left alone".to_owned();
    }
    let replace = if args.replace { " --replace" } else { "" };
    let (profile, bucket) = (global.profile_flag(), args.bucket.flag());
    format!("go on with: driftless{profile} load{bucket}{replace} --resume {}", args.file.display())
}

fn open(file: &Path) -> Result<File> {
    File::open(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot read {}: {error}", file.display()))
}

fn regular_size(file: &File) -> Option<u64> {
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

fn report(global: &GlobalArgs, args: &Args, summary: &Summary) -> Result {
    if global.format == Format::Json {
        return output::json_line(&summary.as_json());
    }
    output::line(summary.sentence())?;
    let get = format!("driftless{} get{}", global.profile_flag(), args.bucket.flag());
    for (tone, text) in summary.notes(&get, args.replace) {
        match tone {
            Tone::Warning => output::warning(text),
            _ => output::note(text),
        }
    }
    if summary.failed_for_now > 0 && summary.stopped.is_none() {
        output::note(format_args!(
            "{} failed for want of answers; {}",
            lines(summary.failed_for_now),
            how_to_go_on(global, args)
        ));
    }
    Ok(())
}

fn lines(count: u64) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{} lines", grouped(count)) }
}

/// A load under way.
pub(crate) struct Load<'a> {
    bucket: &'a Bucket,
    options: Options,
    progress: Progress,
    journal: Option<Journal>,
    run: Run,
    /// Lines up to this one are settled by the load that this one resumes.
    resumed: Mark,
    settled: Settled,
    summary: Summary,
    keys: Keys,
    marks: Marks,
    patience: Patience,
}

/// What a line asks for.
enum Next {
    /// Nothing more.
    Line,
    /// That this be stored.
    Record(u64, Record),
    /// That the load end.
    Stop(Failure),
}

impl<'a> Load<'a> {
    /// From the first line, or behind where another load came to.
    pub(crate) fn new(
        bucket: &'a Bucket,
        options: Options,
        progress: Progress,
        journal: Option<Journal>,
        resume: Option<(Run, Mark)>,
    ) -> Load<'a> {
        let (run, resumed) = resume.unwrap_or_else(|| (Run::new(), Mark::default()));
        let summary = Summary { failed_before: resumed.failed, ..Summary::default() };
        let settled = Settled::after(resumed.clone());
        let (keys, marks, patience) = (Keys::default(), Marks::default(), Patience::default());
        Load { bucket, options, progress, journal, run, resumed, settled, summary, keys, marks, patience }
    }

    /// Reads lines to the end and stores them, until that or somebody's wish to end.
    pub(crate) async fn run(mut self, mut reader: Reader, interrupted: impl Future<Output = ()>) -> Result<Summary> {
        let started = Instant::now();
        let puts = self.bucket.with_profile(&self.options.puts);
        let mut interrupted = std::pin::pin!(interrupted);
        let mut under_way = FuturesUnordered::new();
        let mut keys_under_way = BTreeSet::new();
        let mut bytes_under_way = 0;
        // A record whose key is under way waits for that: of several lines of a key the last one stays.
        let mut waiting: Option<(u64, Record)> = None;
        let mut is_at_end = false;
        let mut position = (0, 0);
        self.write_journal();
        let stopped = loop {
            if let Some((line, record)) = waiting.take_if(|(_, record)| !keys_under_way.contains(&record.key)) {
                keys_under_way.insert(record.key.clone());
                bytes_under_way += bytes(&record);
                let (bucket, puts, run, replace) = (self.bucket, &puts, self.run, self.options.replace);
                under_way.push(async move {
                    let outcome = store(bucket, puts, (run, line), &record, replace).await;
                    (line, record, outcome)
                });
            }
            if is_at_end && waiting.is_none() && under_way.is_empty() {
                break None;
            }
            let has_room = waiting.is_none()
                && under_way.len() < self.options.concurrency
                && bytes_under_way < BYTES_UNDER_WAY_MAX;
            tokio::select! {
                biased;
                () = &mut interrupted => break Some(Failure::failed("interrupted")),
                Some((line, record, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    keys_under_way.remove(&record.key);
                    bytes_under_way -= bytes(&record);
                    if let Some(failure) = self.take(line, &record, outcome) {
                        break Some(failure);
                    }
                }
                line = reader.next(), if has_room && !is_at_end => match line {
                    Ok(None) if position.1 < self.resumed.lines => break Some(has_changed()),
                    Ok(None) => is_at_end = true,
                    Ok(Some(line)) => {
                        position = (line.position, line.number);
                        match self.meet(line) {
                            Next::Line => {}
                            Next::Record(line, record) => waiting = Some((line, record)),
                            Next::Stop(failure) => break Some(failure),
                        }
                    }
                    Err(error) => {
                        break Some(Failure::failed(format_args!("cannot read line {}: {error}", position.1 + 1)));
                    }
                },
            }
            self.progress.show(position.0, position.1, self.summary.loaded, self.summary.failed);
            if self.journal.is_some() && self.settled.mark_due().is_some() {
                self.write_journal();
            }
        };
        self.progress.finish();
        Ok(self.end(stopped, started))
    }

    /// A line of the file.
    fn meet(&mut self, line: ParsedLine) -> Next {
        let is_record = !matches!(line.content, Ok(None | Some(Line::DumpBegins { .. } | Line::DumpEnds { .. })));
        match &line.content {
            Ok(Some(Line::DumpBegins { .. })) => self.marks.begin(),
            Ok(Some(Line::DumpEnds { records, complete })) => self.marks.end(*records, *complete),
            _ if is_record => self.marks.record(),
            _ => {}
        }
        if line.number <= self.resumed.lines {
            self.summary.skipped += 1;
            if line.number == self.resumed.lines && line.digest != self.resumed.digest {
                return Next::Stop(has_changed());
            }
            return Next::Line;
        }
        self.settled.begin(line.number, line.digest);
        match line.content {
            Ok(Some(Line::Record(record))) => {
                self.keys.meet(&record.key);
                return Next::Record(line.number, record);
            }
            Ok(_) => self.settled.settle(line.number, false),
            Err(problem) => {
                self.settled.settle(line.number, true);
                self.failure(line.number, &problem);
            }
        }
        Next::Line
    }

    /// What has become of a record. A failure, if there is no use in going on.
    fn take(&mut self, line: u64, record: &Record, outcome: std::result::Result<Stored, NotStored>) -> Option<Failure> {
        let NotStored { failure, fault } = match outcome {
            Ok(Stored { siblings, how }) => {
                self.patience.heard();
                self.settled.settle(line, false);
                self.summary.loaded += 1;
                self.summary.unchanged += u64::from(how == How::Unchanged);
                if how == How::Covered {
                    self.summary.covered += 1;
                    self.summary.covered_example.get_or_insert_with(|| record.key.clone());
                }
                self.keys.has_siblings(&record.key, siblings > record.values.len());
                return None;
            }
            Err(not_stored) => not_stored,
        };
        let which = match self.keys.records_of(&record.key) {
            0 | 1 => String::new(),
            records => format!(", which {records} lines so far are of"),
        };
        let is_over = match fault {
            Fault::Record => {
                self.patience.heard();
                self.settled.settle(line, true);
                false
            }
            // Its line stays open, so that --resume tries it again.
            Fault::Cluster => {
                self.summary.failed_for_now += 1;
                self.patience.is_over(Instant::now())
            }
            Fault::Load => return Some(failure),
        };
        self.failure(line, &format!("key {}{which}: {}", record.key, failure.message()));
        is_over.then(|| {
            failure.about(format_args!("nothing could be stored for {} s, the last error", PATIENCE.as_secs()))
        })
    }

    fn failure(&mut self, line: u64, problem: &str) {
        self.summary.failed += 1;
        match self.summary.failed {
            1..=FAILURES_SHOWN_MAX => self.progress.above(|| output::warning(format_args!("line {line}: {problem}"))),
            n if n == FAILURES_SHOWN_MAX + 1 => {
                self.progress.above(|| output::warning("more lines failed; they are counted"));
            }
            _ => {}
        }
    }

    /// Without it a load cannot be resumed but still be repeated.
    fn write_journal(&mut self) {
        if let Some(journal) = &self.journal
            && let Err(failure) = journal.write(self.run, self.settled.mark())
        {
            let text = format!("{}; this load cannot be resumed", failure.message());
            self.progress.above(|| output::warning(text));
            self.journal = None;
        }
    }

    fn end(mut self, stopped: Option<Failure>, started: Instant) -> Summary {
        if stopped.is_some() || self.summary.failed_for_now > 0 {
            self.write_journal();
        } else if let Some(journal) = &self.journal {
            journal.remove();
        }
        let Load { mut summary, keys, marks, journal, .. } = self;
        summary.keys = keys.counts();
        if stopped.is_none() {
            summary.problems = marks.problems();
        }
        summary.stopped = stopped.map(|failure| match &journal {
            Some(journal) => failure.also(format_args!("how far it came is written in {}", journal.path().display())),
            None => failure,
        });
        summary.elapsed = started.elapsed();
        summary
    }
}

fn has_changed() -> Failure {
    Failure::failed("the file has changed since the load that was interrupted")
        .hint("load it without --resume: what is there already is left alone")
}

fn bytes(record: &Record) -> usize {
    record.values.iter().map(bytes::Bytes::len).sum()
}

/// More would bury the summary.
const FAILURES_SHOWN_MAX: u64 = 20;

/// What is read at once.
const BUFFER: usize = 1 << 20;

/// Beyond this no further record is begun: 64 values of the longest kind would take four times as much.
const BYTES_UNDER_WAY_MAX: usize = 64 << 20;
