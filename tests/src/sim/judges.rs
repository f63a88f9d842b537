//! The part of a world that looks on: what only we see, what was met, and what was found wrong on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::check::Violation;
use super::check::durability::{DurabilityOracle, Scene};
use super::check::losses::DiskLosses;
use super::cluster::Cluster;
use super::coverage::Coverage;
use super::hints::HintWatch;
use super::history::History;
use super::observer::Observer;
use super::schedule::Micros;
use super::store::SimStore;

/// All who judge while the world goes on.
pub struct Judges {
    /// What only we see.
    pub observer: Observer,
    /// Judges every acknowledgement.
    pub oracle: DurabilityOracle,
    /// What was met.
    pub coverage: Coverage,
    /// What was found wrong on the way.
    pub violations: Vec<Violation>,
    /// When batches that had not been synced, or more, were lost.
    pub losses: Vec<Micros>,
    /// What disks have lost.
    pub disk_losses: DiskLosses,
    /// What becomes of hints.
    pub(super) hints: HintWatch,
}

impl Judges {
    /// Judges that have seen nothing yet. With damage in the world, they look at more.
    pub fn new(cluster: &Cluster, damage: bool) -> Judges {
        Judges {
            observer: Observer::new(cluster.topology(), damage),
            oracle: DurabilityOracle::default(),
            coverage: Coverage::default(),
            violations: Vec::new(),
            losses: Vec::new(),
            disk_losses: DiskLosses::default(),
            hints: HintWatch::default(),
        }
    }

    /// Shows the oracle all disks as they are.
    pub(super) fn ask_oracle(
        &mut self,
        cluster: &Cluster,
        history: &History,
        ask: impl FnOnce(&mut DurabilityOracle, &Scene<'_>),
    ) {
        let disks: BTreeMap<usize, SimStore> =
            cluster.iter().map(|(number, node)| (number, node.store.clone())).collect();
        let Judges { observer, oracle, disk_losses, .. } = self;
        let scene = Scene::new(cluster.topology(), history, observer, &disks, disk_losses);
        let scene = if cluster.agrees_on_members() { scene.of_changing_members() } else { scene };
        ask(oracle, &scene);
    }

    /// These disks have just been lost at once, for ever, and are empty.
    pub(super) fn lost_at_once(&mut self, cluster: &Cluster, history: &History, lost: &BTreeSet<usize>, now: Micros) {
        let mut left = BTreeMap::new();
        self.ask_oracle(cluster, history, |oracle, scene| left = oracle.lost_at_once(now, scene));
        let promised = || left.values().filter(|left| left.was_promised);
        let of_disks = |disks: u8| promised().filter(|left| left.disks == disks).count() as u64;
        self.coverage.add("acknowledged writes lost with most disks", of_disks(0));
        self.coverage.add("acknowledged writes left on one disk", of_disks(1));
        self.losses.push(now);
        self.disk_losses.lost_at_once(lost.clone(), now, left);
    }
}
