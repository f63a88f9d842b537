//! `driftless backup create DIR`: what a cluster holds, while it serves.
//!
//! ```text
//! .DIR.….new       what is being written, beside the directory; it goes if the backup fails or is interrupted
//! DIR              takes its name once all of it is on disk, and only if nothing can be missing
//! DIR.incomplete   takes it if keys may be missing
//! ```
//! Of each key a quorum is read that has seen whatever was acknowledged before. Each key is as it was at some moment between the beginning
//! and the end: there is nothing that would hold several keys together.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use driftless_client::{Bucket, Client, Profile};
use driftless_proto::{BucketDefinition, Topology};
use futures::StreamExt;
use serde_json::json;
use tempfile::TempDir;

use super::manifest::{MANIFEST, Manifest, Saved, file_of};
use super::states::{Entry, Writer};
use crate::completeness::{Doubts, doubts, doubts_after};
use crate::exit::{self, Exit, Failure, Result};
use crate::global::GlobalArgs;
use crate::interrupt::Interrupts;
use crate::output::{self, Format, grouped, size};
use crate::profile::parse_duration;
use crate::session::{self, BucketArg, IntoFailure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The directory to make
    dir: PathBuf,
    /// Only this bucket; may be repeated [default: all]
    #[arg(short, long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// Reads under way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Wait so long at most until the replicas hold everything, as in 60s, and only then begin
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub(super) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let dir = target(&args.dir)?;
    let started = Instant::now();
    let (manifest, at) = session::run(global, async |client| {
        let topology = session::topology(client);
        let buckets = chosen(&topology, &args.buckets)?;
        let mut interrupts = Interrupts::listen()?;
        let new = Unfinished::beside(&dir)?;
        let manifest = tokio::select! {
            manifest = save(client, &topology, &buckets, args, new.path()) => manifest?,
            () = interrupts.next() => return Err(Failure::failed("interrupted; nothing is left of it")),
        };
        let at = new.finish(&manifest)?;
        Ok((manifest, at))
    })?;
    let done = match (manifest.unread(), manifest.complete) {
        (0, true) => Ok(None),
        (0, false) => Ok(Some(Exit::Incomplete)),
        (unread, _) => Err(Failure::failed(format_args!(
            "{} keys could not be read; what was read is in {}",
            grouped(unread),
            at.display()
        ))
        .hint("make another one when all nodes are up")),
    };
    exit::after_printing(done, report(global, &manifest, &at, started.elapsed()))
}

fn report(global: &GlobalArgs, manifest: &Manifest, at: &Path, took: Duration) -> Result {
    if global.format == Format::Json {
        return output::json_line(&json!({
            "directory": at.display().to_string(),
            "keys": manifest.keys(),
            "bytes": manifest.bytes(),
            "unread": manifest.unread(),
            "complete": manifest.complete,
            "doubts": manifest.doubts,
        }));
    }
    output::line(format_args!(
        "{} keys of {} buckets, {}, in {:.1} s: {}",
        grouped(manifest.keys()),
        manifest.buckets.len(),
        size(manifest.bytes()),
        took.as_secs_f64(),
        at.display()
    ))
}

async fn save(
    client: &Client,
    topology: &Topology,
    buckets: &[BucketDefinition],
    args: &Args,
    dir: &Path,
) -> Result<Manifest> {
    let now = || humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let before = doubts_about(client, buckets, args.wait.unwrap_or_default()).await;
    let mut manifest = Manifest::new(topology.cluster().to_owned(), topology.ring().version().0, now());
    for definition in buckets {
        let path = dir.join(file_of(definition));
        let file = create(&path)?;
        let saved = save_bucket(client, definition, usize::from(args.concurrency), &file, &path).await?;
        file.sync_all().map_err(|error| cannot_write(&path, &error))?;
        manifest.buckets.push(saved);
    }
    let doubts = before.and(doubts_about(client, buckets, Duration::ZERO).await);
    if !doubts.is_empty() {
        doubts.warn("this backup");
        output::note("make another one then, or with --wait 60s");
    }
    manifest.ended = now();
    manifest.complete = doubts.is_empty() && manifest.unread() == 0;
    manifest.doubts = doubts.into_reasons();
    Ok(manifest)
}

/// Doubts about buckets of any number of replicas.
async fn doubts_about(client: &Client, buckets: &[BucketDefinition], patience: Duration) -> Doubts {
    let mut classes: Vec<u8> = buckets.iter().map(|bucket| bucket.quorum.n()).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut all = Doubts::default();
    for n in classes {
        let doubts = if patience.is_zero() { doubts(client, n).await } else { doubts_after(client, n, patience).await };
        if all.is_empty() {
            all = doubts;
        }
    }
    all
}

