//! Which fault strikes whom, for how long, drawn from a seed.
//!
//! The clock on the wall decides what each fault meets, so a seed does not replay a run. It replays the plan.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::shape::SPARES;
use crate::fleet::Role;

/// What is done to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// `kill -9`; started again at once or later.
    Kill,
    /// `kill -9`, and twice again while it recovers.
    KillInRecovery,
    /// `kill -9` of all nodes at once.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Two sides that do not hear each other.
    Partition,
    /// What one node sends to its peers is lost.
    OneWay,
    /// Each sync takes 200 ms longer.
    SlowSync,
    /// Each sync fails: the node must stop by itself.
    SyncError,
    /// Each write to its segments fails with EIO: the same.
    WriteError,
    /// Each write to its segments fails with ENOSPC, as by a quota that nobody can ask for: it refuses, and goes on.
    WriteNoSpace,
    /// Its disk is filled by others, down to less than the store's reserve.
    DiskFull,
    /// The same to the last byte: the node may have to stop.
    DiskPacked,
    /// The power of one node is cut.
    PowerCut,
    /// The power of all nodes is cut at the same moment.
    PowerCutAll,
    /// Each node is asked to stop and started again, one after the other.
    RollingRestart,
    /// A node's data is gone. Once in a round, which ends with its being whole again.
    DiskLoss,
    /// A new node joins.
    Join,
    /// A member leaves.
    Leave,
    /// A new node joins and a member leaves, in one plan.
    Swap,
    /// A join or a leave is gone back from while it is under way.
    Cancel,
    /// A member's machine is gone with its disk, and a new node takes its place. Counts as a disk that is lost.
    Replace,
    /// The same, and nobody takes its place.
    LeaveLost,
    /// Each partition becomes two.
    Double,
}

/// How members change in a step.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Changing {
    /// Each is begun while the one before is under way; all but the first declare somebody lost, which alone need not wait.
    pub(super) changes: Vec<Change>,
    /// Whether it is gone back from in the middle.
    pub(super) is_cancelled: bool,
    /// A voter is struck as it is decided, and for how long.
    pub(super) voter: Option<(Fault, Duration)>,
    /// Who is struck while partitions move, in order.
    pub(super) strikes: Vec<(Role, Strike)>,
    /// Whether another change is asked for meanwhile, which must be refused until this one is done.
    pub(super) is_hurried: bool,
}

/// One change: numbers of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// As the report counts it.
    pub(super) fault: Fault,
    pub(super) joins: Option<usize>,
    pub(super) leaves: Option<usize>,
}

/// What is done to somebody in the middle of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Strike {
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

/// One step of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) fault: Fault,
    /// Numbers of the nodes that it strikes; all, if it strikes all.
    pub(super) nodes: Vec<usize>,
    /// Another one on another node, which begins while the first lasts.
    pub(super) beside: Option<(Fault, usize)>,
    /// How long it lasts, for those that last.
    pub(super) lasts: Duration,
    /// How long nothing new happens after it.
    pub(super) rest: Duration,
    /// How members change, if they do.
    pub(super) changing: Option<Changing>,
}

/// Deals steps without end.
#[derive(Debug)]
pub(super) struct Plan {
    rng: StdRng,
    faults: Vec<Fault>,
    /// Faults still to be dealt before any is dealt again.
    bag: Vec<Fault>,
    /// Who is a member once all that was dealt is carried out.
    members: Vec<usize>,
    /// Who could join, the first one first: whoever has left comes back last.
    spare: VecDeque<usize>,
    /// How few members there may be, and how many.
    bounds: (usize, usize),
    /// How often partitions may still be doubled: there is no way back.
    doublings: u32,
}

impl Fault {
    /// All of them, with the names that the command line knows.
    pub const ALL: [(&'static str, Fault); 23] = [
        ("kill", Fault::Kill),
        ("kill-in-recovery", Fault::KillInRecovery),
        ("kill-all", Fault::KillAll),
        ("pause", Fault::Pause),
        ("partition", Fault::Partition),
        ("one-way", Fault::OneWay),
        ("slow-fsync", Fault::SlowSync),
        ("fsync-error", Fault::SyncError),
        ("write-error", Fault::WriteError),
        ("write-no-space", Fault::WriteNoSpace),
        ("disk-full", Fault::DiskFull),
        ("disk-packed", Fault::DiskPacked),
        ("power-cut", Fault::PowerCut),
        ("power-cut-all", Fault::PowerCutAll),
        ("rolling-restart", Fault::RollingRestart),
        ("disk-loss", Fault::DiskLoss),
        ("join", Fault::Join),
        ("leave", Fault::Leave),
        ("swap", Fault::Swap),
        ("cancel", Fault::Cancel),
        ("replace", Fault::Replace),
        ("leave-lost", Fault::LeaveLost),
        ("double", Fault::Double),
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Fault::ALL.into_iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name)
    }

