//! What is stored: keys by number, values that do not compress, and random numbers that are the same in every run.

use bytes::Bytes;

/// As long as the prefix, a dash and eight digits; the same for every system.
pub(crate) fn key(number: u64) -> String {
    format!("compare-{number:08}")
}

/// Random bytes that values are cut from, so that making one costs nothing, no two in a row are equal, and none compresses.
#[derive(Clone)]
pub(crate) struct Values {
    noise: Bytes,
    size: usize,
}

impl Values {
    pub(crate) fn new(size: usize) -> Values {
        let mut random = Random::new(1);
        Values { noise: (0..size + NOISE_BYTES).map(|_| random.next() as u8).collect(), size }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn next(&self, random: &mut Random) -> Bytes {
        let begin = random.below(NOISE_BYTES as u64) as usize;
        self.noise.slice(begin..begin + self.size)
    }
}

/// The key beside `drawn` that is this client's, so that no two clients write one key at a time. With more clients than keys some
/// share one.
pub(crate) fn owned(drawn: u64, client: u64, clients: u64, keys: u64) -> u64 {
    let own = drawn - drawn % clients + client;
    if own < keys {
        own
    } else if own >= clients {
        own - clients
    } else {
        client % keys
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(GOLDEN))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below a bound that is small beside 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Where values begin differs by less than this.
const NOISE_BYTES: usize = 64 << 10;

/// 2^64 divided by the golden ratio, as the paper has it.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clients_write_the_same_key() {
        for (clients, keys) in [(3, 10), (4, 4), (64, 1000), (1, 7)] {
            for client in 0..clients {
                for key in 0..keys {
                    let own = owned(key, client, clients, keys);
                    assert!(own < keys && own % clients == client, "{key} of client {client} of {clients}: {own}");
                }
            }
        }
        assert_eq!((owned(1, 5, 8, 3), owned(2, 0, 8, 3)), (2, 0), "more clients than keys share them");
    }

    #[test]
    fn values_have_the_size_asked_for_and_differ() {
        let values = Values::new(1024);
        let mut random = Random::new(3);
        let (one, other) = (values.next(&mut random), values.next(&mut random));
        assert_eq!((one.len(), other.len(), values.size()), (1024, 1024, 1024));
        assert_ne!(one, other);
    }
}
