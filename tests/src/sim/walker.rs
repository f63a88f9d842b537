//! Clients that list the keys of a bucket: arc by arc, page by page, at one node after the other.

use std::collections::VecDeque;

use driftless_proto::client::{Cursor, Request, Response, Scan};
use driftless_proto::{BucketId, Key, Topology};
use driftless_ring::{ArcIndex, Partitions};
use rand::Rng;
use rand::rngs::StdRng;

use super::history::{Ending, Walk};
use super::profile::Profile;
use super::schedule::Micros;

/// Somebody who walks through one bucket after the other.
#[derive(Debug)]
pub struct Walker {
    /// Its own randomness: others ask what they would ask without it.
    pub rng: StdRng,
    /// The page that it waits for, by the number of the attempt.
    pub attempt: Option<u64>,
    /// The buckets that it is to walk through in the calm phase.
    pub script: VecDeque<BucketId>,
    walk: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    walk: Walk,
    limit: u32,
    /// As the ring was divided when the page was asked for.
    partitions: Partitions,
    arc: u32,
    after: Option<Cursor>,
    retries: u32,
}

/// What follows from a page, or from none.
#[derive(Debug)]
pub enum Next {
    /// The next page, or the same one again.
    Ask,
    /// The walk is over.
    Done(Walk),
}

impl Walker {
    /// Draws how many a world has: often none.
    pub fn draw(mut rng: StdRng) -> Vec<Walker> {
        let walkers = if rng.random_bool(0.3) { rng.random_range(1..=2) } else { 0 };
        let new = |rng| Walker { rng, attempt: None, script: VecDeque::new(), walk: None };
        (0..walkers).map(|_| new(rand::SeedableRng::from_rng(&mut rng))).collect()
    }

    /// Begins a walk.
    pub fn begin(&mut self, now: Micros, calm: bool, profile: &Profile, topology: &Topology) {
        let rng = &mut self.rng;
        let bucket = match self.script.pop_front() {
            Some(bucket) => topology.bucket(bucket).expect("scripts name buckets that exist"),
            None => {
                let buckets: Vec<_> = topology.buckets().iter().zip(profile.bucket_weights).collect();
                let used: Vec<_> = buckets.into_iter().filter(|(_, weight)| *weight > 0).collect();
                used[rng.random_range(0..used.len())].0
            }
        };
        let n = bucket.quorum.n();
        let r = rng.random_bool(0.3).then(|| rng.random_range(1..=n)).filter(|_| !calm);
        let quorum = bucket.quorum.with(r, None).expect("r is drawn within n");
        let walk = Walk {
            bucket: bucket.id,
            r: quorum.r(),
            invoked: now,
            returned: now,
            ending: Ending::Pending,
            keys: Vec::new(),
            pages: 0,
            calm,
        };
        let (limit, retries) = (rng.random_range(1..5), if calm { 20 } else { rng.random_range(0..6) });
        self.walk =
            Some(UnderWay { walk, limit, partitions: topology.ring().partitions(), arc: 0, after: None, retries });
    }

    /// Whether a walk is under way or waiting.
    pub fn rests(&self) -> bool {
        self.walk.is_none() && self.script.is_empty()
    }

    /// Whether a walk is under way.
    pub fn walks(&self) -> bool {
        self.walk.is_some()
    }

    /// How the ring was divided when it asked for the page that it waits for by this attempt.
    pub fn asks_by(&self, attempt: u64) -> Option<Partitions> {
        let waits = self.attempt == Some(attempt);
        self.walk.as_ref().filter(|_| waits).map(|under_way| under_way.partitions)
    }

    /// The request for the next page, by this version of the ring.
    pub fn request(&mut self, topology: &Topology) -> Request {
        let under_way = self.walk.as_mut().expect("a walk is under way");
        under_way.go_by(topology.ring().partitions());
        let UnderWay { walk, limit, arc, after, .. } = under_way;
        Request::Scan(Scan {
            bucket: walk.bucket,
            arc: ArcIndex(*arc),
            after: after.clone(),
            limit: *limit,
            r: Some(walk.r),
            prefix: bytes::Bytes::new(),
            ring_version: topology.ring().version().0,
        })
    }

    /// Takes an answer, or the want of one. Answers also what is odd about it.
    pub fn take(&mut self, now: Micros, response: Option<&Response>, topology: &Topology) -> (Next, Option<String>) {
        self.attempt = None;
        let under_way = self.walk.as_mut().expect("pages belong to a walk");
        let ending = match response {
            Some(Response::Page(page)) => {
                under_way.walk.pages += 1;
                let odd = under_way.oddity(&page.keys, page.next.as_ref(), topology);
                under_way.walk.keys.extend(page.keys.iter().cloned());
                under_way.after.clone_from(&page.next);
                if page.next.is_none() {
                    under_way.arc += 1;
                }
                let is_over = under_way.arc == under_way.partitions.get() || odd.is_some();
                return if is_over { (self.end(now, Ending::Ok), odd) } else { (Next::Ask, odd) };
            }
            Some(Response::Failed(failure)) => match failure.outcome() {
                driftless_proto::Outcome::Refused => Ending::Refused,
                driftless_proto::Outcome::Unknown => Ending::Unknown,
            },
            Some(other) => {
                return (self.end(now, Ending::Unknown), Some(format!("a scan was answered with {other:?}")));
            }
            None => Ending::Unknown,
        };
        match under_way.retries.checked_sub(1) {
            Some(left) => {
                under_way.retries = left;
                (Next::Ask, None)
            }
            None => (self.end(now, ending), None),
        }
    }

    fn end(&mut self, now: Micros, ending: Ending) -> Next {
        let UnderWay { walk, .. } = self.walk.take().expect("a walk is under way");
        Next::Done(Walk { returned: now, ending, ..walk })
    }
}

impl UnderWay {
    /// The ring may be divided anew: what follows is in the arc that the position is in now.
    fn go_by(&mut self, partitions: Partitions) {
        self.arc = match &self.after {
            Some(after) => partitions.arc_of(after.token).0,
            None => self.arc * (partitions.get() / self.partitions.get()),
        };
        self.partitions = partitions;
    }

    /// Keys come in order and each once, all of the arc, and a page that is not the last one leads on.
    fn oddity(&self, keys: &[Key], next: Option<&Cursor>, topology: &Topology) -> Option<String> {
        let bucket = topology.bucket(self.walk.bucket).expect("walks are through buckets that exist");
        let cursor = |key: &Key| Cursor { token: topology.place(bucket, key).token, key: Some(key.clone()) };
        let cursors: Vec<Cursor> = keys.iter().map(cursor).collect();
        let is_strange = |cursor: &&Cursor| {
            self.after.as_ref().is_some_and(|after| *cursor <= after)
                || next.is_some_and(|next| *cursor > next)
                || self.partitions.arc_of(cursor.token).0 != self.arc
        };
        if let Some(cursor) = cursors.iter().find(is_strange) {
            return Some(format!("a page of arc {} behind {:?} shows {:?}", self.arc, self.after, cursor.key));
        }
        if cursors.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Some(format!("a page shows {keys:?}, which is out of order"));
        }
        if next.is_some() && next <= self.after.as_ref() {
            return Some(format!("the page behind {:?} leads to {next:?}", self.after));
        }
        None
    }
}
