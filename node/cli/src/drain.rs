//! `driftless drain`: a node that is about to be stopped coordinates nothing new, and finishes what is under way.

use std::time::Duration;

use driftless_client::{Client, DrainCommand, DrainStatus};
use serde_json::json;

use super::exit::{Failure, Result};
use super::global::GlobalArgs;
use super::members::{ANSWER_MAX, names};
use super::output::{self, Format, grouped};
use super::session::{self, IntoFailure};

/// Which node, and what to wait for.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// Wait until it has answered all that was under way
    #[arg(long)]
    wait: bool,
    /// Wait also until it has delivered the hints that it holds, which it does not while one of their nodes is down
    #[arg(long)]
    hints: bool,
    /// Have it take requests again
    #[arg(long, conflicts_with_all = ["wait", "hints"])]
    undo: bool,
}

/// Tells one node.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result {
    session::run(global, async |client: &Client| {
        names(&session::topology(client), Some(&args.node))?;
        let command = if args.undo { DrainCommand::Undo } else { DrainCommand::Begin };
        let mut status = tell(client, &args.node, command).await?;
        if args.undo && status.draining {
            return Err(Failure::failed(format_args!(
                "{} is stopping: it takes no requests until it is started again",
                args.node
            )));
        }
        while !is_done(args, &status) {
            tokio::time::sleep(LOOK_EVERY).await;
            status = tell(client, &args.node, DrainCommand::Status).await?;
            if !status.draining {
                let text = format!(
                    "{} takes requests again: somebody has undone it, or the node was started again",
                    args.node
                );
                return Err(Failure::failed(text));
            }
        }
        match global.format {
            Format::Json => output::json_line(&json!({
                "node": args.node,
                "draining": status.draining,
                "under_way": status.under_way,
                "hints": status.hints,
            })),
            _ => output::line(sentence(&args.node, &status)),
        }
    })
}

async fn tell(client: &Client, node: &str, command: DrainCommand) -> Result<DrainStatus> {
    match tokio::time::timeout(ANSWER_MAX, client.drain(node, command)).await {
        Ok(answer) => answer.map_err(IntoFailure::into_failure),
        Err(_) => Err(Failure::failed(format_args!("{node} does not answer within {} s", ANSWER_MAX.as_secs()))),
    }
}

/// Whether there is nothing left to wait for.
fn is_done(args: &Args, status: &DrainStatus) -> bool {
    let waits = args.wait || args.hints;
    (!waits || status.under_way == 0) && (!args.hints || status.hints == Some(0))
}

fn sentence(node: &str, status: &DrainStatus) -> String {
    let DrainStatus { draining, under_way, hints } = *status;
    if !draining {
        return format!("{node} takes requests again");
    }
    let stands = match under_way {
        0 => format!("{node} is drained: nothing is under way"),
        1 => format!("{node} takes no new requests: 1 is under way"),
        _ => format!("{node} takes no new requests: {} are under way", grouped(under_way)),
    };
    match hints {
        Some(0) => format!("{stands}, and it holds no hints"),
        Some(1) => format!("{stands}, and it holds 1 hint, which waits while it is stopped"),
        Some(keys) => format!("{stands}, and it holds {} hints, which wait while it is stopped", grouped(keys)),
        None => format!("{stands}; what it holds for others is still being counted"),
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn status(draining: bool, under_way: u64, hints: Option<u64>) -> DrainStatus {
        DrainStatus { draining, under_way, hints }
    }

    #[test]
    fn what_is_left_is_said() {
        for (status, said) in [
            (status(true, 0, Some(0)), "n2 is drained: nothing is under way, and it holds no hints"),
            (
                status(true, 1, Some(1)),
                "n2 takes no new requests: 1 is under way, and it holds 1 hint, which waits while it is stopped",
            ),
            (
                status(true, 3, Some(1234)),
                "n2 takes no new requests: 3 are under way, and it holds 1,234 hints, which wait while it is stopped",
            ),
            (
                status(true, 0, None),
                "n2 is drained: nothing is under way; what it holds for others is still being counted",
            ),
            (status(false, 7, Some(7)), "n2 takes requests again"),
        ] {
            assert_eq!(sentence("n2", &status), said);
        }
    }

    #[test]
    fn it_waits_for_what_it_was_told_to() {
        let args = |wait, hints| Args { node: "n2".to_owned(), wait, hints, undo: false };
        let (busy, holding, idle) = (status(true, 1, Some(0)), status(true, 0, Some(1)), status(true, 0, Some(0)));
        for (args, status, expected) in [
            (args(false, false), busy, true),
            (args(true, false), busy, false),
            (args(true, false), holding, true),
            (args(false, true), busy, false),
            (args(false, true), holding, false),
            (args(false, true), status(true, 0, None), false),
            (args(true, true), idle, true),
        ] {
            assert_eq!(is_done(&args, &status), expected, "{args:?} {status:?}");
        }
    }
}
