//! Members that come and go while everything runs: an operator who stages, plans and commits at whichever node answers, again until it is
//! done, and starts and stops the nodes that this is about.
//!
//! ```text
//! join      a node with an empty disk starts, and calls ──▶ commit ──▶ until the version is settled
//! leave     commit ──▶ until the version is settled ──▶ the node is stopped, and its disk thrown away
//! set       another share for a member ──▶ commit ──▶ until the version is settled
//! replace   a node dies for ever; another starts, and calls ──▶ commit ──▶ until the version is settled
//! lose      a node dies for ever ──▶ commit that it is lost ──▶ until the version is settled
//! double    commit that there are twice the partitions ──▶ until the version is settled
//! access    commit another default role ──▶ until the version is settled
//! wipe      the disk of a node is lost, and an empty one is in its place ──▶ until a version names it
//! disaster  most voters are lost at once ──▶ one who is left decides alone ──▶ others in their places (`disaster`)
//! ```
//! Half way the operator may take back what was decided, if nobody is dead; and a disk may be lost as well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use driftless_node::configurations::Configurations;
use driftless_node::peer::{Body, Message, Request, RequestId};
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, StoreId};
use driftless_proto::{AccessChange, AgreedAccess, Failure, Role};
use driftless_ring::NodeId;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::super::agreement::{Agreed, Heard};
use super::super::check::Violation;
use super::super::node::Input;
use super::super::schedule::{Event, Micros};
use super::super::shape;
use super::disaster::Disaster;
use super::{Phase, World};

/// What the operator is at, and what is to come.
pub(in crate::sim) struct Operator {
    pub(super) rng: StdRng,
    /// Steps that are left to be begun.
    steps: usize,
    pub(super) doing: Option<Step>,
    /// Names the commands, and is in the ids of letters.
    pub(super) next: u64,
    /// Of the command that an answer is waited for, and when it was given.
    pub(super) asked: Option<(u64, Micros)>,
    /// Most voters are lost instead of the step before which so many are left.
    pub(super) strikes_at: Option<usize>,
    pub(super) disaster: Option<Disaster>,
    /// The digest of each version that a node has gone by, and who may do what in it: they are the same at all.
    versions: BTreeMap<u64, (u128, Arc<AgreedAccess>)>,
}

/// One change of members.
#[derive(Clone, Debug)]
pub(super) struct Step {
    change: Kind,
    pub(super) stage: Stage,
    began: Micros,
    /// Whose disk was lost, until that is healed.
    wiped: Option<usize>,
    /// What is still to go wrong half way.
    turns: VecDeque<Turn>,
    /// Until then it may be decided that it is taken back, though nobody has said so.
    unclear_until: Micros,
}

/// Half way through a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// It is to be taken back.
    Cancel,
    /// Somebody loses a disk.
    Wipe,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Join(usize),
    Leave(usize),
    Set(usize, u32),
    Replace(usize, usize),
    Lose(usize),
    /// To so many partitions.
    Double(u32),
    /// This is the default role.
    Access(Role),
    Wipe(usize),
    Disaster,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// What others have staged is to be cleared: a replacement goes by itself.
    Muddled,
    /// To be staged.
    Begun,
    /// To be planned.
    Staged,
    /// To be committed.
    Planned(String),
    /// Decided as this version; until it is settled.
    Decided(u64),
}

impl Operator {
    /// With so many changes to make, and most voters lost in between or never.
    pub(super) fn new(steps: usize, strikes_at: Option<usize>, rng: StdRng) -> Operator {
        let (doing, asked, disaster, versions) = (None, None, None, Default::default());
        Operator { rng, steps, doing, next: 1, asked, strikes_at, disaster, versions }
    }
}

impl World {
    /// The operator looks at how things stand, and does what is next.
    pub(super) fn operate(&mut self) {
        let Some(operator) = &mut self.operator else { return };
        let pause = operator.rng.random_range(20_000..120_000);
        self.schedule.after(pause, Event::Operate);
        let now = self.schedule.now();
        let Some(operator) = &mut self.operator else { return };
        if operator.asked.is_some_and(|(_, at)| now < at + PATIENCE) {
            return;
        }
        operator.asked = None;
        match operator.doing.clone() {
            None => self.begin_step(),
            Some(step) => self.go_on_with(step),
        }
    }

