//! What a client wants to know of a request beyond its answer: how it came about, and where it belongs in a trace.
//!
//! ```text
//! client                                                      node
//!   │── Observed {profile, Get | Put | Delete} ─────────────────▶│ does what it would have done
//!   │◀── Explained {Read | Stored | Deleted | Failed, why} ──────│ if the profile asks for an explanation,
//!   │◀── Read | Stored | Deleted | Failed ───────────────────────│ or if not
//! ```
//! **An envelope never holds another.** What is in it are enums of their own, and no [`Request`] or [`Response`]: these would be read
//! by themselves, and a frame of nothing but envelopes, two bytes each, would overflow the stack of whoever reads it.
//!
//! A node that refuses a request before it has looked at it, because it is full, is stopping or does not allow it, says just that.

use serde::{Deserialize, Serialize};

use crate::client::{
    Access, Class, Delete, Deleted, Get, Put, Read, ReadExplanation, ReplicaAnswer, Request, Response, Stored,
};
use crate::error::Failure;
pub use crate::trace::TraceContext;

/// A request, and what its client wants to know of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// What that is.
    pub profile: Profile,
    /// The request.
    pub request: ObservedRequest,
}

/// What is to be known of a request. It changes nothing of what is done, but for the time that is waited for late answers; only a get that is
/// explained asks all replicas, and repairs what they lack before it answers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Say how the answer came about. The replicas that are asked are waited for a little, also if enough have answered.
    pub explain: bool,
    /// Where the request belongs in a trace of its client.
    pub trace: Option<TraceContext>,
}

/// A request that can be observed. It holds no [`Request`]: see the [module](self).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ObservedRequest {
    /// Read a key. Whether it is explained is said by the profile alone.
    Get(Get),
    /// Write a value.
    Put(Put),
    /// Write a tombstone.
    Delete(Delete),
}

/// An answer, and how it came about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The answer.
    pub response: ExplainedResponse,
    /// How it came about.
    pub explanation: Box<Explanation>,
}

/// An answer that can be explained. It holds no [`Response`]: see the [module](self).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ExplainedResponse {
    /// To a get.
    Read(Read),
    /// To a put.
    Stored(Stored),
    /// To a delete.
    Deleted(Deleted),
    /// It did not succeed.
    Failed(Failure),
}

/// How the answer to a get, put or delete came about, be it a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the node that coordinated it, or was to.
    pub coordinator: String,
    /// Ring version that it used.
    pub ring_version: u64,
    /// The key's partition, as `n3/17`; `None` if the bucket is not known there.
    pub partition: Option<String>,
    /// The way from the node that the client had asked, if that was another one.
    pub passed_on: Option<PassedOn>,
    /// Microseconds that it waited at the coordinator until that turned to it: in the queue, and for its record to be read from the disk if it
    /// was not in memory. `None` if it does not say.
    pub waited_us: Option<u64>,
    /// Microseconds from then until the answer; `None` if the coordinator does not say.
    pub took_us: Option<u64>,
    /// How often it began again, because the members changed.
    pub begun_again: u32,
    /// The read: of a get, or of a delete that came without a context.
    pub read: Option<Phase>,
    /// The write, of a put or delete.
    pub write: Option<Phase>,
    /// What the coordinator's own replica made of the write.
    pub stamp: Option<Stamp>,
    /// Hints of the write that were kept by then.
    pub hints: Vec<KeptHint>,
}

/// A node has passed a request on to one that stores its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PassedOn {
    /// Name of the node that passed it on.
    pub by: String,
    /// Names of those to which it did so before, and which took no requests.
    pub refused_by: Vec<String>,
    /// Microseconds from when it turned to the request until the answer.
    pub took_us: u64,
    /// Whether the coordinator has explained it. One of an older release does not, and one that was lost could not: nothing more is
    /// known then.
    pub explained: bool,
}

