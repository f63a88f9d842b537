//! `driftless backup create DIR`: what a cluster holds, while it serves.
//!
//! ```text
//! .DIR.….new       what is being written, beside the directory; it goes if the backup fails or is interrupted, and stays if it is killed
//! DIR              takes its name once all of it is on disk, and only if nothing can be missing
//! DIR.incomplete   takes it if keys may be missing
//! ```
//! Of each key a quorum is read that has seen whatever was acknowledged before. Each key is as it was at some moment between the beginning
//! and the end: there is nothing that would hold several keys together.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use driftless_client::{Bucket, Client, GetError, Key, Keys, Profile, State};
use driftless_proto::{BucketDefinition, Topology};
use futures::{Stream, StreamExt};
use serde_json::json;
use tempfile::TempDir;

use super::manifest::{MANIFEST, Manifest, Saved, file_of};
use super::states::{Entry, Writer};
use crate::completeness::{Doubts, doubts_after};
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
    check_free(&args.dir)?;
    for left in unfinished(&args.dir) {
        output::warning(format_args!(
            "{} is of a backup that was killed, unless one is being written here now: remove it, everybody's data is in it",
            left.display()
        ));
    }
    let started = Instant::now();
    let (manifest, at) = session::run(global, async |client| {
        let mut interrupts = Interrupts::listen()?;
        let new = Unfinished::beside(&args.dir)?;
        let manifest = tokio::select! {
            manifest = save(client, args, new.path()) => manifest?,
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
        "{} of {}, {}, in {:.1} s: {}",
        super::keys(manifest.keys()),
        super::buckets(manifest.buckets.len()),
        size(manifest.bytes()),
        took.as_secs_f64(),
        at.display()
    ))
}

async fn save(client: &Client, args: &Args, dir: &Path) -> Result<Manifest> {
    let now = || humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    // Before anybody is asked: what was acknowledged by now is what the nodes speak of.
    let begun = now();
    let before = doubts_about(client, args.wait.unwrap_or_default().max(SOON)).await;
    // Looked at when all have said by which version they go.
    let topology = session::topology(client);
    let buckets = chosen(&topology, &args.buckets)?;
    let mut manifest = Manifest::new(topology.cluster().to_owned(), topology.ring().version().0, begun);
    for definition in &buckets {
        let path = dir.join(file_of(definition));
        let file = create(&path)?;
        let saved = save_bucket(client, definition, usize::from(args.concurrency), &file, &path).await?;
        file.sync_all().map_err(|error| cannot_write(&path, &error))?;
        manifest.buckets.push(saved);
    }
    let doubts = before.and(doubts_about(client, Duration::ZERO).await);
    if !doubts.is_empty() {
        doubts.warn("this backup");
        output::note("make another one then, or with --wait 60s");
    }
    manifest.ended = now();
    manifest.doubts = doubts.into_reasons();
    let (is, was) = (session::topology(client).ring().version().0, manifest.ring_version);
    if is != was {
        manifest
            .doubts
            .push(format!("members or buckets changed meanwhile: version {was} was read, and {is} is there now"));
    }
    match manifest.unread() {
        0 => {}
        unread => manifest.doubts.push(format!("{} keys could not be read", grouped(unread))),
    }
    manifest.complete = manifest.doubts.is_empty();
    Ok(manifest)
}