    /// Whether nothing is being changed any more, and nothing is to be.
    pub fn members_are_settled(&self) -> bool {
        let Some(operator) = &self.operator else { return true };
        operator.doing.is_none() && self.goes_by_one_version().is_some()
    }

    /// The version that all nodes go by, if it is one and nothing else counts for any of them.
    pub(super) fn goes_by_one_version(&self) -> Option<u64> {
        let newest = self.cluster.topology().ring().version().0;
        let is_there =
            |configurations: &Configurations| configurations.version() == newest && !configurations.is_moving();
        let all = self
            .cluster
            .iter()
            .filter(|(_, node)| !node.is_dead)
            .all(|(_, node)| node.configurations.as_deref().is_some_and(is_there));
        (all && newest >= 2).then_some(newest)
    }

    pub(super) fn members(&self) -> Vec<usize> {
        let ring = self.cluster.topology().ring();
        ring.members().iter().filter_map(|member| self.cluster.number_of(member.id)).collect()
    }

    fn begin_step(&mut self) {
        if self.goes_by_one_version().is_none() || self.phase != Phase::Active {
            return;
        }
        let (members, default_role) = (self.members(), self.default_role());
        let Some(operator) = &mut self.operator else { return };
        if operator.steps == 0 {
            return;
        }
        operator.steps -= 1;
        if operator.strikes_at == Some(operator.steps) {
            let began = self.schedule.now();
            let (change, stage, turns) = (Kind::Disaster, Stage::Muddled, VecDeque::new());
            operator.doing = Some(Step { change, stage, began, wiped: None, turns, unclear_until: 0 });
            return;
        }
        let sync = (200, operator.rng.random_range(500..40_000));
        let leaver = *members.choose(&mut operator.rng).expect("there are members");
        let dice = operator.rng.random_range(0..16);
        let weight =
            self.cluster.topology().ring().member_by_name(&shape::name_of(leaver)).map_or(0, |member| member.weight);
        let partitions = self.cluster.topology().ring().partitions().get();
        let other_role = if default_role == Some(Role::Reader) { Role::None } else { Role::Reader };
        // Another than it has.
        let weight = 1 + (weight + operator.rng.random_range(0..2)) % 3;
        let turns: &[Turn] = match operator.rng.random_range(0..10) {
            0..2 => &[Turn::Cancel],
            2..4 => &[Turn::Wipe],
            4 => &[Turn::Cancel, Turn::Wipe],
            _ => &[],
        };
        let change = match dice {
            0..4 if members.len() < MEMBERS_MAX => Kind::Join(self.newcomer(sync)),
            0..7 if members.len() > MEMBERS_MIN => Kind::Leave(leaver),
            7..9 => {
                self.bury(leaver);
                Kind::Replace(leaver, self.newcomer(sync))
            }
            9 => Kind::Set(leaver, weight),
            10 => Kind::Access(other_role),
            11..13 if members.len() > MEMBERS_MIN => {
                self.bury(leaver);
                Kind::Lose(leaver)
            }
            13..15 if partitions < PARTITIONS_MAX => Kind::Double(partitions * 2),
            _ => {
                self.wipe(leaver);
                Kind::Wipe(leaver)
            }
        };
        self.say(format_args!("the operator begins: {change:?}"));
        let began = self.schedule.now();
        if let Some(operator) = &mut self.operator {
            // Where somebody is dead there is nothing to go back to, and no other disk may be lost.
            let is_calm =
                matches!(change, Kind::Join(_) | Kind::Leave(_) | Kind::Set(..) | Kind::Double(_) | Kind::Access(_));
            // Nor is there where all stay.
            let goes_back = !matches!(change, Kind::Double(_) | Kind::Access(_));
            let turns = turns.iter().copied().filter(|turn| is_calm && (goes_back || *turn != Turn::Cancel)).collect();
            let wiped = if let Kind::Wipe(node) = change { Some(node) } else { None };
            operator.doing = Some(Step { change, stage: Stage::Begun, began, wiped, turns, unclear_until: 0 });
        }
    }

