//! What is counted of keys while requests are coordinated: which were asked for, and what machines found them to be.

use driftless_proto::client::Request;
use driftless_proto::{BucketId, Failure, Key, Siblings};
use driftless_ring::Token;

use crate::shard::Shard;
use crate::time::Now;
use crate::top::Top;

use super::{Answer, Question};

/// A client asks. A read that goes on with the next page is the same read; what backups ask says nothing of what is hot.
pub(super) fn asked(top: &mut Top, shard: &Shard, now: Now, request: &Request) {
    if !top.watches() {
        return;
    }
    let (bucket, key, is_read) = match request {
        Request::Get(get) if get.shown.is_empty() => (get.bucket, &get.key, true),
        Request::Put(put) => (put.bucket, &put.key, false),
        Request::Delete(delete) => (delete.bucket, &delete.key, false),
        _ => return,
    };
    if let Some(token) = token(shard, bucket, key) {
        top.asked(now.instant, bucket, token, is_read, key.as_bytes());
    }
}

/// A machine has found this out.
pub(super) fn saw(top: &mut Top, shard: &Shard, now: Now, question: &Question, result: &Result<Answer, Failure>) {
    let (bucket, key) = match question {
        _ if !top.watches() => return,
        Question::Get { bucket, key, .. } | Question::Put { bucket, key, .. } | Question::State { bucket, key, .. } => {
            (*bucket, key)
        }
        Question::Delete(deletion) => (deletion.delete.bucket, &deletion.delete.key),
        Question::Restore { .. } | Question::Other => return,
    };
    let nothing = Siblings::default();
    let state = match result {
        Ok(Answer::Read { siblings, .. } | Answer::Written { siblings, .. }) => siblings,
        Ok(Answer::Covered { values: 0, .. }) => &nothing,
        _ => return,
    };
    if let Some(token) = token(shard, bucket, key) {
        top.saw(now.instant, bucket, token, state, key.as_bytes());
    }
}

/// `None` if there is no such bucket: nothing is kept for names that anybody makes up.
fn token(shard: &Shard, bucket: BucketId, key: &Key) -> Option<Token> {
    Some(shard.topology.place(shard.topology.bucket(bucket)?, key).token)
}
