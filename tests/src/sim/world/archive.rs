//! What those do who keep what was known of keys.

use driftless_proto::client::Response;
use rand::Rng;

use super::super::archivist::Next;
use super::super::schedule::{Event, Micros};
use super::super::workload::Attempt;
use super::{Phase, World};

impl World {
    pub(super) fn archive_next(&mut self, archivist: usize) {
        let archive = &mut self.workload.archivists[archivist];
        if self.phase == Phase::Calm || !archive.rests() {
            return;
        }
        archive.begin(&self.profile, self.cluster.topology());
        self.ask_for_archive(archivist, 0);
    }

    fn ask_for_archive(&mut self, archivist: usize, pause: Micros) {
        let number = self.workload.number_attempt(Attempt::Archive { archivist });
        let before = self.workload.clients.len() + self.workload.walkers.len();
        let loss = self.profile.faults.client_loss;
        let archive = &mut self.workload.archivists[archivist];
        archive.attempt = Some(number);
        let (to, delay) = (self.cluster.any(&mut archive.rng), pause + archive.rng.random_range(50..800));
        let (low, high) = self.profile.patience;
        let remaining = archive.rng.random_range(low..high);
        if !archive.rng.random_bool(loss) {
            let (client, request) = (before + archivist, archive.request());
            self.schedule.after(delay, Event::Request { to, client, attempt: number, remaining, request });
        }
        let over = Event::Archived { archivist, attempt: number, response: None };
        self.schedule.after(delay + remaining + 20_000, over);
    }

    pub(super) fn archive_answered(&mut self, archivist: usize, attempt: u64, response: Option<Response>) {
        let archive = &mut self.workload.archivists[archivist];
        if archive.attempt != Some(attempt) {
            return;
        }
        let (next, odd) = archive.take(response);
        let pause = archive.rng.random_range(0..20_000);
        self.workload.history.oddities.extend(odd.map(|text| (None, text)));
        match next {
            Next::Ask if self.phase == Phase::Active => return self.ask_for_archive(archivist, 0),
            Next::Ask | Next::Failed => {}
            Next::Kept { pages } => {
                self.judges.coverage.add("states kept", 1);
                self.judges.coverage.add("states in several pages", u64::from(pages > 1));
            }
            Next::Merged => self.judges.coverage.add("states merged again", 1),
        }
        self.schedule.after(pause, Event::ArchiveNext { archivist });
    }
}