    /// A node dies for ever, and its disk with it.
    fn bury(&mut self, node: usize) {
        self.kill(node, false);
        self.cluster[node].is_dead = true;
        self.judges.disk_losses.wiped(node, self.schedule.now());
    }

    pub(super) fn newcomer(&mut self, sync: (Micros, Micros)) -> usize {
        let node = self.cluster.add(sync);
        self.start(node);
        node
    }

    /// The disk of a node is lost; what it is given in its place is empty.
    fn wipe(&mut self, node: usize) {
        self.kill(node, false);
        self.judges.disk_losses.wiped(node, self.schedule.now());
        let Some(operator) = &mut self.operator else { return };
        let store = StoreId(operator.rng.random());
        self.cluster.wipe(node, store);
        self.judges.coverage.add("disks lost", 1);
        self.start(node);
    }

    fn go_on_with(&mut self, step: Step) {
        if let Some(node) = step.wiped {
            return self.wait_for_disk(node, step.change);
        }
        if let Kind::Disaster = step.change {
            return self.recover(&step);
        }
        let command = match step.stage {
            Stage::Begun => ClusterCommand::Stage(match step.change {
                Kind::Join(node) => Change::Join { name: shape::name_of(node), zone: None, weight: None },
                Kind::Leave(node) => Change::Leave { name: shape::name_of(node), lost: false },
                Kind::Set(node, weight) => Change::Set { name: shape::name_of(node), zone: None, weight: Some(weight) },
                Kind::Replace(node, with) => {
                    Change::Replace { name: shape::name_of(node), with: shape::name_of(with), force: true }
                }
                Kind::Lose(node) => Change::Leave { name: shape::name_of(node), lost: true },
                Kind::Double(_) => Change::DoublePartitions,
                Kind::Access(role) => Change::SetAccess(AccessChange::Default(Some(role))),
                Kind::Wipe(_) | Kind::Disaster => return,
            }),
            Stage::Muddled => ClusterCommand::Clear,
            Stage::Staged => ClusterCommand::Plan,
            Stage::Planned(plan) => ClusterCommand::Commit { plan },
            Stage::Decided(version) => match self.goes_by_one_version() {
                Some(settled) if settled >= version && step.unclear_until <= self.schedule.now() => {
                    return self.conclude(step.change);
                }
                Some(_) => return,
                None => match self.next_turn() {
                    None => return,
                    Some(Turn::Cancel) => ClusterCommand::Cancel,
                    Some(Turn::Wipe) => return self.lose_a_disk_half_way(step.change),
                },
            },
        };
        self.command_anybody(command);
    }

    /// Whoever runs may be asked.
    pub(super) fn command_anybody(&mut self, command: ClusterCommand) {
        let running: Vec<usize> = self.cluster.numbers().filter(|node| self.cluster[*node].runs()).collect();
        let now = self.schedule.now();
        let Some(operator) = &mut self.operator else { return };
        let Some(&node) = running.choose(&mut operator.rng) else { return };
        operator.next += 1;
        operator.asked = Some((operator.next, now));
        if let (ClusterCommand::Cancel, Some(doing)) = (&command, &mut operator.doing) {
            doing.unclear_until = now + PATIENCE + FINISHED_AFTER;
        }
        let heard = Heard::Command(operator.next, command);
        self.give(node, Input::Heard(heard));
    }

    /// What goes wrong next.
    fn next_turn(&mut self) -> Option<Turn> {
        self.operator.as_mut()?.doing.as_mut()?.turns.pop_front()
    }

    fn lose_a_disk_half_way(&mut self, change: Kind) {
        let members = self.members();
        let Some(operator) = &mut self.operator else { return };
        let Some(&node) = members.choose(&mut operator.rng) else { return };
        if matches!(change, Kind::Leave(leaver) if leaver == node) {
            return;
        }
        if let Some(doing) = &mut operator.doing {
            doing.wiped = Some(node);
        }
        self.say(format_args!("half way, n{node} loses its disk"));
        self.wipe(node);
        self.judges.coverage.add("disks lost while members changed", 1);
    }

