//! `driftless cluster`: who the members are, and how that is changed.
//!
//! ```text
//! join leave replace set double ──stage──▶ what is staged ──plan──▶ what it would cost, and a name ──commit NAME──▶ a new version
//!                                     ◀── clear                                                 ◀── cancel ──
//! ```
//! - `standing.rs`: `status`, how each member stands and what to do next;
//! - `plan.rs`: what staged changes would cost;
//! - `founding.rs`: what it would mean to found it without some whom its file names;
//! - `recovery.rs`: what it would mean to go on by force without most of the voters;
//! - `moving.rs`: how far a version has come, for `transfers`, `status` and `demo` as well.

pub(crate) mod founding;
pub(crate) mod moving;
pub(crate) mod plan;
pub(crate) mod recovery;
pub(crate) mod standing;

use driftless_client::{
    Client, ClusterAnswer, ClusterChange as Change, ClusterCommand, ClusterError, ClusterState, Decided, Outcome, Past,
    Refusal, Staged,
};
use serde_json::json;

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::members::{by_name, parse_zone};
use super::output::{self, Format};
use super::session::{self, IntoFailure, request_failure};

/// Changes are staged first, which costs nothing; `plan` shows what they would move, and `commit` makes them.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// How each member stands, what is staged, and what to do next
    Status {
        /// As this node sees it, instead of any that answers
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Stage that a node which has called becomes a member
    ///
    /// It takes its share of every other member's partitions, by weight and so that replicas stay spread over zones. Nothing
    /// moves before `cluster commit`. Until its share is there the old owners answer reads, and writes need both.
    Join {
        /// The node: `cluster status` shows those that have called
        name: String,
        /// Other than its own file says
        #[arg(long, value_parser = parse_zone)]
        zone: Option<String>,
        /// Share of the data relative to the others, other than its own file says
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
    },
    /// Stage that a member hands over what it holds, and is none any more
    ///
    /// Leave it running after `cluster commit`: it hands over to the others everything that it holds. `cluster status` says when it
    /// holds nothing and can be stopped. The others take that much more.
    Leave {
        /// The member
        name: String,
        /// It never comes back: nothing is waited for that only it holds, and its disk is refused for ever
        ///
        /// The others copy from those that are left. Acknowledged writes that only the lost node still held are lost;
        /// start what can be started first.
        #[arg(long)]
        lost: bool,
    },
    /// Stage that a node which has called takes exactly the place of a member that is lost
    ///
    /// Only what the lost member held is copied, to the new one alone; nothing else moves. The lost member's disk is refused for
    /// ever: if it comes back, wipe it.
    Replace {
        /// The member
        name: String,
        /// The node that takes its place
        #[arg(long = "with", value_name = "NAME")]
        with: String,
        /// Also if the member is up
        ///
        /// It is then cut off with what it holds. Where it can hand over what it holds, `leave` and `join` lose nothing.
        #[arg(long)]
        force: bool,
    },
    /// Stage that a member takes another share, or is in another zone
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["weight", "zone"]))]
    Set {
        /// The member
        name: String,
        /// Its share of the data, relative to the others: partitions move to it or from it
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// Its zone: partitions move until replicas are spread over zones again
        #[arg(long, value_parser = parse_zone)]
        zone: Option<String>,
    },
    /// Stage that each partition becomes two, of the same owners
    ///
    /// For a cluster that has outgrown its partitions: ten for each member balance well. Nothing moves. There is no way back, and no release
    /// before this one can read such a ring: update all members and clients first. After `cluster commit` each node reads through what it
    /// holds once, before it compares again.
    Double,
    /// What the staged changes would move, and the name to commit them by
    ///
    /// It changes nothing. Plan again whenever something else was staged or committed: the name is of exactly what is shown.
    Plan,
    /// Make the staged changes, as planned under this name
    ///
    /// Most of the voters must answer (`cluster status` names them). From then on partitions move by themselves, while everything is
    /// served; see `driftless transfers`.
    Commit {
        /// As `cluster plan` has printed it
        plan: String,
    },
    /// Forget what is staged
    Clear,
    /// Go back to the members before the last change, while it is unfinished
    ///
    /// That is a version of its own: what has moved already moves back.
    Cancel,
    /// Which versions there were: who committed what, where
    History,
    /// Go on when most of the voters are gone for ever: one member that is left decides alone that they are lost
    ///
    /// Without `--force` it only says what that would mean. Name all members that are lost: the node that is asked must hear all others. It
    /// gives back a majority and moves nothing; then let other nodes take the places of the lost (`replace`), let the lost leave
    /// (`leave --lost`), or start them with empty data directories. What only they held is lost, and their disks are refused for ever: start
    /// what can be started first.
    Recover {
        /// All members that are lost, separated by commas
        #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
        lost: Vec<String>,
        /// Do it
        #[arg(long)]
        force: bool,
        /// The member that decides, instead of any that answers
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Found a cluster though some whom its cluster file names never come
    ///
    /// Until all whom the file names have been there at once, the members are not agreed on and cannot change. Without `--yes` it only says
    /// what it would mean. All the others must be there and agree, and be more than half. Those who are left out are members that nobody
    /// is: replace them (`replace`), let them leave (`leave --lost`), or start them after all, with whatever they hold. Name nobody who may
    /// be founding it elsewhere: what only they hold is missing until they come.
    Found {
        /// All who never come, separated by commas
        #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
        without: Vec<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// The member that proposes it, instead of any that answers
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
}

/// Asks or tells a node.
pub(crate) fn run(global: &GlobalArgs, command: Command) -> Result {
    session::run(global, async |client| match command {
        Command::Status { node } => {
            let state = state(client, node.as_deref()).await?;
            match global.format {
                Format::Json => output::json_line(&standing::as_json(&state)),
                _ => standing::print(&state, &global.cluster_flags()),
            }
        }
        Command::Join { name, zone, weight } => stage(global, client, Change::Join { name, zone, weight }).await,
        Command::Leave { name, lost } => stage(global, client, Change::Leave { name, lost }).await,
        Command::Replace { name, with, force } => stage(global, client, Change::Replace { name, with, force }).await,
        Command::Set { name, weight, zone } => stage(global, client, Change::Set { name, weight, zone }).await,
        Command::Double => stage(global, client, Change::DoublePartitions).await,
        Command::Plan => match ask(client, ClusterCommand::Plan).await? {
            ClusterAnswer::Plan(plan) if global.format == Format::Json => output::json_line(&plan::as_json(&plan)),
            ClusterAnswer::Plan(plan) => plan::print(&plan, &global.cluster_flags()),
            _ => Err(misunderstood()),
        },
        Command::Commit { plan } => {
            let decided = decide(client, ClusterCommand::Commit { plan }).await?;
            print_decided(global, &decided, Watch::Transfers)
        }
        Command::Clear => match ask(client, ClusterCommand::Clear).await? {
            ClusterAnswer::Staged(staged) => match global.format {
                Format::Json => output::json_line(&staged_as_json(&staged)),
                _ => output::line(format_args!("nothing is staged on version {}", staged.version)),
            },
            _ => Err(misunderstood()),
        },
        Command::Cancel => {
            let decided = decide(client, ClusterCommand::Cancel).await?;
            print_decided(global, &decided, Watch::Transfers)
        }
        Command::History => match ask(client, ClusterCommand::History).await? {
            ClusterAnswer::History(past) => print_history(global, &past),
            _ => Err(misunderstood()),
        },
        Command::Recover { lost, force, node } => {
            match ask_at(client, node.as_deref(), ClusterCommand::Recover { lost, force }).await? {
                ClusterAnswer::Recovery(recovery) if global.format == Format::Json => {
                    output::json_line(&recovery::as_json(&recovery))
                }
                ClusterAnswer::Recovery(recovery) => {
                    recovery::print(&recovery, node.as_deref(), &global.cluster_flags())
                }
                ClusterAnswer::Decided(decided) => print_decided(global, &decided, Watch::Members),
                _ => Err(misunderstood()),
            }
        }
        Command::Found { without, yes, node } => {
            match ask_at(client, node.as_deref(), ClusterCommand::Found { without, yes }).await? {
                ClusterAnswer::Founding(founding) if global.format == Format::Json => {
                    output::json_line(&founding::as_json(&founding))
                }
                ClusterAnswer::Founding(founding) => {
                    founding::print(&founding, node.as_deref(), &global.cluster_flags())
                }
                ClusterAnswer::Decided(decided) => print_decided(global, &decided, Watch::Members),
                _ => Err(misunderstood()),
            }
        }
    })
}

/// How things stand, as a node sees it; any that answers, unless one is named.
pub(crate) async fn state(client: &Client, node: Option<&str>) -> Result<ClusterState> {
    match ask_at(client, node, ClusterCommand::State).await? {
        ClusterAnswer::State(mut state) => {
            state.members.sort_by(|a, b| by_name(&a.name, &b.name));
            Ok(*state)
        }
        _ => Err(misunderstood()),
    }
}

/// Asks a question, or tells something that is no version of its own.
pub(crate) async fn ask(client: &Client, command: ClusterCommand) -> Result<ClusterAnswer> {
    ask_at(client, None, command).await
}

/// The same, of this node, or of any that answers.
async fn ask_at(client: &Client, node: Option<&str>, command: ClusterCommand) -> Result<ClusterAnswer> {
    let answer = match node {
        Some(node) => client.cluster_at(node, command).await,
        None => client.cluster(command).await,
    };
    answer.map_err(IntoFailure::into_failure)
}

/// Has a version decided.
pub(crate) async fn decide(client: &Client, command: ClusterCommand) -> Result<Decided> {
    match ask(client, command).await? {
        ClusterAnswer::Decided(decided) => Ok(decided),
        _ => Err(misunderstood()),
    }
}

async fn stage(global: &GlobalArgs, client: &Client, change: Change) -> Result {
    let ClusterAnswer::Staged(staged) = ask(client, ClusterCommand::Stage(change.clone())).await? else {
        return Err(misunderstood());
    };
    if global.format == Format::Json {
        return output::json_line(&staged_as_json(&staged));
    }
    // Only for what is said of a node that has called: that it is staged is known already.
    let state = state(client, None).await.ok();
    output::line(staged_text(&staged, &change, state.as_ref(), &global.cluster_flags()))
}

/// `staged on version 7: n4 joins (10.0.0.4:7400, zone b, weight 1); see: driftless cluster plan`.
fn staged_text(staged: &Staged, change: &Change, state: Option<&ClusterState>, flags: &str) -> String {
    let words = change.to_string();
    let (own, others): (Vec<&String>, Vec<&String>) =
        staged.changes.iter().partition(|staged| staged.starts_with(&words));
    let own = own.first().map_or(words.as_str(), |own| own.as_str());
    let details = if own.contains('(') { None } else { state.and_then(|state| details(change, state)) };
    let mut text = format!("staged on version {}: {own}", staged.version);
    if let Some(details) = details {
        text += &format!(" ({details})");
    }
    if !others.is_empty() {
        let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
        text += &format!("; with it: {}", others.join("; "));
    }
    format!("{text}; see: driftless{flags} cluster plan")
}

/// Where a node that comes in is, and as what it comes.
fn details(change: &Change, state: &ClusterState) -> Option<String> {
    let (name, other_zone, other_weight) = match change {
        Change::Join { name, zone, weight } => (name, zone.as_deref(), *weight),
        Change::Replace { with, .. } => (with, None, None),
        _ => return None,
    };
    let candidate = state.candidates.iter().find(|candidate| candidate.name == *name)?;
    let zone = other_zone.unwrap_or(&candidate.zone);
    let weight = other_weight.unwrap_or(candidate.weight);
    Some(format!("{}, zone {zone}, weight {weight}", candidate.address))
}

fn staged_as_json(staged: &Staged) -> serde_json::Value {
    json!({ "version": staged.version, "changes": staged.changes })
}

/// Where to look once a version is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watch {
    /// Nowhere: it moves nothing.
    Nothing,
    /// How far what moves has come.
    Transfers,
    /// What is left to do about members.
    Members,
}

