//! What clients asked and what they were told: the evidence that every client could give.

use std::collections::{BTreeMap, BTreeSet};

use driftless_proto::{BucketId, Context, Key, VersionVector, WriteId};

use super::schedule::Micros;

/// Number of an operation; its value carries it, so that every value ever read names the put it came from.
pub type OpId = usize;

/// A key of a bucket.
pub type Slot = (BucketId, Key);

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Read.
    Get,
    /// Write a value.
    Put,
    /// Write a tombstone.
    Delete,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Not yet.
    Pending,
    /// As asked.
    Ok,
    /// Nothing happened, by the word of every attempt's answer.
    Refused,
    /// It may have happened.
    Unknown,
}

/// What a context stands for.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// The values that the client saw when it was given the token.
    pub values: Vec<OpId>,
    /// What the token says inside: tombstones are seen without being shown.
    pub inside: Context,
}

/// One operation with all its attempts.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// What.
    pub kind: Kind,
    /// Of which key.
    pub slot: Slot,
    /// The write's name; of no meaning for a get. Others may have the same, of this key or another.
    pub write_id: WriteId,
    /// The operation that the value of a put names: this one, or an earlier put of another key, whose value it repeats.
    pub value: OpId,
    /// Length of that value.
    pub length: usize,
    /// Of the value that a put writes; 0 for everything else.
    pub value_hash: u64,
    /// The read that a write means to replace; none if it is blind.
    pub seen: Option<Seen>,
    /// Replicas asked to answer, after the bucket's default.
    pub r: u8,
    /// Replicas asked to acknowledge, after the bucket's default.
    pub w: u8,
    /// Whether strict quorums were asked for.
    pub strict: bool,
    /// When the client began.
    pub invoked: Micros,
    /// When it had its last answer, or gave up.
    pub returned: Micros,
    /// How it ended.
    pub ending: Ending,
    /// Values that a get showed, in order.
    pub values: Vec<OpId>,
    /// Everything that the get had seen, tombstones included.
    pub vv: VersionVector,
    /// Acknowledgements that a write's answer claimed.
    pub acks: u8,
    /// Attempts made.
    pub attempts: u32,
    /// It was refused since the key has as many siblings as a key may have.
    pub crowded: bool,
    /// Whether this belongs to the calm phase.
    pub calm: bool,
}

/// One walk through the keys of a bucket.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Which bucket.
    pub bucket: BucketId,
    /// Replicas of each arc asked to answer.
    pub r: u8,
    /// When it began.
    pub invoked: Micros,
    /// When its last page came, or it was given up.
    pub returned: Micros,
    /// How it ended.
    pub ending: Ending,
    /// What it has listed, in order.
    pub keys: Vec<Key>,
    /// How many pages that took.
    pub pages: u32,
    /// Whether this belongs to the calm phase.
    pub calm: bool,
}

/// All operations of a run.
#[derive(Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    by_write_id: BTreeSet<(WriteId, OpId)>,
    by_slot: BTreeMap<Slot, Vec<OpId>>,
    /// Puts that repeat a value, by key and the operation that the value names.
    repeats: BTreeMap<(Slot, OpId), OpId>,
    /// Walks through buckets, in the order in which they ended.
    pub walks: Vec<Walk>,
    /// What no client could explain by itself: values that nobody wrote, answers that contradict themselves.
    pub oddities: Vec<(Option<Slot>, String)>,
}

impl History {
    /// Notes the beginning of an operation.
    pub fn invoke(&mut self, operation: Operation) -> OpId {
        let id = self.operations.len();
        if operation.kind != Kind::Get {
            self.by_write_id.insert((operation.write_id, id));
        }
        if operation.value != id {
            self.repeats.insert((operation.slot.clone(), operation.value), id);
        }
        match self.by_slot.get_mut(&operation.slot) {
            Some(ids) => ids.push(id),
            None => drop(self.by_slot.insert(operation.slot.clone(), vec![id])),
        }
        self.operations.push(operation);
        id
    }

    /// An operation.
    pub fn get(&self, id: OpId) -> &Operation {
        &self.operations[id]
    }

    /// An operation, to note what became of it.
    pub fn get_mut(&mut self, id: OpId) -> &mut Operation {
        &mut self.operations[id]
    }

    /// All operations in order of invocation.
    pub fn iter(&self) -> impl Iterator<Item = (OpId, &Operation)> {
        self.operations.iter().enumerate()
    }

    /// All keys that anybody asked for, in order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.by_slot.keys()
    }

    /// All operations on a key in order of invocation.
    pub fn of(&self, slot: &Slot) -> impl Iterator<Item = (OpId, &Operation)> {
        self.by_slot.get(slot).into_iter().flatten().map(|id| (*id, &self.operations[*id]))
    }

    /// All writes with this name, in order of invocation.
    pub fn named(&self, id: WriteId) -> impl Iterator<Item = (OpId, &Operation)> {
        let ids = self.by_write_id.range((id, 0)..=(id, OpId::MAX));
        ids.map(|(_, op)| (*op, &self.operations[*op]))
    }

    /// The write of a key with this name and value: what makes it one write, wherever it is seen.
    pub fn write(&self, slot: &Slot, id: WriteId, value_hash: u64) -> Option<OpId> {
        let mut named = self.named(id);
        named.find(|(_, op)| op.slot == *slot && op.value_hash == value_hash).map(|(op, _)| op)
    }

    /// The put of a key that wrote this value, as far as the bytes say.
    pub fn written(&self, slot: &Slot, value: &[u8]) -> Option<OpId> {
        let id = id_of(value).filter(|id| *id < self.len())?;
        let named = self.get(id);
        if named.slot == *slot && named.value == id { Some(id) } else { self.repeated(slot, id) }
    }

    /// The put of a key that repeats the value of another one's.
    pub fn repeated(&self, slot: &Slot, value: OpId) -> Option<OpId> {
        self.repeats.get(&(slot.clone(), value)).copied()
    }

    /// How many there are; also the number of the next one.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// The bytes of an operation's value: its number, then padding up to `length`.
pub fn value_of(id: OpId, length: usize) -> Vec<u8> {
    let mut bytes = (id as u64).to_be_bytes().to_vec();
    bytes.resize(length.max(8), b'.');
    bytes
}

/// The operation whose value this is, as far as the bytes say.
pub fn id_of(value: &[u8]) -> Option<OpId> {
    let id = value.first_chunk()?;
    value[8..].iter().all(|byte| *byte == b'.').then_some(u64::from_be_bytes(*id) as usize)
}

/// A key with its bucket, for people.
pub fn slot_text(slot: &Slot) -> String {
    format!("{}/{}", slot.0.0, slot.1)
}