    /// Until a version names the disk in the place of the one that was lost.
    fn wait_for_disk(&mut self, node: usize, change: Kind) {
        if self.goes_by_one_version().is_none() {
            return;
        }
        let named = self.cluster[node].configurations.as_deref().is_some_and(Configurations::is_whole);
        if !named || !self.cluster[node].runs() {
            return;
        }
        self.judges.coverage.add("lost disks healed", 1);
        self.judges.disk_losses.healed(node);
        if let Kind::Wipe(_) = change {
            self.end_step();
        } else if let Some(doing) = self.operator.as_mut().and_then(|operator| operator.doing.as_mut()) {
            doing.wiped = None;
        }
    }

    /// A change is settled, or the version in which it was taken back.
    fn conclude(&mut self, change: Kind) {
        let is_member = |node: usize| self.members().contains(&node);
        match change {
            Kind::Join(node) if is_member(node) => self.judges.coverage.add("nodes that joined", 1),
            Kind::Leave(node) if is_member(node) => self.judges.coverage.add("changes taken back", 1),
            Kind::Set(node, weight) if self.weight_of(node) == Some(weight) => {
                self.judges.coverage.add("shares that were set", 1);
            }
            Kind::Set(..) => self.judges.coverage.add("changes taken back", 1),
            Kind::Join(node) => {
                self.retire(node);
                self.judges.coverage.add("changes taken back", 1);
            }
            Kind::Leave(node) => {
                self.retire(node);
                self.judges.coverage.add("nodes that left", 1);
            }
            Kind::Replace(node, _) => {
                self.retire(node);
                self.judges.disk_losses.healed(node);
                self.judges.coverage.add("nodes replaced", 1);
            }
            Kind::Lose(node) => {
                self.retire(node);
                self.judges.disk_losses.healed(node);
                self.judges.coverage.add("nodes declared lost", 1);
            }
            Kind::Double(_) => self.judges.coverage.add("partitions doubled", 1),
            Kind::Access(_) => self.judges.coverage.add("access agreed on", 1),
            Kind::Wipe(_) | Kind::Disaster => {}
        }
        self.end_step();
    }

    /// As the newest version says that any node goes by.
    fn default_role(&self) -> Option<Role> {
        let known = self.cluster.iter().filter_map(|(_, node)| node.configurations.as_deref());
        known.max_by_key(|configurations| configurations.version())?.access().default_role()
    }

    fn weight_of(&self, node: usize) -> Option<u32> {
        self.cluster.topology().ring().member_by_name(&shape::name_of(node)).map(|member| member.weight)
    }

    pub(super) fn retire(&mut self, node: usize) {
        self.kill(node, false);
        self.cluster.remove(node);
    }

    pub(super) fn end_step(&mut self) {
        let now = self.schedule.now();
        if let Some(operator) = &mut self.operator
            && let Some(step) = operator.doing.take()
        {
            let text = format!("the operator is done with {:?} after {} ms", step.change, (now - step.began) / 1000);
            self.say(text);
        }
    }

    /// What a node's machine of the members wants done.
    pub(super) fn take_agreed(&mut self, node: usize, agreed: Agreed) {
        if let Some(configurations) = &agreed.configurations {
            self.note_version(node, configurations);
        }
        for (to, letter) in agreed.letters {
            self.post(node, to, letter);
        }
        for (tag, answer) in agreed.answers {
            self.note_answer(tag, answer);
        }
        if agreed.is_forced_wrongly {
            self.note_forced_wrongly(node);
        }
        if agreed.is_apart {
            let text = format!("n{node} says that a node goes by another history");
            self.judges.violations.push(Violation::general("one record for each version", text));
        }
        if agreed.is_for_the_first {
            self.plan_turn(node, 0);
        }
        if agreed.configurations.is_some() {
            for shard in 0..self.cluster[node].shards.len() {
                self.plan_turn(node, shard);
            }
        }
    }

    /// There is one record of each version.
    fn note_version(&mut self, node: usize, configurations: &Configurations) {
        let version = configurations.version();
        let said = (configurations.topology().digest(), configurations.access().clone());
        self.say(format_args!(
            "n{node} goes by version {version}, reads count in {}, unfinished {:?}",
            configurations.read_version(),
            configurations.unfinished().collect::<Vec<_>>()
        ));
        self.cluster.learn(configurations.topology());
        let Some(operator) = &mut self.operator else { return };
        if *operator.versions.entry(version).or_insert_with(|| said.clone()) != said {
            let text = format!("n{node} goes by another version {version} than a node before it");
            self.judges.violations.push(Violation::general("one record for each version", text));
        }
        // Every cluster is founded by the second.
        self.judges.coverage.add("versions gone by", u64::from(version > 2));
        self.judges.coverage.add("three versions at once", u64::from(configurations.unfinished().count() > 1));
    }

