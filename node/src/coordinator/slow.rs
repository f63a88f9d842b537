//! The log of slow requests: what `--explain` would have said of each of them, at its coordinator, in a line.
//!
//! Nothing is put into words before a request is known to have been slow, and no more lines are written than a flood of them leaves room
//! for in a log that others read.

use std::fmt::Write;
use std::time::Duration;

use driftless_proto::client::{Class, Response};
use driftless_proto::observed::{Explanation, Fate, Made, Phase, ReplicaPart};

use crate::log_lines::LogLines;
use crate::metrics::{Operation, OperationLabels, OutcomeLabel};
use crate::shard::Shard;
use crate::time::Now;

use super::origin::Origin;

/// What this node has to do with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Coordinates,
    PassesOn,
}

/// A line that may be written.
pub(super) struct Line {
    operation: Operation,
    took: Duration,
    left_out: u64,
}

/// One per shard.
#[derive(Default)]
pub(super) struct SlowLog {
    lines: LogLines,
}

impl SlowLog {
    /// Counts a request that is answered now, if it was slow. What to write it down with, if there is room for a line.
    pub(super) fn count(
        &mut self,
        shard: &Shard,
        now: Now,
        origin: &Origin,
        who: Who,
        response: &Response,
    ) -> Option<Line> {
        let least = shard.limits.slow?;
        let took = now.instant.since(origin.arrived);
        // Who coordinated it knows how long it took there. What it waited here, and that it failed if nobody coordinated it, only this node knows.
        let is_known_here = match who {
            Who::Coordinates => true,
            Who::PassesOn => {
                OutcomeLabel::of(response) != OutcomeLabel::Ok || origin.since.since(origin.arrived) >= least
            }
        };
        if took < least || !is_known_here {
            return None;
        }
        let operation = Operation::of(&origin.request);
        if operation == Operation::Other {
            return None;
        }
        shard.metrics.slow_requests.get_or_create_owned(&OperationLabels { operation }).inc();
        let left_out = self.lines.take(now.instant, LINES_MAX, SPAN)?;
        Some(Line { operation, took, left_out })
    }
}

impl Line {
    /// Writes it.
    pub(super) fn write(&self, shard: &Shard, origin: &Origin, response: &Response, explanation: &Explanation) {
        let Line { operation, took, left_out } = *self;
        let bucket = origin.request.bucket().and_then(|bucket| shard.topology.bucket(bucket));
        let (mut token, mut key) = (None, None);
        if let (Class::Key { key: named, .. }, Some(bucket)) = (origin.request.class(), bucket) {
            token = Some(format!("{:016x}", shard.topology.place(bucket, named).token.0));
            key = shard.limits.slow_keys.then(|| named.to_string());
        }
        let error = match response {
            Response::Failed(failure) => Some(failure.to_string()),
            _ => None,
        };
        tracing::info!(
            target: TARGET,
            node = explanation.passed_on.as_ref().map_or(&explanation.coordinator, |passed_on| &passed_on.by),
            operation = operation.name(),
            bucket = bucket.map(|bucket| bucket.name.as_str()),
            partition = explanation.partition,
            token,
            key,
            outcome = OutcomeLabel::of(response).name(),
            error,
            ms = took.as_millis() as u64,
            explanation = in_a_line(operation, origin, explanation),
            left_out,
            "slow request"
        );
    }
}

/// An explanation in one line.
fn in_a_line(operation: Operation, origin: &Origin, explanation: &Explanation) -> String {
    let mut line = String::new();
    // Nothing is refused by a string.
    if let Some(passed_on) = &explanation.passed_on {
        let waited = origin.since.since(origin.arrived).as_micros() as u64; // its client does not wait for centuries
        if waited > 0 {
            let _ = write!(line, "waited {}; ", ms(waited));
        }
        let _ = write!(line, "passed on to {} for {}; ", explanation.coordinator, ms(passed_on.took_us));
    }
    if let Some(waited) = explanation.waited_us.filter(|waited| *waited > 0) {
        let _ = write!(line, "waited {}; ", ms(waited));
    }
    if explanation.begun_again > 0 {
        let _ = write!(line, "begun again {} times; ", explanation.begun_again);
    }
    if let Some(read) = &explanation.read {
        let answered = if operation == Operation::Scan { "listed" } else { "answered" };
        phase(&mut line, "read", read, [answered; 2]);
    }
    if let Some(stamp) = &explanation.stamp {
        let made = match &stamp.made {
            Made::New(dot) => format!("stamped {dot}"),
            Made::Again(dot) => format!("recognised as {dot}"),
            Made::Nothing => "nothing to remove".to_owned(),
        };
        let _ = write!(line, "{made} after {}; ", ms(stamp.after_us));
    }
    if let Some(write) = &explanation.write {
        phase(&mut line, "write", write, ["stamped and synced", "merged"]);
    }
    for hint in &explanation.hints {
        let _ = write!(line, "hint for {} at {}; ", hint.target, hint.holder);
    }
    line.truncate(line.trim_end_matches("; ").len());
    line
}

