//! Five real processes, 64 clients that write, and a fault of one node.
//!
//! What must hold on any machine is asserted: nothing acknowledged is lost, every replica becomes complete, no client
//! meets a failure for good. `faults` measures how long it hurts.

#![allow(
    clippy::print_stdout,
    reason = "what was measured and what was skipped is shown when a test fails or is asked to"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftless_tests::processes::{Cluster, Fault, Inside, Plan, inside, run};

#[test]
fn kill_and_restart_under_load() {
    survives(&[Fault::Kill], turn());
}

#[test]
fn pause_under_load() {
    survives(&[Fault::Pause], turn());
}

#[test]
fn slow_fsync_under_load() {
    match Fault::SlowSync.missing() {
        None => survives(&[Fault::SlowSync], turn()),
        Some(missing) => println!("SKIPPED: {missing}"),
    }
}

#[test]
fn namespace_partition() {
    let turn = turn();
    match inside(&["namespace_partition", "--exact", "--nocapture"]) {
        Inside::Yes => survives(&[Fault::Mute, Fault::CutOff], turn),
        Inside::Ran(succeeded) => assert!(succeeded, "failed in its namespace, see above"),
        Inside::Impossible(reason) => println!("SKIPPED: {reason}"),
    }
}

fn survives(faults: &[Fault], _turn: MutexGuard<'_, ()>) {
    let ms = Duration::from_millis;
    let plan = Plan { warm_up: ms(500), before: ms(1000), fault: ms(3000), after: ms(1500), writers: 64, rest: ms(40) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    let mut cluster = Cluster::start(5);
    for &fault in faults {
        let report = runtime.block_on(run(&mut cluster, fault, &plan));
        println!("{report}");
        if !report.verdict.holds() {
            println!("{}", cluster.logs());
        }
        report.assert_safe();
    }
}

/// Five processes at a time are enough for a small machine.
fn turn() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}