/// What replicas were asked for one purpose, and what they did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Replicas that must answer: r of a read, w of a write.
    pub needed: u8,
    /// Those that did by then, as they are counted: for each primary one at most.
    pub counted: u8,
    /// Microseconds from when the coordinator turned to the request until this began.
    pub since_us: u64,
    /// The primaries, and who stands in for any of them.
    pub replicas: Vec<ReplicaPart>,
}

/// One replica's part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaPart {
    /// Name of the node.
    pub node: String,
    /// Name of the primary that it stands in for; `None` if it is a primary itself.
    pub stands_in_for: Option<String>,
    /// What it did.
    pub fate: Fate,
    /// Microseconds from the beginning of the phase until it was asked; `None` if it was not.
    pub asked_us: Option<u64>,
    /// Microseconds from the beginning of the phase until its answer; `None` if none came by then.
    pub latency_us: Option<u64>,
    /// Whether it counts.
    pub counted: bool,
    /// Whether a read sent it what it lacked.
    pub repaired: bool,
}

/// What a replica did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// It was not needed.
    NotAsked,
    /// It was not asked, because it could not be counted on.
    Away,
    /// It has not answered by then.
    Silent,
    /// It said what it holds: its vector and live dots, as text.
    Read(String),
    /// It made the write, and has it on disk.
    Stamped,
    /// It took the write in, and has it on disk.
    Merged,
    /// It refused, for this reason, in one or two words.
    Refused(String),
    /// The connection to it was lost, or what became of the request at it was.
    Lost,
}

/// What the coordinator's own replica made of a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// What it was.
    pub made: Made,
    /// Microseconds from the beginning of the write until then. That it is on disk comes later.
    pub after_us: u64,
    /// Values that the key had there afterwards.
    pub siblings: u32,
}

/// What became of a write where it was stamped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Made {
    /// It is a new write with this dot.
    New(String),
    /// It was recognised as the write that has this dot, and not made again.
    Again(String),
    /// It is a delete of what is gone: nothing was written.
    Nothing,
}

/// A hint of a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptHint {
    /// Name of the primary that is to have the write.
    pub target: String,
    /// Name of the node that keeps it for that.
    pub holder: String,
}

impl Profile {
    /// Whether nothing is to be known.
    pub fn is_none(&self) -> bool {
        *self == Profile::default()
    }
}

impl Observed {
    /// The request alone.
    pub fn into_plain(self) -> Request {
        match self.request {
            ObservedRequest::Get(get) => Request::Get(get),
            ObservedRequest::Put(put) => Request::Put(put),
            ObservedRequest::Delete(delete) => Request::Delete(delete),
        }
    }

    /// The same for a node of a release that knows no envelopes, as far as that can be said there: a get may be explained.
    pub fn into_older(self) -> Request {
        let explain = self.profile.explain;
        match self.into_plain() {
            Request::Get(get) => Request::Get(Get { explain, ..get }),
            other => other,
        }
    }
}

impl ObservedRequest {
    /// What it is about.
    pub(crate) fn class(&self) -> Class<'_> {
        let (bucket, key, access) = match self {
            ObservedRequest::Get(get) => (get.bucket, &get.key, Access::Read),
            ObservedRequest::Put(put) => (put.bucket, &put.key, Access::Write),
            ObservedRequest::Delete(delete) => (delete.bucket, &delete.key, Access::Write),
        };
        Class::Key { bucket, key, access }
    }
}

impl Request {
    /// The request in its envelope, if there is anything to be known of it, and it can have one.
    pub fn observed(self, profile: Profile) -> Request {
        let request = match self {
            other if profile.is_none() => return other,
            Request::Get(get) => ObservedRequest::Get(Get { explain: false, ..get }),
            Request::Put(put) => ObservedRequest::Put(put),
            Request::Delete(delete) => ObservedRequest::Delete(delete),
            other => return other,
        };
        Request::Observed(Observed { profile, request })
    }

