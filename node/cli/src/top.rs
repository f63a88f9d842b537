//! `driftless top`: which keys are hot, large, or have many siblings.
//!
//! All members are asked, and what they say is joined: each node counts what clients ask of it. `status --watch` shows the same lines.

mod lines;

use std::io::{self, IsTerminal};
use std::time::Duration;

use driftless_client::{Client, NoRetry, Profile, Top, TopCommand};
use driftless_node::top::BUCKETS_MAX;
use driftless_proto::top::KEYS_MAX;
use driftless_proto::{BucketId, Topology};
use futures::future::join_all;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::members::{ANSWER_MAX, members};
use super::output::{self, Format, Tone, paint};
use super::session;
use super::status::parse_interval;

pub(crate) use lines::{By, Line, lines};

/// A count is never too low, and at most OVER BY too high.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only keys of this bucket
    #[arg(short, long, value_name = "NAME")]
    bucket: Option<String>,
    /// What they are ranked by
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// So many keys; nodes know of 256 hot ones in a bucket, and of 64 others
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=KEYS_MAX as i64))]
    count: u32,
    /// Show it until Ctrl-C, asked anew each second or so many; with --format json a line each time
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval, num_args = 0..=1, require_equals = true,
        default_missing_value = "1")]
    watch: Option<Duration>,
}

/// What a member says when it is asked.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Said {
    Top(Box<Top>),
    /// It is of a release that does not count.
    Older,
    /// Who asks may not see it.
    Denied(String),
    /// It has not answered.
    Silence,
}

/// Asks all members, once or again and again.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result {
    let conversation = async |client: &Client| {
        let bucket = bucket(&session::topology(client), args.bucket.as_deref())?;
        let Some(every) = args.watch else {
            return output::line(seen(client, global, args, bucket).await?);
        };
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            ended = watch(client, global, args, bucket, every) => ended,
            () = interrupts.next() => Ok(()),
        }
    };
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
}

fn bucket(topology: &Topology, name: Option<&str>) -> Result<Option<BucketId>> {
    let Some(name) = name else { return Ok(None) };
    match topology.bucket_named(name) {
        Some(bucket) => Ok(Some(bucket.id)),
        None => Err(Failure::new(Exit::Refused, format_args!("there is no bucket \"{name}\""))
            .hint("`driftless bucket list` shows those that exist")),
    }
}

/// On a terminal each sight takes the place of the one before.
async fn watch(client: &Client, global: &GlobalArgs, args: &Args, bucket: Option<BucketId>, every: Duration) -> Result {
    let in_place = global.format != Format::Json && io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let text = seen(client, global, args, bucket).await?;
        // From the top of the screen: lines may be longer than it is wide, and nobody knows how many rows they have taken.
        output::line(if in_place { format!("\x1b[H\x1b[2J{text}") } else { text })?;
    }
}

/// What is to be printed.
async fn seen(client: &Client, global: &GlobalArgs, args: &Args, bucket: Option<BucketId>) -> Result<String> {
    let topology = session::topology(client);
    let command = TopCommand { bucket, most: KEYS_MAX as u32 };
    let asked = members(&topology).map(|member| {
        let command = &command;
        async move {
            let said = ask(client, &member.name, command).await;
            (member.name, said)
        }
    });
    let answers = join_all(asked).await;
    if let Some(why) = denied(answers.iter().map(|(_, said)| said)) {
        return Err(Failure::new(Exit::Refused, why));
    }
    let top = joined(answers.iter().map(|(_, said)| said));
    let lines = lines(&top, &topology, args.by, bucket, args.count as usize);
    Ok(match global.format {
        Format::Json => as_json(&answers, &top, args.by, &lines).to_string(),
        _ => text(&answers, &top, args.by, &lines, bucket.is_none()),
    })
}

/// Asks one member.
pub(crate) async fn ask(client: &Client, node: &str, command: &TopCommand) -> Said {
    match tokio::time::timeout(ANSWER_MAX, client.top(node, command)).await {
        Ok(Ok(top)) => Said::Top(Box::new(top)),
        Ok(Err(error)) if session::is_of_older_release(&error) => Said::Older,
        Ok(Err(error)) => match session::not_allowed(&error) {
            Some(failure) => Said::Denied(failure.message().to_owned()),
            None => Said::Silence,
        },
        Err(_) => Said::Silence,
    }
}

/// Why nobody has told anything, if that is because it may not be seen.
pub(crate) fn denied<'a>(mut answers: impl Iterator<Item = &'a Said> + Clone) -> Option<&'a str> {
    let tells = answers.clone().any(|said| matches!(said, Said::Top(_)));
    answers.find_map(|said| match said {
        Said::Denied(why) if !tells => Some(why.as_str()),
        _ => None,
    })
}

/// All that was said, as one.
pub(crate) fn joined<'a>(answers: impl Iterator<Item = &'a Said>) -> Top {
    let tops = answers.filter_map(|said| match said {
        Said::Top(top) => Some(Top::clone(top)),
        Said::Older | Said::Denied(_) | Said::Silence => None,
    });
    Top::of_nodes(&tops.collect::<Vec<_>>(), KEYS_MAX)
}

