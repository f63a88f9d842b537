//! SIGHUP: the node's file is read again, and what a running node can take of it counts from then on.
//!
//! ```text
//! node.toml, environment, flags ─▶ NodeConfig ─▶ differs where a running node can take it:   taken
//!                                                 differs elsewhere:                          needs a restart, each time again
//!                                                 cannot be used:                             nothing changes
//! certificates, access file, context keys: driftless_node::node reads them
//! ```
//! Files are read on threads of their own: a disk that does not answer holds up nothing but the reload.

use std::sync::Arc;
use std::thread;

use driftless_node::config::{Change, Limits, NodeConfig};
use driftless_node::node::Node;
use tokio::sync::oneshot;

use super::log::{self, Log};
use crate::audit::AuditFile;
use crate::exit::{Failure, Result};

/// What a running node goes by, and where that can be changed.
pub(super) struct Reload {
    /// What counts: as at the start, but for what was taken since.
    config: NodeConfig,
    read: Arc<dyn Fn() -> Result<NodeConfig> + Send + Sync>,
    log: Log,
    audit: Option<Arc<AuditFile>>,
}

impl Reload {
    /// `read` reads the configuration as the start has read it.
    pub(super) fn new(
        config: NodeConfig,
        read: impl Fn() -> Result<NodeConfig> + Send + Sync + 'static,
        log: Log,
        audit: Option<Arc<AuditFile>>,
    ) -> Reload {
        Reload { config, read: Arc::new(read), log, audit }
    }

    /// Reads everything again. Completes when the files that the node reads itself are read as well; what is read of the configuration
    /// is for [`Reload::take`].
    pub(super) fn read<'node>(&self, node: &'node Node) -> impl Future<Output = Result<NodeConfig>> + use<'node> {
        tracing::info!(
            node = node.name(),
            "SIGHUP: reading configuration, certificates, access file and context keys again"
        );
        let (audit, read) = (self.audit.clone(), self.read.clone());
        async move {
            // First, so that what is read next is written down in the file that has the name now.
            if let Some(audit) = audit {
                on_a_thread(move || {
                    audit.reopen();
                    Ok(())
                })
                .await?;
            }
            let (config, ()) = tokio::join!(on_a_thread(move || read()), node.rereading());
            config
        }
    }

    /// Goes by what was read as far as a running node can, and says of each thing what came of it.
    pub(super) fn take(&mut self, node: &Node, read: Result<NodeConfig>) {
        if let Err(error) = self.try_take(node.name(), read, |limits| node.set_limits(limits)) {
            let (node, what, error) = (node.name(), "configuration", error.message());
            tracing::error!(node, what, error, "what was read again cannot be used: the node goes on with what it had");
        }
    }

    fn try_take(&mut self, node: &str, read: Result<NodeConfig>, set_limits: impl FnOnce(&Limits)) -> Result {
        let (config, changes) = self.config.reloaded(&read?)?;
        // Before anything is taken: a bad file changes nothing.
        let filter = log::filter(&config.log.level)?;
        // By directives by which it can be heard: the new ones may leave such lines out.
        let is_heard = tracing::enabled!(tracing::Level::INFO);
        if is_heard {
            tell(node, &changes);
        }
        if config.log != self.config.log {
            self.log.filter_by(filter);
        }
        if config.limits != self.config.limits {
            set_limits(&config.limits);
        }
        self.config = config;
        if !is_heard {
            tell(node, &changes);
        }
        Ok(())
    }
}

fn tell(node: &str, changes: &[Change]) {
    let what = "configuration";
    if changes.is_empty() {
        tracing::info!(node, what, found = "unchanged", "read again");
    }
    for Change { key, from, to, is_taken } in changes {
        if *is_taken {
            tracing::info!(node, what, found = "taken", key, from, to, "read again");
        } else {
            tracing::warn!(node, what, found = "needs a restart", key, from, to, "read again");
        }
    }
}

/// The thread is not waited for when the process ends, as one of the runtime's own would be.
fn on_a_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let (done, is_read) = oneshot::channel();
    let started = thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // Nobody waits any more if the node has ended meanwhile.
        let _ = done.send(read());
    });
    async move {
        started.map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
        is_read.await.unwrap_or_else(|_| Err(Failure::failed("it cannot be read: a thread panicked")))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_what_is_read_is_not_held_up() {
        let (answer, disk) = mpsc::channel();
        let mut read = pin!(on_a_thread(move || {
            // Bounded, so that this test fails, and does not hang, where it is read in place.
            disk.recv_timeout(Duration::from_secs(60)).map_err(Failure::failed)
        }));
        let is_pending = poll_fn(|context| std::task::Poll::Ready(read.as_mut().poll(context).is_pending())).await;
        assert!(is_pending);
        answer.send(7).expect("it is waited for");
        assert_eq!(read.await.expect("was read"), 7);
        let panicked = on_a_thread(|| -> Result { panic!("as a test wants it") }).await;
        assert!(panicked.is_err_and(|failure| failure.message().contains("panicked")));
    }
}
