//! One trace from a program through the client to the nodes, with OpenTelemetry.
//!
//! `DRIFTLESS_PROFILE=DIR cargo run -p driftless-client --features otel --example traced`, beside `driftless dev --dir DIR`. What the
//! nodes did stands under the same id in DIR/n1/log.txt and the others; nodes with `[trace] endpoint` send it to a collector as well.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, filter::Targets, registry};

/// Prints spans. A program takes the `SpanExporter` of `opentelemetry-otlp` here, and sends them in batches.
#[derive(Debug)]
struct Print;

impl SpanExporter for Print {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for span in batch {
            let (context, parent) = (&span.span_context, span.parent_span_id);
            println!("{} {:<8} {} below {parent}", context.trace_id(), span.name, context.span_id());
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Print).build();
    // Spans of requests are of the level debug.
    let wanted = Targets::new().with_target("traced", tracing::Level::INFO);
    let wanted = wanted.with_target("driftless_client::request", tracing::Level::DEBUG);
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("example"));
    registry().with(spans.with_filter(wanted)).init();

    let client = common::builder()?.connect().await?;
    let orders = client.bucket("default");
    async {
        orders.put_replacing("order 17", "two pears").await?;
        let read = orders.get("order 17").await?;
        println!("read: {:?}", read.one()?);
        Ok::<_, Box<dyn std::error::Error>>(())
    }
    .instrument(tracing::info_span!("checkout"))
    .await?;
    client.close().await;
    provider.shutdown()?;
    Ok(())
}
