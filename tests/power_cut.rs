//! The power of all nodes is cut. What was acknowledged is there afterwards; and if nodes only said that they synced, it
//! is not: the rig sees what a missing fsync does.

#![allow(clippy::print_stdout, reason = "what was measured and what was skipped is shown when asked for")]

use driftless_tests::processes::{Inside, inside_with_disks};
use driftless_tests::torment::power_cut::{missing, prove};

#[test]
fn what_was_acknowledged_survives_a_power_cut_of_all_nodes() {
    in_a_namespace("what_was_acknowledged_survives_a_power_cut_of_all_nodes", true, || {
        let proof = prove(true);
        println!("{proof:?}");
        assert!(proof.refused.is_empty(), "nodes do not start again: {proof:?}");
        assert!(proof.acknowledged > 0, "a cluster that takes nothing loses nothing");
        assert_eq!(proof.lost, 0, "{proof:?}");
    });
}

#[test]
fn a_removed_fsync_is_caught() {
    in_a_namespace("a_removed_fsync_is_caught", false, || {
        let proof = prove(false);
        println!("{proof:?}");
        assert!(proof.acknowledged > 0, "nothing was at stake");
        assert!(proof.lost > 0, "nothing is lost although nothing was synced: {proof:?}");
    });
}

fn in_a_namespace(test: &str, syncing: bool, prove: impl FnOnce()) {
    match inside_with_disks(&[test, "--exact", "--nocapture"]) {
        Inside::Yes => match missing(syncing) {
            None => prove(),
            Some(missing) => println!("SKIPPED: {missing}"),
        },
        Inside::Ran(succeeded) => assert!(succeeded, "failed in its namespace, see above"),
        Inside::Impossible(reason) => println!("SKIPPED: {reason}"),
    }
}