/// What is to be known beside the lines, a sentence each: who has not counted, and how names are seen.
pub(crate) fn remarks<'a>(answers: impl Iterator<Item = (&'a str, &'a Said)> + Clone, top: &Top) -> Vec<String> {
    let those = |which: fn(&Said) -> bool| -> Option<String> {
        let names: Vec<&str> = answers.clone().filter(|(_, said)| which(said)).map(|(name, _)| name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut remarks = Vec::new();
    if let Some(names) = those(|said| matches!(said, Said::Top(top) if !top.watches)) {
        remarks.push(format!("Not counted at {names}: {SWITCH_ON}"));
    }
    if let Some(names) = those(|said| matches!(said, Said::Older)) {
        remarks.push(format!("Not counted at {names}: of an older release."));
    }
    if let Some(names) = those(|said| matches!(said, Said::Silence)) {
        remarks.push(format!("No answer from {names}: what was asked there is not in it."));
    }
    if let Some(names) = those(|said| matches!(said, Said::Denied(_))) {
        remarks.push(format!("Not shown by {names}: that takes an operator."));
    }
    if top.uncounted > 0 {
        let uncounted = output::grouped(top.uncounted);
        remarks.push(format!("{uncounted} requests were for buckets beyond the {BUCKETS_MAX} that a shard counts."));
    }
    if top.watches && !top.names && !top.buckets.is_empty() {
        remarks.push(NAMES.to_owned());
    }
    remarks
}

/// For people.
fn text(answers: &[(String, Said)], top: &Top, by: By, lines: &[Line], with_bucket: bool) -> String {
    let mut parts = Vec::new();
    if lines.is_empty() && top.watches {
        parts.push(by.nothing().to_owned());
    }
    if !lines.is_empty() {
        let mut header =
            vec!["", "key", "req/s", "over by", "reads/s", "writes/s", "bytes", "siblings", "partition", "owners"];
        if with_bucket {
            header.insert(2, "bucket");
        }
        let rows = (1..).zip(lines).map(|(rank, line)| {
            let mut row = vec![rank.to_string(), line.key.clone()];
            row.extend(with_bucket.then(|| line.bucket.clone()));
            row.extend([line.requests(), line.over(), line.reads(), line.writes(), line.bytes(), line.siblings()]);
            row.extend([line.partition.clone(), line.owners.join(", ")]);
            row
        });
        parts.push(output::table(&header, rows.collect()));
        parts.push(by.sentence(top));
    }
    let named = answers.iter().map(|(name, said)| (name.as_str(), said));
    parts.extend(remarks(named, top).into_iter().map(|remark| paint(Tone::Quiet, output::wrapped(&remark, 0))));
    parts.join("\n")
}

/// `{"by", "span_s", "keys": [{"bucket", "key", "token", …}], …, "silent": [names]}`.
fn as_json(answers: &[(String, Said)], top: &Top, by: By, lines: &[Line]) -> Value {
    let those = |which: fn(&Said) -> bool| -> Vec<&str> {
        answers.iter().filter(|(_, said)| which(said)).map(|(name, _)| name.as_str()).collect()
    };
    json!({
        "by": by.word(),
        "span_s": top.span_ms as f64 / 1000.0,
        "keys": lines.iter().map(Line::as_json).collect::<Vec<_>>(),
        "names": top.names,
        "uncounted": top.uncounted,
        "not_watching": those(|said| matches!(said, Said::Top(top) if !top.watches)),
        "older": those(|said| matches!(said, Said::Older)),
        "silent": those(|said| matches!(said, Said::Silence | Said::Denied(_))),
    })
}

pub(crate) const SWITCH_ON: &str =
    "`watch = true` under `[top]` in node.toml and a SIGHUP (`systemctl reload driftless`) begin it.";

const NAMES: &str = "Keys are shown by their tokens; `keys = true` under `[top]` in node.toml and a SIGHUP show names. \
                     `driftless ring --key KEY` prints the token of a key that you suspect.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_an_older_release_and_one_that_does_not_show_it_are_named_beside_what_the_others_say() {
        let counts = Said::Top(Box::new(Top { watches: true, names: true, ..Top::default() }));
        let denied = Said::Denied("takes the role operator".to_owned());
        let answers = [("n1", Said::Older), ("n2", counts), ("n3", denied), ("n4", Said::Older)];
        let answers = answers.map(|(name, said)| (name.to_owned(), said));
        let top = joined(answers.iter().map(|(_, said)| said));
        let said = text(&answers, &top, By::default(), &[], true);
        for remark in ["Not counted at n1, n4: of an older release.", "Not shown by n3: that takes an operator."] {
            assert!(said.lines().any(|line| line == remark), "{said}");
        }
        let told = as_json(&answers, &top, By::default(), &[]);
        assert_eq!((&told["older"], &told["silent"]), (&json!(["n1", "n4"]), &json!(["n3"])));
    }

    #[test]
    fn who_asks_without_the_right_is_told_why_unless_some_node_answers() {
        let denied = || Said::Denied("takes the role operator".to_owned());
        let both = [denied(), Said::Older];
        assert_eq!(super::denied(both.iter()), Some("takes the role operator"));
        let told = [denied(), Said::Top(Box::default())];
        assert_eq!(super::denied(told.iter()), None);
    }
}
