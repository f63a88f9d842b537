//! `driftless put KEY [VALUE|-]`.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use driftless_client::{Context, WriteId};
use serde_json::json;

use super::exit::{Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, json_bytes};
use super::quorum::WriteArgs;
use super::session::{self, BucketArg, IntoFailure};

/// Without --context the value becomes a sibling of whatever is there.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The key
    key: OsString,
    /// The value; `-` or nothing reads it from standard input
    value: Option<OsString>,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: WriteArgs,
    /// What you have read and mean to replace, as `get` printed it
    #[arg(long, value_name = "TOKEN", value_parser = session::parse_context)]
    context: Option<Context>,
    /// Repeats an earlier one whose outcome is unknown: the id that its error told
    #[arg(long, value_name = "ID")]
    write_id: Option<WriteId>,
}

/// Writes one value.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result {
    let key = session::key(args.key)?;
    let value = match args.value {
        Some(text) if text != "-" => text.into_vec(),
        _ => from_standard_input()?,
    };
    session::run(global, async |client| {
        let bucket = session::bucket(client, &args.bucket);
        let mut put = bucket.put(key.to_bytes(), Bytes::from(value)).profile(args.quorum.profile());
        if let Some(context) = args.context {
            put = put.context(context);
        }
        let is_repeated = args.write_id.is_some();
        if let Some(id) = args.write_id {
            put = put.write_id(id);
        }
        let done = put.await.map_err(IntoFailure::into_failure)?;
        let context = done.context().map(|context| context.to_string());
        if global.format == Format::Json {
            return output::json_line(&json!({
                "key": json_bytes(key.as_bytes()),
                "siblings": done.siblings(),
                "live": done.is_live(),
                "acks": done.acks(),
                "primaries": done.primaries(),
                "context": context,
            }));
        }
        match done.siblings() {
            _ if !done.is_live() => output::line(format_args!(
                "{}; see what is there with: driftless{} get{} {key}",
                if is_repeated {
                    "stored before, and replaced or deleted since"
                } else {
                    "taken, but the key holds something of a later time, which stays: the last writer wins"
                },
                global.profile_flag(),
                args.bucket.flag()
            ))?,
            0 | 1 => output::line("stored")?,
            count => output::line(format_args!(
                "stored; the key has {count} siblings, read them with: driftless{} get{} {key}",
                global.profile_flag(),
                args.bucket.flag()
            ))?,
        }
        let fallbacks = done.acks() - done.primaries();
        if fallbacks > 0 {
            output::note(format_args!(
                "acknowledged by {} {} + {fallbacks} {}, which will hand it to the primaries that could not be reached",
                done.primaries(),
                if done.primaries() == 1 { "primary" } else { "primaries" },
                if fallbacks == 1 { "fallback" } else { "fallbacks" },
            ));
        }
        Ok(())
    })
}

fn from_standard_input() -> Result<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        output::note("reading the value from standard input; end it with Ctrl-D");
    }
    let mut value = Vec::new();
    input
        .read_to_end(&mut value)
        .map_err(|error| Failure::failed(format_args!("cannot read standard input: {error}")))?;
    Ok(value)
}
