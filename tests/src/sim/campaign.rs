//! Many seeds, on as many threads as are wanted. Seeds share nothing, and a summary does not depend on the order in which
//! they end: what comes out is the same with one thread and with ten.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use driftless_node::planted::Bug;
use rustix::time::{ClockId, clock_gettime};

use super::run::{Keep, Outcome, run_planted};
use super::summary::Summary;

/// Which seeds.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: NonZeroUsize,
    /// A mistake that the engines make.
    pub bug: Option<Bug>,
}

/// What it took so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Time on processors, all threads together: what is left of it when others use the machine too.
    pub cpu: Duration,
}

impl Campaign {
    /// Runs all seeds. `watch` is called now and then, and after each seed that broke a promise with its outcome.
    pub fn run(&self, mut watch: impl FnMut(&Summary, Cost, Option<&Outcome>)) -> (Summary, Cost) {
        let (began, cpu_before) = (Instant::now(), cpu_time());
        let cost = || Cost { elapsed: began.elapsed(), cpu: cpu_time().saturating_sub(cpu_before) };
        let mut summary = Summary::default();
        let next = AtomicU64::new(self.first);
        thread::scope(|scope| {
            let (ended, outcomes) = mpsc::sync_channel(OUTCOMES_MAX);
            for _ in 0..self.jobs.get() {
                let (ended, next) = (ended.clone(), &next);
                scope.spawn(move || {
                    while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < self.end())
                        && ended.send(run_planted(seed, Keep::Nothing, self.bug)).is_ok()
                    {}
                });
            }
            drop(ended);
            let mut shown = Instant::now();
            loop {
                match outcomes.recv_timeout(WATCH_INTERVAL) {
                    Ok(outcome) => {
                        summary.take_in(&outcome);
                        if !outcome.violations.is_empty() {
                            watch(&summary, cost(), Some(&outcome));
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if shown.elapsed() >= WATCH_INTERVAL {
                    shown = Instant::now();
                    watch(&summary, cost(), None);
                }
            }
        });
        (summary, cost())
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.seeds)
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Outcomes that wait to be taken in.
const OUTCOMES_MAX: usize = 1_000;
