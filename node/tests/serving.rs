//! Three nodes in one process, spoken to over QUIC.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, block_on, eventually, get, put};
use driftless_proto::client::{DrainCommand, Liveness, Request, Response};
use driftless_proto::{Failure, Refusal, Role};

#[test]
fn what_is_put_through_one_node_is_read_through_every_node() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        for through in 0..3 {
            let mut client = cluster.client(through).await;
            for i in 0..20 {
                let stored = client.put(&format!("{through}-{i}"), format!("value {i}"), None).await;
                assert!(stored.acks >= 2, "{stored:?}");
                assert!(stored.context.is_some());
            }
        }
        for through in 0..3 {
            let mut client = cluster.client(through).await;
            for of in 0..3 {
                for i in 0..20 {
                    let read = client.get(&format!("{of}-{i}")).await;
                    assert_eq!(read.siblings.len(), 1);
                    assert_eq!(read.siblings[0].value, format!("value {i}"));
                }
            }
            assert_eq!(client.get("never written").await.siblings, []);
        }
    });
    cluster.stop();
}

/// A large state is announced before it comes, and goes the way back that its announcement went: nodes with unequal shards, of which the one
/// asked holds nothing, so that it has to be told by others.
#[test]
fn a_large_state_finds_its_way_between_nodes_of_unequal_shards() {
    let cluster = Cluster::start(&[4, 1, 2, 3, 1]);
    cluster.wait_connected();
    block_on(async {
        let value = vec![7; (1 << 20) + (1 << 10)];
        let mut clients = Vec::new();
        for through in 0..5 {
            clients.push(cluster.client(through).await);
        }
        for i in 0..12 {
            clients[i % 5].put(&format!("large {i}"), value.clone(), None).await;
        }
        for i in 0..12 {
            for client in &mut clients {
                let read = client.get(&format!("large {i}")).await;
                assert!(read.siblings.len() == 1 && read.siblings[0].value == value);
            }
        }
    });
    cluster.stop();
}

#[test]
fn a_value_of_four_mebibytes_travels_beside_small_ones() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let value: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
        let mut client = cluster.client(0).await;
        let large = client.send(put("large", value.clone(), None)).await;
        let small = client.send(put("small", "s", None)).await;
        assert!(matches!(client.answer_to(small).await, Response::Stored(_)));
        assert!(matches!(client.answer_to(large).await, Response::Stored(_)));
        for through in 0..3 {
            let read = cluster.client(through).await.get("large").await;
            assert_eq!(read.siblings.len(), 1);
            assert!(read.siblings[0].value == value, "the value came back changed");
        }
        let too_large = client.ask(put("larger", vec![0; (4 << 20) + 1], None)).await;
        assert!(matches!(too_large, Response::Failed(Failure::Refused(Refusal::ValueTooLarge { .. }))));
    });
    cluster.stop();
}

#[test]
fn many_requests_share_a_connection_and_all_are_answered() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let mut client = cluster.client(1).await;
        let mut ids = Vec::new();
        for i in 0..1000 {
            ids.push(client.send(put(&format!("k{i}"), vec![i as u8; 1024], None)).await);
        }
        for id in ids {
            assert!(matches!(client.answer_to(id).await, Response::Stored(_)));
        }
    });
    cluster.stop();
}

#[test]
fn a_restarted_peer_is_found_again() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        cluster.client(0).await.put("before", "1", None).await;
    });
    for node in [0, 1, 2] {
        cluster.stop_node(node);
        eventually("the others notice", || {
            let others = cluster.nodes.iter().flatten();
            others.map(|node| node.status().peers.iter().filter(|peer| !peer.connected).count()).sum::<usize>() == 2
        });
        block_on(async {
            let mut client = cluster.client((node + 1) % 3).await;
            client.put(&format!("without-{node}"), "2", None).await;
        });
        cluster.start_node(node);
        cluster.wait_connected();
        block_on(async {
            let mut client = cluster.client(node).await;
            assert_eq!(client.get("before").await.siblings[0].value, "1");
            assert_eq!(client.get(&format!("without-{node}")).await.siblings[0].value, "2");
        });
    }
    cluster.stop();
}

