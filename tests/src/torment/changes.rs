//! Members that come and go while the rest goes on: a change from its plan to its being settled, with others struck in the middle of it.
//!
//! ```text
//! invite ──▶ commit, a voter struck ──▶ another one begun meanwhile: refused, unless it declares somebody lost
//!                    │
//!                    ▼
//!                 settled? ◀── who gives, takes, hands over is struck; gone back from
//!                    │
//!                    ▼
//!                 dismiss: who has left holds nothing, stops in order, is wiped
//! ```
//! Each wait has an end, and to come to it is a promise that was not kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftless_proto::membership::Plan;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::nemesis::Nemesis;
use super::plan::{Change, Changing, Fault, Strike};
use crate::fleet::{self, LOOK_EVERY, Look, Strikes, Taken, alarms, is_settled, moving_of};
use crate::processes::kind_of;

/// What came of all changes, by kind.
#[derive(Clone, Default, Debug)]
pub(super) struct Changes {
    pub(super) kinds: BTreeMap<Fault, Changed>,
    /// Changes that were asked for while another one was under way.
    pub(super) hurried: Hurried,
    /// Who was struck in the middle of a change, and how often.
    pub(super) strikes: BTreeMap<String, u64>,
}

/// What came of the changes of one kind.
#[derive(Clone, Default, Debug)]
pub(super) struct Changed {
    pub(super) begun: u64,
    pub(super) finished: u64,
    pub(super) cancelled: u64,
    /// Bytes that all nodes were seen to take in.
    pub(super) bytes: u64,
    /// From the commit until it was settled.
    pub(super) took: Vec<Duration>,
}

/// What came of those that were in a hurry.
#[derive(Clone, Default, Debug)]
pub(super) struct Hurried {
    /// Since the one before was settled just then.
    pub(super) accepted: u64,
    /// Why not, without names and numbers.
    pub(super) refused: BTreeMap<String, u64>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { kinds, hurried: Hurried { accepted, refused }, strikes } = self;
        if kinds.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n| change of members | begun | finished | cancelled | MiB taken in | median, s | most, s |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for (fault, Changed { begun, finished, cancelled, bytes, took }) in kinds {
            let mut took = took.clone();
            took.sort_unstable();
            let at = |place: usize| took.get(place).map_or(0.0, Duration::as_secs_f64);
            let (middle, most) = (at(took.len() / 2), at(took.len().saturating_sub(1)));
            let (name, mib) = (fault.name(), *bytes as f64 / f64::from(1 << 20));
            writeln!(f, "| {name} | {begun} | {finished} | {cancelled} | {mib:.1} | {middle:.1} | {most:.1} |")?;
        }
        let count = refused.values().sum::<u64>();
        writeln!(
            f,
            "asked for while another one was under way: {count} refused, {accepted} taken, the one before being settled"
        )?;
        for (reason, count) in refused {
            writeln!(f, "  {count:>5} × {reason}")?;
        }
        if !strikes.is_empty() {
            writeln!(f, "struck in the middle:")?;
        }
        strikes.iter().try_for_each(|(strike, count)| writeln!(f, "  {count:>5} × {strike}"))
    }
}

/// A change that is under way.
struct UnderWay {
    fault: Fault,
    began: Instant,
}

