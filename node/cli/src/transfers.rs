//! `driftless transfers`: how far the newest version has come, and when it will be done.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Client, ClusterAnswer, ClusterCommand, ClusterState, MemberState, NoRetry, Outcome, Profile};
use futures::future::join_all;
use serde_json::{Value, json};

use super::cluster::in_order;
use super::cluster::moving::{self, Progress, is_unfinished, time};
use super::cluster::standing::Phase;
use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::members::{ANSWER_MAX, names};
use super::output::{self, Format, Tone, paint, size};
use super::session::{self, IntoFailure};

/// They run by themselves, while everything is served.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Show it each second until it is done; with --timeout for no longer than that (exit code 1 then)
    #[arg(long)]
    watch: bool,
}

/// Asks all members, once or until nothing moves any more.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let conversation = async |client: &Client| {
        if args.watch {
            watch(global, client).await
        } else {
            print(global, &ask(client).await?)?;
            Ok(ExitCode::SUCCESS)
        }
    };
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |_| None)
}

/// What the member says that knows of the newest version; and of each member what it says itself, if it knows of that.
async fn ask(client: &Client) -> Result<ClusterState> {
    let names = names(&session::topology(client), None)?;
    let asked = names.into_iter().map(|name| async move {
        let answer = tokio::time::timeout(ANSWER_MAX, client.cluster_at(&name, ClusterCommand::State)).await;
        match answer {
            Ok(Ok(ClusterAnswer::State(state))) => Ok((name, *state)),
            Ok(Ok(_)) => Err(super::cluster::misunderstood()),
            Ok(Err(error)) => Err(error.into_failure()),
            Err(_) => Err(no_answer(&name)),
        }
    });
    let mut states = Vec::new();
    let mut failures = Vec::new();
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) => states.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    match together(states) {
        Some(state) => Ok(state),
        // One that has refused has said why; the others are only silent.
        None => {
            let at = failures.iter().position(|failure| failure.exit() == Exit::Refused).unwrap_or(0);
            Err(failures.into_iter().nth(at).unwrap_or_else(|| Failure::failed("the cluster has no members")))
        }
    }
}

fn no_answer(name: &str) -> Failure {
    let what = format!("no answer from {name} within {} s", ANSWER_MAX.as_secs());
    session::request_failure(what, Outcome::Unknown, None)
}

fn together(states: Vec<(String, ClusterState)>) -> Option<ClusterState> {
    let mut newest = states.iter().map(|(_, state)| state).max_by_key(|state| state.version)?.clone();
    for member in &mut newest.members {
        let own = states.iter().find(|(name, state)| *name == member.name && state.version == newest.version);
        let own = own.and_then(|(name, state)| state.members.iter().find(|one| one.name == *name));
        if let Some(own) = own {
            // Whether it is heard is for the others to say.
            *member = MemberState { is_heard: member.is_heard, ..own.clone() };
        }
    }
    Some(in_order(newest))
}