/// Doubts about buckets of any number of replicas.
async fn doubts_about(client: &Client, patience: Duration) -> Doubts {
    let mut classes: Vec<u8> = session::topology(client).buckets().iter().map(|bucket| bucket.quorum.n()).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut all = Doubts::default();
    for n in classes {
        let doubts = doubts_after(client, n, patience).await;
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
    let mut writer = Writer::begin(BufWriter::with_capacity(BUFFER, file)).map_err(|e| cannot_write(path, &e))?;
    let mut missed = Missed::default();
    let mut shown = Instant::now();
    let read = async |key: Key| (bucket.read_state(&key).await, key);
    let mut keys = std::pin::pin!(listed(bucket.scan().r(r).keys()));
    let mut reads =
        std::pin::pin!(keys.as_mut().map(async |key| Ok::<_, Failure>(read(key?).await)).buffer_unordered(concurrency));
    while let Some(done) = reads.next().await {
        missed.take(done?, &mut writer, path)?;
        if shown.elapsed() > Duration::from_secs(3) {
            shown = Instant::now();
            output::note(format_args!("{name}: {} keys", grouped(writer.keys())));
        }
    }
    // A node that was started again meanwhile is up by now.
    let again = std::mem::take(&mut missed.keys);
    missed.count -= again.len() as u64;
    let mut reads = std::pin::pin!(futures::stream::iter(again).map(read).buffer_unordered(concurrency));
    while let Some(done) = reads.next().await {
        missed.take(done, &mut writer, path)?;
    }
    missed.tell();
    let contents = writer.end().map_err(|error| cannot_write(path, &error))?;
    Ok(Saved::of(definition.clone(), missed.count, contents))
}

/// Keys that were listed and could not be read yet.
#[derive(Default)]
struct Missed {
    count: u64,
    /// Of the first ones, to be read again.
    keys: Vec<Key>,
    why: Option<String>,
}

impl Missed {
    fn take<W: Write>(
        &mut self,
        (state, key): (std::result::Result<State, GetError>, Key),
        writer: &mut Writer<W>,
        path: &Path,
    ) -> Result {
        let why = match state {
            // Somebody has listed it, so it is known to somebody.
            Ok(state) if state.is_empty() => {
                format!("key {key}: one replica knows it, and those that were read do not")
            }
            // Deleted since the scan saw it.
            Ok(state) if state.values() == 0 => return Ok(()),
            Ok(state) => return writer.push(&Entry { key, state }).map_err(|error| cannot_write(path, &error)),
            Err(error) if super::is_for_all(error.request()) => return Err(error.into_failure()),
            Err(error) => format!("key {key}: {error}"),
        };
        self.count += 1;
        self.why = Some(why);
        if self.keys.len() < MISSED_MAX {
            self.keys.push(key);
        }
        Ok(())
    }

    fn tell(&self) {
        if let Some(why) = self.why.as_ref().filter(|_| self.count > 0) {
            output::warning(format_args!("{} keys could not be read; the last one: {why}", grouped(self.count)));
        }
    }
}

/// The same keys; a page that cannot be had is asked for again, some times: nodes are started again one by one.
fn listed(keys: Keys) -> impl Stream<Item = Result<Key>> {
    futures::stream::unfold((keys, 0), async |(mut keys, mut failed)| {
        loop {
            match keys.next().await? {
                Ok(key) => return Some((Ok(key), (keys, 0))),
                Err(error) if failed < PAGE_ATTEMPTS && !super::is_for_all(error.request()) => {
                    failed += 1;
                    output::warning(format_args!("{error}; asking again"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Some((Err(error.into_failure()), (keys, failed))),
            }
        }
    })
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
        let dir = tempfile::Builder::new()
            .prefix(&prefix_of(target))
            .suffix(SUFFIX)
            .permissions(Permissions::from_mode(0o700))
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
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        File::open(self.path()).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let target = if manifest.complete { self.target.clone() } else { incomplete(&self.target) };
        if let Err(error) = fs::rename(self.path(), &target) {
            // What took hours to read is not thrown away for that.
            let kept = self.dir.keep();
            let failure = format_args!("cannot give the backup its name, {}: {error}", target.display());
            return Err(Failure::failed(failure).hint(format_args!("it is whole, and in {}", kept.display())));
        }
        // It has gone from where it would be removed.
        let _ = self.dir.keep();
        File::open(parent(&target)).and_then(|dir| dir.sync_all()).map_err(|error| cannot_write(&target, &error))?;
        Ok(target)
    }
}

/// Refuses at once what could not be written at the end.
fn check_free(dir: &Path) -> Result {
    if dir.file_name().is_none() {
        return Err(Failure::usage(format_args!("{} is no name for a new directory", dir.display())));
    }
    for dir in [dir.to_owned(), incomplete(dir)] {
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(Failure::failed(format_args!("{} is there already", dir.display()))
                .hint("a backup is never written over anything: name a new directory, in one that is there"));
        }
    }
    match parent(dir).is_dir() {
        true => Ok(()),
        false => Err(Failure::failed(format_args!("there is no directory {}", parent(dir).display()))),
    }
}

/// What backups to the same place have left that could not put it away.
fn unfinished(target: &Path) -> Vec<PathBuf> {
    let prefix = prefix_of(target);
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX)) && path.is_dir()
    };
    let entries = fs::read_dir(parent(target)).into_iter().flatten();
    let mut all: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_one).collect();
    all.sort_unstable();
    all
}

