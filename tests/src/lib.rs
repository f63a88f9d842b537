//! The rigs that decide whether Driftless keeps its promises.
//!
//! [`sim`] runs the real machines of many nodes in one thread under a seeded world: network, clocks, disks, crashes
//! and clients all follow from one number, and that number replays them.
//! [`gallery`] plays the anomalies of quorum systems on the same machines, each as a script.
//! [`decoders`] gives damaged bytes to everything that reads bytes from outside.
//! [`processes`] runs real processes and does to them what happens to processes; [`torment`] does so for as long as you
//! like, to their disks as well; [`crashes`] does to one node whose disk alone has everything; [`siege`] attacks them over the network.
//! [`resize`] lets a cluster of them grow and shrink under load.
//! [`growth`] measures how cost grows.
//! [`papers`] lists what the binary is made of.

pub mod by_hand;
pub mod crashes;
pub mod damage;
pub mod decoders;
mod fleet;
pub mod gallery;
pub mod growth;
pub mod papers;
pub mod processes;
pub mod resize;
pub mod siege;
pub mod sim;
pub mod torment;
