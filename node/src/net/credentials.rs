//! What a node shows of itself, whom it trusts and what it allows: all that can be changed while it runs.
//!
//! ```text
//! files ─▶ node::reread ─▶ Credentials ─▶ ShardMessage::Credentials ─▶ every shard: ShardEndpoint, Admitted
//!                               ▲ asked by dialers and by Rights
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::tls::{TlsError, TlsIdentity};
use crate::config::Access;

/// One per node, shared by its shards.
pub(crate) struct Credentials {
    /// Counts how often the access file has changed.
    access_version: AtomicU64,
    held: RwLock<Held>,
}

struct Held {
    shown: Shown,
    access: Arc<Access>,
}

/// For new connections: the own certificate, and the authorities that are trusted.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) dialer: Arc<QuicClientConfig>,
    /// For the admin server.
    pub(crate) admin: Arc<rustls::ServerConfig>,
}

impl Shown {
    /// Of an identity.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(crate) fn of(identity: &TlsIdentity) -> Result<Shown, TlsError> {
        Ok(Shown {
            server: Arc::new(identity.server()?),
            dialer: Arc::new(identity.dialer()?),
            admin: Arc::new(identity.admin()?),
        })
    }
}

impl Credentials {
    pub(crate) fn new(shown: Shown, access: Access) -> Credentials {
        Credentials { access_version: AtomicU64::new(0), held: RwLock::new(Held { shown, access: Arc::new(access) }) }
    }

    /// What new connections are made with.
    pub(crate) fn shown(&self) -> Shown {
        self.held.read().unwrap_or_else(PoisonError::into_inner).shown.clone()
    }

    /// What is allowed, and which version of it that is.
    pub(crate) fn access(&self) -> (u64, Arc<Access>) {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        (self.access_version(), held.access.clone())
    }

    /// Changes whenever what is allowed does.
    pub(crate) fn access_version(&self) -> u64 {
        self.access_version.load(Ordering::Acquire)
    }

    pub(crate) fn show(&self, shown: Shown) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).shown = shown;
    }

    pub(crate) fn allow(&self, access: Access) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.access = Arc::new(access);
        // Under the lock: who sees the new version finds what it is the version of.
        self.access_version.fetch_add(1, Ordering::Release);
    }
}
