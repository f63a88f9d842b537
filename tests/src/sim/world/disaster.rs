//! Most voters are lost at once, for ever, with their disks: an operator has one of those who are left decide alone that they are lost, and
//! puts others in their places.
//!
//! ```text
//! struck     the lost die, their disks are empty ──▶ what the others hold is all that is asked for
//! refused    somebody is named who is there, or not all who are lost: it must not be done
//! forced     at one who is left, or at two at the same moment ──▶ one version, the same at both
//!            or refused, as most voters are there after all: then the ordinary way
//! one by one a node takes the place of one, or it leaves as lost, or its process comes back with an empty disk
//! ```

use std::collections::BTreeSet;

use driftless_proto::Failure;
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, StoreId};
use driftless_ring::NodeId;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::super::agreement::Heard;
use super::super::check::Violation;
use super::super::faults::{Fault, downtime};
use super::super::node::Input;
use super::super::schedule::{Event, Micros};
use super::super::shape;
use super::World;
use super::changes::{MEMBERS_MIN, Operator, Stage, Step};

/// What the operator makes of it.
pub(super) struct Disaster {
    lost: Vec<Loss>,
    /// Decided by force, or refused since most voters are there: the rest goes the ordinary way.
    is_forced: bool,
    goes_on: bool,
    /// What was asked that an answer is waited for.
    asked: Asked,
}

/// One of those who are lost.
#[derive(Clone, Copy, Debug)]
struct Loss {
    node: usize,
    fate: Fate,
    /// Its process is there again.
    is_back: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Another node takes its place, once there is one.
    Replaced(Option<usize>),
    /// It leaves as lost.
    Leaves,
    /// Its process comes back with an empty disk, before anything is forced or after that.
    ComesBack { early: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// Something of the ordinary way.
    Ordinary,
    /// What force would mean.
    Would,
    /// Force, with all who are lost named.
    Force,
    /// Somebody is named who is there, or not all are named who are not.
    Wrong,
}

impl World {
    /// Some members die at once, and their disks with them: most voters, or one less.
    pub(super) fn strike_voters(&mut self) {
        let now = self.schedule.now();
        let members = self.members();
        let whole = |node: &usize| self.cluster[*node].runs() && !self.cluster[*node].paused;
        let running: Vec<usize> = members.iter().copied().filter(whole).collect();
        let mut voters = BTreeSet::new();
        for node in &running {
            let names = self.cluster.state_of(*node, now).map(|state| state.voters).unwrap_or_default();
            voters.extend(members.iter().copied().filter(|member| names.contains(&shape::name_of(*member))));
        }
        let Some(operator) = &mut self.operator else { return };
        let mut order: Vec<usize> = voters.iter().copied().collect();
        order.shuffle(&mut operator.rng);
        let others: Vec<usize> = members.iter().copied().filter(|member| !voters.contains(member)).collect();
        let most = order.len() / 2 + 1;
        let count = if operator.rng.random_bool(0.2) { most - 1 } else { most };
        let mut lost: Vec<usize> = order.into_iter().take(count).collect();
        lost.extend(others.into_iter().filter(|_| operator.rng.random_bool(0.3)));
        let is_left = |node: &usize| !lost.contains(node);
        if lost.is_empty() || !running.iter().any(is_left) {
            // Nobody would be left who runs: in a moment there will.
            return;
        }
        let mut may_leave = members.len().saturating_sub(MEMBERS_MIN);
        let mut losses = Vec::new();
        for node in &lost {
            let fate = match operator.rng.random_range(0..5) {
                0..2 => Fate::ComesBack { early: operator.rng.random_bool(0.3) },
                2 if may_leave > 0 => {
                    may_leave -= 1;
                    Fate::Leaves
                }
                _ => Fate::Replaced(None),
            };
            losses.push(Loss { node: *node, fate, is_back: false });
        }
        let stores: Vec<StoreId> = lost.iter().map(|_| StoreId(operator.rng.random())).collect();
        self.say(format_args!("at once and for ever are lost: {losses:?}"));
        self.judges.coverage.add("disasters", 1);
        for node in &lost {
            self.kill(*node, false);
        }
        for (node, store) in lost.iter().zip(stores) {
            self.cluster.wipe(*node, store);
            self.cluster[*node].is_dead = true;
        }
        self.judges.lost_at_once(&self.cluster, &self.workload.history, &lost.into_iter().collect(), now);
        if let Some(operator) = &mut self.operator {
            operator.disaster =
                Some(Disaster { lost: losses, is_forced: false, goes_on: false, asked: Asked::Ordinary });
        }
        for loss in losses_of(&self.operator) {
            if let Fate::ComesBack { early: true } = loss.fate {
                self.come_back(loss.node);
            }
        }
    }

    /// What is next after a disaster.
    pub(super) fn recover(&mut self, step: &Step) {
        if losses_of(&self.operator).is_empty() {
            return self.strike_voters();
        }
        let goes_on = self.operator.as_ref().and_then(Operator::disaster).is_some_and(|disaster| disaster.goes_on);
        if goes_on { self.put_others_in_place(step) } else { self.force() }
    }

