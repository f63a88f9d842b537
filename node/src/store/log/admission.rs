//! What a batch is measured against before it is written: room, and files that can still be opened.

use std::io;
use std::time::{Duration, Instant};

use super::descriptors::Descriptors;
use super::shortage::Shortage as _;
use super::space::Space;

pub(super) struct Admission {
    pub(super) space: Space,
    pub(super) descriptors: Descriptors,
    /// What a write has met that nobody had foreseen, such as a quota, and when.
    met: Option<(Instant, String)>,
    /// How long after that the next write is tried.
    pub(super) retry: Duration,
}

impl Admission {
    pub(super) fn new(space: Space, descriptors: Descriptors) -> Admission {
        Admission { space, descriptors, met: None, retry: RETRY_INTERVAL }
    }

    /// A write has met a shortage. For a moment others are spared the same.
    pub(super) fn has_met(&mut self, shortage: &str) {
        self.met = Some((Instant::now(), shortage.to_owned()));
    }

    /// Counts a batch of so many bytes as written; or says in words what is too short for it.
    pub(super) fn admit(&mut self, bytes: u64, only_removes: bool, spare: u64) -> io::Result<Result<(), String>> {
        let retry = self.retry;
        self.met.take_if(|(when, _)| when.elapsed() >= retry);
        if let Some((_, short)) = self.met.as_ref().filter(|_| !only_removes) {
            return Ok(Err(short.clone()));
        }
        let admitted = self.descriptors.shortage(only_removes).and_then(|short| match short {
            Some(short) => Ok(Err(short)),
            None => self.space.take(bytes, only_removes, spare),
        });
        admitted.or_else(|e| match e.shortage() {
            Some(shortage) => Ok(Err(shortage.into())),
            None => Err(e),
        })
    }

    /// What is too short now for any batch that adds something.
    pub(super) fn shortage(&mut self, spare: u64) -> Option<String> {
        // What else there is to say, the next batch will.
        self.admit(0, false, spare).ok()?.err()
    }
}

/// How long after a write that has failed for want of something the next one is tried.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
