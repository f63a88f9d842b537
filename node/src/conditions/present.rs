//! What is the matter with a node right now, from what its threads publish.

use std::time::{Duration, SystemTime};

use driftless_proto::client::Liveness;
use driftless_proto::membership::Moving;

use super::quorum::first_obstacle;
use super::{Filling, Matter};
use crate::configurations::Configurations;
use crate::liveness::clocks::{Stance, Standing};
use crate::membership::Apart;
use crate::net::node_context::NodeContext;

/// All of it. Owned partitions times their owners.
pub(crate) fn present(shared: &NodeContext) -> Vec<Matter> {
    let mut matters = Vec::new();
    if shared.is_stopping() {
        matters.push(Matter::Stopping);
    } else if shared.coordinates_nothing_new() {
        matters.push(Matter::Draining);
    }
    matters.extend(clock(shared.clock_standing()));
    matters.extend(shared.shortage().map(Matter::StoreShort));
    let configurations = shared.configurations();
    let obstacle = first_obstacle(&configurations, shared.node, |node| shared.counts_on(node));
    matters.extend(obstacle.map(Matter::NoQuorum));
    let company = configurations.in_want_of_company();
    matters.extend(company.map(|(needed, known)| Matter::FileAlone { needed, known }));
    matters.extend(members(shared, &configurations));
    matters.extend(shared.apart().into_iter().map(|Apart { name, what }| Matter::HistoryDiffers { peer: name, what }));
    matters.extend(filling(shared));
    matters.extend(peers(shared, &configurations));
    if shared.is_aae_paused() {
        matters.push(Matter::AntiEntropyPaused);
    }
    matters.extend(Some(shared.damaged_count()).filter(|count| *count > 0).map(Matter::RecordsDamaged));
    let (since, until) = shared.certificate_validity();
    matters.extend(certificate((shared.environment.wall)(), since, until));
    matters.extend(shared.low_disk().map(Matter::DiskLow));
    if shared.metrics.partitions_uncounted.get() > 0 {
        matters.push(Matter::Counting);
    }
    matters.extend(shared.hint_keys().filter(|keys| *keys > 0).map(|keys| Matter::HintsHeld { keys }));
    matters
}

fn clock(standing: Standing) -> Option<Matter> {
    let ahead_ms = standing.ahead_ms.unwrap_or(0);
    match standing.stance {
        Stance::Off => Some(Matter::ClockOff { ahead_ms }),
        Stance::Disputed => Some(Matter::ClockDisputed { ahead_ms }),
        Stance::Unheard | Stance::Agrees => None,
    }
}

/// What its part in the cluster is, if that is not simply to be a member.
fn members(shared: &NodeContext, configurations: &Configurations) -> impl Iterator<Item = Matter> {
    let version = configurations.version();
    let Moving { taken, taking: of, .. } = shared.progress().unwrap_or_default().moving;
    let is_member = configurations.member(shared.node).is_some();
    let is_changing = is_member && !configurations.is_settled();
    let replaced = (!configurations.is_whole()).then_some(Matter::StoreReplaced { version, taken, of });
    let candidate = (!is_member).then(|| Matter::Candidate { name: shared.name.clone() });
    let changing = is_changing.then_some(Matter::MembersChanging { version, taken, of });
    replaced.into_iter().chain(candidate).chain(changing)
}

fn filling(shared: &NodeContext) -> Option<Matter> {
    let filling = shared.lives.filling()?;
    let (left, of) = shared.comparisons_left();
    Some(match filling {
        Filling::Lost => Matter::Refilling { left, of },
        Filling::New => Matter::NotCompared { left, of },
    })
}

fn peers(shared: &NodeContext, configurations: &Configurations) -> impl Iterator<Item = Matter> {
    let members = configurations.members().into_iter().filter(|member| member.id != shared.node);
    members.filter_map(move |member| {
        let (state, peer) = (shared.peers.get(&member.id)?, member.name.clone());
        if !state.is_connected() {
            return Some(Matter::PeerUnreachable { peer, problem: state.problem.clone() });
        }
        let liveness = state.liveness();
        (liveness != Liveness::Alive).then_some(Matter::PeerSilent { peer, liveness })
    })
}

/// Told a month before, or a third of its time before for one that does not live for three.
fn certificate(now: SystemTime, since: SystemTime, until: SystemTime) -> Option<Matter> {
    let Ok(left) = until.duration_since(now) else { return Some(Matter::CertificateEnds { left: None }) };
    ends_soon(left, since, until).then_some(Matter::CertificateEnds { left: Some(left) })
}

/// Whether what is left of the time of a certificate is worth telling of.
pub fn ends_soon(left: Duration, since: SystemTime, until: SystemTime) -> bool {
    left <= (until.duration_since(since).unwrap_or_default() / 3).min(WARN_BEFORE)
}

const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_a_month_before_its_end_or_in_its_last_third() {
        let day = Duration::from_secs(24 * 60 * 60);
        let since = SystemTime::UNIX_EPOCH + 100 * day;
        let told = |life: u32, at: u32| certificate(since + at * day, since, since + life * day);
        assert_eq!(told(365, 334), None);
        assert_eq!(told(365, 335), Some(Matter::CertificateEnds { left: Some(30 * day) }));
        assert_eq!(told(3, 1), None);
        assert_eq!(told(3, 2), Some(Matter::CertificateEnds { left: Some(day) }));
        assert_eq!(told(3, 4), Some(Matter::CertificateEnds { left: None }));
    }

    #[test]
    fn a_clock_that_agrees_or_hears_nobody_is_nothing_to_say() {
        let at = |stance| clock(Standing { stance, ahead_ms: Some(7), heard: 2 });
        assert_eq!((at(Stance::Unheard), at(Stance::Agrees)), (None, None));
        assert_eq!(at(Stance::Off), Some(Matter::ClockOff { ahead_ms: 7 }));
        assert_eq!(at(Stance::Disputed), Some(Matter::ClockDisputed { ahead_ms: 7 }));
    }
}