    /// What is to be known of it, and the request alone.
    pub fn into_plain(self) -> (Profile, Request) {
        match self {
            Request::Observed(observed) => (observed.profile, observed.into_plain()),
            plain => (Profile::default(), plain),
        }
    }
}

impl Response {
    /// The same with its explanation, if it is an answer that can have one.
    pub fn explained(self, explanation: Explanation) -> Response {
        let response = match self {
            Response::Read(read) => ExplainedResponse::Read(read),
            Response::Stored(stored) => ExplainedResponse::Stored(stored),
            Response::Deleted(deleted) => ExplainedResponse::Deleted(deleted),
            Response::Failed(failure) => ExplainedResponse::Failed(failure),
            other => return other,
        };
        Response::Explained(Explained { response, explanation: Box::new(explanation) })
    }

    /// The answer alone, and how it came about, if that is said. A get that a node of an older release has explained is one of these.
    pub fn into_plain(self) -> (Response, Option<Box<Explanation>>) {
        match self {
            Response::Explained(Explained { response, explanation }) => (response.into(), Some(explanation)),
            Response::Read(mut read) => {
                let explanation = read.explanation.take().map(|told| Box::new(Explanation::from(told)));
                (Response::Read(read), explanation)
            }
            plain => (plain, None),
        }
    }
}

impl From<ExplainedResponse> for Response {
    fn from(response: ExplainedResponse) -> Response {
        match response {
            ExplainedResponse::Read(read) => Response::Read(read),
            ExplainedResponse::Stored(stored) => Response::Stored(stored),
            ExplainedResponse::Deleted(deleted) => Response::Deleted(deleted),
            ExplainedResponse::Failed(failure) => Response::Failed(failure),
        }
    }
}

impl Explanation {
    /// One of which nothing more is known than who coordinates.
    pub fn by(coordinator: String, ring_version: u64) -> Explanation {
        Explanation {
            coordinator,
            ring_version,
            partition: None,
            passed_on: None,
            waited_us: None,
            took_us: None,
            begun_again: 0,
            read: None,
            write: None,
            stamp: None,
            hints: Vec::new(),
        }
    }
}

impl ReplicaPart {
    /// What it said that it holds, if it was read and has answered.
    pub fn state(&self) -> Option<&str> {
        match &self.fate {
            Fate::Read(state) => Some(state),
            _ => None,
        }
    }
}

impl From<ReadExplanation> for Explanation {
    fn from(told: ReadExplanation) -> Explanation {
        let ReadExplanation { coordinator, ring_version, partition, r, replicas } = told;
        let counted = replicas.iter().filter(|replica| replica.counted).count() as u8; // no key has as many replicas
        let replicas = replicas.into_iter().map(ReplicaPart::from).collect();
        let read = Some(Phase { needed: r, counted, since_us: 0, replicas });
        Explanation { partition: Some(partition), read, ..Explanation::by(coordinator, ring_version) }
    }
}

impl From<Explanation> for ReadExplanation {
    /// As much as clients of older releases understand of it.
    fn from(told: Explanation) -> ReadExplanation {
        let Explanation { coordinator, ring_version, partition, read, .. } = told;
        let (r, replicas) = read.map_or((0, Vec::new()), |read| (read.needed, read.replicas));
        let replicas =
            replicas.into_iter().filter(|replica| replica.asked_us.is_some()).map(ReplicaAnswer::from).collect();
        ReadExplanation { coordinator, ring_version, partition: partition.unwrap_or_default(), r, replicas }
    }
}

impl From<ReplicaPart> for ReplicaAnswer {
    fn from(part: ReplicaPart) -> ReplicaAnswer {
        let ReplicaPart { node, stands_in_for, fate, latency_us, counted, repaired, .. } = part;
        let state = if let Fate::Read(state) = fate { Some(state) } else { None };
        let latency_us = latency_us.filter(|_| state.is_some());
        ReplicaAnswer { node, stands_in_for, state, latency_us, counted, repaired }
    }
}