/// Prints a version that was decided, and where to look.
pub(crate) fn print_decided(global: &GlobalArgs, decided: &Decided, watch: Watch) -> Result {
    let Decided { version, by, reason } = decided;
    if global.format == Format::Json {
        return output::json_line(&json!({ "version": version, "by": by, "reason": reason }));
    }
    let flags = global.cluster_flags();
    output::line(decided_text(decided, watch, &flags))
}

/// `version 8 decided by n1, n2, n3: n4 joins; watch: driftless transfers`.
fn decided_text(Decided { version, by, reason }: &Decided, watch: Watch, flags: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
    // By which plan is known to whoever has typed its name.
    let reason = reason.rsplit_once(", plan ").map_or(reason.as_str(), |(what, _)| what);
    let what = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let watch = match watch {
        Watch::Nothing => String::new(),
        Watch::Transfers => format!("; watch: driftless{flags} transfers"),
        Watch::Members => format!("; what is next: driftless{flags} cluster status"),
    };
    format!("version {version} decided{by}{what}{watch}")
}

fn print_history(global: &GlobalArgs, past: &[Past]) -> Result {
    if global.format == Format::Json {
        let versions: Vec<_> = past
            .iter()
            .map(|past| {
                let Past { version, digest, forced_on, members, by, reason } = past;
                let digest = format!("{digest:032x}");
                json!({
                    "version": version,
                    "digest": digest,
                    "forced_on": forced_on,
                    "members": members,
                    "by": by,
                    "reason": reason,
                })
            })
            .collect();
        return output::json_line(&json!({ "versions": versions }));
    }
    output::line(history_table(past))
}

