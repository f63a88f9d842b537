//! Whether clients suffer: work that nobody waits for gives way then.
//!
//! ```text
//! latencies of a few seconds ──▶ their p99 ──▶ kept for an hour ──▶ median: what is normal
//!                                    └────────── more than twice that: high
//! ```
//! Reads and writes are told apart, because a put waits for disks and a get does not: a cluster whose clients turn from
//! one to the other is not in distress.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// How long clients of one shard wait now, against how long they usually do.
#[derive(Debug, Default)]
pub struct Pressure {
    tracks: [Track; 2],
    high_until: Instant,
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Get.
    Read,
    /// Put and delete.
    Write,
}

#[derive(Debug, Default)]
struct Track {
    slice: Histogram,
    slice_ends: Instant,
    /// The p99 of the slice before, if it had enough requests.
    last: Option<u64>,
    /// The p99s of an hour, oldest first.
    past: VecDeque<u64>,
    median: Option<u64>,
}

impl Pressure {
    /// A client was answered after so long.
    pub fn record(&mut self, now: Instant, kind: Kind, latency: Duration) {
        let track = &mut self.tracks[kind as usize];
        track.roll(now);
        track.slice.add(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Whether work that nobody waits for should give way. Once it is high, it stays so for a moment.
    pub fn is_high(&mut self, now: Instant) -> bool {
        if now < self.high_until {
            return true;
        }
        let high = self.tracks.iter_mut().any(|track| {
            track.roll(now);
            track.is_high()
        });
        if high {
            self.high_until = now + HOLD;
        }
        high
    }
}

impl Track {
    fn is_high(&self) -> bool {
        let Some(median) = self.median else { return false };
        let present = self.slice.p99().max(self.last);
        present.is_some_and(|p99| p99 > (2 * median).max(FLOOR_MICROS))
    }

    /// Ends the slice if its time has come.
    fn roll(&mut self, now: Instant) {
        if now < self.slice_ends {
            return;
        }
        self.slice_ends = now + SLICE;
        self.last = std::mem::take(&mut self.slice).p99();
        let Some(p99) = self.last else { return };
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(p99);
        if self.past.len() >= PAST_MIN {
            let mut sorted: Vec<u64> = self.past.iter().copied().collect();
            let middle = sorted.len() / 2;
            self.median = Some(*sorted.select_nth_unstable(middle).1);
        }
    }
}

/// Counts by size, four bins for each doubling.
#[derive(Debug)]
struct Histogram {
    bins: [u32; BINS],
    count: u32,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { bins: [0; BINS], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, micros: u64) {
        let bin = &mut self.bins[bin_of(micros)];
        *bin = bin.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// The upper end of the bin that holds it; `None` if there are too few to tell.
    fn p99(&self) -> Option<u64> {
        if self.count < SAMPLES_MIN {
            return None;
        }
        let mut beyond = self.count / 100;
        for (bin, &count) in self.bins.iter().enumerate().rev() {
            if count > beyond {
                return Some(end_of(bin));
            }
            beyond -= count;
        }
        None
    }
}

fn bin_of(micros: u64) -> usize {
    let micros = micros.clamp(4, (1 << 32) - 1);
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    (octave as usize - 2) * 4 + quarter as usize
}

fn end_of(bin: usize) -> u64 {
    let (octave, quarter) = (bin / 4 + 2, bin % 4);
    (5 + quarter as u64) << (octave - 2)
}

/// From 4 µs to an hour.
const BINS: usize = 120;

/// Fewer requests than this say nothing about the slowest hundredth.
const SAMPLES_MIN: u32 = 200;

const SLICE: Duration = Duration::from_secs(5);

/// An hour of slices.
const PAST_MAX: usize = 720;

/// Slices before anybody knows what is normal.
const PAST_MIN: usize = 6;

/// Below this nobody suffers, however fast it usually is.
const FLOOR_MICROS: u64 = 2_000;

/// Pausing for less would only cost.
const HOLD: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of requests, one each millisecond; every fiftieth is slow.
    fn second(pressure: &mut Pressure, at: &mut Instant, kind: Kind, slow: Duration) {
        for request in 0..1_000 {
            *at = *at + Duration::from_millis(1);
            let latency = if request % 50 == 0 { slow } else { Duration::from_micros(400) };
            pressure.record(*at, kind, latency);
        }
    }

    fn usual(pressure: &mut Pressure, at: &mut Instant) {
        for _ in 0..60 {
            second(pressure, at, Kind::Read, Duration::from_millis(3));
            assert!(!pressure.is_high(*at));
        }
    }

    #[test]
    fn more_than_twice_the_usual_is_high_and_passes() {
        let (mut pressure, mut at) = (Pressure::default(), Instant(7));
        usual(&mut pressure, &mut at);
        second(&mut pressure, &mut at, Kind::Read, Duration::from_millis(5));
        assert!(!pressure.is_high(at), "less than twice");
        // A slice remembers the seconds before; it takes a while until the slow ones are a hundredth of it.
        for _ in 0..5 {
            second(&mut pressure, &mut at, Kind::Read, Duration::from_millis(15));
        }
        assert!(pressure.is_high(at));
        for _ in 0..10 {
            second(&mut pressure, &mut at, Kind::Read, Duration::from_millis(3));
        }
        assert!(!pressure.is_high(at), "two slices later it is forgotten");
    }

    #[test]
    fn nothing_is_high_before_the_usual_is_known_nor_for_microseconds() {
        let (mut pressure, mut at) = (Pressure::default(), Instant(7));
        second(&mut pressure, &mut at, Kind::Read, Duration::from_secs(1));
        assert!(!pressure.is_high(at));
        let (mut pressure, mut at) = (Pressure::default(), Instant(7));
        for _ in 0..60 {
            second(&mut pressure, &mut at, Kind::Read, Duration::from_micros(450));
        }
        second(&mut pressure, &mut at, Kind::Read, Duration::from_micros(1_500));
        assert!(!pressure.is_high(at));
    }

    #[test]
    fn slow_writes_after_fast_reads_are_not_distress() {
        let (mut pressure, mut at) = (Pressure::default(), Instant(7));
        usual(&mut pressure, &mut at);
        for _ in 0..60 {
            second(&mut pressure, &mut at, Kind::Write, Duration::from_millis(40));
            assert!(!pressure.is_high(at));
        }
    }

    #[test]
    fn once_high_it_stays_so_for_a_moment() {
        let (mut pressure, mut at) = (Pressure::default(), Instant(7));
        usual(&mut pressure, &mut at);
        second(&mut pressure, &mut at, Kind::Read, Duration::from_millis(30));
        assert!(pressure.is_high(at));
        pressure.tracks = Default::default();
        assert!(pressure.is_high(at + HOLD / 2));
        assert!(!pressure.is_high(at + HOLD));
    }

    #[test]
    fn bins_are_in_order_and_hold_what_they_say() {
        for micros in (4..100_000).chain([u64::MAX]) {
            let bin = bin_of(micros);
            assert!(bin < BINS);
            assert!(micros < end_of(bin) || micros == u64::MAX, "{micros}");
            assert!(bin == 0 || micros >= end_of(bin - 1), "{micros}");
        }
    }
}
