//! `driftless transfers`: how far the newest version has come, and when it will be done.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_client::{Client, ClusterState, MemberState, NoRetry, Outcome, Profile};
use futures::future::join_all;
use serde_json::{Value, json};

use super::cluster;
use super::cluster::moving::{Progress, is_unfinished, time};
use super::cluster::standing::Phase;
use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::members::{ANSWER_MAX, names};
use super::output::{self, Format, Tone, paint, size};
use super::session;

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

/// What all members together say.
struct Seen {
    /// What the member says that knows of the newest version; and of each member what it says itself, if it knows of that.
    state: ClusterState,
    /// Members that have said nothing. One of them alone may know of a newer version.
    silent: Vec<String>,
}

impl Seen {
    /// Whether nothing moves, and all have said so.
    fn is_settled(&self) -> bool {
        !is_unfinished(&self.state) && self.silent.is_empty()
    }

    /// Of what the asked members have answered; nothing if none has.
    fn of(answers: Vec<(String, Option<ClusterState>)>) -> Option<Seen> {
        let states = || answers.iter().filter_map(|(name, state)| Some((name, state.as_ref()?)));
        let mut newest = states().map(|(_, state)| state).max_by_key(|state| state.version)?.clone();
        for member in &mut newest.members {
            let own = states().find(|(name, state)| **name == member.name && state.version == newest.version);
            let own = own.and_then(|(name, state)| state.members.iter().find(|one| one.name == *name));
            if let Some(own) = own {
                // Whether it is heard is for the others to say.
                *member = MemberState { is_heard: member.is_heard, ..own.clone() };
            }
        }
        // Who has left may be stopped; and of who is no member any more the newest version says so.
        let is_needed = |name: &str| {
            let mut members = newest.members.iter();
            members.any(|member| member.name == name && Phase::of(member, &newest) != Phase::Left)
        };
        let silent = answers.iter().filter(|(name, state)| state.is_none() && is_needed(name));
        let silent = silent.map(|(name, _)| name.clone()).collect();
        Some(Seen { state: newest, silent })
    }
}

