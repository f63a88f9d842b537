//! What was asked, for as long as it may have to be begun again or told how it went.

use driftless_proto::client::{self, Request, Response};
use driftless_proto::observed::{Explanation, Profile};
use driftless_proto::{Failure, Unknown};

use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::slow::{SlowLog, Who};

/// What was asked, and by whom.
pub(super) struct Origin {
    pub(super) request: Request,
    /// What its client wants to know of it.
    pub(super) profile: Profile,
    /// That is said in an envelope; else in the form that gets have in older releases.
    pub(super) in_envelope: bool,
    /// When this node had it, and when this shard turned to it.
    pub(super) arrived: Instant,
    pub(super) since: Instant,
    /// How often it was begun again.
    pub(super) begun_again: u32,
    pub(super) forwarded: bool,
    /// It was begun before, and may have been stamped then.
    pub(super) may_have_happened: bool,
}

impl Origin {
    /// This shard turns to it.
    pub(super) fn new(now: Now, arrived: Instant, request: Request) -> Origin {
        let in_envelope = matches!(request, Request::Observed(_));
        let (profile, request) = match request {
            Request::Observed(observed) => (observed.profile, observed.into_older()),
            Request::Get(get) => (Profile { explain: get.explain, trace: None }, Request::Get(get)),
            other => (Profile::default(), other),
        };
        let (since, forwarded, may_have_happened) = (now.instant, false, false);
        Origin { request, profile, in_envelope, arrived, since, begun_again: 0, forwarded, may_have_happened }
    }

    /// It may have been stamped here: whoever else was given it now would stamp it once more.
    pub(super) fn may_have_happened(&mut self) {
        (self.may_have_happened, self.forwarded) = (true, true);
    }

    /// The answer, with how it came about if that was asked for. If it was slow, that is written down.
    pub(super) fn tell(
        &self,
        shard: &Shard,
        now: Now,
        slow: &mut SlowLog,
        who: Who,
        response: Response,
        explain: impl FnOnce(Response) -> (Response, Explanation),
    ) -> Response {
        let line = slow.count(shard, now, self, who, &response);
        if line.is_none() && !self.profile.explain {
            return response;
        }
        let (response, explanation) = explain(response);
        if let Some(line) = line {
            line.write(shard, self, &response, &explanation);
        }
        match response {
            response if !self.profile.explain => response,
            Response::Read(read) if !self.in_envelope => {
                Response::Read(client::Read { explanation: Some(explanation.into()), ..read })
            }
            response if !self.in_envelope => response,
            response => response.explained(explanation),
        }
    }

    /// Whether how it came about may be wanted in the end: by its client, or for the log.
    pub(super) fn may_be_told(&self, shard: &Shard) -> bool {
        self.profile.explain || shard.limits.slow.is_some()
    }

    /// What is to be said of a failure: that nothing has happened is true of the last attempt alone.
    pub(super) fn honest(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Refused(refusal) if self.may_have_happened => {
                Unknown::Interrupted(format!("the members changed while it was under way, and then: {refusal}")).into()
            }
            failure => failure,
        }
    }
}
