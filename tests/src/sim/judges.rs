//! The part of a world that looks on: what only we see, what was met, and what was found wrong on the way.

use std::collections::BTreeMap;

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
}