    /// What it does, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9 of one node, started again at once or later",
            Fault::KillInRecovery => "kill -9, and twice more while it starts",
            Fault::KillAll => "kill -9 of all nodes at once",
            Fault::Pause => "SIGSTOP, then SIGCONT",
            Fault::Partition => "two sides that do not hear each other; clients reach both",
            Fault::OneWay => "what one node sends to its peers is lost, and it hears them",
            Fault::SlowSync => "each fsync of one node takes 200 ms longer",
            Fault::SyncError => "fsync fails with EIO: the node must stop by itself",
            Fault::WriteError => "writes to segments fail with EIO: the same",
            Fault::WriteNoSpace => {
                "writes to segments fail with ENOSPC: the node refuses, and takes writes again afterwards"
            }
            Fault::DiskFull => "one node's file system is filled by somebody else, into the store's reserve",
            Fault::DiskPacked => "the same to the last byte: the node refuses, or stops by itself",
            Fault::PowerCut => "one node's disk as it was on the device, the rest forgotten",
            Fault::PowerCutAll => "the same for all nodes at the same moment",
            Fault::RollingRestart => "each node is stopped in order and started again, one after the other",
            Fault::DiskLoss => "one node's data is deleted, and it starts with none",
            Fault::Join => "a new node joins, with others struck meanwhile",
            Fault::Leave => "a member leaves, and is stopped and wiped once it has left",
            Fault::Swap => "a new node joins and a member leaves, in one plan",
            Fault::Cancel => "a join or a leave, and back again while it is under way",
            Fault::Replace => "one node is killed and its data deleted, and a new node takes its place",
            Fault::LeaveLost => "one node is killed and its data deleted, and it is declared lost",
            Fault::Double => "each partition becomes two, with others struck meanwhile; twice in a run at most",
        }
    }

    /// Whether it needs a file system of the node's own.
    pub(super) fn needs_disk(self) -> bool {
        matches!(self, Fault::DiskFull | Fault::DiskPacked | Fault::PowerCut | Fault::PowerCutAll)
    }

    /// Whether it needs a network of the program's own.
    pub(super) fn needs_network(self) -> bool {
        matches!(self, Fault::Partition | Fault::OneWay)
    }

    /// Whether it needs strace.
    pub(super) fn needs_strace(self) -> bool {
        matches!(self, Fault::SlowSync | Fault::SyncError | Fault::WriteError | Fault::WriteNoSpace)
    }

    /// Whether it takes a disk away for good.
    pub(super) fn loses_disk(self) -> bool {
        matches!(self, Fault::DiskLoss | Fault::Replace | Fault::LeaveLost)
    }

    /// Whether members change.
    pub(super) fn changes_members(self) -> bool {
        CHANGES.contains(&self)
    }

    /// Whether it strikes all nodes.
    fn strikes_all(self) -> bool {
        matches!(self, Fault::KillAll | Fault::PowerCutAll | Fault::RollingRestart)
    }
}

