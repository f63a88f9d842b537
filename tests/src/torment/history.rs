//! What clients asked and were told, key by key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::value::Id;

/// Microseconds since the history began.
pub(super) type Micros = u64;

/// Everything since the last time it was judged.
#[derive(Debug)]
pub(super) struct History {
    began: Instant,
    next: Id,
    keys: BTreeMap<String, Vec<Operation>>,
    /// The first write of this round; elements of earlier ones have been judged.
    first: Id,
    /// When a disk was lost, if one was in this round.
    pub(super) disk_lost: Option<Micros>,
}

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Get,
    Put,
    /// With the context of a read.
    Delete,
    /// Without: the node reads for itself.
    BlindDelete,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Pending,
    Ok,
    Refused,
    Unknown,
}

/// One operation of a client, with all its attempts.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) id: Id,
    pub(super) client: usize,
    pub(super) kind: Kind,
    /// Whether only primaries could count.
    pub(super) strict: bool,
    /// Writes that the context of this one had seen.
    pub(super) seen: Vec<Id>,
    /// Writes that a read showed, in order.
    pub(super) shown: Vec<Id>,
    pub(super) invoked: Micros,
    pub(super) returned: Micros,
    pub(super) ending: Ending,
    /// Whether two coordinators may have stamped it.
    pub(super) twice: bool,
    pub(super) error: Option<Box<str>>,
}

impl Operation {
    /// One that has just begun; the history numbers it.
    pub(super) fn new(client: usize, kind: Kind, strict: bool, seen: Vec<Id>) -> Operation {
        Operation {
            id: 0,
            client,
            kind,
            strict,
            seen,
            shown: Vec::new(),
            invoked: 0,
            returned: Micros::MAX,
            ending: Ending::Pending,
            twice: false,
            error: None,
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.ending == Ending::Ok
    }

    pub(super) fn is_delete(&self) -> bool {
        matches!(self.kind, Kind::Delete | Kind::BlindDelete)
    }
}

impl History {
    pub(super) fn new(began: Instant) -> History {
        // Not 0, which no context has seen.
        History { began, next: 1, keys: BTreeMap::new(), first: 1, disk_lost: None }
    }

    /// Notes the beginning of an operation, and gives its number.
    pub(super) fn invoke(&mut self, key: &str, mut operation: Operation) -> Id {
        operation.id = self.next;
        operation.invoked = self.now();
        self.next += 1;
        match self.keys.get_mut(key) {
            Some(operations) => operations.push(operation),
            None => drop(self.keys.insert(key.to_owned(), vec![operation])),
        }
        self.next - 1
    }

    /// Notes how it ended.
    pub(super) fn end(&mut self, key: &str, id: Id, note: impl FnOnce(&mut Operation)) {
        let now = self.now();
        let operations = self.keys.get_mut(key).into_iter().flatten();
        if let Some(operation) = operations.rev().find(|operation| operation.id == id) {
            operation.returned = now;
            note(operation);
        }
    }

    /// The first write of this round.
    pub(super) fn first(&self) -> Id {
        self.first
    }

    /// Where the history of a key may go on from: the number of the write that made it what it is.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Keys that a strict put of this round has been acknowledged for, each with the moment when the first was.
    pub(super) fn strictly_written(&self, of: impl Fn(&str) -> bool) -> Vec<(String, Micros)> {
        let written = |operations: &[Operation]| {
            let mut puts = operations.iter().filter(|op| op.kind == Kind::Put && op.strict && op.is_ok());
            puts.next().map(|put| put.returned)
        };
        let keys = self.keys.iter().filter(|(key, _)| of(key));
        keys.filter_map(|(key, operations)| Some((key.clone(), written(operations)?))).collect()
    }

    pub(super) fn keys(&self) -> &BTreeMap<String, Vec<Operation>> {
        &self.keys
    }

    /// Forgets all but what is left of each key: the next round begins with it.
    pub(super) fn begin_round(&mut self, left: &BTreeMap<String, Vec<Id>>) {
        for (key, operations) in &mut self.keys {
            let left = left.get(key).map_or(&[][..], Vec::as_slice);
            operations.retain(|operation| left.contains(&operation.id));
            for operation in operations {
                // It is there for all to see, however it came about. What it had seen has been judged.
                operation.ending = Ending::Ok;
                operation.strict = false;
                operation.seen.clear();
                (operation.invoked, operation.returned) = (0, 0);
            }
        }
        self.first = self.next;
        self.disk_lost = None;
    }

    pub(super) fn now(&self) -> Micros {
        self.began.elapsed().as_micros() as Micros
    }

    /// All that happened to a key, in order.
    pub(super) fn story(&self, key: &str) -> String {
        let operations = self.keys.get(key).into_iter().flatten();
        operations.map(|operation| format!("    {operation}\n")).collect()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |micros: Micros| micros as f64 / 1e6;
        write!(f, "{:>10.4} s  client {:<3} #{:x} ", s(self.invoked), self.client, self.id)?;
        write!(f, "{}{:?}", if self.strict { "strict " } else { "" }, self.kind)?;
        let list = |ids: &[Id]| ids.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(" ");
        if !self.seen.is_empty() {
            write!(f, " having seen [{}]", list(&self.seen))?;
        }
        write!(f, ": {:?}", self.ending)?;
        if self.ending != Ending::Pending {
            write!(f, " at {:.4} s", s(self.returned))?;
        }
        if self.kind == Kind::Get && self.is_ok() {
            write!(f, ", showed [{}]", list(&self.shown))?;
        }
        if self.twice {
            f.write_str(", perhaps stamped twice")?;
        }
        match &self.error {
            Some(error) => write!(f, ", {error}"),
            None => Ok(()),
        }
    }
}