fn history_table(past: &[Past]) -> String {
    let rows = past.iter().map(|past| {
        vec![
            past.version.to_string(),
            // As much of it as tells two apart.
            format!("{:032x}", past.digest)[..12].to_owned(),
            if past.by.is_empty() { "a file".to_owned() } else { past.by.clone() },
            if past.reason.is_empty() { "-".to_owned() } else { past.reason.clone() },
            past.members.join(", "),
        ]
    });
    output::table(&["version", "digest", "by", "change", "members"], rows.collect())
}

pub(crate) fn misunderstood() -> Failure {
    Failure::failed("the node gave an answer that does not fit the request")
        .hint("use a release of `driftless` that fits the cluster's")
}

impl IntoFailure for ClusterError {
    fn into_failure(self) -> Failure {
        // Of a change it is the cluster that refuses; which node has said so is no matter.
        if let Some(Refusal::Membership(why)) = self.refusal() {
            return Failure::new(Exit::Refused, why);
        }
        match self.outcome() {
            Outcome::Unknown => Failure::new(Exit::Unknown, self.request())
                .hint("it may have been done; run it again: it is the same change (`driftless cluster history` shows what was done)"),
            Outcome::Refused => request_failure(&self, Outcome::Refused, Some(self.request())),
        }
    }
}

