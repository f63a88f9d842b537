//! Threads for the sockets of clients: a process has few of them, however many clients it makes.
//!
//! A client leases one. As long as there are fewer threads than cores it is a new one; after that it is the one that the fewest
//! clients share. A thread ends when the last client on it is gone and its nodes have been told goodbye.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A thread with a single-threaded runtime on it.
pub(crate) struct IoThread {
    handle: Handle,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// The threads of this process. Those that nobody leases any more are left out when the next one is wanted.
static THREADS: Mutex<Vec<Weak<IoThread>>> = Mutex::new(Vec::new());

impl IoThread {
    /// A thread to keep for as long as anything shall run on it.
    ///
    /// # Errors
    /// What the system says if no thread or runtime can be had.
    pub(crate) fn lease() -> io::Result<Arc<IoThread>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // One push or a retain: a panic leaves no half state.
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        lease_of(&mut threads, cores.min(THREADS_MAX))
    }

    /// Where to spawn what shall run on it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A thread that is not leased to anybody else.
    ///
    /// # Errors
    /// What the system says if no thread or runtime can be had.
    pub(crate) fn start() -> io::Result<IoThread> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (report, started) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("driftless-client".into()).spawn(move || {
            // It lives and ends here: a runtime must not be dropped within another one, from which this may be called.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            if report.send(Ok(runtime.handle().clone())).is_err() {
                return;
            }
            // Nothing is ever sent; it ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
            // A name that is still being resolved must not keep the thread.
            runtime.shutdown_background();
        })?;
        let handle = started.recv().map_err(io::Error::other)??;
        Ok(IoThread { handle, _stop: stop })
    }
}

fn lease_of(threads: &mut Vec<Weak<IoThread>>, max: usize) -> io::Result<Arc<IoThread>> {
    threads.retain(|thread| thread.strong_count() > 0);
    if threads.len() >= max {
        let least = threads.iter().min_by_key(|thread| thread.strong_count()).and_then(Weak::upgrade);
        // Its last client may have gone just now.
        if let Some(thread) = least {
            return Ok(thread);
        }
    }
    let thread = Arc::new(IoThread::start()?);
    threads.push(Arc::downgrade(&thread));
    Ok(thread)
}

/// Eight threads encrypt more than most networks carry.
const THREADS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_clients_do_not_need_fifty_threads() {
        let mut threads = Vec::new();
        let leases: Vec<_> = (0..50).map(|_| lease_of(&mut threads, 2).expect("starts")).collect();
        assert_eq!(threads.len(), 2);
        let shared = leases.iter().filter(|lease| Arc::ptr_eq(lease, &leases[0])).count();
        assert_eq!(shared, 25, "both have as much to do");
    }

    /// The runtime was made where the client is, and dropped there if there was no thread for it: that panics within a runtime.
    #[test]
    fn the_runtime_is_made_and_ends_on_its_thread() {
        let outer = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let thread = outer.block_on(async { IoThread::start() }).expect("starts");
        let (report, ran) = std::sync::mpsc::channel();
        thread.handle().spawn(async move { report.send(std::thread::current().name().map(str::to_owned)) });
        assert_eq!(ran.recv().expect("runs").as_deref(), Some("driftless-client"));
        outer.block_on(async { drop(thread) });
    }

    #[test]
    fn a_thread_ends_with_its_last_client_and_the_next_client_gets_a_new_one() {
        let mut threads = Vec::new();
        let thread = lease_of(&mut threads, 1).expect("starts");
        let (report, ended) = std::sync::mpsc::channel::<()>();
        thread.handle().spawn(async move {
            let _report = report;
            std::future::pending::<()>().await;
        });
        drop(thread);
        assert!(ended.recv().is_err(), "its tasks are dropped with it");
        let next = lease_of(&mut threads, 1).expect("starts");
        assert_eq!(threads.len(), 1);
        let (report, ran) = std::sync::mpsc::channel();
        next.handle().spawn(async move { report.send(()) });
        assert_eq!(ran.recv(), Ok(()));
    }
}
