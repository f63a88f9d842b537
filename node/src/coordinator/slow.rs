//! The log of slow requests: what `--explain` would have said of each of them, at its coordinator, in a line.
//!
//! Nothing is put into words before a request is known to have been slow, and no more lines are written than a flood of them leaves room
//! for in a log that others read.

use std::fmt::Write;
use std::time::Duration;

use driftless_proto::Outcome;
use driftless_proto::client::{Class, Request, Response};
use driftless_proto::observed::{Explanation, Fate, Made, Phase, ReplicaPart};

use crate::log_lines::LogLines;
use crate::metrics::{Operation, OperationLabels};
use crate::shard::Shard;
use crate::time::Now;

use super::Origin;

/// One per shard.
#[derive(Default)]
pub(super) struct SlowLog {
    lines: LogLines,
}

impl SlowLog {
    /// A request took that long until this answer.
    pub(super) fn note(
        &mut self,
        shard: &Shard,
        now: Now,
        origin: &Origin,
        took: Duration,
        response: &Response,
        explanation: &Explanation,
    ) {
        // Who coordinated it says so. If nobody has, this node is the only one that knows.
        if explanation.passed_on.is_some() && !matches!(response, Response::Failed(_)) {
            return;
        }
        let Some(operation) = operation(&origin.request) else { return };
        shard.metrics.slow_requests.get_or_create_owned(&OperationLabels { operation }).inc();
        let Some(left_out) = self.lines.take(now.instant, LINES_MAX, SPAN) else { return };
        let bucket = origin.request.bucket().and_then(|bucket| shard.topology.bucket(bucket));
        let (mut token, mut key) = (None, None);
        if let (Class::Key { key: named, .. }, Some(bucket)) = (origin.request.class(), bucket) {
            token = Some(format!("{:016x}", shard.topology.place(bucket, named).token.0));
            key = shard.limits.slow_keys.then(|| named.to_string());
        }
        let (outcome, error) = match response {
            Response::Failed(failure) => match failure.outcome() {
                Outcome::Refused => ("refused", Some(failure.to_string())),
                Outcome::Unknown => ("unknown", Some(failure.to_string())),
            },
            _ => ("ok", None),
        };
        tracing::info!(
            target: TARGET,
            node = explanation.passed_on.as_ref().map_or(&explanation.coordinator, |passed_on| &passed_on.by),
            operation = operation.name(),
            bucket = bucket.map(|bucket| bucket.name.as_str()),
            partition = explanation.partition,
            token,
            key,
            outcome,
            error,
            ms = took.as_millis() as u64,
            explanation = line(explanation),
            left_out,
            "slow request"
        );
    }
}

fn operation(request: &Request) -> Option<Operation> {
    match request {
        Request::Get(_) | Request::GetState(_) => Some(Operation::Get),
        Request::Put(_) => Some(Operation::Put),
        Request::Delete(_) => Some(Operation::Delete),
        Request::Scan(_) => Some(Operation::Scan),
        _ => None,
    }
}

/// An explanation in one line.
fn line(explanation: &Explanation) -> String {
    let mut line = String::new();
    // Nothing is refused by a string.
    if let Some(passed_on) = &explanation.passed_on {
        let _ = write!(line, "passed on to {} for {}; ", explanation.coordinator, ms(passed_on.took_us));
    }
    if let Some(waited) = explanation.waited_us.filter(|waited| *waited > 0) {
        let _ = write!(line, "waited {}; ", ms(waited));
    }
    if explanation.begun_again > 0 {
        let _ = write!(line, "begun again {} times; ", explanation.begun_again);
    }
    if let Some(read) = &explanation.read {
        phase(&mut line, "read", read);
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
        phase(&mut line, "write", write);
    }
    for hint in &explanation.hints {
        let _ = write!(line, "hint for {} at {}; ", hint.target, hint.holder);
    }
    line.truncate(line.trim_end_matches("; ").len());
    line
}

fn phase(line: &mut String, what: &str, phase: &Phase) {
    let Phase { needed, counted, since_us, replicas } = phase;
    let _ = write!(line, "{what} from {}, {counted} of {needed}: ", ms(*since_us));
    let replica = |replica: &ReplicaPart| {
        let stands_in = replica.stands_in_for.as_ref().map_or(String::new(), |primary| format!(" for {primary}"));
        let did = match &replica.fate {
            Fate::NotAsked => "not asked",
            Fate::Away => "away",
            Fate::Silent => "silent",
            Fate::Read(_) => "read",
            Fate::Stamped => "stamped and synced",
            Fate::Merged => "merged",
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