impl Nemesis {
    /// A step's changes from their beginning to their end.
    pub(super) fn change(&mut self, changing: &Changing) -> Result<(), String> {
        let doing = self.doing.clone();
        let guests: Vec<usize> = changing.changes.iter().filter_map(|change| change.joins).collect();
        self.invite(&guests)?;
        let before = self.members.clone();
        let (mut under_way, mut taken, mut leaving) = (Vec::new(), Taken::default(), Vec::new());
        let (mut plan, mut voter) = (None, changing.voter);
        for change in &changing.changes {
            if let Some(Plan { version, .. }) = plan {
                self.wait_moving(version, &leaving, &mut taken)?;
            }
            let began = Instant::now();
            plan = Some(self.begin(change, voter.take())?);
            let fault = if changing.is_cancelled { Fault::Cancel } else { change.fault };
            self.changes.kinds.entry(fault).or_default().begun += 1;
            under_way.push(UnderWay { fault, began });
            leaving.extend(change.leaves.filter(|_| !change.fault.loses_disk()));
        }
        let plan = plan.expect("a step that changes members has a change");
        let lost = changing.changes.iter().filter(|change| change.fault.loses_disk());
        let lost: Vec<String> = lost.filter_map(|change| change.leaves).map(|number| self.name(number)).collect();
        let strikes = Strikes::of(&plan, changing.strikes.clone(), &lost, &mut self.rng);
        let is_undone = self.settle(changing, &plan, strikes, &leaving, &before, &mut taken)?;
        let mut bytes = taken.bytes();
        for UnderWay { fault, began } in under_way.into_iter().rev() {
            let changed = self.changes.kinds.entry(fault).or_default();
            *if is_undone { &mut changed.cancelled } else { &mut changed.finished } += 1;
            changed.took.push(began.elapsed());
            // What moves for two at once cannot be told apart.
            changed.bytes += std::mem::take(&mut bytes);
        }
        let dismissed = if is_undone { guests } else { leaving };
        self.doing = format!("{doing}: dismissing");
        self.dismiss(&dismissed)?;
        self.doing = doing;
        if changing.is_cancelled && !is_undone {
            // It was over before: the plan goes on with the members of before.
            let Change { joins, leaves, .. } = changing.changes[0];
            let fault = if joins.is_some() { Fault::Leave } else { Fault::Join };
            let back = Change { fault, joins: leaves, leaves: joins };
            return self.change(&Changing { changes: vec![back], ..Changing::default() });
        }
        Ok(())
    }

    /// What a change does, in words.
    pub(super) fn describe_change(&self, fault: Fault, changing: &Changing) -> String {
        let change = |Change { fault, joins, leaves }: &Change| {
            let names = leaves.iter().chain(joins).map(|number| self.name(*number));
            format!("{} {}", fault.name(), names.collect::<Vec<_>>().join(" by "))
        };
        let all = changing.changes.iter().map(change).collect::<Vec<_>>().join(" + ");
        if fault == Fault::Cancel { format!("cancel of {all}") } else { all }
    }

    /// Starts new machines, and waits until all members know that they want to join.
    fn invite(&mut self, guests: &[usize]) -> Result<(), String> {
        self.may_end.retain(|number| !guests.contains(number));
        for number in guests {
            self.fleet.renew(*number);
            self.fleet.nodes[*number].start();
        }
        for number in guests {
            self.fleet.nodes[*number].wait_serving()?;
        }
        let (members, guests) = (self.names(), guests.iter().map(|number| self.name(*number)).collect::<Vec<_>>());
        self.runtime.block_on(self.operator.wait_called(&members, &guests))
    }

    /// Has a change decided, with a voter struck meanwhile.
    fn begin(&mut self, change: &Change, voter: Option<(Fault, Duration)>) -> Result<Plan, String> {
        let wanted = self.as_staged(change);
        if let Some(lost) = change.leaves.filter(|_| change.fault.loses_disk()) {
            self.kill(lost);
            self.fleet.nodes[lost].wipe();
        }
        let stays = |number: &usize| change.leaves != Some(*number);
        let staying: Vec<usize> = self.members.iter().copied().filter(stays).collect();
        let at = self.one_of(&staying);
        let mut struck = None;
        if let Some((fault, lasts)) = voter {
            let victim = self.voter(&staying);
            self.strike(fault, &[victim])?;
            self.note_strike(fault, "votes");
            struck = Some((fault, victim, Instant::now() + lasts));
        }
        let operator = Arc::clone(&self.operator);
        let deciding = self.runtime.spawn(async move { operator.commit(&at, &wanted).await });
        while !deciding.is_finished() || struck.is_some() {
            self.hold(TURN)?;
            if let Some((fault, victim, until)) = struck
                && Instant::now() >= until
            {
                self.heal(fault, &[victim])?;
                struck = None;
            }
        }
        let plan = self.runtime.block_on(deciding).map_err(|error| format!("to commit has failed: {error}"))??;
        self.members = staying;
        self.members.extend(change.joins);
        Ok(plan)
    }

    /// Somebody who decides, of these.
    fn voter(&mut self, of: &[usize]) -> usize {
        let look = self.look(&[]);
        let voters = look.values().next().map(|state| state.voters.clone()).unwrap_or_default();
        let known: Vec<usize> = of.iter().copied().filter(|number| voters.contains(&self.name(*number))).collect();
        *known.choose(&mut self.rng).unwrap_or(&of[0])
    }

