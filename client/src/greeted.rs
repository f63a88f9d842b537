//! The first words on a connection: which versions of the protocol either side speaks, and so which one it goes by.

use driftless_proto::frame::{FRAME_SHARED_MAX, FrameReader};
use driftless_proto::{ProtocolVersion, ProtocolVersions, greeting};
use quinn::{RecvStream, SendStream};

use crate::connection::failure_of;
use crate::error::ConnectFailure;

/// The shared stream of a connection on which both sides have said what they speak.
pub(crate) struct Greeted {
    pub(crate) version: ProtocolVersion,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// Holds what came with the node's words.
    pub(crate) reader: FrameReader,
}

impl Greeted {
    /// Opens the shared stream, and waits for what the node says: a round trip, once for each connection.
    ///
    /// # Errors
    /// [`ConnectFailure::Protocol`] if the two share no version, or why the connection has ended.
    pub(crate) async fn exchange(
        quic: &quinn::Connection,
        address: &str,
        node: &str,
    ) -> Result<Greeted, ConnectFailure> {
        let broken = |what: &str| ConnectFailure::Ended {
            address: address.to_owned(),
            reason: format!("the node broke the protocol: {what}"),
        };
        let ended = |what: &str| match quic.close_reason() {
            Some(reason) => failure_of(address, &reason, true),
            None => broken(what),
        };
        let (mut send, mut recv) = quic.open_bi().await.map_err(|error| failure_of(address, &error, true))?;
        let ours = greeting::encode(ProtocolVersions::OURS, &()).map_err(|error| broken(&error.to_string()))?;
        send.write_all(&ours).await.map_err(|error| ended(&error.to_string()))?;
        let mut reader = FrameReader::new(FRAME_SHARED_MAX);
        let first = loop {
            if let Some(first) = reader.next_frame().map_err(|error| broken(&error.to_string()))? {
                break first;
            }
            match recv.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => reader.push(&chunk.bytes),
                Ok(None) => return Err(ended("it finished the shared stream")),
                Err(error) => return Err(ended(&error.to_string())),
            }
        };
        let (theirs, _) = greeting::read(&first).map_err(|error| broken(&error.to_string()))?;
        let version = ProtocolVersions::OURS.in_common_with(theirs).map_err(|nothing| ConnectFailure::Protocol {
            address: address.to_owned(),
            reason: nothing.between("this client", node),
        })?;
        Ok(Greeted { version, send, recv, reader })
    }
}
