//! What those do who keep what was known of keys.

use std::collections::BTreeSet;

use driftless_proto::client::Response;
use driftless_proto::{Siblings, Version};
use rand::Rng;

use super::super::archivist::Next;
use super::super::generator::Intention;
use super::super::history::{Ending, Slot};
use super::super::schedule::{Event, Micros};
use super::super::workload::Attempt;
use super::{Phase, World};

impl World {
    pub(super) fn archive_next(&mut self, archivist: usize) {
        let archive = &mut self.workload.archivists[archivist];
        if self.phase == Phase::Calm || !archive.rests() {
            return;
        }
        archive.begin(self.schedule.now(), &self.profile, self.cluster.topology());
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
            Next::Kept { slot, r, state, answers, began } => {
                self.judges.coverage.add("states kept", 1);
                self.judges.coverage.add("states in several pages", u64::from(answers > 1));
                self.note_kept(archivist, slot, r, &state, began);
            }
            Next::Merged => self.judges.coverage.add("states merged again", 1),
        }
        self.schedule.after(pause, Event::ArchiveNext { archivist });
    }

    /// What a state shows is what a strict get of its values would have shown.
    fn note_kept(&mut self, archivist: usize, slot: Slot, r: Option<u8>, state: &Siblings, began: Micros) {
        let before = self.workload.clients.len() + self.workload.walkers.len();
        let mut kept = self.operation(before + archivist, &Intention { r, ..Intention::watch(slot.clone()) });
        let history = &self.workload.history;
        let written = |version: &Version| history.written(&slot, version.value.as_ref()?);
        // Each stamp of a write is in a state, and to a reader two of them are one value.
        let mut shown = BTreeSet::new();
        kept.values = state.values().filter_map(written).filter(|id| shown.insert(*id)).collect();
        kept.vv = state.vv().clone();
        (kept.invoked, kept.returned, kept.ending) = (began, self.schedule.now(), Ending::Ok);
        self.workload.history.invoke(kept);
    }
}
