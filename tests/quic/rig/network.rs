//! What the network does to packets, on top of turmoil's latency and partitions; and the record of what was sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftless_proto::frame::PACKET_MAX;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Shared by all sockets of a run.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    rng: StdRng,
    /// Bytes of the longest packet that any way takes.
    longest: usize,
    everywhere: Faults,
    /// From, to.
    ways: BTreeMap<(IpAddr, IpAddr), Faults>,
    sent: Vec<Packet>,
    done: Counts,
}

/// Faults of one direction, each the share of packets that it hits.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Faults {
    /// Lost.
    pub(crate) loss: f64,
    /// Sent twice.
    pub(crate) duplication: f64,
    /// One bit is wrong.
    pub(crate) flips: f64,
}

/// A packet as a socket sent it, whatever became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    pub(crate) at: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) length: usize,
}

/// How often each fault has hit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
    pub(crate) flipped: usize,
}

impl Network {
    pub(crate) fn new(seed: u64, longest: Option<usize>) -> Network {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00);
        // QUIC's least, Ethernet's, and what nodes would like.
        let drawn = [1_200, 1_472, usize::from(PACKET_MAX)][rng.random_range(0..3)];
        let longest = longest.unwrap_or(drawn);
        Network(Arc::new(Mutex::new(State {
            rng,
            longest,
            everywhere: Faults::default(),
            ways: BTreeMap::new(),
            sent: Vec::new(),
            done: Counts::default(),
        })))
    }

    /// Faults of all directions that have none of their own.
    pub(crate) fn everywhere(&self, faults: Faults) {
        self.lock().everywhere = faults;
    }

    /// Nothing gets from one host to the other; the way back stays as it is.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().ways.insert((from, to), Faults { loss: 1.0, ..Faults::default() });
    }

    /// Faults of one direction are as everywhere.
    pub(crate) fn mend(&self, from: IpAddr, to: IpAddr) {
        self.lock().ways.remove(&(from, to));
    }

    /// What every socket has sent so far.
    pub(crate) fn sent(&self) -> Vec<Packet> {
        self.lock().sent.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().done
    }

    /// What arrives of a packet: nothing, it, a damaged one, or two.
    pub(crate) fn pass(&self, packet: Packet, contents: &[u8]) -> Vec<Vec<u8>> {
        let mut state = self.lock();
        let State { rng, longest, everywhere, ways, sent, done } = &mut *state;
        sent.push(packet);
        if packet.length > *longest {
            return Vec::new();
        }
        let faults = ways.get(&(packet.from.ip(), packet.to.ip())).unwrap_or(everywhere);
        if rng.random_bool(faults.loss) {
            done.lost += 1;
            return Vec::new();
        }
        let mut arriving = contents.to_vec();
        if rng.random_bool(faults.flips) {
            done.flipped += 1;
            let bit = rng.random_range(0..arriving.len() * 8);
            arriving[bit / 8] ^= 1 << (bit % 8);
        }
        if rng.random_bool(faults.duplication) {
            done.duplicated += 1;
            return vec![arriving.clone(), arriving];
        }
        vec![arriving]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
