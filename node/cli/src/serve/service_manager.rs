//! What the service manager that started this process is told, if it wants to be told anything: systemd, for a unit of `Type=notify`.
//!
//! ```text
//! STATUS=opening the store      READY=1                       as soon as `ready:` is printed
//! WATCHDOG=1                    at every look, if all shards turn
//! STATUS=…                      at a look that finds something else than the one before
//! RELOADING=1                   at SIGHUP; READY=1 when everything has been read again
//! STOPPING=1                    at SIGTERM
//! ```
//! It says where it listens in `NOTIFY_SOCKET`; without that variable nothing is said.

use std::time::Duration;

use driftless_node::node::Node;
use driftless_proto::client::{Condition, Severity};
use sd_notify::NotifyState;

/// The service manager, or nobody.
pub(super) struct ServiceManager {
    is_there: bool,
    /// How long it waits for a sign of life before it restarts this process, if it does.
    patience: Option<Duration>,
    status: String,
    failed: bool,
}

impl ServiceManager {
    /// Whoever the environment names.
    pub(super) fn of_this_process() -> ServiceManager {
        ServiceManager {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
            patience: sd_notify::watchdog_enabled(),
            status: String::new(),
            failed: false,
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// How often it should be told how the node stands.
    pub(super) fn look_every(&self) -> Duration {
        // Three signs of life within its patience: one that is late is none that is missing. Never zero, which is no interval.
        self.patience.map_or(LOOK_EVERY, |patience| LOOK_EVERY.min(patience / 3)).max(Duration::from_millis(1))
    }

    /// What this process does, in words, if that is another thing than before.
    pub(super) fn tell_status(&mut self, status: &str) {
        let status = on_one_line(status);
        if self.status != status {
            self.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The sockets are open; or everything has been read again.
    pub(super) fn tell_ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// Files are being read again.
    pub(super) fn tell_reloading(&mut self) {
        // From release 253 on it wants to know when that began.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager is not told of the reload: there is no clock"),
        }
    }

    /// The end has begun.
    pub(super) fn tell_stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
        self.tell_status("finishing what is under way");
    }

    /// A sign of life, unless a shard gives none; and what is the matter.
    pub(super) fn tell_how_it_stands(&mut self, node: &Node) {
        let silent = node.silent_shards();
        if self.is_owed_a_sign(&silent) {
            self.tell(&[NotifyState::Watchdog]);
        }
        self.tell_status(&standing(&silent, &node.status().conditions));
    }

    /// A node of which a shard stands still is to be restarted, however well the rest of it is.
    fn is_owed_a_sign(&self, silent: &[String]) -> bool {
        self.patience.is_some() && silent.is_empty()
    }

    fn tell(&mut self, what: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(what) {
            // What it makes of that is its own: a unit that waits for READY=1 fails, and says so.
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!(%error, "the service manager cannot be told how this node is (NOTIFY_SOCKET)");
            }
        }
    }
}

/// What is worst, and what to do about it.
fn standing(silent: &[String], conditions: &[Condition]) -> String {
    if !silent.is_empty() {
        return silent.join(", ");
    }
    match conditions.first() {
        Some(Condition { severity: Severity::Critical, what, remedy, .. }) => format!("not ready: {what}: {remedy}"),
        Some(Condition { severity: Severity::Warning, what, remedy, .. }) => format!("ready, but {what}: {remedy}"),
        _ => "ready".to_owned(),
    }
}

/// A line break would begin another message, and what stands here may be from another node.
fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Soon enough for who looks with `systemctl status`; conditions are looked for once a second.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(severity: Severity) -> Condition {
        let (name, what, remedy) = ("x".to_owned(), "it is so".to_owned(), "mend it".to_owned());
        Condition { name, peer: None, severity, for_ms: 0, explained: true, what, remedy }
    }

    #[test]
    fn the_worst_is_said_and_a_shard_that_does_not_turn_before_it() {
        let stands = |severity| standing(&[], &[condition(severity), condition(Severity::Note)]);
        assert_eq!(stands(Severity::Critical), "not ready: it is so: mend it");
        assert_eq!(stands(Severity::Warning), "ready, but it is so: mend it");
        assert_eq!(stands(Severity::Note), "ready");
        assert_eq!(standing(&[], &[]), "ready");
        let silent = ["shard 0 has not turned for 7 s".to_owned()];
        assert_eq!(standing(&silent, &[condition(Severity::Critical)]), "shard 0 has not turned for 7 s");
    }

    #[test]
    fn what_another_node_has_said_begins_no_message_of_its_own() {
        assert_eq!(on_one_line("n2 says: no\nMAINPID=1\r\0"), "n2 says: no MAINPID=1  ");
    }

    fn with(patience: Option<Duration>) -> ServiceManager {
        ServiceManager { is_there: true, patience, status: String::new(), failed: false }
    }

    #[test]
    fn signs_of_life_come_three_times_within_the_patience() {
        let every = |patience| with(patience).look_every();
        assert_eq!(every(None), LOOK_EVERY);
        assert_eq!(every(Some(Duration::from_secs(30))), LOOK_EVERY);
        assert_eq!(every(Some(Duration::from_secs(6))), Duration::from_secs(2));
        assert!(every(Some(Duration::ZERO)) > Duration::ZERO);
    }

    #[test]
    fn a_shard_that_stands_still_leaves_the_watchdog_without_a_sign() {
        let watched = with(Some(Duration::from_secs(30)));
        assert!(watched.is_owed_a_sign(&[]));
        assert!(!watched.is_owed_a_sign(&["shard 0 has not turned for 7 s".to_owned()]));
        assert!(!with(None).is_owed_a_sign(&[]), "nobody waits for one");
    }
}
