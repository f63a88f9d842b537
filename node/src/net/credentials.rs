//! What a node shows of itself, whom it trusts and what it allows: all that can be changed while it runs.
//!
//! ```text
//! files ──▶ node::reread ──────┐
//! newest record ─▶ NodeContext ┴▶ Credentials ─▶ ShardMessage::Credentials ─▶ every shard: ShardEndpoint, Admitted
//!                                      ▲ asked by dialers and by Rights
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use driftless_proto::{AgreedAccess, Serial};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::allowed::Allowed;
use super::tls::{TlsError, TlsIdentity};
use crate::config::Access;

/// One per node, shared by its shards.
pub(crate) struct Credentials {
    /// Counts how often what is allowed has changed.
    access_version: AtomicU64,
    held: RwLock<Held>,
}

struct Held {
    shown: Shown,
    allowed: Arc<Allowed>,
}

/// For new connections: the own certificate, and the authorities that are trusted.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) dialer: Arc<QuicClientConfig>,
    /// For the admin server.
    pub(crate) admin: Arc<rustls::ServerConfig>,
    /// The numbers of the own certificate and of those between it and an authority.
    serials: Vec<Serial>,
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
            serials: identity.serials().to_vec(),
        })
    }
}

impl Credentials {
    pub(crate) fn new(shown: Shown, file: Access, agreed: Arc<AgreedAccess>) -> Credentials {
        let allowed = Arc::new(Allowed { file, agreed, own: shown.serials.clone() });
        Credentials { access_version: AtomicU64::new(0), held: RwLock::new(Held { shown, allowed }) }
    }

    /// What new connections are made with.
    pub(crate) fn shown(&self) -> Shown {
        self.held.read().unwrap_or_else(PoisonError::into_inner).shown.clone()
    }

    /// What is allowed, and which version of it that is.
    pub(crate) fn allowed(&self) -> (u64, Arc<Allowed>) {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        (self.access_version(), held.allowed.clone())
    }

    /// Changes whenever what is allowed does.
    pub(crate) fn access_version(&self) -> u64 {
        self.access_version.load(Ordering::Acquire)
    }

    pub(crate) fn show(&self, shown: Shown) {
        let own = shown.serials.clone();
        self.held.write().unwrap_or_else(PoisonError::into_inner).shown = shown;
        self.change(|allowed| allowed.own = own);
    }

    /// The access file says this from now on.
    pub(crate) fn allow(&self, file: Access) {
        self.change(|allowed| allowed.file = file);
    }

    /// The cluster agrees on this from now on. Whether that is news.
    pub(crate) fn agree(&self, agreed: Arc<AgreedAccess>) -> bool {
        self.change(|allowed| allowed.agreed = agreed)
    }

    fn change(&self, change: impl FnOnce(&mut Allowed)) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut allowed = Allowed::clone(&held.allowed);
        change(&mut allowed);
        if allowed == *held.allowed {
            return false;
        }
        held.allowed = Arc::new(allowed);
        // Under the lock: who sees the new version finds what it is the version of.
        self.access_version.fetch_add(1, Ordering::Release);
        true
    }
}
