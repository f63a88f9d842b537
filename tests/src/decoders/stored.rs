//! What a start or a read finds on a disk.

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_node::probe;
use driftless_node::replica::record::{self, HintKey, RecordKey};
use driftless_ring::Partitions;

use super::laws;

/// The key of a record or hint, after one byte that is its length, and its value.
pub fn records(bytes: &[u8]) {
    let [length, rest @ ..] = bytes else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let value = Bytes::copy_from_slice(value);
    let hint = HintKey::from_stored(key).ok();
    let record = match &hint {
        Some(hint) => {
            assert_eq!(HintKey::new(hint.target(), &hint.record()).as_bytes(), key);
            assert!(
                record::all_hints().contains(&key.to_vec()) && record::hints_of(hint.target()).contains(&key.to_vec())
            );
            let end = hint.end_of_arc(Partitions::new(8).expect("a power of two"));
            assert!(
                end.as_slice() > key && end <= record::hints_of(hint.target()).end,
                "leaps forward, within the target"
            );
            hint.record().as_bytes().to_vec()
        }
        None => key.to_vec(),
    };
    let siblings = record::decode(value.clone());
    if let Ok(siblings) = &siblings {
        assert!(!record::is_marker(&value));
        laws::of_siblings(siblings);
        assert_eq!(
            record::decode_header(&value).as_ref(),
            Ok(&siblings.header()),
            "the hashes of the values were checked"
        );
    }
    let Ok(entry) = record::decode_entry(&record, &value) else { return };
    laws::of_header(&entry.header);
    assert_eq!(record::decode_digest(&record, &value), Ok((entry.token, entry.digest)));
    assert_eq!(record::stored_digest(&value), Ok(entry.digest));
    let record_key = RecordKey::new(entry.n, entry.token, entry.bucket, &entry.key);
    assert_eq!(record_key.as_bytes()[1..], record[1..]);
    assert_eq!(record_key.position(), (entry.n, entry.token));
    assert_eq!(record_key.bucket_and_key().as_ref(), Ok(&(entry.bucket, entry.key.clone())));
    match record::read_state(&record_key, value.clone()) {
        Ok(state) => {
            assert_eq!(siblings.as_ref(), Ok(&state));
            assert_eq!(Digest::of(entry.bucket, &entry.key, &state.header()), entry.digest);
            let again = record::encode(entry.bucket, &entry.key, &state.header(), &state);
            assert!(again.len() <= value.len());
            assert_eq!(record::read_state(&record_key, again), Ok(state));
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Frames of the log.
pub fn log_frames(bytes: &[u8]) {
    let records = probe::log_frames(bytes);
    let ends: Vec<usize> = records.iter().map(|record| record.1).collect();
    assert!(ends.is_sorted_by(|a, b| a < b) && ends.last().is_none_or(|end| *end <= bytes.len()));
    for (at, end) in ends.iter().enumerate().take(4) {
        // Cut off in the middle of what follows, it is whole up to here.
        let next = ends.get(at + 1).copied().unwrap_or(bytes.len());
        assert_eq!(probe::log_frames(&bytes[..(end + next) / 2]).len(), at + 1);
    }
}

/// The file that says how far the log was synced.
pub fn watermark(bytes: &[u8]) {
    if let Some((mark, slot)) = probe::watermark(bytes) {
        assert_eq!(probe::watermark(&slot).map(|again| again.0), Some(mark));
        assert!(bytes.windows(slot.len()).any(|window| window == &slot[..]), "a mark is in the file as it was written");
    }
}

/// `identity.json` and `topology.json` of a data directory.
pub fn directory(bytes: &[u8]) {
    for (at, file) in probe::directory_files(bytes).into_iter().enumerate() {
        if let Some(file) = file {
            assert_eq!(probe::directory_files(&file)[at].as_ref(), Some(&file), "what was written can be read");
        }
    }
}
