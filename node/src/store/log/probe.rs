//! For `crate::probe`: what a start reads before anything is served, from bytes.

use bytes::Bytes;

use super::frame::{self, HEAD_BYTES};
use super::watermark::{self, Mark};

/// Frames that follow each other, of the salt that the first one has: the batch of each, and where it ends. Their records are read too.
pub(crate) fn frames(bytes: &[u8]) -> Vec<(u64, usize)> {
    let Some(salt) = frame::salt(bytes) else { return Vec::new() };
    let mut at = 0;
    std::iter::from_fn(|| {
        let (head, body) = frame::read(bytes.get(at..)?, salt)?;
        frame::records(body, head.count).for_each(drop);
        at += HEAD_BYTES + body.len();
        Some((head.batch, at))
    })
    .collect()
}

/// Frames of a record each, as a log writes them.
pub(crate) fn written(records: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (batch, (key, value)) in (1..).zip(records) {
        let mut one = frame::begin(0);
        frame::push_record(&mut one, key, *value);
        frame::finish(&mut one, frame::Kind::Records, 1, 7, batch, batch - 1);
        all.extend(one);
    }
    all
}

pub(crate) fn watermark(bytes: &[u8]) -> Option<((u64, u64), Bytes)> {
    let mark @ Mark { batch, secret } = watermark::newest(bytes)?;
    Some(((batch, secret), Bytes::copy_from_slice(&watermark::encode(mark))))
}
