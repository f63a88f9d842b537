//! `driftless damaged`: records that are not what was written, and how to give up what they held.

use std::cell::RefCell;
use std::process::ExitCode;

use driftless_client::{Client, DamagedKeys, Key, NoRetry, Profile, Restored};
use futures::future::join_all;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::key::KeyArg;
use super::members::{ANSWER_MAX, names};
use super::output::{self, Format, Tone, grouped, json_bytes, paint};
use super::session::{self, BucketArg};

/// A damaged record is restored from the other owners by itself, as soon as enough of them are there and sound.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// The keys whose records are damaged, and on which nodes
    List(ListArgs),
    /// Give up what a damaged record held: put what the other owners hold, perhaps nothing, in its place
    ///
    /// Only for records that are not restored by themselves, because too few other owners are sound: two of three are
    /// damaged, or the bucket has n = 1. What only damaged records held is lost then, ACKNOWLEDGED WRITES among it, and
    /// what they knew to be deleted may come back. Start all owners of the key first: with enough of them nothing is lost.
    Restore(RestoreArgs),
}

/// Which nodes to ask.
#[derive(clap::Args, Debug)]
pub(crate) struct ListArgs {
    /// Only this node instead of all
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// Which record to give up.
#[derive(clap::Args, Debug)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    bucket: BucketArg,
    /// Only on this node instead of all on which it is damaged
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// I know that acknowledged writes may be lost
    #[arg(long)]
    accept_loss: bool,
}

/// What one node said, or why it did not.
struct Node<T> {
    name: String,
    said: std::result::Result<T, String>,
}

/// Asks or tells the nodes.
pub(crate) fn run(global: &GlobalArgs, command: Command) -> Result<ExitCode> {
    match command {
        Command::List(args) => {
            let conversation = async |client: &Client| {
                let names = names(&session::topology(client), args.node.as_deref())?;
                let nodes = ask(names, async |name: &str| client.damaged(name).await).await?;
                match global.format {
                    Format::Json => output::json_line(&as_json(client, &nodes))?,
                    _ => print(client, &nodes)?,
                }
                Ok(ExitCode::SUCCESS)
            };
            session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
        }
        Command::Restore(args) => restore(global, args),
    }
}

fn restore(global: &GlobalArgs, args: RestoreArgs) -> Result<ExitCode> {
    let key = args.key.key()?;
    if !args.accept_loss {
        return Err(Failure::usage("what only the damaged records held would be lost, acknowledged writes among it")
            .hint("start all owners of the key first; if that does not help, repeat this with --accept-loss"));
    }
    let bucket = &args.bucket.bucket;
    let conversation = async |client: &Client| {
        let names = names(&session::topology(client), args.node.as_deref())?;
        let nodes = ask(names, async |name: &str| client.restore_damaged(name, bucket, &key).await).await?;
        print_restored(global, &key, &nodes)
    };
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
}

fn print_restored(global: &GlobalArgs, key: &Key, nodes: &[Node<Restored>]) -> Result<ExitCode> {
    let done: Vec<_> = answers(nodes).filter(|(_, restored)| restored.was_damaged).collect();
    if global.format == Format::Json {
        let restored: Vec<Value> =
            done.iter().map(|(node, done)| json!({ "node": node, "answered": done.answered })).collect();
        let key = json_bytes(key.as_bytes());
        output::json_line(&json!({ "key": key, "restored": restored, "silent": silent(nodes) }))?;
    } else {
        for (node, restored) in &done {
            let from = match restored.answered {
                0 => "by nothing: no other owner said what it holds".to_owned(),
                1 => "by what one other owner holds".to_owned(),
                count => format!("by what {count} other owners hold"),
            };
            output::line(format_args!("{node}: the damaged record is replaced {from}"))?;
        }
        for node in nodes {
            if let Err(reason) = &node.said {
                output::warning(format_args!("{}: {reason}", node.name));
            }
        }
        if done.is_empty() {
            output::note(format_args!("{key} is damaged on no node that answered; nothing was done"));
        }
    }
    Ok(match (done.is_empty(), silent(nodes).is_empty()) {
        (_, false) => Exit::Failed.into(),
        (true, true) => Exit::NotFound.into(),
        (false, true) => ExitCode::SUCCESS,
    })
}

async fn ask<T>(
    names: Vec<String>,
    said: impl AsyncFn(&str) -> std::result::Result<T, driftless_client::StatusError>,
) -> Result<Vec<Node<T>>> {
    let not_allowed = RefCell::new(Vec::new());
    let (said, denied) = (&said, &not_allowed);
    let nodes: Vec<Node<T>> = join_all(names.into_iter().map(|name| async move {
        let said = match tokio::time::timeout(ANSWER_MAX, said(&name)).await {
            Ok(said) => said.map_err(|error| {
                denied.borrow_mut().extend(session::not_allowed(&error));
                error.to_string()
            }),
            Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        Node { name, said }
    }))
    .await;
    session::unless_denied(nodes, not_allowed, |node| node.said.is_ok())
}

/// `{"damaged": [{"node", "bucket", "key"}], "count": …, "silent": [names]}`.
fn as_json(client: &Client, nodes: &[Node<DamagedKeys>]) -> Value {
    let damaged: Vec<Value> = lines(client, nodes)
        .map(|(node, bucket, key)| json!({ "node": node, "bucket": bucket, "key": json_bytes(key.as_bytes()) }))
        .collect();
    json!({ "damaged": damaged, "count": count(nodes), "silent": silent(nodes) })
}

fn print(client: &Client, nodes: &[Node<DamagedKeys>]) -> Result {
    let rows: Vec<Vec<String>> =
        lines(client, nodes).map(|(node, bucket, key)| vec![node.to_owned(), bucket, key.to_string()]).collect();
    let shown = rows.len() as u64;
    if shown > 0 {
        output::line(output::table(&["damaged on", "bucket", "key"], rows))?;
        output::line("")?;
    }
    let silent = silent(nodes);
    if !silent.is_empty() {
        output::warning(format_args!("{} did not answer; what is damaged there is not shown", silent.join(", ")));
    }
    let count = count(nodes);
    if count > shown {
        output::line(format_args!("{} more are damaged.", grouped(count - shown)))?;
    }
    match count {
        0 => output::line(paint(Tone::Good, "No record is known to be damaged.")),
        _ => output::line(paint(
            Tone::Warning,
            "They are restored from the other owners by themselves once enough of those are there and sound. Check the disks.",
        )),
    }
}

fn lines<'a>(
    client: &Client,
    nodes: &'a [Node<DamagedKeys>],
) -> impl Iterator<Item = (&'a str, String, &'a Key)> + use<'a> {
    let topology = session::topology(client);
    let all = answers(nodes).flat_map(|(node, damaged)| damaged.keys.iter().map(move |damaged| (node, damaged)));
    all.map(move |(node, damaged)| {
        let bucket = topology.bucket(damaged.bucket);
        (node, bucket.map_or_else(|| damaged.bucket.0.to_string(), |bucket| bucket.name.to_string()), &damaged.key)
    })
}

fn count(nodes: &[Node<DamagedKeys>]) -> u64 {
    answers(nodes).map(|(_, damaged)| damaged.count).sum()
}

fn answers<T>(nodes: &[Node<T>]) -> impl Iterator<Item = (&str, &T)> {
    nodes.iter().filter_map(|node| Some((node.name.as_str(), node.said.as_ref().ok()?)))
}

fn silent<T>(nodes: &[Node<T>]) -> Vec<&str> {
    nodes.iter().filter(|node| node.said.is_err()).map(|node| node.name.as_str()).collect()
}
