//! What somebody who looks at the client's spans sees of its requests, and what nodes are told of their traces.

mod fake;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use driftless_client::{NoRetry, Refusal, TraceContext};
use driftless_proto::client::Request;
use driftless_testkit::looking::look;
use fake::{Cluster, Received};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Spans that were made, with what was recorded of them.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, Span>>>);

#[derive(Clone, Default, Debug)]
struct Span {
    name: &'static str,
    parent: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Span {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != "driftless_client::request" {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent()).map_or("", |parent| parent.name());
        let mut span = Span { name: attributes.metadata().name(), parent, fields: BTreeMap::new() };
        attributes.record(&mut span);
        self.0.lock().expect("no panic under it").insert(id.into_u64(), span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().expect("no panic under it").get_mut(&id.into_u64()) {
            values.record(span);
        }
    }
}

impl Seen {
    fn take(&self) -> Vec<Span> {
        std::mem::take(&mut *self.0.lock().expect("no panic under it")).into_values().collect()
    }
}

impl Span {
    fn is(&self, name: &str, parent: &str, fields: &[(&str, &str)]) -> bool {
        let has = |(field, value): &(&str, &str)| self.fields.get(field).is_some_and(|said| said == value);
        self.name == name && self.parent == parent && fields.iter().all(has)
    }
}

fn trace_of(received: &Received) -> Option<TraceContext> {
    match &received.frame.request {
        Request::Observed(observed) => observed.profile.trace,
        _ => None,
    }
}

fn given() -> TraceContext {
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("is one")
}

#[tokio::test]
async fn a_request_and_each_of_its_attempts_are_spans_that_say_where_it_went_and_how_it_ended() {
    let seen = Seen::default();
    let _looking = look(tracing_subscriber::registry().with(seen.clone()));
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let key = cluster.keys_of(0).next().expect("has some");
    let owners = cluster.owners("default", &key);
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();

    let (read, ()) = tokio::join!(bucket.get(&key).send(), async {
        cluster.nodes[owners[0]].next_request().await.refuse(Refusal::Stopping);
        cluster.nodes[owners[1]].next_request().await.values(&["apples"]);
    });
    let _ = read.expect("was read");
    let spans = seen.take();
    let (first, second) = (&*names[owners[0]], &*names[owners[1]]);
    let get = [("bucket", "default"), ("node", second), ("attempts", "2"), ("outcome", "ok")];
    let found =
        |name, parent, fields: &[(&str, &str)]| spans.iter().filter(|span| span.is(name, parent, fields)).count();
    assert_eq!((spans.len(), found("get", "", &get)), (3, 1), "{spans:#?}");
    assert!(
        spans.iter().any(|span| span.fields.get("partition").is_some_and(|of| of.starts_with("n3/"))),
        "{spans:#?}"
    );
    assert_eq!(found("attempt", "get", &[("number", "1"), ("node", first), ("outcome", "refused")]), 1, "{spans:#?}");
    assert_eq!(found("attempt", "get", &[("number", "2"), ("node", second), ("outcome", "ok")]), 1, "{spans:#?}");
    assert!(spans.iter().any(|span| span.fields.get("cause").is_some_and(|why| why.contains("drained"))), "{spans:#?}");

    let (refused, ()) = tokio::join!(bucket.put(&key, "pears").retry(NoRetry).via("cyd").send(), async {
        cluster.nodes[2].next_request().await.refuse(Refusal::StorageFull);
    });
    refused.expect_err("was refused");
    let spans = seen.take();
    assert!(spans.iter().any(|span| span.is("put", "", &[("attempts", "1"), ("outcome", "refused")])), "{spans:#?}");
    let said = format!("{spans:?}");
    assert!(!said.contains(&key) && !said.contains("pears"), "no key, and no value: {said}");
}

#[tokio::test]
async fn a_node_is_told_of_the_trace_that_a_request_was_given_if_that_is_kept() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let (put, received) = tokio::join!(bucket.put("k", "v").trace(given()).send(), async {
        let received = cluster.nodes[0].next_request().await;
        received.stored();
        received
    });
    put.expect("was stored");
    assert_eq!(trace_of(&received), Some(given()));
    let unkept = TraceContext { sampled: false, ..given() };
    let (read, received) = tokio::join!(bucket.get("k").trace(unkept).send(), async {
        let received = cluster.nodes[0].next_request().await;
        received.values(&["v"]);
        received
    });
    let _ = read.expect("was read");
    assert!(matches!(received.frame.request, Request::Get(_)), "{:?}", received.frame.request);
}

#[cfg(feature = "otel")]
mod otel {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing::Instrument as _;

    use super::*;

    #[tokio::test]
    async fn what_opentelemetry_records_of_a_request_is_what_its_node_is_told_of() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _recording = look(tracing_subscriber::registry().with(layer));
        let mut cluster = Cluster::start(&["ada"]);
        let client = cluster.connect().await;
        let bucket = client.bucket("default");
        let request = async { bucket.get("k").send().await }.instrument(tracing::info_span!("checkout"));
        let (read, received) = tokio::join!(request, async {
            let received = cluster.nodes[0].next_request().await;
            received.values(&["v"]);
            received
        });
        let _ = read.expect("was read");
        let below_given = bucket.put("k", "v").trace(given());
        let (put, told) = tokio::join!(below_given.send(), async {
            let received = cluster.nodes[0].next_request().await;
            received.stored();
            trace_of(&received).expect("is told")
        });
        put.expect("was stored");

        let spans = exporter.get_finished_spans().expect("are there");
        let one =
            |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {spans:#?}"));
        let (checkout, get, put) = (one("checkout"), one("get"), one("put"));
        assert_eq!(get.parent_span_id, checkout.span_context.span_id());
        let read = trace_of(&received).expect("is told");
        assert_eq!(read.trace_id, checkout.span_context.trace_id().to_bytes());
        assert_eq!(read.parent_id, get.span_context.span_id().to_bytes());
        assert_eq!((told.trace_id, put.parent_span_id.to_bytes()), (given().trace_id, given().parent_id));
        assert_eq!(told.parent_id, put.span_context.span_id().to_bytes());
    }
}
