//! Spans to a collector of OpenTelemetry, by OTLP over HTTP. TLS, and other places, are the collector's task: it is on this machine.
//!
//! ```text
//! spans that have ended ─▶ queue of a bounded length ─▶ a thread that sends them ─▶ POST /v1/traces
//!                             full: dropped, and said once     fails: dropped, said once, and again when it works
//! ```
//! Nothing here is waited for, but for a moment at the end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::{Builder, Runtime};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use crate::exit::{Failure, Result};

/// What sends them. Dropped, it sends what is left, as far as that takes no longer than [`AT_THE_END`].
pub(crate) struct Exporter(SdkTracerProvider);

impl Drop for Exporter {
    fn drop(&mut self) {
        // What could not be sent has been said.
        let _ = self.0.shutdown_with_timeout(AT_THE_END);
    }
}

/// To this collector, as this service and this instance of it.
pub(crate) fn exporter<S: Subscriber + for<'span> LookupSpan<'span>>(
    endpoint: &str,
    service: &str,
    instance: Option<&str>,
) -> Result<(Exporter, OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>)> {
    let failed = |error: &dyn fmt::Display| Failure::failed(format_args!("cannot send traces to {endpoint}: {error}"));
    if !endpoint.starts_with("http://") {
        return Err(Failure::usage(format_args!("traces are sent to http://HOST:PORT, not to {endpoint}"))
            .hint("have a collector on this machine pass them on: TLS is its task"));
    }
    let sender = Sender {
        runtime: Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?,
        client: HyperClient::with_default_connector(TIMEOUT, None),
    };
    let otlp = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| failed(&error))?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE_MAX).with_scheduled_delay(DELAY).build();
    let noting = Noting { inner: otlp, endpoint: endpoint.to_owned(), lost: AtomicU64::new(0) };
    let instance = instance.map(|instance| KeyValue::new("service.instance.id", instance.to_owned()));
    let resource = Resource::builder_empty().with_service_name(service.to_owned()).with_attributes(instance).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(BatchSpanProcessor::builder(noting).with_batch_config(batches).build())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("driftless"));
    Ok((Exporter(provider), layer.with_location(false).with_threads(false).with_tracked_inactivity(false)))
}

/// Sends on the thread of whoever calls, which is one that does nothing else.
#[derive(Debug)]
struct Sender {
    runtime: Runtime,
    client: HyperClient,
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.runtime.block_on(self.client.send_bytes(request)) })
    }
}

/// Says once that the collector does not take spans, and once that it does again.
#[derive(Debug)]
struct Noting {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    /// Since it last took some.
    lost: AtomicU64,
}

impl SpanExporter for Noting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (spans, endpoint) = (batch.len() as u64, &self.endpoint);
        match self.inner.export(batch).await {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::info!(endpoint, lost, "the collector takes traces again");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
                    tracing::warn!(endpoint, %error, "the collector takes no traces: they are dropped until it does");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A collector on this machine answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A person who traces a request looks at it right away.
const DELAY: Duration = Duration::from_secs(1);

/// Spans that wait to be sent: what a node records in 20 seconds, and some megabytes.
const QUEUE_MAX: usize = 2_048;

/// Nobody waits for a collector longer.
const AT_THE_END: Duration = Duration::from_secs(2);
