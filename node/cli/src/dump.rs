//! `driftless dump`: all records of a bucket as `load` reads them, siblings included.
//!
//! ```text
//! .FILE.….new       what is being written, beside the file; it goes if the dump fails or is interrupted
//! FILE              takes its name once all of it is on disk, and only if nothing can be missing
//! FILE.incomplete   takes it if keys may be missing; FILE stays as it was
//! ```
//! The file is often the last backup: nothing is written into it, and nothing takes its place that may be less. The first line of a
//! dump and its last one are marks, so that `load` notices if a part of it is missing, however it came to be cut off.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client};
use driftless_node::jsonl::{Line, Record};
use futures::StreamExt;
use serde_json::json;

use super::completeness::{Doubts, doubts, doubts_after};
use super::exit::{self, Exit, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::new_file::{NewFile, PUBLIC};
use super::output::{self, Format, grouped};
use super::profile::parse_duration;
use super::session::{self, BucketArg, IntoFailure};

/// Keys are read one by one while others may write: this is no snapshot. Exit code 7 if keys may be missing.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    bucket: BucketArg,
    /// Write to this file instead of standard output. It is replaced at the end, if nothing can be missing from the dump;
    /// otherwise it stays as it is, and the dump is FILE.incomplete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Reads under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Wait so long at most until the replicas hold everything, as in 60s, and only then begin
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// Writes every record.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let mut stays = args.output.as_deref().filter(|path| path.is_file());
    let ended = session::run(global, async |client| {
        let bucket = session::existing_bucket(client, &args.bucket)?;
        match &args.output {
            None => {
                let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
                write_all(client, &bucket, args, &mut out).await.map(|dumped| (dumped, None))
            }
            // A device or a pipe has nothing to lose, and must not be replaced by a file.
            Some(path) if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) => {
                let file = File::options()
                    .write(true)
                    .open(path)
                    .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))?;
                let mut out = BufWriter::with_capacity(BUFFER, file);
                write_all(client, &bucket, args, &mut out).await.map(|dumped| (dumped, None))
            }
            Some(path) => {
                // Elsewhere nothing has to be put away, and a signal ends the process, also while nobody reads its output.
                let mut interrupts = Interrupts::listen()?;
                let new = NewFile::beside(path, PUBLIC)?;
                let mut out = BufWriter::with_capacity(BUFFER, new.file());
                let dumped = tokio::select! {
                    dumped = write_all(client, &bucket, args, &mut out) => dumped?,
                    () = interrupts.next() => return Err(Failure::failed("interrupted")),
                };
                drop(out);
                let at = if dumped.is_whole() {
                    // If this fails it may have its name all the same.
                    stays = None;
                    new.replace()
                } else {
                    new.replace_with_end(".incomplete")
                }?;
                Ok((dumped, Some(at)))
            }
        }
    });
    let (dumped, at) = ended.map_err(|failure| match stays {
        Some(path) => failure.also(format_args!("{} is as it was", path.display())),
        None => failure,
    })?;
    let printed = at.map_or(Ok(()), |at| report(global, &dumped, &at));
    exit::after_printing(dumped.ended(), printed)
}

fn report(global: &GlobalArgs, dumped: &Dumped, at: &Path) -> Result {
    if !dumped.is_whole() {
        output::note(format_args!("what was read is in {}", at.display()));
    }
    if global.format != Format::Json {
        return Ok(());
    }
    output::json_line(&json!({
        "records": dumped.records,
        "unread": dumped.unread,
        "complete": dumped.is_whole(),
        "doubts": dumped.doubts.as_json(),
        "file": at.display().to_string(),
    }))
}

/// What a dump came to.
struct Dumped {
    records: u64,
    /// Keys that were listed and could not be read.
    unread: u64,
    doubts: Doubts,
}

impl Dumped {
    fn is_whole(&self) -> bool {
        self.unread == 0 && self.doubts.is_empty()
    }

    fn ended(&self) -> Result<Option<Exit>> {
        if self.unread > 0 {
            let failure = format_args!("{} keys could not be read; the dump is incomplete", self.unread);
            return Err(Failure::failed(failure).hint("run it again when all nodes are up"));
        }
        Ok((!self.doubts.is_empty()).then_some(Exit::Incomplete))
    }
}

async fn write_all(client: &Client, bucket: &Bucket, args: &Args, out: &mut impl Write) -> Result<Dumped> {
    let topology = session::topology(client);
    let n = topology.bucket_named(bucket.name()).map_or(0, |bucket| bucket.quorum.n());
    let before = doubts_after(client, n, args.wait.unwrap_or_default()).await;
    let started = Instant::now();
    let mut shown = started;
    let (mut records, mut unread) = (0_u64, 0_u64);
    let begins = Line::DumpBegins { cluster: topology.cluster().to_owned(), bucket: bucket.name().to_owned() };
    written(writeln!(out, "{}", begins.to_json()))?;
    let reads = bucket.scan().keys().map(|key| async {
        let key = key.map_err(IntoFailure::into_failure)?;
        let read = bucket.get(key.to_bytes()).await;
        Ok::<_, Failure>((key, read))
    });
    let mut reads = Box::pin(reads.buffer_unordered(usize::from(args.concurrency)));
    while let Some(read) = reads.next().await {
        let (key, read) = read?;
        let values: Vec<_> = match read {
            Ok(read) => read.values().cloned().collect(),
            Err(error) => {
                unread += 1;
                output::warning(format_args!("key {key}: {error}"));
                continue;
            }
        };
        // Deleted since the scan saw it.
        if values.is_empty() {
            continue;
        }
        written(writeln!(out, "{}", Line::Record(Record { key, values }).to_json()))?;
        records += 1;
        if shown.elapsed() > Duration::from_secs(3) {
            shown = Instant::now();
            output::note(format_args!("dumping: {} records", grouped(records)));
        }
    }
    let doubts = before.and(doubts(client, n).await);
    let dumped = Dumped { records, unread, doubts };
    let ends = Line::DumpEnds { records, complete: dumped.is_whole() };
    written(writeln!(out, "{}", ends.to_json()).and_then(|()| out.flush()))?;
    output::note(format_args!("{} records in {:.1} s", grouped(records), started.elapsed().as_secs_f64()));
    if !dumped.doubts.is_empty() {
        dumped.doubts.warn("this dump");
        output::note("dump again then, or with --wait 60s");
    }
    Ok(dumped)
}

fn written(result: std::io::Result<()>) -> Result {
    result.map_err(|error| Failure::of_output(&error, "the dump"))
}

const BUFFER: usize = 1 << 20;