fn prefix_of(target: &Path) -> String {
    format!(".{}.", target.file_name().and_then(|name| name.to_str()).unwrap_or("backup"))
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
    let failure = Failure::failed(format_args!("cannot write {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            failure.hint("nothing is left of it: make room there, or name a directory on another disk")
        }
        _ => failure,
    }
}

const SUFFIX: &str = ".new";

const BUFFER: usize = 1 << 20;

/// A change of members or buckets has reached all nodes by then, unless one is down.
const SOON: Duration = Duration::from_secs(3);

/// Keys that are read again at the end.
const MISSED_MAX: usize = 100_000;

/// For a page of keys; each is given its whole timeout.
const PAGE_ATTEMPTS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_takes_no_place_that_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // What an empty directory may be is another disk, on which nothing that was written beside it can be put.
        fs::create_dir(dir.path().join("empty")).expect("creates");
        fs::write(dir.path().join("file"), "x").expect("writes");
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).expect("creates");
        fs::create_dir(dir.path().join("half.incomplete")).expect("creates");
        check_free(&dir.path().join("new")).expect("nothing is there");
        for taken in ["empty", "file", "link", "half"] {
            let failure = check_free(&dir.path().join(taken)).expect_err(taken).to_string();
            assert!(failure.contains("is there already"), "{failure}");
        }
        let failure = check_free(&dir.path().join("none/new")).expect_err("there is no such directory").to_string();
        assert!(failure.contains("there is no directory"), "{failure}");
        assert!(check_free(Path::new("/")).is_err() && check_free(Path::new("..")).is_err());
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_what_is_incomplete_is_called_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("bk");
        let names = || {
            let entries = fs::read_dir(dir.path()).expect("a directory");
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect::<Vec<_>>()
        };
        let new = Unfinished::beside(&target).expect("makes one");
        assert_eq!(unfinished(&target), [new.path()], "one that is killed is found");
        assert_eq!(unfinished(&dir.path().join("b")), [] as [PathBuf; 0], "by its own name");
        drop(new);
        assert_eq!(names(), Vec::<String>::new());
        let mut manifest = Manifest::new("shop".to_owned(), 1, "now".to_owned());
        let at = Unfinished::beside(&target).expect("makes one").finish(&manifest).expect("finishes");
        assert_eq!((at, names()), (incomplete(&target), vec!["bk.incomplete".to_owned()]));
        manifest.complete = true;
        let at = Unfinished::beside(&target).expect("makes one").finish(&manifest).expect("finishes");
        assert_eq!((&at, at.join(MANIFEST).is_file()), (&target, true));
        assert_eq!(
            fs::metadata(&at).expect("is there").permissions().mode() & 0o777,
            0o700,
            "names of buckets are in it"
        );
        assert_eq!(fs::metadata(at.join(MANIFEST)).expect("is there").permissions().mode() & 0o777, 0o600);
        // Somebody was faster: what was read is kept.
        let failure = Unfinished::beside(&target).expect("makes one").finish(&manifest).expect_err("it is taken");
        assert!(failure.to_string().contains("it is whole, and in "), "{failure}");
        assert_eq!(names().len(), 3, "{:?}", names());
    }
}