    fn force(&mut self) {
        if self.is_forced_already() {
            return;
        }
        let lost: Vec<usize> = losses_of(&self.operator).iter().map(|loss| loss.node).collect();
        let is_left = |node: &usize| !lost.contains(node) && self.cluster[*node].runs();
        let left: Vec<usize> = self.members().into_iter().filter(is_left).collect();
        let now = self.schedule.now();
        let Some(operator) = &mut self.operator else { return };
        let Some(&node) = left.choose(&mut operator.rng) else { return };
        let other = left.iter().copied().find(|other| *other != node);
        let mut names: Vec<String> = lost.iter().map(|node| shape::name_of(*node)).collect();
        let dice = operator.rng.random_range(0..8);
        operator.next += 1;
        let tag = operator.next;
        let (asked, heard) = match dice {
            0 => {
                names.push(shape::name_of(other.unwrap_or(node)));
                (Asked::Wrong, Heard::ForceUnlessThere(tag, names.clone()))
            }
            1 if names.len() > 1 => {
                names.pop();
                (Asked::Wrong, Heard::Command(tag, ClusterCommand::Recover { lost: names.clone(), force: false }))
            }
            2 => (Asked::Would, Heard::Command(tag, ClusterCommand::Recover { lost: names.clone(), force: false })),
            _ => (Asked::Force, Heard::Command(tag, ClusterCommand::Recover { lost: names.clone(), force: true })),
        };
        operator.asked = Some((tag, now));
        operator.set_asked(asked);
        let at_two = asked == Asked::Force && operator.rng.random_bool(0.3);
        self.give(node, Input::Heard(heard));
        if let Some(other) = other.filter(|_| at_two)
            && let Some(operator) = &mut self.operator
        {
            operator.next += 1;
            let command = ClusterCommand::Recover { lost: names, force: true };
            let heard = Heard::Command(operator.next, command);
            self.judges.coverage.add("forces at two nodes at once", 1);
            self.give(other, Input::Heard(heard));
        }
    }

    /// Whether it is done, and the answer was lost; or most voters were there, and who has come back with an empty disk has been named again.
    fn is_forced_already(&mut self) -> bool {
        let is_forced = self.cluster.topology().ring().version().0 >= FORCED_FROM;
        let is_whole = |loss: &Loss| {
            let configurations = self.cluster[loss.node].configurations.as_deref();
            loss.is_back && configurations.is_some_and(|known| known.is_agreed() && known.is_whole())
        };
        let goes_on = is_forced || losses_of(&self.operator).iter().any(is_whole);
        if let Some(disaster) = self.operator.as_mut().and_then(|operator| operator.disaster.as_mut()) {
            (disaster.is_forced, disaster.goes_on) = (is_forced, goes_on);
        }
        self.judges.coverage.add("versions forced", is_forced.into());
        goes_on
    }

    /// What a node has answered.
    pub(super) fn note_recovery(&mut self, answer: &Result<ClusterAnswer, Failure>) {
        let Some(disaster) = self.operator.as_mut().and_then(|operator| operator.disaster.as_mut()) else { return };
        let met = match (disaster.asked, answer) {
            (Asked::Ordinary, _) => return,
            (Asked::Force, Ok(ClusterAnswer::Decided(_))) => {
                (disaster.is_forced, disaster.goes_on) = (true, true);
                "versions forced"
            }
            (Asked::Would, Ok(ClusterAnswer::Recovery(_))) => "forces that were only asked about",
            (_, Ok(_)) => return,
            (_, Err(why)) if why.to_string().contains("not needed") => {
                disaster.goes_on = true;
                "forces refused beside most voters"
            }
            (Asked::Wrong, Err(_)) => "forces refused that name others than are lost",
            (_, Err(_)) => "forces refused that have to wait",
        };
        let is_forced = disaster.is_forced;
        disaster.asked = Asked::Ordinary;
        self.judges.coverage.add(met, 1);
        self.say(format_args!("of force the operator is told: {answer:?}"));
        if is_forced {
            self.trouble_those_who_are_left();
        }
    }

    /// From here on those who are left may die as before, and hear each other no better.
    fn trouble_those_who_are_left(&mut self) {
        let Some(operator) = &mut self.operator else { return };
        for _ in 0..operator.rng.random_range(0..4) {
            let delay = operator.rng.random_range(0..2_000_000);
            let node = self.cluster.any(&mut operator.rng);
            let fault = match operator.rng.random_bool(0.5) {
                true => Fault::Crash { node, down: downtime(&mut operator.rng) },
                false => Fault::Partition { side: [node].into(), lasts: operator.rng.random_range(5_000..500_000) },
            };
            self.schedule.after(delay, Event::Fault(fault));
        }
    }