impl From<ReplicaAnswer> for ReplicaPart {
    fn from(answer: ReplicaAnswer) -> ReplicaPart {
        let ReplicaAnswer { node, stands_in_for, state, latency_us, counted, repaired } = answer;
        let fate = state.map_or(Fate::Silent, Fate::Read);
        ReplicaPart { node, stands_in_for, fate, asked_us: Some(0), latency_us, counted, repaired }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::client::RequestFrame;
    use crate::error::Refusal;
    use crate::frame;
    use crate::key::{BucketId, Key};

    fn get() -> Request {
        let key = Key::new("k").expect("valid");
        Request::Get(Get { bucket: BucketId(1), key, r: None, sloppy: None, explain: true, shown: Vec::new() })
    }

    fn encoded(request: &Request) -> Vec<u8> {
        postcard::to_stdvec(request).expect("encodes")
    }

    #[test]
    fn envelopes_in_envelopes_are_no_message_and_take_no_stack() {
        let profile = Profile { explain: true, trace: None };
        let observed = encoded(&get().observed(profile));
        // The variant, and the profile: whatever comes next is read as what is inside.
        let envelope = &observed[..3];
        let mut frame = vec![1, 0, 1];
        (0..1_000_000).for_each(|_| frame.extend_from_slice(envelope));
        assert!(frame::decode::<RequestFrame>(&frame).is_err());
        let refused = Response::Failed(Refusal::Stopping.into()).explained(Explanation::by("n1".into(), 1));
        let explained = postcard::to_stdvec(&refused).expect("encodes");
        let frame = vec![explained[0]; 1_000_000];
        assert!(postcard::from_bytes::<Response>(&frame).is_err());
    }

    #[test]
    fn a_request_is_the_same_out_of_its_envelope_and_an_older_node_is_asked_what_it_knows() {
        let profile = Profile { explain: true, trace: None };
        let Request::Get(plain) = get() else { panic!("a get") };
        let alone = Request::Get(Get { explain: false, ..plain });
        assert_eq!(get().observed(profile).into_plain(), (profile, alone.clone()));
        let Request::Observed(observed) = get().observed(profile) else { panic!("in an envelope") };
        assert_eq!(observed.into_older(), get(), "a get is explained by any release");
        assert_eq!(get().observed(Profile::default()), get(), "nothing is to be known");
        assert_eq!(Request::Status.observed(profile), Request::Status, "it has no envelope");
        assert_eq!(get().observed(profile).class(), alone.class());
    }

    #[test]
    fn an_answer_is_the_same_without_its_explanation_also_one_of_an_older_node() {
        let explanation = Explanation::by("n1".into(), 7);
        let failed = Response::Failed(Refusal::Stopping.into());
        assert_eq!(
            failed.clone().explained(explanation.clone()).into_plain(),
            (failed.clone(), Some(Box::new(explanation)))
        );
        assert_eq!(failed.clone().into_plain(), (failed, None));
        let state = Some("never seen".to_owned());
        let replica = ReplicaAnswer {
            node: "n2".into(),
            stands_in_for: None,
            state,
            latency_us: Some(5),
            counted: true,
            repaired: false,
        };
        let told = ReadExplanation {
            coordinator: "n1".into(),
            ring_version: 7,
            partition: "n3/17".into(),
            r: 2,
            replicas: vec![replica],
        };
        let read = Read {
            siblings: Vec::new(),
            context: Some(Bytes::from_static(b"c").into()),
            basis: crate::client::Basis { needed: 2, primaries: 1 },
            page: None,
            explanation: Some(told),
        };
        let (Response::Read(alone), Some(explanation)) = Response::Read(read.clone()).into_plain() else {
            panic!("it is explained")
        };
        assert_eq!(alone, Read { explanation: None, ..read });
        let phase = explanation.read.expect("of a get");
        assert_eq!((phase.needed, phase.counted), (2, 1));
        assert_eq!(phase.replicas[0].fate, Fate::Read("never seen".into()));
    }
}
