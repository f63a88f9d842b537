//! A change of members as an operator makes it: stage, plan, commit, and look until it is settled.
//!
//! What it costs to make sure is here, for all rigs: an answer that did not come, a plan that is not the present one any more, a
//! change before it that is not settled yet, somebody who is not known to be gone yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use driftless_client::{Client, ClusterAnswer, ClusterChange, ClusterCommand, ClusterState, Moving, Profile};
use driftless_proto::membership::Plan;
use futures::future::join_all;

use super::Fleet;

/// Who comes and who goes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) joins: Vec<String>,
    pub(crate) leaves: Vec<String>,
    /// Members whose disk is gone, and nobody takes their place.
    pub(crate) lost: Vec<String>,
    /// The same, each with the node that takes its place.
    pub(crate) replaced: Vec<(String, String)>,
    /// Members that get another weight.
    pub(crate) weights: Vec<(String, u32)>,
    /// There are twice the partitions.
    pub(crate) doubles: bool,
}

/// Who may change members.
pub(crate) struct Operator {
    changes: Client,
    /// For questions, of which the next one comes soon.
    looks: Client,
}

/// How each member stands, as it says itself; who does not answer is missing.
pub(crate) type Look = BTreeMap<String, ClusterState>;

impl Operator {
    pub(crate) async fn connect(fleet: &Fleet) -> Operator {
        let changes = fleet.operator(Profile::new()).await;
        let looks = fleet.operator(Profile::new().timeout(LOOK_TIMEOUT)).await;
        Operator { changes, looks }
    }

    pub(crate) async fn close(self) {
        self.changes.close().await;
        self.looks.close().await;
    }

    /// Asks all of these at once.
    pub(crate) async fn look(&self, names: &[String]) -> Look {
        let ask = |name: &String| {
            let name = name.clone();
            async move {
                match self.looks.cluster_at(&name, ClusterCommand::State).await {
                    Ok(ClusterAnswer::State(state)) => Some((name, *state)),
                    _ => None,
                }
            }
        };
        join_all(names.iter().map(ask)).await.into_iter().flatten().collect()
    }

    /// Waits until the first version that names stores is agreed on by all.
    pub(crate) async fn wait_founded(&self, names: &[String]) -> Result<(), String> {
        self.wait("the members do not agree on the first version", names, |look| {
            look.len() == names.len() && look.values().all(|state| state.is_agreed && state.unfinished.is_empty())
        })
        .await
    }

    /// Waits until members know of all who want to join.
    pub(crate) async fn wait_called(&self, names: &[String], guests: &[String]) -> Result<(), String> {
        self.wait("who wants to join has not called", names, |look| {
            let knows = |state: &ClusterState| {
                guests.iter().all(|guest| state.candidates.iter().any(|candidate| candidate.name == *guest))
            };
            look.len() == names.len() && look.values().all(knows)
        })
        .await
    }

