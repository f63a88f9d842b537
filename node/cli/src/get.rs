//! `driftless get KEY`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use driftless_client::{Explanation, GetError, Read};
use driftless_proto::Key;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::key::{KeyArg, key_words};
use super::output::{self, Format, Tone, json_bytes, paint};
use super::quorum::ReadArgs;
use super::session::{self, BucketArg, IntoFailure};

/// Exit code 5 if there is no such key; 6 if none was found and too few of its own replicas could be asked to be certain.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: ReadArgs,
    /// Say which replicas were asked, what each said and what was repaired
    #[arg(long)]
    explain: bool,
}

/// Reads one key.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result<ExitCode> {
    let key = args.key.key()?;
    session::run(global, async |client| {
        let mut get = session::bucket(client, &args.bucket).get(key.to_bytes()).profile(args.quorum.profile());
        if args.explain {
            get = get.explain();
        }
        let read = match get.await {
            Err(GetError::NotCertain { read }) => *read,
            read => read.map_err(IntoFailure::into_failure)?,
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
        json["explanation"] = explanation_json(explanation);
    }
    json
}

fn explanation_json(explanation: &Explanation) -> Value {
    let replicas: Vec<Value> = explanation
        .replicas
        .iter()
        .map(|replica| {
            json!({
                "node": replica.node,
                "stands_in_for": replica.stands_in_for,
                "state": replica.state,
                "latency_us": replica.latency_us,
                "counted": replica.counted,
                "repaired": replica.repaired,
            })
        })
        .collect();
    json!({
        "coordinator": explanation.coordinator,
        "ring_version": explanation.ring_version,
        "partition": explanation.partition,
        "r": explanation.r,
        "replicas": replicas,
    })
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
        explain(explanation)?;
    }
    Ok(())
}

fn explain(explanation: &Explanation) -> Result {
    let Explanation { coordinator, ring_version, partition, r, .. } = explanation;
    let title = format!(
        "partition {partition}, ring version {ring_version}; put together by {coordinator} from {r} answers; what each \
         replica had stands below it:"
    );
    output::line(format_args!("\n{}", output::wrapped(&title, 0)))?;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows = explanation.replicas.iter().map(|replica| {
        vec![
            replica.node.clone(),
            replica.stands_in_for.as_ref().map_or("primary".to_owned(), |primary| format!("fallback for {primary}")),
            replica.latency_us.map_or("-".to_owned(), |us| format!("{:.2} ms", us as f64 / 1000.0)),
            yes(replica.counted),
            yes(replica.repaired),
        ]
    });
    let table = output::table(&["replica", "as", "after", "counted", "repaired"], rows.collect());
    let mut lines = table.lines();
    output::line(lines.next().unwrap_or_default())?;
    for (line, replica) in lines.zip(&explanation.replicas) {
        output::line(line)?;
        let state = replica.state.as_deref().unwrap_or("no answer");
        output::line(format_args!("    {}", paint(Tone::Quiet, output::wrapped(state, 4))))?;
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
