//! What each key may hold: what was acknowledged last, or what was under way when the node went down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use driftless_client::Context;

use super::value::{Id, Key};
use crate::processes::kind_of;

/// All keys.
pub(super) struct Ledger {
    began: Instant,
    /// How often the node has been started.
    pub(super) life: u32,
    next: Id,
    stories: BTreeMap<Key, Story>,
    changed: BTreeSet<Key>,
    pub(super) counts: Counts,
    /// Why writes were refused or are unknown, and how often.
    pub(super) reasons: BTreeMap<String, u64>,
}

/// Writes, by what is known of them.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// Under way when the node went down: found afterwards, and not found.
    pub(super) found: u64,
    pub(super) not_found: u64,
    pub(super) overwrites: u64,
    pub(super) deletes: u64,
    /// Acknowledged values that are longer than a segment.
    pub(super) huge: u64,
    pub(super) bytes: u64,
}

/// What a key holds: the value of a write, or nothing.
type State = Option<Id>;

#[derive(Default)]
struct Story {
    /// What it held when that was last known.
    settled: State,
    /// A write after that, of which it is not known whether it happened.
    open: Option<State>,
    /// Of what is settled, for whoever writes next.
    context: Option<Context>,
    events: VecDeque<Event>,
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Ending {
    Acknowledged(Option<Context>),
    Refused(String),
    Unknown(String),
}

/// What was read of a key.
#[derive(Debug)]
pub(super) struct Found {
    /// For each value, whose write it is; `None` if nobody's.
    pub(super) values: Vec<Option<(String, Id)>>,
    pub(super) context: Option<Context>,
}

struct Event {
    id: Id,
    life: u32,
    at: Duration,
    what: What,
    said: Option<String>,
}

enum What {
    Put(usize),
    Delete,
    Read,
}

impl Ledger {
    pub(super) fn new() -> Ledger {
        Ledger {
            began: Instant::now(),
            life: 0,
            next: 1,
            stories: BTreeMap::new(),
            changed: BTreeSet::new(),
            counts: Counts::default(),
            reasons: BTreeMap::new(),
        }
    }

    /// Notes that a write begins: of so many bytes, or a delete. `None` if it is not known what the key holds.
    pub(super) fn begin(&mut self, key: Key, bytes: Option<usize>) -> Option<(Id, Option<Context>)> {
        let (id, life, at) = (self.next, self.life, self.began.elapsed());
        let story = self.stories.entry(key).or_default();
        if story.open.is_some() {
            return None;
        }
        self.next += 1;
        story.open = Some(bytes.map(|_| id));
        let what = bytes.map_or(What::Delete, What::Put);
        story.note(Event { id, life, at, what, said: None });
        self.changed.insert(key);
        Some((id, story.context.clone()))
    }

    /// Notes how it ended. One that never does was under way when the node went down.
    pub(super) fn end(&mut self, key: Key, id: Id, ending: Ending) {
        let story = self.stories.get_mut(&key).expect("it began");
        let event = story.events.iter_mut().rfind(|event| event.id == id).expect("it began");
        let counts = &mut self.counts;
        match ending {
            Ending::Acknowledged(context) => {
                event.said = Some("acknowledged".to_owned());
                counts.acknowledged += 1;
                match event.what {
                    What::Put(bytes) => {
                        counts.bytes += bytes as u64;
                        counts.huge += u64::from(bytes > super::segments::BYTES);
                        counts.overwrites += u64::from(story.settled.is_some());
                    }
                    What::Delete => counts.deletes += u64::from(story.settled.is_some()),
                    What::Read => {}
                }
                story.settled = story.open.take().expect("one write at a time");
                story.context = context;
            }
            Ending::Refused(why) => {
                *self.reasons.entry(format!("refused: {}", kind_of(first_clause(&why)))).or_default() += 1;
                event.said = Some(format!("refused: {why}"));
                counts.refused += 1;
                story.open = None;
            }
            Ending::Unknown(why) => {
                *self.reasons.entry(format!("unknown: {}", kind_of(first_clause(&why)))).or_default() += 1;
                event.said = Some(format!("unknown: {why}"));
            }
        }
    }

    /// Holds what was read against what may be there; in words, what is wrong. What is there is settled then.
    pub(super) fn check(&mut self, key: Key, found: Found) -> Result<(), String> {
        let (life, at) = (self.life, self.began.elapsed());
        let story = self.stories.entry(key).or_default();
        let name = key.to_string();
        let shown = match &found.values[..] {
            [] => Ok(None),
            [Some((of, id))] if *of == name => Ok(Some(*id)),
            [Some((of, id))] => Err(format!("holds #{id:x}, a value of {of}")),
            [None] => Err("holds what nobody has written".to_owned()),
            several => Err(format!("holds {} values: {several:x?}", several.len())),
        };
        let shown = shown.and_then(|shown| match story.open {
            _ if shown == story.settled => Ok(shown),
            Some(open) if shown == open => Ok(shown),
            _ => Err(story.wrong(shown)),
        });
        let shown = match shown {
            Ok(shown) => shown,
            Err(wrong) => return Err(format!("{key} {wrong}\n{story}")),
        };
        if let Some(open) = story.open.take() {
            let counter = if shown == open { &mut self.counts.found } else { &mut self.counts.not_found };
            *counter += 1;
            let said = Some(if shown == open { "as was under way" } else { "as before" }.to_owned());
            story.note(Event { id: shown.unwrap_or(0), life, at, what: What::Read, said });
        }
        story.settled = shown;
        story.context = found.context;
        self.changed.remove(&key);
        Ok(())
    }

