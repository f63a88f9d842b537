//! What the nemesis does, and how it ends.

use std::collections::BTreeSet;

use rand::Rng;

use super::super::clock::SKEW_MS_MAX;
use super::super::faults::Fault;
use super::super::history::Slot;
use super::super::node::{Found, Input};
use super::super::profile::Damage;
use super::super::schedule::{Event, Micros};
use super::super::shape;
use super::super::trace::Line;
use super::{Phase, World};
use crate::damage::before_a_write;

impl World {
    /// Ends all faults and starts every node: from here on nothing is wrong.
    pub fn make_calm(&mut self) {
        self.say("everything heals");
        self.phase = Phase::Calm;
        self.cluster.network.calm();
        self.cluster.network.heal(&mut self.schedule);
        for node in self.cluster.numbers() {
            self.cluster[node].store.repair();
            self.cluster[node].sync_fails = false;
            if self.cluster[node].clock.skew_ms.abs() > SKEW_MS_MAX {
                self.cluster[node].clock.skew_ms = 0;
            }
            self.resume(node);
            // Damage that nobody happened to meet is met by the next start.
            if self.cluster[node].store.is_damaged() {
                self.kill(node, false);
            }
            for peer in self.cluster.numbers() {
                self.understand(node, peer);
            }
            if !self.cluster[node].runs() {
                self.start(node);
            }
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.cluster[node].runs() || self.cluster.has_left(node) || self.cluster[node].is_dead {
            return;
        }
        let now = self.schedule.now();
        self.cluster.start(node, now, &self.profile, &mut self.rng);
        self.cluster[node].found = Found::Own;
        let life = self.cluster[node].life;
        self.note("start", &[node as u64, life], || Line::general(shape::name_of(node), format!("starts life {life}")));
        self.cluster.network.started(node, &mut self.schedule);
        self.plan_turns(node);
    }

    /// A process dies; perhaps its machine loses power as well.
    pub(super) fn crash(&mut self, node: usize, down: Micros) {
        let power = self.nemesis.rng.random_bool(self.profile.faults.power);
        self.kill(node, power);
        self.schedule.after(down, Event::Restart { node });
    }

    /// A node has stamped these keys. If it did so as a fallback: it dies soon, and no fallback can reach a primary meanwhile.
    pub(super) fn strike_fallback(&mut self, node: usize, stamped: &BTreeSet<Slot>) {
        if self.profile.fallback_dies == 0.0 || self.phase != Phase::Active {
            return;
        }
        let mut primaries = stamped.iter().map(|slot| self.cluster.owners(slot));
        let Some(these) = primaries.find(|primaries| !primaries.contains(&node)) else { return };
        if !self.nemesis.rng.random_bool(self.profile.fallback_dies) {
            return;
        }
        self.judges.coverage.add("fallbacks struck as they stamped", 1);
        let those = self.cluster.numbers().filter(|other| !these.contains(other)).collect();
        let lasts = self.nemesis.rng.random_range(20_000..200_000);
        self.schedule.after(1, Event::Fault(Fault::Split { these, those, lasts }));
        let delay = self.nemesis.rng.random_range(500..10_000);
        self.schedule.after(delay, Event::CrashSoon { node, life: self.cluster[node].life });
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        let ends =
            matches!(fault, Fault::Heal | Fault::Resume { .. } | Fault::DiskRoom { .. } | Fault::Understand { .. });
        let is_of_the_past = fault.nodes().into_iter().any(|node| self.cluster.has_left(node));
        if (self.phase != Phase::Active && !ends) || is_of_the_past {
            return;
        }
        self.say(format_args!("{fault:?}"));
        match fault {
            Fault::Crash { node, down } => self.crash(node, down),
            Fault::PowerCut => {
                self.judges.coverage.add("power cuts", 1);
                for node in self.cluster.numbers() {
                    self.kill(node, true);
                    let down = self.nemesis.rng.random_range(2_000..200_000);
                    self.schedule.after(down, Event::Restart { node });
                }
            }
            Fault::Partition { side, lasts } => {
                for a in self.cluster.numbers() {
                    for b in self.cluster.numbers().filter(|b| side.contains(&a) != side.contains(b)) {
                        self.cluster.network.cut(a, b, &mut self.schedule);
                    }
                }
                self.judges.coverage.add("partitions", 1);
                self.schedule.after(lasts, Event::Fault(Fault::Heal));
            }
            Fault::Split { these, those, lasts } => {
                self.judges.coverage.add("splits", 1);
                for (a, b) in these.iter().flat_map(|a| those.iter().map(|b| (*a, *b))) {
                    self.cluster.network.cut(a, b, &mut self.schedule);
                    self.cluster.network.cut(b, a, &mut self.schedule);
                    if self.cluster.network.close(a, b, &mut self.schedule) {
                        self.connection_lost(a, b);
                    }
                }
                self.schedule.after(lasts, Event::Fault(Fault::Heal));
            }
            Fault::OneWayCut { from, to, lasts } => {
                self.judges.coverage.add("one-way cuts", 1);
                self.cluster.network.cut(from, to, &mut self.schedule);
                self.schedule.after(lasts, Event::Fault(Fault::Heal));
            }
            Fault::Heal => {
                let healed = self.cluster.network.heal(&mut self.schedule);
                self.judges.coverage.add("partitions healed", u64::from(healed > 1));
            }
            Fault::Pause { node, lasts } => {
                if self.cluster[node].runs() {
                    self.judges.coverage.add("pauses", 1);
                    self.cluster[node].paused = true;
                    self.schedule.after(lasts, Event::Fault(Fault::Resume { node }));
                }
            }
            Fault::Resume { node } => self.resume(node),
            Fault::ClockJump { node, skew_ms } => {
                self.judges
                    .coverage
                    .add(if skew_ms.abs() > SKEW_MS_MAX { "clocks a day off" } else { "clock jumps" }, 1);
                self.cluster[node].clock.skew_ms = skew_ms;
            }
            Fault::DiskFull { node, lasts } => {
                self.judges.coverage.add("disk full phases", 1);
                self.cluster[node].store.set_full(true);
                self.schedule.after(lasts, Event::Fault(Fault::DiskRoom { node }));
            }
            Fault::DiskRoom { node } => self.cluster[node].store.set_full(false),
            Fault::DiskFails { node } => {
                let written = self.nemesis.rng.random_bool(0.5);
                self.cluster[node].store.fail_next_apply(written);
            }
            Fault::SyncFails { node } => self.cluster[node].sync_fails = true,
            Fault::ReadFails { node, reading } => self.cluster[node].store.fail_next_read(reading),
            Fault::Rot { node, how_many, down } => {
                if let Some(down) = down
                    && self.cluster[node].runs()
                {
                    self.kill(node, false);
                    self.schedule.after(down, Event::Restart { node });
                }
                self.rot(node, how_many);
            }
            Fault::CopyDisk { node, live } => {
                let found = if live { Found::Copy } else { Found::Backup };
                self.nemesis.copied = Some((node, found, self.cluster[node].store.image(live)));
            }
            Fault::RollBack { down } => self.roll_back(down),
            Fault::Misjudge { node, peer, liveness, lasts } => {
                self.judges.coverage.add("wrong suspicions", 1);
                self.give(node, Input::Misjudged(self.cluster[peer].id, Some(liveness)));
                self.schedule.after(lasts, Event::Fault(Fault::Understand { node, peer }));
            }
            Fault::Understand { node, peer } => self.understand(node, peer),
            Fault::Claim { node } => self.claim(node),
            Fault::Suspect { node, peer } => {
                if self.cluster.network.close(node, peer, &mut self.schedule) {
                    self.connection_lost(node, peer);
                }
            }
        }
    }

    /// A node starts on the copy of its disk that was made earlier, with what it has forgotten since.
    fn roll_back(&mut self, down: Micros) {
        let copied = self.nemesis.copied.take().filter(|(node, ..)| !self.cluster.has_left(*node));
        let Some((node, found, image)) = copied else { return };
        self.judges.coverage.add("rollbacks", 1);
        self.kill(node, true);
        self.cluster[node].store.restore(image);
        self.cluster[node].found = found;
        self.nemesis.set_back = Some(node);
        let now = self.schedule.now();
        self.judges.losses.push(now);
        self.judges.disk_losses.set_back(node, now);
        self.note("rollback", &[node as u64], || {
            Line::general(shape::name_of(node), format!("will start on a disk of earlier: {found:?}"))
        });
        self.schedule.after(down, Event::Restart { node });
        self.judge(&format!("after n{node} was set back at {now} µs"));
    }

    /// Stops a node, damages its disk behind its back, and starts it again. Answers which, and how many records it
    /// lost or holds an older state of. Only records with other copies are damaged.
    pub fn damage(&mut self, damage: Damage) -> (usize, usize) {
        let node = self.cluster.any(&mut self.nemesis.rng);
        self.kill(node, false);
        let rng = &mut self.nemesis.rng;
        let altered = self.cluster[node].store.alter(|key, value| {
            let copies = key[1];
            match damage {
                _ if copies == 1 => None,
                Damage::All => Some(None),
                Damage::Some if rng.random_bool(0.5) => None,
                Damage::Some if rng.random_bool(0.5) => Some(None),
                Damage::Some => Some(before_a_write(key, value)),
            }
        });
        self.say(format_args!("n{node} lost {altered} records behind its back: {damage:?}"));
        self.start(node);
        (node, altered)
    }

    fn understand(&mut self, node: usize, peer: usize) {
        if node != peer {
            self.give(node, Input::Misjudged(self.cluster[peer].id, None));
        }
    }

    fn resume(&mut self, node: usize) {
        if std::mem::take(&mut self.cluster[node].paused) {
            // What came meanwhile waits in the inbox, and deadlines have passed.
            for shard in &mut self.cluster[node].shards {
                shard.turn_planned = false;
                shard.timer_planned = None;
            }
            self.plan_turns(node);
        }
    }

    fn plan_turns(&mut self, node: usize) {
        for shard in 0..self.cluster[node].shards.len() {
            self.plan_turn(node, shard);
        }
    }

    pub(super) fn kill(&mut self, node: usize, power: bool) {
        if !self.cluster[node].runs() {
            return;
        }
        self.judges.coverage.add("crashes", 1);
        self.cluster[node].stop();
        self.cluster.network.stopped(node, &mut self.schedule);
        let lost = if power {
            let keep_some = self.nemesis.rng.random_bool(self.profile.faults.keep_some);
            let rng = &mut self.nemesis.rng;
            self.cluster[node].store.power_cut(|| keep_some && rng.random_bool(0.5))
        } else {
            self.cluster[node].store.process_death();
            0
        };
        self.note_restored(node);
        let what = if power { "loses power" } else { "dies" };
        self.note("crash", &[node as u64, u64::from(power), lost], || {
            Line::general(shape::name_of(node), format!("{what}; {lost} unsynced batches are gone"))
        });
        if lost > 0 {
            self.judges.coverage.add("crashes with unsynced data lost", 1);
            self.judges.losses.push(self.schedule.now());
        }
        self.judge(&format!("after n{node} {what} at {} µs", self.schedule.now()));
        // Who waits for an answer often learns from the operating system that none will come.
        for client in 0..self.workload.clients.len() {
            if let Some(current) = self.workload.clients[client].current.as_ref().filter(|current| current.node == node)
                && self.nemesis.rng.random_bool(0.5)
            {
                let attempt = current.attempt;
                let delay = self.nemesis.rng.random_range(500..20_000);
                self.schedule.after(delay, Event::ClientTimeout { client, attempt });
            }
        }
    }
}
