//! A client that speaks the protocol by hand, for what a well-behaved one does not do.

use std::time::Duration;

use driftless_node::net::certificates::NODE_SERVER_NAME;
use driftless_proto::client::{Request, RequestFrame, Response, ResponseFrame};
use driftless_proto::frame::{self, ALPN_CLIENT, FRAME_MAX, FRAME_SHARED_MAX, FrameReader};
use driftless_tests::by_hand;
pub(crate) use driftless_tests::by_hand::{get, put};
use quinn::{ClientConfig, Connection, ConnectionError, RecvStream, SendStream, TransportConfig};

use super::identity::Issued;
use super::world::World;

/// One connection to one node.
pub(crate) struct Raw {
    pub(crate) connection: Connection,
    send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    next: u64,
}

impl Raw {
    /// Connects as a client of the cluster, with a transport of its own.
    pub(crate) async fn connect(world: &World, host: &str, transport: TransportConfig) -> Raw {
        Raw::connect_as(world, "tester", host, transport).await
    }

    /// The same with a certificate of this name.
    pub(crate) async fn connect_as(world: &World, name: &str, host: &str, transport: TransportConfig) -> Raw {
        let issued = world.authority().client(name);
        let config = config(world.authority().certificate(), &issued, ALPN_CLIENT, transport);
        let connection = dial(world, host, config).await.expect("the node lets us in");
        let (mut send, receive) = connection.open_bi().await.expect("a stream");
        send.write_all(&by_hand::greeting()).await.expect("the connection is up");
        let mut raw = Raw { connection, send, receive, reader: FrameReader::new(FRAME_SHARED_MAX), next: 1 };
        raw.greeted().await;
        raw
    }

    /// Waits for what the node says first.
    async fn greeted(&mut self) {
        while self.reader.next_frame().expect("well-formed").is_none() {
            let chunk = self.receive.read_chunk(usize::MAX, true).await.expect("the connection is up");
            self.reader.push(&chunk.expect("the stream goes on").bytes);
        }
    }

    /// Sends a request; its id.
    pub(crate) async fn ask(&mut self, request: Request, deadline: Duration) -> u64 {
        let (id, out) = self.frame(request, deadline);
        if out.len() <= FRAME_SHARED_MAX {
            self.send.write_all(&out).await.expect("the connection is up");
        } else {
            self.send_alone(&out).await;
        }
        id
    }

    fn frame(&mut self, request: Request, deadline: Duration) -> (u64, Vec<u8>) {
        let id = self.next;
        self.next += 1;
        let deadline_ms = u32::try_from(deadline.as_millis()).expect("is short");
        let mut out = Vec::new();
        frame::encode(&RequestFrame { id, ring_version: 1, deadline_ms, request }, &mut out).expect("fits");
        (id, out)
    }

    async fn send_alone(&self, frame: &[u8]) {
        let mut stream = self.connection.open_uni().await.expect("the connection is up");
        stream.write_all(frame).await.expect("the connection is up");
        stream.finish().expect("is open");
    }

    /// The next answer, whichever it is.
    pub(crate) async fn answer(&mut self) -> ResponseFrame {
        loop {
            if let Some(body) = self.reader.next_frame().expect("well-formed") {
                return frame::decode(&body).expect("well-formed");
            }
            tokio::select! {
                biased;
                chunk = self.receive.read_chunk(usize::MAX, true) => {
                    let chunk = chunk.expect("the connection is up").expect("the stream goes on");
                    self.reader.push(&chunk.bytes);
                }
                stream = self.connection.accept_uni() => {
                    let mut stream = stream.expect("the connection is up");
                    let bytes = stream.read_to_end(FRAME_MAX + 4).await.expect("arrives whole");
                    return frame::decode(&bytes[4..]).expect("well-formed");
                }
            }
        }
    }

    /// Asks and waits for the answer to that.
    pub(crate) async fn call(&mut self, request: Request, deadline: Duration) -> Response {
        let id = self.ask(request, deadline).await;
        loop {
            let frame = self.answer().await;
            if frame.id == id {
                return frame.response;
            }
        }
    }
}

/// A handshake with a node from the script's host.
pub(crate) async fn dial(world: &World, host: &str, config: ClientConfig) -> Result<Connection, ConnectionError> {
    let connecting = world.endpoint().connect_with(config, world.address(host), NODE_SERVER_NAME);
    connecting.expect("is a valid address").await
}

/// What somebody with this certificate dials with.
pub(crate) fn config(ca: &str, issued: &Issued, alpn: &[u8], transport: TransportConfig) -> ClientConfig {
    by_hand::config(ca, &issued.certificate, &issued.key, alpn, transport)
}
