//! Load, fault, healing, end of load, and the reckoning.

use std::time::Duration;

use super::cluster::Cluster;
use super::fault::Fault;
use super::load::Load;
use super::report::Report;
use super::verify::verify;

/// How long each part takes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Before anything is measured: connections are made, caches filled.
    pub warm_up: Duration,
    /// Load without a fault.
    pub before: Duration,
    /// With it.
    pub fault: Duration,
    /// After it was healed.
    pub after: Duration,
    /// Clients that write.
    pub writers: usize,
    /// How long each of them rests after a put. None makes them as fast as the cluster, and the keys many.
    pub rest: Duration,
}

/// Carries a scenario out on one node of a cluster of which all nodes are well.
///
/// The fault strikes the node in the middle, which is the first owner of some keys and another one of others.
pub async fn run(cluster: &mut Cluster, fault: Fault, plan: &Plan) -> Report {
    let node = cluster.names()[cluster.names().len() / 2].clone();
    let client = cluster.client().await;
    let load = Load::start(&client, plan.writers, plan.rest);
    tokio::time::sleep(plan.warm_up).await;
    let normal_from = load.elapsed();
    tokio::time::sleep(plan.before).await;
    let normal_to = load.elapsed();
    on_another_thread(|| fault.strike(cluster, &node));
    if fault.prepares() {
        tokio::time::sleep(SETTLE).await;
    }
    let struck = if fault.prepares() { load.elapsed() } else { normal_to };
    tokio::time::sleep(plan.fault).await;
    let healed = load.elapsed();
    on_another_thread(|| fault.heal(cluster, &node));
    tokio::time::sleep(plan.after).await;
    let ended = load.elapsed();
    let history = load.stop().await;
    let verdict = verify(&client, cluster.names(), &history).await;
    client.close().await;
    Report { fault, normal: normal_from..normal_to, struck: struck..healed, healed: healed..ended, history, verdict }
}

/// Waiting for a process must not keep the load from running.
fn on_another_thread(work: impl FnOnce()) {
    tokio::task::block_in_place(work);
}

/// Until a node that was started again is known to all.
const SETTLE: Duration = Duration::from_secs(3);
