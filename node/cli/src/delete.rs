//! `driftless delete KEY`.

use std::process::ExitCode;

use driftless_client::{Context, DeleteError, Deleted, WriteId};
use driftless_proto::Key;
use serde_json::{Value, json};

use super::exit::{Exit, Result};
use super::explanation;
use super::global::GlobalArgs;
use super::key::{KeyArg, key_words};
use super::output::{self, Format, json_bytes};
use super::quorum::ReadWriteArgs;
use super::session::{self, BucketArg, IntoFailure};
use super::trace::TraceArgs;

/// Without --context a node reads the key first and deletes what it saw. Exit code 5 if there was nothing to delete, or nothing
/// that the context covers; 6 if nothing was found and too few of the key's own replicas could be asked to be certain.
#[derive(clap::Args, Debug)]
#[command(mut_arg("r", |arg| arg.help("Replicas that must answer the read before it [default: as the bucket says]")))]
pub(crate) struct Args {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: ReadWriteArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// What you have read and mean to delete, as `get` printed it
    #[arg(long, value_name = "TOKEN", value_parser = session::parse_context)]
    context: Option<Context>,
    /// Repeats an earlier one whose outcome is unknown: the id that its error told
    #[arg(long, value_name = "ID")]
    write_id: Option<WriteId>,
    /// Say who was read, who stamped it, which replicas were asked, what each did and how long it took
    #[arg(long)]
    explain: bool,
}

/// Deletes one key.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result<ExitCode> {
    let key = args.key.key()?;
    let with_context = args.context.is_some();
    let trace = args.trace.begin()?;
    session::run(global, async |client| {
        let mut delete =
            session::bucket(client, &args.bucket).delete(key.to_bytes()).profile(trace.over(args.quorum.profile()));
        if let Some(context) = args.context {
            delete = delete.context(context);
        }
        if let Some(id) = args.write_id {
            delete = delete.write_id(id);
        }
        if args.explain {
            delete = delete.explain();
        }
        let done = match delete.await {
            Err(error) => {
                let DeleteError::NotCertain { deleted, .. } = &error else {
                    return Err(explanation::of_failure(error.clone().request(), error.into_failure()));
                };
                output::warning(format_args!("{key}: {error}"));
                if global.format == Format::Json {
                    output::json_line(&as_json(&key, deleted, false))?;
                }
                explain(global, deleted)?;
                return Ok(Exit::NotCertain.into());
            }
            Ok(done) => done,
        };
        if global.format == Format::Json {
            output::json_line(&as_json(&key, &done, true))?;
        } else if !done.existed() && done.siblings() == 0 {
            output::note(format_args!("{key} not found; there was nothing to delete"));
        } else if !done.existed() {
            let nothing = if with_context {
                "nothing deleted: the context covers nothing that is there"
            } else {
                "nothing deleted: there was nothing when it was read"
            };
            output::note(format_args!(
                "{nothing}, and {} stay{}\nto delete what is there now, read it with: driftless{profile} get{bucket} {words}\n\
                 and give the context that this prints; or, unread: driftless{profile} delete{bucket} {words}",
                match done.siblings() {
                    1 => "1 value that it has not seen".to_owned(),
                    count => format!("{count} values that it has not seen"),
                },
                if done.siblings() == 1 { "s" } else { "" },
                words = key_words(&key),
                profile = global.cluster_flags(),
                bucket = args.bucket.flag(),
            ));
        } else if done.siblings() == 0 {
            output::line("deleted")?;
        } else {
            output::line(format_args!(
                "deleted what was seen; {} values that it had not seen remain",
                done.siblings()
            ))?;
        }
        explain(global, &done)?;
        Ok(if done.existed() { ExitCode::SUCCESS } else { Exit::NotFound.into() })
    })
}

fn explain(global: &GlobalArgs, done: &Deleted) -> Result {
    match done.explanation() {
        Some(told) if global.format != Format::Json => {
            output::line(format_args!("\n{}", explanation::text(told, done.tried())))
        }
        _ => Ok(()),
    }
}

/// With `explanation` if asked for.
fn as_json(key: &Key, done: &Deleted, certain: bool) -> Value {
    let mut json = json!({
        "key": json_bytes(key.as_bytes()),
        "existed": done.existed(),
        "certain": certain,
        "siblings": done.siblings(),
        "acks": done.acks(),
        "primaries": done.primaries(),
    });
    if let Some(told) = done.explanation() {
        json["explanation"] = explanation::json(told, done.tried());
    }
    json
}
