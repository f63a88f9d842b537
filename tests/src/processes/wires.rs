//! Wires between nodes, cut in one direction. Needs a network of the program's own: [`inside`](super::inside).
//!
//! Nodes speak to each other from the ports they listen on, so a rule on both ports is one direction of one pair.

use std::net::SocketAddr;
use std::process::Command;

/// Loses what one node sends to another.
///
/// # Panics
/// Outside a network of our own.
pub(crate) fn cut(from: SocketAddr, to: SocketAddr) {
    let (from, to) = (from.port().to_string(), to.port().to_string());
    let rule = ["rule", "add", "pref", CUTS, "ipproto", "udp", "sport", &from, "dport", &to, "blackhole"];
    assert!(ip(&rule), "a route can be closed in an own namespace");
}

/// Mends all wires.
pub(crate) fn mend() {
    // Rules that are gone already are not missed.
    while ip(&["rule", "del", "pref", CUTS]) {}
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|done| done.status.success())
}

/// Preference of the rules that cut, before the one that leads to this machine's own addresses.
const CUTS: &str = "10";
