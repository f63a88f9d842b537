//! Who keeps what was known of keys, and has the cluster take it in again, at whatever moment and node: what a backup does. Nothing that
//! is checked may notice.

use driftless_proto::client::{GetState, MergeState, Request, Response};
use driftless_proto::state_pages::Turned;
use driftless_proto::{Siblings, StatePages, Topology};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::generator::Intention;
use super::history::Slot;
use super::profile::Profile;
use super::schedule::Micros;

/// Keeps states.
#[derive(Debug)]
pub struct Archivist {
    /// Its own randomness: others ask what they would ask without it.
    pub rng: StdRng,
    /// What it waits for, by the number of the attempt.
    pub attempt: Option<u64>,
    task: Option<Task>,
    kept: Vec<(Slot, Siblings)>,
}

#[derive(Debug)]
enum Task {
    Read { slot: Slot, r: Option<u8>, pages: StatePages, answers: u32, began: Micros },
    Merge { slot: Slot, state: Siblings, w: Option<u8> },
}

/// What an answer has come to.
#[derive(Debug)]
pub enum Next {
    /// The state goes on.
    Ask,
    /// A state is kept.
    Kept {
        /// Of which key.
        slot: Slot,
        /// Replicas that were to answer, unless the bucket says.
        r: Option<u8>,
        /// It.
        state: Siblings,
        /// In how many answers it came.
        answers: u32,
        /// When it was asked for.
        began: Micros,
    },
    /// A state was merged: whether its key was changed since it was kept is for others to say.
    Merged,
    /// It was not done, or nobody knows.
    Failed,
}

impl Archivist {
    /// Draws how many a world has: often none.
    pub fn draw(mut rng: StdRng) -> Vec<Archivist> {
        let archivists = usize::from(rng.random_bool(0.3));
        let new = |rng| Archivist { rng, attempt: None, task: None, kept: Vec::new() };
        (0..archivists).map(|_| new(rand::SeedableRng::from_rng(&mut rng))).collect()
    }

    /// Whether something is under way.
    pub fn rests(&self) -> bool {
        self.attempt.is_none()
    }

    /// Draws what to do next: to look at a key, or to bring back what one was.
    pub fn begin(&mut self, now: Micros, profile: &Profile, topology: &Topology) {
        let rng = &mut self.rng;
        let old = self.kept.iter().choose(rng).filter(|_| rng.random_bool(0.5)).cloned();
        self.task = Some(match old {
            Some((slot, state)) => {
                let n = topology.bucket(slot.0).expect("slots are of buckets").quorum.n();
                let w = rng.random_bool(0.2).then(|| rng.random_range(1..=n));
                Task::Merge { slot, state, w }
            }
            None => {
                let slot = Intention::draw_slot(profile, topology, rng);
                let n = topology.bucket(slot.0).expect("slots are of buckets").quorum.n();
                let r = rng.random_bool(0.2).then(|| rng.random_range(1..=n));
                Task::Read { slot, r, pages: StatePages::default(), answers: 0, began: now }
            }
        });
    }

    /// The request for it.
    pub fn request(&self) -> Request {
        match self.task.as_ref().expect("something is under way") {
            Task::Read { slot: (bucket, key), r, pages, .. } => {
                Request::GetState(GetState { bucket: *bucket, key: key.clone(), r: *r, shown: pages.shown() })
            }
            Task::Merge { slot: (bucket, key), state, w } => {
                let (key, state) = (key.clone(), state.clone());
                Request::MergeState(MergeState { bucket: *bucket, key, state, w: *w })
            }
        }
    }

    /// Takes an answer, or the want of one. Answers also what is odd about it.
    pub fn take(&mut self, response: Option<Response>) -> (Next, Option<String>) {
        self.attempt = None;
        match (self.task.take().expect("answers belong to a task"), response) {
            (Task::Read { slot, r, mut pages, answers, began }, Some(Response::State(page))) => {
                let answers = answers + 1;
                match pages.turn(page) {
                    Turned::Whole(state) => {
                        self.keep(slot.clone(), state.clone());
                        (Next::Kept { slot, r, state, answers, began }, None)
                    }
                    Turned::More => {
                        self.task = Some(Task::Read { slot, r, pages, answers, began });
                        (Next::Ask, None)
                    }
                    Turned::Misread => (Next::Failed, Some("pages make no state".to_owned())),
                }
            }
            (Task::Merge { .. }, Some(Response::Merged(_))) => (Next::Merged, None),
            (_, None | Some(Response::Failed(_))) => (Next::Failed, None),
            (_, Some(other)) => (Next::Failed, Some(format!("an archivist was answered with {other:?}"))),
        }
    }

    /// Some stay for long, and grow old.
    fn keep(&mut self, slot: Slot, state: Siblings) {
        if self.kept.len() == KEPT_MAX {
            let at = self.rng.random_range(0..KEPT_MAX);
            let _ = self.kept.swap_remove(at);
        }
        self.kept.push((slot, state));
    }
}

const KEPT_MAX: usize = 12;
