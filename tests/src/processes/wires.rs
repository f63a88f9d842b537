//! Wires between nodes, cut in one direction. Needs a network of the program's own: [`inside`](super::inside).
//!
//! Nodes speak to each other from the ports they listen on, so a rule on both ports is one direction of one pair.

use std::net::SocketAddr;
use std::process::Command;

/// Loses what one node sends to another. A wire that is cut already stays cut: faults overlap.
///
/// # Panics
/// Outside a network of our own.
pub(crate) fn cut(from: SocketAddr, to: SocketAddr) {
    let (from, to) = (from.port().to_string(), to.port().to_string());
    let rule = ["rule", "add", "pref", CUTS, "ipproto", "udp", "sport", &from, "dport", &to, "blackhole"];
    match ip(&rule) {
        Err(reason) if reason.contains("File exists") => {}
        done => done.expect("a wire can be cut in an own namespace"),
    }
}

/// Mends all wires.
pub(crate) fn mend() {
    // Rules that are gone already are not missed.
    while ip(&["rule", "del", "pref", CUTS]).is_ok() {}
}

/// Runs `ip`; if that fails, with what it said.
fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|error| format!("ip does not run: {error}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
}

/// Preference of the rules that cut, before the one that leads to this machine's own addresses.
const CUTS: &str = "10";

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::processes::{Inside, inside};

    #[allow(clippy::print_stdout, reason = "says why it was skipped")]
    #[test]
    fn a_wire_is_cut_once_and_mended_once_by_faults_that_overlap() {
        const NAME: &str = "processes::wires::tests::a_wire_is_cut_once_and_mended_once_by_faults_that_overlap";
        match inside(&[NAME, "--exact", "--nocapture"]) {
            Inside::Yes => overlap(),
            Inside::Ran(succeeded) => assert!(succeeded, "failed in its namespace, see above"),
            Inside::Impossible(reason) => println!("SKIPPED: {reason}"),
        }
    }

    fn overlap() {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket
        };
        let (one, other) = (socket(), socket());
        let (from, to) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let arrives = |word: &[u8]| {
            // Whoever sends into a cut wire may be told so at once.
            let _ = one.send_to(word, to);
            other.recv(&mut [0; 8]).is_ok()
        };
        assert!(arrives(b"before"));
        cut(from, to);
        cut(from, to);
        assert!(!arrives(b"cut"));
        mend();
        assert!(arrives(b"mended"));
    }
}
