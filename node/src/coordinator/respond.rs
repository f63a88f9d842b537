//! From what a machine found out to what a client is told.

use std::collections::BTreeSet;

use driftless_proto::causality::Payload;
use driftless_proto::client::{Basis, Deleted, Read, ReadPage, Response, Sibling, StatePage, Stored};
use driftless_proto::{BucketId, Context, ContextKeys, ContextToken, Dot, Failure, Header, Key, Siblings, Version};

use crate::metrics::Metrics;
use crate::planted::{Bug, Planted};

use super::{Answer, Question};

/// What answers are made with.
pub(super) struct Responder<'a> {
    pub(super) keys: &'a ContextKeys,
    pub(super) metrics: &'a Metrics,
    /// Bytes of values in one answer.
    pub(super) page_bytes: usize,
    pub(super) planted: &'a Planted,
}

impl Responder<'_> {
    /// The response to a question.
    pub(super) fn response(&self, question: &Question, result: Result<Answer, Failure>) -> Response {
        match (result, question) {
            (Err(failure), _) => Response::Failed(failure),
            (Ok(Answer::Ready(response)), _) => response,
            (Ok(Answer::Page(page)), _) => Response::Page(page),
            (Ok(Answer::Read { siblings, basis }), Question::Get { bucket, key, shown }) => {
                Response::Read(self.read(*bucket, key, &siblings, basis, shown))
            }
            (Ok(Answer::Read { siblings, .. }), Question::State { shown, .. }) => {
                Response::State(self.state_page(&siblings, shown))
            }
            (Ok(Answer::Written { dot, siblings, acks, primaries }), Question::Put { bucket, key, write_id }) => {
                self.count_acks(acks, primaries);
                let context = self.context_of_put(*bucket, key, dot, &siblings);
                // A retry that is recognised finds the state of today.
                let mut values = siblings.live().iter().filter(|(_, version)| !version.is_tombstone());
                let live = values.any(|(at, version)| *at == dot || version.write_id == *write_id);
                let siblings = shown(&siblings, &[]).len() as u32;
                Response::Stored(Stored { context, acks, primaries, siblings, live })
            }
            (Ok(Answer::Written { siblings, acks, primaries, .. }), Question::Delete(deletion)) => {
                self.count_acks(acks, primaries);
                let siblings = shown(&siblings, &[]).len() as u32;
                Response::Deleted(Deleted { existed: true, acks, primaries, siblings, basis: deletion.basis })
            }
            (Ok(Answer::Covered { values, acks, primaries }), Question::Delete(deletion)) => {
                self.count_acks(acks, primaries);
                let basis = deletion.basis;
                Response::Deleted(Deleted { existed: false, acks, primaries, siblings: values, basis })
            }
            (Ok(_), _) => unreachable!("a machine answers the question it was started with"),
        }
    }

    fn count_acks(&self, acks: u8, primaries: u8) {
        self.metrics.acks_primary.inc_by(primaries.into());
        self.metrics.acks_fallback.inc_by((acks - primaries).into());
    }

    /// All values, or as many of those not shown before as fit into an answer: see [`ReadPage`].
    fn read(&self, bucket: BucketId, key: &Key, siblings: &Siblings, basis: Basis, before: &[Dot]) -> Read {
        let mut values = match self.planted.is(Bug::PagesByPosition) {
            false => shown(siblings, before),
            true => shown(siblings, &[]).into_iter().skip(before.len()).collect(),
        };
        let mut bytes = 0;
        let fits = |(_, version): &&(Dot, &Version)| {
            let first = bytes == 0;
            bytes += version.value.as_ref().map_or(0, |value| value.len()).max(1);
            first || bytes <= self.page_bytes
        };
        let count = values.iter().take_while(fits).count();
        let more = count < values.len();
        values.truncate(count);
        if !values.is_empty() {
            self.metrics.reads_found.inc_by(u64::from(before.is_empty()));
            self.metrics.siblings_read.inc_by(values.len() as u64);
        }
        let page = (more || !before.is_empty()).then(|| {
            self.metrics.read_pages.inc();
            // Of two stamps of one write, shown by answers from different states, one is enough.
            let mut names = BTreeSet::new();
            let mut is_gone = |dot: &&Dot| {
                siblings.get(**dot).is_none_or(|version| !names.insert((version.write_id, &version.value)))
            };
            let gone = before.iter().filter(|dot| !more && is_gone(dot)).copied().collect();
            ReadPage { dots: values.iter().map(|(dot, _)| *dot).collect(), more, gone }
        });
        let context = (!siblings.is_empty() && !more).then(|| self.seal(bucket, key, siblings));
        let siblings = values
            .into_iter()
            .map(|(_, version)| Sibling {
                value: version.value.clone().unwrap_or_default(),
                written_at: version.written_at,
            })
            .collect();
        Read { siblings, context, basis, page, explanation: None }
    }

    /// All that is live, or as much of what was not shown before as fits into an answer: see [`StatePage`]. Here each stamp of a write
    /// counts for itself.
    fn state_page(&self, siblings: &Siblings, before: &[Dot]) -> StatePage {
        let before: BTreeSet<Dot> = before.iter().copied().collect();
        let mut bytes = 0;
        let fits = |(_, version): &&(Dot, Version)| {
            let first = bytes == 0;
            bytes += version.value.as_ref().map_or(0, |value| value.len()) + DOT_BYTES;
            first || bytes <= self.page_bytes
        };
        let new: Vec<_> = siblings.live().iter().filter(|(dot, _)| !before.contains(dot)).collect();
        let live: Vec<_> = new.iter().copied().take_while(fits).cloned().collect();
        if live.len() < new.len() && !self.planted.is(Bug::StateCutShort) {
            return StatePage { live, vv: None, gone: Vec::new() };
        }
        let gone = before.into_iter().filter(|dot| siblings.get(*dot).is_none()).collect();
        StatePage { live, vv: Some(siblings.vv().clone()), gone }
    }

    /// A put's answer carries a context only if what was written is the only value: with it the client would overwrite
    /// siblings that it never saw. Tombstones it may overwrite: they hold nothing.
    fn context_of_put(&self, bucket: BucketId, key: &Key, dot: Dot, siblings: &Siblings) -> Option<ContextToken> {
        let alone = siblings.get(dot).is_some_and(|version| !version.is_tombstone()) && siblings.values().count() == 1;
        (alone || self.planted.is(Bug::ContextWithSiblings)).then(|| self.seal(bucket, key, siblings))
    }

    fn seal(&self, bucket: BucketId, key: &Key, siblings: &Siblings) -> ContextToken {
        let context = Context { vv: siblings.vv().clone(), written_at: siblings.written_at() };
        self.keys.seal(bucket, key, &context)
    }
}