    /// Keys that may have changed since they were last read.
    pub(super) fn changed(&self) -> Vec<Key> {
        self.changed.iter().copied().collect()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.stories.keys().copied().collect()
    }

    /// Keys that hold a value, and no others, if all were read since the last write.
    pub(super) fn live(&self) -> BTreeSet<String> {
        let live = self.stories.iter().filter(|(_, story)| story.settled.is_some());
        live.map(|(key, _)| key.to_string()).collect()
    }
}

impl Story {
    fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn wrong(&self, shown: State) -> String {
        let may = [Some(self.settled), self.open].into_iter().flatten().map(name).collect::<Vec<_>>().join(" or ");
        let shown = match shown {
            None => "holds nothing".to_owned(),
            Some(id) => {
                let event = self.events.iter().find(|event| event.id == id && !matches!(event.what, What::Read));
                let how = match event.map(|event| event.said.as_deref()) {
                    None => ", of long ago",
                    Some(Some(said)) if said.starts_with("refused") => ", which was refused",
                    Some(_) => ", of before",
                };
                format!("holds #{id:x}{how}")
            }
        };
        format!("{shown}; it may hold {may}")
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Event { id, life, at, what, said } in &self.events {
            write!(f, "    {:>11.4} s  life {life:<5} ", at.as_secs_f64())?;
            match what {
                What::Put(bytes) => write!(f, "#{id:x} put, {bytes} bytes")?,
                What::Delete => write!(f, "#{id:x} delete")?,
                What::Read => write!(f, "read {}", name(Some(*id).filter(|id| *id != 0)))?,
            }
            writeln!(f, ": {}", said.as_deref().unwrap_or("under way when the node went down"))?;
        }
        Ok(())
    }
}

/// What comes after it names the one write.
fn first_clause(why: &str) -> &str {
    why.split("; ").next().unwrap_or(why)
}

fn name(state: State) -> String {
    state.map_or("nothing".to_owned(), |id| format!("#{id:x}"))
}

/// Of a key's story; a run may have hundreds of writes to each.
const EVENTS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { writer: 1, place: 2 };

    fn found(id: Option<Id>) -> Found {
        Found { values: id.map(|id| Some((KEY.to_string(), id))).into_iter().collect(), context: None }
    }

    /// A key with one acknowledged value and, perhaps, a write after it.
    fn ledger(then: Option<Option<usize>>) -> (Ledger, Id, Option<Id>) {
        let mut ledger = Ledger::new();
        let (before, _) = ledger.begin(KEY, Some(20)).expect("nothing is open");
        ledger.end(KEY, before, Ending::Acknowledged(None));
        let (id, _) = ledger.begin(KEY, Some(20)).expect("nothing is open");
        ledger.end(KEY, id, Ending::Acknowledged(None));
        let open = then.map(|bytes| ledger.begin(KEY, bytes).expect("nothing is open").0);
        (ledger, id, open)
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let (mut settled, id, _) = ledger(None);
        assert_eq!(settled.check(KEY, found(Some(id))), Ok(()));
        assert_eq!(settled.changed(), []);
        for wrong in [None, Some(id - 1), Some(id + 1)] {
            let said = ledger(None).0.check(KEY, found(wrong)).expect_err("it is lost");
            assert!(said.contains(&format!("may hold #{id:x}\n")) && said.contains("acknowledged"), "{said}");
        }
    }

    #[test]
    fn what_was_under_way_may_be_there() {
        let (mut one, id, open) = ledger(Some(Some(20)));
        assert_eq!(one.check(KEY, found(open)), Ok(()));
        assert!(one.check(KEY, found(Some(id))).is_err(), "and what was once seen stays");
        let (mut other, id, open) = ledger(Some(Some(20)));
        assert!(other.begin(KEY, None).is_none(), "one write at a time");
        assert_eq!(other.check(KEY, found(Some(id))), Ok(()));
        assert!(other.check(KEY, found(open)).is_err(), "what was not there does not come later");
        assert_eq!(ledger(Some(None)).0.check(KEY, found(None)), Ok(()), "a delete under way");
        assert!(ledger(Some(Some(20))).0.check(KEY, found(None)).is_err(), "a put removes nothing");
    }

    #[test]
    fn what_was_deleted_or_refused_is_not_there() {
        let (mut deleted, id, open) = ledger(Some(None));
        deleted.end(KEY, open.expect("one is"), Ending::Acknowledged(None));
        assert!(deleted.check(KEY, found(Some(id))).is_err());
        assert_eq!(deleted.check(KEY, found(None)), Ok(()));
        let (mut refused, _, open) = ledger(Some(Some(20)));
        refused.end(KEY, open.expect("one is"), Ending::Refused("no room".to_owned()));
        let said = refused.check(KEY, found(open)).expect_err("it was refused");
        assert!(said.contains("which was refused"), "{said}");
    }

    #[test]
    fn what_nobody_wrote_there_is_not_there() {
        let (mut ledger, id, _) = ledger(None);
        let value = |of: &str| Some((of.to_owned(), id));
        for values in [vec![None], vec![value("1/3")], vec![value("1/2"), value("1/2")]] {
            assert!(ledger.check(KEY, Found { values, context: None }).is_err());
        }
    }
}
