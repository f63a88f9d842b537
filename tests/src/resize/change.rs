//! A change of members as an operator makes it: stage, plan, commit, and look until it is settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use driftless_client::{Client, ClusterAnswer, ClusterChange, ClusterCommand, ClusterState, Moving, Profile};
use driftless_proto::membership::Plan;
use futures::future::join_all;

use super::strike::Struck;
use crate::fleet::Fleet;

/// Who comes and who goes.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) joins: Vec<String>,
    pub(super) leaves: Vec<String>,
}

/// What a change moved.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) name: String,
    pub(super) changes: Vec<String>,
    pub(super) slots: u64,
    pub(super) slots_moved: u64,
    pub(super) slots_minimum: u64,
    /// As the plan estimates.
    pub(super) bytes_planned: u64,
    /// Taken in by all nodes, that were seen to be: what came in the tenth of a second before a kill is not.
    pub(super) bytes_taken: u64,
    pub(super) keys_taken: u64,
    /// From the commit until it was settled.
    pub(super) took: Duration,
    pub(super) struck: Vec<Struck>,
}

/// Who may change members.
pub(super) struct Operator {
    changes: Client,
    /// For questions, of which the next one comes soon.
    looks: Client,
}

/// How each member stands, as it says itself; who does not answer is missing.
pub(super) type Look = BTreeMap<String, ClusterState>;

impl Operator {
    pub(super) async fn connect(fleet: &Fleet) -> Operator {
        let changes = fleet.operator(Profile::new()).await;
        let looks = fleet.operator(Profile::new().timeout(LOOK_TIMEOUT)).await;
        Operator { changes, looks }
    }

    pub(super) async fn close(self) {
        self.changes.close().await;
        self.looks.close().await;
    }

    /// Asks all of these at once.
    pub(super) async fn look(&self, names: &[String]) -> Look {
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
    pub(super) async fn wait_founded(&self, names: &[String]) -> Result<(), String> {
        self.wait("the members do not agree on the first version", names, |look| {
            look.len() == names.len() && look.values().all(|state| state.is_agreed && state.unfinished.is_empty())
        })
        .await
    }

    /// Waits until members know of all who want to join.
    pub(super) async fn wait_called(&self, names: &[String], guests: &[String]) -> Result<(), String> {
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
    pub(super) async fn commit(&self, at: &str, change: &Change) -> Result<Plan, String> {
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
            {
                return Ok(plan.clone());
            }
        }
    }

    async fn try_commit(&self, at: &str, change: &Change, planned: &mut Option<Plan>) -> Result<Plan, String> {
        let say = |command: ClusterCommand| async move {
            self.changes.cluster_at(at, command).await.map_err(|error| error.to_string())
        };
        say(ClusterCommand::Clear).await?;
        for name in &change.joins {
            say(ClusterCommand::Stage(ClusterChange::Join { name: name.clone(), zone: None, weight: None })).await?;
        }
        for name in &change.leaves {
            say(ClusterCommand::Stage(ClusterChange::Leave { name: name.clone(), lost: false })).await?;
        }
        let ClusterAnswer::Plan(plan) = say(ClusterCommand::Plan).await? else {
            return Err("a plan is answered by something else".to_owned());
        };
        if plan.changes.len() != change.joins.len() + change.leaves.len() {
            return Err(format!("the plan has other changes: {:?}", plan.changes));
        }
        *planned = Some((*plan).clone());
        say(ClusterCommand::Commit { plan: plan.name.clone() }).await?;
        Ok(*plan)
    }
}

/// Whether all of these say that this version is settled.
pub(super) fn is_settled(look: &Look, members: &[String], version: u64) -> bool {
    let settled = |state: &ClusterState| state.version == version && state.unfinished.is_empty();
    members.iter().all(|name| look.get(name).is_some_and(settled))
}

/// What a node says that it takes in and hands over for this version.
pub(super) fn moving_of(look: &Look, name: &str, version: u64) -> Option<Moving> {
    said_by(look.get(name)?, name, version)
}

/// Partitions that it has handed over, of so many: one that leaves tells the others, and does not say so itself.
pub(super) fn handed_over(look: &Look, name: &str, version: u64) -> (u32, u32) {
    let said = look.values().filter_map(|state| said_by(state, name, version));
    said.map(|moving| (moving.given, moving.giving)).max_by_key(|(given, giving)| (*giving, *given)).unwrap_or_default()
}

fn said_by(state: &ClusterState, name: &str, version: u64) -> Option<Moving> {
    let member = state.members.iter().find(|member| state.version == version && member.name == name)?;
    Some(member.moving)
}

/// What nodes have taken in, over their starts: each start counts anew.
#[derive(Default, Debug)]
pub(super) struct Taken {
    nodes: BTreeMap<String, [OverStarts; 2]>,
}

impl Taken {
    pub(super) fn note(&mut self, name: &str, moving: &Moving) {
        let [bytes, keys] = self.nodes.entry(name.to_owned()).or_default();
        bytes.note(moving.bytes);
        keys.note(moving.keys);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.nodes.values().map(|[bytes, _]| bytes.total()).sum()
    }

    pub(super) fn keys(&self) -> u64 {
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

impl Moved {
    /// By how many percent more was moved than must be.
    pub(super) fn over_minimum(&self) -> f64 {
        let over = self.slots_moved.saturating_sub(self.slots_minimum);
        // Nothing need be moved, and something was: infinitely more.
        if over == 0 { 0.0 } else { over as f64 * 100.0 / self.slots_minimum as f64 }
    }
}

/// Between two looks at how it goes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// For what comes about by itself in a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

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

    #[test]
    fn more_than_the_minimum_is_told_in_percent() {
        let moved = |slots_moved, slots_minimum| Moved {
            name: String::new(),
            changes: Vec::new(),
            slots: 768,
            slots_moved,
            slots_minimum,
            bytes_planned: 0,
            bytes_taken: 0,
            keys_taken: 0,
            took: Duration::ZERO,
            struck: Vec::new(),
        };
        assert!(moved(192, 192).over_minimum().abs() < 1e-9);
        assert!((moved(210, 200).over_minimum() - 5.0).abs() < 1e-9);
        assert!(moved(1, 0).over_minimum().is_infinite());
    }
}
