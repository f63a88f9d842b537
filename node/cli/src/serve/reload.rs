//! SIGHUP: the node's file is read again, and what a running node can take of it counts from then on.
//!
//! ```text
//! node.toml, environment, flags ─▶ NodeConfig ─▶ differs where a running node can take it:   taken
//!                                                 differs elsewhere:                          needs a restart, each time again
//!                                                 cannot be used:                             nothing changes
//! certificates, access file, context keys: driftless_node::node reads them
//! ```

use std::sync::Arc;

use driftless_node::config::{Change, Limits, NodeConfig};
use driftless_node::node::Node;

use super::log::{self, Log};
use crate::audit::AuditFile;
use crate::exit::Result;

/// What a running node goes by, and where that can be changed.
pub(super) struct Reload {
    /// What counts: as at the start, but for what was taken since.
    config: NodeConfig,
    read: Box<dyn Fn() -> Result<NodeConfig>>,
    log: Log,
    audit: Option<Arc<AuditFile>>,
}

impl Reload {
    /// `read` reads the configuration as the start has read it.
    pub(super) fn new(
        config: NodeConfig,
        read: impl Fn() -> Result<NodeConfig> + 'static,
        log: Log,
        audit: Option<Arc<AuditFile>>,
    ) -> Reload {
        Reload { config, read: Box::new(read), log, audit }
    }

    /// Reads everything again, and says of each thing what came of it. Completes when the files that the node reads itself are read.
    pub(super) fn reload(&mut self, node: &Node) -> impl Future<Output = ()> + use<> {
        tracing::info!(
            node = node.name(),
            "SIGHUP: reading configuration, certificates, access file and context keys again"
        );
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
        let reread = node.rereading();
        if let Err(error) = self.take(node.name(), |limits| node.set_limits(limits)) {
            let (node, what, error) = (node.name(), "configuration", error.message());
            tracing::error!(node, what, error, "what was read again cannot be used: the node goes on with what it had");
        }
        reread
    }

    fn take(&mut self, node: &str, set_limits: impl FnOnce(&Limits)) -> Result {
        let (config, changes) = self.config.reloaded(&(self.read)()?)?;
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
