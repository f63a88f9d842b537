//! How the answer to a get, put or delete came about, for people and for programs.

use std::fmt::Write;

use driftless_client::{Explanation, Fate, Made, PassedOn, Phase, ReplicaPart, RequestError, Stamp, Tried};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{self, Tone, paint};

/// As an object: the same facts as in the text.
pub(crate) fn json(explanation: &Explanation, tried: &[Tried]) -> Value {
    let tried = tried.iter().map(|tried| json!({ "node": tried.node, "why": tried.why }));
    let hints = explanation.hints.iter().map(|hint| json!({ "target": hint.target, "holder": hint.holder }));
    json!({
        "coordinator": explanation.coordinator,
        "ring_version": explanation.ring_version,
        "partition": explanation.partition,
        "passed_on": explanation.passed_on.as_ref().map(passed_on_json),
        "waited_us": explanation.waited_us,
        "took_us": explanation.took_us,
        "begun_again": explanation.begun_again,
        "read": explanation.read.as_ref().map(phase_json),
        "stamp": explanation.stamp.as_ref().map(stamp_json),
        "write": explanation.write.as_ref().map(phase_json),
        "hints": hints.collect::<Vec<_>>(),
        "tried": tried.collect::<Vec<_>>(),
    })
}

fn passed_on_json(passed_on: &PassedOn) -> Value {
    let PassedOn { by, refused_by, took_us, explained } = passed_on;
    json!({ "by": by, "refused_by": refused_by, "took_us": took_us, "explained": explained })
}

fn stamp_json(stamp: &Stamp) -> Value {
    let (made, dot) = match &stamp.made {
        Made::New(dot) => ("new", Some(dot)),
        Made::Again(dot) => ("again", Some(dot)),
        Made::Nothing => ("nothing", None),
    };
    json!({ "made": made, "dot": dot, "after_us": stamp.after_us, "siblings": stamp.siblings })
}

fn phase_json(phase: &Phase) -> Value {
    let Phase { needed, counted, since_us, replicas } = phase;
    let replicas: Vec<Value> = replicas.iter().map(replica_json).collect();
    json!({ "needed": needed, "counted": counted, "since_us": since_us, "replicas": replicas })
}

fn replica_json(replica: &ReplicaPart) -> Value {
    json!({
        "node": replica.node,
        "stands_in_for": replica.stands_in_for,
        "did": word(&replica.fate),
        "refusal": if let Fate::Refused(why) = &replica.fate { Some(why) } else { None },
        "state": replica.state(),
        "asked_us": replica.asked_us,
        "latency_us": replica.latency_us,
        "counted": replica.counted,
        "repaired": replica.repaired,
    })
}

/// What a replica did, in a word.
fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::NotAsked => "not asked",
        Fate::Away => "away",
        Fate::Silent => "silent",
        Fate::Read(_) => "read",
        Fate::Stamped => "stamped",
        Fate::Merged => "merged",
        Fate::Refused(_) => "refused",
        Fate::Lost => "lost",
    }
}

/// For people.
pub(crate) fn text(explanation: &Explanation, tried: &[Tried]) -> String {
    let mut text = String::new();
    for Tried { node, why } in tried {
        line(&mut text, &format!("{node} was tried as well: {why}"));
    }
    line(&mut text, &title(explanation));
    if let Some(read) = &explanation.read {
        let what = format!("read from {} of the {} that must answer:", read.counted, read.needed);
        line(&mut text, &what);
        text += &table(read, true);
    }
    if let Some(stamp) = &explanation.stamp {
        line(&mut text, &stamped(stamp));
    }
    if let Some(write) = &explanation.write {
        line(&mut text, &format!("acknowledged by {} of the {} that must:", write.counted, write.needed));
        text += &table(write, false);
    }
    for hint in &explanation.hints {
        line(&mut text, &format!("{} keeps it for {}, which is to have it when it is back", hint.holder, hint.target));
    }
    text.truncate(text.trim_end().len());
    text
}

fn line(text: &mut String, said: &str) {
    // Nothing is refused by a string.
    let _ = writeln!(text, "{}", output::wrapped(said, 0));
}

fn title(explanation: &Explanation) -> String {
    let Explanation { coordinator, ring_version, partition, passed_on, waited_us, took_us, .. } = explanation;
    let partition = partition.as_ref().map_or(String::new(), |partition| format!("partition {partition}, "));
    let mut title = format!("{partition}ring version {ring_version}; coordinated by {coordinator}");
    if let Some(PassedOn { by, refused_by, took_us, explained }) = passed_on {
        let _ = write!(title, ", to which {by} passed it on, in {}", ms(*took_us));
        if !refused_by.is_empty() {
            let _ = write!(title, "; {} took no requests", refused_by.join(", "));
        }
        if !explained {
            let _ = write!(
                title,
                "; {coordinator} has not explained it: an older release does not, and a node that was lost cannot"
            );
        }
    }
    if let Some(took) = took_us {
        let _ = write!(title, "; it took {}", ms(*took));
    }
    if let Some(waited) = waited_us {
        let _ = write!(title, ", after {} until its turn", ms(*waited));
    }
    if explanation.begun_again > 0 {
        let _ = write!(title, "; begun again {} times, since the members changed", explanation.begun_again);
    }
    title
}

fn stamped(stamp: &Stamp) -> String {
    let values = match stamp.siblings {
        1 => "1 value".to_owned(),
        count => format!("{count} values"),
    };
    let after = ms(stamp.after_us);
    match &stamp.made {
        Made::New(dot) => format!("stamped as {dot} after {after}; the key had {values} then"),
        Made::Again(dot) => format!("recognised after {after} as {dot}, which was made before; the key has {values}"),
        Made::Nothing => format!("nothing to remove, which was clear after {after}; the key has {values}"),
    }
}

fn table(phase: &Phase, is_read: bool) -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows = phase.replicas.iter().map(|replica| {
        let mut row = vec![
            replica.node.clone(),
            replica.stands_in_for.as_ref().map_or("primary".to_owned(), |primary| format!("fallback for {primary}")),
            match &replica.fate {
                Fate::Refused(why) => format!("refused: {why}"),
                fate => word(fate).to_owned(),
            },
            replica.latency_us.map_or("-".to_owned(), ms),
            yes(replica.counted),
        ];
        if is_read {
            row.push(yes(replica.repaired));
        }
        row
    });
    let header = ["replica", "as", "did", "after", "counted", "repaired"];
    let header = &header[..if is_read { 6 } else { 5 }];
    let table = output::table(header, rows.collect());
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, replica) in lines.zip(&phase.replicas) {
        text = text + line + "\n";
        if let Some(state) = replica.state() {
            let _ = writeln!(text, "    {}", paint(Tone::Quiet, output::wrapped(state, 4)));
        }
    }
    text
}

fn ms(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

/// A failure with how it came about, if a node has said so, and with every attempt.
pub(crate) fn of_failure(error: Option<&RequestError>, failure: Failure) -> Failure {
    let Some(error) = error else { return failure };
    let tried = error.tried();
    match error.explanation() {
        Some(explanation) => failure.explained(text(explanation, tried), json(explanation, tried)),
        None => failure,
    }
}