    fn as_staged(&self, change: &Change) -> fleet::Change {
        let name = |number: Option<usize>| number.map(|number| self.name(number)).into_iter();
        let (joins, leaves) = (name(change.joins), name(change.leaves));
        let staged = fleet::Change { name: change.fault.name().to_owned(), ..fleet::Change::default() };
        match change.fault {
            Fault::LeaveLost => fleet::Change { lost: leaves.collect(), ..staged },
            Fault::Replace => fleet::Change { replaced: leaves.zip(joins).collect(), ..staged },
            Fault::Double => fleet::Change { doubles: true, ..staged },
            _ => fleet::Change { joins: joins.collect(), leaves: leaves.collect(), ..staged },
        }
    }

    /// Waits until something of a version has moved, or all of it: another change is to meet it in the middle.
    fn wait_moving(&mut self, version: u64, leaving: &[usize], taken: &mut Taken) -> Result<(), String> {
        let until = Instant::now() + MOVES_SOON;
        while Instant::now() < until {
            let look = self.look(leaving);
            note(taken, &look);
            if moves(&look, version) || is_settled(&look, &self.names(), version) {
                break;
            }
            self.hold(LOOK_EVERY)?;
        }
        Ok(())
    }

    /// Waits until all is settled, and strikes meanwhile. Whether it was gone back from.
    fn settle(
        &mut self,
        changing: &Changing,
        plan: &Plan,
        mut strikes: Strikes<Strike>,
        leaving: &[usize],
        before: &[usize],
        taken: &mut Taken,
    ) -> Result<bool, String> {
        let began = Instant::now();
        let (mut version, mut is_hurried, mut cancels, mut is_undone) =
            (plan.version, changing.is_hurried, changing.is_cancelled, false);
        let mut others = leaving.to_vec();
        others.extend(changing.changes.iter().filter_map(|change| change.joins));
        loop {
            let look = self.look(&others);
            note(taken, &look);
            let names = self.names();
            if is_settled(&look, &names, version) {
                return self.check_members(&look, &names).map(|()| is_undone);
            }
            if let Some(struck) = strikes.next(&look) {
                let (victim, Strike { fault, lasts }) = (struck.victim(), struck.victim().how);
                let number = self.number(&victim.name);
                let role = struck.role().to_string();
                self.strike(fault, &[number])?;
                self.note_strike(fault, &role);
                self.hold(lasts)?;
                self.heal(fault, &[number])?;
            }
            if std::mem::take(&mut is_hurried) {
                version = version.max(self.hurry(version)?);
            }
            if cancels && moves(&look, plan.version) {
                cancels = false;
                if let Some(decided) = self.cancel(before)? {
                    (version, is_undone) = (decided, true);
                    self.members = before.to_vec();
                    strikes = Strikes::none();
                }
            }
            if began.elapsed() > SETTLED_MAX {
                return Err(format!("{}: not settled within {SETTLED_MAX:?}: {look:?}", self.doing));
            }
            self.hold(LOOK_EVERY)?;
        }
    }

    /// Goes back to the members of before. The version that this made, unless it was too late.
    fn cancel(&mut self, before: &[usize]) -> Result<Option<u64>, String> {
        let stays: Vec<usize> = before.iter().copied().filter(|number| self.members.contains(number)).collect();
        let at = self.one_of(&stays);
        if let Some(decided) = self.runtime.block_on(self.operator.cancel(&at))? {
            return Ok(Some(decided));
        }
        // Or it was done before, and the answer was lost.
        let look = self.look(before);
        let Some(state) = look.values().max_by_key(|state| state.version) else { return Ok(None) };
        let is_back = |number: &usize| {
            let name = self.name(*number);
            state.members.iter().any(|member| member.stays && member.name == name)
        };
        let members = state.members.iter().filter(|member| member.stays).count();
        Ok((members == before.len() && before.iter().all(is_back)).then_some(state.version))
    }

    /// All members are those that they should be, for all of them.
    fn check_members(&self, look: &Look, names: &[String]) -> Result<(), String> {
        for (name, state) in look.iter().filter(|(name, _)| names.contains(name)) {
            let mut known: Vec<&String> =
                state.members.iter().filter(|member| member.stays).map(|member| &member.name).collect();
            known.sort();
            let mut meant: Vec<&String> = names.iter().collect();
            meant.sort();
            if known != meant {
                return Err(format!("{}: {name} has {known:?} for members, not {meant:?}", self.doing));
            }
        }
        Ok(())
    }

