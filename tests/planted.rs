//! Whether the simulator is worth its green: every planted mistake must be found within a few hundred seeds.
#![allow(clippy::print_stdout, reason = "the table is the point")]

use driftless_tests::sim::planted::{Hunt, SEEDS_PER_REGIME};

#[test]
fn every_planted_bug_is_found() {
    let hunts: Vec<Hunt> = Hunt::all();
    println!("{}", Hunt::table(&hunts));
    let missed: Vec<&str> = hunts.iter().filter(|hunt| hunt.catch.is_none()).map(|hunt| hunt.bug.name()).collect();
    assert_eq!(missed, Vec::<&str>::new(), "not found in {SEEDS_PER_REGIME} seeds of any regime: the rig is too weak");
}
