//! `driftless dump`: all records of a bucket as `load` reads them, siblings included.
//!
//! ```text
//! FILE.new          what is being written, beside the file
//! FILE              takes its name once all of it is on disk, and only if nothing can be missing
//! FILE.incomplete   takes it if keys may be missing; FILE stays as it was
//! ```
//! The file is often the last backup: nothing is written into it, and nothing takes its place that may be less.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client};
use futures::StreamExt;
use serde_json::{Value, json};

use super::completeness::{Doubts, doubts, doubts_after};
use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, grouped, json_bytes};
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
    let ended = session::run(global, async |client| {
        let bucket = session::existing_bucket(client, &args.bucket)?;
        let n = session::topology(client).bucket_named(&args.bucket.bucket).map_or(0, |bucket| bucket.quorum.n());
        match &args.output {
            None => {
                let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
                dump(client, &bucket, n, args, &mut out).await
            }
            // A device or a pipe has nothing to lose, and must not be replaced by a file.
            Some(path) if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) => {
                let file = File::options()
                    .write(true)
                    .open(path)
                    .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))?;
                dump(client, &bucket, n, args, &mut BufWriter::with_capacity(BUFFER, file)).await
            }
            Some(path) => {
                let new = NewFile::beside(path)?;
                let mut out = BufWriter::with_capacity(BUFFER, &new.file);
                let dumped = dump(client, &bucket, n, args, &mut out).await?;
                drop(out);
                let at = new.finish(dumped.is_whole())?;
                if global.format == Format::Json {
                    output::json_line(&json!({
                        "records": dumped.records,
                        "unread": dumped.unread,
                        "complete": dumped.is_whole(),
                        "doubts": dumped.doubts.as_json(),
                        "file": at.display().to_string(),
                    }))?;
                }
                if !dumped.is_whole() {
                    output::note(format_args!("what was read is in {}", at.display()));
                }
                Ok(dumped)
            }
        }
    });
    let dumped = ended.map_err(|failure| match &args.output {
        Some(path) if path.is_file() => failure.also(format_args!("{} is as it was", path.display())),
        _ => failure,
    })?;
    if dumped.unread > 0 {
        let failure = format_args!("{} keys could not be read; the dump is incomplete", dumped.unread);
        return Err(Failure::failed(failure).hint("run it again when all nodes are up"));
    }
    Ok(if dumped.doubts.is_empty() { ExitCode::SUCCESS } else { Exit::Incomplete.into() })
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
}

async fn dump(client: &Client, bucket: &Bucket, n: u8, args: &Args, out: &mut impl Write) -> Result<Dumped> {
    let before = doubts_after(client, n, args.wait.unwrap_or_default()).await;
    let started = Instant::now();
    let mut shown = started;
    let (mut records, mut unread) = (0_u64, 0_u64);
    let reads = bucket.scan().keys().map(|key| async {
        let key = key.map_err(IntoFailure::into_failure)?;
        let read = bucket.get(key.to_bytes()).await;
        Ok::<_, Failure>((key, read))
    });
    let mut reads = Box::pin(reads.buffer_unordered(usize::from(args.concurrency)));
    while let Some(read) = reads.next().await {
        let (key, read) = read?;
        let values: Vec<Value> = match read {
            Ok(read) => read.values().map(|value| json_bytes(value)).collect(),
            Err(error) => {
                unread += 1;
                output::warning(format_args!("key {key}: {error}"));
                continue;
            }
        };
        let key = json_bytes(key.as_bytes());
        let record = match <[Value; 1]>::try_from(values) {
            Ok([value]) => json!({ "key": key, "value": value }),
            // Deleted since the scan saw it.
            Err(values) if values.is_empty() => continue,
            Err(values) => json!({ "key": key, "values": values }),
        };
        written(writeln!(out, "{record}"))?;
        records += 1;
        if shown.elapsed() > Duration::from_secs(3) {
            shown = Instant::now();
            output::note(format_args!("dumping: {} records", grouped(records)));
        }
    }
    written(out.flush())?;
    output::note(format_args!("{} records in {:.1} s", grouped(records), started.elapsed().as_secs_f64()));
    let doubts = before.and(doubts(client, n).await);
    if !doubts.is_empty() {
        doubts.warn("this dump");
        output::note("dump again then, or with --wait 60s");
    }
    Ok(Dumped { records, unread, doubts })
}

/// A file that takes another's place at the end, or goes.
struct NewFile {
    file: File,
    /// Where it is meanwhile.
    path: PathBuf,
    /// Whose place it takes.
    target: PathBuf,
}

impl NewFile {
    fn beside(target: &Path) -> Result<NewFile> {
        let failed = |error| Failure::failed(format_args!("cannot write {}: {error}", target.display()));
        // A link stays one: what it points to is replaced.
        let target = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        if target.is_dir() {
            return Err(Failure::failed(format_args!("cannot write {}: it is a directory", target.display())));
        }
        let path = with_end(&target, ".new");
        let new = NewFile { file: File::create(&path).map_err(failed)?, path, target: target.clone() };
        // A user who may not read the old file shall not read the new one.
        if let Ok(there) = std::fs::metadata(&target) {
            new.file.set_permissions(there.permissions()).map_err(failed)?;
        }
        Ok(new)
    }

    /// Makes the file durable and gives it its name: the target's, or one beside that if records may be missing.
    fn finish(self, is_whole: bool) -> Result<PathBuf> {
        let target = if is_whole { self.target.clone() } else { with_end(&self.target, ".incomplete") };
        let failed = |error| Failure::failed(format_args!("cannot write {}: {error}", target.display()));
        // Not before its bytes: a power cut would leave an empty file in place of the old one.
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.path, &target).map_err(failed)?;
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(target)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Once it has its name there is nothing here any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn written(result: std::io::Result<()>) -> Result {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| Failure::failed(format_args!("cannot write: {error}"))),
    }
}

const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_by_what_is_whole_and_by_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        std::fs::write(&target, "old").expect("writes");
        let write = |text: &str| {
            let new = NewFile::beside(&target).expect("can be written");
            (&new.file).write_all(text.as_bytes()).expect("writes");
            new
        };
        drop(write("half"));
        assert_eq!(
            (names(dir.path()), std::fs::read_to_string(&target).expect("reads")),
            (vec!["bk".to_owned()], "old".to_owned())
        );
        let at = write("may be less").finish(false).expect("finishes");
        assert_eq!(
            (at, std::fs::read_to_string(&target).expect("reads")),
            (dir.path().canonicalize().expect("exists").join("bk.incomplete"), "old".to_owned())
        );
        write("all").finish(true).expect("finishes");
        assert_eq!(std::fs::read_to_string(&target).expect("reads"), "all");
        assert_eq!(names(dir.path()), ["bk", "bk.incomplete"]);
    }
}
