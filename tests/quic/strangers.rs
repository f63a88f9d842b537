//! Who has no certificate of the cluster gets nothing, and disturbs nobody.

use std::time::Duration;

use driftless_node::net::certificates::NODE_SERVER_NAME;
use driftless_proto::frame::{ALPN_CLIENT, ALPN_PEER};
use driftless_tests::by_hand;
use futures::future::join_all;
use quinn::{ConnectionError, TransportConfig};

use crate::rig::{Authority, CLUSTER, Issued, Scenario, World, config, dial};

/// What became of a connection that was let in only to be shown the door, or not let in.
async fn knock(world: &World, host: &str, ca: &str, issued: &Issued, alpn: &[u8]) -> ConnectionError {
    let config = config(ca, issued, alpn, TransportConfig::default());
    match dial(world, host, config).await {
        Ok(connection) => {
            if let Ok((mut send, _)) = connection.open_bi().await {
                let _ = send.write_all(&[0; 64]).await;
            }
            connection.closed().await
        }
        Err(error) => error,
    }
}

#[test]
fn a_foreign_certificate_gets_nothing() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let ours = world.authority().certificate().to_owned();
        // Another authority of the same name; then ours, for the wrong role and the wrong protocol.
        let foreign = Authority::new(CLUSTER, "theirs");
        for (issued, alpn) in [
            (foreign.client("tester"), ALPN_CLIENT),
            (foreign.node("bob"), ALPN_PEER),
            (world.authority().client("tester"), ALPN_PEER),
            (world.authority().client("tester"), b"h3"),
        ] {
            let error = knock(&world, "ada", &ours, &issued, alpn).await;
            assert!(
                matches!(&error, ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_)),
                "told at once, not by silence: {error}"
            );
        }
        // Nor does one of ours speak to a node whose authority it does not know.
        let issued = world.authority().client("tester");
        let error = knock(&world, "ada", foreign.certificate(), &issued, ALPN_CLIENT).await;
        assert!(matches!(error, ConnectionError::TransportError(_)), "{error}");
        let metrics = world.node("ada").metrics().clone();
        world.until("all five are counted", Duration::from_secs(1), || metrics.connections_refused.get() == 5).await;
        assert_eq!(metrics.peers_connected.get(), 2);
    });
}

#[test]
fn a_flood_of_handshakes_keeps_nobody_out() {
    let scenario = Scenario { settings: |_, settings| settings.net.handshakes_max = 4, ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        let foreign = Authority::new(CLUSTER, "theirs").client("tester");
        let ours = world.authority().certificate().to_owned();
        let begun = tokio::time::Instant::now();
        let flood = join_all((0..200).map(|_| knock(&world, "ada", &ours, &foreign, ALPN_CLIENT)));
        let served = async {
            // Handshakes of those who have shown that they receive are not bounded by address: an honest one may have
            // to come again.
            let client = loop {
                match world.try_client(&["ada"]).await {
                    Ok(client) => break client,
                    Err(error) => assert!(begun.elapsed() < Duration::from_secs(1), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            for number in 0..20 {
                let put = client.bucket("default").put(format!("key {number}"), "x").write_id(world.write_id());
                put.via("ada").timeout(Duration::from_secs(2)).await.expect("is stored");
            }
        };
        futures::future::join(flood, served).await;
        assert_eq!(world.downs("ada") + world.downs("bob") + world.downs("cyd"), 0);
    });
}

/// Somebody sends first packets and never answers what comes back: each would hold a place until it is given up.
#[test]
fn first_packets_of_one_that_never_answers_keep_nobody_out() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let ours = world.authority().certificate().to_owned();
        let foreign = Authority::new(CLUSTER, "theirs").client("tester");
        let (deaf, address) = (world.deaf_endpoint(), world.address("ada"));
        let first_packet = || {
            let config = config(&ours, &foreign, ALPN_CLIENT, TransportConfig::default());
            deaf.connect_with(config, address, NODE_SERVER_NAME).expect("is a valid address")
        };
        let flood: Vec<_> = (0..400).map(|_| first_packet()).collect();
        let metrics = world.node("ada").metrics().clone();
        world.until("most are sent a Retry", Duration::from_secs(2), || metrics.handshakes_retried.get() > 300).await;
        for number in 0..20 {
            let client = world.try_client(&["ada"]).await.expect("is let in at once");
            let put = client.bucket("default").put(format!("key {number}"), "x").write_id(world.write_id());
            put.via("ada").timeout(Duration::from_secs(2)).await.expect("is stored");
        }
        assert_eq!(metrics.connections_refused.get(), 0);
        drop(flood);
    });
}

#[test]
fn a_member_that_says_nothing_or_never_ends_is_shown_out() {
    let scenario = Scenario {
        settings: |_, settings| settings.net.arrival_timeout = Duration::from_secs(2),
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let ours = world.authority().certificate().to_owned();
        let transport = || {
            let mut transport = TransportConfig::default();
            transport.keep_alive_interval(Some(Duration::from_secs(1)));
            transport
        };
        let peer = config(&ours, &world.authority().node("cyd"), ALPN_PEER, transport());
        let silent = dial(&world, "ada", peer).await.expect("has a good certificate");
        let client = config(&ours, &world.authority().client("tester"), ALPN_CLIENT, transport());
        let mute = dial(&world, "ada", client.clone()).await.expect("has a good certificate");
        let endless = dial(&world, "ada", client).await.expect("has a good certificate");
        let (mut shared, _answers) = endless.open_bi().await.expect("there is room");
        shared.write_all(&by_hand::greeting()).await.expect("goes out");
        let mut stream = endless.open_uni().await.expect("there is room");
        stream.write_all(&100_u32.to_le_bytes()).await.expect("goes out");
        for connection in [silent, mute, endless] {
            let closed = tokio::time::timeout(Duration::from_secs(3), connection.closed()).await.expect("in time");
            assert!(
                matches!(&closed, ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() != 0),
                "{closed}"
            );
        }
        assert!(world.reaches("cyd", "ada") && world.reaches("ada", "cyd"), "the real one is left alone");
    });
}