#[test]
fn a_killed_peer_is_found_again_in_well_under_the_idle_timeout() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    let killed = cluster.nodes[2].take().expect("runs");
    killed.kill();
    assert!(killed.join().is_err());
    cluster.start_node(2);
    cluster.wait_connected();
    block_on(async {
        let mut client = cluster.client(2).await;
        client.put("back", "1", None).await;
    });
    cluster.stop();
}

#[test]
fn the_detector_notices_whatever_the_numbers_of_shards() {
    let mut cluster = Cluster::start(&[2, 1, 3]);
    cluster.wait_connected();
    let opinions = |cluster: &Cluster| -> Vec<Liveness> {
        let statuses = [0, 1].map(|node| cluster.node(node).status());
        statuses
            .iter()
            .flat_map(|status| &status.peers)
            .filter(|peer| peer.name == "c")
            .map(|peer| peer.liveness)
            .collect()
    };
    let killed = cluster.nodes[2].take().expect("runs");
    killed.kill();
    assert!(killed.join().is_err());
    eventually("the dead node is missed", || opinions(&cluster) == [Liveness::Down, Liveness::Down]);
    cluster.start_node(2);
    eventually("and counted on again", || opinions(&cluster) == [Liveness::Alive, Liveness::Alive]);
    eventually("nobody is missed any more", || {
        (0..3).all(|node| cluster.node(node).status().peers.iter().all(|peer| peer.liveness == Liveness::Alive))
    });
    for node in 0..3 {
        assert_eq!(cluster.node(node).metrics().protocol_violations.get(), 0);
    }
    cluster.stop();
}

#[test]
fn the_status_names_who_can_be_reached() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    cluster.stop_node(1);
    block_on(async {
        let mut client = cluster.client(0).await;
        let status = loop {
            match client.ask(Request::Status).await {
                Response::Status(status) if status.peers.iter().all(|peer| peer.connected) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Response::Status(status) => break status,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(status.name, "a");
        let unreachable: Vec<_> = status.peers.iter().filter(|peer| !peer.connected).collect();
        assert_eq!(unreachable.len(), 1);
        assert_eq!(unreachable[0].name, "b");
        assert!(matches!(client.ask(Request::Topology).await, Response::Topology(_)));
    });
    cluster.stop();
}

#[test]
fn nodes_with_any_numbers_of_shards_serve_together() {
    for shards in [[2, 2, 2], [2, 1, 3]] {
        let cluster = Cluster::start(&shards);
        cluster.wait_connected();
        block_on(async {
            for through in 0..3 {
                let mut client = cluster.client(through).await;
                for i in 0..100 {
                    let key = format!("{through}-{i}");
                    let stored = client.put(&key, key.clone(), None).await;
                    assert!(stored.acks >= 2, "{stored:?}");
                }
                client.put(&format!("{through}-large"), vec![7; 1 << 20], None).await;
            }
            for through in 0..3 {
                let mut client = cluster.client(through).await;
                for of in 0..3 {
                    for i in 0..100 {
                        let key = format!("{of}-{i}");
                        assert_eq!(client.get(&key).await.siblings[0].value, key);
                    }
                    assert_eq!(client.get(&format!("{of}-large")).await.siblings[0].value.len(), 1 << 20);
                }
            }
        });
        // Replies that went astray would have shown as hedges and repairs, or not at all.
        for node in cluster.nodes.iter().flatten() {
            assert_eq!(node.metrics().protocol_violations.get(), 0);
        }
        cluster.stop();
    }
}

#[test]
fn a_stopping_node_answers_what_is_under_way_and_refuses_the_rest() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let mut client = cluster.client(0).await;
        let mut ids = Vec::new();
        for i in 0..200 {
            ids.push(client.send(put(&format!("k{i}"), "v", None)).await);
        }
        cluster.node(0).stop();
        let (mut stored, mut refused) = (0, 0);
        while let Some(frame) = client.receive().await {
            match frame.response {
                Response::Stored(_) => stored += 1,
                Response::Failed(Failure::Refused(Refusal::Stopping)) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        // What had not been read when the connection closed gets no answer; but nothing is answered wrongly.
        assert!(stored + refused <= ids.len());
    });
    cluster.nodes[0].take().expect("runs").join().expect("stops without trouble");
    cluster.stop();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_node_ends() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    let failure = driftless_node::replica::store::StoreError::Io("no such luck".to_owned());
    *cluster.sync_failures[0].lock().expect("not poisoned") = Some(failure);
    block_on(async {
        let mut client = cluster.client(0).await;
        client.send(put("k", "v", None)).await;
        let answer = client.receive().await;
        // Two others may still make the quorum; what must not be is an answer that counts the failed node.
        assert!(answer.is_none_or(|frame| !matches!(frame.response, Response::Stored(stored) if stored.acks > 2)));
    });
    let ended = cluster.nodes[0].take().expect("runs").join();
    assert!(matches!(ended, Err(driftless_node::node::NodeError::Storage(_))), "{ended:?}");
    cluster.stop();
}

