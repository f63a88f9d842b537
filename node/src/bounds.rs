//! What one turn of a shard may cost, whatever is asked and whatever is stored.
//!
//! A shard does one thing at a time, and everybody waits for the end of its turn. So a turn takes in inputs until they have
//! cost enough, and leaves the others for the next; and whatever nobody waits for goes on in steps, of which a turn makes
//! one of each kind:
//!
//! ```text
//! input ─▶ input ─▶ … enough ─▶ a step each: building trees · the scrub · counting hints
//!                                            a page of hints · a page of a scan · repairs ─▶ commit ─▶ outputs
//! ```
//! Time is not measured but bounded by what takes it: inputs, records, bytes. A key's state is read whole, so the last one
//! read may exceed any bound by its size; no two may.

/// The bounds of a turn. No knobs of a node: the simulator makes them small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TurnBounds {
    /// Inputs that a turn takes: some tens of milliseconds.
    pub inputs: usize,
    /// Bytes that inputs bring, or make a replica read, after which a turn takes no more of them: about what a disk
    /// takes in a few milliseconds.
    pub bytes: usize,
    /// Records that one step visits: under a millisecond.
    pub step_records: usize,
    /// Bytes that one step reads, or makes ready to be sent. Large enough that reading in steps costs little more than
    /// reading at once, and small beside `bytes`, since a turn makes a step of several kinds.
    pub step_bytes: usize,
}

impl Default for TurnBounds {
    fn default() -> TurnBounds {
        TurnBounds { inputs: 1_024, bytes: 4 << 20, step_records: 500, step_bytes: 256 << 10 }
    }
}

impl TurnBounds {
    /// The most that a turn reads from its store, if no state of a key takes more than `largest` bytes there.
    pub fn bytes_read_max(&self, largest: usize) -> usize {
        let inputs = self.bytes + INPUT_STEPS * self.step_bytes + INPUT_STATES * largest;
        // What is refused for lack of room is read again.
        2 * inputs + STEPS * (self.step_bytes + STEP_STATES * largest)
    }
}

/// States that one input may make a replica read: own record and copies, before and after a change, of a key with as many
/// owners as the largest class in use.
const INPUT_STATES: usize = 16;

/// What an input of an exchange may read: a list, and what is held of keys that differ again.
const INPUT_STEPS: usize = 2;

/// Kinds of steps: trees, scrub, hints counted, hints delivered, a scan, repairs.
const STEPS: usize = 6;

/// The record at which a step has enough, and the one behind it that shows where to go on.
const STEP_STATES: usize = 2;
