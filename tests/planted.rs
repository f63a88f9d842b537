//! Whether the simulator is worth its green: every planted mistake must be found within a few hundred seeds.
#![allow(clippy::print_stdout, reason = "the table is the point")]

use driftless_tests::sim::planted::{Hunt, SEEDS_PER_REGIME};

#[test]
fn every_planted_bug_is_found() {
    let hunts: Vec<Hunt> = Hunt::all();
    println!("{}", Hunt::table(&hunts));
    let escaped = Hunt::escaped(&hunts);
    assert_eq!(escaped, [""; 0], "not found in {SEEDS_PER_REGIME} seeds of any regime: the rig is too weak");
}
