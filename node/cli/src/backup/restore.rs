//! `driftless backup restore DIR`: what a backup holds, into a cluster, whichever members that has.
//!
//! ```text
//! every file is read once ─▶ every bucket is there, of the same kind ─▶ each key is merged into its owners
//!      nothing is written before                                          w of them have it, durably
//! ```
//! A cluster takes it in as replicas take in what others know. So what was written or deleted since the backup stays as it is, and to do
//! it again changes nothing.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, ClusterChange, ClusterCommand, Outcome, PutError, Refusal};
use driftless_proto::BucketDefinition;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::manifest::{Backup, Saved};
use super::states::{Entry, Reader, unreadable};
use crate::cluster::{decide, state};
use crate::exit::{self, Exit, Failure, Result};
use crate::global::GlobalArgs;
use crate::load::Progress;
use crate::output::{self, Format, grouped, size};
use crate::session::{self, BucketArg, IntoFailure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The backup
    dir: PathBuf,
    /// Only this bucket; may be repeated [default: all]
    #[arg(short, long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// Make the buckets that the cluster does not have, as they were when the backup was made
    #[arg(long)]
    create_buckets: bool,
    /// Keys under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
}

/// What was done.
#[derive(Default)]
struct Restored {
    keys: u64,
    values: u64,
    failed: u64,
    /// Some of those may have taken effect.
    unknown: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let backup = Backup::open(&args.dir)?;
    let chosen = backup.chosen(&args.buckets)?;
    let bytes: u64 = chosen.iter().map(|saved| saved.bytes).sum();
    output::note(format_args!("looking through {} of {} first …", size(bytes), args.dir.display()));
    chosen.iter().try_for_each(|saved| backup.verify(saved))?;
    let started = Instant::now();
    let restored = session::run(global, async |client| {
        let missing = check_buckets(client, &chosen, args.create_buckets)?;
        for definition in missing {
            let name = definition.name.clone();
            settled(client).await?;
            let create = ClusterCommand::Apply(ClusterChange::CreateBucket(definition));
            decide(client, create).await.map_err(|failure| failure.about(format_args!("cannot make bucket {name}")))?;
            output::note(format_args!("made bucket {name}"));
        }
        let (mut restored, mut progress) = (Restored::default(), Progress::new(Some(bytes), "restoring"));
        let mut before = 0;
        for saved in &chosen {
            let bucket = session::bucket(client, &BucketArg { bucket: saved.name().to_owned() });
            let entries = read(&backup, saved)?;
            merge_all(&bucket, entries, usize::from(args.concurrency), &mut restored, |restored, bytes| {
                progress.show(before + bytes, restored.keys, restored.keys, restored.failed);
            })
            .await
            .inspect_err(|_| progress.finish())?;
            before += saved.bytes;
        }
        progress.finish();
        Ok(restored)
    })?;
    let printed = report(global, &restored, &backup, &chosen, started.elapsed());
    exit::after_printing(restored.ended(backup.manifest.complete), printed)
}

impl Restored {
    fn ended(&self, is_complete: bool) -> Result<Option<Exit>> {
        match self.failed {
            0 => Ok((!is_complete).then_some(Exit::Incomplete)),
            failed => {
                let exit = if self.unknown { Exit::Unknown } else { Exit::Failed };
                Err(Failure::new(exit, format_args!("{} keys were not restored", grouped(failed)))
                    .hint("run it again: what is there already stays as it is"))
            }
        }
    }
}

fn report(global: &GlobalArgs, restored: &Restored, backup: &Backup, chosen: &[&Saved], took: Duration) -> Result {
    let manifest = &backup.manifest;
    if global.format == Format::Json {
        output::json_line(&json!({
            "keys": restored.keys,
            "values": restored.values,
            "failed": restored.failed,
            "buckets": chosen.iter().map(|saved| saved.name()).collect::<Vec<_>>(),
            "complete": manifest.complete,
        }))?;
    } else {
        output::line(format_args!(
            "{} keys with {} values merged into {} buckets, {} failed, in {:.1} s",
            grouped(restored.keys),
            grouped(restored.values),
            chosen.len(),
            grouped(restored.failed),
            took.as_secs_f64()
        ))?;
    }
    if !manifest.complete {
        output::warning(format_args!(
            "KEYS MAY BE MISSING: the backup of {} was not complete: {}",
            manifest.begun,
            manifest.doubts.join("; ")
        ));
    }
    Ok(())
}