async fn save_bucket(
    client: &Client,
    definition: &BucketDefinition,
    concurrency: usize,
    file: &File,
    path: &Path,
) -> Result<Saved> {
    // Of any w that have acknowledged a write, one is among so many.
    let quorum = definition.quorum;
    let r = quorum.r().max(quorum.n() - quorum.w() + 1);
    let name = definition.name.as_str();
    let bucket: Bucket = session::bucket(client, &BucketArg { bucket: name.to_owned() });
    let bucket = bucket.with_profile(&Profile::new().r(r).sloppy(false));
    let written = |result: std::io::Result<()>| result.map_err(|error| cannot_write(path, &error));
    let mut writer = Writer::begin(BufWriter::with_capacity(BUFFER, file)).map_err(|e| cannot_write(path, &e))?;
    let mut unread = 0;
    let mut shown = Instant::now();
    let reads = bucket.scan().r(r).keys().map(|key| async {
        let key = key.map_err(IntoFailure::into_failure)?;
        let state = bucket.read_state(&key).await;
        Ok::<_, Failure>((key, state))
    });
    let mut reads = Box::pin(reads.buffer_unordered(concurrency));
    while let Some(read) = reads.next().await {
        match read? {
            // Deleted since the scan saw it.
            (_, Ok(state)) if state.values() == 0 => {}
            (key, Ok(state)) => written(writer.push(&Entry { key, state }))?,
            (key, Err(error)) => {
                unread += 1;
                output::warning(format_args!("key {key}: {error}"));
            }
        }
        if shown.elapsed() > Duration::from_secs(3) {
            shown = Instant::now();
            output::note(format_args!("{name}: {} keys", grouped(writer.keys())));
        }
    }
    let contents = writer.end().map_err(|error| cannot_write(path, &error))?;
    Ok(Saved::of(definition.clone(), unread, contents))
}

fn chosen(topology: &Topology, names: &[String]) -> Result<Vec<BucketDefinition>> {
    if names.is_empty() {
        return Ok(topology.buckets().to_vec());
    }
    let mut buckets: Vec<BucketDefinition> = Vec::new();
    for name in names {
        let bucket = topology.bucket_named(name).ok_or_else(|| session::no_such_bucket(name))?;
        if !buckets.contains(bucket) {
            buckets.push(bucket.clone());
        }
    }
    Ok(buckets)
}

/// A directory that has no name yet that anybody would look for.
struct Unfinished {
    dir: TempDir,
    target: PathBuf,
}

impl Unfinished {
    fn beside(target: &Path) -> Result<Unfinished> {
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or("backup");
        let dir = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".new")
            .tempdir_in(parent(target))
            .map_err(|error| cannot_write(target, &error))?;
        Ok(Unfinished { dir, target: target.to_owned() })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives it its name, once all of it is on the disk.
    fn finish(self, manifest: &Manifest) -> Result<PathBuf> {
        let path = self.path().join(MANIFEST);
        let failed = |error: std::io::Error| cannot_write(&self.target, &error);
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
        let mut file = create(&path)?;
        std::io::Write::write_all(&mut file, &text).and_then(|()| file.sync_all()).map_err(failed)?;
        File::open(self.path()).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let target = if manifest.complete { self.target.clone() } else { incomplete(&self.target) };
        // An empty directory is replaced, and nothing else.
        fs::rename(self.path(), &target).map_err(failed)?;
        File::open(parent(&target)).and_then(|dir| dir.sync_all()).map_err(failed)?;
        // It has gone from where it would be removed.
        let _ = self.dir.keep();
        Ok(target)
    }
}

/// Refuses at once what could not be written at the end.
fn target(dir: &Path) -> Result<PathBuf> {
    for dir in [dir.to_owned(), incomplete(dir)] {
        let is_free = match fs::read_dir(&dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => fs::symlink_metadata(&dir).is_err(),
        };
        if !is_free {
            return Err(Failure::failed(format_args!("{} is there already", dir.display()))
                .hint("a backup is never written over another one: name a new directory, or remove that one first"));
        }
    }
    if !parent(dir).is_dir() {
        return Err(Failure::failed(format_args!("there is no directory {}", parent(dir).display())));
    }
    DirBuilder::new().mode(0o700).recursive(true).create(parent(dir)).map_err(|error| cannot_write(dir, &error))?;
    Ok(dir.to_owned())
}

fn incomplete(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".incomplete");
    dir.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Everybody's data is in it.
fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot write {}: {error}", path.display()))
}

const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_takes_no_place_that_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (new, full) = (dir.path().join("new"), dir.path().join("full"));
        fs::create_dir(dir.path().join("empty")).expect("creates");
        fs::create_dir(&full).expect("creates");
        fs::write(full.join("file"), "x").expect("writes");
        fs::write(dir.path().join("file"), "x").expect("writes");
        fs::create_dir_all(dir.path().join("half.incomplete/x")).expect("creates");
        assert!(target(&new).is_ok() && target(&dir.path().join("empty")).is_ok());
        for taken in ["full", "file", "half"] {
            let failure = target(&dir.path().join(taken)).expect_err(taken).to_string();
            assert!(failure.contains("is there already"), "{failure}");
        }
        let failure = target(&dir.path().join("none/new")).expect_err("there is no such directory").to_string();
        assert!(failure.contains("there is no directory"), "{failure}");
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_what_is_incomplete_is_called_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        let names = || {
            let entries = fs::read_dir(dir.path()).expect("a directory");
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect::<Vec<_>>()
        };
        drop(Unfinished::beside(&target).expect("makes one"));
        assert_eq!(names(), Vec::<String>::new());
        let mut manifest = Manifest::new("shop".to_owned(), 1, "now".to_owned());
        let at = Unfinished::beside(&target).expect("makes one").finish(&manifest).expect("finishes");
        assert_eq!((at, names()), (incomplete(&target), vec!["bk.incomplete".to_owned()]));
        manifest.complete = true;
        let at = Unfinished::beside(&target).expect("makes one").finish(&manifest).expect("finishes");
        assert_eq!((&at, at.join(MANIFEST).is_file()), (&target, true));
    }
}
