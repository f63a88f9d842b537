//! Traces on real processes: in the logs of the nodes, and at a collector of OpenTelemetry.

mod cluster_support;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use cluster_support::Dev;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn log(dev: &Dev, node: &str) -> String {
    fs::read_to_string(dev.cluster().join(node).join("log.txt")).unwrap_or_default()
}

/// Lines of a node's log in which this stands.
fn lines(dev: &Dev, node: &str, part: &str) -> Vec<String> {
    log(dev, node).lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

/// What `--trace` has printed.
fn trace_of(stderr: &str) -> String {
    let line = stderr.lines().find_map(|line| line.strip_prefix("trace: "));
    line.unwrap_or_else(|| panic!("a trace is named in {stderr:?}")).to_owned()
}

fn append(dev: &Dev, text: &str) {
    for node in NODES {
        let file: PathBuf = dev.cluster().join(node).join("node.toml");
        let before = fs::read_to_string(&file).expect("dev has written it");
        fs::write(file, before + text).expect("can be written");
    }
}

#[test]
fn the_road_of_a_request_is_found_by_its_trace_in_the_logs_of_all_nodes() {
    let dev = Dev::start();
    // A put that begins again, since the members were just agreed on, has asked more often: then the next one is looked at.
    let road = Cell::new(None);
    dev.eventually("a put with a coordinator and two replicas is found", || {
        let done = dev.run(&["put", "alice", "apples", "--trace", "-w", "3"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let trace = trace_of(&done.stderr);
        let all: Vec<String> = NODES.iter().flat_map(|node| lines(&dev, node, &trace)).collect();
        let of = |role: &str, said: &str| {
            let is_one = |line: &&String| line.contains(role) && line.contains(&format!("driftless::trace: {said}"));
            all.iter().filter(is_one).count()
        };
        let said = ["asked", "heard", "applied", "synced", "answered"];
        let is_whole = said.map(|said| of(" coordinator{", said)) == [2, 2, 1, 1, 1]
            && said.map(|said| of(" replica{", said)) == [0, 0, 2, 2, 2];
        road.set(Some((trace, all)));
        is_whole
    });
    let (trace, all) = road.take().expect("was found");
    assert!(NODES.iter().all(|node| !lines(&dev, node, &trace).is_empty()), "each of three nodes is an owner");
    assert!(all.iter().all(|line| !line.contains("alice") && !line.contains("apples")), "no key, and no value");

    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let done = dev.run(&["get", "alice", &format!("--trace={parent}")]);
    assert_eq!((done.code, trace_of(&done.stderr)), (Some(0), "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()));
    let by = |node: &str| lines(&dev, node, "00f067aa0ba902b7").iter().any(|line| line.contains("coordinator{"));
    dev.eventually("its coordinator names the span that has caused it", || NODES.iter().any(|node| by(node)));

    // What is not to be recorded, and what carries no trace, is in no log.
    let unsampled = "00-11111111111111111111111111111111-00f067aa0ba902b7-00";
    let done = dev.run(&["get", "alice", &format!("--trace={unsampled}")]);
    assert!(
        done.code == Some(0) && done.stderr.contains("not traced: ") && !done.stderr.contains("trace: 1"),
        "{done:?}"
    );
    dev.ok(&["get", "alice"]);
    assert!(NODES.iter().all(|node| lines(&dev, node, "1111111111111111").is_empty()));
    dev.fails(2, &["get", "alice", "--trace=alice"], &["00-TRACE-SPAN-FLAGS"]);
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_build_that_sends_no_traces_says_so_where_it_is_asked_to() {
    let mut dev = Dev::start();
    dev.down();
    append(&dev, "\n[trace]\nendpoint = \"http://127.0.0.1:4318\"\n");
    let file = dev.cluster().join("n1/node.toml");
    let file = file.to_str().expect("is text");
    for args in [&["serve", "--config", file][..], &["config", "check", file]] {
        let mut command = cluster_support::driftless();
        command.args(args);
        let done = cluster_support::finish(command, b"");
        let said = format!("{}{}", done.stderr, String::from_utf8_lossy(&done.stdout));
        assert!(done.code != Some(0) && said.contains("built without the feature `otel`"), "{args:?}: {said}");
    }
}

#[cfg(feature = "otel")]
mod collected {
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message;

    use super::*;

    /// A span as it arrived.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Span {
        service: String,
        instance: Option<String>,
        name: String,
        trace: String,
        id: String,
        parent: String,
    }

    /// Takes what is posted to it.
    #[derive(Clone)]
    struct Collector {
        endpoint: String,
        spans: Arc<Mutex<Vec<Span>>>,
    }

    impl Collector {
        fn start() -> Collector {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let endpoint = format!("http://{}", listener.local_addr().expect("is bound"));
            let collector = Collector { endpoint, spans: Arc::default() };
            let taking = collector.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let taking = taking.clone();
                    std::thread::spawn(move || while taking.take(&stream).is_some() {});
                }
            });
            collector
        }

        /// One request of HTTP/1.1.
        fn take(&self, mut stream: &TcpStream) -> Option<()> {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            assert!(line.starts_with("POST /v1/traces "), "{line}");
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
                match header.trim().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", bytes)) => length = bytes.parse().expect("a number"),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let request = ExportTraceServiceRequest::decode(&*body).expect("is OTLP");
            self.spans.lock().expect("no panic under it").extend(spans(request));
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
        }

        fn of_trace(&self, trace: &str) -> Vec<Span> {
            self.spans.lock().expect("no panic under it").iter().filter(|span| span.trace == trace).cloned().collect()
        }
    }

    fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut all = Vec::new();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.expect("says who");
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.push(Span {
                    service: attribute(&resource, "service.name").expect("is named"),
                    instance: attribute(&resource, "service.instance.id"),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                });
            }
        }
        all
    }

    fn attribute(resource: &Resource, key: &str) -> Option<String> {
        let found = resource.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is {other:?}"),
        }
    }

    #[test]
    fn client_coordinator_and_replicas_are_one_trace_at_a_collector() {
        let mut dev = Dev::start();
        dev.down();
        let collector = Collector::start();
        append(&dev, &format!("\n[trace]\nendpoint = \"{}\"\nservice_name = \"shop-store\"\n", collector.endpoint));
        dev.up();
        let mut command = cluster_support::driftless();
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env_remove("OTEL_SERVICE_NAME");
        command.arg("--profile").arg(dev.cluster()).args(["put", "alice", "apples", "--trace", "-w", "3"]);
        let done = cluster_support::finish(command, b"");
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let trace = trace_of(&done.stderr);
        dev.eventually("all six spans arrive", || collector.of_trace(&trace).len() == 6);

        let all = collector.of_trace(&trace);
        let named = |name: &str| all.iter().filter(|span| span.name == name).collect::<Vec<_>>();
        let one = |name: &str| {
            let found = named(name);
            assert_eq!(found.len(), 1, "{name} in {all:#?}");
            found[0]
        };
        let (command, put, attempt, coordinator) = (one("driftless"), one("put"), one("attempt"), one("coordinator"));
        assert_eq!((command.parent.as_str(), &put.parent, &attempt.parent), ("", &command.id, &put.id), "{all:#?}");
        assert_eq!(coordinator.parent, put.id, "{all:#?}");
        let replicas = named("replica");
        assert!(replicas.len() == 2 && replicas.iter().all(|replica| replica.parent == coordinator.id), "{all:#?}");
        let of_nodes = all.iter().filter(|span| span.service == "shop-store");
        let instances: BTreeSet<_> = of_nodes.filter_map(|span| span.instance.as_deref()).collect();
        assert_eq!(instances, NODES.into(), "{all:#?}");
        assert!([command, put, attempt].iter().all(|span| span.service == "driftless-cli"), "{all:#?}");
    }

    #[test]
    fn a_collector_that_is_not_there_holds_up_nothing_and_is_told_of_once() {
        let mut dev = Dev::start();
        dev.down();
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        append(&dev, &format!("\n[trace]\nendpoint = \"http://{nobody}\"\n"));
        dev.up();
        let warned = |dev: &Dev, node: &str| lines(dev, node, "the collector takes no traces").len();
        dev.ok(&["put", "alice", "apples", "--trace", "-w", "3"]);
        dev.eventually("each node has found out", || NODES.iter().all(|node| warned(&dev, node) > 0));
        for _ in 0..5 {
            dev.ok(&["get", "alice", "--trace"]);
        }
        // What is left is tried once more before they end.
        dev.down();
        assert!(NODES.iter().all(|node| warned(&dev, node) == 1), "{}", log(&dev, "n1"));
    }
}