/// What names a write, and when it was written, as it is sent.
const DOT_BYTES: usize = 64;

/// The values that a client sees beside those that it was shown before: two stamps of one write, same id and same value, are
/// one to it.
pub(super) fn shown<'a>(siblings: &'a Siblings, before: &[Dot]) -> Vec<(Dot, &'a Version)> {
    let before: BTreeSet<Dot> = before.iter().copied().collect();
    let name = |version: &'a Version| (version.write_id, &version.value);
    let mut seen: BTreeSet<_> = before.iter().filter_map(|dot| siblings.get(*dot)).map(name).collect();
    let values = siblings.live().iter().filter(|(_, version)| !version.is_tombstone());
    let new = values.filter(|(dot, version)| !before.contains(dot) && seen.insert(name(version)));
    new.map(|(dot, version)| (*dot, version)).collect()
}

/// A state in one line: what was seen, and which dots are live (`†` marks a tombstone).
pub(super) fn describe(header: &Header) -> String {
    if header.is_empty() {
        return "never seen".to_owned();
    }
    let seen = listed(header.vv().iter(), |(actor, counter)| Dot::new(actor, counter).to_string());
    let mark = |outline: &driftless_proto::Outline| if outline.is_tombstone() { "†" } else { "" };
    let live = listed(header.live().iter(), |(dot, outline)| format!("{dot}{}", mark(outline)));
    format!("seen {seen} | live {live}")
}

/// As many as a person may want to look at, and how many more there are.
fn listed<T>(mut all: impl Iterator<Item = T>, show: impl Fn(T) -> String) -> String {
    let mut text = String::new();
    while text.len() < LISTED_BYTES
        && let Some(one) = all.next()
    {
        if !text.is_empty() {
            text.push(' ');
        }
        text += &show(one);
    }
    match all.count() {
        0 => text,
        more => format!("{text} … and {more} more"),
    }
}

/// Of each half of a state in words: it may have a quarter of a million entries.
const LISTED_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_state_is_cut_and_the_rest_is_counted() {
        let short = listed(0..3, |i| i.to_string());
        assert_eq!(short, "0 1 2");
        let long = listed(0..262_144, |i| format!("0eb8a6a5c7cb9d7e:{i:06}"));
        assert!(long.len() < LISTED_BYTES + 64, "{} bytes", long.len());
        assert!(long.ends_with(" … and 262058 more"), "{}", &long[long.len() - 40..]);
    }
}