/// The buckets that are to be made.
///
/// # Errors
/// A bucket that is not there and is not to be made, or is of another kind.
fn check_buckets(client: &Client, chosen: &[&Saved], create: bool) -> Result<Vec<BucketDefinition>> {
    let topology = session::topology(client);
    let mut missing = Vec::new();
    for saved in chosen {
        let was = &saved.definition;
        match topology.bucket_named(saved.name()) {
            None => missing.push(was.clone()),
            Some(is) if is.conflict != was.conflict => {
                let what = format_args!(
                    "bucket {} resolves concurrent writes otherwise than when the backup was made; nothing was restored",
                    saved.name()
                );
                return Err(Failure::new(Exit::Refused, what).hint(
                    "values would be lost: restore the other buckets with -b, and this one into another cluster",
                ));
            }
            Some(_) => {}
        }
    }
    if create || missing.is_empty() {
        return Ok(missing);
    }
    let names: Vec<&str> = missing.iter().map(|bucket| bucket.name.as_str()).collect();
    Err(Failure::new(Exit::Refused, format_args!("there is no bucket {}; nothing was restored", names.join(", ")))
        .hint("make it as it was with --create-buckets, or otherwise with `driftless bucket create`"))
}

/// Waits until all nodes know of the last change: one that makes a bucket is refused before.
async fn settled(client: &Client) -> Result {
    let begun = Instant::now();
    loop {
        let state = state(client, None).await?;
        if state.unfinished.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > SETTLED_AFTER {
            let what = format_args!("the last change of members or buckets, version {}, is unfinished", state.version);
            return Err(
                Failure::new(Exit::Refused, what).hint("see `driftless cluster status`, and restore again then")
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Entries with how far the file has been read, from a thread of its own.
fn read(backup: &Backup, saved: &Saved) -> Result<mpsc::Receiver<io::Result<(Entry, u64)>>> {
    let path = backup.path_of(saved);
    let mut reader = Reader::open(&path)?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let read = move || {
        while let Some(read) = reader.next().transpose() {
            let is_last = read.is_err();
            let bytes = reader.contents().bytes;
            if sender.blocking_send(read.map(|entry| (entry, bytes))).is_err() || is_last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(read);
    thread.map_err(|error| unreadable(&path, &error))?;
    Ok(receiver)
}

async fn merge_all(
    bucket: &Bucket,
    entries: mpsc::Receiver<io::Result<(Entry, u64)>>,
    concurrency: usize,
    restored: &mut Restored,
    mut show: impl FnMut(&Restored, u64),
) -> Result {
    let entries = stream::unfold(entries, |mut entries| async move {
        let entry = entries.recv().await?;
        Some((entry, entries))
    });
    let merges = entries.map(|entry| async {
        let (entry, bytes) = entry?;
        let merged = bucket.merge_state(&entry.key, &entry.state).await;
        Ok::<_, io::Error>((entry, bytes, merged))
    });
    let mut merges = Box::pin(merges.buffer_unordered(concurrency));
    while let Some(merge) = merges.next().await {
        let (entry, bytes, merged) = merge.map_err(|error| {
            Failure::failed(format_args!("the backup has changed since it was looked through: {error}"))
        })?;
        match merged {
            Ok(()) => {
                restored.keys += 1;
                restored.values += entry.state.values() as u64;
            }
            Err(error) if is_for_all(&error) => return Err(error.into_failure()),
            Err(error) => {
                restored.failed += 1;
                restored.unknown |= error.outcome() == Outcome::Unknown;
                if restored.failed <= NAMED_MAX {
                    output::warning(format_args!("key {}: {error}", entry.key));
                }
            }
        }
        show(restored, bytes);
    }
    Ok(())
}

/// Whether every other key would be refused for the same reason.
fn is_for_all(error: &PutError) -> bool {
    error
        .request()
        .and_then(|request| request.refusal())
        .is_some_and(|refusal| matches!(refusal, Refusal::NotAllowed { .. } | Refusal::NoSuchBucket))
}

/// All nodes are told within a second, unless one is down.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// Entries that were read and nobody has taken yet.
const AHEAD: usize = 16;

/// Keys that could not be restored and are named.
const NAMED_MAX: u64 = 20;
