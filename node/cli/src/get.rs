//! `driftless get KEY`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use driftless_client::{GetError, Read};
use driftless_proto::Key;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::explanation;
use super::global::GlobalArgs;
use super::key::{KeyArg, key_words};
use super::output::{self, Format, Tone, json_bytes, paint};
use super::quorum::ReadArgs;
use super::session::{self, BucketArg, IntoFailure};
use super::trace::TraceArgs;

/// Exit code 5 if there is no such key; 6 if none was found and too few of its own replicas could be asked to be certain.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: ReadArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// Say which replicas were asked, what each said, how long it took and what was repaired
    #[arg(long)]
    explain: bool,
}

/// Reads one key.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result<ExitCode> {
    let key = args.key.key()?;
    let trace = args.trace.begin()?;
    session::run(global, async |client| {
        let mut get =
            session::bucket(client, &args.bucket).get(key.to_bytes()).profile(trace.over(args.quorum.profile()));
        if args.explain {
            get = get.explain();
        }
        let read = match get.await {
            Err(GetError::NotCertain { read }) => *read,
            read => read.map_err(|error| explanation::of_failure(error.clone().request(), error.into_failure()))?,
        };
        match global.format {
            Format::Json => output::json_line(&as_json(&key, &read))?,
            Format::Raw => raw(global, &args.bucket, &key, &read)?,
            Format::Text => text(global, &args.bucket, &key, &read)?,
        }
        Ok(match (read.exists(), read.is_certain()) {
            (true, _) => ExitCode::SUCCESS,
            (false, true) => Exit::NotFound.into(),
            (false, false) => Exit::NotCertain.into(),
        })
    })
}

/// `{"key", "found", "certain", "primaries", "values", "context"}`, and `explanation` if asked for.
fn as_json(key: &Key, read: &Read) -> Value {
    let mut json = json!({
        "key": json_bytes(key.as_bytes()),
        "found": read.exists(),
        "certain": read.is_certain(),
        "primaries": read.primaries(),
        "values": read.values().map(|value| json_bytes(value)).collect::<Vec<_>>(),
        "context": read.context().map(ToString::to_string),
    });
    if let Some(explanation) = read.explanation() {
        json["explanation"] = explanation::json(explanation, read.tried());
    }
    json
}

fn raw(global: &GlobalArgs, bucket: &BucketArg, key: &Key, read: &Read) -> Result {
    let mut values = read.values();
    match (values.next(), values.next()) {
        (None, _) => {
            not_found(key, read);
            Ok(())
        }
        (Some(value), None) => output::raw(value),
        (Some(_), Some(_)) => Err(Failure::failed(format_args!(
            "{key} has {} siblings; --format raw prints one value",
            read.values().count()
        ))
        .hint(format_args!(
            "see them with: driftless{} get{} --format json {}",
            global.cluster_flags(),
            bucket.flag(),
            key_words(key)
        ))),
    }
}

fn text(global: &GlobalArgs, bucket: &BucketArg, key: &Key, read: &Read) -> Result {
    let count = read.values().count();
    if count == 0 {
        not_found(key, read);
    } else if count > 1 {
        let different = read.values().collect::<BTreeSet<_>>().len();
        let equal = match different {
            1 => " with equal values".to_owned(),
            different if different < count => format!(" with {different} different values"),
            _ => String::new(),
        };
        output::line(paint(Tone::Strong, format_args!("{count} siblings{equal}:")))?;
    }
    for value in read.values() {
        output::line(output::value_text(value))?;
    }
    if let Some(context) = read.context() {
        // What a script takes from standard output is the value.
        if std::io::stdout().is_terminal() {
            output::line(paint(Tone::Quiet, format_args!("context: {context}")))?;
        } else {
            output::note(format_args!("context: {context}"));
        }
        if count > 1 {
            output::note(format_args!(
                "merge them with: driftless{} put{} --context {context} {} VALUE",
                global.cluster_flags(),
                bucket.flag(),
                key_words(key)
            ));
        }
    }
    if let Some(explanation) = read.explanation() {
        output::line(format_args!("\n{}", explanation::text(explanation, read.tried())))?;
    }
    Ok(())
}

fn not_found(key: &Key, read: &Read) {
    if read.is_certain() {
        return output::note(format_args!("{key} not found"));
    }
    output::warning(format_args!(
        "{key} not found, but it may exist: only {} of the {} answers came from its own replicas; the others cannot be \
         reached (`driftless status` shows which nodes are missing)",
        read.primaries(),
        read.needed()
    ));
}
