//! How a change of the cluster is tried: as [`ClusterCommand`] says, once it has been sent it is not sent again.
//!
//! A question may go to one node after the other. A change may not: nodes know the same change again, but one that is late could still be
//! made after whatever its operator said next, and two nodes that decide at once only get into each other's way. So another node is asked
//! only while nothing has reached any.

use std::sync::Arc;

use driftless_proto::Outcome;
use driftless_proto::membership::ClusterCommand;

use crate::options::Settings;
use crate::retry::{Decision, FailedAttempt, RetryPolicy};

/// Whether a command may change something.
pub(crate) fn is_change(command: &ClusterCommand) -> bool {
    match command {
        ClusterCommand::State
        | ClusterCommand::Plan
        | ClusterCommand::History
        | ClusterCommand::Access
        | ClusterCommand::Recover { force: false, .. }
        | ClusterCommand::Found { yes: false, .. } => false,
        ClusterCommand::Stage(_)
        | ClusterCommand::Clear
        | ClusterCommand::Commit { .. }
        | ClusterCommand::Cancel
        | ClusterCommand::Apply(_)
        | ClusterCommand::Recover { force: true, .. }
        | ClusterCommand::Found { yes: true, .. } => true,
    }
}

/// How a change is carried out, where anything else would be as these settings say.
pub(crate) fn of_change(settings: Settings) -> Settings {
    // To decide takes round trips between nodes, and waits for those that do not answer.
    let attempt_timeout = settings.timeout;
    let retry = Arc::new(UntilSent(Arc::clone(&settings.retry)));
    Settings { attempt_timeout, retry, ..settings }
}

/// Another policy, as long as nothing may have happened.
#[derive(Debug)]
struct UntilSent(Arc<dyn RetryPolicy>);

impl RetryPolicy for UntilSent {
    fn decide(&self, failed: &FailedAttempt<'_>) -> Decision {
        match failed.cause.outcome() {
            Outcome::Refused => self.0.decide(failed),
            Outcome::Unknown => Decision::GiveUp,
        }
    }

    fn hedges(&self) -> bool {
        false
    }
}
