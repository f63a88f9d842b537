//! What a node is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use driftless_proto::membership::StoreId;
use driftless_proto::{ContextKeys, Topology};
use driftless_ring::Member;

use crate::config::{Access, Limits};
use crate::metrics::Metrics;
use crate::peer::Incarnation;

use super::keeper::AgreementKeeper;
use super::limits::NetLimits;
use super::lives::LifeKeeper;
use super::look::Look;
use super::tls::{TlsFiles, TlsIdentity};

/// Everything a node is started with, beside its stores.
#[derive(Clone)]
pub struct NodeSettings {
    /// Name of this member, as the topology and the certificate have it.
    pub name: String,
    /// UDP address of shard 0; shard `k` listens `k` ports above.
    pub listen: SocketAddr,
    /// TCP address of `/metrics`, `/health`, `/ready` and `/status`; loopback only. None: no admin server.
    pub admin: Option<SocketAddr>,
    /// Certificate, key, and the cluster's authority.
    pub tls: TlsIdentity,
    /// What is allowed to whom.
    pub security: Security,
    /// The shape of the cluster as its file has it: what counts until the nodes have agreed on another, and whom to ask first.
    pub topology: Arc<Topology>,
    /// This node as it would be a member; needed if neither the file nor what was agreed on has it.
    pub member: Option<Member>,
    /// Names the data that it runs on.
    pub store: StoreId,
    /// Where what is agreed on is written down, if that outlives the process.
    pub agreement: Option<Arc<dyn AgreementKeeper>>,
    /// Seals and opens context tokens; the same on every node.
    pub context_keys: ContextKeys,
    /// Bounds and times of the machines.
    pub limits: Limits,
    /// Bounds and times of connections.
    pub net: NetLimits,
    /// Which life of the store this is.
    pub incarnation: Incarnation,
    /// Where a later life is written down, if the store outlives the process.
    pub lives: Option<Arc<dyn LifeKeeper>>,
    /// 64 random bytes that the data directory keeps for as long as it lives.
    pub reset_key: [u8; 64],
    /// What to count.
    pub metrics: Arc<Metrics>,
}

/// What is allowed to whom. By default what it is without an access file.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Who may do what, and who is not let in.
    pub access: Access,
    /// The files that are read again when they change; none if there are none.
    pub files: Option<CredentialFiles>,
    /// Whether the events of the target `audit` name keys.
    pub audit_keys: bool,
    /// TCP address of the pages of `admin` over TLS, for other machines: `/health` and `/ready` for anybody, the others for who shows a
    /// certificate of the cluster that may read. None: there is none.
    pub admin_remote: Option<SocketAddr>,
}

/// Where what can be changed while a node runs comes from, and how these files looked before they were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFiles {
    pub(crate) tls: TlsFiles,
    pub(crate) context_key: PathBuf,
    pub(crate) access: Option<PathBuf>,
    looks: Vec<(PathBuf, Option<Look>)>,
}

impl CredentialFiles {
    /// The own certificate and key and the authorities that are trusted, the keys that seal context tokens, and the access file if
    /// there is one. To be called before they are read: what changes from then on is noticed.
    pub fn watch(tls: TlsFiles, context_key: PathBuf, access: Option<PathBuf>) -> CredentialFiles {
        let paths = [&tls.ca, &tls.cert, &tls.key, &context_key].into_iter().chain(&access);
        let looks = paths.map(|path| (path.clone(), Look::at(path))).collect();
        CredentialFiles { tls, context_key, access, looks }
    }

    /// How one of them looked before it was read.
    pub(crate) fn look(&self, path: &Path) -> Option<Look> {
        self.looks.iter().find(|(of, _)| of == path).and_then(|(_, look)| *look)
    }
}
