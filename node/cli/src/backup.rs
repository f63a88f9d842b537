//! `driftless backup create | verify | show | restore`: a whole cluster in a directory, and back into this cluster or another one.

mod create;
mod manifest;
mod restore;
mod states;

use std::path::PathBuf;
use std::process::ExitCode;

use driftless_client::{Cause, ConnectFailure, Refusal, RequestError};
use serde_json::json;

use super::exit::{Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, grouped, size};
use manifest::{Backup, Saved};

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Write everything that the cluster holds into a directory, while it serves
    ///
    /// What was acknowledged before it began is in it. It is no snapshot: each key is as it was at some moment meanwhile. Whoever may read
    /// may do so. Exit code 7 if keys may be missing; the directory is DIR.incomplete then.
    Create(create::Args),
    /// Read a backup and say whether it is what was written
    Verify(LookArgs),
    /// Say what a backup holds
    Show(LookArgs),
    /// Merge what a backup holds into a cluster
    ///
    /// What was written or deleted since stays as it is; what is not there comes back. To do it again changes nothing. It may be another
    /// cluster, with other members. Takes a certificate of an operator.
    Restore(restore::Args),
}

#[derive(clap::Args, Debug)]
pub(crate) struct LookArgs {
    /// The backup
    dir: PathBuf,
}

/// Makes a backup, looks at one, or puts it back.
pub(crate) fn run(global: &GlobalArgs, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Create(args) => create::run(global, args),
        Command::Verify(args) => verify(global, args).map(|()| ExitCode::SUCCESS),
        Command::Show(args) => show(global, args).map(|()| ExitCode::SUCCESS),
        Command::Restore(args) => restore::run(global, args),
    }
}

/// Whether every other key would fail for the same reason.
fn is_for_all(request: Option<&RequestError>) -> bool {
    let Some(cause) = request.map(RequestError::cause) else { return false };
    matches!(
        cause,
        Cause::Refused { refusal: Refusal::NotAllowed { .. }, .. }
            | Cause::NoSuchBucket(_)
            | Cause::NotConnected { failure: ConnectFailure::Protocol { .. }, .. }
    )
}

/// `1 key`, `5,288 keys`.
fn keys(count: u64) -> String {
    if count == 1 { "1 key".to_owned() } else { format!("{} keys", grouped(count)) }
}

/// `1 value`, `2 values`.
fn values(count: u64) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{} values", grouped(count)) }
}

/// `1 bucket`, `2 buckets`.
fn buckets(count: usize) -> String {
    if count == 1 { "1 bucket".to_owned() } else { format!("{count} buckets") }
}

fn verify(global: &GlobalArgs, args: &LookArgs) -> Result {
    let backup = Backup::open(&args.dir)?;
    let mut wrong = Vec::new();
    for saved in &backup.manifest.buckets {
        match backup.verify(saved) {
            Ok(()) => output::note(format_args!("{}: {}, {}", saved.name(), keys(saved.keys), size(saved.bytes))),
            Err(failure) => wrong.push(failure),
        }
    }
    if let [_, _, ..] = wrong.as_slice() {
        wrong.iter().for_each(|failure| output::warning(failure.message()));
        let (count, all) = (wrong.len(), backup.manifest.buckets.len());
        return Err(Failure::failed(format_args!("{count} of {all} files are not what was written"))
            .hint("take them from another copy of this backup; `backup restore -b BUCKET` restores the others"));
    }
    if let Some(failure) = wrong.pop() {
        return Err(failure);
    }
    let (count, bytes) = (backup.manifest.keys(), backup.manifest.bytes());
    if global.format == Format::Json {
        return output::json_line(&json!({ "sound": true, "keys": count, "bytes": bytes }));
    }
    output::line(format_args!("sound: {}, {}, as they were written", keys(count), size(bytes)))
}

fn show(global: &GlobalArgs, args: &LookArgs) -> Result {
    let Backup { manifest, .. } = Backup::open(&args.dir)?;
    if global.format == Format::Json {
        let bucket = |saved: &Saved| {
            json!({
                "name": saved.name(),
                "n": saved.definition.quorum.n(),
                "keys": saved.keys,
                "values": saved.values,
                "unread": saved.unread,
                "bytes": saved.bytes,
            })
        };
        return output::json_line(&json!({
            "cluster": manifest.cluster,
            "ring_version": manifest.ring_version,
            "begun": manifest.begun,
            "ended": manifest.ended,
            "complete": manifest.complete,
            "doubts": manifest.doubts,
            "buckets": manifest.buckets.iter().map(bucket).collect::<Vec<_>>(),
        }));
    }
    output::line(format_args!(
        "cluster {} (version {}), from {} to {}",
        manifest.cluster, manifest.ring_version, manifest.begun, manifest.ended
    ))?;
    let row = |saved: &Saved| {
        let counts = [saved.keys, saved.values].map(grouped);
        vec![
            saved.name().to_owned(),
            saved.definition.quorum.n().to_string(),
            counts[0].clone(),
            counts[1].clone(),
            size(saved.bytes),
        ]
    };
    output::line(output::table(
        &["bucket", "n", "keys", "values", "size"],
        manifest.buckets.iter().map(row).collect(),
    ))?;
    match manifest.complete {
        true => output::line("complete: what was acknowledged before it began is in it"),
        false => output::line(format_args!("INCOMPLETE: keys may be missing. {}", manifest.doubts.join("; "))),
    }
}
