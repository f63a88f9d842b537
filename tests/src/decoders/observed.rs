//! Real values of requests that are observed, and of what is said of them.

use driftless_proto::client::{self, Request, Response};
use driftless_proto::observed::{Explanation, Fate, KeptHint, Made, PassedOn, Phase, Profile, ReplicaPart, Stamp};
use driftless_proto::{Failure, Refusal, TraceContext, Unknown};

/// Requests in envelopes.
pub(super) fn requests(plain: &[Request]) -> Vec<Request> {
    let trace = TraceContext { trace_id: [7; 16], parent_id: [9; 8], sampled: true };
    let profiles = [
        Profile { explain: true, trace: None },
        Profile { explain: false, trace: Some(trace) },
        Profile { explain: true, trace: Some(TraceContext { sampled: false, ..trace }) },
    ];
    let observable =
        plain.iter().filter(|request| matches!(request, Request::Get(_) | Request::Put(_) | Request::Delete(_)));
    observable.zip(profiles.into_iter().cycle()).map(|(request, profile)| request.clone().observed(profile)).collect()
}

/// Answers with their explanations.
pub(super) fn responses(plain: &[Response]) -> Vec<Response> {
    let explainable = plain.iter().filter(|response| {
        matches!(
            response,
            Response::Read(_)
                | Response::Stored(_)
                | Response::Deleted(_)
                | Response::Failed(Failure::Refused(Refusal::Stopping) | Failure::Unknown(Unknown::Timeout { .. }))
        )
    });
    let alone = |response: &Response| match response.clone() {
        Response::Read(read) => Response::Read(client::Read { explanation: None, ..read }),
        other => other,
    };
    explainable.zip(explanations().into_iter().cycle()).map(|(response, why)| alone(response).explained(why)).collect()
}

fn explanations() -> Vec<Explanation> {
    let fates = [
        Fate::Stamped,
        Fate::Merged,
        Fate::Read("seen a:1 | live a:1".to_owned()),
        Fate::Refused("disk full".to_owned()),
        Fate::Silent,
        Fate::Lost,
        Fate::Away,
        Fate::NotAsked,
    ];
    let replicas = fates.into_iter().zip(0..).map(|(fate, at)| ReplicaPart {
        node: format!("n{at}"),
        stands_in_for: (at == 1).then(|| "n9".to_owned()),
        fate,
        asked_us: (at < 6).then_some(at),
        latency_us: (at < 4).then_some(at + 300),
        counted: at < 3,
        repaired: at == 2,
    });
    let phase = Phase { needed: 2, counted: 3, since_us: 12, replicas: replicas.collect() };
    let whole = Explanation {
        coordinator: "n1".to_owned(),
        ring_version: 3,
        partition: Some("n3/5".to_owned()),
        passed_on: None,
        waited_us: Some(40),
        took_us: Some(1200),
        begun_again: 1,
        read: Some(phase.clone()),
        write: Some(phase),
        stamp: Some(Stamp { made: Made::New("a:2".to_owned()), after_us: 90, siblings: 1 }),
        hints: vec![KeptHint { target: "n9".to_owned(), holder: "n1".to_owned() }],
    };
    let stamp = |made| Some(Stamp { made, after_us: 1, siblings: 0 });
    let passed_on =
        PassedOn { by: "n4".to_owned(), refused_by: vec!["n2".to_owned()], took_us: 5000, explained: false };
    vec![
        Explanation { stamp: stamp(Made::Again("a:1".to_owned())), ..whole.clone() },
        Explanation { stamp: stamp(Made::Nothing), hints: Vec::new(), ..whole.clone() },
        whole,
        Explanation { passed_on: Some(passed_on), ..Explanation::by("n1".to_owned(), 3) },
    ]
}
