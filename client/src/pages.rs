//! A key that does not fit into one answer is read in several, which are put together here: see [`ReadPage`].

use driftless_proto::Dot;
use driftless_proto::client::{Read, ReadPage, Sibling};

/// What the answers to one read have shown so far.
#[derive(Default)]
pub(crate) struct Pages {
    shown: Vec<(Dot, Sibling)>,
}

/// What an answer makes of a read.
pub(crate) enum Turned {
    /// This is all of it.
    Whole(Box<Read>),
    /// There is more: ask again.
    More,
    /// The answer does not fit the request.
    Misread,
}

impl Pages {
    /// What to tell the node next.
    pub(crate) fn shown(&self) -> Vec<Dot> {
        self.shown.iter().map(|(dot, _)| *dot).collect()
    }

    /// Takes in an answer. After the last one this is the state that it was made from.
    pub(crate) fn turn(&mut self, mut read: Read) -> Turned {
        let Some(ReadPage { dots, more, gone }) = read.page.take() else {
            return if self.shown.is_empty() { Turned::Whole(Box::new(read)) } else { Turned::Misread };
        };
        // A page that shows nothing and promises more would never come to an end.
        if dots.len() != read.siblings.len() || (more && dots.is_empty()) {
            return Turned::Misread;
        }
        self.shown.extend(dots.into_iter().zip(read.siblings.drain(..)));
        if more {
            return Turned::More;
        }
        self.shown.retain(|(dot, _)| !gone.contains(dot));
        self.shown.sort_by_key(|(dot, _)| *dot);
        read.siblings = std::mem::take(&mut self.shown).into_iter().map(|(_, sibling)| sibling).collect();
        Turned::Whole(Box::new(read))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use driftless_proto::causality::ActorId;
    use driftless_proto::client::Basis;
    use driftless_proto::{ContextToken, Hlc};

    use super::*;

    fn dot(counter: u64) -> Dot {
        Dot::new(ActorId(1), counter)
    }

    fn page(counters: &[u64], more: bool, gone: &[u64]) -> Read {
        let sibling = |counter: &u64| Sibling { value: Bytes::from(counter.to_string()), written_at: Hlc(*counter) };
        Read {
            siblings: counters.iter().map(sibling).collect(),
            context: (!more).then(|| ContextToken::from(Bytes::from_static(b"seen"))),
            page: Some(ReadPage {
                dots: counters.iter().map(|counter| dot(*counter)).collect(),
                more,
                gone: gone.iter().map(|counter| dot(*counter)).collect(),
            }),
            basis: Basis { needed: 2, primaries: 2 },
            explanation: None,
        }
    }

    #[test]
    fn a_read_in_several_answers_is_the_state_of_the_last_one() {
        let mut pages = Pages::default();
        assert!(matches!(pages.turn(page(&[2, 3], true, &[])), Turned::More));
        assert_eq!(pages.shown(), [dot(2), dot(3)]);
        assert!(matches!(pages.turn(page(&[4], true, &[])), Turned::More));
        // Something came in between, at the front, and replaced one of what was shown.
        let Turned::Whole(read) = pages.turn(page(&[1, 5], false, &[3])) else { panic!("it is the last") };
        let values: Vec<_> = read.siblings.iter().map(|sibling| sibling.written_at.0).collect();
        assert_eq!(values, [1, 2, 4, 5]);
        assert!(read.context.is_some() && read.page.is_none());
    }

    #[test]
    fn a_read_in_one_answer_is_that() {
        let mut read = page(&[1], false, &[]);
        read.page = None;
        assert!(matches!(Pages::default().turn(read), Turned::Whole(read) if read.siblings.len() == 1));
    }

    #[test]
    fn answers_that_lead_nowhere_are_not_followed() {
        assert!(matches!(Pages::default().turn(page(&[], true, &[])), Turned::Misread));
        let mut crooked = page(&[1, 2], true, &[]);
        crooked.siblings.pop();
        assert!(matches!(Pages::default().turn(crooked), Turned::Misread));
        let mut pages = Pages::default();
        assert!(matches!(pages.turn(page(&[1], true, &[])), Turned::More));
        let mut alone = page(&[2], false, &[]);
        alone.page = None;
        assert!(matches!(pages.turn(alone), Turned::Misread));
    }
}
