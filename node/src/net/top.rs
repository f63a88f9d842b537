//! Which keys are hot, from all shards of the node to the client that asks.
//!
//! ```text
//! client ──▶ a shard ── Top(gathering) ──▶ every shard     each says what it has counted; the last one joins it all and answers
//!               └── one is under way: waits, or is told that too many do
//! ```
//! It is the shards that count, each for itself and without a lock, so each has to be asked. Nothing is gathered while nobody asks, and
//! never for two questions at once: what the shards say takes memory that nobody is charged with.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use driftless_proto::client::Response;
use driftless_proto::top::{self, Keys, Top, TopCommand};

use super::node_context::{NodeContext, ShardMessage};
use crate::engine::ClientTag;
use crate::top::BUCKETS_MAX;

/// One question under way.
pub(crate) struct Gathering {
    question: Question,
    told: Mutex<Vec<Top>>,
}

/// Who asks what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) to: ClientTag,
    pub(crate) command: TopCommand,
}

impl Gathering {
    /// What is asked.
    pub(crate) fn command(&self) -> &TopCommand {
        &self.question.command
    }

    /// A shard has said what it has counted: the answer and whose it is, if it was the last of so many.
    pub(crate) fn take(&self, told: Top, shards: usize) -> Option<(ClientTag, Response)> {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(told);
        let Question { to, command } = &self.question;
        let most = usize::try_from(command.most).unwrap_or(top::KEYS_MAX).min(top::KEYS_MAX);
        (all.len() == shards).then(|| {
            let joined = top::joined(&std::mem::take(&mut *all), Keys::Apart, most);
            (*to, Response::Top(Box::new(bounded(joined))))
        })
    }
}

/// With no more buckets than one shard counts, those that were asked for most: shards may count different ones, and an answer has to fit into
/// a frame.
fn bounded(mut top: Top) -> Top {
    if top.buckets.len() > BUCKETS_MAX {
        top.buckets.sort_by_key(|bucket| (Reverse(bucket.requests), bucket.bucket));
        let others = top.buckets.split_off(BUCKETS_MAX);
        top.uncounted = others.iter().map(|bucket| bucket.requests).fold(top.uncounted, u64::saturating_add);
        top.buckets.sort_by_key(|bucket| bucket.bucket);
    }
    top
}

/// The questions to a node: one is under way, and some wait.
#[derive(Default)]
pub(crate) struct Questions(Mutex<State>);

#[derive(Default)]
struct State {
    is_under_way: bool,
    waiting: VecDeque<Question>,
}

/// What is to be done with a question.
#[derive(PartialEq, Eq, Debug)]
enum Turn {
    Now(Question),
    Later,
    /// Too many wait.
    Never,
}

impl Questions {
    fn ask(&self, question: Question) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.is_under_way, true) {
            Turn::Now(question)
        } else if state.waiting.len() < WAITING_MAX {
            state.waiting.push_back(question);
            Turn::Later
        } else {
            Turn::Never
        }
    }

    /// The one that was under way is answered: whose turn it is.
    fn next(&self) -> Option<Question> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        state.is_under_way = next.is_some();
        next
    }
}

impl NodeContext {
    /// Asks all shards, now or once nobody else's question is under way; false if too many wait for that.
    pub(super) fn ask_for_top(&self, to: ClientTag, command: TopCommand) -> bool {
        match self.top_questions.ask(Question { to, command }) {
            Turn::Now(question) => self.gather(question),
            Turn::Later => {}
            Turn::Never => return false,
        }
        true
    }

    /// A question is answered: the next one is asked.
    pub(super) fn answered_top(&self) {
        if let Some(question) = self.top_questions.next() {
            self.gather(question);
        }
    }

    fn gather(&self, question: Question) {
        let gathering = Arc::new(Gathering { question, told: Mutex::default() });
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Top(Arc::clone(&gathering)));
        }
    }
}

/// Operators that look at once. One is answered within a turn of each shard.
const WAITING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use driftless_proto::BucketId;
    use driftless_proto::top::BucketTop;

    use super::*;

    fn question(request: u64) -> Question {
        let command = TopCommand { bucket: None, most: 5 };
        Question { to: ClientTag { connection: 1, request }, command }
    }

    #[test]
    fn one_question_is_under_way_some_wait_in_their_order_and_the_others_are_refused() {
        let questions = Questions::default();
        assert_eq!(questions.ask(question(0)), Turn::Now(question(0)));
        for number in 1..=WAITING_MAX as u64 {
            assert_eq!(questions.ask(question(number)), Turn::Later);
        }
        assert_eq!(questions.ask(question(99)), Turn::Never);
        for number in 1..=WAITING_MAX as u64 {
            assert_eq!(questions.next(), Some(question(number)));
        }
        assert_eq!(questions.next(), None);
        assert_eq!(questions.ask(question(7)), Turn::Now(question(7)), "nobody else asks any more");
    }

    /// Each of many shards may count 32 buckets of its own.
    #[test]
    fn an_answer_has_the_buckets_that_were_asked_for_most_and_counts_the_others() {
        let bucket = |id: u32, requests| BucketTop {
            bucket: BucketId(id),
            requests,
            hot: Vec::new(),
            floor: 0,
            large: Vec::new(),
            siblings: Vec::new(),
        };
        let shard = |buckets| Top { watches: true, span_ms: 9, uncounted: 1, buckets, ..Top::default() };
        let (few, many) = (BUCKETS_MAX as u32, 2 * BUCKETS_MAX as u32);
        let gathering = Gathering { question: question(3), told: Mutex::default() };
        assert_eq!(gathering.take(shard((0..few).map(|id| bucket(id, 2)).collect()), 2), None);
        let (to, response) =
            gathering.take(shard((few..many).map(|id| bucket(id, 3)).collect()), 2).expect("it is the last");
        let Response::Top(top) = response else { panic!("{response:?}") };
        assert_eq!((to, top.uncounted), (question(3).to, 2 + 2 * u64::from(few)));
        assert!(top.buckets.iter().map(|bucket| bucket.bucket.0).eq(few..many));
    }
}