    /// Asks for another change while one is under way. The version that it made, if it was taken: the one before is settled then.
    fn hurry(&mut self, version: u64) -> Result<u64, String> {
        let at = self.one_of(&self.members.clone());
        let look = self.look(&[]);
        let Some(member) = look.get(&at).and_then(|state| state.members.iter().find(|member| member.stays)) else {
            return Ok(0);
        };
        let weights = vec![(member.name.clone(), if member.weight == 1 { 2 } else { 1 })];
        let change = fleet::Change { name: "hurry".to_owned(), weights, ..fleet::Change::default() };
        match self.runtime.block_on(self.operator.commit_once(&at, &change)) {
            Ok(plan) => {
                self.changes.hurried.accepted += 1;
                let look = self.look(&[]);
                let unfinished = look.get(&at).map(|state| state.unfinished.clone()).unwrap_or_default();
                if unfinished.iter().any(|unfinished| *unfinished < version) && plan.version > version {
                    return Err(format!(
                        "version {} was decided while version {version} was not settled: {unfinished:?} are not",
                        plan.version
                    ));
                }
                Ok(plan.version)
            }
            Err(refused) => {
                *self.changes.hurried.refused.entry(kind_of(&refused)).or_default() += 1;
                Ok(0)
            }
        }
    }

    /// Who is no member any more holds nothing, stops in order, and is wiped.
    fn dismiss(&mut self, gone: &[usize]) -> Result<(), String> {
        for number in gone {
            let began = Instant::now();
            loop {
                let held = held(&self.fleet.nodes[*number].metrics().unwrap_or_default());
                match held {
                    Some(0) => break,
                    _ if began.elapsed() > DRAINED_MAX => {
                        let name = self.name(*number);
                        return Err(format!(
                            "{name} has left, and holds something {DRAINED_MAX:?} later: keys {held:?}"
                        ));
                    }
                    _ => self.hold(LOOK_EVERY)?,
                }
            }
            if self.rng.random_bool(0.4) {
                // Others may not have heard yet that it has left: it must be there for them.
                self.fleet.nodes[*number].kill();
                self.fleet.nodes[*number].start();
                self.fleet.nodes[*number].wait_serving()?;
            }
            let node = &mut self.fleet.nodes[*number];
            match alarms(node) {
                alarms if alarms.is_empty() => {}
                alarms => return Err(format!("alarms:\n    {}", alarms.join("\n    "))),
            }
            node.stop()?;
            node.wipe();
        }
        Ok(())
    }

    /// How members stand, and these others.
    fn look(&self, others: &[usize]) -> Look {
        let mut names = self.names();
        names.extend(
            others.iter().map(|number| self.name(*number)).filter(|name| !names.contains(name)).collect::<Vec<_>>(),
        );
        self.runtime.block_on(self.operator.look(&names))
    }

    /// The name of one of these, who is asked.
    fn one_of(&mut self, nodes: &[usize]) -> String {
        let number = *nodes.choose(&mut self.rng).expect("there is somebody to ask");
        self.name(number)
    }

    fn number(&self, name: &str) -> usize {
        self.fleet.nodes.iter().position(|node| node.name == name).expect("it is one of the fleet")
    }

    fn note_strike(&mut self, fault: Fault, role: &str) {
        *self.changes.strikes.entry(format!("{} of one that {role}", fault.name())).or_default() += 1;
    }
}

/// Notes what all have taken in for the version that they know.
fn note(taken: &mut Taken, look: &Look) {
    for (name, state) in look {
        if let Some(moving) = moving_of(look, name, state.version) {
            taken.note(name, &moving);
        }
    }
}

/// Whether something of a version has moved.
fn moves(look: &Look, version: u64) -> bool {
    look.keys().any(|name| moving_of(look, name, version).is_some_and(|moving| moving.bytes > 0 || moving.taken > 0))
}

/// Keys in a node's store, hints and tombstones included, as its metrics say it.
fn held(metrics: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix("driftless_store_keys ")?.parse().ok())
}

/// While something is decided.
const TURN: Duration = Duration::from_millis(20);

/// Until the first partition has moved.
const MOVES_SOON: Duration = Duration::from_secs(5);

/// As long as replicas may take to be equal; a change waits for that, and may wait for a node that is filled again.
const SETTLED_MAX: Duration = Duration::from_secs(180);

/// What is not kept any more goes a step at a time.
const DRAINED_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_holds_is_read_from_its_metrics() {
        let metrics = "# TYPE driftless_store_keys gauge\ndriftless_store_keys 7\ndriftless_keys 2\n";
        assert_eq!(held(metrics), Some(7));
        assert_eq!(held(""), None, "nothing said is not nothing held");
    }
}
