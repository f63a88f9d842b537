//! Since when something has been the matter, and what the log was told of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::client::{Condition, Severity};

use super::Matter;
use crate::metrics::{ConditionLabels, Metrics};
use crate::time::Instant;

/// What is the matter with a node now.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    matters: BTreeMap<Subject, Since>,
    /// When they were found out last.
    looked: Option<Instant>,
}

/// Two of the same kind about the same peer are one, however their words change.
type Subject = (&'static str, Option<String>);

#[derive(Debug)]
struct Since {
    matter: Matter,
    since: Instant,
    told: Option<Told>,
}

/// What the log was told last.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    severity: Severity,
}

impl Told {
    /// Whether the log has to hear of it again: it has become worse, or has gone on for so long that who reads on from today would miss it.
    fn is_stale(self, now: Instant, severity: Severity) -> bool {
        let reminder = match severity {
            Severity::Critical => REMINDER_CRITICAL,
            Severity::Warning | Severity::Note => REMINDER,
        };
        severity > self.severity || now.since(self.at) >= reminder
    }
}

impl Standings {
    /// Finds out what is the matter now, and says in the log what has begun, what goes on, now and then, and what is over. Threads do so
    /// one after the other, so that none takes over what another has seen to be over.
    pub(crate) fn update(&self, node: &str, now: Instant, present: impl FnOnce() -> Vec<Matter>, metrics: &Metrics) {
        let known = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.looked = Some(now);
        let standings = &mut known.matters;
        let mut before = std::mem::take(standings);
        for matter in present() {
            let subject = (matter.name(), matter.peer().map(str::to_owned));
            let known = before.remove(&subject);
            let (since, mut told) = known.map_or((now, None), |known| (known.since, known.told));
            let severity = matter.severity();
            let is_due = match told {
                None => now.since(since) >= matter.patience(),
                Some(told) => told.is_stale(now, severity),
            };
            if is_due {
                told = Some(Told { at: now, severity });
                tell(node, &matter, now.since(since));
            }
            set(metrics, &matter, 1);
            standings.insert(subject, Since { matter, since, told });
        }
        for Since { matter, since, told } in before.into_values() {
            let is_left = standings.keys().any(|(name, _)| *name == matter.name());
            set(metrics, &matter, i64::from(is_left));
            if told.is_some() && matter.severity() > Severity::Note {
                let (condition, for_s) = (matter.name(), now.since(since).as_secs());
                tracing::info!(node, condition, peer = matter.peer(), for_s, "over: {matter}");
            }
        }
    }

    /// Whether they were found out longer ago than that, or never.
    pub(crate) fn are_older_than(&self, age: Duration, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.looked.is_none_or(|looked| now.since(looked) >= age)
    }

    /// What was found out last, the worst first, and of equal ones the oldest.
    pub(crate) fn shown(&self, now: Instant) -> Vec<Condition> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown: Vec<Condition> = known
            .matters
            .values()
            .map(|Since { matter, since, .. }| Condition {
                name: matter.name().to_owned(),
                peer: matter.peer().map(str::to_owned),
                severity: matter.severity(),
                explained: matter.is_explained(),
                for_ms: u64::try_from(now.since(*since).as_millis()).unwrap_or(u64::MAX),
                what: matter.to_string(),
                remedy: matter.remedy().to_owned(),
            })
            .collect();
        shown.sort_by_key(|condition| (std::cmp::Reverse(condition.severity), std::cmp::Reverse(condition.for_ms)));
        shown
    }
}

fn tell(node: &str, matter: &Matter, lasted: Duration) {
    let (condition, peer, remedy, for_s) = (matter.name(), matter.peer(), matter.remedy(), lasted.as_secs());
    match matter.severity() {
        Severity::Critical => tracing::error!(node, condition, peer, for_s, remedy, "{matter}"),
        Severity::Warning => tracing::warn!(node, condition, peer, for_s, remedy, "{matter}"),
        Severity::Note => tracing::debug!(node, condition, peer, for_s, "{matter}"),
    }
}

fn set(metrics: &Metrics, matter: &Matter, value: i64) {
    metrics.conditions.get_or_create(&ConditionLabels { condition: matter.name() }).set(value);
}

/// What goes on is told again after so long.
const REMINDER: Duration = Duration::from_secs(24 * 3_600);
const REMINDER_CRITICAL: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Matter {
        Matter::StoreShort("no room".to_owned())
    }

    fn unreachable(peer: &str) -> Matter {
        Matter::PeerUnreachable { peer: peer.to_owned(), problem: None }
    }

    #[test]
    fn what_goes_on_keeps_its_beginning_and_the_worst_comes_first() {
        let (standings, metrics) = (Standings::default(), Metrics::default());
        let began = Instant(5_000_000);
        standings.update("n1", began, || vec![unreachable("n2"), Matter::Counting], &metrics);
        let later = began + Duration::from_secs(3);
        standings.update("n1", later, || vec![unreachable("n3"), unreachable("n2"), short()], &metrics);
        let shown = standings.shown(later + Duration::from_secs(1));
        let seen: Vec<_> = shown.iter().map(|at| (at.name.as_str(), at.peer.as_deref(), at.for_ms)).collect();
        assert_eq!(
            seen,
            [
                ("store_short", None, 1_000),
                ("peer_unreachable", Some("n2"), 4_000),
                ("peer_unreachable", Some("n3"), 1_000)
            ]
        );
    }

    #[test]
    fn what_goes_on_is_told_again_and_what_becomes_worse_at_once() {
        let told = Told { at: Instant(0), severity: Severity::Warning };
        let [hour, day] = [3_600, 86_400].map(|seconds| Instant(0) + Duration::from_secs(seconds));
        assert!(!told.is_stale(hour, Severity::Warning) && told.is_stale(day, Severity::Warning));
        assert!(told.is_stale(Instant(1), Severity::Critical), "it has become worse");
        assert!(!told.is_stale(hour, Severity::Note), "it has become better");
        let critical = Told { severity: Severity::Critical, ..told };
        assert!(!critical.is_stale(Instant(1), Severity::Critical) && critical.is_stale(hour, Severity::Critical));
    }

    #[test]
    fn the_metric_of_a_kind_stays_until_the_last_of_it_is_over() {
        let (standings, metrics) = (Standings::default(), Metrics::default());
        let gauge = |condition| metrics.conditions.get_or_create(&ConditionLabels { condition }).get();
        standings.update("n1", Instant(0), || vec![unreachable("n2"), unreachable("n3")], &metrics);
        standings.update("n1", Instant(1), || vec![unreachable("n3")], &metrics);
        assert_eq!(gauge("peer_unreachable"), 1);
        standings.update("n1", Instant(2), Vec::new, &metrics);
        assert_eq!(gauge("peer_unreachable"), 0);
        assert!(standings.shown(Instant(3)).is_empty());
    }
}
