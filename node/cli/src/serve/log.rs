//! What a node logs, and how other directives take effect while it runs.

use std::io;
use std::sync::Arc;

use driftless_node::config::LogConfig;
use driftless_node::net::audit::TARGET as AUDIT;
use driftless_node::net::traces::TARGET as TRACES;
use tracing_subscriber::filter::{EnvFilter, Filtered, filter_fn};
use tracing_subscriber::layer::Layered;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, Registry, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::audit::AuditFile;
use crate::exit::{Failure, Result};
use crate::output;

/// Where traces are sent, if anywhere.
pub(super) type Traces = Option<Box<dyn Layer<Logged> + Send + Sync>>;

/// What is below them.
type Logged =
    Layered<Filtered<Box<dyn Layer<Registry> + Send + Sync>, reload::Layer<EnvFilter, Registry>, Registry>, Registry>;

/// The log of a node that runs.
pub(super) struct Log(Handle<EnvFilter, Registry>);

impl Log {
    /// Begins to log; what is for the audit file goes there, and nowhere else. What is recorded of traces goes to a collector as well.
    pub(super) fn start(config: &LogConfig, audit: Option<Arc<AuditFile>>, traces: Traces) -> Result<Log> {
        let (filter, handle) = reload::Layer::new(filter(&config.level)?);
        let log = fmt::layer().with_writer(io::stderr);
        let log = if config.json { log.json().boxed() } else { log.with_ansi(output::draws_progress()).boxed() };
        let audit = audit.map(|file| {
            let lines = fmt::layer().json().flatten_event(true).with_target(false).with_level(false);
            let lines = lines.with_current_span(false).with_span_list(false).with_writer(file);
            lines.with_filter(filter_fn(|event| event.target() == AUDIT))
        });
        let traces = traces.map(|layer| layer.with_filter(filter_fn(|recorded| recorded.target() == TRACES)));
        let started = registry().with(log.with_filter(filter)).with(traces).with(audit).try_init();
        started.map_err(|error| Failure::failed(format_args!("cannot start the log: {error}")))?;
        Ok(Log(handle))
    }

    /// Logs by these directives from now on.
    pub(super) fn filter_by(&self, filter: EnvFilter) {
        // It fails only if there is no log any more, or a thread has panicked in it.
        if let Err(error) = self.0.reload(filter) {
            tracing::error!(%error, "the log goes on as before");
        }
    }
}

/// What is logged by directives.
pub(crate) fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(format!("{level},{AUDIT}=off")).map_err(|error| {
        Failure::usage(format_args!("log.level = {level:?} cannot be used: {error}"))
            .hint("use error, warn, info, debug or trace, or directives such as info,driftless_node=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn directives_that_say_nothing_are_refused() {
        assert!(filter("info,driftless_node::net=debug").is_ok() && filter("").is_ok());
        let refused = filter("info,driftless_node=loud").expect_err("is no level").to_string();
        assert!(refused.contains("log.level") && refused.contains("hint: use error, warn"), "{refused}");
    }
}
