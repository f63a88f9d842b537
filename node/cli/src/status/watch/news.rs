//! What has changed from one sight of the cluster to the next. Counts that rise and fall are no news; what begins and ends is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use super::machine::Watch;
use super::words::named;
use crate::output::Tone;

/// The last of them, and what the next sight is compared with.
#[derive(Default)]
pub(super) struct News {
    told: VecDeque<Event>,
    seen: Option<Essence>,
    /// For whom hints are held, and in how many sights in a row.
    held: BTreeMap<String, u32>,
}

/// Something that has changed.
pub(super) struct Event {
    pub(super) at: SystemTime,
    pub(super) text: String,
    pub(super) tone: Option<Tone>,
}

/// What is compared.
struct Essence {
    nodes: BTreeMap<String, Standing>,
    troubles: BTreeMap<(String, String, Option<String>), String>,
    version: u64,
    is_moving: bool,
}

#[derive(Clone)]
struct Standing {
    state: &'static str,
    stays: bool,
    is_heard: bool,
    /// Uptime and release. Of a node that is silent: what it has said last.
    life: Option<(u64, String)>,
}

impl News {
    /// The newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.told.iter()
    }

    /// Looks at the cluster again.
    pub(super) fn handle_sight(&mut self, at: SystemTime, watch: &Watch) {
        let mut next = Essence::of(watch);
        let Some(last) = self.seen.take() else {
            self.seen = Some(next);
            return;
        };
        let mut texts: Vec<(String, Option<Tone>)> = Vec::new();
        let mut tell = |text: String, tone| texts.push((text, tone));
        let version = next.version;
        if version != last.version {
            tell(format!("version {version} of the members counts"), None);
        }
        match (last.is_moving, next.is_moving) {
            (true, false) => {
                tell(format!("version {version} is settled: nothing changes hands any more"), Some(Tone::Good));
            }
            (false, true) => tell("partitions begin to change hands".to_owned(), None),
            _ => {}
        }
        for (name, node) in &mut next.nodes {
            match last.nodes.get(name) {
                None => tell(format!("{name} is among the members"), None),
                Some(before) => node.tell(name, before, &mut tell),
            }
        }
        for name in last.nodes.keys().filter(|name| !next.nodes.contains_key(*name)) {
            tell(format!("{name} is no member any more"), None);
        }
        next.tell_troubles(&last, &mut tell);
        self.tell_hints(watch, &mut tell);
        for (text, tone) in texts {
            self.told.push_front(Event { at, text, tone });
        }
        self.told.truncate(EVENTS_MAX);
        self.seen = Some(next);
    }

    /// Under load some write is late now and then, and a hint of it is kept for a moment: news is what is there for longer.
    fn tell_hints(&mut self, watch: &Watch, tell: &mut impl FnMut(String, Option<Tone>)) {
        let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, figures) in watch.figures() {
            for hints in figures.hints.iter().filter(|hints| hints.keys > 0) {
                holders.entry(&hints.target).or_default().push(name);
            }
        }
        for (target, holders) in &holders {
            let sights = self.held.entry((*target).to_owned()).or_default();
            *sights = sights.saturating_add(1);
            if *sights == HELD_FOR {
                tell(format!("hints are held for {target}, by {}", named(holders.iter().copied())), None);
            }
        }
        self.held.retain(|target, sights| {
            let is_held = holders.contains_key(target.as_str());
            if !is_held && *sights >= HELD_FOR {
                tell(format!("no hints are held for {target} any more"), Some(Tone::Good));
            }
            is_held
        });
    }
}

impl Essence {
    fn of(watch: &Watch) -> Essence {
        let nodes = watch.nodes().iter().map(|node| {
            let status = node.status();
            let standing = Standing {
                state: watch.state(node),
                stays: node.stays,
                is_heard: status.is_some(),
                life: status.map(|status| (status.uptime_ms, status.version.clone())),
            };
            (node.member.name.clone(), standing)
        });
        let troubles = watch.troubles().into_iter().map(|trouble| {
            let condition = trouble.condition;
            ((trouble.node.to_owned(), condition.name.clone(), condition.peer.clone()), condition.what.clone())
        });
        Essence {
            nodes: nodes.collect(),
            troubles: troubles.collect(),
            version: watch.topology().map_or(0, |topology| topology.ring().version().0),
            is_moving: watch.moving().is_some(),
        }
    }

    /// What begins and what is over. That a node is away has been told, and not once more by each of the others.
    fn tell_troubles(&self, last: &Essence, tell: &mut impl FnMut(String, Option<Tone>)) {
        let is_away = |essence: &Essence, peer: &str| essence.nodes.get(peer).is_none_or(|node| node.state != "up");
        let is_told =
            |peer: &Option<String>| peer.as_deref().is_some_and(|peer| is_away(self, peer) || is_away(last, peer));
        let is_heard = |node: &str| self.nodes.get(node).is_some_and(|node| node.is_heard);
        let mut begun: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut over: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (key, what) in self.troubles.iter().filter(|(key, _)| !last.troubles.contains_key(key) && !is_told(&key.2))
        {
            begun.entry(what).or_default().insert(&key.0);
        }
        // Of a node that is silent it is not known.
        for (key, what) in last.troubles.iter().filter(|(key, _)| !self.troubles.contains_key(key)) {
            if is_heard(&key.0) && !is_told(&key.2) {
                over.entry(what).or_default().insert(&key.0);
            }
        }
        for (what, nodes) in begun {
            tell(format!("{}: {what}", named(nodes)), Some(Tone::Bad));
        }
        for (what, nodes) in over {
            tell(format!("{}: over: {what}", named(nodes)), None);
        }
    }
}

impl Standing {
    fn tell(&mut self, name: &str, before: &Standing, tell: &mut impl FnMut(String, Option<Tone>)) {
        if self.state != before.state {
            match self.state {
                "up" => tell(format!("{name} answers"), Some(Tone::Good)),
                "down" => tell(format!("{name} is down"), Some(Tone::Bad)),
                _ => tell(format!("{name} does not answer"), Some(Tone::Bad)),
            }
        }
        if before.stays && !self.stays {
            tell(format!("{name} leaves"), None);
        }
        match (&before.life, &self.life) {
            (Some((then, old)), Some((now, new))) => {
                if now < then {
                    tell(format!("{name} has started again"), None);
                }
                if old != new {
                    tell(format!("{name} runs release {new}, before: {old}"), None);
                }
            }
            (Some(_), None) => self.life.clone_from(&before.life),
            (None, _) => {}
        }
    }
}

const EVENTS_MAX: usize = 100;

/// Sights in a row.
const HELD_FOR: u32 = 8;
