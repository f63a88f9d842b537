//! The campaign of crashes in small, and whether it would notice what it looks for.

#![allow(clippy::print_stdout, reason = "what was measured and what was skipped is shown when asked for")]

use driftless_tests::crashes::{Options, Planted, Summary, run};
use driftless_tests::processes::{Inside, inside_with_disks};
use driftless_tests::torment::power_cut::missing;

#[test]
fn nothing_acknowledged_is_lost_on_the_one_disk_that_has_it() {
    match inside_with_disks(&["nothing_acknowledged_is_lost_on_the_one_disk_that_has_it", "--exact", "--nocapture"]) {
        Inside::Yes => assert_holds(&run(&options(5, 1, None), None)),
        Inside::Ran(succeeded) => assert!(succeeded, "failed in its namespace, see above"),
        Inside::Impossible(reason) => assert_holds(&run(&options(5, 0, None), Some(&reason))),
    }
}

#[test]
fn a_removed_fsync_is_noticed() {
    match inside_with_disks(&["a_removed_fsync_is_noticed", "--exact", "--nocapture"]) {
        Inside::Yes => match missing(false) {
            None => assert_noticed(&run(&options(0, 3, Some(Planted::SyncsSkipped)), None)),
            Some(missing) => println!("SKIPPED: {missing}"),
        },
        Inside::Ran(succeeded) => assert!(succeeded, "failed in its namespace, see above"),
        Inside::Impossible(reason) => println!("SKIPPED: {reason}"),
    }
}

#[test]
fn a_store_of_a_moment_ago_is_noticed() {
    assert_noticed(&run(&options(3, 0, Some(Planted::StoreRolledBack)), Some("of no use here")));
}

fn options(kills: u64, power_cuts: u64, planted: Option<Planted>) -> Options {
    Options { kills, power_cuts, seed: 7, dir: None, planted }
}

fn assert_holds(summary: &Summary) {
    println!("{summary}");
    assert!(summary.holds(), "see above");
}

fn assert_noticed(summary: &Summary) {
    println!("{summary}");
    assert!(!summary.broken.is_empty(), "nobody has noticed");
    if let Some(kept) = &summary.kept {
        let _ = std::fs::remove_dir_all(kept);
    }
}
