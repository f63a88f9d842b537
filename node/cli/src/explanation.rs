//! How the answer to a get, put or delete came about, for people and for programs.

use driftless_client::{Explanation, Fate, Phase, ReplicaPart};
use serde_json::{Value, json};

use super::exit::Result;
use super::output::{self, Tone, paint};

/// As an object.
pub(crate) fn json(explanation: &Explanation) -> Value {
    json!({
        "coordinator": explanation.coordinator,
        "ring_version": explanation.ring_version,
        "partition": explanation.partition,
        "read": explanation.read.as_ref().map(phase_json),
        "write": explanation.write.as_ref().map(phase_json),
    })
}

fn phase_json(phase: &Phase) -> Value {
    json!({ "needed": phase.needed, "counted": phase.counted, "replicas": phase.replicas.iter().map(replica_json).collect::<Vec<_>>() })
}

fn replica_json(replica: &ReplicaPart) -> Value {
    json!({
        "node": replica.node,
        "stands_in_for": replica.stands_in_for,
        "state": if let Fate::Read(state) = &replica.fate { Some(state) } else { None },
        "latency_us": replica.latency_us,
        "counted": replica.counted,
        "repaired": replica.repaired,
    })
}

/// As a table.
pub(crate) fn show(explanation: &Explanation) -> Result {
    let Explanation { coordinator, ring_version, .. } = explanation;
    output::line(paint(Tone::Quiet, format_args!("{coordinator} {ring_version}")))
}
