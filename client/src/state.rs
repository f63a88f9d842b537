//! All that is known of a key, out of a cluster and into one: what backups are made of.
//!
//! Not the values alone, as a [`get`](Bucket::get) gives, but with what names them and what they have replaced. So it can be taken in
//! again, by the same cluster or another one, as replicas take in what others know: what has been replaced or deleted since stays so.

use driftless_proto::client::{GetState, MergeState, Request, Response};
use driftless_proto::key::Key;
use driftless_proto::state_pages::Turned;
use driftless_proto::{Siblings, StatePages};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::error::{GetError, PutError};

/// All that was known of a key at some moment. Its form under serde is for keeping: it changes only with a new version of what holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct State(Siblings);

impl State {
    /// How many values it has; none if the key was deleted, or nobody has ever written it.
    pub fn values(&self) -> usize {
        self.0.values().count()
    }

    /// Whether nobody whose answer counted has ever heard of the key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of its values together.
    pub fn value_bytes(&self) -> usize {
        self.0.value_bytes()
    }

    /// Whether this has seen all that the other one has, and holds nothing that the other one has seen replaced.
    pub fn includes(&self, other: &State) -> bool {
        self.0.includes(&other.0)
    }

    /// What fits into one request. A state that does not, goes in parts, those with values first. A part may remove what another brings,
    /// so after an interruption less may be there than before and after, until it is said again.
    fn parts(&self) -> Vec<Siblings> {
        if self.0.value_bytes() <= PART_BYTES { vec![self.0.clone()] } else { self.0.by_actor() }
    }
}

impl Bucket {
    /// Reads all that is known of a key, by a strict read of r replicas. A key that nobody has ever written has an empty state.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn read_state(&self, key: &Key) -> Result<State, GetError> {
        let (settings, clock) = (&self.settings, Clock::start(self.settings.timeout));
        let (bucket, route) = self.place(key, clock).await?;
        let mut pages = StatePages::default();
        loop {
            let shown = pages.shown();
            let request = Request::GetState(GetState { bucket, key: key.clone(), r: settings.r, shown });
            let turned = match self.inner.carry_out(&request, route, settings, clock).await? {
                Response::State(page) => pages.turn(page),
                _ => Turned::Misread,
            };
            match turned {
                Turned::Whole(state) => return Ok(State(state)),
                Turned::More => {}
                Turned::Misread => return Err(self.inner.misunderstood(&request).into()),
            }
        }
    }

    /// Has w owners take in what was known of a key once. The same again changes nothing, so whatever the outcome was, it can be repeated.
    ///
    /// It takes a certificate of an operator: a state says who has seen what, and nobody can tell whether that is true.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn merge_state(&self, key: &Key, state: &State) -> Result<(), PutError> {
        let settings = &self.settings;
        for part in state.parts() {
            let clock = Clock::start(settings.timeout);
            let (bucket, route) = self.place(key, clock).await?;
            let request = Request::MergeState(MergeState { bucket, key: key.clone(), state: part, w: settings.w });
            match self.inner.carry_out(&request, route, settings, clock).await? {
                Response::Merged(_) => {}
                _ => return Err(self.inner.misunderstood(&request).into()),
            }
        }
        Ok(())
    }
}

/// Well below a frame, and above what nearly all keys have.
const PART_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use driftless_proto::causality::Payload as _;
    use driftless_proto::{ActorId, Dot, Hlc, Version, VersionVector, WriteId};

    use super::*;

    fn written(actor: u64, counter: u64, bytes: usize) -> (Dot, Version) {
        let value = Some(Bytes::from(vec![7; bytes]));
        (Dot::new(ActorId(actor), counter), Version { value, write_id: WriteId(0), written_at: Hlc(0) })
    }

    fn vv(dots: &[(u64, u64)]) -> VersionVector {
        dots.iter().map(|(actor, counter)| Dot::new(ActorId(*actor), *counter)).collect()
    }

    #[test]
    fn a_state_that_is_too_large_for_a_request_goes_in_parts_that_are_not() {
        let live = vec![written(1, 1, 5 << 20), written(2, 1, 5 << 20)];
        let whole = Siblings::from_parts(vv(&[(1, 1), (2, 1), (3, 9)]), live).expect("is one");
        let parts = State(whole.clone()).parts();
        assert_eq!(parts.iter().map(|part| part.value_bytes()).collect::<Vec<_>>(), [5 << 20, 5 << 20, 0]);
        let mut merged = Siblings::new();
        parts.iter().rev().for_each(|part| merged.merge(part));
        assert_eq!(merged, whole);
        assert!(merged.live().iter().all(|(_, version)| !version.is_tombstone()));
        let small = State(Siblings::from_parts(vv(&[(1, 1), (3, 9)]), vec![written(1, 1, 9)]).expect("is one"));
        assert_eq!(small.parts(), std::slice::from_ref(&small.0));
    }
}