    fn note_answer(&mut self, tag: u64, answer: Result<ClusterAnswer, Failure>) {
        let Some(operator) = &mut self.operator else { return };
        if operator.asked.take_if(|(asked, _)| *asked == tag).is_none() {
            return;
        }
        self.note_recovery(&answer);
        let Some(step) = self.operator.as_mut().and_then(|operator| operator.doing.as_mut()) else { return };
        let mut refusal = String::new();
        let stage = match answer {
            Ok(ClusterAnswer::Staged(_)) => Stage::Staged,
            Ok(ClusterAnswer::Plan(plan)) => Stage::Planned(plan.name),
            Ok(ClusterAnswer::Decided(decided)) => Stage::Decided(decided.version),
            Ok(_) => return,
            // It may have been decided all the same: whoever looks again sees.
            Err(why) => {
                refusal = format!(" ({why})");
                if let Failure::Refused(_) = why {
                    step.unclear_until = 0;
                }
                Stage::Muddled
            }
        };
        if let Stage::Decided(_) = stage {
            step.unclear_until = 0;
        }
        // Only taking it back is left to fail then.
        step.stage = match (&step.stage, stage) {
            (Stage::Decided(version), Stage::Muddled) => Stage::Decided(*version),
            (Stage::Muddled, _) => Stage::Begun,
            (_, stage) => stage,
        };
        let told = format!("the operator is told: {:?}{refusal}", step.stage);
        self.is_it_so();
        self.say(told);
    }

    /// An operator who got no answer looks whether the change was made.
    fn is_it_so(&mut self) {
        let (ring, default_role) = (self.cluster.topology().ring().clone(), self.default_role());
        let has = |node: usize| ring.member(NodeId::of_name(&shape::name_of(node))).is_some();
        let Some(operator) = &mut self.operator else { return };
        let Some(step) = &mut operator.doing else { return };
        let is_made = match step.change {
            Kind::Join(node) => has(node),
            Kind::Leave(node) => !has(node),
            Kind::Replace(node, with) => !has(node) && has(with),
            Kind::Set(node, weight) => {
                let id = NodeId::of_name(&shape::name_of(node));
                ring.member(id).is_some_and(|member| member.weight == weight)
            }
            Kind::Lose(node) => !has(node),
            Kind::Double(partitions) => ring.partitions().get() == partitions,
            Kind::Access(role) => default_role == Some(role),
            Kind::Wipe(_) | Kind::Disaster => false,
        };
        if is_made && !matches!(step.stage, Stage::Decided(_)) {
            step.stage = Stage::Decided(ring.version().0);
        }
    }

    fn post(&mut self, from: usize, to: NodeId, letter: driftless_node::membership::Letter) {
        let Some(operator) = &mut self.operator else { return };
        operator.next += 1;
        let id = RequestId(operator.next << 8);
        let now = self.cluster[from].clock.now(self.schedule.now()).instant;
        let request = Request::Membership(Box::new(letter));
        let ring_version = self.cluster[from].configurations.as_ref().map_or(1, |known| known.version());
        let body = Body::Request { deadline: now + std::time::Duration::from_secs(5), request };
        if self.cluster.number_of(to).is_some() {
            self.send((from, 0), to, Message { id, ring_version, body });
        }
    }
}

/// After which time somebody has finished what nobody was told the end of.
const FINISHED_AFTER: Micros = 10_000_000;

/// How long the operator waits for an answer.
const PATIENCE: Micros = 6_000_000;

/// Members that there are at most, and at least: buckets have three owners.
const MEMBERS_MAX: usize = 6;
pub(super) const MEMBERS_MIN: usize = 3;

/// Partitions that there are at most: a tree for each is checked often.
const PARTITIONS_MAX: u32 = 32;