/// The last are what replicas did that neither refused nor have a state to show: this node's own, and the others.
fn phase(line: &mut String, what: &str, phase: &Phase, [own, others]: [&str; 2]) {
    let Phase { needed, counted, since_us, replicas } = phase;
    let _ = write!(line, "{what} from {}, {counted} of {needed}: ", ms(*since_us));
    let replica = |replica: &ReplicaPart| {
        let stands_in = replica.stands_in_for.as_ref().map_or(String::new(), |primary| format!(" for {primary}"));
        let did = match &replica.fate {
            Fate::NotAsked => "not asked",
            Fate::Away => "away",
            Fate::Silent => "silent",
            Fate::Read(_) => "read",
            Fate::Stamped => own,
            Fate::Merged => others,
            Fate::Refused(why) => &format!("refused ({why})"),
            Fate::Lost => "lost",
        };
        let asked =
            replica.asked_us.filter(|asked| *asked > 0).map_or(String::new(), |us| format!(", asked at {}", ms(us)));
        let after = replica.latency_us.map_or(String::new(), |us| format!(" after {}", ms(us)));
        format!("{}{stands_in} {did}{after}{asked}", replica.node)
    };
    let _ = write!(line, "{}; ", replicas.iter().map(replica).collect::<Vec<_>>().join(", "));
}

fn ms(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

/// What these events are told by.
pub(crate) const TARGET: &str = "driftless::slow";

const SPAN: Duration = Duration::from_secs(10);

/// Of each shard in that span: enough to see what is wrong, in a log that others read as well.
const LINES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use driftless_proto::client::{Get, Request};
    use driftless_proto::{BucketId, Key};
    use driftless_ring::NodeId;
    use driftless_testkit::TopologyBuilder;

    use super::*;
    use crate::config::Limits;
    use crate::configurations::Configurations;
    use crate::planted::Planted;
    use crate::time::Instant;

    fn shard() -> Shard {
        let topology = TopologyBuilder::of(["a", "b", "c"]).hash_seed(0).shared();
        Shard {
            node: NodeId::of_name("a"),
            number: 0,
            configurations: Arc::new(Configurations::of_file(topology.clone())),
            topology,
            limits: Limits::default(),
            metrics: Arc::default(),
            planted: Planted::default(),
        }
    }

    fn slow(shard: &Shard) -> u64 {
        shard.metrics.slow_requests.get_or_create_owned(&OperationLabels { operation: Operation::Get }).get()
    }

    fn get() -> Request {
        let (key, shown) = (Key::new("k").expect("valid"), Vec::new());
        Request::Get(Get { bucket: BucketId(0), key, r: None, sloppy: None, explain: false, shown })
    }

    /// So long after the beginning of time.
    fn at(seconds: u64) -> Now {
        Now { instant: Instant::default() + Duration::from_secs(seconds), wall: Default::default() }
    }

    fn done() -> Response {
        Response::Hints(Default::default())
    }

    #[test]
    fn nothing_is_put_into_words_for_a_line_that_a_flood_leaves_no_room_for() {
        let (shard, mut log, mut explained) = (shard(), SlowLog::default(), 0);
        let origin = Origin::new(at(20), at(20).instant, get());
        for _ in 0..LINES_MAX + 10 {
            origin.tell(&shard, at(22), &mut log, Who::Coordinates, done(), |response| {
                explained += 1;
                (response, Explanation::by("a".to_owned(), 1))
            });
        }
        assert_eq!((explained, slow(&shard)), (LINES_MAX, LINES_MAX as u64 + 10), "all are counted");
    }

    #[test]
    fn what_was_passed_on_is_told_by_who_passed_it_on_if_it_was_slow_there_or_failed() {
        let (shard, mut log) = (shard(), SlowLog::default());
        let mut counted = |arrived: u64, response: &Response| {
            let origin = Origin::new(at(20), at(arrived).instant, get());
            log.count(&shard, at(22), &origin, Who::PassesOn, response).is_some()
        };
        assert!(!counted(20, &done()), "its coordinator says so");
        assert!(counted(18, &done()), "it waited here for two seconds");
        assert!(counted(20, &Response::Failed(driftless_proto::Refusal::Stopping.into())));
    }
}
