//! Campaigns: a log on a simulated disk whose power goes, whose process dies at any write, and whose syncs fail; with the keeper's steps
//! between everything else. What is found afterwards must be what some batch has left, none of them older than the last sync.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _};

use super::platter::Platter;
use super::worker::Worker as _;
use super::*;
#[cfg(feature = "planted-bugs")]
use crate::planted::Bug;

/// What a log must hold: the state after each batch since the last sync, the oldest first.
struct Model {
    states: Vec<BTreeMap<Bytes, Bytes>>,
    /// A batch was under way when the process died.
    attempted: Option<BTreeMap<Bytes, Bytes>>,
}

/// A log on a simulated disk, and what happens to it.
struct World {
    seed: u64,
    random: StdRng,
    platter: Platter,
    planted: Planted,
    log: Arc<Log>,
    keeper: Keeper,
    filler: Filler,
    model: Model,
    tally: Tally,
    history: Vec<String>,
}

/// How often each thing has happened, so that nobody takes an empty campaign for a good one.
type Tally = BTreeMap<&'static str, u64>;

/// What must happen.
const MET: [&str; 10] = [
    "power cuts",
    "deaths",
    "deaths while opening",
    "batches lost that were not synced",
    "segments merged",
    "segments recycled",
    "values longer than a segment",
    "removals",
    "failed syncs",
    "refused for a shortage",
];

const LAYOUT: Layout = Layout { prefix: b"r", arc_bits: 8 };

fn options(planted: Planted, segment_bytes: u64) -> LogOptions {
    LogOptions { layout: LAYOUT, segment_bytes, planted, ..LogOptions::default() }
}

fn space() -> Space {
    Space::new(ResourceProbe::new(|| Ok(1 << 40)), 0)
}

fn open_on(
    platter: &Platter,
    random: &mut StdRng,
    planted: &Planted,
) -> Result<(Arc<Log>, Keeper, Filler), StoreError> {
    // As if an operator had changed it between two starts.
    let segment_bytes = if random.random_bool(0.9) { 64 << 10 } else { 96 << 10 };
    let options = options(planted.clone(), segment_bytes);
    let random = StdRng::seed_from_u64(random.next_u64());
    let Opened { log, freed } = open_log(Box::new(platter.clone()), "test".into(), space(), random, &options)?;
    // What happens must not depend on how long it takes.
    log.head().admission.retry = Duration::ZERO;
    Ok((Arc::clone(&log), Keeper::new(Arc::clone(&log), freed), Filler::new(log)))
}

fn all_of(log: &Log) -> BTreeMap<Bytes, Bytes> {
    let mut found = BTreeMap::new();
    let mut last: Option<Bytes> = None;
    log.scan(&b"\0"[..]..&b"\xff"[..], &mut |key, value| {
        let key = Bytes::copy_from_slice(key);
        assert!(last.as_ref().is_none_or(|last| *last < key), "out of order");
        last = Some(key.clone());
        found.insert(key, value);
        ControlFlow::Continue(())
    })
    .expect("the log works");
    found
}

impl World {
    fn new(seed: u64, planted: Planted) -> World {
        let (mut random, platter) = (StdRng::seed_from_u64(seed), Platter::default());
        while random.random_bool(0.5) {
            // The first start is interrupted.
            platter.die_after(random.random_range(0..12));
            drop(open_on(&platter, &mut random, &planted));
            platter.revive();
            if random.random_bool(0.5) {
                platter.cut_power(&mut random);
            }
        }
        let (log, keeper, filler) = open_on(&platter, &mut random, &planted).expect("a new log");
        let model = Model { states: vec![BTreeMap::new()], attempted: None };
        World {
            seed,
            random,
            platter,
            planted,
            log,
            keeper,
            filler,
            model,
            tally: Tally::default(),
            history: Vec::new(),
        }
    }

    fn met(&mut self, what: &'static str, times: u64) {
        *self.tally.entry(what).or_default() += times;
    }

