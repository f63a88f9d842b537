//! The part of a world that harms it: what the nemesis is in the middle of, and the dice that it throws.

use std::collections::BTreeMap;

use driftless_node::store::memory::DiskImage;
use rand::rngs::StdRng;

use super::cluster::Cluster;
use super::faults::{self, Fault};
use super::history::Slot;
use super::node::Found;
use super::profile::Profile;
use super::schedule::Micros;
use super::world::claims::Claims;

/// What the nemesis has begun. Each concern has dice of its own, so that one more throw of one changes no other.
pub(super) struct Nemesis {
    /// The nodes whose disks rot, and what each stamped last.
    pub(super) rotting: BTreeMap<usize, Option<Slot>>,
    /// The copy of a disk that a node will find in place of its own.
    pub(super) copied: Option<(usize, Found, DiskImage)>,
    /// The node whose disk was set back.
    pub(super) set_back: Option<usize>,
    /// What was claimed to nodes of their own writes.
    pub(super) claims: Claims,
    /// Dice of everything that has none of its own.
    pub(super) rng: StdRng,
    /// Dice of disks that report errors, or hold what nobody wrote.
    pub(super) error_rng: StdRng,
    /// Dice of a second disk that rots.
    pub(super) rot_rng: StdRng,
    /// Dice of acknowledgements that get lost.
    pub(super) ack_rng: StdRng,
}

impl Nemesis {
    /// Draws what will go wrong, and when.
    pub(super) fn plan(&mut self, profile: &Profile, cluster: &Cluster) -> Vec<(Micros, Fault)> {
        let Nemesis { rng, error_rng, rot_rng, .. } = self;
        let faults = &profile.faults;
        let planned = faults.plan(profile, cluster, rng);
        let wrong_day = faults.wrong_day(profile, cluster, error_rng);
        let mut errors = faults.errors.plan(profile, cluster, &planned, error_rng);
        errors.extend(faults.errors.plan_on_another_disk(profile, cluster, &errors, rot_rng));
        self.rotting.extend(errors.iter().filter_map(|(_, fault)| match fault {
            Fault::Rot { node, .. } => Some((*node, None)),
            _ => None,
        }));
        let claims = faults::claims(profile, cluster, self.claims.rng());
        planned.into_iter().chain(wrong_day).chain(errors).chain(claims).collect()
    }
}
