//! `driftless load FILE.jsonl`: many records, some of which may be wrong, without stopping.
//!
//! ```text
//! lines.rs     the lines of the file, in bounded memory, parsed by a thread of their own
//! formats.rs   what a file is that holds no such lines
//! marks.rs     whether a dump is whole
//! keys.rs      keys that have several lines, siblings, or too many values
//! under_way.rs lines come in, records go out
//! store.rs     what is written for one record, and whose fault it is if that fails
//! settled.rs   which lines need not be done again
//! journal.rs   how far the load came, and what it ran with, for --resume
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
mod settled;
mod store;
mod summary;
mod under_way;

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use driftless_client::Profile;
use driftless_node::jsonl::Line;
use driftless_proto::key::SIBLINGS_MAX;
use driftless_proto::{Conflict, Key};

use super::exit::{self, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::key;
use super::output::{self, Format, Tone, grouped};
use super::quorum::{self, WriteArgs};
use super::session::{self, BucketArg};
use journal::{Interrupted, Journal, Terms};
use keys::Crowding;

pub(crate) use lines::{Lines, Reader};
pub(crate) use progress::Progress;
pub(crate) use summary::Summary;
pub(crate) use under_way::{Load, Options};

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
    /// Go on where an interrupted load of this file into this bucket stopped, with the options that it had
    #[arg(long)]
    resume: bool,
    /// Replace what is there, instead of adding a sibling; of several lines of a key the last one stays
    #[arg(long)]
    replace: bool,
}

/// Loads a file.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    if args.resume && !is_regular_file(&args.file) {
        return Err(
            Failure::usage("--resume needs a file that can be read again, not standard input or a pipe").hint(AGAIN)
        );
    }
    let ca = global.cluster.access()?.ca;
    let Input { lines, size } = Input::of(global, args)?;
    let summary = session::run(global, async |client| {
        let bucket = session::existing_bucket(client, &args.bucket)?;
        let topology = session::topology(client);
        let last_writer_wins =
            topology.bucket_named(bucket.name()).is_some_and(|bucket| bucket.conflict == Conflict::Lww);
        let journal = size.and_then(|_| Journal::of(&args.file, (topology.cluster(), &ca), &args.bucket.bucket));
        let given = terms(global, args);
        let interrupted = goes_on_from(args, journal.as_ref())?;
        let terms = match &interrupted {
            Some(Interrupted { terms, .. }) => terms.clone().resumed_with(&given)?,
            None => given,
        };
        let replace = terms.replace || last_writer_wins;
        if let Some(Interrupted { mark, .. }) = &interrupted {
            if replace && !mark.is_exact {
                return Err(inexact(mark.lines));
            }
            refuse_changed(&args.file, mark.lines, mark.digest).await?;
        }
        if let Some(size) = size
            && !replace
        {
            refuse_crowding(&args.file, size).await?;
        }
        let timeout = terms.timeout_ms.map(Duration::from_millis);
        let bucket = timeout.map_or(bucket.clone(), |timeout| bucket.with_profile(&Profile::new().timeout(timeout)));
        let puts = quorum::write_profile(terms.w, terms.sloppy);
        let options = Options { concurrency: usize::from(args.concurrency), puts, replace };
        let mut interrupts = Interrupts::listen()?;
        let journal = journal.map(|journal| (journal, terms));
        let resume = interrupted.map(|Interrupted { run, mark, .. }| (run, mark));
        let load = Load::new(&bucket, options, Progress::new(size, "loading"), journal, resume);
        let reader =
            Reader::start(lines).map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
        load.run(reader, interrupts.next()).await
    })?;
    let printed = report(global, args, &summary);
    let exit = summary.exit();
    let done = match summary.stopped {
        Some(failure) => Err(failure.or_hint(|| how_to_go_on(global, args, summary.is_resumable))),
        None => Ok(exit),
    };
    exit::after_printing(done, printed)
}

/// What the load is started with.
fn terms(global: &GlobalArgs, args: &Args) -> Terms {
    Terms {
        w: args.quorum.w(),
        sloppy: args.quorum.sloppy(),
        timeout_ms: global.cluster.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        replace: args.replace,
    }
}

/// Of what came behind that line it is not known which of it was stored.
fn inexact(lines: u64) -> Failure {
    Failure::failed(format_args!(
        "this load replaces what is there, and which lines after {} it has stored is not written down: it was killed, or \
         too much of it failed; to do them again would overwrite what others have written since",
        grouped(lines)
    ))
    .hint("to do so all the same, load the file again without --resume")
}

/// Before anything is written: lines that are to be tried again must be those that failed.
async fn refuse_changed(file: &Path, lines: u64, digest: u64) -> Result {
    let name = file.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let mut read = Lines::new(BufReader::with_capacity(BUFFER, open(&name)?));
        read.digest_up_to(lines).map_err(|error| unreadable(&name, &error))
    });
    let found =
        looked.await.map_err(|error| Failure::failed(format_args!("cannot look through the file: {error}")))??;
    if found == Some(digest) { Ok(()) } else { Err(under_way::has_changed()) }
}