async fn watch(global: &GlobalArgs, client: &Client) -> Result<ExitCode> {
    let until = global.cluster.timeout.map(|timeout| Instant::now() + timeout);
    let in_place = global.format != Format::Json && io::stdout().is_terminal();
    let mut heard = Instant::now();
    let (mut drawn, mut last) = (0, None);
    loop {
        match ask(client).await {
            Ok(state) => {
                heard = Instant::now();
                let unfinished = is_unfinished(&state);
                if in_place {
                    let text = text(&state);
                    let back = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
                    drawn = text.lines().count();
                    output::line(format_args!("{back}{text}"))?;
                } else {
                    let changed = Some(step(&state));
                    if changed != last {
                        match global.format {
                            Format::Json => output::json_line(&as_json(&state))?,
                            _ => output::line(headline(&state))?,
                        }
                        last = changed;
                    }
                }
                if !unfinished {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            // A node that is restarted meanwhile is no reason to look away.
            Err(failure) if failure.exit() == Exit::Refused || heard.elapsed() > SILENCE_MAX => return Err(failure),
            Err(_) => {}
        }
        let wait = until.map_or(INTERVAL, |until| INTERVAL.min(until.saturating_duration_since(Instant::now())));
        if wait.is_zero() {
            let waited = time(global.cluster.timeout.unwrap_or_default());
            return Err(Failure::failed(format_args!("it is not finished after {waited}"))
                .hint("it goes on by itself; `driftless cluster status` says whether somebody is waited for"));
        }
        tokio::time::sleep(wait).await;
    }
}

/// What a line is printed for if it is another one.
fn step(state: &ClusterState) -> (u64, bool, u64, u64) {
    let Progress { taken, given, .. } = Progress::of(state);
    (state.version, is_unfinished(state), taken, given)
}

fn print(global: &GlobalArgs, state: &ClusterState) -> Result {
    match global.format {
        Format::Json => output::json_line(&as_json(state)),
        _ => output::line(text(state)),
    }
}

/// For people: of all, then a line for each member that has something to do.
fn text(state: &ClusterState) -> String {
    if !is_unfinished(state) {
        return headline(state);
    }
    let rows: Vec<Vec<String>> = state
        .members
        .iter()
        .filter(|member| member.moving.taking > 0 || member.moving.giving > 0 || !member.stays)
        .map(|member| {
            let moving = &member.moving;
            let of = |done: u32, all: u32| if all == 0 { "-".to_owned() } else { format!("{done} of {all}") };
            let received = match moving::bytes_left(moving) {
                _ if moving.taking == 0 => "-".to_owned(),
                0 => size(moving.bytes),
                left => format!("{} of about {}", size(moving.bytes), size(moving.bytes + left)),
            };
            let busy = moving.taken < moving.taking;
            vec![
                member.name.clone(),
                of(moving.taken, moving.taking),
                received,
                if busy && moving.rate > 0 { format!("{}/s", size(moving.rate)) } else { "-".to_owned() },
                match moving::left(moving) {
                    Some(left) if busy => time(left),
                    _ => "-".to_owned(),
                },
                of(moving.given, moving.giving),
                Phase::of(member, state).words(member),
            ]
        })
        .collect();
    let header = ["node", "taken in", "bytes", "rate", "left", "handed over", "stands"];
    if rows.is_empty() { headline(state) } else { format!("{}\n\n{}", headline(state), output::table(&header, rows)) }
}

/// `version 8: 61 of 192 partitions taken in, …`, or that nothing moves.
fn headline(state: &ClusterState) -> String {
    let version = state.version;
    if !state.is_agreed {
        return format!("nothing moves: version {version} is read from cluster.toml, and nothing has been changed yet");
    }
    if !is_unfinished(state) {
        return paint(Tone::Good, format_args!("nothing moves: version {version} is settled"));
    }
    let silent: Vec<&str> = state
        .members
        .iter()
        .filter(|member| !member.is_heard && Phase::of(member, state) != Phase::Left)
        .map(|member| member.name.as_str())
        .collect();
    let mut line = format!("version {version}: {}", Progress::of(state).words());
    if !silent.is_empty() {
        line += &format!("; not heard: {}", silent.join(", "));
    }
    line
}

/// For programs.
fn as_json(state: &ClusterState) -> Value {
    let nodes = state.members.iter().map(|member| {
        let mut node = moving::as_json(member);
        node["name"] = json!(member.name);
        node["member"] = json!(member.stays);
        node["heard"] = json!(member.is_heard);
        node
    });
    let mut all = Progress::of(state).as_json();
    all["version"] = json!(state.version);
    all["settled"] = json!(!is_unfinished(state));
    all["unfinished"] = json!(state.unfinished);
    all["read_version"] = json!(state.read_version);
    all["nodes"] = nodes.collect();
    all
}

const INTERVAL: Duration = Duration::from_secs(1);

/// So long nobody may answer before watching ends: a node that starts again, or an outage.
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use driftless_client::Moving;

    use super::*;
    use crate::cluster::standing::tests::{member, state};

    const MIB: u64 = 1 << 20;

    fn moving() -> ClusterState {
        let mut state = ClusterState { version: 8, unfinished: vec![7], ..state() };
        state.members[0].moving = Moving { giving: 64, given: 20, ..Moving::default() };
        let mut n4 = member("n4");
        n4.moving = Moving {
            taking: 192,
            taken: 61,
            keys: 20_000,
            bytes: 1_800 * MIB,
            rate: 48 * MIB,
            keys_left: 40_000,
            ..Moving::default()
        };
        state.members.push(n4);
        state
    }

    #[test]
    fn what_moves_is_said_of_all_and_of_each_that_has_something_to_do() {
        assert_eq!(
            text(&moving()),
            "version 8: 61 of 192 partitions taken in, 20 of 64 handed over, 1.8 GiB of about 5.3 GiB, 48.0 MiB/s, 1m \
             15s left\n\n\
             NODE  TAKEN IN   BYTES                     RATE        LEFT    HANDED OVER  STANDS\n\
             n1    -          -                         -           -       20 of 64     handing over 20 of 64\n\
             n4    61 of 192  1.8 GiB of about 5.3 GiB  48.0 MiB/s  1m 15s  -            taking in 61 of 192"
        );
        assert_eq!(text(&state()), "nothing moves: version 7 is settled");
        let mut cut_off = moving();
        cut_off.members[3].is_heard = false;
        assert!(headline(&cut_off).ends_with("; not heard: n4"), "{}", headline(&cut_off));
    }

    /// Right after a commit one node knows of it, and another would have said that nothing moves.
    #[test]
    fn the_newest_version_counts_and_each_member_speaks_for_itself() {
        let mut late = state();
        late.members[0].is_heard = false;
        let mut own = moving();
        own.members[3].moving.taken = 70;
        let states = vec![("n1".to_owned(), late), ("n2".to_owned(), moving()), ("n4".to_owned(), own)];
        let state = together(states).expect("somebody answers");
        assert_eq!((state.version, state.members[3].moving.taken, state.members[0].moving.given), (8, 70, 20));
        assert!(together(Vec::new()).is_none());
    }

    #[test]
    fn the_json_has_the_sum_and_each_member() {
        let json = as_json(&moving());
        assert_eq!(
            (&json["settled"], &json["taken"], &json["nodes"][3]["taken"]),
            (&json!(false), &json!(61), &json!(61))
        );
        assert_eq!((&json["eta_ms"], &json["nodes"][0]["eta_ms"]), (&json!(75_000), &json!(0)));
        assert_ne!(step(&moving()), step(&state()));
    }
}
