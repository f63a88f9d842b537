//! A shard's QUIC endpoint: what it shows on connections that others open, and on those that it opens itself.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ClientConfig, ConnectError, Connecting, Endpoint, ServerConfig, TransportConfig};

use super::certificates::NODE_SERVER_NAME;
use super::credentials::Shown;

/// The endpoint, and the certificates that it uses now.
pub(crate) struct ShardEndpoint {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    server: RefCell<ServerConfig>,
    dialer: RefCell<ClientConfig>,
}

impl ShardEndpoint {
    /// An endpoint is opened with a server's configuration: see [`ShardEndpoint::server`].
    pub(crate) fn new(
        endpoint: Endpoint,
        transport: Arc<TransportConfig>,
        server: ServerConfig,
        shown: Shown,
    ) -> ShardEndpoint {
        let dialer = RefCell::new(dialer(shown, &transport));
        ShardEndpoint { endpoint, transport, server: RefCell::new(server), dialer }
    }

    /// What an endpoint is opened with.
    pub(crate) fn server(shown: Shown, transport: Arc<TransportConfig>) -> ServerConfig {
        let mut server = ServerConfig::with_crypto(shown.server);
        server.transport_config(transport);
        server
    }

    pub(crate) fn quic(&self) -> &Endpoint {
        &self.endpoint
    }

    /// New connections show this from now on. The rest stays: a Retry that is under way was sealed by the configuration that
    /// is there, and would else be sealed by nobody.
    pub(crate) fn renew(&self, shown: Shown) {
        let mut server = self.server.borrow_mut();
        server.crypto = shown.server.clone();
        self.endpoint.set_server_config(Some(server.clone()));
        *self.dialer.borrow_mut() = dialer(shown, &self.transport);
    }

    /// Calls another node.
    pub(crate) fn dial(&self, address: SocketAddr) -> Result<Connecting, ConnectError> {
        let dialer = self.dialer.borrow().clone();
        self.endpoint.connect_with(dialer, address, NODE_SERVER_NAME)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
}

fn dialer(shown: Shown, transport: &Arc<TransportConfig>) -> ClientConfig {
    let mut dialer = ClientConfig::new(shown.dialer);
    dialer.transport_config(transport.clone());
    dialer
}
