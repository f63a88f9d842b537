//! Who has which port, by the system's tables of sockets: `/proc/net/{udp,tcp}{,6}`.
//!
//! ```text
//!   sl  local_address rem_address   st …
//!    0: 0100007F:1CE8 00000000:0000 0A …      127.0.0.1:7400, listens
//! ```
//! An address is written in words of four bytes, each as this machine reads them; a port as people do.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// All of them.
    Udp,
    /// Those that listen.
    Tcp,
}

/// Whether a socket has this address, or all of this machine with its port; `None` if the system does not say.
pub(super) fn is_taken(kind: Kind, address: SocketAddr) -> Option<bool> {
    let files = match kind {
        Kind::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Kind::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let tables = files.map(|file| match fs::read_to_string(file) {
        Ok(table) => Some(table),
        // A system without IPv6 has no table of it.
        Err(error) if error.kind() == ErrorKind::NotFound && file.ends_with('6') => Some(String::new()),
        Err(_) => None,
    });
    let [four, six] = tables;
    Some(stands_in(&four?, kind, address) || stands_in(&six?, kind, address))
}

fn stands_in(table: &str, kind: Kind, address: SocketAddr) -> bool {
    table.lines().skip(1).filter_map(|line| socket(line, kind)).any(|found| {
        let (one, other) = (found.ip().to_canonical(), address.ip().to_canonical());
        found.port() == address.port() && (one == other || one.is_unspecified() || other.is_unspecified())
    })
}

fn socket(line: &str, kind: Kind) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (ip, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    if kind == Kind::Tcp && state != LISTENS {
        return None;
    }
    Some(SocketAddr::new(parsed(ip)?, u16::from_str_radix(port, 16).ok()?))
}

fn parsed(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(words.iter().flatten()).for_each(|(byte, found)| *byte = *found);
            Some(IpAddr::from(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// The state of a TCP socket that does.
const LISTENS: &str = "0A";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn sockets_of_this_process_stand_in_the_tables() {
        if !std::path::Path::new("/proc/net/udp").exists() {
            writeln!(std::io::stderr(), "skipped: there is no /proc/net here").expect("can be written");
            return;
        }
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
        let tcp = TcpListener::bind("0.0.0.0:0").expect("a port is free");
        let address = udp.local_addr().expect("is bound");
        assert_eq!(is_taken(Kind::Udp, address), Some(true));
        let any_address = SocketAddr::from(([127, 0, 0, 1], tcp.local_addr().expect("is bound").port()));
        assert_eq!(is_taken(Kind::Tcp, any_address), Some(true), "who has all addresses has this one");
        if let Ok(six) = UdpSocket::bind("[::1]:0") {
            assert_eq!(is_taken(Kind::Udp, six.local_addr().expect("is bound")), Some(true));
        }
        drop(tcp);
        assert_eq!(is_taken(Kind::Udp, SocketAddr::from(([127, 0, 0, 2], address.port()))), Some(false));
    }

    #[test]
    fn a_connection_takes_no_port_and_a_line_that_is_none_is_passed_over() {
        let (port, here) = ("1CE8", u32::from_ne_bytes([127, 0, 0, 1]));
        let line = |state: &str| {
            format!("sl local\n   0: {here:08X}:{port} 00000000:0000 {state} 0\nnonsense\n 1: 7F:é 0 0A\n")
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 7400));
        assert!(stands_in(&line("0A"), Kind::Tcp, address) && !stands_in(&line("01"), Kind::Tcp, address));
        assert!(stands_in(&line("07"), Kind::Udp, address));
    }
}
