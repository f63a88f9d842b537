//! Messages on a byte stream: four bytes of length (little endian), then that many bytes of postcard.
//!
//! Many small frames share one long-lived stream and are written together; a frame above [`FRAME_SHARED_MAX`] travels
//! on a stream of its own, so that a large value does not hold up small ones. The message inside carries its own
//! request id, so answers may come in any order and over any stream.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of the messages between peers, and between client and node. A change that an older release cannot read
/// raises it; ALPN names carry it, so that strangers part before the first frame.
pub const PROTOCOL_VERSION: u16 = 1;

/// ALPN of the conversation between nodes, served to node certificates only.
pub const ALPN_PEER: &[u8] = b"driftless-peer/1";

/// ALPN of the conversation between a client and a node.
pub const ALPN_CLIENT: &[u8] = b"driftless-client/1";

/// Longest frame that goes on the shared stream.
pub const FRAME_SHARED_MAX: usize = 64 * 1024;

/// Longest frame at all: the siblings of one key at their limit, with room for their vectors.
pub const FRAME_MAX: usize = crate::key::SIBLING_BYTES_MAX + 2 * 1024 * 1024;

/// Bytes before each frame's body.
pub const LENGTH_BYTES: usize = 4;

/// Why a stream cannot be read on. The connection is closed; what arrived before stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed.
    #[error("a frame of {0} bytes exceeds the limit of {1}")]
    TooLong(usize, usize),
    /// Not a message of this protocol.
    #[error("a frame does not hold a message of this protocol: {0}")]
    Malformed(String),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

/// Appends one message as a frame.
///
/// # Errors
/// [`FrameError::TooLong`] if it exceeds [`FRAME_MAX`]; `out` is then as it was.
pub fn encode<M: Serialize>(message: &M, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend([0; LENGTH_BYTES]);
    let mut sink = std::mem::take(out);
    sink = postcard::to_extend(message, sink).expect("messages hold no type that postcard cannot write");
    *out = sink;
    let len = out.len() - start - LENGTH_BYTES;
    if len > FRAME_MAX {
        out.truncate(start);
        return Err(FrameError::TooLong(len, FRAME_MAX));
    }
    out[start..start + LENGTH_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// Reads one message from a frame's body. Trailing bytes are an error: they would be a misunderstanding.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Malformed(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(FrameError::Malformed(error.to_string())),
    }
}

/// Cuts a stream of chunks into frame bodies. Holds at most one unfinished frame of at most `max` bytes.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    max: usize,
}

impl FrameReader {
    /// A reader that refuses frames longer than `max` bytes.
    pub fn new(max: usize) -> FrameReader {
        FrameReader { buffer: BytesMut::new(), max }
    }

    /// Takes in what arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame's body, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError::TooLong`], as soon as the length is known.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.max {
            return Err(FrameError::TooLong(length, self.max));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// To be called when the stream ends.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_length_then_postcard() {
        let mut out = vec![9];
        encode(&(7_u8, "ab"), &mut out).expect("short");
        assert_eq!(out, [9, 4, 0, 0, 0, 7, 2, b'a', b'b']);
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_length() {
        let mut reader = FrameReader::new(100);
        reader.push(&101_u32.to_le_bytes());
        assert_eq!(reader.next_frame(), Err(FrameError::TooLong(101, 100)));
    }

    #[test]
    fn an_oversized_message_leaves_the_buffer_as_it_was() {
        let mut out = vec![1, 2];
        let huge = Bytes::from(vec![0; FRAME_MAX + 1]);
        assert!(matches!(encode(&huge, &mut out), Err(FrameError::TooLong(..))));
        assert_eq!(out, [1, 2]);
    }

    #[test]
    fn a_truncated_stream_is_noticed() {
        let mut reader = FrameReader::new(100);
        reader.push(&[5, 0, 0, 0, 1]);
        assert_eq!(reader.next_frame(), Ok(None));
        assert_eq!(reader.finish(), Err(FrameError::Truncated));
    }

    #[test]
    fn bytes_left_over_are_a_misunderstanding() {
        assert!(decode::<u8>(&[1, 2]).is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10),
            cut in 1..20_usize,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                encode(&Bytes::copy_from_slice(body), &mut stream).expect("short");
            }
            let mut reader = FrameReader::new(1000);
            let mut got = Vec::new();
            for chunk in stream.chunks(cut) {
                reader.push(chunk);
                while let Some(frame) = reader.next_frame().expect("within bounds") {
                    got.push(decode::<Bytes>(&frame).expect("whole").to_vec());
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
