//! `driftless hints`: what nodes hold for others that could not be reached.

use std::time::Duration;

use driftless_client::{Client, HintsFor, NoRetry, Profile};
use futures::future::join_all;
use serde_json::{Value, json};

use super::exit::Result;
use super::global::GlobalArgs;
use super::members::{ANSWER_MAX, members, names};
use super::output::{self, Format, Tone, grouped, paint, size};
use super::session;

/// Hints are delivered by themselves once their target is back; there is nothing to type.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only what is held for this node
    #[arg(long = "for", value_name = "NODE")]
    target: Option<String>,
}

/// What one node holds, if it said so.
struct Holder {
    name: String,
    hints: std::result::Result<Vec<HintsFor>, String>,
}

/// Asks all members.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result {
    let conversation = async |client: &Client| {
        names(&session::topology(client), args.target.as_deref())?;
        let mut holders = ask(client).await;
        if let Some(target) = &args.target {
            let hints = holders.iter_mut().filter_map(|holder| holder.hints.as_mut().ok());
            hints.for_each(|hints| hints.retain(|hints| hints.target == *target));
        }
        match global.format {
            Format::Json => output::json_line(&as_json(&holders)),
            _ => print(&holders),
        }
    };
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
}

async fn ask(client: &Client) -> Vec<Holder> {
    let topology = session::topology(client);
    join_all(members(&topology).map(|member| async move {
        let hints = match tokio::time::timeout(ANSWER_MAX, client.hints(&member.name)).await {
            Ok(Ok(hints)) => Ok(hints),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        Holder { name: member.name, hints }
    }))
    .await
}

/// `{"hints": [{"node", "target", "keys", …}], "keys": …, "silent": [names]}`.
fn as_json(holders: &[Holder]) -> Value {
    let hints: Vec<Value> = all(holders)
        .map(|(node, hints)| {
            json!({
                "node": node,
                "target": hints.target,
                "keys": hints.keys,
                "bytes": hints.bytes,
                "oldest_ms": hints.oldest_ms,
                "delivered": hints.delivered,
                "rate": hints.rate,
                "eta_ms": hints.eta_ms,
            })
        })
        .collect();
    json!({ "hints": hints, "keys": keys(holders), "silent": silent(holders) })
}

fn print(holders: &[Holder]) -> Result {
    let rows: Vec<Vec<String>> = all(holders)
        .filter(|(_, hints)| hints.keys > 0)
        .map(|(node, hints)| {
            vec![
                node.to_owned(),
                hints.target.clone(),
                grouped(hints.keys),
                size(hints.bytes),
                hints.oldest_ms.map_or("-".to_owned(), time),
                grouped(hints.delivered),
                if hints.rate > 0.0 { format!("{:.0} keys/s", hints.rate) } else { "-".to_owned() },
                hints.eta_ms.map_or("-".to_owned(), time),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["held by", "for", "keys", "bytes", "oldest", "delivered", "rate", "eta"];
        output::line(output::table(&header, rows))?;
        output::line("")?;
    }
    let silent = silent(holders);
    if !silent.is_empty() {
        let hold = if silent.len() == 1 { "it holds" } else { "they hold" };
        output::warning(format_args!("{} did not answer; what {hold} is not shown", silent.join(", ")));
    }
    match keys(holders) {
        0 => output::line(paint(Tone::Good, "No hints are held.")),
        1 => output::line(paint(Tone::Warning, "1 key waits for its node to be back.")),
        count => {
            output::line(paint(Tone::Warning, format!("{} keys wait for their nodes to be back.", grouped(count))))
        }
    }
}

fn all(holders: &[Holder]) -> impl Iterator<Item = (&str, &HintsFor)> {
    let answers = holders.iter().filter_map(|holder| Some((holder.name.as_str(), holder.hints.as_ref().ok()?)));
    answers.flat_map(|(node, hints)| hints.iter().map(move |hints| (node, hints)))
}

fn keys(holders: &[Holder]) -> u64 {
    all(holders).map(|(_, hints)| hints.keys).sum()
}

fn silent(holders: &[Holder]) -> Vec<&str> {
    holders.iter().filter(|holder| holder.hints.is_err()).map(|holder| holder.name.as_str()).collect()
}

fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}
