//! `--trace`: a request that is found again in what nodes have recorded of it.

use clap::Args;
use driftless_client::{Profile, TraceContext};

use super::exit::Result;
use super::output;

/// Whether the request belongs to a trace.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TraceArgs {
    /// Have nodes record what they do for it, under a trace id that is printed; or under that of another program's
    /// `traceparent`
    #[arg(long, value_name = "TRACEPARENT", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = parse)]
    trace: Option<Asked>,
}

/// What trace.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// One of its own.
    New,
    /// This one.
    Below(TraceContext),
}

impl Asked {
    fn is_kept(self) -> bool {
        match self {
            Asked::New => true,
            Asked::Below(context) => context.is_kept(),
        }
    }
}

fn parse(text: &str) -> std::result::Result<Asked, String> {
    match text {
        "" => Ok(Asked::New),
        text => {
            text.parse().map(Asked::Below).map_err(|error: driftless_client::MalformedTraceContext| error.to_string())
        }
    }
}

/// A trace that has begun, until it is dropped.
pub(crate) struct Trace {
    context: Option<TraceContext>,
    #[cfg(feature = "otel")]
    _recorded: Option<recorded::Command>,
}

impl TraceArgs {
    /// Begins the trace, if one was asked for, and says which.
    pub(crate) fn begin(&self) -> Result<Trace> {
        let asked = self.trace.filter(|asked| asked.is_kept());
        if self.trace.is_some() && asked.is_none() {
            output::note(
                "not traced: the flags of this traceparent say that nobody records it (00; 01 says that it is sampled)",
            );
        }
        let context = asked.map(|asked| match asked {
            Asked::New => TraceContext::random(),
            Asked::Below(context) => context,
        });
        #[cfg(feature = "otel")]
        let (context, recorded) = match asked {
            Some(asked) => recorded::begin(match asked {
                Asked::New => None,
                Asked::Below(context) => Some(context),
            })?
            .map_or((context, None), |(own, command)| (Some(own), Some(command))),
            None => (None, None),
        };
        if let Some(context) = context {
            output::note(format_args!("trace: {}", context.trace_text()));
        }
        Ok(Trace {
            context,
            #[cfg(feature = "otel")]
            _recorded: recorded,
        })
    }
}

impl Trace {
    /// A request that belongs to it.
    pub(crate) fn over(&self, profile: Profile) -> Profile {
        match self.context {
            Some(context) => profile.trace(context),
            None => profile,
        }
    }
}

/// The command's own part of it, where a collector takes it.
#[cfg(feature = "otel")]
mod recorded {
    use driftless_client::TraceContext;
    use driftless_proto::trace::otel::adopt;
    use tracing::Span;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, filter, registry};

    use crate::exit::{Failure, Result};
    use crate::otel::{self, Exporter};

    /// Ends before what it has recorded is sent.
    pub(super) struct Command {
        span: Option<Span>,
        _exporter: Exporter,
    }

    impl Drop for Command {
        fn drop(&mut self) {
            self.span = None;
        }
    }

    /// With its place for what it causes; nothing, if no collector is named.
    pub(super) fn begin(parent: Option<TraceContext>) -> Result<Option<(TraceContext, Command)>> {
        let Some(endpoint) = std::env::var(ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(None);
        };
        let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "driftless-cli".to_owned());
        let (exporter, layer) = otel::exporter(&endpoint, &service, None)?;
        let of_requests =
            filter::Targets::new().with_targets([(REQUESTS, tracing::Level::DEBUG), (COMMAND, tracing::Level::INFO)]);
        let begun = registry().with(layer.with_filter(of_requests)).try_init();
        begun.map_err(|error| Failure::failed(format_args!("cannot record the trace: {error}")))?;
        let span = tracing::info_span!(target: COMMAND, "driftless");
        let own = adopt(&span, parent);
        Ok(own.map(|own| (own, Command { span: Some(span), _exporter: exporter })))
    }

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const COMMAND: &str = "driftless::command";
    const REQUESTS: &str = "driftless_client::request";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_drawn_or_another_programs() {
        assert!(matches!(parse(""), Ok(Asked::New)));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(matches!(parse(parent), Ok(Asked::Below(context)) if context.to_string() == parent));
        assert!(parse(parent).is_ok_and(Asked::is_kept) && Asked::New.is_kept());
        assert!(parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").is_ok_and(|asked| !asked.is_kept()));
        assert!(parse("4bf92f3577b34da6a3ce929d0e0e4736").is_err_and(|error| error.contains("00-TRACE-SPAN-FLAGS")));
    }
}
