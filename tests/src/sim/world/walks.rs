//! What those do who list the keys of buckets.

use driftless_proto::client::Response;
use rand::Rng;

use super::super::history::Ending;
use super::super::schedule::{Event, Micros};
use super::super::trace::Line;
use super::super::walker::Next;
use super::super::workload::Attempt;
use super::{Phase, World};

impl World {
    /// Lets those who list keys walk through every bucket once more.
    pub fn list_all_buckets(&mut self) {
        let buckets: Vec<_> = self.cluster.topology().buckets().iter().map(|bucket| bucket.id).collect();
        for walker in 0..self.workload.walkers.len() {
            self.workload.walkers[walker].script.extend(&buckets);
            if !self.workload.walkers[walker].walks() {
                self.schedule.after(0, Event::WalkNext { walker });
            }
        }
    }

    pub(super) fn walk_next(&mut self, walker: usize) {
        let (now, calm) = (self.schedule.now(), self.phase == Phase::Calm);
        let walks = &mut self.workload.walkers[walker];
        if walks.walks() || (calm && walks.script.is_empty()) {
            return;
        }
        walks.begin(now, calm, &self.profile, self.cluster.topology());
        self.ask_for_page(walker, 0);
    }

    fn ask_for_page(&mut self, walker: usize, pause: Micros) {
        let number = self.workload.number_attempt(Attempt::Page { walker });
        let loss = self.profile.faults.client_loss;
        let walks = &mut self.workload.walkers[walker];
        walks.attempt = Some(number);
        let (to, delay) = (self.cluster.any(&mut walks.rng), pause + walks.rng.random_range(50..800));
        let calm = self.phase == Phase::Calm;
        let (low, high) = if calm { (2_000_000, 2_000_001) } else { self.profile.patience };
        let remaining = walks.rng.random_range(low..high);
        let is_lost = !calm && walks.rng.random_bool(loss);
        if !is_lost {
            let request = walks.request(self.cluster.topology());
            let client = self.workload.clients.len() + walker;
            self.schedule.after(delay, Event::Request { to, client, attempt: number, remaining, request });
        }
        self.schedule.after(delay + remaining + 20_000, Event::Page { walker, attempt: number, response: None });
    }

    pub(super) fn page_arrives(&mut self, walker: usize, attempt: u64, response: Option<&Response>) {
        let now = self.schedule.now();
        if self.workload.walkers[walker].attempt != Some(attempt) {
            return;
        }
        let (next, odd) = self.workload.walkers[walker].take(now, response, self.cluster.topology());
        self.workload.history.oddities.extend(odd.map(|text| (None, text)));
        let has_page = matches!(response, Some(Response::Page(_)));
        self.judges.coverage.add("pages of scans", u64::from(has_page));
        match next {
            Next::Ask => {
                let pause = if has_page { 0 } else { self.workload.walkers[walker].rng.random_range(0..30_000) };
                self.ask_for_page(walker, pause);
            }
            Next::Done(walk) => {
                self.judges.coverage.add("scans ok", u64::from(walk.ending == Ending::Ok));
                self.judges.coverage.add("scans that failed", u64::from(walk.ending != Ending::Ok));
                self.note("scan", &[walker as u64, walk.keys.len() as u64], || {
                    let text = format!("has listed {} keys of bucket {}", walk.keys.len(), walk.bucket.0);
                    Line::general(format!("w{walker}"), text)
                });
                self.workload.history.walks.push(walk);
                let pause = if self.phase == Phase::Calm {
                    0
                } else {
                    self.workload.walkers[walker].rng.random_range(0..40_000)
                };
                self.schedule.after(pause, Event::WalkNext { walker });
            }
        }
    }
}
