//! What this machine gives a socket of the kind that shards have, for `driftless doctor`.

use std::io;
use std::net::SocketAddr;

use quinn::udp::UdpSocketState;

use super::shard::{SOCKET_BUFFER, bind};

/// What a socket has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpProbe {
    /// Bytes of buffer that a shard asks for, each way.
    pub asked: usize,
    /// What is granted to receive.
    pub receive: usize,
    /// What is granted to send.
    pub send: usize,
    /// Packets that one call can send; 1 without segmentation offload.
    pub sent_at_once: usize,
    /// Packets that one call can receive; 1 without.
    pub received_at_once: usize,
}

/// Opens a socket as a shard would, looks at it, and closes it.
///
/// # Errors
/// What the system said: the address is in use, or is not of this machine.
pub fn probe(address: SocketAddr) -> io::Result<UdpProbe> {
    let socket = bind(address)?;
    let state = UdpSocketState::new((&socket).into())?;
    // Linux tells twice of what it grants, for what it keeps beside the bytes.
    let shown = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok(UdpProbe {
        asked: SOCKET_BUFFER,
        receive: state.recv_buffer_size((&socket).into())? / shown,
        send: state.send_buffer_size((&socket).into())? / shown,
        sent_at_once: state.max_gso_segments(),
        received_at_once: state.gro_segments(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_tells_what_it_has_got() {
        let found = probe(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback is there");
        assert!(found.receive > 0 && found.send > 0 && found.sent_at_once >= 1, "{found:?}");
        assert!(found.receive <= found.asked, "no more than was asked for: {found:?}");
    }
}
