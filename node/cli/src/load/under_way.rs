//! A load under way: lines come in, records go out, several at once; of a key one at a time, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Instant;

use driftless_client::{Bucket, Profile};
use driftless_node::jsonl::{Line, Record};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use xxhash_rust::xxh3::xxh3_64;

use super::journal::{Journal, Run, Terms};
use super::keys::Keys;
use super::lines::{ParsedLine, Reader};
use super::marks::Marks;
use super::progress::Progress;
use super::settled::{Mark, Settled};
use super::store::{Fault, How, NotStored, PATIENCE, Patience, Stored, store};
use super::summary::Summary;
use crate::exit::{Failure, Result};
use crate::output;

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

/// A load under way.
pub(crate) struct Load<'a> {
    bucket: &'a Bucket,
    options: Options,
    progress: Progress,
    journal: Option<(Journal, Terms)>,
    /// Whether the journal is of this load; before its first settled line another one may have left it.
    is_noted: bool,
    run: Run,
    /// How far the load came that this one resumes.
    resumed: Mark,
    settled: Settled,
    summary: Summary,
    keys: Keys,
    marks: Marks,
    patience: Patience,
    /// With `replace`: lines that are to be tried again, by the hash of their key.
    outdone: BTreeMap<u64, Vec<u64>>,
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
    /// From the first line, or on from where another load came to.
    pub(crate) fn new(
        bucket: &'a Bucket,
        options: Options,
        progress: Progress,
        journal: Option<(Journal, Terms)>,
        resume: Option<(Run, Mark)>,
    ) -> Load<'a> {
        let is_noted = resume.is_some();
        let (run, resumed) = resume.unwrap_or_else(|| (Run::new(), Mark::default()));
        let summary = Summary { failed_before: resumed.failed, replaces: options.replace, ..Summary::default() };
        let settled = Settled::after(resumed.clone());
        let (keys, marks, patience) = (Keys::default(), Marks::default(), Patience::default());
        let outdone = BTreeMap::new();
        Load {
            bucket,
            options,
            progress,
            journal,
            is_noted,
            run,
            resumed,
            settled,
            summary,
            keys,
            marks,
            patience,
            outdone,
        }
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
            if self.journal.is_some()
                && let Some(mark) = self.settled.mark_due()
            {
                self.write_journal(&mark);
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
        if line.number == self.resumed.lines && line.digest != self.resumed.digest {
            return Next::Stop(has_changed());
        }
        if self.resumed.is_settled(line.number) {
            self.summary.skipped += 1;
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
                self.outdo(record);
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
                // A load that cannot be resumed need not know, and many lines may fail.
                if self.options.replace && self.settled.mark().is_exact {
                    self.outdone.entry(xxh3_64(record.key.as_bytes())).or_default().push(line);
                }
                self.patience.is_over(Instant::now())
            }
            Fault::Load => return Some(failure),
        };
        self.failure(line, &format!("key {}{which}: {}", record.key, failure.message()));
        is_over.then(|| {
            failure.about(format_args!("nothing could be stored for {} s, the last error", PATIENCE.as_secs()))
        })
    }

    /// A record has replaced what lines before it would have written. To try those again would put an older value in its place.
    fn outdo(&mut self, record: &Record) {
        for line in self.outdone.remove(&xxh3_64(record.key.as_bytes())).unwrap_or_default() {
            self.settled.settle(line, false);
            self.summary.failed_for_now -= 1;
        }
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
    fn write_journal(&mut self, mark: &Mark) {
        let Some((journal, terms)) = &self.journal else { return };
        match journal.write(self.run, terms, mark) {
            Ok(()) => self.is_noted = true,
            Err(failure) => {
                let text = format!("{}; this load cannot be resumed", failure.message());
                self.progress.above(|| output::warning(text));
                self.journal = None;
            }
        }
    }

    fn end(mut self, stopped: Option<Failure>, started: Instant) -> Summary {
        if stopped.is_some() || self.summary.failed_for_now > 0 {
            // What another load has left stays until this one has something to tell.
            if self.is_noted || self.settled.has_news() {
                let mark = self.settled.mark().clone();
                self.write_journal(&mark);
            }
        } else if let Some((journal, _)) = &self.journal {
            journal.remove();
        }
        let can_go_on = self.is_noted && (self.settled.mark().is_exact || !self.options.replace);
        let Load { mut summary, keys, marks, journal, .. } = self;
        let journal = journal.filter(|_| can_go_on);
        summary.keys = keys.counts();
        if stopped.is_none() {
            summary.problems = marks.problems();
        }
        summary.stopped = stopped.map(|failure| match &journal {
            Some((journal, _)) => {
                failure.also(format_args!("how far it came is written in {}", journal.path().display()))
            }
            None => failure,
        });
        summary.is_resumable = journal.is_some();
        summary.elapsed = started.elapsed();
        summary
    }
}

/// A resumed load and its file do not belong together.
pub(super) fn has_changed() -> Failure {
    Failure::failed("the file has changed since the load that was interrupted")
        .hint("load it without --resume: what is there already is left alone")
}

fn bytes(record: &Record) -> usize {
    record.values.iter().map(bytes::Bytes::len).sum()
}

/// More would bury the summary.
const FAILURES_SHOWN_MAX: u64 = 20;

/// Beyond this no further record is begun: 64 values of the longest kind would take four times as much.
const BYTES_UNDER_WAY_MAX: usize = 64 << 20;
