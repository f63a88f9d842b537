//! `driftless backup restore DIR`: what a backup holds, into a cluster, whichever members that has.
//!
//! ```text
//! every file is read once ─▶ every bucket is there, of the same kind ─▶ each key is merged into its owners
//!      nothing is written before                                          w of them have it
//! ```
//! A cluster takes it in as replicas take in what others know. So what was written or deleted since the backup stays as it is, and to do
//! it again changes nothing.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, ClusterChange, ClusterCommand, Key, Outcome, PutError};
use driftless_proto::BucketDefinition;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::manifest::{Backup, Saved, sum};
use super::states::{Contents, Entry, Reader, unreadable};
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
    let bytes = sum(chosen.iter().map(|saved| saved.bytes));
    output::note(format_args!("looking through {} of {} first …", size(bytes), args.dir.display()));
    chosen.iter().try_for_each(|saved| backup.verify(saved))?;
    let started = Instant::now();
    let restored = session::run(global, async |client| {
        let missing = check_buckets(client, &chosen, args.create_buckets)?;
        let makes_some = !missing.is_empty();
        for definition in missing {
            let name = definition.name.clone();
            settled(client).await?;
            let create = ClusterCommand::Apply(ClusterChange::CreateBucket(definition));
            decide(client, create).await.map_err(|failure| failure.about(format_args!("cannot make bucket {name}")))?;
            output::note(format_args!("made bucket {name}"));
        }
        if makes_some {
            // All owners know of them then.
            settled(client).await?;
        }
        let (mut restored, mut progress) = (Restored::default(), Progress::new(Some(bytes), "restoring"));
        let mut before = 0;
        for saved in &chosen {
            let bucket = session::bucket(client, &BucketArg { bucket: saved.name().to_owned() });
            let entries = read(&backup, saved)?;
            let show = |restored: &Restored, bytes| {
                progress.show(before + bytes, restored.keys, restored.keys, restored.failed);
            };
            let merged = merge_all(&bucket, entries, usize::from(args.concurrency), &mut restored, show).await;
            let read = merged.inspect_err(|_| progress.finish())?;
            if !read.is_some_and(|contents| saved.is_what(&contents)) {
                progress.finish();
                return Err(has_changed(&backup.path_of(saved).display()));
            }
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
                let were = if failed == 1 { "was" } else { "were" };
                Err(Failure::new(exit, format_args!("{} {were} not restored", super::keys(failed)))
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
            "{} with {} merged into {}, {} failed, in {:.1} s",
            super::keys(restored.keys),
            super::values(restored.values),
            super::buckets(chosen.len()),
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
    let members = topology.ring().members().len();
    if let Some(bucket) = missing.iter().find(|bucket| create && usize::from(bucket.quorum.n()) > members) {
        let what = format_args!(
            "bucket {} has n = {}, and the cluster {members} members; nothing was restored",
            bucket.name,
            bucket.quorum.n()
        );
        return Err(Failure::new(Exit::Refused, what).hint(format_args!(
            "make it with fewer replicas: `driftless bucket create {} --n {members}`",
            bucket.name
        )));
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

/// What the thread that reads a file gives.
enum Read {
    /// An entry, with how far the file has been read.
    Entry(Entry, u64),
    /// The file has come to its end, and this is what it held.
    End(Contents),
}

/// Reads a file on a thread of its own, one entry ahead.
fn read(backup: &Backup, saved: &Saved) -> Result<mpsc::Receiver<io::Result<Read>>> {
    let path = backup.path_of(saved);
    let mut reader = Reader::open(&path)?;
    let (sender, receiver) = mpsc::channel(1);
    let read = move || {
        loop {
            let next = match reader.next() {
                Ok(Some(entry)) => Ok(Read::Entry(entry, reader.contents().bytes)),
                Ok(None) => Ok(Read::End(reader.contents().clone())),
                Err(error) => Err(error),
            };
            let is_last = !matches!(next, Ok(Read::Entry(..)));
            if sender.blocking_send(next).is_err() || is_last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(read);
    thread.map_err(|error| unreadable(&path, &error))?;
    Ok(receiver)
}

/// Merges what comes. Answers what the file held, if it came to its end.
async fn merge_all(
    bucket: &Bucket,
    reads: mpsc::Receiver<io::Result<Read>>,
    concurrency: usize,
    restored: &mut Restored,
    mut show: impl FnMut(&Restored, u64),
) -> Result<Option<Contents>> {
    // However many keys may be under way, their values take no more memory than this; a larger one goes alone.
    let room = Arc::new(Semaphore::new(UNDER_WAY_KIB));
    let reads = stream::unfold((reads, room), async |(mut reads, room)| {
        let read = reads.recv().await?;
        let kib = match &read {
            Ok(Read::Entry(entry, _)) => 1 + (entry.state.value_bytes() >> 10),
            _ => 0,
        };
        let taken = room.clone().acquire_many_owned(u32::try_from(kib.min(UNDER_WAY_KIB)).unwrap_or(u32::MAX)).await;
        Some(((read, taken), (reads, room)))
    });
    let merges = reads.map(async |(read, _taken)| match read? {
        Read::Entry(Entry { key, state }, bytes) => {
            let merged = bucket.merge_state(&key, &state).await;
            Ok::<_, io::Error>(Merged::Entry { key, values: state.values() as u64, bytes, merged })
        }
        Read::End(contents) => Ok(Merged::End(contents)),
    });
    let mut merges = std::pin::pin!(merges.buffer_unordered(concurrency));
    let mut contents = None;
    while let Some(merge) = merges.next().await {
        let (key, values, bytes, merged) = match merge.map_err(|error| has_changed(&error))? {
            Merged::Entry { key, values, bytes, merged } => (key, values, bytes, merged),
            Merged::End(found) => {
                contents = Some(found);
                continue;
            }
        };
        match merged {
            Ok(()) => {
                restored.keys += 1;
                restored.values += values;
            }
            Err(error) if super::is_for_all(error.request()) => return Err(error.into_failure()),
            Err(error) => {
                restored.failed += 1;
                restored.unknown |= error.outcome() == Outcome::Unknown;
                if restored.failed <= NAMED_MAX {
                    output::warning(format_args!("key {key}: {error}"));
                }
            }
        }
        show(restored, bytes);
    }
    Ok(contents)
}

/// What has become of what was read.
enum Merged {
    Entry { key: Key, values: u64, bytes: u64, merged: std::result::Result<(), PutError> },
    End(Contents),
}

fn has_changed(what: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format_args!("the backup has changed since it was looked through: {what}"))
        .hint("what was merged until then stays; restore again from a copy that nobody changes")
}

/// All nodes are told within a second, unless one is down.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// 64 MiB of values.
const UNDER_WAY_KIB: usize = 64 << 10;

/// Keys that could not be restored and are named.
const NAMED_MAX: u64 = 20;
