//! Find which keys differ between two replicas of a partition, cheaply.
//!
//! This crate finds; it repairs nothing. It does no I/O, knows no peers and no schedule, and is told what time it is.
//! Its owner keeps a [`Tree`] for each partition in step with the records, decides who compares what with whom and when,
//! carries messages, and answers every difference with a Merge.
//!
//! # The tree
//!
//! ```text
//! key ──▶ Digest                   16 bytes that two replicas share exactly when they know the same of a key
//!
//! tokens of the partition  0                                                                        2^64 / Q
//!                          ├──────┬──────┬──────┬──────┬──────┬──────┬──────┬─ … ─┬──────┬──────┬──────┤
//! 2^k leaves               │ xor  │ xor  │ xor  │ xor  │ xor  │ xor  │ xor  │  …  │ xor  │ xor  │ xor  │   kept
//!                          └──┬───┴──┬───┴──┬───┴──┬───┴──────┴──────┴──────┴─ … ─┴──────┴──────┴──────┘
//! inner layers                └──H───┘      └──H───┘             H = hash of two children                   made on demand
//!                                └──────H──────┘
//! sum                      count, xor of everything                                                         kept
//! ```
//! A write costs two exclusive ors. About 16 keys share a leaf, so a tree takes a byte or two for each key. After a start
//! the tree is made by a [`Build`], in steps, while writes go on.
//!
//! # The exchange
//!
//! ```text
//! round       Sums ──▶ ◀── Unequal            26 bytes a partition; in sync, it ends here
//! descent     Start ──▶ ◀── Compared …        each message goes one step further down, into what differs
//! a second    whatever was only in flight arrives
//! lists       List ──▶ ◀── Listed             the keys of leaves that still differ
//! repair      Differ ──▶ ◀── Noted            at most 1000 keys at a time; both sides send what they hold
//! ```
//! [`Sums`] is compared by a function; everything after it is done by an [`Initiator`] and a [`Responder`]. See
//! [`message`] for the conversation. What crosses the wire are [`Fingerprint`]s: 8 bytes of each digest under a seed that
//! is new in every exchange.
//!
//! What it costs to find d differences among a million keys, as the test
//! `differences_among_a_million_keys_cost_what_was_promised` and `benches/tree.rs` measure it:
//!
//! | d | bytes | round trips |
//! |---|---|---|
//! | 0 | 27 | 1 |
//! | 1 | 0.95 KB | 5 |
//! | 100 | 46 KB | 5 |
//! | 10,000 | 2.7 MB | 75, because messages stay below 64 KiB and repairs come a thousand at a time |
//!
//! # Example
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use driftless_antientropy::{
//!     Bits, Digest, ExchangeId, Holder, Initiator, InitiatorOutput, LeafMap, Local, Micros, Outcome, Records, Responder,
//!     ResponderOutput, Settings, Tree, Unreadable,
//! };
//! use driftless_ring::{ArcIndex, PartitionId, Partitions, Token, TokenRange};
//!
//! struct Replica(Vec<(Token, Digest)>);
//!
//! impl Records for Replica {
//!     fn visit(
//!         &self,
//!         tokens: TokenRange,
//!         visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
//!     ) -> Result<(), Unreadable> {
//!         let mut within = self.0.iter().filter(|record| tokens.contains(record.0));
//!         let _ = within.try_for_each(|record| visit(record.0, record.1));
//!         Ok(())
//!     }
//! }
//!
//! let arc = ArcIndex(0);
//! let map = LeafMap::new(Partitions::new(1)?, arc);
//! let tree_of = |replica: &Replica| {
//!     let mut tree = Tree::new(map, Bits::MIN);
//!     replica.0.iter().for_each(|record| tree.update(record.0, None, Some(record.1)));
//!     tree
//! };
//! let here = Replica(vec![(Token(1), Digest(10)), (Token(2), Digest(20))]);
//! let there = Replica(vec![(Token(1), Digest(10))]);
//! let (my_tree, their_tree) = (tree_of(&here), tree_of(&there));
//! let mine = Local { tree: Some(&my_tree), records: &here };
//! let theirs = Local { tree: Some(&their_tree), records: &there };
//! assert_ne!(my_tree.sum(), their_tree.sum());
//!
//! let (settings, mut now) = (Settings::default(), Micros(0));
//! let partition = PartitionId { n: 3, arc };
//! let mut initiator =
//!     Initiator::start(now, settings, ExchangeId(4), partition, their_tree.bits(), mine).ok_or("no tree")?;
//! let mut responder: Option<Responder> = None;
//! let report = loop {
//!     match initiator.poll_output() {
//!         Some(InitiatorOutput::Send(request)) => match &mut responder {
//!             Some(responder) => responder.handle_request(now, theirs, request),
//!             none => *none = Responder::start(now, settings, theirs, request).ok(),
//!         },
//!         Some(InitiatorOutput::Repair(differences)) => {
//!             assert_eq!(differences[0].token, Token(2));
//!             assert_eq!(differences[0].holder, Holder::Me);
//!             // Here the key would be sent as Merge.
//!             initiator.resume(now, mine);
//!         }
//!         Some(InitiatorOutput::Ended(report)) => break report,
//!         None => match responder.as_mut().and_then(Responder::poll_output) {
//!             Some(ResponderOutput::Send(reply)) => initiator.handle_reply(now, mine, reply),
//!             Some(ResponderOutput::Repair(_)) => responder.iter_mut().for_each(|responder| responder.resume(now)),
//!             Some(ResponderOutput::Ended) => responder = None,
//!             None => {
//!                 now = initiator.poll_timeout().ok_or("it waits for something")?;
//!                 initiator.handle_timeout(now, mine);
//!             }
//!         },
//!     }
//! };
//! assert_eq!((report.outcome, report.keys_differing), (Outcome::Complete, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod digest;
mod exchange;
mod layers;
mod leaf;
pub mod message;
mod round;
mod tree;
mod wire;

pub use digest::Digest;
pub use exchange::{
    Difference, Holder, Initiator, InitiatorOutput, Local, Micros, Outcome, Report, Responder, ResponderOutput,
    Settings,
};
pub use layers::Layers;
pub use leaf::{BadBits, Bits, LeafMap, Records, Unreadable};
pub use message::{ExchangeId, Refused, Reply, Request};
pub use round::{Held, LINES_MAX, Line, Standing, Sums, Unequal};
pub use tree::{Build, Check, Drift, Resize, Sum, Tree};
pub use wire::{Fingerprint, Fingerprints, Rising};
