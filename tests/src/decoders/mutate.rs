//! What a damaged input may look like, from a seeded generator: without a fuzzer the seeds are tried with these.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Where the damaged copies of one input come from.
#[derive(Debug)]
pub struct Mutations<'a> {
    seed: &'a [u8],
    /// Other inputs of the same decoder.
    others: &'a [Vec<u8>],
    rng: StdRng,
}

impl<'a> Mutations<'a> {
    /// The copies of one input, the same ones every time.
    pub fn of(seed: &'a [u8], others: &'a [Vec<u8>], number: u64) -> Mutations<'a> {
        Mutations { seed, others, rng: StdRng::seed_from_u64(number) }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    /// One to three things that happen to bytes; endless.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seed.to_vec();
        for _ in 0..self.rng.random_range(1..=3) {
            mutate(&mut bytes, self.others, &mut self.rng);
        }
        Some(bytes)
    }
}

fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=bytes.len());
    let to = rng.random_range(at..=bytes.len().min(at + 16));
    match rng.random_range(0..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let copy = bytes[at..to].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            // The head of one input, the tail of another.
            let other = others.choose(rng).map_or(&[][..], Vec::as_slice);
            let from = rng.random_range(0..=other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        // Lengths and counters at their ends, in the ways in which they are written.
        6 => drop(bytes.splice(at..to.min(at + 1), EXTREMES.choose(rng).copied().unwrap_or_default().iter().copied())),
        7 => {
            let end = bytes.len().min(at + 4);
            let value = [0, 1, 0xffff, u32::MAX / 2, u32::MAX - 1, u32::MAX][rng.random_range(0..6)];
            bytes.splice(at..end, value.to_le_bytes());
        }
        _ => bytes.extend(std::iter::repeat_n(rng.random::<u8>(), rng.random_range(1..64))),
    }
}

/// Varints of 0, 127, 128, 2^16, 2^32 − 1, 2^64 − 1, one too long, and 2^128 − 1.
const EXTREMES: [&[u8]; 8] = [
    &[0],
    &[0x7f],
    &[0x80, 1],
    &[0x80, 0x80, 4],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0xff; 20],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3],
];