#[cfg(test)]
mod tests {
    use driftless_client::CandidateState;

    use super::*;
    use standing::tests::state;

    #[test]
    fn what_is_staged_is_said_with_where_the_node_is_and_what_else_is_staged() {
        let join = Change::Join { name: "n4".to_owned(), zone: Some("b".to_owned()), weight: None };
        let mut state = state();
        state.candidates = vec![CandidateState {
            name: "n4".to_owned(),
            address: "10.0.0.4:7400".to_owned(),
            zone: "default".to_owned(),
            weight: 1,
        }];
        let staged = |changes: &[&str]| Staged {
            version: 7,
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
        };
        assert_eq!(
            staged_text(&staged(&["n4 joins"]), &join, Some(&state), ""),
            "staged on version 7: n4 joins (10.0.0.4:7400, zone b, weight 1); see: driftless cluster plan"
        );
        assert_eq!(
            staged_text(&staged(&["n2 leaves", "n4 joins (here)"]), &join, Some(&state), " --profile D"),
            "staged on version 7: n4 joins (here); with it: n2 leaves; see: driftless --profile D cluster plan"
        );
        let leave = Change::Leave { name: "n2".to_owned(), lost: true };
        assert_eq!(
            staged_text(&staged(&["n2 is lost"]), &leave, None, ""),
            "staged on version 7: n2 is lost; see: driftless cluster plan"
        );
    }

    #[test]
    fn a_version_is_said_with_who_has_accepted_it_and_where_to_look() {
        let by = ["n1", "n2"].map(str::to_owned).to_vec();
        let decided = Decided { version: 8, by, reason: "n4 joins, n2 leaves, plan 5f3c9a01".to_owned() };
        let text = "version 8 decided by n1, n2: n4 joins, n2 leaves";
        assert_eq!(decided_text(&decided, Watch::Nothing, " --profile D"), text);
        assert_eq!(
            decided_text(&decided, Watch::Transfers, " --profile D"),
            format!("{text}; watch: driftless --profile D transfers")
        );
        assert_eq!(
            decided_text(&decided, Watch::Members, ""),
            format!("{text}; what is next: driftless cluster status")
        );
        let bare = Decided { version: 9, by: Vec::new(), reason: String::new() };
        assert_eq!(decided_text(&bare, Watch::Nothing, ""), "version 9 decided");
    }

    #[test]
    fn history_is_a_line_for_each_version() {
        let past = |version, by: &str, reason: &str| Past {
            version,
            digest: 0xfeed << 112,
            forced_on: None,
            members: vec!["n1".to_owned(), "n2".to_owned()],
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        assert_eq!(
            history_table(&[past(1, "", ""), past(2, "n1", "n2 joins")]),
            "VERSION  DIGEST        BY      CHANGE    MEMBERS\n\
             1        feed00000000  a file  -         n1, n2\n\
             2        feed00000000  n1      n2 joins  n1, n2"
        );
    }
}