impl Plan {
    /// Deals these faults for so many nodes.
    pub(super) fn new(seed: u64, faults: Vec<Fault>, nodes: usize) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bag = faults.clone();
        bag.shuffle(&mut rng);
        // A run of a minute sees members change, too: the second thing that happens.
        let begins = |fault: &Fault| matches!(fault, Fault::Join | Fault::Leave | Fault::Swap);
        if let Some(place) = bag.iter().rposition(begins) {
            let change = bag.remove(place);
            bag.insert(bag.len().saturating_sub(1), change);
        }
        let bounds = ((nodes - 1).max(MEMBERS_MIN), nodes + SPARES - FREE);
        Plan {
            rng,
            faults,
            bag,
            members: (0..nodes).collect(),
            spare: (nodes..nodes + SPARES).collect(),
            bounds,
            doublings: DOUBLINGS,
        }
    }

    /// The steps of the next round.
    pub(super) fn round(&mut self, steps: usize) -> Vec<Step> {
        let mut round: Vec<Step> = Vec::new();
        while round.len() < steps {
            let lost = round.iter().any(|step| step.loses_disk());
            let Some(fault) = self.draw(lost) else { break };
            let step = self.step(fault);
            round.push(step);
        }
        round
    }

    fn draw(&mut self, lost: bool) -> Option<Fault> {
        let allowed = |fault: &Fault| !lost || !fault.loses_disk();
        if !self.bag.iter().any(allowed) && self.faults.iter().any(allowed) {
            // Those that are left have to wait for the next round: they stay the first of it.
            let mut bag = self.faults.clone();
            bag.shuffle(&mut self.rng);
            bag.append(&mut self.bag);
            self.bag = bag;
        } else if self.bag.is_empty() {
            self.bag.clone_from(&self.faults);
            self.bag.shuffle(&mut self.rng);
        }
        let place = self.bag.iter().rposition(allowed)?;
        Some(self.bag.remove(place))
    }

    fn step(&mut self, fault: Fault) -> Step {
        if fault.changes_members() {
            return self.change(fault);
        }
        let rng = &mut self.rng;
        let mut order = self.members.clone();
        order.shuffle(rng);
        let (struck, others) = if fault.strikes_all() {
            (order, Vec::new())
        } else if fault == Fault::Partition {
            // One side; with five nodes one or two, so that the other still has most.
            let most = (self.members.len() - 1) / 2;
            let others = order.split_off(rng.random_range(1..=most.max(1)));
            (order, others)
        } else {
            let others = order.split_off(1);
            (order, others)
        };
        let companions: Vec<Fault> =
            BESIDE.into_iter().filter(|beside| *beside != fault && self.faults.contains(beside)).collect();
        let beside = match others.first() {
            Some(other) if !companions.is_empty() && rng.random_bool(0.4) => {
                Some((companions[rng.random_range(0..companions.len())], *other))
            }
            _ => None,
        };
        let lasts = match fault {
            // At once, or long enough to be thought dead.
            Fault::Kill | Fault::KillAll if rng.random_bool(0.4) => 0,
            Fault::KillAll | Fault::PowerCutAll => rng.random_range(0..1500),
            // Long enough for writes to be refused.
            Fault::DiskFull | Fault::DiskPacked => rng.random_range(4000..7000),
            _ => rng.random_range(1500..6000),
        };
        let rest = Duration::from_millis(rng.random_range(300..2500));
        Step { fault, nodes: struck, beside, lasts: Duration::from_millis(lasts), rest, changing: None }
    }

    fn change(&mut self, fault: Fault) -> Step {
        let mut changing = Changing::default();
        // Where there is no room for one to join, or nobody who may leave, the other is done.
        let (may_join, may_leave) = (self.members.len() < self.bounds.1, self.members.len() > self.bounds.0);
        let fault = match fault {
            Fault::Double if self.doublings > 0 => {
                self.doublings -= 1;
                Fault::Double
            }
            Fault::Double if may_join => Fault::Join,
            Fault::Double => Fault::Leave,
            Fault::Join if !may_join => Fault::Leave,
            Fault::Leave if !may_leave => Fault::Join,
            other => other,
        };
        let first = match fault {
            Fault::Cancel if may_leave && (!may_join || self.rng.random_bool(0.5)) => Some(Fault::Leave),
            Fault::Cancel => Some(Fault::Join),
            // Somebody is lost while others come or go.
            Fault::LeaveLost if !may_leave => Some(Fault::Join),
            Fault::Replace | Fault::LeaveLost if self.has_first(may_join) => Some(Fault::Join),
            _ => None,
        };
        let (members, spare) = (self.members.clone(), self.spare.clone());
        changing.changes.extend(first.map(|first| self.one(first)));
        if fault == Fault::Cancel {
            changing.is_cancelled = true;
            (self.members, self.spare) = (members, spare);
        } else {
            let change = self.one(fault);
            changing.changes.push(change);
        }
        self.disturb(&mut changing);
        let rest = Duration::from_millis(self.rng.random_range(300..2500));
        Step { fault, nodes: Vec::new(), beside: None, lasts: Duration::ZERO, rest, changing: Some(changing) }
    }

    fn has_first(&mut self, may_join: bool) -> bool {
        may_join && self.faults.contains(&Fault::Join) && self.rng.random_bool(0.4)
    }

    /// Draws who comes and who goes.
    fn one(&mut self, fault: Fault) -> Change {
        let leaves = matches!(fault, Fault::Leave | Fault::Swap | Fault::Replace | Fault::LeaveLost).then(|| {
            // Not who has only just begun to join: it is another change that is under way.
            let place = self.rng.random_range(0..self.members.len() - 1);
            self.members.remove(place)
        });
        let joins = matches!(fault, Fault::Join | Fault::Swap | Fault::Replace)
            .then(|| self.spare.pop_front().expect("as many are spare as one step needs"));
        self.members.extend(joins);
        self.spare.extend(leaves);
        Change { fault, joins, leaves }
    }

    /// Draws who is struck meanwhile, and whether somebody is in a hurry.
    fn disturb(&mut self, changing: &mut Changing) {
        let (rng, faults) = (&mut self.rng, &self.faults);
        let known = |all: &[Fault]| all.iter().copied().filter(|fault| faults.contains(fault)).collect::<Vec<_>>();
        let mut of = |all: &[Fault], share: f64| {
            let known = known(all);
            if known.is_empty() || !rng.random_bool(share) {
                return None;
            }
            Some((known[rng.random_range(0..known.len())], Duration::from_millis(rng.random_range(200..3500))))
        };
        changing.voter = of(&[Fault::Kill, Fault::Pause], 0.35);
        for role in [Role::Gives, Role::Takes, Role::HandsOver] {
            let with_disk = [Fault::Kill, Fault::Pause, Fault::OneWay, Fault::SlowSync, Fault::DiskFull];
            let strike = of(&with_disk, 0.45).map(|(fault, lasts)| (role, Strike { fault, lasts }));
            changing.strikes.extend(strike);
        }
        // What is gone back from must be the last change.
        changing.is_hurried = self.rng.random_bool(0.4) && !changing.is_cancelled;
    }
}

