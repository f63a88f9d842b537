//! What happened in a scenario, step by step, for whoever draws it: as text, as Mermaid, as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// A column of the diagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// A client, by number.
    Client(usize),
    /// A node, by number: first the key's primaries in order of preference, then those that may stand in.
    Node(usize),
}

/// Everything that a run has to tell.
#[derive(Debug, Default)]
pub struct Story {
    /// In the order in which it happened.
    pub steps: Vec<Step>,
    /// What the scenario claims, and whether it is so.
    pub checks: Vec<Check>,
}

/// One line of the diagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A message, or half of its way.
    Arrow {
        /// Who sends.
        from: Lane,
        /// To whom.
        to: Lane,
        /// What it says.
        text: String,
        /// What becomes of it.
        fate: Fate,
    },
    /// Something to say about one lane.
    Note {
        /// Whose.
        at: Lane,
        /// What.
        text: String,
        /// What becomes of that lane.
        change: Change,
    },
    /// Something to say about all.
    Scene(String),
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives at once.
    Arrives,
    /// It is sent, and is on its way until it [`Arrives late`](Fate::Late).
    Held,
    /// It was held up, and arrives now.
    Late,
    /// It never arrives.
    Lost,
    /// A conversation, of which only the subject is told.
    Exchange,
}

/// What becomes of a lane with a note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It goes on.
    Nothing,
    /// It ends: the process is gone.
    Ends,
    /// It begins again.
    Begins,
}

/// A claim of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What is claimed.
    pub claim: String,
    /// Whether it is so.
    pub holds: bool,
}

impl Lane {
    /// Its name in diagrams.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Client(client) => ["Ann", "Bob"][client],
            Lane::Node(node) => NODES[node],
        }
    }
}

impl Story {
    /// The lanes that occur, clients first.
    pub fn lanes(&self) -> Vec<Lane> {
        let mut lanes = BTreeSet::new();
        for step in &self.steps {
            match step {
                Step::Arrow { from, to, .. } => lanes.extend([*from, *to]),
                Step::Note { at, .. } => lanes.extend([*at]),
                Step::Scene(_) => {}
            }
        }
        lanes.into_iter().collect()
    }

    /// Whether all claims hold.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(Step::to_json).collect();
        let lanes: Vec<&str> = self.lanes().into_iter().map(Lane::name).collect();
        let checks: Vec<Value> =
            self.checks.iter().map(|check| json!({ "claim": check.claim, "holds": check.holds })).collect();
        json!({ "lanes": lanes, "steps": steps, "checks": checks })
    }
}

impl Step {
    fn to_json(&self) -> Value {
        match self {
            Step::Arrow { from, to, text, fate } => {
                json!({ "kind": fate.name(), "from": from.name(), "to": to.name(), "text": text })
            }
            Step::Note { at, text, change } => json!({ "kind": change.name(), "at": at.name(), "text": text }),
            Step::Scene(text) => json!({ "kind": "scene", "text": text }),
        }
    }
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Fate::Arrives => "message",
            Fate::Held => "held up",
            Fate::Late => "arrives late",
            Fate::Lost => "lost",
            Fate::Exchange => "exchange",
        }
    }
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Change::Nothing => "note",
            Change::Ends => "ends",
            Change::Begins => "begins",
        }
    }
}

/// Nodes by number.
pub const NODES: [&str; 4] = ["A", "B", "C", "D"];