/// What is loaded.
struct Input {
    lines: Lines<Box<dyn Read + Send>>,
    /// Bytes of a regular file. Other inputs can be read once only, and not be resumed.
    size: Option<u64>,
}

impl Input {
    /// Refuses what cannot be read, and what has another format.
    fn of(global: &GlobalArgs, args: &Args) -> Result<Input> {
        let mut size = None;
        let input: Box<dyn Read + Send> = if is_standard_input(args) {
            Box::new(io::stdin())
        } else {
            let file = open(&args.file)?;
            size = file.metadata().ok().filter(Metadata::is_file).map(|metadata| metadata.len());
            Box::new(file)
        };
        let mut input = BufReader::with_capacity(BUFFER, input);
        let head = input.fill_buf().map_err(|error| unreadable(&args.file, &error))?;
        let load = format!("driftless{} load{} -", global.cluster_flags(), args.bucket.flag());
        let file = args.file.display().to_string();
        match formats::another_format(head, &file, &load) {
            None => Ok(Input { lines: Lines::new(input), size }),
            Some((what, how)) => {
                let name = if is_standard_input(args) { "standard input".to_owned() } else { file };
                Err(Failure::failed(format_args!("{name} {what}")).hint(how))
            }
        }
    }
}

fn is_regular_file(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file())
}

fn is_standard_input(args: &Args) -> bool {
    args.file.as_os_str() == "-"
}

/// Before anything is written.
async fn refuse_crowding(file: &Path, size: u64) -> Result {
    if size > SAID_FROM {
        output::note(format_args!("looking through {} first …", file.display()));
    }
    let name = file.to_owned();
    // On a thread of its own: the connections are served meanwhile.
    let looked = tokio::task::spawn_blocking(move || crowded(&name)).await;
    match looked.map_err(|error| Failure::failed(format_args!("cannot look through the file: {error}")))?? {
        None => Ok(()),
        Some(key) => Err(Failure::failed(format_args!(
            "key {key} has more values in {} than the {SIBLINGS_MAX} that a key holds; nothing was written",
            file.display(),
        ))
        .hint("to keep the last line of each key, load with --replace")),
    }
}

fn crowded(file: &Path) -> Result<Option<Key>> {
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER, open(file)?));
    let mut crowding = Crowding::default();
    while let Some(line) = lines.parse().map_err(|error| unreadable(file, &error))? {
        if let Ok(Some(Line::Record(record))) = line.content
            && crowding.meet(&record)
        {
            return Ok(Some(record.key));
        }
    }
    Ok(None)
}

fn goes_on_from(args: &Args, journal: Option<&Journal>) -> Result<Option<Interrupted>> {
    let interrupted = journal.and_then(Journal::read);
    match (&interrupted, args.resume) {
        (None, true) if journal.is_none() => {
            return Err(Failure::usage(
                "--resume needs the journal of the load, and there is no place for one: HOME and XDG_STATE_HOME are not set",
            )
            .hint(AGAIN));
        }
        (None, true) => output::note("no interrupted load of this file into this bucket is known: it begins at line 1"),
        (Some(Interrupted { mark, .. }), false) if mark.lines > 0 => output::note(format_args!(
            "a load of this file was interrupted after line {}; this one begins at line 1, --resume would go on from there",
            grouped(mark.lines)
        )),
        _ => {}
    }
    Ok(interrupted.filter(|_| args.resume))
}

fn how_to_go_on(global: &GlobalArgs, args: &Args, is_resumable: bool) -> String {
    if !is_resumable {
        return AGAIN.to_owned();
    }
    let file = args.file.display().to_string();
    let dashes = if file.starts_with('-') { "-- " } else { "" };
    let (cluster, bucket) = (global.cluster_flags(), args.bucket.flag());
    format!("go on with: driftless{cluster} load{bucket} --resume {dashes}{}", key::word(&file))
}

fn open(file: &Path) -> Result<File> {
    File::open(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot read {}: {error}", file.display()))
}

fn report(global: &GlobalArgs, args: &Args, summary: &Summary) -> Result {
    if summary.is_empty() {
        output::warning(format_args!("there is no record in {}: nothing was loaded", args.file.display()));
    }
    if global.format == Format::Json {
        return output::json_line(&summary.as_json());
    }
    output::line(summary.sentence())?;
    let get = format!("driftless{} get{}", global.cluster_flags(), args.bucket.flag());
    for (tone, text) in summary.notes(&get) {
        match tone {
            Tone::Warning => output::warning(text),
            _ => output::note(text),
        }
    }
    if summary.failed_for_now > 0 && summary.stopped.is_none() {
        output::note(format_args!(
            "{} failed for want of answers; {}",
            lines(summary.failed_for_now),
            how_to_go_on(global, args, summary.is_resumable)
        ));
    }
    Ok(())
}

fn lines(count: u64) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{} lines", grouped(count)) }
}

/// What is to be done where nothing can be resumed.
const AGAIN: &str = "load it again without --resume: a value that is there already is left alone";

/// Looking through a smaller file takes no time that anybody would notice.
const SAID_FROM: u64 = 256 << 20;

/// What is read at once.
const BUFFER: usize = 1 << 20;
