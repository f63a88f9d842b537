//! When requests begin.
//!
//! ```text
//! closed loop   each client begins the next when the last is answered: how fast can it go
//! open loop     one is due every 1/rate seconds, whatever became of those before: what do users feel at this rate
//! ```
//! In a closed loop a cluster that stands still is asked nothing meanwhile, and the stall shows in one latency per client
//! (*coordinated omission*, Tene 2013). In the open loop requests that are due while all clients wait queue up, none is left
//! out, and **the latency of each counts from the moment it was due**.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::exit::{Failure, Result};

/// When requests are due, from the beginning on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    per_second: f64,
}

impl Schedule {
    /// So many requests a second, more than none.
    pub(super) fn new(per_second: f64) -> Schedule {
        Schedule { per_second }
    }

    /// When the request of this number is due; the first is 0.
    pub(super) fn due(self, request: u64) -> Duration {
        Duration::from_secs_f64(request as f64 / self.per_second)
    }

    /// How many are due until then.
    pub(super) fn due_by(self, passed: Duration) -> u64 {
        (passed.as_secs_f64() * self.per_second) as u64 + 1
    }
}

/// What came of the schedule within the measured time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Punctuality {
    /// Began more than [`LATE`] after they were due, as all clients had a request under way or this process had no time.
    pub(super) late: u64,
    pub(super) begun: u64,
    /// The longest that one waited for its beginning.
    pub(super) delay_max: Duration,
}

impl Punctuality {
    /// A request begins so long after it was due.
    pub(super) fn begin(&mut self, delay: Duration) {
        self.begun += 1;
        self.late += u64::from(delay > LATE);
        self.delay_max = self.delay_max.max(delay);
    }
}

/// Lets requests of an open loop begin when they are due. A thread of its own keeps the time: the runtime's timer
/// counts in milliseconds, and would add one to every latency.
pub(super) struct Pacer {
    schedule: Schedule,
    began: Instant,
    /// A permit for each request that is due and has not begun.
    due: Arc<Semaphore>,
    next: std::cell::Cell<u64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// From now on.
    pub(super) fn start(per_second: f64) -> Result<Pacer> {
        let schedule = Schedule::new(per_second);
        let (due, ended, began) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)), Instant::now());
        let thread = std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn({
                let (due, ended) = (Arc::clone(&due), Arc::clone(&ended));
                move || keep_time(schedule, began, &due, &ended)
            })
            .map_err(|error| Failure::failed(format_args!("cannot start a thread that keeps the time: {error}")))?;
        Ok(Pacer { schedule, began, due, next: std::cell::Cell::new(0), ended, thread: Some(thread) })
    }

    /// When the next request was due, as soon as it is; `None` once the load has ended.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let request = self.next.get();
        self.next.set(request + 1);
        Some(self.began + self.schedule.due(request))
    }

    /// When the first was due.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How many are due until then.
    pub(super) fn due_by(&self, moment: Instant) -> u64 {
        self.schedule.due_by(moment.saturating_duration_since(self.began))
    }

    /// No more requests: clients that wait for one hear of it.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.due.close();
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep_time(schedule: Schedule, began: Instant, due: &Semaphore, ended: &AtomicBool) {
    let mut released = 0;
    while !ended.load(Ordering::Relaxed) {
        let now_due = schedule.due_by(began.elapsed());
        // More at a time than memory has room for is no schedule that could be kept.
        due.add_permits(usize::try_from(now_due - released).unwrap_or(usize::MAX).min(PERMITS_MAX));
        released = now_due;
        let left = schedule.due(released).saturating_sub(began.elapsed());
        std::thread::park_timeout(left.min(LOOK_UP));
    }
}

/// Beyond what a scheduler takes for a wake-up on a machine with something else to do.
const LATE: Duration = Duration::from_millis(1);

