//! What asks a node to stop, and how it is waited for.

use std::io::Read;
use std::thread;
use std::time::Duration;

use driftless_node::node::{Node, NodeError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::service_manager::ServiceManager;
use crate::exit::{Failure, Result};

/// Everything that asks a node to stop.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    parent: oneshot::Receiver<()>,
    /// Held so that the receiver waits for ever where no parent is watched.
    _no_parent: Option<oneshot::Sender<()>>,
}

impl StopSignals {
    pub(crate) fn listen(with_parent: bool) -> Result<StopSignals> {
        let failed = |error| Failure::failed(format_args!("cannot listen to signals: {error}"));
        let (gone, parent) = oneshot::channel();
        let no_parent = if with_parent {
            // Blocks in read for as long as the parent lives, and ends with the process.
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(move || {
                    let mut input = std::io::stdin().lock();
                    while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
                    let _ = gone.send(());
                })
                .map_err(failed)?;
            None
        } else {
            Some(gone)
        };
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            parent,
            _no_parent: no_parent,
        })
    }

    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = &mut self.parent => "the process that started this one is gone",
        }
    }

    /// Signals only: the parent can go but once.
    pub(crate) async fn wait_again(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until a node has stopped that was asked to, for this reason; or, if it has ended by itself, says why.
pub(super) async fn join(
    node: Node,
    why: Option<&'static str>,
    stop: &mut StopSignals,
    manager: &mut ServiceManager,
) -> Result {
    // A watchdog would have it started again, which it is not for when it has ended by itself.
    manager.tell_stopping();
    let at_once = || {
        Failure::failed("stopped at once by a second signal; what was under way is lost, what was acknowledged is not")
    };
    if let Some(why) = why {
        tracing::info!(node = node.name(), why, "stopping");
        node.stop();
        tokio::select! {
            () = node.ended() => {}
            () = stop.wait_again() => return Err(at_once()),
        }
    }
    let reason = node.fatal();
    let joined = joining(move || node.join())?;
    if why.is_some() {
        return tokio::select! {
            joined = joined => joined.unwrap_or(Err(NodeError::Panicked)).map_err(Failure::failed),
            () = stop.wait_again() => Err(at_once()),
        };
    }
    ended(joined, reason, PATIENCE).await
}

/// What a node says that has ended by itself: a disk that does not answer may hold up one of its threads for good.
async fn ended(
    joined: oneshot::Receiver<std::result::Result<(), NodeError>>,
    reason: Option<String>,
    patience: Duration,
) -> Result {
    match tokio::time::timeout(patience, joined).await {
        Ok(joined) => joined.unwrap_or(Err(NodeError::Panicked)).map_err(Failure::failed),
        Err(_) => Err(Failure::failed(reason.map_or(NodeError::Panicked, NodeError::Storage))
            .also("one of its threads does not end, and is not waited for")),
    }
}

fn joining<T: Send + 'static>(join: impl FnOnce() -> T + Send + 'static) -> Result<oneshot::Receiver<T>> {
    let (done, joined) = oneshot::channel();
    let thread = thread::Builder::new().name("join".to_owned()).spawn(move || {
        // Nobody waits any more after a second signal.
        let _ = done.send(join());
    });
    thread.map(|_| joined).map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))
}

/// Its shards have ended, and what they held up has been told; a sync that is still under way belongs to nobody's write.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_has_ended_says_why_although_a_thread_of_it_hangs() {
        let (_hangs, joined) = oneshot::channel();
        let failure = ended(joined, Some("the disk is gone".to_owned()), Duration::ZERO).await.expect_err("has ended");
        assert!(
            failure.message().contains("the disk is gone") && failure.message().contains("does not end"),
            "{failure}"
        );
        assert_eq!(failure.exit(), crate::exit::Exit::Failed);
        let joined = joining(|| Err(NodeError::Storage("a sync failed".to_owned()))).expect("a thread starts");
        let failure = ended(joined, None, Duration::from_secs(60)).await.expect_err("has ended");
        assert!(
            failure.message().contains("a sync failed") && !failure.message().contains("does not end"),
            "{failure}"
        );
    }
}