    async fn wait(&self, what: &str, names: &[String], holds: impl Fn(&Look) -> bool) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let look = self.look(names).await;
            if holds(&look) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{what} within {PATIENCE:?}: {look:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stages, plans and commits, at one node; again until that is done, as docs/membership.md says under *recover*.
    pub(crate) async fn commit(&self, at: &str, change: &Change) -> Result<Plan, String> {
        let began = Instant::now();
        let mut planned: Option<Plan> = None;
        loop {
            let failed = match self.try_commit(at, change, &mut planned).await {
                Ok(plan) => return Ok(plan),
                Err(failed) => failed,
            };
            if began.elapsed() > PATIENCE {
                return Err(format!("{}: not committed within {PATIENCE:?}: {failed}", change.name));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            // What was not answered may have been done all the same.
            let look = self.look(&[at.to_owned()]).await;
            if let (Some(state), Some(plan)) = (look.get(at), &planned)
                && state.version >= plan.version
                && change.is_made(state)
            {
                return Ok(plan.clone());
            }
        }
    }

    /// The same once: what came of it, or why nothing did.
    pub(crate) async fn commit_once(&self, at: &str, change: &Change) -> Result<Plan, String> {
        self.try_commit(at, change, &mut None).await
    }

    /// Goes back to the members before; again until that is decided, or there is nothing to go back from any more.
    pub(crate) async fn cancel(&self, at: &str) -> Result<Option<u64>, String> {
        let began = Instant::now();
        loop {
            let failed = match self.changes.cluster_at(at, ClusterCommand::Cancel).await {
                Ok(ClusterAnswer::Decided(decided)) => return Ok(Some(decided.version)),
                Ok(other) => return Err(format!("to cancel is answered by something else: {other:?}")),
                Err(error) => error.to_string(),
            };
            if NOTHING_TO_CANCEL.iter().any(|words| failed.contains(words)) {
                return Ok(None);
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("not cancelled within {PATIENCE:?}: {failed}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn try_commit(&self, at: &str, change: &Change, planned: &mut Option<Plan>) -> Result<Plan, String> {
        let say = |command: ClusterCommand| async move {
            self.changes.cluster_at(at, command).await.map_err(|error| error.to_string())
        };
        say(ClusterCommand::Clear).await?;
        let staged = change.commands();
        let count = staged.len();
        for change in staged {
            say(ClusterCommand::Stage(change)).await?;
        }
        let ClusterAnswer::Plan(plan) = say(ClusterCommand::Plan).await? else {
            return Err("a plan is answered by something else".to_owned());
        };
        if plan.changes.len() != count {
            return Err(format!("the plan has other changes: {:?}", plan.changes));
        }
        *planned = Some((*plan).clone());
        say(ClusterCommand::Commit { plan: plan.name.clone() }).await?;
        Ok(*plan)
    }
}

impl Change {
    /// What an operator stages for it.
    fn commands(&self) -> Vec<ClusterChange> {
        let joins = self.joins.iter().map(|name| ClusterChange::Join { name: name.clone(), zone: None, weight: None });
        let leaves = |lost| move |name: &String| ClusterChange::Leave { name: name.clone(), lost };
        let replaced = self.replaced.iter().map(|(name, with)| ClusterChange::Replace {
            name: name.clone(),
            with: with.clone(),
            force: false,
        });
        let weights = self.weights.iter().map(|(name, weight)| ClusterChange::Set {
            name: name.clone(),
            weight: Some(*weight),
            zone: None,
        });
        let gone = self.leaves.iter().map(leaves(false)).chain(self.lost.iter().map(leaves(true)));
        let doubles = self.doubles.then_some(ClusterChange::DoublePartitions);
        joins.chain(gone).chain(replaced).chain(weights).chain(doubles).collect()
    }

    /// Whether the members that somebody knows are those after it.
    fn is_made(&self, state: &ClusterState) -> bool {
        let member = |name: &String| state.members.iter().find(|member| member.stays && member.name == *name);
        let (gone, come) = (|name: &String| member(name).is_none(), |name: &String| member(name).is_some());
        self.joins.iter().all(come)
            && self.leaves.iter().chain(&self.lost).all(gone)
            && self.replaced.iter().all(|(name, with)| gone(name) && come(with))
            && self.weights.iter().all(|(name, weight)| member(name).is_some_and(|member| member.weight == *weight))
    }
}

/// Whether all of these say that one and the same version is settled, this one or what followed on it: a store that takes the
/// place of one that was lost is named by a version of its own.
pub(crate) fn is_settled(look: &Look, members: &[String], version: u64) -> bool {
    let mut said = members.iter().map(|name| look.get(name));
    let Some(Some(first)) = said.next() else { return false };
    let agrees = |state: &ClusterState| state.version == first.version && state.digest == first.digest;
    let is_done = |state: &ClusterState| agrees(state) && state.unfinished.is_empty();
    first.version >= version && is_done(first) && said.all(|state| state.is_some_and(is_done))
}

/// What a node says that it takes in and hands over for this version.
pub(crate) fn moving_of(look: &Look, name: &str, version: u64) -> Option<Moving> {
    said_by(look.get(name)?, name, version)
}

/// Partitions that it has handed over, of so many: one that leaves tells the others, and does not say so itself.
pub(crate) fn handed_over(look: &Look, name: &str, version: u64) -> (u32, u32) {
    let said = look.values().filter_map(|state| said_by(state, name, version));
    said.map(|moving| (moving.given, moving.giving)).max_by_key(|(given, giving)| (*giving, *given)).unwrap_or_default()
}

fn said_by(state: &ClusterState, name: &str, version: u64) -> Option<Moving> {
    let member = state.members.iter().find(|member| state.version == version && member.name == name)?;
    Some(member.moving)
}

/// What nodes have taken in, over their starts: each start counts anew.
#[derive(Default, Debug)]
pub(crate) struct Taken {
    nodes: BTreeMap<String, [OverStarts; 2]>,
}

impl Taken {
    pub(crate) fn note(&mut self, name: &str, moving: &Moving) {
        let [bytes, keys] = self.nodes.entry(name.to_owned()).or_default();
        bytes.note(moving.bytes);
        keys.note(moving.keys);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.nodes.values().map(|[bytes, _]| bytes.total()).sum()
    }

    pub(crate) fn keys(&self) -> u64 {
        self.nodes.values().map(|[_, keys]| keys.total()).sum()
    }
}

/// A counter that may begin anew.
#[derive(Default, Debug)]
struct OverStarts {
    before: u64,
    last: u64,
}

impl OverStarts {
    fn note(&mut self, now: u64) {
        if now < self.last {
            self.before += self.last;
        }
        self.last = now;
    }

    fn total(&self) -> u64 {
        self.before + self.last
    }
}

/// Between two looks at how it goes.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// For what comes about by itself in a second or two, where the change before is not still being settled.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why nothing is gone back from: it was settled, or was gone back from already and the answer was lost.
const NOTHING_TO_CANCEL: [&str; 2] = ["there is nothing to cancel", "there is nothing to go back to"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_in_before_a_start_counts() {
        let mut taken = Taken::default();
        for (name, bytes, keys) in [("n4", 10, 1), ("n4", 50, 5), ("n5", 7, 1), ("n4", 0, 0), ("n4", 20, 2)] {
            taken.note(name, &Moving { bytes, keys, ..Moving::default() });
        }
        assert_eq!((taken.bytes(), taken.keys()), (77, 8));
    }
}
