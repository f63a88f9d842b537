//! Puts the answers to a [`GetState`](crate::client::GetState) together.

use crate::causality::{Dot, MalformedSiblings, Siblings, Version};
use crate::client::StatePage;

/// What the answers to one read of a state have shown so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StatePages {
    live: Vec<(Dot, Version)>,
}

/// What an answer makes of a read.
#[derive(Clone, PartialEq, Debug)]
pub enum Turned {
    /// This is all of it.
    Whole(Siblings),
    /// There is more: ask again.
    More,
    /// The answer does not fit the request.
    Misread,
}

impl StatePages {
    /// What to tell the node next.
    pub fn shown(&self) -> Vec<Dot> {
        self.live.iter().map(|(dot, _)| *dot).collect()
    }

    /// Takes in an answer. After the last one this is the state that it was made from.
    pub fn turn(&mut self, page: StatePage) -> Turned {
        // A page that shows nothing and promises more would never come to an end.
        if page.vv.is_none() && page.live.is_empty() {
            return Turned::Misread;
        }
        self.live.extend(page.live);
        let Some(vv) = page.vv else { return Turned::More };
        self.live.retain(|(dot, _)| !page.gone.contains(dot));
        self.live.sort_by_key(|(dot, _)| *dot);
        match Siblings::from_parts(vv, std::mem::take(&mut self.live)) {
            Ok(state) => Turned::Whole(state),
            Err(MalformedSiblings) => Turned::Misread,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::causality::{ActorId, Hlc, VersionVector, WriteId};

    fn written(actor: u64, counter: u64) -> (Dot, Version) {
        let value = Some(Bytes::from_static(b"v"));
        (Dot::new(ActorId(actor), counter), Version { value, write_id: WriteId(0), written_at: Hlc(0) })
    }

    fn dots(dots: &[(u64, u64)]) -> Vec<Dot> {
        dots.iter().map(|(actor, counter)| Dot::new(ActorId(*actor), *counter)).collect()
    }

    fn page(live: Vec<(Dot, Version)>, vv: Option<VersionVector>, gone: &[(u64, u64)]) -> StatePage {
        StatePage { live, vv, gone: dots(gone) }
    }

    fn vv(seen: &[(u64, u64)]) -> Option<VersionVector> {
        Some(dots(seen).into_iter().collect())
    }

    #[test]
    fn a_state_in_several_answers_is_that_of_the_last_one() {
        let mut pages = StatePages::default();
        assert_eq!(pages.turn(page(vec![written(1, 1), written(2, 1)], None, &[])), Turned::More);
        assert_eq!(pages.shown(), dots(&[(1, 1), (2, 1)]));
        // One of them was replaced meanwhile, and something has come in at the front.
        let Turned::Whole(state) = pages.turn(page(vec![written(0, 1)], vv(&[(0, 1), (1, 2), (2, 1)]), &[(1, 1)]))
        else {
            panic!("it is the last")
        };
        assert_eq!(state.live().iter().map(|(dot, _)| *dot).collect::<Vec<_>>(), dots(&[(0, 1), (2, 1)]));
    }

    #[test]
    fn answers_that_make_no_state_are_not_taken_for_one() {
        let first = |page| StatePages::default().turn(page);
        assert_eq!(first(page(vec![], None, &[])), Turned::Misread, "it leads nowhere");
        assert_eq!(first(page(vec![written(1, 2)], vv(&[(1, 1)]), &[])), Turned::Misread, "nobody has seen it");
        let mut pages = StatePages::default();
        assert_eq!(pages.turn(page(vec![written(1, 1)], None, &[])), Turned::More);
        assert_eq!(pages.turn(page(vec![written(1, 1)], vv(&[(1, 1)]), &[])), Turned::Misread, "twice");
    }
}
