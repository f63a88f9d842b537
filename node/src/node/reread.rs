//! The files that a running node reads again: when it is asked to (SIGHUP), and when they have changed.
//!
//! ```text
//! certificate, key, authorities   taken together, or refused together: what was there before stays
//! access file                     the same
//! context keys                    the same
//! ```
//! A change is taken when two looks in a row have found the same files, so that a certificate that is being copied is not
//! refused because its key is not there yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::NodeError;
use crate::config::{Access, read_context_keys};
use crate::net::credentials::Shown;
use crate::net::look::Look;
use crate::net::node_context::NodeContext;
use crate::net::settings::CredentialFiles;
use crate::net::tls::TlsIdentity;

/// The thread that does it.
pub(super) struct Rereader {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

/// What it is told.
enum Order {
    /// Read everything again now, and say when that is done.
    Reread(oneshot::Sender<()>),
    Stop,
}

/// Files that are taken or refused together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Set {
    Certificates,
    Access,
    ContextKeys,
}

/// A set, and how its files looked.
struct Watched {
    set: Set,
    paths: Vec<PathBuf>,
    /// When they were read last.
    read: Vec<Option<Look>>,
    /// When they were looked at last.
    seen: Vec<Option<Look>>,
}

impl Rereader {
    /// Starts the thread. The files have been read.
    pub(super) fn start(shared: &Arc<NodeContext>, files: CredentialFiles) -> Result<Rereader, NodeError> {
        let (orders, taken) = channel();
        let reader = Reader { watched: watched(&files), files, shared: shared.clone() };
        let thread = super::spawn(shared, "reread".to_owned(), move || reader.run(&taken))?;
        Ok(Rereader { orders, thread })
    }

    /// Reads everything again, soon. What is given back is told when that is done, whether it could be used or not.
    pub(super) fn reread(&self) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        // It fails only if the thread has panicked, which `stop` tells.
        let _ = self.orders.send(Order::Reread(done));
        told
    }

    /// Ends the thread. Whether it had panicked.
    pub(super) fn stop(self) -> bool {
        let _ = self.orders.send(Order::Stop);
        self.thread.join().is_err()
    }
}

struct Reader {
    shared: Arc<NodeContext>,
    files: CredentialFiles,
    watched: Vec<Watched>,
}

impl Reader {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(LOOK_INTERVAL) {
                Ok(Order::Reread(done)) => {
                    self.turn(|watched| {
                        watched.seen = watched.look();
                        true
                    });
                    // Nobody need wait for it.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.turn(Watched::has_settled),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reads the sets that are due. Each is noted as read whether it can be used or not: one that cannot is said to be so once.
    fn turn(&mut self, is_due: impl Fn(&mut Watched) -> bool) {
        let mut due = Vec::new();
        for watched in &mut self.watched {
            if is_due(watched) {
                let is_other = watched.read != watched.seen;
                watched.read = watched.seen.clone();
                due.push((watched.set, is_other));
            }
        }
        for (set, is_other) in due {
            self.reread(set, is_other);
        }
    }

    fn reread(&self, set: Set, is_other: bool) {
        let shared = &self.shared;
        let taken = match set {
            Set::Certificates => self.certificates(),
            Set::Access => self.access(),
            Set::ContextKeys => self.context_keys(),
        };
        let (node, what) = (&shared.name, set.name());
        let error = taken.err();
        match &error {
            None => {
                shared.metrics.credentials_reread.inc();
                let found = if is_other { "taken" } else { "unchanged" };
                tracing::info!(node, what, found, "read again");
            }
            Some(error) => {
                shared.metrics.credentials_refused.inc();
                tracing::error!(
                    node,
                    what,
                    error,
                    "what was read again cannot be used: the node goes on with what it had"
                );
            }
        }
        shared.audit.reread(shared, what, error.as_deref());
    }

    fn certificates(&self) -> Result<(), String> {
        let (shared, now) = (&self.shared, (self.shared.environment.wall)());
        let identity = TlsIdentity::load(&self.files.tls, now).map_err(|error| error.to_string())?;
        identity.expect_node(&shared.cluster, &shared.name).map_err(|error| error.to_string())?;
        let shown = Shown::of(&identity).map_err(|error| error.to_string())?;
        shared.credentials.show(shown);
        shared.note_certificate(&identity);
        shared.tell_credentials();
        Ok(())
    }

    fn access(&self) -> Result<(), String> {
        let Some(file) = &self.files.access else { return Ok(()) };
        let access = Access::read(file).map_err(|error| error.to_string())?;
        for unknown in access.unknown_buckets(&self.shared.topology()) {
            tracing::warn!(node = %self.shared.name, file = %file.display(), unknown, "the access file allows nothing there");
        }
        self.shared.credentials.allow(access);
        self.shared.tell_credentials();
        Ok(())
    }

    fn context_keys(&self) -> Result<(), String> {
        let keys = read_context_keys(&self.files.context_key).map_err(|error| error.to_string())?;
        self.shared.tell_context_keys(&keys);
        Ok(())
    }
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Set::Certificates => "certificates",
            Set::Access => "access file",
            Set::ContextKeys => "context keys",
        }
    }
}

impl Watched {
    /// What they are is known as of before they were read: the store may have taken minutes to open since.
    fn new(set: Set, paths: Vec<PathBuf>, files: &CredentialFiles) -> Watched {
        let read = paths.iter().map(|path| files.look(path)).collect();
        let mut watched = Watched { set, paths, read, seen: Vec::new() };
        watched.seen = watched.look();
        watched
    }

    /// Whether the files are others than those that were read, and the same as at the last look.
    fn has_settled(&mut self) -> bool {
        let now = self.look();
        let before = std::mem::replace(&mut self.seen, now);
        self.seen == before && self.seen != self.read
    }

    /// How its files look; `None` for one that is not there.
    fn look(&self) -> Vec<Option<Look>> {
        self.paths.iter().map(|path| Look::at(path)).collect()
    }
}

fn watched(files: &CredentialFiles) -> Vec<Watched> {
    let CredentialFiles { tls, context_key, access, .. } = files;
    let sets = [
        (Set::Certificates, vec![tls.ca.clone(), tls.cert.clone(), tls.key.clone()]),
        (Set::ContextKeys, vec![context_key.clone()]),
    ];
    let access = access.iter().map(|access| (Set::Access, vec![access.clone()]));
    sets.into_iter().chain(access).map(|(set, paths)| Watched::new(set, paths, files)).collect()
}

/// Often enough that a revocation takes effect within seconds without a signal; a look is a few system calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::TlsFiles;

    #[test]
    fn a_file_that_changes_between_its_reading_and_the_start_is_read_again() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "first").expect("writes");
            path
        };
        let tls = TlsFiles { ca: file("ca"), cert: file("cert"), key: file("key") };
        let files = CredentialFiles::watch(tls, file("context"), Some(file("access")));
        std::fs::write(folder.path().join("access"), "another").expect("writes");
        let due = |mut watched: Watched| watched.has_settled().then_some(watched.set);
        let due: Vec<Set> = watched(&files).into_iter().filter_map(due).collect();
        assert_eq!(due, [Set::Access]);
    }
}
