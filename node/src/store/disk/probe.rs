//! For `crate::probe`: what a start reads before it opens the database, from bytes.

use bytes::Bytes;

use super::{journal, watermark};

pub(crate) fn journal_records(bytes: &[u8]) -> Vec<(u64, usize)> {
    let mut at = 0;
    std::iter::from_fn(|| {
        let (seqno, end) = journal::record(bytes, at)?;
        at = end;
        Some((seqno, end))
    })
    .collect()
}

pub(crate) fn watermark(bytes: &[u8]) -> Option<((u64, Option<u64>), Bytes)> {
    let mark = watermark::newest(bytes)?;
    Some(((mark.seqno_end, mark.journal), Bytes::copy_from_slice(&watermark::encode(mark))))
}
