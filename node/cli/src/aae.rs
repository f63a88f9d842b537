//! `driftless aae`: how far replicas are compared and repaired, and what anti-entropy shall do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use driftless_client::{AaeCommand, AaePartition, AaeStatus, Client, NoRetry, Profile};
use futures::future::join_all;
use serde_json::{Value, json};

use super::exit::{Exit, Result};
use super::global::GlobalArgs;
use super::members::{ANSWER_MAX, names};
use super::output::{self, Format, Tone, grouped, paint};
use super::partition::{Partition, parse_partition};
use super::session;

/// It always runs by itself; there is nothing that must be scheduled.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// How every node stands with every peer
    Status {
        #[command(flatten)]
        node: NodeArgs,
        /// A line per partition instead of one per peer
        #[arg(long)]
        partitions: bool,
    },
    /// Compare now, instead of at the next round
    Run {
        #[command(flatten)]
        node: NodeArgs,
        /// Only this partition: 17 for that of the default bucket, or n3/17 (see `ring --key`)
        #[arg(long, value_name = "P", value_parser = parse_partition)]
        partition: Option<Partition>,
    },
    /// Begin nothing and repair nothing any more
    ///
    /// A paused node refuses its peers too. It is forgotten when the node stops: a restarted node is not paused.
    Pause {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End a pause
    Resume {
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// Which nodes.
#[derive(clap::Args, Debug)]
pub(crate) struct NodeArgs {
    /// Only this node instead of all
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// One node, as it answered or did not.
struct Node {
    name: String,
    status: std::result::Result<AaeStatus, String>,
}

/// Everything that a node and a peer share, together.
#[derive(Default)]
struct Sum {
    partitions: u64,
    unequal: u64,
    in_progress: u64,
    /// Of the partition whose last full round is longest ago; `None` if there is one without.
    oldest: Option<u64>,
    never: u64,
    compared: u64,
    repaired: u64,
    behind: u64,
    rate: f64,
}

/// Asks or tells the nodes.
pub(crate) fn run(global: &GlobalArgs, command: &Command) -> Result<ExitCode> {
    let (Command::Status { node, .. } | Command::Run { node, .. } | Command::Pause { node } | Command::Resume { node }) =
        command;
    let conversation = async |client: &Client| {
        let topology = session::topology(client);
        let order = match command {
            Command::Status { .. } => AaeCommand::Status,
            Command::Run { partition, .. } => {
                let n = topology.bucket_named("default").map_or(0, |bucket| bucket.quorum.n());
                let partition = partition.map(|partition| partition.of(&topology, n)).transpose()?;
                AaeCommand::Run { partition }
            }
            Command::Pause { .. } => AaeCommand::Pause,
            Command::Resume { .. } => AaeCommand::Resume,
        };
        let names = names(&topology, node.node.as_deref())?;
        let nodes = ask(client, names, order).await?;
        print(global, command, &nodes)
    };
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
}

async fn ask(client: &Client, names: Vec<String>, command: AaeCommand) -> Result<Vec<Node>> {
    let not_allowed = RefCell::new(Vec::new());
    let denied = &not_allowed;
    let nodes: Vec<Node> = join_all(names.into_iter().map(|name| async move {
        let status = match tokio::time::timeout(ANSWER_MAX, client.aae(&name, command)).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => {
                denied.borrow_mut().extend(session::not_allowed(&error));
                Err(error.to_string())
            }
            Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        Node { name, status }
    }))
    .await;
    session::unless_denied(nodes, not_allowed, |node| node.status.is_ok())
}

fn print(global: &GlobalArgs, command: &Command, nodes: &[Node]) -> Result<ExitCode> {
    let silent = silent(nodes);
    match (global.format, command) {
        (Format::Json, Command::Status { partitions, .. }) => output::json_line(&as_json(nodes, *partitions))?,
        (Format::Json, _) => output::json_line(&json!({ "told": told(nodes), "silent": silent }))?,
        (_, Command::Status { partitions, .. }) => print_status(nodes, *partitions)?,
        (_, command) => {
            let verb = match command {
                Command::Run { .. } => "compares now",
                Command::Pause { .. } => "is paused until `aae resume` or its next start",
                Command::Resume { .. } | Command::Status { .. } => "goes on",
            };
            for name in told(nodes) {
                output::line(format_args!("{name} {verb}"))?;
            }
        }
    }
    if !silent.is_empty() && global.format != Format::Json {
        output::warning(format_args!("no answer from {}", silent.join(", ")));
    }
    let obeyed = silent.is_empty() || matches!(command, Command::Status { .. });
    Ok(if obeyed { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

fn print_status(nodes: &[Node], partitions: bool) -> Result {
    if partitions {
        let rows = answers(nodes).flat_map(|(name, status)| status.partitions.iter().map(move |line| row(name, line)));
        let header = ["node", "peer", "partition", "state", "last round", "compared", "repaired", "behind", "eta"];
        let table = output::table(&header, rows.collect());
        output::line(output::tinted(&table, "state", |state| match state {
            "equal" => Tone::Good,
            "unequal" => Tone::Bad,
            _ => Tone::Warning,
        }))?;
    } else {
        let mut rows = Vec::new();
        for (name, status) in answers(nodes) {
            for (peer, sum) in sums(status) {
                rows.push(vec![
                    name.to_owned(),
                    peer.to_owned(),
                    sum.partitions.to_string(),
                    match sum.in_progress {
                        0 => sum.unequal.to_string(),
                        busy => format!("{} ({busy} now)", sum.unequal),
                    },
                    match (sum.never, sum.oldest) {
                        (0, Some(oldest)) => ago(oldest),
                        _ => format!("never ({})", sum.never),
                    },
                    grouped(sum.compared),
                    grouped(sum.repaired),
                    grouped(sum.behind),
                    eta(sum.behind, sum.rate).map_or("-".to_owned(), time),
                ]);
            }
        }
        let header = ["node", "peer", "shared", "unequal", "last round", "compared", "repaired", "behind", "eta"];
        output::line(output::table(&header, rows))?;
    }
    output::line("")?;
    let (good, sentence) = judge(nodes);
    output::line(paint(if good { Tone::Good } else { Tone::Warning }, output::wrapped(&sentence, 0)))
}

/// Whether all is well, and a sentence that says so or what is not.
fn judge(nodes: &[Node]) -> (bool, String) {
    let of = |holds: fn(&AaeStatus) -> bool| -> Vec<&str> {
        answers(nodes).filter(|(_, status)| holds(status)).map(|(name, _)| name).collect()
    };
    let drifted = of(|status| status.drift > 0);
    if !drifted.is_empty() {
        let names = drifted.join(", ");
        return (false, format!("A tree drifted from its data on {names}: a bug or damage; see the log there."));
    }
    let paused = of(|status| status.paused);
    if !paused.is_empty() {
        return (false, format!("Paused on {}: differences stay until `driftless aae resume`.", paused.join(", ")));
    }
    let building = of(|status| status.building > 0);
    if !building.is_empty() {
        return (true, format!("Trees are being built on {}.", building.join(", ")));
    }
    let quiet = silent(nodes);
    if quiet.len() == nodes.len() {
        return (false, "No node answers: nothing is known of how equal the replicas are.".to_owned());
    }
    let never: u64 = answers(nodes)
        .flat_map(|(_, status)| &status.partitions)
        .filter(|line| line.last_full_round_ms.is_none())
        .count() as u64;
    if never > 0 {
        let fresh = of(|status| status.partitions.iter().any(|line| line.last_full_round_ms.is_none()));
        let sentence = format!(
            "{} {} still to be made since a start of {}: until then keys may be missing there.",
            grouped(never),
            if never == 1 { "comparison is" } else { "comparisons are" },
            fresh.join(", ")
        );
        return (false, sentence);
    }
    let behind: u64 =
        answers(nodes).flat_map(|(_, status)| &status.partitions).filter(|line| line.unequal).count() as u64;
    match behind {
        0 if !quiet.is_empty() => {
            (false, format!("Everything compared is equal; what {} would say is not known.", quiet.join(", ")))
        }
        0 => (true, "Everything compared is equal.".to_owned()),
        1 => (true, "One comparison found a difference that is being repaired or waits for it.".to_owned()),
        count => (true, format!("{count} comparisons found a difference that is being repaired or waits for it.")),
    }
}

fn row(node: &str, line: &AaePartition) -> Vec<String> {
    let state = match (line.in_progress, line.unequal, line.last_full_round_ms) {
        (true, ..) => "busy",
        (_, true, _) => "unequal",
        (_, _, Some(_)) => "equal",
        (_, _, None) => "not yet",
    };
    vec![
        node.to_owned(),
        line.peer.clone(),
        line.partition.to_string(),
        state.to_owned(),
        line.last_full_round_ms.map_or("never".to_owned(), ago),
        grouped(line.compared),
        grouped(line.repaired),
        grouped(line.behind),
        eta(line.behind, line.rate).map_or("-".to_owned(), time),
    ]
}

fn as_json(nodes: &[Node], partitions: bool) -> Value {
    let entries: Vec<Value> = answers(nodes)
        .map(|(name, status)| {
            let peers: Vec<Value> = sums(status)
                .into_iter()
                .map(|(peer, sum)| {
                    json!({
                        "peer": peer,
                        "partitions": sum.partitions,
                        "unequal": sum.unequal,
                        "in_progress": sum.in_progress,
                        "never": sum.never,
                        "last_full_round_ms": if sum.never == 0 { sum.oldest } else { None },
                        "compared": sum.compared,
                        "repaired": sum.repaired,
                        "behind": sum.behind,
                        "rate": sum.rate,
                        "eta_ms": eta(sum.behind, sum.rate),
                    })
                })
                .collect();
            let mut entry = json!({
                "node": name,
                "paused": status.paused,
                "drift": status.drift,
                "building": status.building,
                "peers": peers,
            });
            if partitions {
                let lines = status.partitions.iter().map(|line| {
                    json!({
                        "peer": line.peer,
                        "partition": line.partition.to_string(),
                        "last_full_round_ms": line.last_full_round_ms,
                        "compared": line.compared,
                        "repaired": line.repaired,
                        "unequal": line.unequal,
                        "in_progress": line.in_progress,
                        "behind": line.behind,
                        "eta_ms": eta(line.behind, line.rate),
                    })
                });
                entry["partitions"] = lines.collect();
            }
            entry
        })
        .collect();
    json!({ "nodes": entries, "silent": silent(nodes) })
}

fn sums(status: &AaeStatus) -> BTreeMap<&str, Sum> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for line in &status.partitions {
        let sum = sums.entry(&line.peer).or_default();
        sum.partitions += 1;
        sum.unequal += u64::from(line.unequal);
        sum.in_progress += u64::from(line.in_progress);
        sum.never += u64::from(line.last_full_round_ms.is_none());
        sum.oldest = sum.oldest.max(line.last_full_round_ms);
        sum.compared += line.compared;
        sum.repaired += line.repaired;
        sum.behind += line.behind;
        sum.rate = sum.rate.max(line.rate);
    }
    sums
}

fn answers(nodes: &[Node]) -> impl Iterator<Item = (&str, &AaeStatus)> {
    nodes.iter().filter_map(|node| Some((node.name.as_str(), node.status.as_ref().ok()?)))
}

fn told(nodes: &[Node]) -> Vec<&str> {
    answers(nodes).map(|(name, _)| name).collect()
}

fn silent(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter(|node| node.status.is_err()).map(|node| node.name.as_str()).collect()
}

/// Milliseconds until so many keys are repaired.
fn eta(behind: u64, rate: f64) -> Option<u64> {
    (behind > 0 && rate > 0.0).then(|| (behind as f64 / rate * 1000.0) as u64)
}

fn ago(ms: u64) -> String {
    format!("{} ago", time(ms))
}

fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(peer: &str, arc: u32, age: Option<u64>, behind: u64) -> AaePartition {
        AaePartition {
            peer: peer.to_owned(),
            partition: format!("n3/{arc}").parse().expect("a partition"),
            last_full_round_ms: age,
            compared: 10,
            repaired: 2,
            unequal: behind > 0,
            in_progress: false,
            behind,
            rate: 50.0,
        }
    }

    fn node(paused: bool, drift: u64, partitions: Vec<AaePartition>) -> Node {
        Node { name: "a".to_owned(), status: Ok(AaeStatus { paused, drift, building: 0, partitions }) }
    }

    #[test]
    fn partitions_are_summed_by_peer() {
        let lines = vec![line("b", 0, Some(5_000), 0), line("b", 1, Some(9_000), 100), line("c", 0, None, 0)];
        let json = as_json(&[node(false, 0, lines)], false);
        let peers = &json["nodes"][0]["peers"];
        assert_eq!(
            (&peers[0]["peer"], &peers[0]["partitions"], &peers[0]["unequal"]),
            (&json!("b"), &json!(2), &json!(1))
        );
        assert_eq!((&peers[0]["last_full_round_ms"], &peers[0]["eta_ms"]), (&json!(9_000), &json!(2_000)));
        assert_eq!((&peers[0]["compared"], &peers[0]["repaired"]), (&json!(20), &json!(4)));
        assert_eq!((&peers[1]["last_full_round_ms"], &peers[1]["never"]), (&json!(null), &json!(1)));
        assert_eq!(json["nodes"][0]["partitions"], json!(null));
        assert_eq!(
            as_json(&[node(false, 0, vec![line("b", 7, None, 0)])], true)["nodes"][0]["partitions"][0]["partition"],
            json!("n3/7")
        );
    }

    #[test]
    fn the_sentence_names_what_is_wrong_first() {
        assert_eq!(judge(&[node(false, 0, vec![line("b", 0, Some(1), 0)])]).1, "Everything compared is equal.");
        assert!(judge(&[node(false, 0, vec![line("b", 0, Some(1), 3)])]).1.starts_with("One comparison"));
        // Of an empty node nobody has looked at it was said that everything is equal, and of three that were not heard too.
        let (good, said) = judge(&[node(false, 0, vec![line("b", 0, None, 0), line("b", 1, Some(1), 0)])]);
        assert!(!good && said.starts_with("1 comparison is still to be made since a start of a:"), "{said}");
        let silent = || Node { name: "c".to_owned(), status: Err("no answer".to_owned()) };
        let (good, said) = judge(&[node(false, 0, vec![line("b", 0, Some(1), 0)]), silent()]);
        assert!(!good && said.ends_with("what c would say is not known."), "{said}");
        assert!(judge(&[silent()]).1.starts_with("No node answers"));
        assert!(!judge(&[node(true, 0, Vec::new())]).0);
        assert!(judge(&[node(true, 1, Vec::new())]).1.starts_with("A tree drifted"));
    }
}