    /// The ordinary way, one after another or several at a time.
    fn put_others_in_place(&mut self, step: &Step) {
        let ring = self.cluster.topology().ring().clone();
        let has = |node: usize| ring.member(NodeId::of_name(&shape::name_of(node))).is_some();
        let is_done = |loss: &&Loss| match loss.fate {
            Fate::Replaced(with) => !has(loss.node) && with.is_some_and(has),
            Fate::Leaves => !has(loss.node),
            Fate::ComesBack { .. } => loss.is_back,
        };
        let losses = losses_of(&self.operator);
        let undone: Vec<Loss> = losses.iter().filter(|loss| !is_done(loss)).copied().collect();
        let Some(operator) = &mut self.operator else { return };
        let Some(next) = undone.choose(&mut operator.rng).copied() else {
            if self.goes_by_one_version().is_some() {
                self.conclude_disaster(&losses);
            }
            return;
        };
        let change = match next.fate {
            Fate::ComesBack { .. } => return self.come_back(next.node),
            Fate::Leaves => Change::Leave { name: shape::name_of(next.node), lost: true },
            Fate::Replaced(with) => {
                let with = with.unwrap_or_else(|| self.replacement_of(next.node));
                Change::Replace { name: shape::name_of(next.node), with: shape::name_of(with), force: true }
            }
        };
        let Some(operator) = &mut self.operator else { return };
        let one_more = undone.len() > 1 && operator.rng.random_bool(0.4);
        let command = match &step.stage {
            Stage::Muddled | Stage::Decided(_) => ClusterCommand::Clear,
            Stage::Staged if !one_more => ClusterCommand::Plan,
            Stage::Begun | Stage::Staged => ClusterCommand::Stage(change),
            Stage::Planned(plan) => ClusterCommand::Commit { plan: plan.clone() },
        };
        if let (Stage::Decided(_), Some(doing)) = (&step.stage, &mut operator.doing) {
            doing.stage = Stage::Muddled;
        }
        self.command_anybody(command);
    }

    fn replacement_of(&mut self, node: usize) -> usize {
        let Some(operator) = &mut self.operator else { return node };
        let sync = (200, operator.rng.random_range(500..40_000));
        let with = self.newcomer(sync);
        self.change_loss(node, |loss| loss.fate = Fate::Replaced(Some(with)));
        with
    }

    fn come_back(&mut self, node: usize) {
        self.cluster[node].is_dead = false;
        self.start(node);
        self.change_loss(node, |loss| loss.is_back = true);
    }

    fn change_loss(&mut self, node: usize, change: impl FnOnce(&mut Loss)) {
        let disaster = self.operator.as_mut().and_then(|operator| operator.disaster.as_mut());
        let loss = disaster.and_then(|disaster| disaster.lost.iter_mut().find(|loss| loss.node == node));
        if let Some(loss) = loss {
            change(loss);
        }
    }

    fn conclude_disaster(&mut self, losses: &[Loss]) {
        let is_forced = self.operator.as_ref().and_then(Operator::disaster).is_some_and(|disaster| disaster.is_forced);
        for loss in losses {
            let met = match loss.fate {
                Fate::Replaced(_) => "members lost by force that were replaced",
                Fate::Leaves => "members lost by force that left",
                Fate::ComesBack { .. } => "members lost by force that came back empty",
            };
            self.judges.coverage.add(met, u64::from(is_forced));
            if !matches!(loss.fate, Fate::ComesBack { .. }) {
                self.retire(loss.node);
            }
        }
        if let Some(operator) = &mut self.operator {
            operator.end_disaster();
        }
        self.end_step();
    }

    /// Nobody who is there, with all that it should hold, is declared lost.
    pub(super) fn note_forced_wrongly(&mut self, node: usize) {
        let text = format!("n{node} has declared somebody lost whom it hears, with all data");
        self.judges.violations.push(Violation::general("who is there is not lost", text));
    }
}

fn losses_of(operator: &Option<Operator>) -> Vec<Loss> {
    operator.as_ref().and_then(Operator::disaster).map_or(Vec::new(), |disaster| disaster.lost.clone())
}

impl Operator {
    fn disaster(&self) -> Option<&Disaster> {
        self.disaster.as_ref()
    }

    fn end_disaster(&mut self) {
        (self.disaster, self.strikes_at) = (None, None);
    }

    fn set_asked(&mut self, asked: Asked) {
        if let Some(disaster) = &mut self.disaster {
            disaster.asked = asked;
        }
    }

    /// Whether those who are left are listened to: who has just started forces nothing.
    pub(in crate::sim) fn waits_for_force(&self) -> bool {
        self.disaster.as_ref().is_some_and(|disaster| !disaster.goes_on)
    }
}

/// No version below is forced, and none above is not, or follows on one.
const FORCED_FROM: u64 = 1_000;

/// For so long clients go on asking in a world with a disaster: a node that has been up for ten seconds may be asked to force.
pub(in crate::sim) const ACTIVE_LONGER: Micros = 14_000_000;