impl Step {
    /// Whether a disk is gone for good.
    pub(super) fn loses_disk(&self) -> bool {
        self.fault.loses_disk()
    }
}

/// Faults that change members.
pub(super) const CHANGES: [Fault; 7] =
    [Fault::Join, Fault::Leave, Fault::Swap, Fault::Cancel, Fault::Replace, Fault::LeaveLost, Fault::Double];

/// Each is a scan of all that a node holds.
const DOUBLINGS: u32 = 2;

/// As many as a key has replicas.
const MEMBERS_MIN: usize = 3;

/// Of those who are spare, so many always are: one for each change of a step.
const FREE: usize = 2;

/// What may come beside another fault: with one more node away no promise is void, as all that is acknowledged is on
/// two disks, and only one in a round is lost.
const BESIDE: [Fault; 4] = [Fault::Kill, Fault::Pause, Fault::OneWay, Fault::SlowSync];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> Vec<Fault> {
        Fault::ALL.map(|(_, fault)| fault).into()
    }

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| Plan::new(seed, all(), 5).round(40);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_fault_comes_before_any_comes_again() {
        let faults: Vec<Fault> =
            all().into_iter().filter(|fault| !fault.loses_disk() && !fault.changes_members()).collect();
        let mut plan = Plan::new(1, faults.clone(), 5);
        for _ in 0..2 {
            let mut dealt: Vec<Fault> = plan.round(faults.len()).into_iter().map(|step| step.fault).collect();
            dealt.sort();
            assert_eq!(dealt, faults);
        }
    }

    #[test]
    fn every_fault_comes_within_a_few_rounds_and_a_change_of_members_among_the_first_two_steps() {
        for seed in 0..50 {
            let mut plan = Plan::new(seed, all(), 5);
            let rounds: Vec<Vec<Step>> = (0..10).map(|_| plan.round(8)).collect();
            assert!(rounds[0][..2].iter().any(|step| step.changing.is_some()));
            let dealt: BTreeSet<Fault> = rounds.iter().flatten().map(|step| step.fault).collect();
            assert_eq!(dealt.len(), Fault::ALL.len(), "{seed}: {dealt:?}");
        }
    }

    #[test]
    fn members_come_and_go_within_bounds_and_nobody_is_struck_who_is_not_one() {
        for nodes in [3, 5] {
            let mut plan = Plan::new(nodes as u64, all(), nodes);
            let mut members: BTreeSet<usize> = (0..nodes).collect();
            for step in (0..60).flat_map(|_| plan.round(8)) {
                let struck = step.nodes.iter().copied().chain(step.beside.map(|(_, node)| node));
                assert!(struck.into_iter().all(|node| members.contains(&node)), "{step:?}");
                let Some(changing) = step.changing else { continue };
                let before = members.clone();
                for (place, change) in changing.changes.iter().enumerate() {
                    assert!(place == 0 || change.fault.loses_disk(), "only that need not wait: {changing:?}");
                    assert!(change.leaves.is_none_or(|node| before.contains(&node) && members.remove(&node)));
                    assert!(change.joins.is_none_or(|node| members.insert(node) && node < nodes + SPARES));
                }
                if changing.is_cancelled {
                    members = before;
                }
                assert!((MEMBERS_MIN.max(nodes - 1)..=nodes + SPARES - FREE).contains(&members.len()));
            }
        }
    }

    #[test]
    fn a_round_loses_one_disk_at_most_and_strikes_each_node_once_at_a_time() {
        let mut plan = Plan::new(3, all(), 5);
        for _ in 0..50 {
            let round = plan.round(12);
            assert!(round.iter().filter(|step| step.fault.loses_disk()).count() <= 1);
            for step in &round {
                assert!(step.beside.is_none_or(|(_, other)| !step.nodes.contains(&other)), "{step:?}");
            }
        }
        assert_eq!(Plan::new(3, vec![Fault::DiskLoss], 5).round(4).len(), 1, "nothing else to do");
    }
}
