//! Looking at spans and events in a test, while other threads of the same process look at none.
//!
//! What a thread finds at a span for the first time, `tracing` keeps for all threads. With one subscriber alive in the process it asks the one
//! of that thread alone: a test without any that comes to a span first would have nobody see it from then on. With two alive it asks
//! them all.

use std::sync::LazyLock;

use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Subscriber};

/// Has a subscriber see what this thread does, until the guard goes.
#[must_use = "nobody looks once the guard is gone"]
pub fn look(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
    LazyLock::force(&SECOND);
    tracing::subscriber::set_default(subscriber)
}
