//! From counters, which every node keeps, to rates and times: what was answered in each interval, of the last minutes.
//!
//! Rates are sums of what nodes did in their own seconds, by their own clocks. A node that has started again begins at nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use driftless_client::{Answered, Figures};

/// All intervals, and what nodes have said last.
#[derive(Default)]
pub(super) struct Load {
    before: BTreeMap<String, Figures>,
    open: BTreeMap<String, Done>,
    points: VecDeque<Point>,
}

/// One interval.
struct Point {
    /// When it ended.
    at: Duration,
    nodes: BTreeMap<String, Done>,
}

/// What one node did between two of its answers.
#[derive(Clone, Default)]
struct Done {
    seconds: f64,
    operations: [Counts; OPERATIONS.len()],
    leaves_scrubbed: u64,
    reads_found: u64,
    siblings_read: u64,
    writes_discarded: u64,
}

/// Requests answered.
#[derive(Clone, Default)]
struct Counts {
    ok: u64,
    refused: u64,
    unknown: u64,
    took: Vec<u64>,
}

/// What is done a second, and how long it takes.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Rates {
    /// Of each of [`OPERATIONS`].
    pub(super) operations: [Rate; OPERATIONS.len()],
    /// Pieces that the scrub has looked at.
    pub(super) leaves_scrubbed: f64,
    /// Writes discarded because the last writer wins.
    pub(super) writes_discarded: f64,
    /// Of each read that found something; `None` if none did.
    pub(super) siblings_per_read: Option<f64>,
}

/// Of requests of one kind, or of all.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Rate {
    pub(super) ok: f64,
    pub(super) refused: f64,
    pub(super) unknown: f64,
    took: Vec<u64>,
}

/// A place in the history.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Past {
    /// Requests a second.
    pub(super) rate: f64,
    /// The time within which 99 of 100 were answered; `None` if there were none.
    pub(super) p99: Option<Duration>,
}

/// What is counted; nobody watches how often nodes are asked for their status.
pub(super) const OPERATIONS: [&str; 4] = ["get", "put", "delete", "scan"];

impl Load {
    /// A node has said what it has counted so far.
    pub(super) fn handle_figures(&mut self, node: &str, figures: &Figures) {
        let Some(before) = self.before.insert(node.to_owned(), figures.clone()) else { return };
        let (then, now) = (before.status.uptime_ms, figures.status.uptime_ms);
        let done = match now.cmp(&then) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Less => Done::between(None, figures),
            std::cmp::Ordering::Greater => Done::between(Some(&before), figures),
        };
        self.open.entry(node.to_owned()).or_default().add(&done);
    }

    /// An interval has ended.
    pub(super) fn handle_interval(&mut self, now: Duration) {
        let nodes = std::mem::take(&mut self.open);
        self.points.push_back(Point { at: now, nodes });
        while self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// Nobody was asked for a while: the next answers say nothing of the present.
    pub(super) fn forget_last(&mut self) {
        self.before.clear();
        self.open.clear();
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: &str) {
        self.before.remove(node);
    }

    /// Of the last seconds, of one node or of all.
    pub(super) fn recent(&self, node: Option<&str>) -> Rates {
        let Some(last) = self.points.back() else { return Rates::default() };
        let points = || self.points.iter().filter(|point| last.at.saturating_sub(point.at) < RECENT);
        let mut of_each: BTreeMap<&str, Done> = BTreeMap::new();
        for (name, done) in points().flat_map(|point| &point.nodes) {
            if node.is_none_or(|node| node == name) {
                of_each.entry(name).or_default().add(done);
            }
        }
        Rates::of(of_each.values())
    }

    /// All that is known, the oldest first; `None` where no node has answered.
    pub(super) fn history(&self) -> impl Iterator<Item = Option<Past>> {
        self.points.iter().map(|point| {
            let all = (!point.nodes.is_empty()).then(|| Rates::of(point.nodes.values()).all())?;
            Some(Past { rate: all.total(), p99: all.within(0.99) })
        })
    }
}

impl Done {
    fn between(before: Option<&Figures>, now: &Figures) -> Done {
        let since = |of: fn(&Figures) -> u64| of(now).saturating_sub(before.map_or(0, of));
        let counts = |operation: &str| {
            let of = |figures: &Figures| {
                figures.requests.iter().find(|one| one.operation == operation).map(Counts::of).unwrap_or_default()
            };
            of(now).since(&before.map(of).unwrap_or_default())
        };
        Done {
            seconds: since(|figures| figures.status.uptime_ms) as f64 / 1000.0,
            operations: OPERATIONS.map(counts),
            leaves_scrubbed: since(|figures| figures.leaves_scrubbed),
            reads_found: since(|figures| figures.reads_found),
            siblings_read: since(|figures| figures.siblings_read),
            writes_discarded: since(|figures| figures.writes_discarded),
        }
    }

    fn add(&mut self, other: &Done) {
        self.seconds += other.seconds;
        self.operations.iter_mut().zip(&other.operations).for_each(|(sum, one)| sum.add(one));
        self.leaves_scrubbed += other.leaves_scrubbed;
        self.reads_found += other.reads_found;
        self.siblings_read += other.siblings_read;
        self.writes_discarded += other.writes_discarded;
    }
}

impl Counts {
    fn of(answered: &Answered) -> Counts {
        let Answered { operation: _, ok, refused, unknown, took } = answered;
        Counts { ok: *ok, refused: *refused, unknown: *unknown, took: took.clone() }
    }

