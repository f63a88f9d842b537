//! `driftless put KEY [VALUE|-]`.

use std::ffi::OsString;
use std::io::{IsTerminal, Read as _};
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use driftless_client::{Bucket, Context, GetError, Key, Outcome, Read, WriteId};
use serde_json::json;

use super::exit::{Exit, Failure, Result};
use super::explanation;
use super::global::GlobalArgs;
use super::key::{KeyArg, key_words};
use super::output::{self, Format, json_bytes};
use super::quorum::WriteArgs;
use super::session::{self, BucketArg, IntoFailure};
use super::trace::TraceArgs;

/// Without --context or --replace the value becomes a sibling of whatever is there.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    key: KeyArg,
    /// The value; `-` or nothing reads it from standard input
    value: Option<OsString>,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: WriteArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// What you have read and mean to replace, as `get` printed it
    #[arg(long, value_name = "TOKEN", value_parser = session::parse_context)]
    context: Option<Context>,
    /// Read the key first, and replace what is there
    #[arg(long, conflicts_with_all = ["context", "write_id"])]
    replace: bool,
    /// Repeats an earlier one whose outcome is unknown: the id that its error told
    #[arg(long, value_name = "ID")]
    write_id: Option<WriteId>,
    /// Say who stamped it, which replicas were asked, what each did and how long it took
    #[arg(long)]
    explain: bool,
}

/// Writes one value.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result {
    let key = args.key.key()?;
    let value = match args.value {
        Some(text) if text != "-" => text.into_vec(),
        _ => from_standard_input()?,
    };
    let trace = args.trace.begin()?;
    session::run(global, async |client| {
        let bucket = session::bucket(client, &args.bucket).with_profile(&trace.over(args.quorum.profile()));
        let mut put = bucket.put(key.to_bytes(), Bytes::from(value));
        let mut context = args.context;
        let mut replaced = None;
        if args.replace {
            let read = what_is_there(&bucket, &key).await?;
            replaced = Some(read.values().len());
            context = read.context().cloned();
        }
        if args.explain {
            put = put.explain();
        }
        let is_repeated = args.write_id.is_some();
        if let Some(id) = args.write_id {
            put = put.write_id(id);
        }
        let command = |verb| format!("driftless{} {verb}{}", global.cluster_flags(), args.bucket.flag());
        let get = format!("{} {}", command("get"), key_words(&key));
        let done = put.context(context.clone()).await.map_err(|error| {
            let failure = match error.write_id() {
                // Read again it might be another context, and then it were another write.
                Some(id) if args.replace && error.outcome() == Outcome::Unknown => {
                    let context = context.map_or_else(String::new, |context| format!(" --context {context}"));
                    let put = format!("{}{context} --write-id {id} {} VALUE", command("put"), key_words(&key));
                    error.clone().into_failure().hint(format_args!("repeat it with: {put}"))
                }
                _ => error.clone().into_failure(),
            };
            explanation::of_failure(error.request(), failure)
        })?;
        if global.format == Format::Json {
            let mut json = json!({
                "key": json_bytes(key.as_bytes()),
                "siblings": done.siblings(),
                "live": done.is_live(),
                "replaced": replaced,
                "acks": done.acks(),
                "primaries": done.primaries(),
                "context": done.context().map(|context| context.to_string()),
            });
            if let Some(told) = done.explanation() {
                json["explanation"] = explanation::json(told, done.tried());
            }
            return output::json_line(&json);
        }
        match (done.siblings(), replaced) {
            _ if !done.is_live() => output::line(format_args!(
                "{}; see what is there with: {get}",
                if is_repeated {
                    "stored before, and replaced or deleted since"
                } else {
                    "taken, but the key holds something of a later time, which stays: the last writer wins"
                }
            ))?,
            (0 | 1, None | Some(0)) => output::line("stored")?,
            (0 | 1, Some(1)) => output::line("stored, in place of 1 value")?,
            (0 | 1, Some(count)) => output::line(format_args!("stored, in place of {count} siblings"))?,
            (count, _) => {
                output::line(format_args!("stored; the key has {count} siblings, read them with: {get}"))?;
            }
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
        if let Some(told) = done.explanation() {
            output::line(format_args!("\n{}", explanation::text(told, done.tried())))?;
        }
        Ok(())
    })
}

/// What a put is to replace. Where it is not certain that there is nothing, nothing is written: what there is would stay.
async fn what_is_there(bucket: &Bucket, key: &Key) -> Result<Read> {
    bucket.get(key.to_bytes()).await.map_err(|error| match error {
        GetError::NotCertain { .. } => Failure::new(Exit::NotCertain, format_args!("nothing was written: {error}"))
            .hint("without --replace it becomes a sibling of what there may be"),
        error => error.into_failure(),
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
