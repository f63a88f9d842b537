//! Which fault strikes whom, for how long, drawn from a seed.
//!
//! The clock on the wall decides what each fault meets, so a seed does not replay a run. It replays the plan.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

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
}

/// Deals steps without end.
#[derive(Debug)]
pub(super) struct Plan {
    rng: StdRng,
    faults: Vec<Fault>,
    /// Faults still to be dealt before any is dealt again.
    bag: Vec<Fault>,
    nodes: usize,
}

impl Fault {
    /// All of them, with the names that the command line knows.
    pub const ALL: [(&'static str, Fault); 16] = [
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

    /// Whether it strikes all nodes.
    fn strikes_all(self) -> bool {
        matches!(self, Fault::KillAll | Fault::PowerCutAll | Fault::RollingRestart)
    }
}

impl Plan {
    /// Deals these faults for so many nodes.
    pub(super) fn new(seed: u64, faults: Vec<Fault>, nodes: usize) -> Plan {
        Plan { rng: StdRng::seed_from_u64(seed), faults, bag: Vec::new(), nodes }
    }

    /// The steps of the next round.
    pub(super) fn round(&mut self, steps: usize) -> Vec<Step> {
        let mut round: Vec<Step> = Vec::new();
        while round.len() < steps {
            let lost = round.iter().any(|step| step.fault == Fault::DiskLoss);
            let Some(fault) = self.draw(lost) else { break };
            let step = self.step(fault);
            round.push(step);
        }
        round
    }

    fn draw(&mut self, lost: bool) -> Option<Fault> {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.faults);
            self.bag.shuffle(&mut self.rng);
        }
        let allowed = |fault: &Fault| *fault != Fault::DiskLoss || !lost;
        let place = self.bag.iter().rposition(allowed)?;
        Some(self.bag.remove(place))
    }

    fn step(&mut self, fault: Fault) -> Step {
        let rng = &mut self.rng;
        let mut order: Vec<usize> = (0..self.nodes).collect();
        order.shuffle(rng);
        let (struck, others) = if fault.strikes_all() {
            (order, Vec::new())
        } else if fault == Fault::Partition {
            // One side; with five nodes one or two, so that the other still has most.
            let most = (self.nodes - 1) / 2;
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
        let rest = rng.random_range(300..2500);
        Step { fault, nodes: struck, beside, lasts: Duration::from_millis(lasts), rest: Duration::from_millis(rest) }
    }
}

/// What may come beside another fault: with one more node away no promise is void, as all that is acknowledged is on
/// two disks, and only one in a round is lost.
const BESIDE: [Fault; 4] = [Fault::Kill, Fault::Pause, Fault::OneWay, Fault::SlowSync];

#[cfg(test)]
mod tests {
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
        let mut plan = Plan::new(1, all(), 5);
        let dealt = |plan: &mut Plan| {
            let mut faults: Vec<Fault> = plan.round(all().len()).into_iter().map(|step| step.fault).collect();
            faults.sort();
            faults
        };
        assert_eq!(dealt(&mut plan), all());
        assert_eq!(dealt(&mut plan), all());
    }

    #[test]
    fn a_round_loses_one_disk_at_most_and_strikes_each_node_once_at_a_time() {
        let mut plan = Plan::new(3, all(), 5);
        for _ in 0..50 {
            let round = plan.round(12);
            assert!(round.iter().filter(|step| step.fault == Fault::DiskLoss).count() <= 1);
            for step in &round {
                assert!(step.beside.is_none_or(|(_, other)| !step.nodes.contains(&other)), "{step:?}");
                assert!(!step.fault.strikes_all() || step.nodes.len() == 5);
            }
        }
        assert_eq!(Plan::new(3, vec![Fault::DiskLoss], 5).round(4).len(), 1, "nothing else to do");
    }
}