/// How often the thread looks up even if nothing is due.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Far below what a semaphore counts to, even if this many came with every look.
const PERMITS_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each request in a millisecond, but stands still for a second from the second second on. Latencies of all requests
    /// by when they were due, in milliseconds, and what became of the schedule.
    fn simulated(clients: usize, per_second: f64, seconds: u64) -> (Vec<(Duration, Duration)>, Punctuality) {
        let schedule = Schedule::new(per_second);
        let (stall, over) = (Duration::from_secs(2), Duration::from_secs(3));
        let answered = |begun: Duration| {
            let done = begun + Duration::from_millis(1);
            if done > stall && begun < over { over + Duration::from_millis(1) } else { done }
        };
        let mut free = vec![Duration::ZERO; clients];
        let mut latencies = Vec::new();
        let mut punctuality = Punctuality::default();
        let due_by_end = schedule.due_by(Duration::from_secs(seconds)) - 1;
        for request in 0..due_by_end {
            let due = schedule.due(request);
            // The client that is free first takes it, when it is due and not before.
            let first = free.iter_mut().min().expect("there are clients");
            let begun = due.max(*first);
            *first = answered(begun);
            punctuality.begin(begun - due);
            latencies.push((due, *first - due));
        }
        (latencies, punctuality)
    }

    #[test]
    fn a_stall_of_one_second_is_in_the_latencies_of_all_requests_that_were_due_meanwhile() {
        let (latencies, punctuality) = simulated(8, 1000.0, 10);
        assert_eq!((latencies.len(), punctuality.begun), (10_000, 10_000), "none is left out");
        let (stall, over) = (Duration::from_secs(2), Duration::from_secs(3));
        let meanwhile: Vec<_> = latencies.iter().filter(|(due, _)| (stall..over).contains(due)).collect();
        assert_eq!(meanwhile.len(), 1000);
        for (due, latency) in meanwhile {
            assert!(*latency >= over - *due, "due at {due:?}, took {latency:?}");
        }
        // All eight clients wait in the stall, so nearly all that was due in it began late, and some after it.
        assert!(punctuality.late > 950 && punctuality.late < 1300, "{punctuality:?}");
        assert!(punctuality.delay_max > Duration::from_millis(980), "{punctuality:?}");
        let usual = latencies.iter().filter(|(_, latency)| *latency <= Duration::from_millis(1)).count();
        assert!(usual > 8_500, "and those before and long after it are as ever: {usual}");
        // With clients enough nothing is late, and the latencies are the same as the server's.
        let (latencies, punctuality) = simulated(2000, 1000.0, 10);
        assert_eq!(punctuality.late, 0);
        let slow = latencies.iter().filter(|(_, latency)| *latency > Duration::from_millis(500)).count();
        assert!(slow.abs_diff(500) < 3, "{slow}");
    }

    #[test]
    fn requests_are_due_evenly_from_the_beginning_on() {
        let schedule = Schedule::new(250.0);
        assert_eq!([0, 1, 250].map(|request| schedule.due(request).as_millis()), [0, 4, 1000]);
        assert_eq!([0, 3, 5, 1001].map(|passed| schedule.due_by(Duration::from_millis(passed))), [1, 1, 2, 251]);
        let rare = Schedule::new(0.1);
        assert_eq!((rare.due(1), rare.due_by(Duration::from_secs(19))), (Duration::from_secs(10), 2));
    }

    #[tokio::test]
    async fn all_that_is_due_begins_and_the_end_is_heard() {
        let pacer = Pacer::start(10_000.0).expect("a thread");
        let mut last = pacer.next().await.expect("the first is due at once");
        for _ in 0..50 {
            let due = pacer.next().await.expect("it goes on");
            assert!(due > last && due <= Instant::now(), "in order, and not before they are due");
            last = due;
        }
        assert!(pacer.due_by(pacer.began() + Duration::from_millis(1001)).abs_diff(10_011) <= 1);
        pacer.end();
        assert_eq!(pacer.next().await, None);
    }
}
