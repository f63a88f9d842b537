//! What is told of a sync, and when.

use std::sync::mpsc;

use super::*;

#[cfg(feature = "disk")]
mod chain;

struct Gate(mpsc::Receiver<Result<(), StoreError>>);

impl Syncer for Gate {
    fn sync(&self) -> Result<(), StoreError> {
        self.0.recv().expect("the test lets every sync through")
    }
}

#[test]
fn wishes_made_during_a_sync_share_the_next_one() {
    let queue = SyncQueue::new(2);
    let (open, gate) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let runner = queue.clone();
    let thread = std::thread::spawn(move || {
        let metrics = Metrics::default();
        runner.run(&Gate(gate), &metrics, |shard, batch| {
            tell.send((shard, batch)).expect("is heard");
        })
    });
    queue.wish(0, BatchSeq(1));
    open.send(Ok(())).expect("runs");
    assert_eq!(told.recv(), Ok((0, BatchSeq(1))));
    queue.wish(0, BatchSeq(2));
    // Whether or not the second sync has begun, what is wished now is covered by it or by one more.
    queue.wish(1, BatchSeq(7));
    queue.wish(0, BatchSeq(3));
    open.send(Ok(())).expect("runs");
    open.send(Ok(())).expect("runs");
    let mut heard = Vec::new();
    while !(heard.contains(&(0, BatchSeq(3))) && heard.contains(&(1, BatchSeq(7)))) {
        heard.push(told.recv().expect("every wish is answered"));
    }
    queue.stop();
    // The last sync may have taken what an earlier one did not need.
    let _ = open.send(Ok(()));
    assert_eq!(thread.join().expect("does not panic"), Ok(()));
}

#[test]
fn nothing_is_synced_after_an_error() {
    let queue = SyncQueue::new(1);
    let (open, gate) = mpsc::channel();
    let failure = StoreError::Io("no such luck".to_owned());
    open.send(Err(failure.clone())).expect("is heard");
    queue.wish(0, BatchSeq(1));
    let ended = queue.run(&Gate(gate), &Metrics::default(), |_, _| panic!("was not synced"));
    assert_eq!(ended, Err(failure));
}
