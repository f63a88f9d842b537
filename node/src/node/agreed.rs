//! What a node goes by when it starts: what it has agreed on with others, or else what its files say.

use std::sync::Arc;

use driftless_proto::Topology;
use driftless_proto::membership::StoreId;
use driftless_ring::{Member, NodeId};

use super::{NodeError, NodeSettings};
use crate::configurations::Configurations;
use crate::membership::{Candidate, Membership, MembershipConfig};
use crate::planted::Planted;
use crate::time::Instant;

/// The versions that a node of this name counts on, given what it has written down of them.
///
/// # Errors
/// In words, if that cannot be used.
pub fn configurations(
    name: &str,
    store: StoreId,
    founding: &Arc<Topology>,
    files: Vec<(String, Vec<u8>)>,
) -> Result<Arc<Configurations>, String> {
    let candidate = Candidate { member: Member::new(name, ""), store };
    let config =
        MembershipConfig { candidate, founding: founding.clone(), files, seed: [0; 32], planted: Planted::default() };
    // Only to be asked: it sends and writes nothing.
    Membership::new(config, Instant::default()).map(|membership| membership.configurations().clone())
}

/// The machine of a node that is about to start, and what that node is as a member: what was agreed on, or else as it describes itself,
/// or else as the cluster file has it.
pub(super) fn membership(settings: &NodeSettings, seed: [u8; 32]) -> Result<(Membership, Member), NodeError> {
    let NodeSettings { name, topology, store, agreement, .. } = settings;
    let files = agreement.as_ref().map_or(Ok(Vec::new()), |keeper| keeper.files()).map_err(NodeError::Agreement)?;
    let agreed = configurations(name, *store, topology, files.clone()).map_err(NodeError::Agreement)?;
    let agreed = agreed.member(NodeId::of_name(name)).cloned();
    let described = settings.member.clone().or_else(|| topology.ring().member_by_name(name).cloned());
    let member = agreed.or(described).ok_or_else(|| NodeError::NotAMember {
        name: name.clone(),
        cluster: topology.cluster().to_owned(),
        members: topology.ring().members().iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let candidate = Candidate { member: member.clone(), store: *store };
    let config = MembershipConfig { candidate, founding: topology.clone(), files, seed, planted: Planted::default() };
    let membership = Membership::new(config, Instant::default()).map_err(NodeError::Agreement)?;
    Ok((membership, member))
}
