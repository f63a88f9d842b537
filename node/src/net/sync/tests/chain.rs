//! The whole chain of an acknowledgement, over the real store: engine, wish, thread, syncer, log, and back. The test
//! stands before the log, and lets one sync through after the other.

use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use driftless_proto::client::{Put, Request, Response};
use driftless_proto::{BucketId, Hlc, Key, WriteId};
use driftless_ring::NodeId;
use driftless_testkit::{TopologyBuilder, context_keys};

use crate::config::Limits;
use crate::configurations::Configurations;
use crate::engine::{ClientTag, Engine, EngineConfig, Output};
use crate::planted::Planted;
use crate::store::log::{FileSync, LogDatabase, LogOptions, LogStore, ResourceProbe};
use crate::time::{Instant as EngineInstant, Now};

use super::*;

/// What happens, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// The log is about to be made durable.
    Log,
    /// The shard hears that its batches up to this one are durable.
    Synced(BatchSeq),
}

/// A node of its own: one shard over a database, and a thread that syncs.
struct Shard {
    engine: Engine<LogStore>,
    queue: SyncQueue,
    events: Receiver<Event>,
    /// Lets a sync of the log happen.
    go: Sender<()>,
    thread: std::thread::JoinHandle<Result<(), StoreError>>,
    replies: Vec<u64>,
    // After the store in it.
    _folder: tempfile::TempDir,
}

impl Shard {
    fn start(planted: Planted) -> Shard {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let ((tell, events), (go, gone)) = (mpsc::channel(), mpsc::channel());
        let (at_log, gone) = (tell.clone(), Mutex::new(gone));
        let file_sync = FileSync::new(move |log| {
            // The store opens, and makes segments behind everybody's back, without asking.
            if std::thread::current().name() != Some(SYNC_THREAD) {
                return log.sync_data();
            }
            // The test may be over, and the last sync nobody's.
            let _ = at_log.send(Event::Log);
            let _ = gone.lock().expect("does not panic").recv();
            log.sync_data()
        });
        let space_probe = Some(ResourceProbe::new(|| Ok(1 << 40)));
        let options = LogOptions { file_sync, space_probe, planted, ..LogOptions::default() };
        let database = LogDatabase::open(folder.path(), options).expect("opens");
        let (queue, syncer) = (SyncQueue::new(1), database.syncer());
        let runner = queue.clone();
        let thread = std::thread::Builder::new().name(SYNC_THREAD.to_owned()).spawn(move || {
            runner.run(&syncer, &Metrics::default(), |_, batch| {
                let _ = tell.send(Event::Synced(batch));
            })
        });
        let thread = thread.expect("a thread can be started");
        let engine = Engine::new(config(), database.store(0), NOW);
        let mut shard = Shard { engine, queue, events, go, thread, replies: Vec::new(), _folder: folder };
        shard.turn();
        assert_eq!(shard.next(), Event::Synced(BatchSeq(0)), "nothing was there to be synced");
        shard
    }

    fn put(&mut self, request: u64) {
        let put = Put {
            bucket: BucketId(0),
            key: Key::new("key").expect("a key"),
            value: Bytes::from_static(b"value"),
            context: None,
            w: None,
            sloppy: None,
            write_id: WriteId(request.into()),
        };
        let tag = ClientTag { connection: 0, request };
        self.engine.handle_client(NOW, tag, NOW.instant, EngineInstant(u64::MAX), Request::Put(put));
        self.turn();
    }

    fn turn(&mut self) {
        self.engine.commit(NOW);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Sync(batch) => self.queue.wish(0, batch),
                Output::Reply { to, response: Response::Stored(_) } => self.replies.push(to.request),
                other => panic!("a node of its own that works does not say {other:?}"),
            }
        }
    }

    /// The next thing that happens; what the shard hears goes to its engine.
    fn next(&mut self) -> Event {
        let event = self.events.recv().expect("the thread runs");
        if let Event::Synced(batch) = event {
            self.engine.handle_synced(NOW, batch);
            self.turn();
        }
        event
    }

    fn let_through(&self) {
        self.go.send(()).expect("the thread runs");
    }

    fn stop(self) {
        let Shard { queue, go, thread, .. } = self;
        drop(go);
        queue.stop();
        assert_eq!(thread.join().expect("does not panic"), Ok(()));
    }
}

const SYNC_THREAD: &str = "sync";

fn config() -> EngineConfig {
    EngineConfig {
        node: NodeId::of_name("n1"),
        shard: 0,
        configurations: Arc::new(Configurations::of_file(TopologyBuilder::of(["n1"]).shared())),
        context_keys: context_keys(),
        limits: Limits::default(),
        metrics: Arc::default(),
        seed: [7; 32],
        planted: Planted::default(),
    }
}

/// `LogSyncer::sync` once noted what it covered after the fsync, in an experiment: every test passed, power cuts included.
#[test]
fn a_put_applied_during_a_sync_is_acknowledged_after_another() {
    let mut shard = Shard::start(Planted::default());
    shard.put(1);
    assert_eq!(shard.next(), Event::Log);
    shard.put(2);
    shard.let_through();
    assert_eq!(shard.next(), Event::Synced(BatchSeq(1)));
    assert_eq!(shard.replies, [1], "the sync began before the second put");
    assert_eq!(shard.next(), Event::Log, "no word of the second put before another sync");
    shard.put(3);
    shard.let_through();
    assert_eq!(shard.next(), Event::Synced(BatchSeq(2)));
    assert_eq!(shard.replies, [1, 2]);
    assert_eq!(shard.next(), Event::Log);
    shard.let_through();
    assert_eq!(shard.next(), Event::Synced(BatchSeq(3)));
    assert_eq!(shard.replies, [1, 2, 3]);
    shard.stop();
}

/// The same with the mistake made: were the test above to pass, it would look at nothing.
#[test]
#[cfg(feature = "planted-bugs")]
fn the_chain_shows_a_sync_that_is_noted_late() {
    let planted = Planted::bug(crate::planted::Bug::SyncNotedLate);
    let mut shard = Shard::start(planted.clone());
    shard.put(1);
    assert_eq!(shard.next(), Event::Log);
    shard.put(2);
    shard.let_through();
    assert_eq!(shard.next(), Event::Synced(BatchSeq(1)));
    assert_eq!(shard.next(), Event::Synced(BatchSeq(2)), "acknowledged, and no sync has seen it");
    assert_eq!((planted.hits(), &shard.replies[..]), (1, &[1, 2][..]));
    shard.stop();
}

const NOW: Now = Now { instant: EngineInstant(1_000_000), wall: Hlc(1_000_000 << 16) };
