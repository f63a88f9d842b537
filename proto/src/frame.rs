//! Messages on a byte stream: four bytes of length (little endian), then that many bytes of postcard.
//!
//! Many small frames share one long-lived stream and are written together; a frame above [`FRAME_SHARED_MAX`] travels
//! on a stream of its own, so that a large value does not hold up small ones. The message inside carries its own
//! request id, so answers may come in any order and over any stream.
//!
//! Between nodes a key's state travels whole, however large merges have made it ([`FRAME_PEER_MAX`]): a part of it could not
//! be merged by itself, since its vector would claim writes that it does not carry, and the receiver would drop what those
//! have overwritten before it has them. What clients are answered comes in pages instead.

use bytes::{Buf, Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// ALPN of the conversation between nodes, served to node certificates only. Neither name carries a version: releases that share none
/// are to hear from each other which they speak ([`crate::greeting`]), and TLS would only say that nothing fits.
pub const ALPN_PEER: &[u8] = b"driftless-peer";

/// ALPN of the conversation between a client and a node.
pub const ALPN_CLIENT: &[u8] = b"driftless-client";

/// Bytes of the longest packet that is sent, where the network takes it: a loopback does, and most of what takes more than 1,500.
/// Others are found out by QUIC's probes of the path (RFC 8899) and have shorter ones. Ten of these, which quinn gives to the system at
/// once, are no more than the system takes at once (65,507).
pub const PACKET_MAX: u16 = 6_500;

/// Longest frame that goes on the shared stream.
pub const FRAME_SHARED_MAX: usize = 64 * 1024;

/// Longest frame between a client and a node: the siblings of one key at their limit, with room for their vectors.
pub const FRAME_MAX: usize = crate::key::SIBLING_BYTES_MAX + 2 * 1024 * 1024;

/// Longest frame between nodes: the longest state that a replica keeps, with room for its vectors.
pub const FRAME_PEER_MAX: usize = crate::key::STATE_BYTES_MAX + 16 * 1024 * 1024;

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

/// A frame in pieces, to be written one after the other. Those of `values` that are at least [`SHARED_FROM`] long are not
/// copied into it: a frame of many megabytes costs no second copy of them, nor the time to make one.
///
/// # Errors
/// [`FrameError::TooLong`] if it exceeds `max` bytes.
pub fn encode_in_pieces<M: Serialize>(message: &M, values: &[Bytes], max: usize) -> Result<Vec<Bytes>, FrameError> {
    let pieces = Pieces { values, taken: 0, done: Vec::new(), open: vec![0; LENGTH_BYTES], len: 0 };
    let (mut pieces, len) = postcard::serialize_with_flavor::<M, Pieces<'_>, (Vec<Bytes>, usize)>(message, pieces)
        .expect("messages hold no type that postcard cannot write");
    if len > max.min(u32::MAX as usize) {
        return Err(FrameError::TooLong(len, max));
    }
    // The first piece begins with room for the length, and is this function's own.
    let mut first = Vec::from(std::mem::take(&mut pieces[0]));
    first[..LENGTH_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    pieces[0] = first.into();
    Ok(pieces)
}

/// What postcard writes to: pieces of its own, and between them values that it was given.
struct Pieces<'a> {
    /// In the order in which the message holds them.
    values: &'a [Bytes],
    /// How many of them have been met.
    taken: usize,
    done: Vec<Bytes>,
    open: Vec<u8>,
    len: usize,
}

impl Flavor for Pieces<'_> {
    type Output = (Vec<Bytes>, usize);

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.len += data.len();
        let is_it = |value: &Bytes| value.len() == data.len() && value.as_ptr() == data.as_ptr();
        match self.values[self.taken..].iter().position(is_it) {
            Some(at) if data.len() >= SHARED_FROM => {
                self.taken += at + 1;
                self.done.push(std::mem::take(&mut self.open).into());
                self.done.push(self.values[self.taken - 1].clone());
            }
            _ => self.open.extend_from_slice(data),
        }
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.len += 1;
        self.open.push(data);
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<Self::Output> {
        if !self.open.is_empty() {
            self.done.push(self.open.into());
        }
        Ok((self.done, self.len))
    }
}

/// Shorter values are copied: a piece costs about as much as copying so many bytes.
pub const SHARED_FROM: usize = 4096;

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
    fn a_message_in_pieces_is_the_same_frame_and_shares_its_values() {
        let value = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        for lens in [vec![], vec![10], vec![SHARED_FROM], vec![SHARED_FROM, 3, 70_000, SHARED_FROM - 1]] {
            let values: Vec<Bytes> = lens.iter().enumerate().map(|(i, len)| value(i as u8, *len)).collect();
            let message = (7_u8, values.clone(), "end");
            let pieces = encode_in_pieces(&message, &values, FRAME_MAX).expect("short");
            let mut whole = Vec::new();
            encode(&message, &mut whole).expect("short");
            assert_eq!(pieces.concat(), whole);
            let shared = |value: &&Bytes| pieces.iter().any(|piece| piece.as_ptr() == value.as_ptr());
            assert_eq!(values.iter().filter(shared).count(), lens.iter().filter(|len| **len >= SHARED_FROM).count());
            let len = whole.len() - LENGTH_BYTES;
            assert_eq!(encode_in_pieces(&message, &values, len - 1), Err(FrameError::TooLong(len, len - 1)));
        }
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
