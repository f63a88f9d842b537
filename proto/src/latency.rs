//! How long something usually takes, from the times that it took.
//!
//! The estimate is the one of TCP's retransmission timer (Jacobson 1988, RFC 6298): a smoothed mean of the times measured, and
//! a smoothed deviation from it.
//!
//! ```text
//! deviation ← 3/4 deviation + 1/4 |mean - time|            usual time = mean + 4 deviations
//! mean      ← 7/8 mean      + 1/8 time
//! ```
//! A client has one for each shard of a node, a node one for each of its peers. What follows from it, and what is done before
//! anything is known, is theirs.

use std::time::Duration;

/// The mean of some times, and their deviation from it. There is none before the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LatencyEstimate {
    mean: Duration,
    deviation: Duration,
}

impl LatencyEstimate {
    /// After one time.
    pub fn first(time: Duration) -> LatencyEstimate {
        LatencyEstimate { mean: time, deviation: time / 2 }
    }

    /// It took this long.
    pub fn observe(&mut self, time: Duration) {
        // The deviation first: it is from the mean as it was before this time.
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(time)) / 4;
        self.mean = (self.mean * 7 + time) / 8;
    }

    /// How long it takes on average; later times count more.
    pub fn mean(&self) -> Duration {
        self.mean
    }

    /// A time that is seldom exceeded: the mean and four deviations.
    pub fn usual(&self) -> Duration {
        self.mean + self.deviation * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_usual_time_is_the_mean_and_four_deviations() {
        let mut estimate = LatencyEstimate::first(MS * 200);
        assert_eq!((estimate.mean(), estimate.usual()), (MS * 200, MS * 600), "RFC 6298, 2.2");
        // 2.3: the deviation is 3/4 * 100 + 1/4 * 80, the mean 7/8 * 200 + 1/8 * 120.
        estimate.observe(MS * 120);
        assert_eq!((estimate.mean(), estimate.usual()), (MS * 190, MS * 570));
    }

    #[test]
    fn it_follows_what_becomes_faster_and_what_becomes_slower() {
        let mut estimate = LatencyEstimate::first(MS * 2);
        (0..50).for_each(|_| estimate.observe(MS * 300));
        assert!((MS * 300..MS * 400).contains(&estimate.usual()), "{estimate:?}");
        (0..50).for_each(|_| estimate.observe(MS * 2));
        assert!((MS * 2..MS * 20).contains(&estimate.usual()), "{estimate:?}");
    }
}
