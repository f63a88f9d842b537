//! `driftless dump`: all records of a bucket as `load` reads them, siblings included.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};

use super::Common;
use super::exit::{Failure, Result};
use super::output::{self, grouped, json_bytes};
use super::session::{self, BucketArg, IntoFailure};

/// Keys are read one by one while others may write: this is no snapshot.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    bucket: BucketArg,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Reads under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
}

/// Writes every record.
pub(crate) fn run(common: &Common, args: &Args) -> Result {
    let mut out: Box<dyn Write> = match &args.output {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => Box::new(
            File::create(path)
                .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))?,
        ),
    };
    let mut out = BufWriter::with_capacity(1 << 20, &mut out);
    session::run(common, async |client| {
        let bucket = session::bucket(client, &args.bucket);
        let started = Instant::now();
        let mut shown = started;
        let (mut records, mut failed) = (0_u64, 0_u64);
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
                    failed += 1;
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
        if failed > 0 {
            return Err(Failure::failed(format_args!("{failed} keys could not be read; the dump is incomplete"))
                .hint("run it again when all nodes are up"));
        }
        Ok(())
    })
}

fn written(result: std::io::Result<()>) -> Result {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| Failure::failed(format_args!("cannot write: {error}"))),
    }
}