    fn batch(&mut self) -> Batch {
        let mut changes = Vec::new();
        let huge = self.random.random_bool(0.01);
        for _ in 0..self.random.random_range(1..6) {
            let number = self.random.random_range(0..40_u32);
            let key = if self.random.random_bool(0.7) {
                // Several keys of a token, and tokens of several arcs.
                let mut key = vec![b'r', (number % 2) as u8];
                key.extend(u64::from(number / 4).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                key.extend(format!("key {number}").bytes());
                Bytes::from(key)
            } else {
                Bytes::from(format!("{}{number}", if number % 2 == 0 { "a" } else { "z" }))
            };
            let removes = self.random.random_bool(0.3);
            let length = match self.random.random_range(0..10) {
                0 => self.random.random_range(0..20_000),
                1 if huge => self.random.random_range(60_000..200_000),
                _ => self.random.random_range(0..600),
            };
            self.met("values longer than a segment", u64::from(length > 60_000 && !removes));
            let fill = self.random.random::<u8>();
            changes.push((key, (!removes).then(|| Bytes::from(vec![fill; length]))));
        }
        Batch { changes }
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        let batch = self.batch();
        let mut next = self.model.states.last().expect("there is a state").clone();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => {
                    next.insert(key.clone(), value.clone());
                }
                None => self.met("removals", u64::from(next.remove(key).is_some())),
            }
        }
        match self.log.apply(&batch) {
            Ok(()) => self.model.states.push(next),
            Err(ApplyError::Failed(error)) => {
                self.model.attempted = Some(next);
                return Err(error);
            }
            Err(ApplyError::Full(_)) => self.met("refused for a shortage", 1),
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.log.sync()?;
        self.model.states.drain(..self.model.states.len() - 1);
        Ok(())
    }

    fn keep(&mut self) -> Result<(), StoreError> {
        let spares = self.log.head().spares.len();
        for _ in 0..self.random.random_range(1..40) {
            let merging = self.keeper.is_merging();
            self.keeper.step()?;
            if self.random.random_bool(0.3) {
                self.filler.step()?;
            }
            self.met("segments merged", u64::from(!merging && self.keeper.is_merging()));
        }
        let more = self.log.head().spares.len() > spares;
        self.met("segments recycled", u64::from(more));
        Ok(())
    }

    fn step(&mut self) {
        let what = self.random.random_range(0..100);
        let dies = self.random.random_bool(0.02);
        if dies {
            let after = self.random.random_range(0..12);
            self.platter.die_after(after);
        }
        if self.random.random_bool(0.03) {
            let after = self.random.random_range(0..4);
            self.platter.run_short_after(after);
        }
        let done = match what {
            0..60 => self.apply(),
            60..75 => self.sync(),
            75..95 => self.keep(),
            95 => self.fail_sync(),
            _ => {
                self.compare();
                Ok(())
            }
        };
        self.history.push(format!("{what} {done:?}"));
        if dies || done.is_err() {
            self.start_again();
        }
    }

    fn fail_sync(&mut self) -> Result<(), StoreError> {
        self.platter.fail_next_sync();
        let done = self.sync();
        self.met("failed syncs", u64::from(done.is_err()));
        done
    }

