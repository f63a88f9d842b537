//! `driftless delete KEY`.

use std::ffi::OsString;
use std::process::ExitCode;

use driftless_client::{Context, DeleteError, WriteId};
use serde_json::json;

use super::Common;
use super::exit::{Exit, Result};
use super::output::{self, Format, json_bytes};
use super::session::{self, BucketArg, IntoFailure, SloppyArgs};

/// Without --context a node reads the key first and deletes what it saw. Exit code 5 if there was nothing; 6 if nothing was found
/// and too few of the key's own replicas could be asked to be certain.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The key
    key: OsString,
    #[command(flatten)]
    bucket: BucketArg,
    /// Replicas that must answer the read before it [default: as the bucket says]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
    /// Replicas that must acknowledge [default: as the bucket says]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    w: Option<u8>,
    #[command(flatten)]
    sloppy: SloppyArgs,
    /// What you have read and mean to delete, as `get` printed it
    #[arg(long, value_name = "TOKEN", value_parser = session::parse_context)]
    context: Option<Context>,
    /// Repeats an earlier one whose outcome is unknown: the id that its error told
    #[arg(long, value_name = "ID")]
    write_id: Option<WriteId>,
}

/// Deletes one key.
pub(crate) fn run(common: &Common, args: Args) -> Result<ExitCode> {
    let key = session::key(args.key)?;
    session::run(common, async |client| {
        let mut delete = session::bucket(client, &args.bucket).delete(key.to_bytes());
        if let Some(r) = args.r {
            delete = delete.r(r);
        }
        if let Some(w) = args.w {
            delete = delete.w(w);
        }
        if let Some(sloppy) = args.sloppy.sloppy() {
            delete = delete.sloppy(sloppy);
        }
        if let Some(context) = args.context {
            delete = delete.context(context);
        }
        if let Some(id) = args.write_id {
            delete = delete.write_id(id);
        }
        let done = match delete.await {
            Err(error @ DeleteError::NotCertain { primaries, .. }) if common.format == Format::Json => {
                output::warning(format_args!("{key}: {error}"));
                output::json_line(&json!({
                    "key": json_bytes(key.as_bytes()),
                    "existed": false,
                    "certain": false,
                    "primaries": primaries,
                }))?;
                return Ok(Exit::NotCertain.into());
            }
            Err(error @ DeleteError::NotCertain { .. }) => {
                output::warning(format_args!("{key}: {error}"));
                return Ok(Exit::NotCertain.into());
            }
            done => done.map_err(IntoFailure::into_failure)?,
        };
        if common.format == Format::Json {
            output::json_line(&json!({
                "key": json_bytes(key.as_bytes()),
                "existed": done.existed(),
                "certain": true,
                "siblings": done.siblings(),
                "acks": done.acks(),
                "primaries": done.primaries(),
            }))?;
        } else if !done.existed() {
            output::note(format_args!("{key} not found; there was nothing to delete"));
        } else if done.siblings() == 0 {
            output::line("deleted")?;
        } else {
            output::line(format_args!(
                "deleted what was seen; {} values that it had not seen remain",
                done.siblings()
            ))?;
        }
        Ok(if done.existed() { ExitCode::SUCCESS } else { Exit::NotFound.into() })
    })
}
