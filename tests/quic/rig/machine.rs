//! What a node runs on, and what of it survives the node.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use driftless_node::net::keeper::MemoryKeeper;
use driftless_node::net::sync::Syncer;
use driftless_node::node::local::LocalNode;
use driftless_node::replica::store::{ApplyError, Batch, BatchSeq, Listener, Store, StoreError};
use driftless_node::store::memory::MemoryStore;
use driftless_proto::membership::StoreId;

use super::socket::SimulatedSocket;

/// A host that runs a node.
pub(crate) struct Machine {
    /// Of the host; two may run nodes of one name.
    pub(crate) host: String,
    pub(crate) ip: IpAddr,
    /// Of the node.
    pub(crate) name: String,
    pub(crate) disks: Vec<Disk>,
    /// Names what is on its disks.
    pub(crate) store: StoreId,
    pub(crate) agreement: Arc<MemoryKeeper>,
    /// By how many milliseconds its wall clock is ahead.
    pub(crate) clock_ahead_ms: Arc<AtomicI64>,
    /// How often the node was started.
    pub(crate) starts: Cell<u64>,
    /// Set while the node runs.
    pub(crate) node: RefCell<Option<Rc<LocalNode>>>,
    pub(crate) sockets: RefCell<Vec<Weak<SimulatedSocket>>>,
}

impl Machine {
    /// The power fails: what was not synced is lost.
    pub(crate) fn power_cut(&self) {
        *self.node.borrow_mut() = None;
        for disk in &self.disks {
            disk.lock().crash();
        }
    }
}

/// The store of a shard, which stays where its node goes. Of what is asked for, some is not in memory, and there a moment later.
#[derive(Clone)]
pub(crate) struct Disk {
    stored: Arc<Mutex<MemoryStore>>,
    listener: Option<Listener>,
    fetches: bool,
    asked: Cell<usize>,
}

impl Disk {
    pub(crate) fn new(fetches: bool) -> Disk {
        Disk { stored: Arc::default(), listener: None, fetches, asked: Cell::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, MemoryStore> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every fifth time it is not, and whoever listens is told when it is. It may be the same that is asked for then.
    fn is_there(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        let is_there = !self.fetches || !self.asked.get().is_multiple_of(5);
        if !is_there && let Some(listener) = self.listener.clone() {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                listener();
            });
        }
        is_there
    }
}

impl Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.lock().get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.lock().scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        self.lock().apply(batch)
    }

    fn prepare(&self, _: &[u8]) -> bool {
        self.is_there()
    }

    fn prepare_range(&self, _: Range<&[u8]>, _: usize, _: usize) -> bool {
        self.is_there()
    }

    fn on_fetched(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }
}

/// Syncs all disks of a machine.
pub(crate) struct Disks(pub(crate) Vec<Disk>);

impl Syncer for Disks {
    fn sync(&self) -> Result<(), StoreError> {
        for disk in &self.0 {
            disk.lock().sync();
        }
        Ok(())
    }
}
