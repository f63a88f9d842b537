//! What those do who list the keys of buckets.

use driftless_proto::client::Response;
use rand::Rng;

use super::super::history::Ending;
use super::super::schedule::{Event, Micros};
use super::super::trace::Line;
use super::super::walker::Next;
use super::{Asked, Phase, World};

impl World {
    /// Lets those who list keys walk through every bucket once more.
    pub fn list_all_buckets(&mut self) {
        let buckets: Vec<_> = self.topology.buckets().iter().map(|bucket| bucket.id).collect();
        for walker in 0..self.walkers.len() {
            self.walkers[walker].script.extend(&buckets);
            if !self.walkers[walker].walks() {
                self.schedule.after(0, Event::WalkNext { walker });
            }
        }
    }

    pub(super) fn walk_next(&mut self, walker: usize) {
        let (now, calm) = (self.schedule.now(), self.phase == Phase::Calm);
        let walks = &mut self.walkers[walker];
        if walks.walks() || (calm && walks.script.is_empty()) {
            return;
        }
        walks.begin(now, calm, &self.profile, &self.topology);
        self.ask_for_page(walker, 0);
    }

    fn ask_for_page(&mut self, walker: usize, pause: Micros) {
        let number = self.attempts.len() as u64 + 1;
        self.attempts.insert(number, Asked::Page { walker });
        let (nodes, loss) = (self.nodes.len(), self.profile.faults.client_loss);
        let walks = &mut self.walkers[walker];
        walks.attempt = Some(number);
        let (to, delay) = (walks.rng.random_range(0..nodes), pause + walks.rng.random_range(50..800));
        let calm = self.phase == Phase::Calm;
        let (low, high) = if calm { (2_000_000, 2_000_001) } else { self.profile.patience };
        let remaining = walks.rng.random_range(low..high);
        let is_lost = !calm && walks.rng.random_bool(loss);
        if !is_lost {
            let (client, request) = (self.clients.len() + walker, walks.request());
            self.schedule.after(delay, Event::Request { to, client, attempt: number, remaining, request });
        }
        self.schedule.after(delay + remaining + 20_000, Event::Page { walker, attempt: number, response: None });
    }

    pub(super) fn page_arrives(&mut self, walker: usize, attempt: u64, response: Option<&Response>) {
        let now = self.schedule.now();
        if self.walkers[walker].attempt != Some(attempt) {
            return;
        }
        let (next, odd) = self.walkers[walker].take(now, response, &self.topology);
        self.history.oddities.extend(odd.map(|text| (None, text)));
        let has_page = matches!(response, Some(Response::Page(_)));
        self.coverage.add("pages of scans", u64::from(has_page));
        match next {
            Next::Ask => {
                let pause = if has_page { 0 } else { self.walkers[walker].rng.random_range(0..30_000) };
                self.ask_for_page(walker, pause);
            }
            Next::Done(walk) => {
                self.coverage.add("scans ok", u64::from(walk.ending == Ending::Ok));
                self.coverage.add("scans that failed", u64::from(walk.ending != Ending::Ok));
                self.note("scan", &[walker as u64, walk.keys.len() as u64], || {
                    let text = format!("has listed {} keys of bucket {}", walk.keys.len(), walk.bucket.0);
                    Line::general(format!("w{walker}"), text)
                });
                self.history.walks.push(walk);
                let pause =
                    if self.phase == Phase::Calm { 0 } else { self.walkers[walker].rng.random_range(0..40_000) };
                self.schedule.after(pause, Event::WalkNext { walker });
            }
        }
    }
}