#[test]
fn a_client_that_does_not_read_its_answers_takes_up_bounded_memory() {
    let mut cluster = Cluster::plan(&[1]);
    let mut settings = cluster.settings(0);
    settings.net.outbound_bytes_max = 4 << 20;
    cluster.start_with(0, settings);
    block_on(async {
        let mut client = cluster.client(0).await;
        client.put("large", vec![1; 4 << 20], None).await;
        // All of these are asked for before the first of them can have been sent.
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(client.send(get("large")).await);
        }
        let (mut read, mut overloaded) = (0, 0);
        for id in ids {
            match client.answer_to(id).await {
                Response::Read(_) => read += 1,
                Response::Failed(Failure::Refused(Refusal::Overloaded { .. })) => overloaded += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(read > 0 && overloaded > 0, "{read} read, {overloaded} overloaded");
        assert_eq!(client.get("large").await.siblings.len(), 1);
    });
    cluster.stop();
}

#[test]
fn the_admin_server_tells_health_readiness_status_and_metrics() {
    let mut cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    let admin = cluster.node(0).admin_address().expect("has one");
    block_on(async {
        cluster.client(0).await.put("k", "v", None).await;
    });
    let ask = |path: &str| http_get(admin, path);
    assert!(ask("/health").starts_with("HTTP/1.1 200"));
    assert!(ask("/ready").starts_with("HTTP/1.1 200"), "{}", ask("/ready"));
    assert!(ask("/status").contains("\"name\":\"a\""));
    let metrics = ask("/metrics");
    assert!(metrics.contains(r#"driftless_requests_total{operation="put",outcome="ok"} 1"#), "{metrics}");
    assert!(metrics.contains("driftless_build_info"), "{metrics}");
    assert!(metrics.contains(r#"driftless_peer_connections{peer="b"} 1"#), "{metrics}");
    cluster.stop_node(1);
    cluster.stop_node(2);
    eventually("a node without its peers is not ready", || ask("/ready").starts_with("HTTP/1.1 503"));
    cluster.stop();
}

/// A stream of events as a browser has it.
struct Events(std::io::Lines<std::io::BufReader<std::net::TcpStream>>);

impl Events {
    /// Opens one; else what the node says instead.
    fn open(admin: std::net::SocketAddr, header: &str) -> Result<Events, String> {
        use std::io::{BufRead, Write};
        let mut stream = std::net::TcpStream::connect(admin).expect("listens");
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").expect("is up");
        let mut lines = std::io::BufReader::new(stream).lines();
        let first = lines.next().expect("answers").expect("is text");
        if first.contains("200") { Ok(Events(lines)) } else { Err(first) }
    }

    /// The next of this kind.
    fn next(&mut self, kind: &str) -> serde_json::Value {
        let mut lines = self.0.by_ref().map(|line| line.expect("goes on"));
        lines.find(|line| *line == format!("event: {kind}")).expect("goes on");
        let data = lines.next().expect("goes on");
        serde_json::from_str(data.strip_prefix("data: ").expect("is data")).expect("is JSON")
    }

    /// What is told of the cluster, once it is so.
    fn until(&mut self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.next("cluster");
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "did not happen in time: {what}: {seen}");
        }
    }
}

#[test]
fn the_status_page_is_fed_with_what_every_node_says_of_itself() {
    let mut cluster = Cluster::start(&[1, 2, 1]);
    cluster.wait_connected();
    let admin = cluster.node(0).admin_address().expect("has one");
    block_on(async {
        cluster.client(1).await.put("k", "v", None).await;
    });
    let mut events = Events::open(admin, "").expect("has a place");
    let ring = events.next("ring");
    assert_eq!((&ring["n"], ring["owners"].as_array().map(Vec::len)), (&serde_json::json!(3), Some(64)));
    let state = |cluster: &serde_json::Value, name: &str| {
        let node = cluster["nodes"].as_array().expect("is one").iter().find(|node| node["name"] == name).cloned();
        let node = node.expect("is a member");
        (node["state"].as_str().expect("is a word").to_owned(), node["figures"].clone())
    };
    // Of a node with more shards than this one too; the first to be asked may be late.
    let seen = events.until("all are up", |seen| ["a", "b", "c"].iter().all(|name| state(seen, name).0 == "up"));
    let (_, figures) = state(&seen, "b");
    assert_eq!(figures["status"]["name"], "b");
    let puts = figures["requests"].as_array().expect("is one").iter().find(|one| one["operation"] == "put").cloned();
    assert_eq!(puts.expect("is there")["ok"], 1);
    assert_eq!(state(&seen, "a").1["round_trips"].as_array().map(Vec::len), Some(2));

    // Who is drained coordinates nothing, and is looked at all the same.
    block_on(async {
        let mut operator = cluster.client_as(2, "operator", Some(Role::Operator)).await;
        operator.ask(Request::Drain(DrainCommand::Begin)).await;
    });
    let draining = |seen: &_| state(seen, "c").1["status"]["conditions"][0]["name"] == "draining";
    let seen = events.until("c is drained", draining);
    assert_eq!(seen["troubles"][0]["nodes"], serde_json::json!(["c"]));

    cluster.stop_node(1);
    let down = ("down".to_owned(), serde_json::Value::Null);
    let seen = events.until("b is down", |seen| state(seen, "b") == down);
    assert_eq!(seen["verdict"]["well"], false);
    assert!(seen["verdict"]["remedy"].as_str().is_some_and(|remedy| remedy.starts_with("start it")), "{seen}");
    cluster.stop();
}

#[test]
fn watchers_are_few_and_leave_the_port_to_others() {
    let cluster = Cluster::start(&[1]);
    let admin = cluster.node(0).admin_address().expect("has one");
    let mut watching: Vec<Events> = (0..8).map(|_| Events::open(admin, "").expect("has a place")).collect();
    for events in &mut watching {
        assert_eq!(events.next("cluster")["speaker"], "a");
    }
    assert_eq!(Events::open(admin, "").err().as_deref(), Some("HTTP/1.1 503 Service Unavailable"));
    assert!(http_get(admin, "/health").starts_with("HTTP/1.1 200"), "others are answered meanwhile");
    watching.pop();
    eventually("who has gone leaves a place", || Events::open(admin, "").is_ok());
    let cross_site = Events::open(admin, "Sec-Fetch-Site: cross-site\r\n").err();
    assert_eq!(cross_site.as_deref(), Some("HTTP/1.1 403 Forbidden"), "no page of others takes a place");
    cluster.stop();
}

#[test]
fn a_browser_may_run_what_is_in_the_status_page_and_nothing_else() {
    let cluster = Cluster::start(&[1]);
    let answer = http_get(cluster.node(0).admin_address().expect("has one"), "/");
    let (head, body) = answer.split_once("\r\n\r\n").expect("has a body");
    assert!(head.starts_with("HTTP/1.1 200") && body.ends_with("</html>\n"), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(header), "{header} is missing: {head}");
    }
    cluster.stop();
}

fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("is up");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("is up");
    answer
}