    fn start_again(&mut self) {
        let mut exact = true;
        loop {
            self.platter.revive();
            if self.random.random_bool(0.6) {
                self.platter.cut_power(&mut self.random);
                self.met("power cuts", 1);
                exact = false;
                self.history.push("power cut".into());
            } else {
                self.met("deaths", 1);
                self.history.push("death".into());
            }
            let dies = self.random.random_bool(0.3);
            if dies {
                let after = self.random.random_range(0..20);
                self.platter.die_after(after);
            }
            match open_on(&self.platter, &mut self.random, &self.planted) {
                Ok((log, keeper, filler)) => {
                    (self.log, self.keeper, self.filler) = (log, keeper, filler);
                    self.platter.revive();
                    break;
                }
                Err(error) if dies => {
                    self.history.push(format!("opening: {error}"));
                    self.met("deaths while opening", 1);
                }
                Err(error) => panic!("cannot be opened: {error}\n{:#?}", self.history),
            }
        }
        let found = all_of(&self.log);
        let Model { mut states, attempted } =
            std::mem::replace(&mut self.model, Model { states: Vec::new(), attempted: None });
        let newest = states.len() - 1;
        states.extend(attempted);
        let at = states.iter().rposition(|state| *state == found);
        let Some(at) = at else {
            let wanted = states.last().cloned().unwrap_or_default();
            let differing = found.iter().map(|(key, value)| (key, Some(value.len()), wanted.get(key).map(Bytes::len)));
            let missing = wanted
                .iter()
                .filter(|(key, _)| !found.contains_key(*key))
                .map(|(key, value)| (key, None, Some(value.len())));
            let differing: Vec<_> =
                differing.filter(|(key, _, _)| found.get(*key) != wanted.get(*key)).chain(missing).collect();
            panic!(
                "seed {}: what is there is not what any batch has left: {differing:?} {:#?}",
                self.seed, self.history
            );
        };
        assert!(!exact || at >= newest, "a batch that had left the process is gone: {:#?}", self.history);
        self.met("batches lost that were not synced", (newest.saturating_sub(at)) as u64);
        self.history.push(format!("found {at} of {newest}"));
        self.model.states = vec![found];
    }

    /// What is read is what was written.
    fn compare(&mut self) {
        let expected = self.model.states.last().expect("there is a state");
        assert_eq!(all_of(&self.log), *expected, "{:#?}", self.history);
        for number in 0..4 {
            let keys: Vec<_> = expected.keys().collect();
            if let Some(key) = keys.choose(&mut self.random) {
                assert_eq!(self.log.get(key), Ok(expected.get(*key).cloned()), "{number}");
            }
        }
        let live: u64 = self.log.head().in_use().map(|(_, used)| used.live).sum();
        let records = expected.iter().map(|(key, value)| frame::record_bytes(key, Some(value)) as u64).sum::<u64>();
        assert_eq!(live, records, "what is live is counted rightly");
    }
}

fn campaign(seeds: std::ops::Range<u64>, steps: usize, planted: &Planted) -> Tally {
    let mut total = Tally::default();
    for seed in seeds {
        let mut world = World::new(seed, planted.clone());
        (0..steps).for_each(|_| world.step());
        world.start_again();
        world.compare();
        for (what, times) in world.tally {
            *total.entry(what).or_default() += times;
        }
    }
    total
}

/// How many worlds: more of them by DRIFTLESS_LOG_WORLDS.
fn worlds() -> u64 {
    std::env::var("DRIFTLESS_LOG_WORLDS").ok().and_then(|worlds| worlds.parse().ok()).unwrap_or(100)
}

#[test]
fn nothing_synced_is_lost_whenever_the_power_goes_or_the_process_dies() {
    let tally = campaign(0..worlds(), 400, &Planted::default());
    for what in MET {
        assert!(tally.get(what).is_some_and(|times| *times >= worlds() / 4), "{what}: {tally:?}");
    }
}

/// A campaign that makes a mistake, and whether anybody noticed.
#[cfg(feature = "planted-bugs")]
#[test]
fn each_mistake_in_the_log_is_noticed() {
    for bug in [
        Bug::SyncSkipped,
        Bug::WatermarkAhead,
        Bug::FrameUnchecked,
        Bug::SaltIgnored,
        Bug::UnsyncedServed,
        Bug::SegmentReusedEarly,
        Bug::RemovalDroppedEarly,
    ] {
        crate::planted::assert_noticed(bug, |planted| {
            campaign(0..200, 400, &planted);
        });
    }
}