    fn since(mut self, before: &Counts) -> Counts {
        self.ok = self.ok.saturating_sub(before.ok);
        self.refused = self.refused.saturating_sub(before.refused);
        self.unknown = self.unknown.saturating_sub(before.unknown);
        self.took.iter_mut().zip(&before.took).for_each(|(now, then)| *now = now.saturating_sub(*then));
        self
    }

    fn add(&mut self, other: &Counts) {
        self.ok += other.ok;
        self.refused += other.refused;
        self.unknown += other.unknown;
        add(&mut self.took, &other.took);
    }
}

impl Rates {
    fn of<'a>(nodes: impl Iterator<Item = &'a Done>) -> Rates {
        let mut rates = Rates::default();
        let (mut reads, mut siblings) = (0, 0);
        for done in nodes.filter(|done| done.seconds > 0.0) {
            let a_second = |count: u64| count as f64 / done.seconds;
            for (rate, counts) in rates.operations.iter_mut().zip(&done.operations) {
                rate.ok += a_second(counts.ok);
                rate.refused += a_second(counts.refused);
                rate.unknown += a_second(counts.unknown);
                add(&mut rate.took, &counts.took);
            }
            rates.leaves_scrubbed += a_second(done.leaves_scrubbed);
            rates.writes_discarded += a_second(done.writes_discarded);
            reads += done.reads_found;
            siblings += done.siblings_read;
        }
        rates.siblings_per_read = (reads > 0).then(|| siblings as f64 / reads as f64);
        rates
    }

    /// Of all operations together.
    pub(super) fn all(&self) -> Rate {
        let mut sum = Rate::default();
        for one in &self.operations {
            sum.ok += one.ok;
            sum.refused += one.refused;
            sum.unknown += one.unknown;
            add(&mut sum.took, &one.took);
        }
        sum
    }
}

impl Rate {
    /// Whatever became of them.
    pub(super) fn total(&self) -> f64 {
        self.ok + self.refused + self.unknown
    }

    /// The time within which this part of all was answered, as well as the buckets tell; `None` if there were none.
    pub(super) fn within(&self, part: f64) -> Option<Duration> {
        let mut left = self.took.iter().sum::<u64>() as f64 * part;
        for (at, &count) in self.took.iter().enumerate().filter(|(_, count)| **count > 0) {
            if left <= count as f64 {
                let upper = SHORTEST.as_secs_f64() * 2_f64.powi(i32::try_from(at).unwrap_or(i32::MAX));
                let lower = if at == 0 { 0.0 } else { upper / 2.0 };
                return Duration::try_from_secs_f64(lower + (upper - lower) * left / count as f64).ok();
            }
            left -= count as f64;
        }
        None
    }
}

fn add(sums: &mut Vec<u64>, counts: &[u64]) {
    if sums.len() < counts.len() {
        sums.resize(counts.len(), 0);
    }
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// The upper end of the first bucket of [`Answered::took`]; those that follow double.
const SHORTEST: Duration = Duration::from_micros(50);

/// What is shown as the present.
const RECENT: Duration = Duration::from_secs(10);

/// Wider than that is hardly any terminal.
const POINTS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::watch::tests::figures;

    fn counted(uptime_ms: u64, puts: u64, took: &[u64]) -> Figures {
        let mut figures = figures("a");
        figures.status.uptime_ms = uptime_ms;
        (figures.requests[1].ok, figures.requests[1].took) = (puts, took.to_vec());
        figures
    }

    #[test]
    fn rates_are_by_the_nodes_own_seconds() {
        let mut load = Load::default();
        load.handle_figures("a", &counted(1_000, 100, &[100]));
        load.handle_figures("b", &counted(9_000, 100, &[100]));
        load.handle_interval(Duration::from_secs(1));
        assert_eq!(load.history().collect::<Vec<_>>(), [None], "of one answer follows no rate");
        load.handle_figures("a", &counted(3_000, 300, &[100, 200]));
        load.handle_figures("b", &counted(10_000, 150, &[150]));
        load.handle_interval(Duration::from_secs(2));
        assert_eq!(load.recent(Some("a")).all().total(), 100.0);
        assert_eq!(load.recent(None).operations[1].ok, 150.0);
        let past = load.history().last().flatten().expect("was measured");
        assert_eq!((past.rate, past.p99), (150.0, load.recent(None).all().within(0.99)));
        let p50 = load.recent(Some("a")).all().within(0.5).expect("there were some");
        assert_eq!(p50, Duration::from_micros(75), "between 50 and 100");
    }

    #[test]
    fn a_node_that_has_started_again_begins_at_nothing() {
        let mut load = Load::default();
        load.handle_figures("a", &counted(60_000, 1_000_000, &[1_000_000]));
        load.handle_figures("a", &counted(2_000, 10, &[10]));
        load.handle_interval(Duration::from_secs(1));
        assert_eq!(load.recent(None).all().total(), 5.0);
    }

    #[test]
    fn what_is_long_ago_is_not_the_present() {
        let mut load = Load::default();
        load.handle_figures("a", &counted(1_000, 0, &[]));
        load.handle_figures("a", &counted(2_000, 70, &[70]));
        load.handle_interval(Duration::from_secs(1));
        for second in 2..=20 {
            load.handle_figures("a", &counted(1_000 + second * 1_000, 70, &[70]));
            load.handle_interval(Duration::from_secs(second));
        }
        assert_eq!((load.recent(None).all().total(), load.recent(None).all().within(0.99)), (0.0, None));
        assert_eq!(load.history().flatten().map(|past| past.rate).fold(0.0, f64::max), 70.0);
    }
}