/// Asks all members.
async fn ask(client: &Client) -> Result<Seen> {
    let names = names(&session::topology(client), None)?;
    let asked = names.into_iter().map(|name| async move {
        let answer = tokio::time::timeout(ANSWER_MAX, cluster::state(client, Some(&name))).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer(&name)));
        (name, answer)
    });
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(state) => answers.push((name, Some(state))),
            Err(failure) => {
                answers.push((name, None));
                failures.push(failure);
            }
        }
    }
    match Seen::of(answers) {
        Some(seen) => Ok(seen),
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

async fn watch(global: &GlobalArgs, client: &Client) -> Result<ExitCode> {
    let until = global.cluster.timeout.map(|timeout| Instant::now() + timeout);
    let in_place = global.format != Format::Json && io::stdout().is_terminal();
    let mut heard = Instant::now();
    let (mut drawn, mut last) = (0, None);
    loop {
        match ask(client).await {
            Ok(seen) => {
                if in_place {
                    let text = text(&seen);
                    let back = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
                    drawn = text.lines().count();
                    output::line(format_args!("{back}{text}"))?;
                } else {
                    let changed = Some(step(&seen));
                    if changed != last {
                        match global.format {
                            Format::Json => output::json_line(&as_json(&seen))?,
                            _ => output::line(headline(&seen))?,
                        }
                        last = changed;
                    }
                }
                if seen.is_settled() {
                    return Ok(ExitCode::SUCCESS);
                }
                if is_unfinished(&seen.state) {
                    heard = Instant::now();
                } else if heard.elapsed() > SILENCE_MAX {
                    return Err(Failure::failed(format_args!(
                        "nothing moves as far as is known: {}",
                        silence(&seen.silent)
                    ))
                    .hint("`driftless cluster status` says what to do about it"));
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
fn step(seen: &Seen) -> (u64, bool, u64, u64, Vec<String>) {
    let Progress { taken, given, .. } = Progress::of_all(&seen.state);
    (seen.state.version, is_unfinished(&seen.state), taken, given, seen.silent.clone())
}

fn print(global: &GlobalArgs, seen: &Seen) -> Result {
    match global.format {
        Format::Json => output::json_line(&as_json(seen)),
        _ => output::line(text(seen)),
    }
}

/// For people: of all, then a line for each member that has something to do.
fn text(seen: &Seen) -> String {
    let state = &seen.state;
    if !is_unfinished(state) {
        return headline(seen);
    }
    let rows: Vec<Vec<String>> = state
        .members
        .iter()
        .filter(|member| member.moving.taking > 0 || member.moving.giving > 0 || !member.stays)
        .map(|member| {
            let Progress { taking, taken, giving, given, bytes, bytes_left, rate, left, .. } = Progress::of(member);
            let of = |done: u64, all: u64| if all == 0 { "-".to_owned() } else { format!("{done} of {all}") };
            let received = match bytes_left {
                _ if taking == 0 => "-".to_owned(),
                0 => size(bytes),
                left => format!("{} of about {}", size(bytes), size(bytes + left)),
            };
            let busy = taken < taking;
            vec![
                member.name.clone(),
                of(taken, taking),
                received,
                if busy && rate > 0 { format!("{}/s", size(rate)) } else { "-".to_owned() },
                left.filter(|_| busy).map_or_else(|| "-".to_owned(), time),
                of(given, giving),
                Phase::of(member, state).words(member),
            ]
        })
        .collect();
    let header = ["node", "taken in", "bytes", "rate", "left", "handed over", "stands"];
    if rows.is_empty() { headline(seen) } else { format!("{}\n\n{}", headline(seen), output::table(&header, rows)) }
}

/// `version 8: 61 of 192 partitions taken in, …`, or that nothing moves.
fn headline(seen: &Seen) -> String {
    let state = &seen.state;
    let version = state.version;
    if !is_unfinished(state) {
        let stands =
            if state.is_agreed { "is settled" } else { "is read from cluster.toml, and nothing has been changed yet" };
        return match seen.silent.is_empty() {
            true if state.is_agreed => paint(Tone::Good, format_args!("nothing moves: version {version} {stands}")),
            true => format!("nothing moves: version {version} {stands}"),
            false => {
                let silence = silence(&seen.silent);
                paint(
                    Tone::Warning,
                    format_args!("nothing moves as far as is known: version {version} {stands}; {silence}"),
                )
            }
        };
    }
    let not_heard: Vec<&str> = state
        .members
        .iter()
        .filter(|member| !member.is_heard && Phase::of(member, state) != Phase::Left)
        .map(|member| member.name.as_str())
        .collect();
    let mut line = format!("version {version}: {}", Progress::of_all(state).words());
    if !not_heard.is_empty() {
        line += &format!("; not heard: {}", not_heard.join(", "));
    }
    line
}

/// `n2, n3 do not answer, and may know of a newer one`.
fn silence(silent: &[String]) -> String {
    let (do_not, may) = if silent.len() == 1 { ("does not answer", "it may") } else { ("do not answer", "they may") };
    format!("{} {do_not}, and {may} know of a newer one", silent.join(", "))
}

/// For programs.
fn as_json(seen: &Seen) -> Value {
    let state = &seen.state;
    let nodes = state.members.iter().map(|member| {
        let mut node = Progress::of(member).as_json();
        node["name"] = json!(member.name);
        node["member"] = json!(member.stays);
        node["heard"] = json!(member.is_heard);
        node
    });
    let mut all = Progress::of_all(state).as_json();
    all["version"] = json!(state.version);
    all["settled"] = json!(seen.is_settled());
    all["silent"] = json!(seen.silent);
    all["unfinished"] = json!(state.unfinished);
    all["read_version"] = json!(state.read_version);
    all["nodes"] = nodes.collect();
    all
}

const INTERVAL: Duration = Duration::from_secs(1);

/// So long nobody, or somebody, may not answer before watching ends: a node that starts again, or an outage.
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use driftless_client::Moving;

    use super::*;
    use crate::cluster::standing::tests::{member, state};

    const MIB: u64 = 1 << 20;

    fn answer(name: &str, state: Option<ClusterState>) -> (String, Option<ClusterState>) {
        (name.to_owned(), state)
    }

    fn all_say(state: ClusterState) -> Seen {
        Seen { state, silent: Vec::new() }
    }

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
            text(&all_say(moving())),
            "version 8: 61 of 192 partitions taken in, 20 of 64 handed over, 1.8 GiB of about 5.3 GiB, 48.0 MiB/s, 1m \
             15s left\n\n\
             NODE  TAKEN IN   BYTES                     RATE        LEFT    HANDED OVER  STANDS\n\
             n1    -          -                         -           -       20 of 64     handing over 20 of 64\n\
             n4    61 of 192  1.8 GiB of about 5.3 GiB  48.0 MiB/s  1m 15s  -            taking in 61 of 192"
        );
        assert_eq!(text(&all_say(state())), "nothing moves: version 7 is settled");
        let mut cut_off = all_say(moving());
        cut_off.state.members[3].is_heard = false;
        assert!(headline(&cut_off).ends_with("; not heard: n4"), "{}", headline(&cut_off));
    }

    /// Right after a commit one node knows of it, and another would have said that nothing moves.
    #[test]
    fn the_newest_version_counts_and_each_member_speaks_for_itself() {
        let mut late = state();
        late.members[0].is_heard = false;
        let mut own = moving();
        own.members[3].moving.taken = 70;
        let answers = vec![answer("n1", Some(late)), answer("n2", Some(moving())), answer("n4", Some(own))];
        let state = Seen::of(answers).expect("somebody answers").state;
        assert_eq!((state.version, state.members[3].moving.taken, state.members[0].moving.given), (8, 70, 20));
        assert!(Seen::of(vec![answer("n1", None)]).is_none());
    }

    /// Watching ended, and nothing moved, while the one that had just decided on a version did not answer.
    #[test]
    fn nothing_is_settled_before_all_have_said_so() {
        let seen = |state: ClusterState| {
            let answers = vec![answer("n1", Some(state.clone())), answer("n2", None), answer("n3", Some(state))];
            Seen::of(answers).expect("somebody answers")
        };
        let settled = seen(state());
        assert!(!settled.is_settled());
        assert_eq!((&as_json(&settled)["settled"], &as_json(&settled)["silent"]), (&json!(false), &json!(["n2"])));
        let silent = "n2 does not answer, and it may know of a newer one";
        assert_eq!(headline(&settled), format!("nothing moves as far as is known: version 7 is settled; {silent}"));
        let founding = ClusterState { version: 1, is_agreed: false, ..state() };
        assert_eq!(
            headline(&all_say(founding.clone())),
            "nothing moves: version 1 is read from cluster.toml, and nothing has been changed yet"
        );
        assert!(headline(&seen(founding)).ends_with(silent));
        // Nobody waits for one that has left, or has been replaced.
        let mut without = state();
        without.members.remove(1);
        assert!(seen(without).is_settled());
        let mut left = state();
        left.members[1].stays = false;
        assert!(seen(left).is_settled());
        assert_ne!(step(&settled), step(&all_say(state())));
    }

    #[test]
    fn the_json_has_the_sum_and_each_member() {
        let json = as_json(&all_say(moving()));
        assert_eq!(
            (&json["settled"], &json["taken"], &json["nodes"][3]["taken"]),
            (&json!(false), &json!(61), &json!(61))
        );
        assert_eq!((&json["eta_ms"], &json["nodes"][0]["eta_ms"]), (&json!(75_000), &json!(0)));
        assert_ne!(step(&all_say(moving())), step(&all_say(state())));
    }
}
